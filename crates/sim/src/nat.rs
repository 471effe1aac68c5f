//! NATs and stateful firewalls as RFC 4787 and RFC 5382 tell them apart.
//!
//! A [`Nat`] maps inner IPv4 endpoints to ports of one external address; a [`Firewall`] translates nothing and lets
//! in what was asked for. Both keep their state by virtual time; what expired is as if it had never been. Neither
//! forwards packets: [`crate::fabric`] does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::packet::{Protocol, Time};

/// How far something depends on the remote endpoint (RFC 4787, sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dependence {
    /// Not at all.
    Endpoint,
    /// On its address.
    Address,
    /// On its address and port.
    AddressAndPort,
}

impl Dependence {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Endpoint, Self::Address, Self::AddressAndPort];

    /// The part of a remote endpoint that makes a difference.
    fn key(self, remote: SocketAddr) -> Option<(IpAddr, Option<u16>)> {
        match self {
            Self::Endpoint => None,
            Self::Address => Some((remote.ip(), None)),
            Self::AddressAndPort => Some((remote.ip(), Some(remote.port()))),
        }
    }

    fn matches(self, one: SocketAddr, other: SocketAddr) -> bool {
        self.key(one) == self.key(other)
    }
}

/// How a NAT chooses external ports (RFC 4787, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Allocation {
    /// The inner port, where no other inner endpoint has it.
    PortPreserving,
    /// The next one.
    Sequential,
    /// Any.
    Random,
}

/// What keeps a mapping alive (RFC 4787, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refresh {
    /// What goes out.
    Outbound,
    /// What goes out and what is let in.
    Both,
    /// Nothing: a mapping ends its time after it was made, used or not.
    Absolute,
}

/// The behaviour of a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatKind {
    /// Which remote endpoints share a mapping.
    pub mapping: Dependence,
    /// Which remote endpoints are let in.
    pub filtering: Dependence,
    /// How ports are chosen.
    pub allocation: Allocation,
    /// What keeps a mapping alive.
    pub refresh: Refresh,
    /// How long a UDP mapping lives without.
    pub expiry: Duration,
    /// Whether two inner endpoints reach each other by their external addresses.
    pub hairpin: bool,
}

impl NatKind {
    /// The friendliest home router: endpoint-independent mapping, the given filtering.
    #[must_use]
    pub const fn with(mapping: Dependence, filtering: Dependence, allocation: Allocation) -> Self {
        Self {
            mapping,
            filtering,
            allocation,
            refresh: Refresh::Both,
            expiry: Duration::from_secs(120),
            hairpin: false,
        }
    }
}

/// An idle TCP connection is forgotten after this (RFC 5382 asks for two hours and four minutes at least).
const TCP_EXPIRY: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// Mappings that a NAT holds; the one that was silent longest goes.
const MAX_MAPPINGS: usize = 16_384;
/// The first port that sequential allocation gives out.
const FIRST_SEQUENTIAL_PORT: u16 = 20_000;
/// The first port that is chosen at random, and that a search for a free one begins with.
const FIRST_DYNAMIC_PORT: u16 = 1_024;

/// The remote endpoints that were written to, and when they were last.
#[derive(Debug, Clone, Default)]
struct Contacts(BTreeMap<SocketAddr, Time>);

impl Contacts {
    fn wrote_to(&mut self, remote: SocketAddr, now: Time, expiry: Duration) {
        self.0.retain(|_, last| now < *last + expiry);
        self.0.insert(remote, now);
    }

    /// Whether `remote` is let in; that refreshes what let it in, if `refresh` says so.
    fn lets_in(
        &mut self,
        remote: SocketAddr,
        filtering: Dependence,
        refresh: Refresh,
        now: Time,
        expiry: Duration,
    ) -> bool {
        let mut allowed = false;
        for (known, last) in &mut self.0 {
            if now < *last + expiry && filtering.matches(*known, remote) {
                allowed = true;
                if refresh == Refresh::Both {
                    *last = now;
                }
            }
        }
        allowed
    }
}

/// What identifies a mapping.
type MappingKey = (Protocol, SocketAddr, Option<(IpAddr, Option<u16>)>);

#[derive(Debug, Clone)]
struct Mapping {
    port: u16,
    born: Time,
    last: Time,
    contacts: Contacts,
}

