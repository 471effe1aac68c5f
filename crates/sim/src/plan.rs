//! A world to be, as data: nets, hosts, bases, who talks with whom, what goes wrong and when.
//!
//! A plan comes from a seed, from bytes (a fuzzer's), or from a file; the same plan gives the same run, bit for bit.
//! Carrying it out is [`crate::scenario`]'s, making it small [`crate::shrink`]'s.

use std::{convert::Infallible, time::Duration};

use rand::{Rng, RngExt, SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    bus::Weather,
    fabric::NetId,
    faults::{Fault, Planned},
    link::Profile,
    nat::{Allocation, Dependence, NatKind, Refresh},
    packet::NodeId,
};

/// Faults begin within this time of the beginning.
const FAULT_PHASE: Duration = Duration::from_secs(300);
/// The most faults of a plan.
const MAX_FAULTS: usize = 8;

/// The kinds of nets that hosts are on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Place {
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

impl Place {
    /// Whether a mapping of its NATs ends at a fixed time, however much it is used: no path through it lasts.
    #[must_use]
    pub fn forgets(&self) -> bool {
        let absolute = |nat: &NatKind| nat.refresh == Refresh::Absolute;
        match self {
            Self::Home(nat) | Self::DualStack(nat, _) | Self::Office(nat) => absolute(nat),
            Self::BehindCarrier(nat, carrier) => absolute(nat) || absolute(carrier),
            Self::V6(_) | Self::Public => false,
        }
    }
}

/// A host to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The places of its interfaces.
    pub places: Vec<usize>,
    /// The bases that it knows; empty: all.
    #[serde(default)]
    pub bases: Vec<usize>,
}

/// How the bases of a plan are one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// Data between bases may take UDP; else it takes the bus.
    pub over_udp: bool,
    /// What their bus does to messages.
    pub weather: Weather,
}

