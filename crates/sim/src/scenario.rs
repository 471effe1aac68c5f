//! A random world from a seed, what goes wrong in it, and what must be so in the end.
//!
//! A [`Plan`] is data: nets, hosts, bases, faults. Running it twice gives the same run; running it with fewer faults is
//! how a failure is made small. Safety is checked by the world at every step; here stands liveness: some time after
//! the last fault, every pair that shares a base talks, and directly exactly where the oracle says that it can.

use std::time::Duration;

use bowline_proto::host::BaseName;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    base_node::PORT,
    checks::MIN_MESSAGE,
    fabric::{INTERNET, NetId},
    faults::{Fault, Planned},
    link::Profile,
    nat::{Allocation, Dependence, Firewall, NatKind, Refresh},
    oracle::{self, Skill},
    packet::{NodeId, Time},
    world::World,
};

/// Faults begin within this time of the beginning.
const FAULT_PHASE: Duration = Duration::from_secs(300);
/// Relayed messages flow again within this time of the last fault: a back-off of 60 s before a race is lost again
/// (section 4), a base that drained and may not be asked for as long, and the race itself.
const RELAY_WITHIN: Duration = Duration::from_secs(150);
/// Direct paths stand within this time of the last fault: ten minutes' rest of an address that did not answer, then a
/// pair that is pinged every 200 s (section 8), and some.
const DIRECT_WITHIN: Duration = Duration::from_secs(900);
/// How long all messages must arrive at the end, and how many are sent a second then.
const FINAL_PHASE: Duration = Duration::from_secs(10);
/// Between two messages of a pair: well below the 120 s after which a peer is idle.
const CHATTER: Duration = Duration::from_secs(2);
/// How often the end of a run looks whether all that can be direct is.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The kinds of nets that hosts are on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// A home behind a NAT.
    Home(NatKind),
    /// The same behind a carrier's NAT.
    BehindCarrier(NatKind, NatKind),
    /// A home with a NAT, and IPv6 behind a firewall.
    DualStack(NatKind, Dependence),
    /// IPv6 alone behind a firewall.
    V6(Dependence),
    /// Public addresses.
    Public,
    /// A NAT that lets no UDP pass.
    Office(NatKind),
}

#[derive(Debug, Clone)]
struct HostPlan {
    places: Vec<usize>,
}

/// A world to be, and what happens in it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Vec<Planned>,
    places: Vec<(Place, Profile)>,
    bases: Vec<Duration>,
    hosts: Vec<HostPlan>,
    /// Pairs of hosts (by position) that talk.
    pairs: Vec<(usize, usize)>,
}

