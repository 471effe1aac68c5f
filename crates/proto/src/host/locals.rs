//! The device's own side of address pairs: which own addresses there are, which of them a datagram leaves from, and
//! what is on the same link.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{Interface, Nat64, Network};
use crate::wire::MAX_OWN_ADDRESSES;

/// What a change of network means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Every path is in doubt.
    Moved,
    /// Other addresses may be tried than before, or from elsewhere.
    Near,
    /// Interfaces have come or gone that lead nowhere but to their own link.
    Links,
}

/// The network as last reported, with the questions that paths ask of it.
#[derive(Debug, Default)]
pub(super) struct Locals {
    network: Network,
    nat64: Option<Nat64>,
}

impl Locals {
    pub(super) fn new(network: Network, nat64: Option<Nat64>) -> Self {
        Self { network, nat64 }
    }

    pub(super) fn nat64(&self) -> Option<Nat64> {
        self.nat64
    }

    /// Where what others know by this address is to be had from here: where nothing but a NAT64 leads to it, under that one's name for it.
    /// What means another machine in every network is not for a NAT64 of the provider's to find.
    pub(super) fn reach(&self, address: SocketAddr) -> SocketAddr {
        let (IpAddr::V4(v4), Some(nat64)) = (address.ip(), self.nat64) else { return address };
        let near = is_private(v4.into()) || v4.is_loopback() || v4.is_unspecified() || v4.is_multicast();
        if near || self.interfaces().iter().any(|i| i.default_v4) || self.on_link(address) {
            return address;
        }
        SocketAddr::new(nat64.address(v4).into(), address.port())
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.network.interfaces
    }

    fn addresses(&self) -> impl Iterator<Item = (&Interface, IpAddr, u8)> {
        self.network
            .interfaces
            .iter()
            .flat_map(|i| i.addresses.iter().map(move |&(ip, prefix)| (i, ip, prefix)))
    }

    fn port(&self, ip: IpAddr) -> Option<u16> {
        if ip.is_ipv4() { self.network.port_v4 } else { self.network.port_v6 }
    }

