//! Path MTU in the world: what a path carries is found through real links, and a link that narrows under way loses no small message.

mod common;

use std::time::Duration;

use bowline_proto::host::Event;
use bowline_sim::{packet::NodeId, world::World};
use common::*;

/// Bytes of IPv4 and UDP headers, and of an escape that a message may need.
const NOT_DATA: usize = 28 + 9;

fn sizes(world: &World, node: NodeId) -> Vec<usize> {
    let size = |event: &Event| match event {
        Event::DirectSize { size, .. } => Some(*size),
        _ => None,
    };
    world.at_host(node).log.iter().filter_map(|(_, event)| size(event)).collect()
}

/// Sends messages of that size for a while: how many of them were lost.
fn lost(world: &mut World, from: NodeId, to: NodeId, size: usize, time: Duration) -> usize {
    let since = world.now();
    while world.now() < since + time {
        let _ = world.send_sized(from, to, size);
        let _ = world.send(to, from);
        world.run_for(50 * MS);
    }
    let until = world.now();
    world.run_for(5 * SECOND);
    world.tally(from, to, since, until).1
}

fn set_mtu(pair: &mut Pair, mtu: usize) {
    let net = pair.world.fabric.net_mut(pair.net_a);
    for link in [&mut net.up, &mut net.down] {
        link.profile.mtu = mtu;
    }
}

#[test]
fn over_a_link_of_1400_bytes_messages_of_what_fits_go_directly() {
    let mut pair = Pair::behind(CONE, CONE);
    set_mtu(&mut pair, 1_400);
    pair.make_direct();
    let (a, b) = (pair.a, pair.b);
    assert_eq!(lost(&mut pair.world, a, b, 1_200, 20 * SECOND), 0);
    assert_eq!(sizes(&pair.world, a).last(), Some(&(1_400 - NOT_DATA)));
    assert_eq!(lost(&mut pair.world, a, b, 1_400 - NOT_DATA, 30 * SECOND), 0);
    assert!(pair.world.is_direct(a, b));
    pair.world.assert_held();
}

#[test]
fn a_link_that_narrows_from_1500_to_1280_bytes_loses_large_messages_for_a_while_and_no_small_ones() {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    let (a, b) = (pair.a, pair.b);
    assert_eq!(lost(&mut pair.world, a, b, 1_200, 20 * SECOND), 0);
    assert_eq!(sizes(&pair.world, a).last(), Some(&(1_500 - NOT_DATA)));
    set_mtu(&mut pair, 1_280);
    let narrowed = pair.world.now();
    assert_eq!(lost(&mut pair.world, a, b, 1_000, 60 * SECOND), 0, "small ones pass all the time");
    assert_eq!(path_changes(&pair.world, a, narrowed), 0);
    assert_eq!(sizes(&pair.world, a).last(), Some(&(1_280 - NOT_DATA)));
    assert_eq!(lost(&mut pair.world, a, b, 1_463, 10 * SECOND), 0, "what is too large takes the relay");
    pair.world.assert_held();
}