/// A world to be, and what happens in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Where it comes from; all chance within the run, too.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Vec<Planned>,
    /// The nets of hosts, and the links of each.
    pub places: Vec<(Place, Profile)>,
    /// The bases, by their latency.
    pub bases: Vec<Duration>,
    /// What joins them; `None`: they know nothing of each other.
    #[serde(default)]
    pub cluster: Option<ClusterPlan>,
    /// The hosts.
    pub hosts: Vec<HostPlan>,
    /// Pairs of hosts (by position) that talk.
    pub pairs: Vec<(usize, usize)>,
    /// Devices with the key of a host, and the place of each: what [`Fault::Twin`] switches on. They come after the hosts.
    #[serde(default)]
    pub twins: Vec<(usize, usize)>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::chosen(seed, &mut ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_b041_13e5))
    }

    /// The plan that these bytes choose: what a fuzzer varies.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (seed, rest) = bytes.split_first_chunk().unwrap_or((&[0; 8], bytes));
        let seed = u64::from_le_bytes(*seed);
        Self::chosen(seed, &mut Bytes { bytes: rest, then: ChaCha8Rng::seed_from_u64(seed) })
    }

    fn chosen(seed: u64, rng: &mut impl Rng) -> Self {
        let places: Vec<_> = (0..rng.random_range(1..=4)).map(|_| (place(rng), profile(rng))).collect();
        let cluster = rng.random_bool(0.25).then(|| cluster(rng));
        let bases = match &cluster {
            Some(_) => rng.random_range(2..=4),
            // Bases that know nothing of each other keep their hosts apart, so most such worlds have one.
            None if rng.random_bool(0.75) => 1,
            None => rng.random_range(2..=3),
        };
        let bases: Vec<Duration> = (0..bases).map(|_| millis(rng, 1, 40)).collect();
        let hosts: Vec<HostPlan> = (0..rng.random_range(2..=6))
            .map(|_| {
                let mut own = vec![rng.random_range(0..places.len())];
                if rng.random_bool(0.15) {
                    own.push(rng.random_range(0..places.len()));
                    own.dedup();
                }
                let known = if cluster.is_some() { some_of(rng, bases.len()) } else { Vec::new() };
                HostPlan { places: own, bases: known }
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
        let twins = if rng.random_bool(0.1) {
            vec![(rng.random_range(0..hosts.len()), rng.random_range(0..places.len()))]
        } else {
            Vec::new()
        };
        let mut plan = Self { seed, faults: Vec::new(), places, bases, cluster, hosts, pairs, twins };
        plan.faults = plan.some_faults(rng);
        plan
    }

    fn some_faults(&self, rng: &mut impl Rng) -> Vec<Planned> {
        let mut faults: Vec<Planned> = (0..rng.random_range(0..=MAX_FAULTS))
            .map(|_| {
                let fault = self.some_fault(rng);
                let at = Duration::from_millis(rng.random_range(0..FAULT_PHASE.as_millis() as u64));
                let lasts = if rng.random_bool(0.3) { millis(rng, 0, 2_000) } else { millis(rng, 0, 90_000) };
                Planned { at, lasts, fault }
            })
            .collect();
        for (number, &(of, _)) in self.twins.iter().enumerate() {
            let (of, twin) = (self.host(of), self.twin(number));
            let at = Duration::from_millis(rng.random_range(0..FAULT_PHASE.as_millis() as u64));
            faults.push(Planned { at, lasts: millis(rng, 0, 90_000), fault: Fault::Twin { of, twin } });
        }
        faults.sort_by_key(|planned| planned.at);
        faults
    }

    fn some_fault(&self, rng: &mut impl Rng) -> Fault {
        let nets = self.nets();
        let base = |rng: &mut _| NodeId(RngExt::random_range(rng, 0..self.bases.len()));
        let host = |rng: &mut _| self.host(RngExt::random_range(rng, 0..self.hosts.len()));
        let net = |rng: &mut _| nets[RngExt::random_range(rng, 0..nets.len())];
        if self.cluster.is_some() && rng.random_bool(0.4) {
            let (one, other) = (base(rng), base(rng));
            return match rng.random_range(0..12) {
                0..=2 => Fault::CutBus(one),
                3 | 4 => Fault::StopBus { emptied: rng.random_bool(0.5) },
                5 => Fault::NoLeader,
                6 | 7 => Fault::BaseCrash { base: one, silently: rng.random_bool(0.5) },
                8 => Fault::Partition(one, other),
                9 => Fault::OneWay(one, other),
                10 => Fault::Cut(self.net_of_base(one)),
                _ => Fault::BadLink(self.net_of_base(one), bad_profile(rng)),
            };
        }
        match rng.random_range(0..30) {
            0..=2 => Fault::Roam { host: host(rng), interface: 1, to: net(rng) },
            3 => Fault::Readdress { host: host(rng), interface: 1 },
            4 => Fault::RouterReboot(net(rng)),
            5 => Fault::MappingsExpire(net(rng)),
            6 => Fault::NewPublicAddress(net(rng)),
            7 => Fault::Cut(net(rng)),
            8 => Fault::Partition(host(rng), host(rng)),
            9 => Fault::OneWay(host(rng), host(rng)),
            10 | 11 => Fault::BadLink(net(rng), bad_profile(rng)),
            12 => Fault::BlockUdp(net(rng)),
            13 => Fault::BlockUdpIn(net(rng)),
            14 => Fault::BlockUdpOut(net(rng)),
            15 => Fault::StallTcp(net(rng)),
            16 => Fault::ResetTcp(net(rng)),
            17 => Fault::HalfOpenTcp(net(rng)),
            18 | 19 => Fault::BaseCrash { base: base(rng), silently: rng.random_bool(0.5) },
            20 => Fault::Freeze(base(rng)),
            21 => Fault::Drain(base(rng)),
            22 => Fault::Sleep(host(rng)),
            23 => Fault::FreezeHost(host(rng)),
            24 => Fault::HostCrash(host(rng)),
            25 => {
                let node = if rng.random_bool(0.8) { host(rng) } else { base(rng) };
                let by =
                    if rng.random_bool(0.3) { millis(rng, 0, 3_600_000) } else { millis(rng, 0, 60_000) };
                Fault::ClockJump { node, by, told: rng.random_bool(0.5) }
            }
            26 | 27 => Fault::Attack,
            28 => Fault::Flood(host(rng)),
            _ => Fault::Lie(host(rng)),
        }
    }

    /// The node of a host. Numbers are as a run gives them: bases first, then hosts, then twins.
    #[must_use]
    pub fn host(&self, host: usize) -> NodeId {
        NodeId(self.bases.len() + host)
    }

    /// The node of a twin.
    #[must_use]
    pub fn twin(&self, twin: usize) -> NodeId {
        self.host(self.hosts.len() + twin)
    }

    /// The net of a base.
    #[must_use]
    pub fn net_of_base(&self, base: NodeId) -> NetId {
        NetId(1 + base.0)
    }

    /// The plan without a base: nodes and nets have other numbers then, and what goes wrong with it does not. `None` if
    /// somebody knows no other.
    #[must_use]
    pub fn without_base(&self, base: usize) -> Option<Self> {
        let mut plan = self.clone();
        plan.bases.remove(base);
        for host in &mut plan.hosts {
            let knew_some = !host.bases.is_empty();
            host.bases.retain(|&known| known != base);
            if plan.bases.is_empty() || (knew_some && host.bases.is_empty()) {
                return None;
            }
            host.bases.iter_mut().filter(|known| **known > base).for_each(|known| *known -= 1);
        }
        let net = self.net_of_base(NodeId(base));
        let less = |number: usize, gone: usize| (number != gone).then(|| number - usize::from(number > gone));
        plan.faults.retain_mut(|planned| {
            let there = planned
                .fault
                .renumbered(|node| less(node.0, base).map(NodeId), |other| less(other.0, net.0).map(NetId));
            there.map(|fault| planned.fault = fault).is_some()
        });
        Some(plan)
    }

    /// The nets that hosts are on, by place: those of bases come first, a carrier's before its home's.
    #[must_use]
    pub fn nets(&self) -> Vec<NetId> {
        let mut next = 1 + self.bases.len();
        let places = self.places.iter();
        places
            .map(|(place, _)| {
                next += if matches!(place, Place::BehindCarrier(..)) { 2 } else { 1 };
                NetId(next - 1)
            })
            .collect()
    }

    /// The plan for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text =
            format!("seed {}: {} bases, {} hosts\n", self.seed, self.bases.len(), self.hosts.len());
        for ((place, profile), net) in self.places.iter().zip(self.nets()) {
            text += &format!("  net{}: {place:?}\n      {profile:?}\n", net.0);
        }
        if let Some(cluster) = &self.cluster {
            text += &format!("  one cluster: {cluster:?}\n");
        }
        for (i, host) in self.hosts.iter().enumerate() {
            text += &format!("  host{i} ({:?}): on places {:?}", self.host(i), host.places);
            text += &if host.bases.is_empty() {
                "\n".into()
            } else {
                format!(", knows bases {:?}\n", host.bases)
            };
        }
        for (i, (of, place)) in self.twins.iter().enumerate() {
            text += &format!("  twin{i} ({:?}): has the key of host{of}, on place {place}\n", self.twin(i));
        }
        text += &format!("  pairs that talk: {:?}\n", self.pairs);
        for fault in &self.faults {
            text += &format!("  {fault}\n");
        }
        text
    }
}

