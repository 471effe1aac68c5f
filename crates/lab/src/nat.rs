//! Kinds of NATs and firewalls as nft rules, between the interfaces `lan` and `wan` of a router.
//!
//! All drop what nobody asked for at the router's own input. Without that, a peer's packet that arrives first leaves an
//! entry in the connection table, our own mapping towards that peer then gets another port, and punching fails in a way that no home router shows.
//! `crates/lab/tests/network/nats_behave_as_named.rs` proves each kind against the words of RFC 4787.

/// What a router does to IPv4 (and every kind, alike, to IPv6: a stateful firewall without translation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// An ordinary home router: endpoint-independent mapping, address and port dependent filtering.
    Home,
    /// Endpoint-independent mapping and filtering (a "full cone").
    FullCone,
    /// A new port for every destination: address and port dependent mapping and filtering.
    Symmetric,
    /// As [`Nat::Home`], but no UDP passes, in either direction and without a word.
    UdpBlocked,
}

impl Nat {
    pub(crate) fn rules(self) -> String {
        let (tables, forward) = match self {
            Self::Home => (MASQUERADE.to_owned(), ""),
            Self::FullCone => (FULL_CONE.to_owned(), r#"iifname "wan" ct status dnat accept"#),
            Self::Symmetric => (MASQUERADE.replace("masquerade", "masquerade fully-random"), ""),
            Self::UdpBlocked => (MASQUERADE.to_owned(), "meta l4proto udp drop"),
        };
        tables + &FILTER.replace("EXTRA", forward)
    }
}

const MASQUERADE: &str = r#"
table ip nat {
  chain post { type nat hook postrouting priority srcnat; policy accept;
    oifname "wan" masquerade
  }
}
"#;

/// Incoming packets find their machine by the external port alone, as it was really given out. `ct original` is what
/// the sender inside wrote, `ct reply` what the outside sees.
const FULL_CONE: &str = r#"
table ip nat {
  map inside { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 300s; size 65535; }
  chain learn { type filter hook postrouting priority srcnat + 10; policy accept;
    oifname "wan" meta l4proto udp ct direction original update @inside { ct reply proto-dst : ct original ip saddr . ct original proto-src }
  }
  chain pre { type nat hook prerouting priority dstnat; policy accept;
    iifname "wan" meta l4proto udp dnat ip to udp dport map @inside
  }
  chain post { type nat hook postrouting priority srcnat; policy accept;
    oifname "wan" masquerade
  }
}
"#;

const FILTER: &str = r#"
table inet filter {
  chain input { type filter hook input priority filter; policy accept;
    iifname "wan" ct state established,related accept
    iifname "wan" meta l4proto ipv6-icmp accept
    iifname "wan" drop
  }
  chain forward { type filter hook forward priority filter; policy drop;
    EXTRA
    ct state established,related accept
    iifname "lan" accept
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
  }
}
"#;
