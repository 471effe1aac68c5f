//! `bench/run roam`: how long messages fail to come when the network changes under two devices, 50 a second each way,
//! 20 ms from any host to any other, NATs between. The same for an iroh endpoint beside it.
//!
//! Each run is a pair of fresh processes that have settled on the path the case begins with. The gap of a run is the longest time without a
//! new message in either direction that is used, from the last one before the event. For the suspended device it counts from the resume.

use std::{collections::BTreeSet, time::Duration};

use bowline_lab::{Delay, Home, Internet, Lab, Nat, Node};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    device::clock,
    log::{Flow, Window, flow},
    pair::{Base, LEFT, Pair, RIGHT, Stack, delays, pass},
};
use crate::say;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Readdressed,
    OtherInterface,
    BothMove,
    PathDies,
    PathDiesOneWay,
    PeerRestarts,
    NatReboots,
    BaseKilled,
    BaseStops,
    Suspended,
}

/// A row of the benchmark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) event: Event,
    pub(crate) key: &'static str,
    pub(crate) name: &'static str,
    /// p50 and p99 of the gap, ms.
    pub(crate) goals: (f64, f64),
    /// How long after the event is looked at; what has not come back by then counts as that long.
    pub(crate) watch: Duration,
}

const fn case(event: Event, key: &'static str, name: &'static str, goals: (f64, f64), watch: u64) -> Case {
    Case { event, key, name, goals, watch: Duration::from_secs(watch) }
}

/// In the order of the table that asked for them.
pub(crate) const CASES: [Case; 10] = [
    case(Event::Readdressed, "address", "address changes on the same interface", (100.0, 200.0), 3),
    case(
        Event::OtherInterface,
        "interface",
        "interface goes, another comes up, other NAT",
        (300.0, 1000.0),
        4,
    ),
    case(Event::BothMove, "both", "both devices change network at once", (400.0, 1200.0), 5),
    case(Event::PathDies, "path-dies", "direct path dies silently, traffic both ways", (400.0, 700.0), 4),
    case(
        Event::PathDiesOneWay,
        "path-dies-one-way",
        "direct path dies silently, traffic one way",
        (1000.0, 2000.0),
        5,
    ),
    case(Event::PeerRestarts, "restart", "peer process restarts, same key, other port", (300.0, 1000.0), 4),
    case(Event::NatReboots, "nat-reboots", "NAT reboots, all mappings lost", (300.0, 1000.0), 4),
    case(Event::BaseKilled, "base-killed", "base in use is killed, no direct path", (500.0, 2000.0), 5),
    case(Event::BaseStops, "base-stops", "base in use stops answering, no direct path", (4000.0, 6000.0), 10),
    case(Event::Suspended, "suspend", "suspended for 60 s, address changed meanwhile", (1000.0, 2000.0), 5),
];

/// What the others may take longer for before a run counts as not back.
const IROH_WATCH: Duration = Duration::from_secs(40);
/// The state before the event has lasted this long: bursts of the beginning are over.
const SETTLED: Duration = Duration::from_millis(1500);
/// A session with a base that has lasted so long is followed by another without back-off, as any is that serves for a while.
const OLD_SESSION: Duration = Duration::from_millis(10_500);
/// The kernel may need so long to carry packets over a link that comes up.
const LINK_UP: Duration = Duration::from_millis(1200);
/// Events come at any moment of what goes on once a second.
const PHASES: u64 = 1000;
/// A pair that has not settled by then is a run that could not be made.
const SETTLE: Duration = Duration::from_secs(30);

/// Inside a network of its own: `runs` runs of a case, a line of JSON each.
pub(crate) fn inside(lab: &Lab, case: &Case, stack: Stack, runs: u64, first: u64, suspended: Duration) {
    let mut world = World::new(lab, case.event, stack);
    for run in first..first + runs {
        let line = match world.run(case, run, suspended) {
            Ok(outcome) => outcome,
            Err(why) => json!({ "why": why }),
        };
        say(&line.to_string());
    }
}

struct World {
    stack: Stack,
    bases: Vec<Base>,
    servers: [Node; 2],
    homes: [Home; 4],
    devices: [Node; 2],
    _delays: Vec<Delay>,
}

