//! Kinds of NATs and firewalls as nft rules, between the interfaces `lan` and `wan` of a router.
//!
//! All drop what nobody asked for at the router's own input. Without that, a peer's packet that arrives first leaves an
//! entry in the connection table, our own mapping towards that peer then gets another port, and punching fails in a way that no home router
//! shows. `crates/lab/tests/network/nats_behave_as_named.rs` proves each kind against the words of RFC 4787.
//!
//! The rules live in tables of their own, `lab`: what else a test loads beside them (a hole, a delay line) stays when they are replaced.

use std::net::Ipv4Addr;

/// What a router does to IPv4 (and every kind, alike, to IPv6: a stateful firewall without translation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nat {
    /// An ordinary home router: endpoint-independent mapping, address and port dependent filtering ("port-restricted"). It
    /// keeps the port where it can.
    Home,
    /// Endpoint-independent mapping and filtering (a "full cone").
    FullCone,
    /// Endpoint-independent mapping, address dependent filtering ("address-restricted").
    AddressRestricted,
    /// As [`Nat::Home`], but the ports outside, of UDP and TCP, come from a pool and are never those inside: a router that
    /// restarts gives others.
    PortPool,
    /// A new random port for every destination: address and port dependent mapping and filtering.
    Symmetric,
    /// The same, with ports one after the other.
    SymmetricSequential,
    /// As [`Nat::FullCone`], and machines inside reach each other by their addresses outside.
    Hairpin,
    /// As [`Nat::Home`], but no UDP passes, in either direction and without a word.
    UdpBlocked,
    /// As [`Nat::Home`], but nothing passes outwards except TCP to the ports of the web; other TCP is refused, the rest vanishes.
    Tcp443Only,
}

impl Nat {
    /// The rules of a router whose address outside is `wan`. They replace those of another kind.
    pub(crate) fn rules(self, wan: Ipv4Addr) -> String {
        let translation = match self {
            Self::Home | Self::UdpBlocked | Self::Tcp443Only => translate("masquerade"),
            Self::Symmetric => translate("masquerade fully-random"),
            Self::PortPool => {
                let ports = format!("meta l4proto {{ tcp, udp }} masquerade to :{POOL}");
                translate(&format!("{ports}\n    oifname \"wan\" masquerade"))
            }
            Self::SymmetricSequential => translate(&sequential(wan)),
            Self::FullCone => {
                remembering("iifname \"wan\" meta l4proto udp dnat ip to udp dport map @inside", "", "")
            }
            Self::AddressRestricted => remembering(
                "iifname \"wan\" udp dport . ip saddr @spoken dnat ip to udp dport map @inside",
                "update @spoken { ct reply proto-dst . ip daddr }",
                "",
            ),
            Self::Hairpin => remembering(
                &format!("ip daddr {wan} meta l4proto udp dnat ip to udp dport map @inside"),
                "",
                &format!("oifname \"lan\" iifname \"lan\" ct status dnat snat to {wan}"),
            ),
        };
        let forward = match self {
            Self::FullCone | Self::AddressRestricted | Self::Hairpin => {
                r#"iifname "wan" ct status dnat accept"#
            }
            Self::UdpBlocked => "meta l4proto udp drop",
            Self::Tcp443Only => TCP_443_ONLY,
            Self::Home | Self::PortPool | Self::Symmetric | Self::SymmetricSequential => "",
        };
        [RESET, &translation, &FILTER.replace("EXTRA", forward)].concat()
    }
}

/// Ports of [`Nat::PortPool`]. The kernel keeps a port inside that lies in this range, so none that it gives to sockets does
/// (`net.ipv4.ip_local_port_range`).
const POOL: &str = "20000-29999";
/// How many ports [`Nat::SymmetricSequential`] gives before it begins anew, and the first of them.
const SEQUENCE: (u32, u32) = (4000, 40_000);

/// A table must exist to be deleted.
const RESET: &str = "table ip lab\ndelete table ip lab\ntable inet lab\ndelete table inet lab\n";

/// Rules for what leaves, and none for what comes.
fn translate(action: &str) -> String {
    format!(
        r#"
table ip lab {{
  chain post {{ type nat hook postrouting priority srcnat; policy accept;
    oifname "wan" {action}
  }}
}}
"#
    )
}

/// A literal map: `numgen inc … offset` loads, and gives ports with their bytes swapped.
fn sequential(wan: Ipv4Addr) -> String {
    let (count, first) = SEQUENCE;
    let ports: Vec<_> = (0..count).map(|n| format!("{n} : {}", first + n)).collect();
    let udp =
        format!("meta l4proto udp snat ip to {wan} : numgen inc mod {count} map {{ {} }}", ports.join(", "));
    format!("{udp}\n    oifname \"wan\" masquerade")
}

/// Incoming packets find their machine by the external port alone, as it was really given out. `ct original` is what
/// the sender inside wrote, `ct reply` what the outside sees.
fn remembering(let_in: &str, also_learn: &str, hairpin: &str) -> String {
    const MAPPING: &str =
        "update @inside { ct reply proto-dst : ct original ip saddr . ct original proto-src }";
    let learn_inside = if hairpin.is_empty() {
        String::new()
    } else {
        format!(r#"oifname "lan" ct status dnat meta l4proto udp ct direction original {MAPPING}"#)
    };
    format!(
        r#"
table ip lab {{
  map inside {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 300s; size 65535; }}
  set spoken {{ type inet_service . ipv4_addr; flags dynamic,timeout; timeout 300s; size 65535; }}
  chain learn {{ type filter hook postrouting priority srcnat + 10; policy accept;
    oifname "wan" meta l4proto udp ct direction original {MAPPING} {also_learn}
    {learn_inside}
  }}
  chain pre {{ type nat hook prerouting priority dstnat; policy accept;
    {let_in}
  }}
  chain post {{ type nat hook postrouting priority srcnat; policy accept;
    {hairpin}
    oifname "wan" masquerade
  }}
}}
"#
    )
}

const TCP_443_ONLY: &str = r#"
    iifname "lan" meta l4proto != tcp drop
    iifname "lan" tcp dport != { 80, 443 } reject with tcp reset"#;

const FILTER: &str = r#"
table inet lab {
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
