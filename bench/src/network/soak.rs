//! `bench/run soak`: devices that talk all the time while networks change at random, routers restart, paths die, devices and the base are
//! killed and started again. At the end every gap must belong to a fault of the plan (or to the machine, whose own witness stood still), no
//! process may have grown, and nobody may have panicked.
//!
//! The plan follows from a seed, which is printed. Faults come one after the other, some seconds apart; what one has broken may still be
//! broken when the next comes, as in life.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use bowline_lab::{Home, Internet, Lab, Nat, Node, Process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    device::clock,
    log::Log,
    pair::{Base, LEFT, Pair, RIGHT, Stack, delays, pass},
    witness::Witness,
};
use crate::say;

/// Pairs of devices: between ordinary routers, behind a pool and a full cone, and two that must use the relay.
const NATS: [[Nat; 2]; 3] =
    [[Nat::Home, Nat::Home], [Nat::PortPool, Nat::FullCone], [Nat::Symmetric, Nat::Symmetric]];
/// Faults come so far apart, s.
const APART: (u64, u64) = (4, 14);
/// Longer without a message than this is a gap: two silences and the relay's way round.
const GAP: Duration = Duration::from_millis(500);
/// After so long the memory of every process has taken its size.
const WARM: f64 = 0.25;
/// By so much a process may be larger at the end than when it was warm.
const GROWTH_KIB: u64 = 4096;
/// By so much it may have more descriptors.
const GROWTH_FDS: u64 = 6;
/// They are looked at over so many looks: a device that guesses ports has hundreds of sockets for twelve seconds.
const LOOKS_FOR_FDS: usize = 3;
/// Peers that a device has state for: the other one.
const PEERS: u64 = 1;
/// Address pairs with it: what the protocol allows.
const PAIRS: u64 = 32;
/// Between two looks at the processes.
const LOOK: Duration = Duration::from_secs(10);
const LISTEN: [&str; 1] = ["203.0.113.10:4477"];

/// What can happen to a pair, or to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Readdressed,
    OtherNetwork,
    NatReboots,
    PathDies,
    DeviceRestarts,
    BaseRestarts,
    BaseStops,
}

const FAULTS: [Fault; 7] = [
    Fault::Readdressed,
    Fault::OtherNetwork,
    Fault::NatReboots,
    Fault::PathDies,
    Fault::DeviceRestarts,
    Fault::BaseRestarts,
    Fault::BaseStops,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Readdressed => "another address",
            Self::OtherNetwork => "another network",
            Self::NatReboots => "NAT reboots",
            Self::PathDies => "direct path dies, 8 s",
            Self::DeviceRestarts => "device restarts",
            Self::BaseRestarts => "base is killed and restarted",
            Self::BaseStops => "base stands still, 3 s",
        }
    }

    /// A gap that begins so long after the fault is still its doing. Hosts that have lost a young session wait before
    /// they connect again; what they wait for doubles while the base is away.
    fn reach(self) -> Duration {
        Duration::from_secs(match self {
            Self::Readdressed | Self::OtherNetwork | Self::NatReboots | Self::DeviceRestarts => 5,
            Self::PathDies => 12,
            Self::BaseRestarts | Self::BaseStops => 20,
        })
    }
}

/// A fault that happened: to one pair, or to all.
#[derive(Debug, Clone, Copy)]
struct Happened {
    fault: Fault,
    pair: Option<usize>,
    from: u64,
    until: u64,
}

/// Inside a network of its own.
pub(crate) fn inside(lab: &Lab, minutes: f64, seed: u64) {
    let mut world = World::new(lab, seed);
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let began = clock();
    let mut next = Instant::now() + Duration::from_secs(10);
    let mut look = Instant::now();
    while Instant::now() < end {
        if Instant::now() >= look {
            world.look();
            look = Instant::now() + LOOK;
        }
        if Instant::now() >= next {
            world.fault();
            let (least, most) = APART;
            next = Instant::now() + Duration::from_secs(least + world.random() % (most - least));
        }
        pass(Duration::from_millis(200));
    }
    world.heal();
    pass(Duration::from_secs(5));
    world.look();
    say(&world.verdict(began).to_string());
}

struct World {
    seed: u64,
    base: Base,
    server: Node,
    teams: Vec<Team>,
    happened: Vec<Happened>,
    /// Memory in KiB and descriptors of every process over time; a process that restarts begins anew.
    looks: BTreeMap<String, Vec<(u64, u64)>>,
    /// Whether the machine itself keeps going.
    witness: Witness,
    _delays: Vec<bowline_lab::Delay>,
}

/// Two devices and the networks they move in: two homes for each.
struct Team {
    pair: Pair,
    homes: [[Home; 2]; 2],
    nats: [Nat; 2],
    devices: [Node; 2],
    /// In which of its homes each device is, and with which address.
    at: [(usize, u8); 2],
}