/// A world that has been run.
#[derive(Debug)]
pub struct Outcome {
    /// The world at its end.
    pub world: World,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_b041_13e5);
        let rng = &mut rng;
        let places: Vec<_> = (0..rng.random_range(1..=4)).map(|_| (place(rng), profile(rng))).collect();
        // Bases that know nothing of each other keep their hosts apart, so most worlds have one.
        let bases = if rng.random_bool(0.75) { 1 } else { rng.random_range(2..=3) };
        let bases: Vec<Duration> = (0..bases).map(|_| millis(rng, 1, 40)).collect();
        let hosts: Vec<HostPlan> = (0..rng.random_range(2..=6))
            .map(|_| {
                let mut own = vec![rng.random_range(0..places.len())];
                if rng.random_bool(0.15) {
                    own.push(rng.random_range(0..places.len()));
                    own.dedup();
                }
                HostPlan { places: own }
            })
            .collect();
        let mut pairs = Vec::new();
        for one in 0..hosts.len() {
            for other in one + 1..hosts.len() {
                if pairs.is_empty() || rng.random_bool(0.5) {
                    pairs.push((one, other));
                }
            }
        }
        let mut plan = Self { seed, faults: Vec::new(), places, bases, hosts, pairs };
        plan.faults = plan.some_faults(rng);
        plan
    }

    fn some_faults(&self, rng: &mut ChaCha8Rng) -> Vec<Planned> {
        // Numbers of nets and nodes as `build` gives them: nets of bases first, then places (a carrier's before its
        // home's); bases first, then hosts.
        let (nets, _) = self.numbers();
        let base = |rng: &mut ChaCha8Rng| NodeId(rng.random_range(0..self.bases.len()));
        let host = |rng: &mut ChaCha8Rng| NodeId(self.bases.len() + rng.random_range(0..self.hosts.len()));
        let net = |rng: &mut ChaCha8Rng| nets[rng.random_range(0..nets.len())];
        let mut faults: Vec<Planned> = (0..rng.random_range(0..=6))
            .map(|_| {
                let fault = match rng.random_range(0..13) {
                    0 | 1 => Fault::Roam { host: host(rng), interface: 1, to: net(rng) },
                    2 => Fault::Readdress { host: host(rng), interface: 1 },
                    3 => Fault::RouterReboot(net(rng)),
                    4 => Fault::Cut(net(rng)),
                    5 => Fault::Partition(host(rng), host(rng)),
                    6 => Fault::BadLink(net(rng), bad_profile(rng)),
                    7 => Fault::BlockUdp(net(rng)),
                    8 => Fault::BaseCrash { base: base(rng), silently: rng.random_bool(0.5) },
                    9 => Fault::Freeze(base(rng)),
                    10 => Fault::Drain(base(rng)),
                    11 => Fault::Sleep(host(rng)),
                    _ => Fault::HostCrash(host(rng)),
                };
                let at = Duration::from_millis(rng.random_range(0..FAULT_PHASE.as_millis() as u64));
                let lasts = if rng.random_bool(0.3) { millis(rng, 0, 2_000) } else { millis(rng, 0, 90_000) };
                Planned { at, lasts, fault }
            })
            .collect();
        faults.sort_by_key(|planned| planned.at);
        faults
    }

    /// The nets that hosts are on, by place.
    fn numbers(&self) -> (Vec<NetId>, usize) {
        let mut next = 1 + self.bases.len();
        let nets = self
            .places
            .iter()
            .map(|(place, _)| {
                next += if matches!(place, Place::BehindCarrier(..)) { 2 } else { 1 };
                NetId(next - 1)
            })
            .collect();
        (nets, next)
    }

    fn build(&self) -> (World, Vec<NodeId>) {
        let mut world = World::new(self.seed);
        let centres: Vec<NetId> =
            (0..self.bases.len()).map(|i| world.data_centre(&format!("centre{i}"), self.bases[i])).collect();
        let nets: Vec<NetId> = self
            .places
            .iter()
            .enumerate()
            .map(|(i, (place, profile))| make_net(&mut world, i, *place, *profile))
            .collect();
        debug_assert_eq!(nets, self.numbers().0);
        let bases: Vec<NodeId> =
            centres.iter().enumerate().map(|(i, &net)| world.base(&format!("base{i}"), net)).collect();
        // Names with A and AAAA records: a host that roams to a net of the other family finds its base again.
        let names: Vec<BaseName> = bases
            .iter()
            .map(|&base| {
                let host = format!("base{}.test", base.0);
                let ips = [true, false].into_iter().filter_map(|v4| world.address(base, v4)).collect();
                world.names.insert(host.clone(), ips);
                BaseName { id: None, host, port: PORT }
            })
            .collect();
        let hosts = self
            .hosts
            .iter()
            .enumerate()
            .map(|(i, host)| {
                let own: Vec<NetId> = host.places.iter().map(|&place| nets[place]).collect();
                world
                    .host_with(&format!("host{i}"), &own, &[], None, |config| config.bases.clone_from(&names))
            })
            .collect();
        (world, hosts)
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let (mut world, hosts) = self.build();
        let pairs: Vec<(NodeId, NodeId)> = self
            .pairs
            .iter()
            .flat_map(|&(one, other)| [(hosts[one], hosts[other]), (hosts[other], hosts[one])])
            .collect();
        let mut chatter = Chatter::new(self.seed, &pairs);
        self.go_through_faults(&mut world, &mut chatter);
        // The last fault ends: what stays of the links is latency, jitter and reordering.
        for net in world.fabric.ids().collect::<Vec<_>>() {
            let net = world.fabric.net_mut(net);
            for link in [&mut net.up, &mut net.down] {
                (link.profile.loss, link.profile.corrupt) = (0.0, 0.0);
            }
        }
        let quiet = world.now();
        world.note(None, "END OF ALL FAULTS");
        chatter.run(&mut world, quiet + RELAY_WITHIN);
        everybody_talks(&mut world, &pairs);
        let ask = |skill| -> Vec<bool> {
            pairs.iter().map(|&(one, other)| oracle::direct(&world, one, other, skill).forth).collect()
        };
        let (must, may) = (ask(Skill::Ordinary), ask(Skill::Lucky));
        while world.violations.is_empty() && world.now() < quiet + DIRECT_WITHIN {
            let reached = pairs.iter().zip(&must).all(|(&(one, other), &can)| {
                !can || world.is_direct(one, other) || !share_base(&world, one, other)
            });
            if reached {
                break;
            }
            let until = world.now() + LOOK_EVERY;
            chatter.run(&mut world, until);
        }
        if world.violations.is_empty() {
            directly_where_possible(&mut world, &pairs, &must, &may);
        }
        if world.violations.is_empty() {
            everybody_talks(&mut world, &pairs);
        }
        Outcome { world }
    }

    fn go_through_faults(&self, world: &mut World, chatter: &mut Chatter) {
        enum Half {
            Begin(usize),
            End(usize),
        }
        let mut halves: Vec<(Time, Half)> = Vec::new();
        for (i, planned) in self.faults.iter().enumerate() {
            halves.push((planned.at, Half::Begin(i)));
            halves.push((planned.at + planned.lasts, Half::End(i)));
        }
        halves.sort_by_key(|half| half.0);
        // Links as they were meant to be: of two faults on one net, the later end must not restore the earlier's harm.
        let meant: Vec<Profile> = world.fabric.ids().map(|net| world.fabric.net(net).up.profile).collect();
        for (at, half) in halves {
            chatter.run(world, at);
            match half {
                Half::Begin(i) => self.faults[i].fault.begin(world, self.faults[i].lasts),
                Half::End(i) => {
                    let fault = &self.faults[i].fault;
                    fault.end(world, fault.links_of().map(|net| meant[net.0 - 1]));
                }
            }
        }
        let rest = world.now().max(Duration::from_secs(20));
        chatter.run(world, rest);
    }

    /// The plan with as few of its faults as still fail: each is left out in turn.
    #[must_use]
    pub fn shrunk(&self) -> Self {
        let mut small = self.clone();
        let mut i = 0;
        while i < small.faults.len() {
            let mut smaller = small.clone();
            smaller.faults.remove(i);
            if smaller.run().world.violations.is_empty() { i += 1 } else { small = smaller }
        }
        let mut i = 0;
        while i < small.pairs.len() && small.pairs.len() > 1 {
            let mut smaller = small.clone();
            smaller.pairs.remove(i);
            if smaller.run().world.violations.is_empty() { i += 1 } else { small = smaller }
        }
        small
    }

    /// The plan for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text =
            format!("seed {}: {} bases, {} hosts\n", self.seed, self.bases.len(), self.hosts.len());
        let (nets, _) = self.numbers();
        for ((place, profile), net) in self.places.iter().zip(nets) {
            text += &format!("  net{}: {place:?}\n      {profile:?}\n", net.0);
        }
        for (i, host) in self.hosts.iter().enumerate() {
            let node = self.bases.len() + i;
            text += &format!("  host{i} (NodeId({node})): on places {:?}\n", host.places);
        }
        text += &format!("  pairs that talk: {:?}\n", self.pairs);
        for fault in &self.faults {
            text += &format!("  {fault}\n");
        }
        text
    }
}

