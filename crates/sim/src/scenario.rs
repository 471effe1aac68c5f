//! A plan carried out, and what must be so in the end.
//!
//! Safety is checked by the world at every step; here stands liveness: within stated times of the last fault every pair
//! that shares a base talks, through the base first, then directly exactly where the oracle says that it can.

use std::{collections::BTreeMap, fmt, time::Duration};

use bowline_proto::{
    DeviceId,
    host::{BaseName, Host, config},
    wire::cluster::Record,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    base_node::PORT,
    checks::MIN_MESSAGE,
    fabric::{INTERNET, NetId},
    faults::Fault,
    link::Profile,
    nat::Firewall,
    oracle::{self, Skill},
    packet::{NodeId, Time},
    plan::{ClusterPlan, Place, Plan},
    world::World,
};

/// Messages flow again, through the base first, within this time of the last fault, where faults only changed addresses,
/// lost mappings or broke connections: a silent connection is doubted after 10 s (section 4), then there is a race.
const AFTER_A_CHANGE: Duration = Duration::from_secs(20);
/// Where no base could be reached: a back-off of up to 60 s (section 4), and the race.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(75);
/// Where bases are one cluster and its bus failed or lost something: all is said again within 32 s (section 17), and what
/// follows from that takes its course.
const AFTER_A_LOSS_ON_THE_BUS: Duration = Duration::from_secs(45);
/// Where a base drained: nobody comes back before 60 s after its end (section 4), and the same again.
const AFTER_A_DRAIN: Duration = Duration::from_secs(150);
/// Where another device used a host's key: 60 s, then a back-off that begins with 60 s and doubles while the other's
/// registration stands, and that outlives it by 35 s.
const AFTER_A_TWIN: Duration = Duration::from_secs(450);
/// Direct paths stand within this time of the last fault: ten minutes' rest of an address that did not answer, then a
/// pair that is pinged every 200 s (section 8), and some.
const DIRECT_WITHIN: Duration = Duration::from_secs(900);
/// From when on a direct path that cannot exist is not to be claimed: what was proven before has lapsed (75 s).
const NO_FALSE_CLAIMS_AFTER: Duration = Duration::from_secs(100);
/// How long all messages must arrive at the end.
const FINAL_PHASE: Duration = Duration::from_secs(10);
/// Between two messages of a pair then.
const FINAL_PAUSE: Duration = Duration::from_millis(500);
/// Messages that a mapping costs which ends at a fixed time, however much it is used: those of the time until the path is
/// doubted. A pair sees two such ends at most in the final phase at one NAT, and there are four NATs at most.
const LOST_TO_FORGETTING: usize = 8;
/// What is wanted no longer is given back within this time of the moment it is due: a TCP segment may be late.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);
/// An interest whose release overtook its last statement on the bus lapses by itself (section 17): 90 s, and up to 32 s until
/// its shard has its turn.
const LAPSES_WITHIN: Duration = Duration::from_secs(122);
/// Between two messages of a pair: well below the 120 s after which a peer is idle.
const CHATTER: Duration = Duration::from_secs(2);
/// The same after the last fault, so that the end of an outage shows.
const EAGER_CHATTER: Duration = Duration::from_millis(500);
/// How often the end of a run looks at what has become of the pairs: as long as little is to be waited for, and then.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_LATER: Duration = Duration::from_secs(5);

/// A world that has been run.
#[derive(Debug)]
pub struct Outcome {
    /// The world at its end.
    pub world: World,
    /// How long after the last fault all was well.
    pub recovery: Recovery,
}

impl Outcome {
    /// Whether nothing happened that must not.
    #[must_use]
    pub fn held(&self) -> bool {
        self.world.violations.is_empty()
    }
}

/// Times from the last fault on, to within a second; `None` while it has not happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recovery {
    /// Until every pair had got a message through.
    pub relay: Option<Duration>,
    /// Until every pair had been direct that can be.
    pub direct: Option<Duration>,
}

