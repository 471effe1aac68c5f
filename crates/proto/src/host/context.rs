//! What all parts of the host share: its key, its random numbers, the queue of outputs, counters and budgets.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::{
    Counters, Event, Hop, HostConfig, Output, Sizes, SocketId, config, locals::Locals, refresh::Refresh,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    identity::{KnownKeys, SecretKey},
    wire::MAX_OWN_ADDRESSES,
};

/// Shared by the session with the base and by all peers; lent to whichever part handles an input.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) key: SecretKey,
    pub(super) id: DeviceId,
    pub(super) config: HostConfig,
    pub(super) locals: Locals,
    pub(super) counters: Counters,
    pub(super) budgets: Budgets,
    pub(super) known_keys: KnownKeys,
    /// What the base's UDP addresses have shown of how long our NAT keeps a mapping.
    pub(super) refresh: Refresh,
    /// A port that a router has mapped for us, and that leads here.
    pub(super) mapped: Option<SocketAddr>,
    /// The one peer whose NAT (or ours, towards it) is being guessed at.
    pub(super) punching: Option<DeviceId>,
    /// Further sockets: the last number given out, and how many are open.
    sockets: (u32, usize),
    rng: ChaCha12Rng,
    out: VecDeque<Output>,
}

impl Context {
    pub(super) fn new(config: HostConfig, key: SecretKey, seed: [u8; 32]) -> Self {
        Self {
            id: key.device_id(),
            key,
            config,
            locals: Locals::default(),
            counters: Counters::default(),
            budgets: Budgets::default(),
            known_keys: KnownKeys::default(),
            refresh: Refresh::default(),
            mapped: None,
            punching: None,
            sockets: (0, 0),
            rng: ChaCha12Rng::from_seed(seed),
            out: VecDeque::new(),
        }
    }

    pub(super) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// The own addresses to tell a base: a mapped port first, since it is open to everybody.
    pub(super) fn own_addresses(&self, loopback: bool) -> Vec<SocketAddr> {
        let own = self.locals.own_addresses(loopback);
        let mapped = self.mapped.filter(|mapped| !own.contains(mapped));
        mapped.into_iter().chain(own).take(MAX_OWN_ADDRESSES).collect()
    }

    /// A uniformly random port, not below `lowest`.
    pub(super) fn random_port(&mut self, lowest: u16) -> u16 {
        self.rng.random_range(lowest..=u16::MAX)
    }

    /// One more socket, if there may be one.
    pub(super) fn open_socket(&mut self) -> Option<SocketId> {
        let (last, open) = &mut self.sockets;
        if *open >= config::MAX_SOCKETS {
            return None;
        }
        (*last, *open) = (last.wrapping_add(1).max(1), *open + 1);
        let socket = SocketId(*last);
        self.push(Output::OpenSocket(socket));
        Some(socket)
    }

    pub(super) fn close_socket(&mut self, socket: SocketId) {
        self.forget_socket();
        self.push(Output::CloseSocket(socket));
    }

    /// One of them is gone, or never was.
    pub(super) fn forget_socket(&mut self) {
        self.sockets.1 = self.sockets.1.saturating_sub(1);
    }

    /// A uniformly random time below `limit`.
    pub(super) fn random_below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.rng.random::<f64>())
    }

    /// `period`, shortened by its jitter: never longer, so that mappings are refreshed in time.
    pub(super) fn jittered(&mut self, period: Duration) -> Duration {
        period - self.random_below(period.mul_f64(config::ROUND_JITTER))
    }

    pub(super) fn push(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    pub(super) fn transmit(&mut self, hop: Hop, payload: impl Into<Bytes>) {
        self.out.push_back(Output::Transmit {
            socket: hop.socket,
            source: hop.source,
            to: hop.to,
            payload: payload.into(),
        });
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(super) fn measure(&self, sizes: &mut Sizes) {
        sizes.ip_budgets = self.budgets.per_ip.map.len();
        sizes.stranger_sources = self.budgets.stranger_sources.map.len();
        sizes.unknown_sources = self.budgets.unknown_source.map.len();
        sizes.outputs = self.out.len();
        sizes.sockets = self.sockets.1;
    }

    pub(super) fn allows(&self, peer: DeviceId) -> bool {
        match &self.config.allow {
            super::Allow::Everyone => true,
            super::Allow::Only(list) => list.contains(&peer),
        }
    }

    /// Whether an allow list names this peer: it is then wanted before anything was sent to it.
    pub(super) fn names(&self, peer: DeviceId) -> bool {
        matches!(&self.config.allow, super::Allow::Only(list) if list.contains(&peer))
    }
}

/// Which budgets that all peers share a HELLO is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HelloCost {
    /// That of the IP: nobody has answered at that very address lately.
    pub(super) ip: bool,
    /// That of new flows.
    pub(super) flow: bool,
}

/// The budgets that all peers share.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    pub(super) new_flows: Bucket,
    per_ip: BucketMap<IpAddr>,
    stranger_sources: BucketMap<IpAddr>,
    strangers: Bucket,
    strangers_on_link: Bucket,
    unknown_source: BucketMap<SocketAddr>,
    unknown_sources: Bucket,
}