/// Pairs that talk, a message now and then.
struct Chatter {
    pairs: Vec<(NodeId, NodeId)>,
    next: Time,
    rng: ChaCha8Rng,
}

impl Chatter {
    fn new(seed: u64, pairs: &[(NodeId, NodeId)]) -> Self {
        Self { pairs: pairs.to_vec(), next: Duration::ZERO, rng: ChaCha8Rng::seed_from_u64(!seed) }
    }

    fn run(&mut self, world: &mut World, until: Time) {
        while self.next < until && world.violations.is_empty() {
            world.run_until(self.next);
            let (from, to) = self.pairs[self.rng.random_range(0..self.pairs.len())];
            let length = if self.rng.random_bool(0.2) { 1_200 } else { MIN_MESSAGE };
            if !world.at_host(from).asleep {
                // An error (no base, …) is the machine's right while things are broken.
                let _ = world.send_sized(from, to, length);
            }
            let pause = CHATTER / self.pairs.len() as u32;
            self.next += Duration::from_micros(self.rng.random_range(1..=2 * pause.as_micros() as u64));
        }
        world.run_until(until);
    }
}

fn share_base(world: &World, one: NodeId, other: NodeId) -> bool {
    let base = |node: NodeId| {
        let status = world.at_host(node).machine()?.status(world.instant());
        status.base.map(|base| base.id)
    };
    base(one).is_some() && base(one) == base(other)
}

/// All pairs send for a while; all of it must arrive. Of hosts that chose different bases nothing is asked but that
/// each has one.
fn everybody_talks(world: &mut World, pairs: &[(NodeId, NodeId)]) {
    for host in world.hosts() {
        let registered = world.at_host(host).machine().is_some_and(bowline_proto::host::Host::is_registered);
        if !registered && reaches_a_base(world, host) {
            world.violate(Some(host), "no base, long after the last fault (protocol section 4)");
            return;
        }
    }
    let since = world.now();
    while world.now() < since + FINAL_PHASE {
        for &(from, to) in pairs {
            if share_base(world, from, to)
                && let Err(error) = world.send(from, to)
            {
                world
                    .violate(Some(from), format!("cannot send to {to:?} long after the last fault: {error}"));
                return;
            }
        }
        world.run_for(Duration::from_millis(500));
    }
    let until = world.now();
    world.run_for(Duration::from_secs(5));
    for &(from, to) in pairs {
        let (came, lost) = world.tally(from, to, since, until);
        if lost > 0 && share_base(world, from, to) {
            let path = world.path(from, to);
            world.violate(
                Some(from),
                format!(
                    "{lost} of {} messages to {to:?} lost long after the last fault, path {path}",
                    came + lost
                ),
            );
        }
    }
}

