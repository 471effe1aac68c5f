//! The kinds of places that devices are in, and the oracle: which pairs can meet directly, and why.
//!
//! The oracle knows nothing of bowline. It follows from what RFC 4787 calls mapping and filtering, as the lab's probes prove them for each
//! kind (`crates/lab/tests/network/nats_behave_as_named.rs`).

use std::time::Duration;

use bowline_lab::Nat;

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Open,
    FullCone,
    AddressRestricted,
    PortRestricted,
    PortPool,
    SymmetricRandom,
    SymmetricSequential,
    Hairpin,
    DoubleNat,
    UdpBlocked,
    Tcp443Only,
    Ipv6Firewall,
    Ipv6Only,
}

pub(crate) const KINDS: [Kind; 13] = [
    Kind::Open,
    Kind::FullCone,
    Kind::AddressRestricted,
    Kind::PortRestricted,
    Kind::PortPool,
    Kind::SymmetricRandom,
    Kind::SymmetricSequential,
    Kind::Hairpin,
    Kind::DoubleNat,
    Kind::UdpBlocked,
    Kind::Tcp443Only,
    Kind::Ipv6Firewall,
    Kind::Ipv6Only,
];

impl Kind {
    /// As it stands in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "no NAT",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::PortPool => "port pool",
            Self::SymmetricRandom => "symmetric, random",
            Self::SymmetricSequential => "symmetric, sequential",
            Self::Hairpin => "hairpin",
            Self::DoubleNat => "double NAT",
            Self::UdpBlocked => "UDP blocked",
            Self::Tcp443Only => "TCP 443 only",
            Self::Ipv6Firewall => "IPv6 with firewall",
            Self::Ipv6Only => "IPv6 only",
        }
    }

    /// At the head of a column.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::FullCone => "full",
            Self::AddressRestricted => "addr",
            Self::PortRestricted => "port",
            Self::PortPool => "pool",
            Self::SymmetricRandom => "symR",
            Self::SymmetricSequential => "symS",
            Self::Hairpin => "hair",
            Self::DoubleNat => "dbl",
            Self::UdpBlocked => "noUDP",
            Self::Tcp443Only => "443",
            Self::Ipv6Firewall => "v6fw",
            Self::Ipv6Only => "v6",
        }
    }

    /// What the router does to IPv4; `None` without a router of one's own.
    pub(crate) fn nat(self) -> Option<Nat> {
        Some(match self {
            Self::Open => return None,
            Self::FullCone => Nat::FullCone,
            Self::AddressRestricted => Nat::AddressRestricted,
            Self::PortRestricted | Self::DoubleNat | Self::Ipv6Firewall | Self::Ipv6Only => Nat::Home,
            Self::PortPool => Nat::PortPool,
            Self::SymmetricRandom => Nat::Symmetric,
            Self::SymmetricSequential => Nat::SymmetricSequential,
            Self::Hairpin => Nat::Hairpin,
            Self::UdpBlocked => Nat::UdpBlocked,
            Self::Tcp443Only => Nat::Tcp443Only,
        })
    }

    fn v4(self) -> Option<(Mapping, Filtering)> {
        Some(match self {
            Self::Open | Self::FullCone | Self::Hairpin => (Mapping::Same, Filtering::Nothing),
            Self::AddressRestricted => (Mapping::Same, Filtering::Address),
            Self::PortRestricted | Self::PortPool | Self::DoubleNat | Self::Ipv6Firewall => {
                (Mapping::Same, Filtering::AddressAndPort)
            }
            Self::SymmetricRandom => (Mapping::Random, Filtering::AddressAndPort),
            Self::SymmetricSequential => (Mapping::Sequential, Filtering::AddressAndPort),
            Self::UdpBlocked | Self::Tcp443Only | Self::Ipv6Only => return None,
        })
    }

    fn v6(self) -> bool {
        matches!(self, Self::Open | Self::Ipv6Firewall | Self::Ipv6Only)
    }

    fn udp(self) -> bool {
        !matches!(self, Self::UdpBlocked | Self::Tcp443Only)
    }
}