    /// Whether a datagram to this address has a socket to leave by.
    pub(super) fn has_family(&self, ip: IpAddr) -> bool {
        self.port(ip).is_some()
    }

    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.addresses().any(|(_, own, _)| own == ip)
    }

    /// The own addresses to tell a base, those that reach farthest first. Loopback only for a base that is reached
    /// over loopback; link-local never: it says nothing without its link.
    pub(super) fn own_addresses(&self, loopback: bool) -> Vec<SocketAddr> {
        let mut ranked: Vec<(bool, bool, SocketAddr)> = self
            .addresses()
            .filter(|&(_, ip, _)| !is_link_local(ip) && !ip.is_unspecified() && !ip.is_multicast())
            .filter(|(_, ip, _)| loopback || !ip.is_loopback())
            .filter_map(|(i, ip, _)| {
                Some((!i.has_default(ip), is_private(ip), SocketAddr::new(ip, self.port(ip)?)))
            })
            .collect();
        ranked.sort_by_key(|&(undirected, private, _)| (undirected, private));
        ranked.dedup_by_key(|entry| entry.2);
        ranked.into_iter().map(|(_, _, address)| address).take(MAX_OWN_ADDRESSES).collect()
    }

    /// The own addresses to pair with a remote one: the system chooses (`None`) unless there is a choice to be made.
    pub(super) fn sources_for(&self, remote: SocketAddr) -> Vec<Option<IpAddr>> {
        let ip = remote.ip();
        if ip.is_loopback() || is_link_local(ip) {
            return vec![None];
        }
        if let Some((_, own, _)) = self.addresses().find(|&(_, own, prefix)| same_subnet(own, ip, prefix)) {
            return vec![Some(own)];
        }
        let ways: Vec<IpAddr> = self
            .interfaces()
            .iter()
            .filter(|i| i.has_default(ip))
            .filter_map(|i| i.addresses.iter().map(|&(own, _)| own).find(|&own| same_scope(own, ip)))
            .collect();
        // One way out, or none that we know of: the system's choice of a source is better than ours.
        if ways.len() < 2 { vec![None] } else { ways.into_iter().map(Some).collect() }
    }

    /// The own addresses to leave from by ways out that the system does not prefer, one of each interface.
    pub(super) fn further_sources(&self, remote: SocketAddr) -> Vec<IpAddr> {
        if self.sources_for(remote).len() < 2 {
            return Vec::new();
        }
        let others = self.interfaces().iter().filter(|i| i.has_default(remote.ip()) && !i.preferred);
        let sources = others.filter_map(|i| {
            i.addresses.iter().map(|&(own, _)| own).find(|&own| same_scope(own, remote.ip()))
        });
        sources.collect()
    }

    pub(super) fn on_link(&self, remote: SocketAddr) -> bool {
        let ip = remote.ip();
        // fe80::/10 is on some link of every host; 169.254/16 only of one that has such an address itself.
        (ip.is_ipv6() && is_link_local(ip))
            || self.addresses().any(|(_, own, prefix)| same_subnet(own, ip, prefix))
    }

    /// Whether a route of its own (not a default route) leads to this address.
    pub(super) fn routed(&self, ip: IpAddr) -> bool {
        self.interfaces()
            .iter()
            .any(|i| i.routes.iter().any(|&(net, prefix)| prefix > 0 && same_subnet(net, ip, prefix)))
    }

    /// Whether this is the broadcast address of a subnet we are in.
    pub(super) fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        v4.is_broadcast()
            || self.addresses().any(|(_, own, prefix)| match own {
                IpAddr::V4(own) if prefix < 31 => {
                    let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                    own.to_bits() | host == v4.to_bits()
                }
                _ => false,
            })
    }

    /// Whether all candidates are judged as by `before`. Containers come and go, each with an interface that has a link-local address
    /// and no other.
    pub(super) fn judges_as(&self, before: &Self) -> bool {
        let ports = |locals: &Self| (locals.network.port_v4, locals.network.port_v6);
        let places = |locals: &Self| -> Vec<_> {
            let said = locals.interfaces().iter().map(|i| {
                let addresses = i.addresses.iter().filter(|(ip, _)| ip.is_ipv4() || !is_link_local(*ip));
                (i.default_v4, i.default_v6, addresses.copied().collect::<Vec<_>>(), i.routes.clone())
            });
            said.filter(|(.., addresses, routes)| !addresses.is_empty() || !routes.is_empty()).collect()
        };
        ports(self) == ports(before) && places(self) == places(before)
    }

    /// What a change of network is judged by: the addresses that datagrams to far away leave from, whether they have a
    /// default route (what was sent before there was one has gone nowhere), and whether it is the one that the system prefers: a
    /// Wi-Fi that leads nowhere any more may keep both, and be passed over from then on. Where no interface has a default route, all addresses
    /// count; loopback and link-local ones never do.
    pub(super) fn exits(&self) -> BTreeSet<(u32, IpAddr, bool, bool)> {
        let all = self.addresses().filter(|&(_, ip, _)| !ip.is_loopback() && !is_link_local(ip));
        let mut exits: BTreeSet<_> =
            all.map(|(i, ip, _)| (i.index, ip, i.has_default(ip), i.preferred)).collect();
        if exits.iter().any(|&(_, _, default, _)| default) {
            exits.retain(|&(_, _, default, _)| default);
        }
        exits
    }
}

impl Interface {
    fn has_default(&self, family_of: IpAddr) -> bool {
        if family_of.is_ipv4() { self.default_v4 } else { self.default_v6 }
    }
}

/// 169.254/16 and fe80::/10.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Ranges that mean another machine in every network: RFC 1918, RFC 6598, RFC 4193, link-local.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn same_scope(own: IpAddr, remote: IpAddr) -> bool {
    own.is_ipv4() == remote.is_ipv4()
        && !is_link_local(own)
        && (own.is_ipv4() || is_private(own) == is_private(remote))
}

fn same_subnet(own: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let bits = |all: u32| all.saturating_sub(u32::from(prefix));
    match (own, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(bits(32)).unwrap_or(0) == 0,
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(bits(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}
