//! Row 11: instant reconnect, as section 9 counts it, with both hosts and the base 40.8 ms of round trip apart.

mod common;

use bowline_proto::host::Path;
use bowline_sim::{fabric::NetId, faults::Fault, packet::NodeId, world::World};
use common::*;

const ROUND_TRIP: std::time::Duration = std::time::Duration::from_micros(40_800);

/// Moves a host to another home in an instant.
fn roam(world: &mut World, host: NodeId, to: NetId) {
    let fault = Fault::Roam { host, interface: 1, to };
    fault.begin(world, SECOND);
    fault.end(world, None);
}

fn talking() -> Pair {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    talk(&mut pair.world, pair.a, pair.b, 20 * MS, 15 * SECOND);
    pair
}

#[test]
fn upwards_at_once_over_the_relay() {
    let Pair { mut world, a, b, .. } = talking();
    let to = world.home("elsewhere", CONE, 10 * MS);
    roam(&mut world, a, to);
    let after = first_to_arrive(&mut world, a, b, 20 * MS, SECOND);
    assert!(after <= ROUND_TRIP + MS, "the very first message arrives, by way of the base: {after:?}");
    world.assert_held();
}

#[test]
fn downwards_after_one_and_a_half_round_trips_to_the_base() {
    let Pair { mut world, a, b, .. } = talking();
    let to = world.home("elsewhere", CONE, 10 * MS);
    roam(&mut world, a, to);
    // From the base to here is half a round trip more.
    let after = first_to_arrive(&mut world, b, a, 5 * MS, SECOND);
    assert!(after <= ROUND_TRIP * 2 + 10 * MS, "{after:?}");
    world.assert_held();
}

#[test]
fn downwards_after_one_behind_the_same_router_and_directly_then() {
    let Pair { mut world, a, b, .. } = talking();
    let fault = Fault::Readdress { host: a, interface: 1 };
    let start = world.now();
    fault.begin(&mut world, SECOND);
    fault.end(&mut world, None);
    let after = first_to_arrive(&mut world, b, a, 5 * MS, SECOND);
    // The news take a round trip; what is sent then goes where the peer is, and not over the base.
    assert!(after <= ROUND_TRIP + ONE_WAY + 10 * MS, "{after:?}");
    for _ in 0..100 {
        let _ = (world.send(a, b), world.send(b, a));
        world.run_for(20 * MS);
    }
    // Every message since the news has come, whichever way.
    assert_eq!(world.tally(b, a, start + ROUND_TRIP + MS, world.now() - SECOND).1, 0);
    world.assert_held();
}

#[test]
fn direct_after_one_more() {
    let Pair { mut world, a, b, .. } = talking();
    let to = world.home("elsewhere", CONE, 10 * MS);
    let start = world.now();
    roam(&mut world, a, to);
    let _ = (world.send(a, b), world.send(b, a));
    let old = world.path(b, a);
    let moved = world.instant();
    let answered = |world: &World| {
        world.peer(a, b).is_some_and(|p| p.pairs.iter().any(|pair| pair.last_answer > Some(moved)))
    };
    let direct = |world: &World| {
        answered(world) && matches!(world.path(b, a), Path::Direct(_)) && world.path(b, a) != old
    };
    let at = world.wait(SECOND, direct).expect("direct again");
    assert!(at - start <= ROUND_TRIP * 3 + 10 * MS, "{:?}", at - start);
    world.assert_held();
}

#[test]
fn both_at_once_are_back_after_about_four() {
    let Pair { mut world, a, b, .. } = talking();
    let (one, other) = (world.home("here", CONE, 10 * MS), world.home("there", CONE, 10 * MS));
    roam(&mut world, a, one);
    roam(&mut world, b, other);
    let after = first_to_arrive(&mut world, a, b, 5 * MS, 2 * SECOND);
    assert!(after <= ROUND_TRIP * 4, "{after:?}");
    world.assert_held();
}

#[test]
fn a_peer_that_restarts_with_the_same_address_is_back_as_soon_as_it_says_that_it_knows_nobody() {
    let Pair { mut world, a, b, .. } = talking();
    let fault = Fault::HostCrash(b);
    fault.begin(&mut world, SECOND);
    fault.end(&mut world, None);
    let after = first_to_arrive(&mut world, a, b, 20 * MS, 3 * SECOND);
    // UNKNOWN-SOURCE, HELLO and the message after it; or the relay once the restarted one has registered.
    assert!(after <= ROUND_TRIP * 6, "{after:?}");
    world.assert_held();
}