impl World {
    fn new(lab: &Lab, seed: u64) -> Self {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "base", 10);
        let base = Base::start(Stack::Bowline, &server, &LISTEN);
        let bystander = internet.server(lab, "bystander", 11);
        let mut edges = vec![server.clone(), bystander.clone()];
        let mut teams = Vec::new();
        for (at, nats) in NATS.into_iter().enumerate() {
            let homes = [LEFT, RIGHT].map(|side| {
                [0, 1].map(|which| {
                    let home = internet.home(lab, 20 + 4 * at as u8 + 2 * side as u8 + which, nats[side]);
                    edges.push(home.router.clone());
                    home
                })
            });
            let devices = [LEFT, RIGHT].map(|side| {
                let device = homes[side][0].device_v4(lab, &format!("device{at}{side}"), 2);
                homes[side][1].cable(&device, "wwan0");
                device
            });
            let mut pair =
                Pair::start(Stack::Bowline, [&devices[0], &devices[1]], &[LISTEN[0].to_owned()], at as u64);
            pair.online();
            pair.go(LEFT);
            pair.go(RIGHT);
            teams.push(Team { pair, homes, nats, devices, at: [(0, 2); 2] });
        }
        let delays = delays(&edges);
        let witness = Witness::start(&server, &bystander);
        Self {
            seed,
            base,
            server,
            teams,
            happened: Vec::new(),
            looks: BTreeMap::new(),
            witness,
            _delays: delays,
        }
    }

    /// xorshift64*: a plan that can be repeated needs no better.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn fault(&mut self) {
        let fault = FAULTS[self.random() as usize % FAULTS.len()];
        let (at, side) = (self.random() as usize % self.teams.len(), self.random() as usize % 2);
        let from = clock();
        let mut pair = Some(at);
        match fault {
            Fault::Readdressed => self.teams[at].readdress(side),
            Fault::OtherNetwork => self.teams[at].move_on(side),
            Fault::NatReboots => {
                let team = &self.teams[at];
                team.homes[side][team.at[side].0].reboot(team.nats[side]);
            }
            Fault::PathDies => {
                let team = &self.teams[at];
                team.homes[side].iter().for_each(|home| home.router.nft(HOLE));
                pass(Duration::from_secs(8));
                team.homes[side].iter().for_each(|home| home.router.nft("delete table ip hole"));
            }
            Fault::DeviceRestarts => self.teams[at].pair.restart(side),
            Fault::BaseRestarts => {
                pair = None;
                self.base.process().kill();
                self.base = Base::start(Stack::Bowline, &self.server, &LISTEN);
            }
            Fault::BaseStops => {
                pair = None;
                self.base.process().signal(Signal::SIGSTOP);
                pass(Duration::from_secs(3));
                self.base.process().signal(Signal::SIGCONT);
            }
        }
        self.happened.push(Happened { fault, pair, from, until: clock() });
    }

    fn heal(&mut self) {
        self.base.process().signal(Signal::SIGCONT);
    }

    /// Notes how large everybody is.
    fn look(&mut self) {
        let mut processes: Vec<(String, &Process)> = Vec::new();
        for (at, team) in self.teams.iter().enumerate() {
            for side in [LEFT, RIGHT] {
                let process = team.pair.process(side);
                processes.push((format!("device {at}{side} #{}", process.pid()), process));
            }
        }
        let base = self.base.process();
        processes.push((format!("base #{}", base.pid()), base));
        for (name, process) in processes {
            if let Some(size) = size(process.pid()) {
                self.looks.entry(name).or_default().push(size);
            }
        }
    }

    /// What there is to say at the end.
    fn verdict(&self, began: u64) -> Value {
        let mut by_fault: BTreeMap<&str, (u64, u64, f64)> = BTreeMap::new();
        for happened in &self.happened {
            by_fault.entry(happened.fault.name()).or_default().0 += 1;
        }
        // Each device knows one other, and that one is in one of two homes.
        let mut most = (0, 0);
        let (mut unexplained, mut received, mut bad, mut still) = (Vec::new(), 0, Vec::new(), 0);
        for (at, team) in self.teams.iter().enumerate() {
            for side in [LEFT, RIGHT] {
                let logs = team.pair.logs(side);
                let held = logs.iter().map(|log| log.state).max().unwrap_or_default();
                most = (most.0.max(held.0), most.1.max(held.1));
                received += logs.iter().map(|log| log.received.len()).sum::<usize>();
                for (from, gap) in gaps(&logs, began) {
                    match self.cause(at, from, gap) {
                        Some(fault) => {
                            let entry = by_fault.entry(fault.name()).or_default();
                            entry.1 += 1;
                            entry.2 = entry.2.max(gap as f64 / 1e6);
                        }
                        None if self.witness.explains(from, gap) => still += 1,
                        None => unexplained.push(json!({
                            "device": format!("{at}{side}"),
                            "at_s": (from - began) as f64 / 1e9,
                            "ms": gap as f64 / 1e6,
                        })),
                    }
                }
                bad.extend(complaints(team.pair.process(side)));
            }
        }
        if most.0 > PEERS || most.1 > PAIRS {
            bad.push(format!("state for {} peers and {} pairs", most.0, most.1));
        }
        if self.looks.is_empty() {
            bad.push("the processes' memory cannot be read here".to_owned());
        }
        let grown: Vec<_> = self.looks.iter().filter_map(|(name, looks)| grown(name, looks)).collect();
        let sizes: Vec<_> = self
            .looks
            .iter()
            .filter(|(_, looks)| looks.len() > 2)
            .map(|(name, looks)| json!({ "process": name, "first": looks[0], "warm": warm(looks), "last": looks[looks.len() - 1] }))
            .collect();
        json!({
            "seconds": (clock() - began) / 1_000_000_000,
            "received": received,
            "machine_stood_still_s": self.witness.total().as_secs_f64(),
            "gaps_by_the_machine": still,
            "most_peers_and_pairs": most,
            "faults": by_fault.iter().map(|(name, (count, gaps, longest))| {
                json!({ "fault": name, "count": count, "gaps": gaps, "longest_ms": longest })
            }).collect::<Vec<_>>(),
            "unexplained": unexplained,
            "grown": grown,
            "sizes": sizes,
            "complaints": bad,
        })
    }

    /// The latest fault that can have caused a gap.
    fn cause(&self, pair: usize, from: u64, gap: u64) -> Option<Fault> {
        // A gap begins with the last message before the fault, or while what the fault began is not over.
        let concerns = |happened: &&Happened| {
            happened.pair.is_none_or(|at| at == pair)
                && from + gap >= happened.from
                && from <= happened.until + happened.fault.reach().as_nanos() as u64
        };
        self.happened.iter().rev().find(concerns).map(|happened| happened.fault)
    }
}

