//! NATs of the world: mapping, filtering, allocation, expiry, refresh, hairpin (RFC 4787), TCP by tracking.
//! Everything else in this crate's tests stands on this. No row of its own.

use std::{net::SocketAddr, time::Duration};

use bowline_sim::{
    nat::{Allocation, Dependence, Nat, NatKind, Refresh},
    packet::Protocol::{Tcp, Udp},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const SECOND: Duration = Duration::from_secs(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn nat(mapping: Dependence, filtering: Dependence, allocation: Allocation) -> (Nat, ChaCha8Rng) {
    let kind = NatKind::with(mapping, filtering, allocation);
    (Nat::new(kind, "11.0.0.1".parse().unwrap()), ChaCha8Rng::seed_from_u64(7))
}

/// The remotes that tell the three kinds apart: the first, its other port, another address.
fn remotes() -> [SocketAddr; 3] {
    [at("11.9.9.9:4477"), at("11.9.9.9:4479"), at("11.8.8.8:4477")]
}

#[test]
fn a_mapping_is_shared_by_the_remotes_its_kind_says() {
    for (mapping, shared) in [
        (Dependence::Endpoint, [true, true, true]),
        (Dependence::Address, [true, true, false]),
        (Dependence::AddressAndPort, [true, false, false]),
    ] {
        let (mut nat, mut rng) = nat(mapping, Dependence::Endpoint, Allocation::Random);
        let inner = at("192.168.1.2:5000");
        let first = nat.outbound(Udp, inner, remotes()[0], SECOND, &mut rng);
        let same = remotes().map(|remote| nat.outbound(Udp, inner, remote, SECOND, &mut rng) == first);
        assert_eq!(same, shared, "{mapping:?}");
    }
}

#[test]
fn the_filter_lets_in_whom_its_kind_says() {
    for (filtering, let_in) in [
        (Dependence::Endpoint, [true, true, true]),
        (Dependence::Address, [true, true, false]),
        (Dependence::AddressAndPort, [true, false, false]),
    ] {
        let (mut nat, mut rng) = nat(Dependence::Endpoint, filtering, Allocation::Sequential);
        let inner = at("192.168.1.2:5000");
        let external = nat.outbound(Udp, inner, remotes()[0], SECOND, &mut rng);
        let answers =
            remotes().map(|remote| nat.inbound(Udp, external.port(), remote, SECOND) == Some(inner));
        assert_eq!(answers, let_in, "{filtering:?}");
    }
}

#[test]
fn a_preserved_port_is_kept_but_never_shared_between_inner_endpoints() {
    let (mut nat, mut rng) =
        nat(Dependence::AddressAndPort, Dependence::AddressAndPort, Allocation::PortPreserving);
    let (one, other) = (at("192.168.1.2:5000"), at("192.168.1.3:5000"));
    let [a, b, c] = remotes();
    assert_eq!(nat.outbound(Udp, one, a, SECOND, &mut rng).port(), 5000);
    assert_eq!(nat.outbound(Udp, one, c, SECOND, &mut rng).port(), 5000);
    assert_eq!(nat.outbound(Udp, other, b, SECOND, &mut rng).port(), 5001);
    // Connection tracking tells the two mappings of one port apart by who answers.
    assert_eq!(nat.inbound(Udp, 5000, c, SECOND), Some(one));
    assert_eq!(nat.inbound(Udp, 5000, b, SECOND), None);
}

#[test]
fn a_mapping_expires_and_only_what_its_kind_counts_refreshes_it() {
    for (refresh, alive) in [(Refresh::Outbound, false), (Refresh::Both, true)] {
        let (mut nat, mut rng) = nat(Dependence::Endpoint, Dependence::Endpoint, Allocation::Sequential);
        nat.kind.refresh = refresh;
        nat.kind.expiry = 30 * SECOND;
        let (inner, remote) = (at("192.168.1.2:5000"), remotes()[0]);
        let external = nat.outbound(Udp, inner, remote, SECOND, &mut rng);
        assert!(nat.inbound(Udp, external.port(), remote, 25 * SECOND).is_some());
        assert_eq!(nat.inbound(Udp, external.port(), remote, 45 * SECOND).is_some(), alive);
        assert_eq!(nat.live(45 * SECOND), usize::from(alive));
        // What goes out later gets another port: the peer's knowledge is stale.
        assert_eq!(nat.outbound(Udp, inner, remote, 200 * SECOND, &mut rng).port(), external.port() + 1);
    }
}

#[test]
fn a_reboot_forgets_everything() {
    let (mut nat, mut rng) = nat(Dependence::Endpoint, Dependence::Endpoint, Allocation::Random);
    let external = nat.outbound(Udp, at("192.168.1.2:5000"), remotes()[0], SECOND, &mut rng);
    nat.reboot(&mut rng);
    assert_eq!(nat.inbound(Udp, external.port(), remotes()[0], SECOND), None);
}

#[test]
fn tcp_passes_by_connection_tracking_whatever_udp_may_do() {
    let (mut nat, mut rng) = nat(Dependence::Endpoint, Dependence::Endpoint, Allocation::Sequential);
    let inner = at("192.168.1.2:40000");
    let external = nat.outbound(Tcp, inner, remotes()[0], SECOND, &mut rng);
    assert_eq!(nat.inbound(Tcp, external.port(), remotes()[0], 3600 * SECOND), Some(inner));
    assert_eq!(nat.inbound(Tcp, external.port(), remotes()[1], 3600 * SECOND), None);
    assert_eq!(nat.inbound(Udp, external.port(), remotes()[0], SECOND), None);
}

#[test]
fn with_absolute_expiry_a_mapping_ends_in_the_middle_of_its_use() {
    let (mut nat, mut rng) = nat(Dependence::Endpoint, Dependence::AddressAndPort, Allocation::Sequential);
    (nat.kind.refresh, nat.kind.expiry) = (Refresh::Absolute, 30 * SECOND);
    let inner = at("192.168.1.2:5000");
    let remote = remotes()[0];
    let first = nat.outbound(Udp, inner, remote, SECOND, &mut rng);
    for second in 2..=30 {
        assert_eq!(nat.outbound(Udp, inner, remote, second * SECOND, &mut rng), first);
        assert_eq!(nat.inbound(Udp, first.port(), remote, second * SECOND), Some(inner));
    }
    assert_eq!(nat.inbound(Udp, first.port(), remote, 31 * SECOND), None);
    assert_ne!(nat.outbound(Udp, inner, remote, 31 * SECOND, &mut rng), first);
}

#[test]
fn what_expires_or_gets_another_address_loses_udp_and_keeps_tcp_or_neither() {
    let (mut nat, mut rng) = nat(Dependence::Endpoint, Dependence::Endpoint, Allocation::PortPreserving);
    let (inner, remote) = (at("192.168.1.2:5000"), remotes()[0]);
    for protocol in [Udp, Tcp] {
        nat.outbound(protocol, inner, remote, SECOND, &mut rng);
    }
    nat.expire_udp();
    assert_eq!(nat.inbound(Udp, 5000, remote, SECOND), None);
    assert_eq!(nat.inbound(Tcp, 5000, remote, SECOND), Some(inner));
    nat.readdress("11.0.0.2".parse().unwrap());
    assert_eq!(nat.inbound(Tcp, 5000, remote, SECOND), None);
    assert_eq!(nat.outbound(Udp, inner, remote, SECOND, &mut rng), at("11.0.0.2:5000"));
}