impl Recovery {
    /// Of each the later.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { relay: self.relay.max(other.relay), direct: self.direct.max(other.direct) }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds =
            |time: Option<Duration>| time.map_or("-".to_owned(), |t| format!("{:.0} s", t.as_secs_f64()));
        write!(f, "messages after {}, direct after {}", seconds(self.relay), seconds(self.direct))
    }
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    world: World,
    chatter: Chatter,
    /// Ordered pairs of hosts that talk.
    pairs: Vec<(NodeId, NodeId)>,
    recovery: Recovery,
}

impl Plan {
    /// Runs it to its end.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let world = build(self);
        let pairs: Vec<(NodeId, NodeId)> = self
            .pairs
            .iter()
            .map(|&(one, other)| (self.host(one), self.host(other)))
            .flat_map(|(one, other)| [(one, other), (other, one)])
            .collect();
        let chatter = Chatter::new(self.seed, &pairs);
        let mut run = Run { plan: self, world, chatter, pairs, recovery: Recovery::default() };
        run.go_through_faults();
        run.recover();
        Outcome { world: run.world, recovery: run.recovery }
    }
}

fn build(plan: &Plan) -> World {
    let mut world = World::new(plan.seed);
    let centres: Vec<NetId> = plan
        .bases
        .iter()
        .enumerate()
        .map(|(i, &latency)| world.data_centre(&format!("centre{i}"), latency))
        .collect();
    let places = plan.places.iter().enumerate();
    let nets: Vec<NetId> =
        places.map(|(i, (place, profile))| make_net(&mut world, i, *place, *profile)).collect();
    debug_assert_eq!(nets, plan.nets());
    if let Some(cluster) = &plan.cluster {
        world.bus.weather = cluster.weather;
    }
    let bases: Vec<NodeId> = centres
        .iter()
        .enumerate()
        .map(|(i, &net)| {
            let name = format!("base{i}");
            match &plan.cluster {
                Some(cluster) => world.clustered_base(&name, net, cluster.over_udp),
                None => world.base(&name, net),
            }
        })
        .collect();
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
    for (i, host) in plan.hosts.iter().enumerate() {
        let own: Vec<NetId> = host.places.iter().map(|&place| nets[place]).collect();
        let known = match &host.bases[..] {
            [] => names.clone(),
            known => known.iter().map(|&base| names[base].clone()).collect(),
        };
        world.host_with(&format!("host{i}"), &own, &[], None, |config| config.bases = known);
    }
    for (i, &(of, place)) in plan.twins.iter().enumerate() {
        world.idle_twin(&format!("twin{i}"), nets[place], plan.host(of));
    }
    world
}