fn reaches_a_base(world: &World, host: NodeId) -> bool {
    [true, false].into_iter().any(|v4| world.address(host, v4).is_some())
}

fn directly_where_possible(world: &mut World, pairs: &[(NodeId, NodeId)], must: &[bool], may: &[bool]) {
    for ((&(one, other), &must), &may) in pairs.iter().zip(must).zip(may) {
        let is = world.is_direct(one, other);
        if is && !may {
            world.violate(Some(one), format!("a direct path to {other:?} is claimed that cannot exist"));
        }
        if must && !is && share_base(world, one, other) {
            let why = world.peer(one, other).map_or_else(String::new, |peer| peer.why);
            world.violate(
                Some(one),
                format!("no direct path to {other:?}, although there can be one (section 8); it says: {why}"),
            );
        }
    }
}

fn make_net(world: &mut World, i: usize, place: Place, profile: Profile) -> NetId {
    let name = format!("net{i}");
    let latency = profile.latency;
    let net = match place {
        Place::Home(nat) => world.home(&name, nat, latency),
        Place::BehindCarrier(nat, carrier) => {
            let carrier = world.carrier(&format!("carrier{i}"), carrier, latency);
            world.home_in(&name, carrier, nat, latency)
        }
        Place::DualStack(nat, filtering) => {
            let net = world.home(&name, nat, latency);
            let v6 = world.public_v6();
            let net_mut = world.fabric.net_mut(net);
            net_mut.v6 = Some(v6);
            net_mut.gateway.firewall = Some(Firewall::new(filtering, nat.expiry));
            net
        }
        Place::V6(filtering) => world.home_v6(&name, filtering, latency),
        Place::Public => world.data_centre(&name, latency),
        Place::Office(nat) => {
            let net = world.home(&name, nat, latency);
            world.fabric.net_mut(net).gateway.blocks_udp = true;
            net
        }
    };
    let n = world.fabric.net_mut(net);
    (n.up.profile, n.down.profile) = (profile, profile);
    debug_assert_ne!(net, INTERNET);
    net
}

fn place(rng: &mut ChaCha8Rng) -> Place {
    match rng.random_range(0..10) {
        0..=3 => Place::Home(nat(rng)),
        4 => Place::BehindCarrier(nat(rng), nat(rng)),
        5 | 6 => Place::DualStack(nat(rng), dependence(rng)),
        7 => Place::V6(dependence(rng)),
        8 => Place::Public,
        _ => Place::Office(nat(rng)),
    }
}

fn nat(rng: &mut ChaCha8Rng) -> NatKind {
    NatKind {
        mapping: dependence(rng),
        filtering: dependence(rng),
        allocation: match rng.random_range(0..3) {
            0 => Allocation::PortPreserving,
            1 => Allocation::Sequential,
            _ => Allocation::Random,
        },
        refresh: if rng.random_bool(0.5) { Refresh::Outbound } else { Refresh::Both },
        expiry: Duration::from_secs(rng.random_range(30..=300)),
        hairpin: rng.random_bool(0.5),
    }
}

fn dependence(rng: &mut ChaCha8Rng) -> Dependence {
    Dependence::ALL[rng.random_range(0..3)]
}

fn profile(rng: &mut ChaCha8Rng) -> Profile {
    let bad = rng.random_bool(0.3);
    Profile {
        jitter: millis(rng, 0, 10),
        loss: if bad { rng.random_range(0.0..0.05) } else { 0.0 },
        duplicate: if bad { rng.random_range(0.0..0.02) } else { 0.0 },
        reorder: if bad { rng.random_range(0.0..0.05) } else { 0.0 },
        mtu: [1_500, 1_500, 1_400, 1_280][rng.random_range(0..4)],
        rate: rng.random_bool(0.3).then_some(1_000_000),
        ..Profile::perfect(millis(rng, 1, 80))
    }
}

fn bad_profile(rng: &mut ChaCha8Rng) -> Profile {
    Profile {
        jitter: millis(rng, 0, 200),
        loss: rng.random_range(0.0..0.6),
        duplicate: rng.random_range(0.0..0.2),
        reorder: rng.random_range(0.0..0.3),
        corrupt: rng.random_range(0.0..0.1),
        ..Profile::perfect(millis(rng, 1, 400))
    }
}

fn millis(rng: &mut ChaCha8Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.random_range(least..=most))
}
