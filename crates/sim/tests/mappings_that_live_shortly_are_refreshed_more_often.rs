//! NATs that forget a mapping after 10 s without traffic: messages that come more seldom than that arrive nevertheless, once both
//! devices have noticed.

mod common;

use std::time::Duration;

use bowline_proto::wire::udp::NAT_INIT;
use bowline_sim::{
    base_node,
    faults::Fault,
    nat::{Allocation, Dependence, NatKind},
    packet::NodeId,
    world::World,
};
use common::*;

/// A flow keeps its port and lets in only what it was opened for, as in Linux: a base sees the same port after a loss as before.
const PRESERVING: NatKind =
    NatKind::with(Dependence::AddressAndPort, Dependence::AddressAndPort, Allocation::PortPreserving);

/// NAT-INITs in five minutes at one UDP port of a base, every 25 s less up to a tenth, and a ladder's to spare.
const USUAL: usize = 300 * 10 / 225 + 2;
/// Every 8 s less up to a tenth at two ports, each followed by a padded one, since what passes where is to be proven anew.
const MOST: usize = 2 * 2 * (300 * 10 / 72 + 1);

fn forgetful(kind: NatKind, after: u64) -> NatKind {
    NatKind { expiry: Duration::from_secs(after), ..kind }
}

/// The UDP ports of a base.
const BASE_PORTS: [u16; 2] = [base_node::PORT, base_node::SECOND_PORT];

/// Sends a message every so often and has each that arrives answered: how many of so many came back, and did not.
fn ping(world: &mut World, a: NodeId, b: NodeId, every: Duration, count: u32) -> (u32, u32) {
    let mut came = 0;
    for _ in 0..count {
        let end = world.now() + every;
        let (number, _) = world.send(a, b).unwrap();
        if world.wait(SECOND * 5, |world| world.arrival(a, b, number).is_some()).is_some() {
            let (back, _) = world.send(b, a).unwrap();
            came += u32::from(world.wait(SECOND * 2, |world| world.arrival(b, a, back).is_some()).is_some());
        }
        world.run_until(end);
    }
    (came, count - came)
}

/// Of ten messages, then of twenty, how many were lost at most, over a few worlds.
fn worst(kind: NatKind, direct: bool, after: u64, every: u32) -> (u32, u32) {
    let mut worst = (0, 0);
    for seed in 1..=5 {
        let mut pair = Pair::seeded(seed, forgetful(kind, after), forgetful(kind, after));
        if direct {
            pair.make_direct();
        }
        let Pair { mut world, a, b, .. } = pair;
        let (_, first) = ping(&mut world, a, b, SECOND * every, 10);
        let (_, later) = ping(&mut world, a, b, SECOND * every, 20);
        worst = (worst.0.max(first), worst.1.max(later));
        world.assert_held();
    }
    worst
}

#[test]
fn through_the_base_a_few_messages_are_lost_and_then_none() {
    for (after, every) in [(10, 12), (10, 13), (15, 18), (20, 22)] {
        let (first, later) = worst(SYMMETRIC, false, after, every);
        assert!(
            first <= 5 && later == 0,
            "forgotten after {after} s, sent every {every}: {first} of 10, {later} of 20"
        );
    }
}

#[test]
fn on_a_direct_path_a_few_messages_are_lost_and_then_none() {
    for kind in [CONE, PRESERVING] {
        for (after, every) in [(10, 13), (15, 18), (20, 22)] {
            let (first, later) = worst(kind, true, after, every);
            assert!(
                first <= 3 && later <= 1,
                "{kind:?}: forgotten after {after} s, sent every {every}: {first} of 10, {later} of 20"
            );
        }
    }
}

/// How many NAT-INITs a host sends in five minutes.
fn nat_inits(world: &mut World, host: NodeId) -> usize {
    let since = world.now();
    world.run_for(300 * SECOND);
    world
        .trace
        .datagrams(host, since)
        .filter(|(_, to, payload, _)| BASE_PORTS.contains(&to.port()) && payload.first() == Some(&NAT_INIT))
        .count()
}

#[test]
fn a_router_that_restarts_costs_nothing_more_afterwards() {
    let Pair { mut world, a, net_a, .. } = Pair::behind(CONE, CONE);
    world.run_for(100 * SECOND);
    world.reboot_router(net_a);
    world.run_for(100 * SECOND);
    let after = nat_inits(&mut world, a);
    assert!(after <= USUAL, "{after} NAT-INITs in five minutes");
}

#[test]
fn in_another_network_mappings_are_refreshed_as_usual_again() {
    let Pair { mut world, a, net_b, .. } = Pair::behind(forgetful(CONE, 10), CONE);
    world.run_for(200 * SECOND);
    let often = nat_inits(&mut world, a);
    assert!(often >= 2 * USUAL, "{often} NAT-INITs in five minutes");
    let roam = Fault::Roam { host: a, interface: 1, to: net_b };
    roam.begin(&mut world, SECOND);
    roam.end(&mut world, None);
    world.run_for(100 * SECOND);
    let after = nat_inits(&mut world, a);
    assert!(after <= USUAL, "{after} NAT-INITs in five minutes");
}

#[test]
fn a_nat_that_shows_another_port_each_time_draws_no_more_than_the_shortest_interval() {
    let nat = NatKind { expiry: SECOND, ..SYMMETRIC };
    let Pair { mut world, a, .. } = Pair::behind(nat, CONE);
    world.run_for(200 * SECOND);
    let count = nat_inits(&mut world, a);
    assert!(count <= MOST, "{count} NAT-INITs in five minutes");
}
