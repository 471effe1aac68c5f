//! The oracle against a table worked out by hand, so that the world's judge is judged itself. Rows 6 and 7 rest on it.

use std::time::Duration;

use bowline_sim::{
    nat::{Allocation, Dependence, NatKind},
    oracle::{self, Skill, Verdict},
    packet::NodeId,
    world::World,
};

use Dependence::{Address, AddressAndPort, Endpoint};

const MS: Duration = Duration::from_millis(1);

/// Whether two hosts behind NATs of these kinds (mapping, filtering) can meet, from first principles, for random
/// ports: a side is *known* when what it tells the base is where the peer has to write to.
fn by_hand(one: (Dependence, Dependence), other: (Dependence, Dependence)) -> bool {
    let known = |nat: (Dependence, Dependence)| nat.0 == Endpoint;
    match (known(one), known(other)) {
        // Both write to where the other really is: both filters open.
        (true, true) => true,
        // The unknown side comes from a port nobody knew, from an address that was written to.
        (true, false) => one.1 != AddressAndPort,
        (false, true) => other.1 != AddressAndPort,
        // The first datagram has to be let in by the mapping made for the base, by an open filter; the answer to it
        // comes from another port, so the other side must not filter by port, and one side at least has to keep one
        // mapping for the whole of the other's address, or every answer comes from a port of its own.
        (false, false) => {
            let opens = |nat: (Dependence, Dependence)| nat.1 == Endpoint;
            let keeps = one.0 == Address || other.0 == Address;
            let passes = one.1 != AddressAndPort && other.1 != AddressAndPort;
            (opens(one) || opens(other)) && passes && keeps
        }
    }
}

fn two_homes(one: NatKind, other: NatKind) -> (World, NodeId, NodeId) {
    let mut world = World::new(1);
    let nets = [world.home("one", one, 10 * MS), world.home("two", other, 10 * MS)];
    let centre = world.data_centre("centre", 5 * MS);
    // The oracle needs hosts' addresses and ports only; nothing runs.
    let base = world.idle_base("base", centre);
    let [a, b] = nets.map(|net| world.idle_host("host", &[net], &[base]));
    (world, a, b)
}

#[test]
fn every_pair_of_nats_is_judged_as_by_hand() {
    let kinds = || Dependence::ALL.into_iter().flat_map(|m| Dependence::ALL.map(|f| (m, f)));
    for one in kinds() {
        for other in kinds() {
            let kind = |nat: (Dependence, Dependence)| NatKind::with(nat.0, nat.1, Allocation::Random);
            let (world, a, b) = two_homes(kind(one), kind(other));
            let possible = by_hand(one, other);
            let verdict = oracle::direct(&world, a, b, Skill::Ordinary);
            assert_eq!(verdict, Verdict { forth: possible, back: possible }, "{one:?} and {other:?}");
        }
    }
}

#[test]
fn preserved_ports_and_prediction_make_dependent_mappings_known() {
    let kind = |allocation| NatKind::with(AddressAndPort, AddressAndPort, allocation);
    for (allocation, possible) in
        [(Allocation::PortPreserving, true), (Allocation::Sequential, false), (Allocation::Random, false)]
    {
        let (world, a, b) = two_homes(kind(allocation), kind(allocation));
        assert_eq!(oracle::direct(&world, a, b, Skill::Ordinary).forth, possible, "{allocation:?}");
    }
    // One symmetric NAT against a port-filtering one: prediction is exactly what is missing.
    let cone = NatKind::with(Endpoint, AddressAndPort, Allocation::Sequential);
    let (world, a, b) = two_homes(cone, kind(Allocation::Sequential));
    assert_eq!(oracle::direct(&world, a, b, Skill::Ordinary), Verdict { forth: false, back: false });
    assert_eq!(oracle::direct(&world, a, b, Skill::PredictsPorts), Verdict { forth: true, back: true });
}

#[test]
fn one_link_is_enough_and_a_udp_block_is_too_much() {
    let symmetric = NatKind::with(AddressAndPort, AddressAndPort, Allocation::Random);
    let mut world = World::new(1);
    let home = world.home("home", symmetric, 10 * MS);
    let away = world.home("away", NatKind::with(Endpoint, Endpoint, Allocation::Random), 10 * MS);
    let centre = world.data_centre("centre", 5 * MS);
    let base = world.idle_base("base", centre);
    let [a, b, c] = [home, home, away].map(|net| world.idle_host("host", &[net], &[base]));
    assert!(oracle::direct(&world, a, b, Skill::Ordinary).forth);
    assert!(oracle::direct(&world, a, c, Skill::Ordinary).forth);
    world.fabric.net_mut(home).gateway.blocks_udp = true;
    assert!(oracle::direct(&world, a, b, Skill::Ordinary).forth);
    assert!(!oracle::direct(&world, a, c, Skill::Ordinary).forth);
}