/// Random numbers that a fuzzer chooses, as far as its bytes reach.
struct Bytes<'a> {
    bytes: &'a [u8],
    then: ChaCha8Rng,
}

impl TryRng for Bytes<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut next = [0; 4];
        self.try_fill_bytes(&mut next)?;
        Ok(u32::from_le_bytes(next))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut next = [0; 8];
        self.try_fill_bytes(&mut next)?;
        Ok(u64::from_le_bytes(next))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        let taken = into.len().min(self.bytes.len());
        let (now, later) = self.bytes.split_at(taken);
        into[..taken].copy_from_slice(now);
        self.bytes = later;
        self.then.fill_bytes(&mut into[taken..]);
        Ok(())
    }
}

fn cluster(rng: &mut impl Rng) -> ClusterPlan {
    let over_udp = rng.random_bool(0.6);
    if rng.random_bool(0.4) {
        return ClusterPlan { over_udp, weather: Weather::default() };
    }
    let least = Duration::from_micros(rng.random_range(200..=30_000));
    let most = least + if rng.random_bool(0.5) { millis(rng, 0, 20) } else { millis(rng, 0, 500) };
    let lost = if rng.random_bool(0.5) { rng.random_range(1..=50) } else { 0 };
    let doubled = if rng.random_bool(0.5) { rng.random_range(1..=100) } else { 0 };
    ClusterPlan { over_udp, weather: Weather { least, most, lost, doubled } }
}

/// Some of so many, or none for all.
fn some_of(rng: &mut impl Rng, count: usize) -> Vec<usize> {
    if rng.random_bool(0.4) {
        return Vec::new();
    }
    let mut some: Vec<usize> = (0..count).filter(|_| rng.random_bool(0.4)).collect();
    if some.is_empty() {
        some.push(rng.random_range(0..count));
    }
    some
}

fn place(rng: &mut impl Rng) -> Place {
    match rng.random_range(0..10) {
        0..=3 => Place::Home(nat(rng)),
        4 => Place::BehindCarrier(nat(rng), nat(rng)),
        5 | 6 => Place::DualStack(nat(rng), dependence(rng)),
        7 => Place::V6(dependence(rng)),
        8 => Place::Public,
        _ => Place::Office(nat(rng)),
    }
}

fn nat(rng: &mut impl Rng) -> NatKind {
    NatKind {
        mapping: dependence(rng),
        filtering: dependence(rng),
        allocation: match rng.random_range(0..3) {
            0 => Allocation::PortPreserving,
            1 => Allocation::Sequential,
            _ => Allocation::Random,
        },
        refresh: match rng.random_range(0..20) {
            0 => Refresh::Absolute,
            1..=9 => Refresh::Outbound,
            _ => Refresh::Both,
        },
        expiry: Duration::from_secs(rng.random_range(30..=300)),
        hairpin: rng.random_bool(0.5),
    }
}

fn dependence(rng: &mut impl Rng) -> Dependence {
    Dependence::ALL[rng.random_range(0..3)]
}

fn profile(rng: &mut impl Rng) -> Profile {
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

fn bad_profile(rng: &mut impl Rng) -> Profile {
    Profile {
        jitter: millis(rng, 0, 200),
        loss: rng.random_range(0.0..0.6),
        duplicate: rng.random_range(0.0..0.2),
        reorder: rng.random_range(0.0..0.3),
        corrupt: rng.random_range(0.0..0.1),
        ..Profile::perfect(millis(rng, 1, 400))
    }
}

fn millis(rng: &mut impl Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.random_range(least..=most))
}