/// The number of a device's address in its home.
const NUMBER: u8 = 2;
const OTHER_NUMBER: u8 = 9;

impl World {
    fn new(lab: &Lab, event: Event, stack: Stack) -> Self {
        let nats = match event {
            // No direct path is possible between these.
            Event::BaseKilled | Event::BaseStops => [Nat::Symmetric, Nat::Symmetric],
            // An ordinary router would give the same ports again, and nobody would notice; that this one does not is looked at.
            Event::NatReboots => [Nat::PortPool, Nat::Home],
            _ => [Nat::Home, Nat::Home],
        };
        let internet = Internet::new(lab);
        let servers = [10, 11].map(|number| internet.server(lab, &format!("base{number}"), number));
        let homes = [1, 2, 3, 4].map(|number| internet.home(lab, number, nats[usize::from(number + 1) % 2]));
        let delays = delays(homes.iter().map(|home| &home.router).chain(&servers));
        let devices = [LEFT, RIGHT].map(|side| {
            let device = homes[side].device_v4(lab, ["left", "right"][side], NUMBER);
            // There, and without an address: a link that comes up may be announced a second later by the kernel.
            homes[side + 2].cable(&device, "wwan0");
            device
        });
        Self { stack, bases: Vec::new(), servers, homes, devices, _delays: delays }
    }

    fn run(&mut self, case: &Case, run: u64, suspended: Duration) -> Result<Value, String> {
        let relayed = matches!(case.event, Event::BaseKilled | Event::BaseStops);
        let one_way = case.event == Event::PathDiesOneWay;
        let (used, senders): (&[usize], &[usize]) =
            if one_way { (&[RIGHT], &[LEFT]) } else { (&[LEFT, RIGHT], &[LEFT, RIGHT]) };
        if relayed {
            self.bases.clear();
        }
        if self.bases.is_empty() {
            self.start_base(0);
        }
        let mut names = self.bases[0].names();
        if relayed {
            names.extend(self.second_name(&names));
        }
        let mut pair = Pair::start(self.stack, [&self.devices[0], &self.devices[1]], &names, run);
        pair.online();
        if relayed {
            // Not before both are registered at the first: at two bases they would not meet.
            self.start_base(1);
        }
        for &side in senders {
            pair.go(side);
        }
        let way = match (relayed, self.stack) {
            (false, _) => 'd',
            (true, Stack::Bowline) => 'u',
            (true, Stack::Iroh) => 'r',
        };
        if !pair.settle(used, way, SETTLED, SETTLE) {
            return Err(format!("the path to begin with did not stand within {SETTLE:?}"));
        }
        if relayed {
            pass(OLD_SESSION);
        }
        // Spread evenly, and the same for everybody.
        pass(Duration::from_millis(run * 379 % PHASES));
        let watch = if self.stack == Stack::Iroh { IROH_WATCH } else { case.watch };
        let mapped = (case.event == Event::NatReboots).then(|| self.mapped());
        let before = clock();
        let event = self.happen(case.event, &mut pair, suspended);
        let flows = |pair: &Pair| {
            let window = Window { event, from_here: case.event == Event::Suspended, end: clock() };
            used.iter().map(|&to| flow(&pair.logs(1 - to), &pair.logs(to), window)).collect::<Vec<Flow>>()
        };
        // The others may take longer; who is back early is not waited for.
        pass(case.watch);
        while self.stack == Stack::Iroh
            && clock() - event < watch.as_nanos() as u64
            && !flows(&pair).iter().all(|flow| flow.back)
        {
            pass(Duration::from_millis(500));
        }
        let flows = flows(&pair);
        let story = std::env::var_os("BENCH_STORY").map(|_| pair.story(before));
        if mapped.is_some_and(|mapped| mapped.is_empty() || !self.mapped().is_disjoint(&mapped)) {
            return Err("the router gave a port again that it had given before".to_owned());
        }
        self.undo(case.event);
        if let Some(story) = story {
            eprintln!("--- {} run {run}: {flows:?}\n{story}", case.key);
        }
        let sum = |of: fn(&Flow) -> u64| flows.iter().map(of).sum::<u64>();
        let gaps: Vec<f64> = flows.iter().map(|flow| flow.gap.as_secs_f64() * 1e3).collect();
        Ok(json!({
            "gap_ms": gaps.iter().copied().fold(0.0, f64::max),
            "gaps_ms": gaps,
            "back": flows.iter().all(|flow| flow.back),
            "sent": sum(|flow| flow.sent),
            "lost": sum(|flow| flow.lost),
            "doubled": sum(|flow| flow.doubled),
        }))
    }

