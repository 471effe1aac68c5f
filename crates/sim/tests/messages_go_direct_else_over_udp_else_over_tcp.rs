//! Row 6: the order of sending, and a network that drops UDP.

mod common;

use bowline_proto::host::{Path, Route};
use common::*;

#[test]
fn a_message_takes_the_best_way_that_stands() {
    let Pair { mut world, a, b, net_a, .. } = Pair::behind(SYMMETRIC, SYMMETRIC);
    // Two such NATs cannot be punched: the best way is the base's UDP.
    let (_, route) = world.send(a, b).unwrap();
    assert!(matches!(route, Route::RelayUdp(_)), "{route:?}");
    assert_eq!(talk(&mut world, a, b, SECOND, 60 * SECOND).1, 0, "messages were lost");
    assert_eq!(world.path(a, b), Path::RelayUdp);
    world.fabric.net_mut(net_a).gateway.blocks_udp = true;
    talk(&mut world, a, b, SECOND, 10 * SECOND);
    assert_eq!(world.path(a, b), Path::RelayTcp);
    assert_eq!(talk(&mut world, a, b, SECOND, 60 * SECOND).1, 0, "messages were lost");
    world.fabric.net_mut(net_a).gateway.blocks_udp = false;
    talk(&mut world, a, b, SECOND, 30 * SECOND);
    assert_eq!(world.path(a, b), Path::RelayUdp, "UDP is taken again within a keepalive");
    world.assert_held();
}

#[test]
fn before_udp_is_answered_tcp_carries_the_first_message() {
    let Pair { mut world, a, b, .. } = Pair::unsettled(1, CONE, CONE);
    world.wait(5 * SECOND, |world| registered(world, a) && registered(world, b)).expect("registered");
    let (number, route) = world.send(a, b).unwrap();
    assert!(matches!(route, Route::RelayTcp(_)), "{route:?}");
    world.run_for(SECOND);
    assert!(world.arrival(a, b, number).is_some());
}

#[test]
fn a_network_that_never_lets_udp_through_works_over_tcp() {
    let Pair { mut world, a, b, net_a, net_b, .. } = Pair::unsettled(1, CONE, CONE);
    for net in [net_a, net_b] {
        world.fabric.net_mut(net).gateway.blocks_udp = true;
    }
    settle(&mut world);
    for (from, to) in [(a, b), (b, a)] {
        assert_eq!(talk(&mut world, from, to, SECOND, 120 * SECOND), (120, 0));
        assert_eq!(world.path(from, to), Path::RelayTcp);
    }
    // Large messages pass, too.
    let (number, _) = world.send_sized(a, b, 16_000).unwrap();
    world.run_for(SECOND);
    assert!(world.arrival(a, b, number).is_some());
    world.assert_held();
}
