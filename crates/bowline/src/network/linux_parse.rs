//! The kernel's answers about links, addresses and routes, read into interfaces.
//!
//! Only the attributes that are needed are looked at: kernels newer than this crate add others, and may. What cannot
//! be read is skipped. No sockets here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use bowline_proto::host::Interface;
use netlink_packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressFlags, AddressHeader},
    link::{LinkFlags, LinkHeader},
    route::{RouteFlags, RouteHeader, RouteType},
};

/// Message types of `rtnetlink(7)`.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

/// Attributes of links, addresses and routes, each numbered on its own.
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What to ask for, in this order: message type, family, length of the family header.
pub(super) const DUMPS: [(u16, u8, usize); 4] = [
    (RTM_GETLINK, AF_UNSPEC, 16),
    (RTM_GETADDR, AF_UNSPEC, 8),
    (RTM_GETROUTE, AF_INET, 12),
    (RTM_GETROUTE, AF_INET6, 12),
];

/// Addresses that are far away: for documentation, which nobody has.
pub(super) const FAR: [(u8, &[u8]); 2] =
    [(AF_INET, &[192, 0, 2, 1]), (AF_INET6, &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])];

/// Bytes of an `rtmsg`.
const ROUTE_HEADER_LEN: usize = 12;
/// Routes kept of one interface. They only say which private ranges are near.
const ROUTES: usize = 64;
/// Routes to no more than so many addresses (by prefix) are none of those that together stand for a default route. There are few of them.
const BROAD: u8 = 8;
/// Bytes of an `rtnexthop` before its attributes.
const NEXT_HOP_LEN: usize = 8;

/// Interfaces as they come together from several answers.
#[derive(Debug, Default)]
pub(super) struct Tables {
    interfaces: BTreeMap<u32, Interface>,
    addresses: Vec<Address>,
    /// Where the broad routes through an interface lead that are no defaults.
    reaches: BTreeMap<u32, Reach>,
}

/// The first octets of all addresses that routes lead to, in each family. VPNs that take everything leave the default route as it is, and
/// put halves of the whole before it, or pieces of what is neither private nor multicast.
#[derive(Debug, Default)]
struct Reach {
    v4: BTreeSet<u8>,
    v6: BTreeSet<u8>,
}

#[derive(Debug)]
struct Address {
    index: u32,
    address: IpAddr,
    prefix: u8,
    deprecated: bool,
}

/// The question by which way a datagram leaves that goes to this address: message type, and what follows the header.
pub(super) fn way_request(family: u8, to: &[u8]) -> (u16, Vec<u8>) {
    let mut body = vec![0; ROUTE_HEADER_LEN];
    body[0] = family;
    body[1] = (8 * to.len()) as u8;
    body.extend_from_slice(&((4 + to.len()) as u16).to_ne_bytes());
    body.extend_from_slice(&RTA_DST.to_ne_bytes());
    body.extend_from_slice(to);
    (RTM_GETROUTE, body)
}

/// The interface that the answer names.
pub(super) fn way(message: &NetlinkBuffer<&[u8]>) -> Option<u32> {
    let payload = message.payload();
    if message.message_type() != RTM_NEWROUTE || RouteHeader::parse(payload).ok()?.kind != RouteType::Unicast
    {
        return None;
    }
    let leads = attributes(payload, ROUTE_HEADER_LEN).find(|attribute| attribute.kind() == RTA_OIF)?;
    value(&leads).map(u32::from_ne_bytes)
}

/// Whether a notification may change what [`Tables`] would show. Routes to public networks come and go by the thousand
/// on some machines, and are not shown.
pub(super) fn matters(message: &NetlinkBuffer<&[u8]>) -> bool {
    match message.message_type() {
        RTM_NEWROUTE | RTM_DELROUTE => {
            RouteHeader::parse(message.payload()).is_ok_and(|route| route.kind == RouteType::Unicast)
                && destination(message.payload()).is_some_and(is_of_interest)
        }
        _ => true,
    }
}

