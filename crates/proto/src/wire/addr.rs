//! Addresses on the wire: 18 bytes, IPv6 or IPv4-mapped, then the port (protocol section 3).
//!
//! In memory an address is a [`SocketAddr`] in canonical form: IPv4 is IPv4, never mapped. Scope IDs and flow
//! labels do not travel; a link-local address gets its scope from the interface it came in by.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes of an address on the wire.
pub const ADDR_LEN: usize = 18;

/// The 18 bytes of an address.
#[must_use]
pub fn encode(address: SocketAddr) -> [u8; ADDR_LEN] {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ADDR_LEN];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// The address that 18 bytes stand for, in canonical form. All values are addresses.
#[must_use]
pub fn decode(bytes: &[u8; ADDR_LEN]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([bytes[16], bytes[17]]))
}

/// The one form in which addresses are compared: IPv4-mapped becomes IPv4, flow labels go, and a scope ID stays
/// only where it means something (`fe80::/10` and multicast groups).
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(mut v6) => match v6.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, v6.port()),
            IpAddr::V6(ip) => {
                v6.set_flowinfo(0);
                if !ip.is_unicast_link_local() && !ip.is_multicast() {
                    v6.set_scope_id(0);
                }
                SocketAddr::V6(v6)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_return_unchanged_and_mapped_becomes_ipv4() {
        for text in ["192.0.2.7:5123", "[2001:db8::7]:5123", "0.0.0.0:0", "[::]:4477"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(&encode(address)), address);
        }
        assert_eq!(canonical("[::ffff:192.0.2.7]:9".parse().unwrap()), "192.0.2.7:9".parse().unwrap());
    }

    #[test]
    fn a_scope_stays_on_link_local_addresses_only() {
        let scoped = |text: &str| {
            let SocketAddr::V6(mut v6) = text.parse().unwrap() else { unreachable!() };
            v6.set_scope_id(3);
            v6.set_flowinfo(9);
            canonical(SocketAddr::V6(v6))
        };
        assert!(matches!(scoped("[fe80::1]:1"), SocketAddr::V6(a) if a.scope_id() == 3 && a.flowinfo() == 0));
        assert_eq!(scoped("[2001:db8::1]:1"), "[2001:db8::1]:1".parse().unwrap());
    }
}
