//! Candidates: addresses at which a peer might be, which of them may be tried at all, and in what order.
//!
//! Most candidates are somebody's word: a base may lie, a peer may name a victim's address. What is never tried, and
//! what is tried only with reason, is decided here and nowhere else (protocol section 8).

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
};

use super::{
    CandidateSource,
    locals::{Locals, is_link_local, is_private},
};

/// What a candidate is judged by.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub(super) locals: &'a Locals,
    /// The base's address, as far as there is one: what it can see depends on where it is.
    pub(super) base: Option<IpAddr>,
    /// This device's reflexive IPs.
    pub(super) reflexive: &'a [Option<IpAddr>],
    /// The peer's reflexive addresses.
    pub(super) peer_reflexive: &'a [SocketAddr],
}

impl Judge<'_> {
    /// Whether HELLOs may be sent to this address.
    pub(super) fn accepts(&self, address: SocketAddr, source: CandidateSource) -> bool {
        let (ip, port) = (address.ip(), address.port());
        let learned =
            matches!(source, CandidateSource::Given | CandidateSource::Proven | CandidateSource::Link);
        let never = !names_a_place(address)
            || self.locals.is_broadcast(ip)
            || !self.locals.has_family(ip)
            || self.is_self(address);
        if never || (port < 1024 && port != 443 && !learned) {
            return false;
        }
        if learned {
            return true;
        }
        let base_is = |test: fn(IpAddr) -> bool| self.base.is_some_and(test);
        if ip.is_loopback() {
            return base_is(|base| base.is_loopback());
        }
        if ip.is_ipv6() && is_link_local(ip) {
            return false;
        }
        if !is_private(ip) {
            return true;
        }
        let same_nat = || self.peer_reflexive.iter().any(|peer| self.reflexive.contains(&Some(peer.ip())));
        self.locals.on_link(address)
            || self.locals.routed(ip)
            || same_nat()
            // A base inside a private network sees private addresses: there they are what reflexive means.
            || (source == CandidateSource::Reflexive && base_is(is_private))
    }

    fn is_self(&self, address: SocketAddr) -> bool {
        let network = self.locals.network();
        let port = if address.is_ipv4() { network.port_v4 } else { network.port_v6 };
        port == Some(address.port()) && self.locals.has(address.ip())
    }
}

/// Best first: the order of the fields is the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// What worked last is most likely to work now.
    last_good: Reverse<bool>,
    source: CandidateSource,
    /// Own addresses on the same link before those that only might be reachable.
    on_link: Reverse<bool>,
    /// IPv6 has no NAT to punch.
    v6: Reverse<bool>,
}

impl Rank {
    pub(super) fn new(
        address: SocketAddr,
        source: CandidateSource,
        last_good: Option<SocketAddr>,
        locals: &Locals,
    ) -> Self {
        Self {
            last_good: Reverse(last_good == Some(address)),
            source,
            on_link: Reverse(locals.on_link(address)),
            v6: Reverse(address.is_ipv6()),
        }
    }
}

/// Whether a datagram to this address can mean one host somewhere: what does not is never sent to, and what comes from
/// there is not looked at. A HELLO that came through the layer above us would otherwise make a path out of itself.
pub(super) fn names_a_place(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast || is_device_range(ip))
}

/// fdb0::/16: addresses that stand for device IDs, never for places.
fn is_device_range(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.segments()[0] == 0xfdb0)
}