impl Tables {
    /// Takes one message of an answer in.
    pub(super) fn apply(&mut self, message: &NetlinkBuffer<&[u8]>) {
        let payload = message.payload();
        let read = match message.message_type() {
            RTM_NEWLINK => self.link(payload),
            RTM_NEWADDR => self.address(payload),
            RTM_NEWROUTE => self.route(payload),
            _ => Some(()),
        };
        if read.is_none() {
            tracing::debug!(kind = message.message_type(), "a netlink message that cannot be read");
        }
    }

    /// What has come together: interfaces that are up and have a carrier, with their usable addresses.
    pub(super) fn interfaces(mut self) -> Vec<Interface> {
        // Privacy extensions leave up to seven deprecated addresses beside the one in use: they are passed over while
        // a fresh one stands in the same prefix.
        let fresh: Vec<(u32, IpAddr)> = self
            .addresses
            .iter()
            .filter(|a| !a.deprecated)
            .map(|a| (a.index, network_of(a.address, a.prefix)))
            .collect();
        for Address { index, address, prefix, deprecated } in self.addresses {
            if deprecated && fresh.contains(&(index, network_of(address, prefix))) {
                continue;
            }
            if let Some(interface) = self.interfaces.get_mut(&index) {
                interface.addresses.push((address, prefix));
            }
        }
        for (index, reach) in self.reaches {
            if let Some(interface) = self.interfaces.get_mut(&index) {
                interface.default_v4 |= reach.is_default_v4();
                interface.default_v6 |= reach.is_default_v6();
            }
        }
        self.interfaces.into_values().collect()
    }

    /// Datagrams to far away leave by this interface.
    pub(super) fn prefers(&mut self, index: u32) {
        if let Some(interface) = self.interfaces.get_mut(&index) {
            interface.preferred = true;
        }
    }

    fn link(&mut self, payload: &[u8]) -> Option<()> {
        let header = LinkHeader::parse(payload).ok()?;
        if !header.flags.contains(LinkFlags::Up | LinkFlags::Running) {
            return Some(());
        }
        let loopback = header.flags.contains(LinkFlags::Loopback);
        let name = attributes(payload, 16).find(|attribute| attribute.kind() == IFLA_IFNAME)?;
        let name = name.value().split(|&byte| byte == 0).next().unwrap_or_default();
        self.interfaces.insert(
            header.index,
            Interface {
                index: header.index,
                name: String::from_utf8_lossy(name).into_owned(),
                loopback,
                multicast: header.flags.contains(LinkFlags::Multicast) && !loopback,
                default_v4: false,
                default_v6: false,
                preferred: false,
                addresses: Vec::new(),
                routes: Vec::new(),
            },
        );
        Some(())
    }

    fn address(&mut self, payload: &[u8]) -> Option<()> {
        let header = AddressHeader::parse(payload).ok()?;
        let mut flags = AddressFlags::from_bits_retain(u32::from(header.flags.bits()));
        let (mut remote, mut local) = (None, None);
        for attribute in attributes(payload, 8) {
            match attribute.kind() {
                // On point-to-point links, IFA_ADDRESS is the other end's.
                IFA_ADDRESS => remote = ip(header.family, attribute.value()),
                IFA_LOCAL => local = ip(header.family, attribute.value()),
                IFA_FLAGS => flags = AddressFlags::from_bits_retain(u32::from_ne_bytes(value(&attribute)?)),
                _ => {}
            }
        }
        let unusable = flags.contains(AddressFlags::Dadfailed)
            || flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
        if !unusable {
            self.addresses.push(Address {
                index: header.index,
                address: local.or(remote)?,
                prefix: header.prefix_len,
                deprecated: flags.contains(AddressFlags::Deprecated),
            });
        }
        Some(())
    }

