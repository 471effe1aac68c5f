//! Which interface a datagram with a given source has to leave by.
//!
//! A datagram that leaves from an address should leave by the interface that has it. The kernel looks at the
//! destination alone: with two default routes it takes the better one for every source, and the other provider drops
//! what comes from a foreign address. So the interface is named where, and only where, the kernel's own choice could
//! be the wrong one.

use std::net::{IpAddr, SocketAddr};

use bowline_proto::host::Interface;

/// The interface to name for a datagram from `source` to `to`; `None` leaves the choice to the kernel.
pub(crate) fn interface_for(interfaces: &[Interface], source: IpAddr, to: SocketAddr) -> Option<u32> {
    let to = to.ip();
    if to.is_loopback() || source.is_loopback() || is_scoped(to) {
        return None; // The scope of the destination says it already.
    }
    let owns =
        |interface: &&Interface, address: IpAddr| interface.addresses.iter().any(|&(own, _)| own == address);
    if interfaces.iter().any(|interface| owns(&interface, to)) {
        return None; // Stays on this device: naming an interface would send it out to the wire.
    }
    let from = interfaces.iter().find(|interface| owns(interface, source))?;
    if on_link(from, to) {
        return Some(from.index);
    }
    if interfaces.iter().any(|interface| on_link(interface, to)) {
        return None;
    }
    let has_default = if to.is_ipv4() { from.default_v4 } else { from.default_v6 };
    // Without a default route the kernel would take any destination for a neighbour there.
    has_default.then_some(from.index)
}

fn is_scoped(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

fn on_link(interface: &Interface, to: IpAddr) -> bool {
    interface.addresses.iter().any(|&(own, prefix)| match (own, to) {
        (IpAddr::V4(own), IpAddr::V4(to)) => {
            prefix < 32 && (own.to_bits() ^ to.to_bits()).leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(own), IpAddr::V6(to)) => {
            prefix < 128 && (own.to_bits() ^ to.to_bits()).leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, default: bool, addresses: &[(&str, u8)]) -> Interface {
        Interface {
            index,
            name: format!("if{index}"),
            loopback: index == 1,
            multicast: true,
            default_v4: default,
            default_v6: default,
            preferred: false,
            addresses: addresses.iter().map(|&(ip, prefix)| (ip.parse().unwrap(), prefix)).collect(),
            routes: Vec::new(),
        }
    }

    #[test]
    fn the_interface_is_named_where_the_kernel_could_choose_another() {
        let interfaces = [
            interface(1, false, &[("127.0.0.1", 8)]),
            interface(2, true, &[("192.168.1.2", 24), ("2001:db8:1::2", 64)]),
            interface(3, true, &[("10.0.0.2", 8), ("fe80::3", 64)]),
            interface(4, false, &[("172.17.0.1", 16), ("192.168.1.9", 24)]),
        ];
        for (source, to, expected) in [
            ("192.168.1.2", "203.0.113.9:1", Some(2)),
            ("10.0.0.2", "203.0.113.9:1", Some(3)),
            ("2001:db8:1::2", "[2001:db8:9::9]:1", Some(2)),
            // On-link of its own interface, and of another one's.
            ("192.168.1.9", "192.168.1.77:1", Some(4)),
            ("192.168.1.2", "10.9.9.9:1", None),
            // No default route there: the kernel may know a way, naming would make it a neighbour.
            ("172.17.0.1", "203.0.113.9:1", None),
            // An address of this device, and loopback.
            ("192.168.1.2", "10.0.0.2:1", None),
            ("127.0.0.1", "192.168.1.2:1", None),
            ("192.168.1.2", "127.0.0.1:1", None),
            // The scope says it.
            ("fe80::3", "[fe80::9%3]:1", None),
            // An address that has gone.
            ("192.0.2.1", "203.0.113.9:1", None),
        ] {
            let got = interface_for(&interfaces, source.parse().unwrap(), to.parse().unwrap());
            assert_eq!(got, expected, "from {source} to {to}");
        }
    }
}