impl Team {
    fn readdress(&mut self, side: usize) {
        let (home, old) = self.at[side];
        let new = if old == 2 { 9 } else { 2 };
        let (interface, number) = (INTERFACES[home], self.homes[side][home].number());
        self.devices[side].ip_batch(&[
            &format!("addr del 10.{number}.0.{old}/24 dev {interface}"),
            &format!("addr add 10.{number}.0.{new}/24 dev {interface}"),
            &format!("route add default via 10.{number}.0.1 dev {interface}"),
        ]);
        self.at[side] = (home, new);
    }

    fn move_on(&mut self, side: usize) {
        let (from, _) = self.at[side];
        let to = 1 - from;
        let number = self.homes[side][to].number();
        self.devices[side].ip_batch(&[
            &format!("addr flush dev {}", INTERFACES[from]),
            &format!("addr add 10.{number}.0.2/24 dev {}", INTERFACES[to]),
            &format!("route add default via 10.{number}.0.1 dev {}", INTERFACES[to]),
        ]);
        self.at[side] = (to, 2);
    }
}

/// A device's interface in its first and its second home.
const INTERFACES: [&str; 2] = ["eth0", "wwan0"];

/// Everything but the way to the base vanishes.
const HOLE: &str = r#"table ip hole {
  chain forward { type filter hook forward priority filter - 1; policy accept;
    ip saddr != 203.0.113.10 ip daddr != 203.0.113.10 drop
  }
}"#;

/// When nothing came for longer than a gap, and for how long.
fn gaps(logs: &[Log], began: u64) -> Vec<(u64, u64)> {
    let mut moments: Vec<u64> =
        logs.iter().flat_map(|log| log.received.iter().map(|message| message.at)).collect();
    moments.push(clock().max(began));
    moments.sort_unstable();
    let limit = GAP.as_nanos() as u64;
    moments
        .windows(2)
        .filter(|pair| pair[1] - pair[0] > limit)
        .map(|pair| (pair[0], pair[1] - pair[0]))
        .collect()
}

/// Lines that no process may print.
fn complaints(process: &Process) -> Vec<String> {
    let lines = process.lines(0).into_iter().filter(|line| line.error);
    lines.map(|line| line.text).filter(|text| text.contains("panicked") || text.contains(" ERROR ")).collect()
}

/// Resident memory in KiB, and descriptors.
fn size(process: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let memory = memory.split_whitespace().next()?.parse().ok()?;
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
    Some((memory, descriptors))
}

fn warm(looks: &[(u64, u64)]) -> (u64, u64) {
    looks[(looks.len() as f64 * WARM) as usize]
}

/// In words, if it is larger than when it was warm.
fn grown(name: &str, looks: &[(u64, u64)]) -> Option<String> {
    let (&(memory, _), warm) = (looks.last()?, warm(looks));
    let descriptors = looks.iter().rev().take(LOOKS_FOR_FDS).map(|look| look.1).min()?;
    let large = memory > warm.0 + GROWTH_KIB || descriptors > warm.1 + GROWTH_FDS;
    large.then(|| {
        format!(
            "{name}: {} KiB and {} descriptors when warm, {memory} and {descriptors} at the end",
            warm.0, warm.1
        )
    })
}
