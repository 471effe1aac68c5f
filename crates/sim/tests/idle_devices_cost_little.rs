//! What a device costs that is registered and says nothing: packets and bytes in an hour, both directions, with their headers.
//!
//! The figures stand in `docs/nat-matrix.md`. Bytes are those of IPv4 and UDP or TCP, without the link's own.

mod common;

use std::time::Duration;

use bowline_sim::{packet::NodeId, world::World};
use common::*;

const HOUR: Duration = Duration::from_secs(3_600);
const IP_UDP: usize = 28;
/// With timestamps, as Linux sends them.
const IP_TCP: usize = 52;

/// 152 keepalives an hour, each an INFO and its PONG over TCP, and NAT-INIT and NAT-OK at one of two UDP ports, with a twentieth to spare.
const IDLE: Cost = Cost { packets: 940, bytes: 73_000 };

#[derive(Debug, Clone, Copy)]
struct Cost {
    packets: usize,
    bytes: usize,
}

/// What one host and the base said to each other, and the host to others, since a moment. Each TCP frame counts as a packet that draws
/// another without data: more than there are, since an answer carries the acknowledgement.
fn cost(world: &World, host: NodeId, base: NodeId, hosts: usize, since: Duration) -> Cost {
    let udp = |node: NodeId, share: usize| {
        let sizes: Vec<usize> =
            world.trace.datagrams(node, since).map(|(_, _, payload, _)| payload.len() + IP_UDP).collect();
        (sizes.len() / share, sizes.iter().sum::<usize>() / share)
    };
    let tcp = |node: NodeId, share: usize| {
        let sizes: Vec<usize> =
            world.trace.frames(node, since).map(|(_, _, frame)| frame.len() + 2 + 2 * IP_TCP).collect();
        (2 * sizes.len() / share, sizes.iter().sum::<usize>() / share)
    };
    let all = [udp(host, 1), tcp(host, 1), udp(base, hosts), tcp(base, hosts)];
    Cost { packets: all.iter().map(|c| c.0).sum(), bytes: all.iter().map(|c| c.1).sum() }
}

#[test]
fn a_registered_device_that_says_nothing_exchanges_sixteen_packets_a_minute() {
    let Pair { mut world, base, a, .. } = Pair::behind(CONE, CONE);
    world.run_for(HOUR);
    let since = world.now();
    world.run_for(HOUR);
    let cost = cost(&world, a, base, 2, since);
    println!("registered: {cost:?}");
    assert!(cost.packets <= IDLE.packets && cost.bytes <= IDLE.bytes, "{cost:?}");
    world.assert_held();
}

#[test]
fn a_peer_that_was_talked_to_costs_nothing_once_it_is_idle() {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    let Pair { mut world, base, a, .. } = pair;
    let since = world.now();
    world.run_for(HOUR);
    let first = cost(&world, a, base, 2, since);
    let since = world.now();
    world.run_for(HOUR);
    let later = cost(&world, a, base, 2, since);
    println!("the hour after a talk: {first:?}, the next: {later:?}");
    // Two minutes until it counts as idle, with their HELLOs.
    assert!(first.packets <= IDLE.packets + 40 && first.bytes <= IDLE.bytes + 5_000, "{first:?}");
    assert!(later.packets <= IDLE.packets && later.bytes <= IDLE.bytes, "{later:?}");
    world.assert_held();
}
