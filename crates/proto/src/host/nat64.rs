//! IPv4 addresses seen from a network that has IPv6 alone.
//!
//! Such a network has a NAT64, and its name servers make IPv6 addresses for names that have none (DNS64). For an address that is written
//! as such nobody does. What they make of a name whose IPv4 addresses are known (RFC 7050) shows how it is to be done (RFC 6052).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::candidate;

/// The addresses of `ipv4only.arpa`, which has these alone.
const KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
/// Bits before the IPv4 address.
const LENGTHS: [usize; 6] = [96, 64, 56, 48, 40, 32];
/// An octet that is always 0.
const RESERVED: usize = 8;

/// The addresses under which a network's NAT64 has those of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat64 {
    octets: [u8; 16],
    /// Where the octets of an IPv4 address stand.
    places: [usize; 4],
}

impl Nat64 {
    /// That by which this address was made of one of those that `ipv4only.arpa` has; none, if no router has such addresses: name servers may lie.
    #[must_use]
    pub fn of(made: Ipv6Addr) -> Option<Self> {
        let octets = made.octets();
        let places = LENGTHS.into_iter().map(places).find(|places| {
            let has_reserved = places[0] <= RESERVED + 1;
            (!has_reserved || octets[RESERVED] == 0)
                && KNOWN.contains(&Ipv4Addr::from(places.map(|place| octets[place])))
        })?;
        let is_place = candidate::names_a_place(SocketAddr::new(made.into(), 1));
        (is_place && !made.is_unicast_link_local() && made.to_ipv4().is_none())
            .then_some(Self { octets, places })
    }

    /// The address under which it has that one.
    #[must_use]
    pub fn address(&self, v4: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.octets;
        self.places.into_iter().zip(v4.octets()).for_each(|(place, octet)| octets[place] = octet);
        octets.into()
    }
}

fn places(length: usize) -> [usize; 4] {
    let first = length / 8;
    std::array::from_fn(
        |n| if first <= RESERVED && first + n >= RESERVED { first + n + 1 } else { first + n },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_as_the_network_s_own_were() {
        // The table of RFC 6052, section 2.4, with the known address in the place of 192.0.2.33.
        for (known, made) in [
            ("2001:db8:c000:aa::", "2001:db8:c000:221::"),
            ("2001:db8:1c0:0:aa::", "2001:db8:1c0:2:21::"),
            ("2001:db8:122:c000:0:aa00::", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:3c0:0:aa::", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344:c0:0:aa00::", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::192.0.0.170", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::192.0.0.171", "64:ff9b::192.0.2.33"),
        ] {
            let nat64 = Nat64::of(known.parse().unwrap()).expect(known);
            assert_eq!(nat64.address([192, 0, 2, 33].into()), made.parse::<Ipv6Addr>().unwrap(), "{known}");
        }
        for unknown in [
            "2001:db8::1",
            "ff0e::c000:aa",
            "fdb0::c000:aa",
            "fe80::c000:aa",
            "::ffff:192.0.0.170",
            "::192.0.0.170",
        ] {
            assert_eq!(Nat64::of(unknown.parse().unwrap()), None, "{unknown}");
        }
    }
}