    /// The ports by which the left device is known outside.
    fn mapped(&self) -> BTreeSet<u16> {
        self.homes[LEFT].router.mapped_ports([10, 1, 0, NUMBER].into())
    }

    fn start_base(&mut self, at: usize) {
        let listen = format!("203.0.113.{}:4477", 10 + at);
        self.bases.push(Base::start(self.stack, &self.servers[at], &[&listen]));
    }

    /// The name of the base that is started later.
    fn second_name(&self, names: &[String]) -> Vec<String> {
        match self.stack {
            Stack::Bowline => vec!["203.0.113.11:4477".to_owned()],
            Stack::Iroh => names.iter().map(|name| name.replace("203.0.113.10", "203.0.113.11")).collect(),
        }
    }

    /// Lets the event happen; when it did.
    fn happen(&mut self, event: Event, pair: &mut Pair, suspended: Duration) -> u64 {
        let now = clock();
        match event {
            Event::Readdressed => self.readdress(NUMBER, OTHER_NUMBER),
            Event::OtherInterface => self.to_other_interface(LEFT),
            Event::BothMove => {
                let this = &*self;
                std::thread::scope(|scope| {
                    scope.spawn(|| this.to_other_interface(LEFT));
                    this.to_other_interface(RIGHT);
                });
            }
            Event::PathDies | Event::PathDiesOneWay => self.homes[RIGHT].router.nft(HOLE),
            Event::PeerRestarts => pair.restart(LEFT),
            Event::NatReboots => self.homes[LEFT].router.flush_conntrack(),
            Event::BaseKilled => self.bases[0].process().kill(),
            Event::BaseStops => self.bases[0].process().signal(Signal::SIGSTOP),
            Event::Suspended => {
                pair.process(LEFT).signal(Signal::SIGSTOP);
                pass(suspended / 2);
                self.readdress(NUMBER, OTHER_NUMBER);
                pass(suspended / 2);
                let resumed = clock();
                pair.process(LEFT).signal(Signal::SIGCONT);
                return resumed;
            }
        }
        now
    }

    fn undo(&mut self, event: Event) {
        match event {
            Event::Readdressed | Event::Suspended => self.readdress(OTHER_NUMBER, NUMBER),
            Event::OtherInterface => self.back_to_first_interface(LEFT),
            Event::BothMove => [LEFT, RIGHT].into_iter().for_each(|side| self.back_to_first_interface(side)),
            Event::PathDies | Event::PathDiesOneWay => self.homes[RIGHT].router.nft("delete table ip hole"),
            Event::PeerRestarts | Event::NatReboots | Event::BaseKilled | Event::BaseStops => {}
        }
    }

    fn readdress(&self, from: u8, to: u8) {
        self.devices[LEFT].ip_batch(&[
            &format!("addr del 10.1.0.{from}/24 dev eth0"),
            &format!("addr add 10.1.0.{to}/24 dev eth0"),
            "route add default via 10.1.0.1 dev eth0",
        ]);
    }

    fn to_other_interface(&self, side: usize) {
        let home = side + 3;
        self.devices[side].ip_batch(&[
            "link set dev eth0 down",
            &format!("addr add 10.{home}.0.{NUMBER}/24 dev wwan0"),
            &format!("route add default via 10.{home}.0.1 dev wwan0"),
        ]);
    }

    fn back_to_first_interface(&self, side: usize) {
        let home = side + 1;
        self.devices[side].ip_batch(&[
            "addr flush dev wwan0",
            "link set dev eth0 up",
            &format!("route add default via 10.{home}.0.1 dev eth0"),
        ]);
        pass(LINK_UP);
    }
}

/// On the right router: what comes from the left one vanishes, and what goes there.
const HOLE: &str = r#"table ip hole {
  chain forward { type filter hook forward priority filter - 1; policy accept;
    ip saddr 203.0.113.1 drop
    ip daddr 203.0.113.1 drop
  }
}"#;