    fn route(&mut self, payload: &[u8]) -> Option<()> {
        let header = RouteHeader::parse(payload).ok()?;
        let to = destination(payload)?;
        if header.kind != RouteType::Unicast
            || header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown)
            || !is_of_interest(to)
        {
            return Some(());
        }
        for attribute in attributes(payload, ROUTE_HEADER_LEN) {
            match attribute.kind() {
                RTA_OIF => self.leads_through(to, u32::from_ne_bytes(value(&attribute)?)),
                RTA_MULTIPATH => next_hops(attribute.value()).for_each(|index| self.leads_through(to, index)),
                _ => {}
            }
        }
        Some(())
    }

    fn leads_through(&mut self, to: (IpAddr, u8), index: u32) {
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        match to {
            (IpAddr::V4(_), 0) => interface.default_v4 = true,
            (IpAddr::V6(_), 0) => interface.default_v6 = true,
            (first, prefix) if prefix <= BROAD && !is_private(to) => {
                self.reaches.entry(index).or_default().add(first, prefix);
            }
            _ if interface.routes.len() < ROUTES && !interface.routes.contains(&to) => {
                interface.routes.push(to);
            }
            _ => {}
        }
    }
}

impl Reach {
    fn add(&mut self, to: IpAddr, prefix: u8) {
        let (first, octets) = match to {
            IpAddr::V4(v4) => (v4.octets()[0], &mut self.v4),
            IpAddr::V6(v6) => (v6.octets()[0], &mut self.v6),
        };
        octets.extend(first..=first | 0xff_u8.checked_shr(prefix.into()).unwrap_or(0));
    }

    /// All but for a tenth of what is unicast: of that, private ranges and more may be left out.
    fn is_default_v4(&self) -> bool {
        self.v4.range(1..224).count() * 10 >= 223 * 9
    }

    /// The same of 2000::/3, beyond which there is nothing public.
    fn is_default_v6(&self) -> bool {
        self.v6.range(0x20..0x40).count() * 10 >= 32 * 9
    }
}

/// Where a route leads, from its message; a default route to the unspecified address.
fn destination(payload: &[u8]) -> Option<(IpAddr, u8)> {
    let header = RouteHeader::parse(payload).ok()?;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    if header.destination_prefix_length == 0 {
        return Some((any, 0));
    }
    let to = attributes(payload, ROUTE_HEADER_LEN).find(|attribute| attribute.kind() == RTA_DST)?;
    Some((ip(header.address_family, to.value())?, header.destination_prefix_length))
}

/// Whether a route there is a default, may be a part of one, or tells of a private network.
fn is_of_interest(to: (IpAddr, u8)) -> bool {
    to.1 <= BROAD || is_private(to)
}

/// Whether a route leads into a range that means another network everywhere: RFC 1918, RFC 6598, RFC 4193.
fn is_private((to, prefix): (IpAddr, u8)) -> bool {
    match to {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 && prefix >= 10
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// The attributes behind a family header of `header` bytes.
fn attributes(payload: &[u8], header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload.get(header..).unwrap_or_default()).map_while(Result::ok)
}

fn value<const N: usize>(attribute: &NlaBuffer<&[u8]>) -> Option<[u8; N]> {
    attribute.value().first_chunk().copied()
}

fn ip(family: AddressFamily, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => bytes.first_chunk::<4>().map(|&octets| IpAddr::from(octets)),
        AddressFamily::Inet6 => bytes.first_chunk::<16>().map(|&octets| IpAddr::from(octets)),
        _ => None,
    }
}

/// The interfaces of a multipath route's next hops: `length u16 ‖ flags u8 ‖ hops u8 ‖ interface u32 ‖ attributes`.
fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let head = bytes.first_chunk::<NEXT_HOP_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let index = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        bytes = bytes.get(length.max(NEXT_HOP_LEN).next_multiple_of(4)..).unwrap_or_default();
        Some(index)
    })
}