/// A NAT with one external IPv4 address.
#[derive(Debug, Clone)]
pub struct Nat {
    /// Its behaviour.
    pub kind: NatKind,
    /// Its external address.
    pub external: Ipv4Addr,
    mappings: BTreeMap<MappingKey, Mapping>,
    next_port: u16,
}

impl Nat {
    /// A NAT without mappings.
    #[must_use]
    pub fn new(kind: NatKind, external: Ipv4Addr) -> Self {
        Self { kind, external, mappings: BTreeMap::new(), next_port: FIRST_SEQUENTIAL_PORT }
    }

    /// All mappings are lost, as when the device restarts. Sequential ports do not begin anew: a real one starts
    /// wherever it happens to.
    pub fn reboot(&mut self, rng: &mut ChaCha8Rng) {
        self.mappings.clear();
        self.next_port = rng.random_range(FIRST_SEQUENTIAL_PORT..40_000);
    }

    /// Its UDP mappings end now, as if nobody had used them for too long; TCP goes on.
    pub fn expire_udp(&mut self) {
        self.mappings.retain(|key, _| key.0 != Protocol::Udp);
    }

    /// It gets another external address, and forgets all mappings of the one before.
    pub fn readdress(&mut self, external: Ipv4Addr) {
        self.external = external;
        self.mappings.clear();
    }

    /// How many mappings live.
    #[must_use]
    pub fn live(&self, now: Time) -> usize {
        self.mappings.iter().filter(|(key, m)| now < self.ends(key.0, m)).count()
    }

    /// The external source of what `inner` sends to `remote`.
    pub fn outbound(
        &mut self,
        protocol: Protocol,
        inner: SocketAddr,
        remote: SocketAddr,
        now: Time,
        rng: &mut ChaCha8Rng,
    ) -> SocketAddr {
        let (mapping, _) = self.dependence(protocol);
        let expiry = self.expiry(protocol);
        let key = (protocol, inner, mapping.key(remote));
        if self.mappings.get(&key).is_none_or(|m| now >= self.ends(protocol, m)) {
            self.forget_expired(now);
            let port = self.allocate(protocol, inner, now, rng);
            self.mappings.insert(key, Mapping { port, born: now, last: now, contacts: Contacts::default() });
        }
        let external = self.external;
        let mapping = self.mappings.get_mut(&key).expect("it was there or has just been put there");
        mapping.last = now;
        mapping.contacts.wrote_to(remote, now, expiry);
        SocketAddr::new(external.into(), mapping.port)
    }

    /// The inner endpoint that gets what `remote` sends to this external port, if it is let in.
    pub fn inbound(
        &mut self,
        protocol: Protocol,
        port: u16,
        remote: SocketAddr,
        now: Time,
    ) -> Option<SocketAddr> {
        let (_, filtering) = self.dependence(protocol);
        let (expiry, refresh) = (self.expiry(protocol), self.kind.refresh);
        let ends = |mapping: &Mapping| ends(protocol, refresh, expiry, mapping);
        for (key, mapping) in &mut self.mappings {
            let live = key.0 == protocol && mapping.port == port && now < ends(mapping);
            // With endpoint-independent filtering whoever writes is let in, known or not.
            let open = live
                && (filtering == Dependence::Endpoint
                    || mapping.contacts.lets_in(remote, filtering, refresh, now, expiry));
            if open {
                if refresh == Refresh::Both {
                    mapping.last = now;
                }
                return Some(key.1);
            }
        }
        None
    }

    /// TCP passes by connection tracking, whatever the NAT does with UDP.
    fn dependence(&self, protocol: Protocol) -> (Dependence, Dependence) {
        match protocol {
            Protocol::Udp => (self.kind.mapping, self.kind.filtering),
            Protocol::Tcp => (Dependence::AddressAndPort, Dependence::AddressAndPort),
        }
    }