impl Budgets {
    /// Whether one more HELLO may go to this IP now at that cost; otherwise when.
    pub(super) fn hello_to(&mut self, ip: IpAddr, cost: HelloCost, now: Instant) -> Result<(), Instant> {
        if cost.flow && !self.new_flows.take(config::NEW_FLOWS, now) {
            return Err(self.new_flows.next(config::NEW_FLOWS, now));
        }
        if cost.ip {
            let bucket = self.per_ip.get(ip, config::MAX_IP_BUDGETS, now);
            if !bucket.take(config::IP_HELLOS, now) {
                let next = bucket.next(config::IP_HELLOS, now);
                if cost.flow {
                    // Those that wait for one IP would use up what there is for all others.
                    self.new_flows.give_back(config::NEW_FLOWS);
                }
                return Err(next);
            }
        }
        Ok(())
    }

    /// Whether one more flow may be opened to guess a port: only what first HELLOs leave over.
    pub(super) fn guess(&mut self, now: Instant) -> bool {
        let spare = self.new_flows.next_many(1 + config::PUNCH_RESERVE, config::NEW_FLOWS, now) <= now;
        spare && self.new_flows.take(config::NEW_FLOWS, now)
    }

    /// A HELLO has been answered, so it has not gone to a victim, or has not gone out: it does not count.
    pub(super) fn give_back(&mut self, ip: IpAddr, cost: HelloCost, now: Instant) {
        if cost.ip {
            self.per_ip.get(ip, config::MAX_IP_BUDGETS, now).give_back(config::IP_HELLOS);
        }
        if cost.flow {
            self.new_flows.give_back(config::NEW_FLOWS);
        }
    }

    /// A HELLO goes to this IP that cannot wait (a probe, or one that was drawn): others wait for it.
    pub(super) fn urgent_hello_to(&mut self, ip: IpAddr, now: Instant) {
        self.per_ip.get(ip, config::MAX_IP_BUDGETS, now).charge(config::IP_HELLOS, now);
    }

    /// Whether a HELLO without introduction from this address may cost a verification.
    pub(super) fn stranger(&mut self, ip: IpAddr, on_link: bool, now: Instant) -> bool {
        // Under a flood this is all that most of it costs: no look into a table, no entry for a source.
        let all = if on_link { &self.strangers_on_link } else { &self.strangers };
        if all.next(config::STRANGERS, now) > now {
            return false;
        }
        let Some(bucket) = self.stranger_sources.try_get(
            if on_link { ip } else { source_group(ip) },
            config::MAX_STRANGER_SOURCES,
            now,
        ) else {
            return false;
        };
        let all = if on_link { &mut self.strangers_on_link } else { &mut self.strangers };
        bucket.take(config::STRANGER_SOURCE, now) && all.take(config::STRANGERS, now)
    }

    /// Whether data from this unknown source may be answered.
    pub(super) fn unknown_source(&mut self, from: SocketAddr, now: Instant) -> bool {
        let Some(bucket) = self.unknown_source.try_get(from, config::MAX_STRANGER_SOURCES, now) else {
            return false;
        };
        bucket.take(config::UNKNOWN_SOURCE, now) && self.unknown_sources.take(config::UNKNOWN_SOURCES, now)
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64.
fn source_group(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Buckets by key, a bounded number of them. Full ones are forgotten when room is needed: nobody gains by that.
#[derive(Debug)]
struct BucketMap<K> {
    map: BTreeMap<K, Bucket>,
    shared: Bucket,
}

impl<K> Default for BucketMap<K> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), shared: Bucket::default() }
    }
}

impl<K: Ord + Copy> BucketMap<K> {
    /// The key's bucket; where there is no room, one that all others share.
    fn get(&mut self, key: K, limit: usize, now: Instant) -> &mut Bucket {
        if self.make_room(key, limit, now) { self.map.entry(key).or_default() } else { &mut self.shared }
    }

    /// The key's bucket, if there is room.
    fn try_get(&mut self, key: K, limit: usize, now: Instant) -> Option<&mut Bucket> {
        self.make_room(key, limit, now).then(|| self.map.entry(key).or_default())
    }

    fn make_room(&mut self, key: K, limit: usize, now: Instant) -> bool {
        if self.map.len() >= limit && !self.map.contains_key(&key) {
            self.map.retain(|_, bucket| !bucket.is_full(now));
        }
        self.map.len() < limit || self.map.contains_key(&key)
    }
}

/// The earlier of two moments, where `None` is never.
pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A smoothed round trip with its variation (RFC 6298).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rtt {
    estimate: Option<(Duration, Duration)>,
}

impl Rtt {
    pub(super) fn sample(&mut self, rtt: Duration) {
        self.estimate = Some(match self.estimate {
            None => (rtt, rtt / 2),
            Some((srtt, var)) => ((srtt * 7 + rtt) / 8, (var * 3 + srtt.abs_diff(rtt)) / 4),
        });
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|(srtt, _)| srtt)
    }

    /// max(`floor`, srtt + 4 rttvar, 3 srtt): how long an answer may take.
    pub(super) fn patience(&self, floor: Duration) -> Duration {
        self.estimate.map_or(floor, |(srtt, var)| floor.max(srtt + var * 4).max(srtt * 3))
    }
}