/// Which port outside a socket has towards different destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapping {
    Same,
    Sequential,
    Random,
}

/// Who gets in through it: everybody, or only where the inside has sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filtering {
    Nothing,
    Address,
    AddressAndPort,
}

/// How long guessing may take.
pub(crate) const GUESSED_WITHIN: Duration = Duration::from_secs(12);
/// In so many cases of a hundred.
pub(crate) const GUESSED_SHARE: f64 = 90.0;

/// What two devices can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Direct(&'static str),
    /// By guessing the port that one NAT gives: nine times of ten within [`GUESSED_WITHIN`].
    Guessed(&'static str),
    /// Only by guessing on both sides at once: not asked for, and not held against anybody.
    ByLuck(&'static str),
    Relay(&'static str),
}

impl Expected {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Guessed(_) => "direct, by guessing ports",
            Self::ByLuck(_) => "relay, or direct by luck",
            Self::Relay(_) => "relay",
        }
    }

    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Direct(why) | Self::Guessed(why) | Self::ByLuck(why) | Self::Relay(why) => why,
        }
    }

    /// Whether so many direct ones of so many runs are what can be asked for. Of guessed ones a single miss is forgiven here: all
    /// pairs together are held to their share.
    pub(crate) fn met(self, direct: usize, runs: usize) -> bool {
        match self {
            Self::Direct(_) => direct == runs,
            Self::Guessed(_) => direct + 1 >= runs,
            Self::ByLuck(_) => true,
            Self::Relay(_) => direct == 0,
        }
    }
}

/// The oracle.
pub(crate) fn expected(one: Kind, other: Kind) -> Expected {
    if !one.udp() || !other.udp() {
        return Expected::Relay("UDP does not pass on one side");
    }
    if one.v6() && other.v6() {
        return Expected::Direct("IPv6 on both sides: nothing is translated, and both speak first");
    }
    let (Some(one), Some(other)) = (one.v4(), other.v4()) else {
        return Expected::Relay("no address family in common");
    };
    match (one, other) {
        ((Mapping::Same, _), (Mapping::Same, _)) => {
            Expected::Direct("both ports outside are known, and both speak first")
        }
        ((Mapping::Same, filtering), _) | (_, (Mapping::Same, filtering))
            if filtering != Filtering::AddressAndPort =>
        {
            Expected::Direct("one port outside is known, and its filter does not ask for the other's port")
        }
        ((Mapping::Random, _), (Mapping::Random, _)) => Expected::Relay("neither port outside can be known"),
        ((Mapping::Same, _), _) | (_, (Mapping::Same, _)) => Expected::Guessed(
            "one port outside is not known, and the other side's filter asks for it: it is guessed",
        ),
        _ => Expected::ByLuck("neither port outside is known, though one of them could be predicted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_does_not_care_who_is_left_and_who_is_right() {
        for one in KINDS {
            for other in KINDS {
                assert_eq!(expected(one, other), expected(other, one), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_oracle_says_of_well_known_pairs_what_is_well_known() {
        use Kind::{
            FullCone, Ipv6Firewall, Ipv6Only, Open, PortRestricted, SymmetricRandom, SymmetricSequential,
            UdpBlocked,
        };
        let is_direct = |one, other| matches!(expected(one, other), Expected::Direct(_));
        assert!(is_direct(PortRestricted, PortRestricted));
        assert!(is_direct(SymmetricRandom, FullCone));
        assert!(is_direct(SymmetricRandom, Open));
        assert!(is_direct(Ipv6Only, Ipv6Firewall));
        assert!(matches!(expected(SymmetricRandom, PortRestricted), Expected::Guessed(_)));
        assert!(matches!(expected(SymmetricSequential, PortRestricted), Expected::Guessed(_)));
        assert!(matches!(expected(SymmetricSequential, SymmetricRandom), Expected::ByLuck(_)));
        assert!(matches!(expected(SymmetricRandom, SymmetricRandom), Expected::Relay(_)));
        assert!(matches!(expected(Ipv6Only, PortRestricted), Expected::Relay(_)));
        assert!(matches!(expected(Open, UdpBlocked), Expected::Relay(_)));
    }
}