impl Run<'_> {
    fn go_through_faults(&mut self) {
        enum Half {
            Begin(usize),
            End(usize),
        }
        let plan = self.plan;
        let mut halves: Vec<(Time, Half)> = Vec::new();
        for (i, planned) in plan.faults.iter().enumerate() {
            halves.push((planned.at, Half::Begin(i)));
            halves.push((planned.at + planned.lasts, Half::End(i)));
        }
        halves.sort_by_key(|half| half.0);
        let world = &mut self.world;
        // Links as they were meant to be: of two faults on one net, the later end must not restore the earlier's harm.
        let meant: Vec<Profile> = world.fabric.ids().map(|net| world.fabric.net(net).up.profile).collect();
        for (at, half) in halves {
            self.chatter.run(world, at);
            match half {
                Half::Begin(i) => plan.faults[i].fault.begin(world, plan.faults[i].lasts),
                Half::End(i) => {
                    let fault = &plan.faults[i].fault;
                    fault.end(world, fault.links_of().map(|net| meant[net.0 - 1]));
                }
            }
        }
        let rest = world.now().max(Duration::from_secs(20));
        self.chatter.run(world, rest);
    }

    /// After the last fault.
    fn recover(&mut self) {
        // What stays of the links is latency, jitter and reordering; of the bus's weather the same, and copies.
        for net in self.world.fabric.ids().collect::<Vec<_>>() {
            let net = self.world.fabric.net_mut(net);
            for link in [&mut net.up, &mut net.down] {
                (link.profile.loss, link.profile.corrupt) = (0.0, 0.0);
            }
        }
        self.world.bus.weather.lost = 0;
        let quiet = self.world.now();
        self.world.note(None, "END OF ALL FAULTS");
        let relay_within = self.relay_within();
        self.watch(quiet, quiet + relay_within, |run| {
            run.recovery.relay.is_some() && run.world.now() >= quiet + relay_within
        });
        if self.held() {
            self.everybody_talks();
        }
        self.watch(quiet, quiet + relay_within.max(DIRECT_WITHIN), |run| run.recovery.direct.is_some());
        if self.held() {
            self.direct_where_possible();
        }
        if self.held() {
            self.everybody_talks();
        }
        if self.held() {
            self.everybody_falls_silent();
        }
        if self.held() && self.plan.cluster.is_some() {
            self.the_cluster_is_of_one_mind();
        }
        if self.held() {
            self.everybody_talks();
        }
    }

    fn held(&self) -> bool {
        self.world.violations.is_empty()
    }

    fn relay_within(&self) -> Duration {
        let faults = self.plan.faults.iter().map(|planned| relay_within(&planned.fault)).max();
        let lost = self.plan.cluster.as_ref().is_some_and(|cluster| cluster.weather.lost > 0);
        let least = if lost { AFTER_A_LOSS_ON_THE_BUS } else { AFTER_A_CHANGE };
        faults.unwrap_or_default().max(least)
    }

    /// Lets the pairs talk until that is enough or the time is over, and notes when what was asked of them has come.
    fn watch(&mut self, quiet: Time, until: Time, enough: impl Fn(&Self) -> bool) {
        let ask = |run: &Self, skill| -> Vec<bool> {
            run.pairs
                .iter()
                .map(|&(one, other)| oracle::direct(&run.world, one, other, skill).forth)
                .collect()
        };
        let must = ask(self, Skill::Ordinary);
        // What luck finds, or guessing ports.
        let may: Vec<bool> = ask(self, Skill::Lucky)
            .into_iter()
            .zip(ask(self, Skill::PredictsPorts))
            .map(|(lucky, predicts)| lucky || predicts)
            .collect();
        let mut heard = vec![false; self.pairs.len()];
        let mut been_direct = vec![false; self.pairs.len()];
        loop {
            let now = self.world.now();
            for (i, &(one, other)) in self.pairs.iter().enumerate() {
                let apart = !share_base(&self.world, one, other);
                heard[i] |= apart || self.world.tally(one, other, quiet, now).0 > 0;
                let is = self.world.is_direct(one, other);
                been_direct[i] |= is || apart || !must[i];
                if is && !may[i] && now >= quiet + NO_FALSE_CLAIMS_AFTER {
                    let what = format!("a direct path to {other:?} is claimed that cannot exist");
                    return self.world.violate(Some(one), what);
                }
            }
            if heard.iter().all(|&heard| heard) {
                self.recovery.relay.get_or_insert(now - quiet);
            }
            if been_direct.iter().all(|&direct| direct) {
                self.recovery.direct.get_or_insert(now - quiet);
            }
            if !self.held() || now >= until || enough(self) {
                return;
            }
            let eager = now < quiet + AFTER_AN_OUTAGE;
            self.chatter.pause = if eager { EAGER_CHATTER } else { CHATTER };
            let next = now + if eager { LOOK_EVERY } else { LOOK_LATER };
            self.chatter.run(&mut self.world, next.min(until));
        }
    }

    fn direct_where_possible(&mut self) {
        if self.recovery.direct.is_some() {
            return;
        }
        for &(one, other) in &self.pairs {
            let must = oracle::direct(&self.world, one, other, Skill::Ordinary).forth;
            if must && !self.world.is_direct(one, other) && share_base(&self.world, one, other) {
                let why = self.world.peer(one, other).map_or_else(String::new, |peer| peer.why);
                let what = format!(
                    "no direct path to {other:?}, although there can be one (section 8); it says: {why}"
                );
                return self.world.violate(Some(one), what);
            }
        }
    }

    /// All pairs send for a while; all of it must arrive. Of hosts that chose different bases nothing is asked but that
    /// each has one.
    fn everybody_talks(&mut self) {
        let world = &mut self.world;
        for host in (0..self.plan.hosts.len()).map(|host| self.plan.host(host)) {
            let registered = world.at_host(host).machine().is_some_and(Host::is_registered);
            if !registered && reaches_a_base(world, host) {
                return world.violate(Some(host), "no base, long after the last fault (protocol section 4)");
            }
        }
        let since = world.now();
        while world.now() < since + FINAL_PHASE {
            for &(from, to) in &self.pairs {
                if share_base(world, from, to)
                    && let Err(error) = world.send(from, to)
                {
                    let what = format!("cannot send to {to:?} long after the last fault: {error}");
                    return world.violate(Some(from), what);
                }
            }
            world.run_for(FINAL_PAUSE);
        }
        let until = world.now();
        world.run_for(Duration::from_secs(5));
        for &(from, to) in &self.pairs {
            let (came, lost) = self.world.tally(from, to, since, until);
            let excused = if self.forgetful(from) || self.forgetful(to) { LOST_TO_FORGETTING } else { 0 };
            if lost > excused && share_base(&self.world, from, to) {
                let (sent, path) = (came + lost, self.world.path(from, to));
                let what = format!(
                    "{lost} of {sent} messages to {to:?} lost long after the last fault, path {path}"
                );
                self.world.violate(Some(from), what);
            }
        }
    }

    /// Nobody says anything any more: nothing may be left of what they wanted from each other.
    fn everybody_falls_silent(&mut self) {
        let overtakes = |cluster: &ClusterPlan| cluster.weather.most > cluster.weather.least;
        let lapses = self.plan.cluster.as_ref().is_some_and(overtakes);
        let world = &mut self.world;
        world.run_for(config::IDLE + GIVEN_BACK_WITHIN);
        if lapses {
            world.run_for(LAPSES_WITHIN);
        }
        for base in world.bases() {
            let interests = world.at_base(base).machine().map_or(0, |machine| machine.sizes().interests);
            if interests > 0 {
                let what =
                    format!("{interests} interests at a base, long after the last message (section 8)");
                return world.violate(Some(base), what);
            }
        }
        world.run_for(config::FORGET);
        for host in world.hosts() {
            let sizes = world.at_host(host).machine().map(Host::sizes).unwrap_or_default();
            if (sizes.peers, sizes.sources) != (0, 0) {
                let what = format!(
                    "{} peers and {} of their addresses kept, long after the last message (section 8)",
                    sizes.peers, sizes.sources
                );
                return world.violate(Some(host), what);
            }
        }
    }

    /// Long after the last message: each device is registered at one base, the store says the same, and no base keeps anything
    /// of devices of the others.
    fn the_cluster_is_of_one_mind(&mut self) {
        let world = &mut self.world;
        let bases = world.bases();
        let mut wrong = Vec::new();
        for &base in &bases {
            let Some(machine) = world.at_base(base).machine() else { continue };
            let sizes = machine.sizes();
            let kept = (sizes.remote_devices, sizes.remote_interests, sizes.lingering);
            if kept != (0, 0, 0) {
                let what = format!(
                    "{} devices of other bases, {} of their interests and {} old sessions kept (section 17)",
                    kept.0, kept.1, kept.2
                );
                wrong.push((base, what));
            }
            let others = machine.members(world.instant_at(base));
            if others.len() + 1 != bases.len() {
                wrong.push((base, format!("knows {} of {} other bases", others.len(), bases.len() - 1)));
            }
        }
        let at = |id: DeviceId| -> Vec<NodeId> {
            let has = |base: &NodeId| world.at_base(*base).machine().is_some_and(|m| m.is_registered(id));
            bases.iter().copied().filter(has).collect()
        };
        let records: BTreeMap<DeviceId, Record> = world.bus.records().collect();
        for host in world.hosts() {
            let (id, at) = (world.id(host), at(world.id(host)));
            let registered = world.at_host(host).machine().is_some_and(Host::is_registered);
            if registered && at.len() != 1 {
                wrong.push((host, format!("is registered at {at:?} (section 17)")));
            }
            // An entry of a start of a base that is over is void.
            let lives = |record: &&Record| world.bus.incarnation(record.base) == Some(record.incarnation);
            let stored = records.get(&id).filter(lives).map(|record| record.base);
            let is = at.first().map(|&base| world.id(base));
            if stored != is {
                let what = format!("is registered at {is:?}, and the store says {stored:?} (section 17)");
                wrong.push((host, what));
            }
        }
        for (node, what) in wrong {
            world.violate(Some(node), what);
        }
    }

    /// Whether a host is behind a NAT that ends mappings however much they are used.
    fn forgetful(&self, host: NodeId) -> bool {
        let nets = self.plan.nets();
        let ifaces = &self.world.stack(host).ifaces;
        ifaces.iter().any(|iface| {
            let place = nets.iter().position(|&net| net == iface.net);
            place.is_some_and(|place| self.plan.places[place].0.forgets())
        })
    }
}