    fn expiry(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp => self.kind.expiry,
            Protocol::Tcp => TCP_EXPIRY,
        }
    }

    fn ends(&self, protocol: Protocol, mapping: &Mapping) -> Time {
        ends(protocol, self.kind.refresh, self.expiry(protocol), mapping)
    }

    fn forget_expired(&mut self, now: Time) {
        let (refresh, udp) = (self.kind.refresh, self.kind.expiry);
        self.mappings.retain(|key, m| {
            let expiry = if key.0 == Protocol::Udp { udp } else { TCP_EXPIRY };
            now < ends(key.0, refresh, expiry, m)
        });
        if self.mappings.len() >= MAX_MAPPINGS {
            let oldest = self.mappings.iter().min_by_key(|(_, m)| m.last).map(|(key, _)| *key);
            oldest.map(|key| self.mappings.remove(&key));
        }
    }

    fn allocate(&mut self, protocol: Protocol, inner: SocketAddr, now: Time, rng: &mut ChaCha8Rng) -> u16 {
        match self.kind.allocation {
            Allocation::PortPreserving => {
                // One inner endpoint may have one port towards several remotes; another one may not share it.
                let shared = |key: &MappingKey| key.1 == inner;
                self.free_port(protocol, inner.port(), now, shared)
            }
            Allocation::Sequential => {
                let port = self.free_port(protocol, self.next_port, now, |_| false);
                self.next_port = after(port);
                port
            }
            Allocation::Random => {
                let start = rng.random_range(FIRST_DYNAMIC_PORT..=u16::MAX);
                self.free_port(protocol, start, now, |_| false)
            }
        }
    }

    fn free_port(
        &self,
        protocol: Protocol,
        start: u16,
        now: Time,
        may_share: impl Fn(&MappingKey) -> bool,
    ) -> u16 {
        let taken = |port: u16| {
            self.mappings.iter().any(|(key, m)| {
                key.0 == protocol && m.port == port && now < self.ends(protocol, m) && !may_share(key)
            })
        };
        let mut port = start;
        while taken(port) {
            port = after(port);
        }
        port
    }
}

/// When a mapping ends, if nothing uses it until then.
fn ends(protocol: Protocol, refresh: Refresh, expiry: Duration, mapping: &Mapping) -> Time {
    let since = match (protocol, refresh) {
        (Protocol::Udp, Refresh::Absolute) => mapping.born,
        _ => mapping.last,
    };
    since + expiry
}

fn after(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(FIRST_DYNAMIC_PORT)
}

/// A firewall that lets in only what was asked for; it translates nothing.
#[derive(Debug, Clone)]
pub struct Firewall {
    /// Whom an inner endpoint that wrote to one remote endpoint is reachable for.
    pub filtering: Dependence,
    /// What keeps a hole open.
    pub refresh: Refresh,
    /// How long a UDP hole stays open without.
    pub expiry: Duration,
    holes: BTreeMap<(Protocol, SocketAddr), Contacts>,
}

impl Firewall {
    /// A firewall without holes, as most home routers have it for IPv6: connection tracking.
    #[must_use]
    pub fn new(filtering: Dependence, expiry: Duration) -> Self {
        Self { filtering, refresh: Refresh::Both, expiry, holes: BTreeMap::new() }
    }

    /// All holes close.
    pub fn reboot(&mut self) {
        self.holes.clear();
    }

    /// All holes for UDP close, as if nobody had used them for too long.
    pub fn expire_udp(&mut self) {
        self.holes.retain(|key, _| key.0 != Protocol::Udp);
    }

    /// `inner` writes to `remote`: that opens a hole.
    pub fn outbound(&mut self, protocol: Protocol, inner: SocketAddr, remote: SocketAddr, now: Time) {
        let expiry = self.expiry(protocol);
        self.holes.entry((protocol, inner)).or_default().wrote_to(remote, now, expiry);
    }

    /// Whether what `remote` writes to `inner` is let in.
    pub fn inbound(&mut self, protocol: Protocol, inner: SocketAddr, remote: SocketAddr, now: Time) -> bool {
        let expiry = self.expiry(protocol);
        let filtering = if protocol == Protocol::Tcp { Dependence::AddressAndPort } else { self.filtering };
        let refresh = self.refresh;
        self.holes
            .get_mut(&(protocol, inner))
            .is_some_and(|hole| hole.lets_in(remote, filtering, refresh, now, expiry))
    }

    fn expiry(&self, protocol: Protocol) -> Duration {
        if protocol == Protocol::Tcp { TCP_EXPIRY } else { self.expiry }
    }
}