fn network_of(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole message: header, family header, attributes.
    fn message(kind: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = vec![0; 16];
        out.extend_from_slice(header);
        for (kind, value) in attributes {
            out.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            out.extend_from_slice(&kind.to_ne_bytes());
            out.extend_from_slice(value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        let length = out.len() as u32;
        let mut fields = NetlinkBuffer::new(&mut out);
        fields.set_length(length);
        fields.set_message_type(kind);
        out
    }

    fn link(index: u32, flags: u32, name: &str) -> Vec<u8> {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..12].copy_from_slice(&flags.to_ne_bytes());
        message(RTM_NEWLINK, &header, &[(999, b"an attribute of the future"), (IFLA_IFNAME, name.as_bytes())])
    }

    fn address(index: u32, address: &str, prefix: u8, flags: u32) -> Vec<u8> {
        let (family, octets) = match address.parse().unwrap() {
            IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
        };
        let mut header = [0; 8];
        header[..3].copy_from_slice(&[family, prefix, flags as u8]);
        header[4..].copy_from_slice(&index.to_ne_bytes());
        message(RTM_NEWADDR, &header, &[(IFA_ADDRESS, &octets), (IFA_FLAGS, &flags.to_ne_bytes())])
    }

    fn route(family: u8, prefix: u8, kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut header = [0; 12];
        (header[0], header[1], header[4], header[7]) = (family, prefix, 254, kind);
        message(RTM_NEWROUTE, &header, attributes)
    }

    fn tables(messages: &[Vec<u8>]) -> Vec<Interface> {
        let mut tables = Tables::default();
        for message in messages {
            tables.apply(&NetlinkBuffer::new_checked(&message[..]).unwrap());
        }
        tables.interfaces()
    }

    const UP: u32 = 0x1 | 0x40;
    const MULTICAST: u32 = 0x1000;
    const LOOPBACK: u32 = 0x8;

    #[test]
    fn links_addresses_and_default_routes_come_together() {
        let interfaces = tables(&[
            link(1, UP | LOOPBACK, "lo"),
            link(2, UP | MULTICAST, "eth0"),
            link(3, 0x1 | MULTICAST, "no-carrier"),
            address(1, "127.0.0.1", 8, 0x80),
            address(2, "192.0.2.7", 24, 0x80),
            address(2, "fe80::7", 64, 0x80),
            address(3, "198.51.100.1", 24, 0x80),
            route(AF_INET, 0, 1, &[(RTA_OIF, &2u32.to_ne_bytes())]),
            route(AF_INET, 24, 1, &[(RTA_DST, &[10, 9, 9, 0]), (RTA_OIF, &2u32.to_ne_bytes())]),
            route(AF_INET, 24, 1, &[(RTA_DST, &[203, 0, 113, 0]), (RTA_OIF, &2u32.to_ne_bytes())]),
            route(AF_INET6, 0, 7, &[(RTA_OIF, &2u32.to_ne_bytes())]),
        ]);
        let names: Vec<_> = interfaces.iter().map(|i| (i.name.as_str(), i.loopback, i.multicast)).collect();
        assert_eq!(names, [("lo", true, false), ("eth0", false, true)]);
        assert_eq!(
            interfaces[1].addresses,
            [("192.0.2.7".parse().unwrap(), 24), ("fe80::7".parse().unwrap(), 64)]
        );
        assert!(interfaces[1].default_v4, "a unicast default route");
        assert!(!interfaces[1].default_v6, "an unreachable default is none");
        assert!(!interfaces[0].default_v4);
        assert_eq!(
            interfaces[1].routes,
            [("10.9.9.0".parse().unwrap(), 24)],
            "only private networks are of interest"
        );
    }

    #[test]
    fn all_next_hops_of_a_multipath_route_lead_out() {
        let mut hops = Vec::new();
        for index in [2u32, 3] {
            hops.extend_from_slice(&16u16.to_ne_bytes());
            hops.extend_from_slice(&[0, 0]);
            hops.extend_from_slice(&index.to_ne_bytes());
            hops.extend_from_slice(&[8, 0, 5, 0, 10, 0, 0, 1]);
        }
        let interfaces = tables(&[
            link(2, UP, "eth0"),
            link(3, UP, "eth1"),
            route(AF_INET, 0, 1, &[(RTA_MULTIPATH, &hops)]),
        ]);
        assert!(interfaces.iter().all(|interface| interface.default_v4 && !interface.default_v6));
    }

    /// The defaults of an interface through which these routes lead.
    fn defaults(routes: &[&str]) -> (bool, bool) {
        let mut messages = vec![link(2, UP, "tun0")];
        for text in routes {
            let (to, prefix) = text.split_once('/').unwrap();
            let (family, octets) = match to.parse().unwrap() {
                IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
                IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
            };
            let attributes: [(u16, &[u8]); 2] = [(RTA_DST, &octets), (RTA_OIF, &2u32.to_ne_bytes())];
            messages.push(route(family, prefix.parse().unwrap(), 1, &attributes));
        }
        let interface = &tables(&messages)[0];
        (interface.default_v4, interface.default_v6)
    }

    #[test]
    fn what_leads_everywhere_together_is_a_default_route() {
        // OpenVPN's `redirect-gateway def1 ipv6`, and what leaves the two halves to others.
        assert_eq!(defaults(&["0.0.0.0/1", "128.0.0.0/1"]), (true, false));
        assert_eq!(defaults(&["::/3", "2000::/4", "3000::/4", "fc00::/7"]), (false, true));
        assert_eq!(defaults(&["::/1", "8000::/1"]), (false, true));
        assert_eq!(defaults(&["2000::/3"]), (false, true));
        // WireGuard's list of all that is not private.
        let public = "0.0.0.0/5 8.0.0.0/7 11.0.0.0/8 12.0.0.0/6 16.0.0.0/4 32.0.0.0/3 64.0.0.0/2 128.0.0.0/3 160.0.0.0/5 168.0.0.0/6 \
                      172.0.0.0/12 172.32.0.0/11 172.64.0.0/10 172.128.0.0/9 173.0.0.0/8 174.0.0.0/7 176.0.0.0/4 192.0.0.0/9 \
                      192.128.0.0/11 192.160.0.0/13 192.169.0.0/16 192.170.0.0/15 192.172.0.0/14 192.176.0.0/12 192.192.0.0/10 \
                      193.0.0.0/8 194.0.0.0/7 196.0.0.0/6 200.0.0.0/5 208.0.0.0/4";
        assert_eq!(defaults(&public.split(' ').collect::<Vec<_>>()), (true, false));
        // Halves that are not whole, and the same one twice.
        assert_eq!(defaults(&["0.0.0.0/1", "0.0.0.0/1", "0.0.0.0/2", "10.0.0.0/8"]), (false, false));
        assert_eq!(defaults(&["2000::/4", "8000::/1", "fc00::/7"]), (false, false));
    }

    #[test]
    fn addresses_that_cannot_be_used_yet_or_any_more_are_left_out() {
        let interfaces = tables(&[
            link(2, UP, "eth0"),
            address(2, "2001:db8:1::1", 64, 0x40),
            address(2, "2001:db8:1::2", 64, 0x08),
            address(2, "2001:db8:1::3", 64, 0x40 | 0x04),
            address(2, "2001:db8:1::4", 64, 0x20),
            address(2, "2001:db8:2::5", 64, 0x20),
        ]);
        let left: Vec<_> = interfaces[0].addresses.iter().map(|(ip, _)| ip.to_string()).collect();
        assert_eq!(left, ["2001:db8:1::3", "2001:db8:2::5"]);
    }

    #[test]
    fn only_default_routes_and_those_to_private_networks_matter() {
        let matters = |bytes: &[u8]| matters(&NetlinkBuffer::new_checked(bytes).unwrap());
        assert!(matters(&route(AF_INET, 0, 1, &[])));
        assert!(matters(&route(AF_INET, 24, 1, &[(RTA_DST, &[192, 168, 7, 0])])));
        assert!(matters(&route(AF_INET, 10, 1, &[(RTA_DST, &[100, 64, 0, 0])])));
        assert!(matters(&route(AF_INET, 1, 1, &[(RTA_DST, &[128, 0, 0, 0])])), "half of one");
        assert!(!matters(&route(AF_INET, 24, 1, &[(RTA_DST, &[203, 0, 113, 0])])));
        assert!(!matters(&route(AF_INET, 24, 1, &[])), "cut");
        assert!(matters(&link(2, UP, "eth0")));
    }

    #[test]
    fn cut_messages_are_skipped() {
        let whole = address(2, "192.0.2.7", 24, 0);
        for length in 16..whole.len() {
            let mut cut = whole[..length].to_vec();
            NetlinkBuffer::new(&mut cut).set_length(length as u32);
            tables(&[link(2, UP, "eth0"), cut]);
        }
        next_hops(&[0; 20]).for_each(drop);
        next_hops(&[255; 9]).for_each(drop);
    }
}