/// Pairs that talk, a message now and then.
struct Chatter {
    pairs: Vec<(NodeId, NodeId)>,
    pause: Duration,
    next: Time,
    rng: ChaCha8Rng,
}

impl Chatter {
    fn new(seed: u64, pairs: &[(NodeId, NodeId)]) -> Self {
        Self {
            pairs: pairs.to_vec(),
            pause: CHATTER,
            next: Duration::ZERO,
            rng: ChaCha8Rng::seed_from_u64(!seed),
        }
    }

    fn run(&mut self, world: &mut World, until: Time) {
        while self.next < until && world.violations.is_empty() {
            world.run_until(self.next);
            let (from, to) = self.pairs[self.rng.random_range(0..self.pairs.len())];
            let length = if self.rng.random_bool(0.2) { 1_200 } else { MIN_MESSAGE };
            if world.at_host(from).is_awake() {
                // An error (no base, …) is the machine's right while things are broken.
                let _ = world.send_sized(from, to, length);
            }
            let pause = self.pause / self.pairs.len() as u32;
            self.next += Duration::from_micros(self.rng.random_range(1..=2 * pause.as_micros() as u64));
        }
        world.run_until(until);
    }
}

/// Within which time of its end messages flow in spite of a fault.
fn relay_within(fault: &Fault) -> Duration {
    match fault {
        Fault::Readdress { .. }
        | Fault::RouterReboot(_)
        | Fault::MappingsExpire(_)
        | Fault::NewPublicAddress(_)
        | Fault::Partition(..)
        | Fault::OneWay(..)
        | Fault::BlockUdp(_)
        | Fault::BlockUdpIn(_)
        | Fault::BlockUdpOut(_)
        | Fault::ResetTcp(_)
        | Fault::HalfOpenTcp(_)
        | Fault::Attack => AFTER_A_CHANGE,
        Fault::Roam { .. }
        | Fault::Cut(_)
        | Fault::BadLink(..)
        | Fault::StallTcp(_)
        | Fault::BaseCrash { .. }
        | Fault::Freeze(_)
        | Fault::Sleep(_)
        | Fault::FreezeHost(_)
        | Fault::HostCrash(_)
        | Fault::ClockJump { .. }
        | Fault::Flood(_)
        | Fault::Lie(_) => AFTER_AN_OUTAGE,
        Fault::CutBus(_) | Fault::StopBus { .. } | Fault::NoLeader => AFTER_A_LOSS_ON_THE_BUS,
        Fault::Drain(_) => AFTER_A_DRAIN,
        Fault::Twin { .. } => AFTER_A_TWIN,
    }
}

/// Whether both are registered, at the same base or at two of one cluster.
fn share_base(world: &World, one: NodeId, other: NodeId) -> bool {
    let service = |node: NodeId| {
        let id = world.at_host(node).machine()?.status(world.instant()).base?.id;
        let base = world.bases().into_iter().find(|&base| world.id(base) == id)?;
        Some(world.at_base(base).cluster.map_or(id, |(cluster, _)| cluster))
    };
    service(one).is_some() && service(one) == service(other)
}

fn reaches_a_base(world: &World, host: NodeId) -> bool {
    [true, false].into_iter().any(|v4| world.address(host, v4).is_some())
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
