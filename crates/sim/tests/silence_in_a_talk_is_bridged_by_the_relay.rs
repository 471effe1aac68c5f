//! Rows 11 and 12: while both sides talk, silence on the direct path means more than where only one does. The relay carries what is
//! said from the first doubt on, and a router that has forgotten everything knows the way to the base again by then.

mod common;

use std::time::Duration;

use bowline_sim::{
    nat::{Allocation, Dependence, NatKind},
    packet::NodeId,
    world::World,
};
use common::*;

/// Messages of a call.
const EVERY: Duration = Duration::from_millis(20);
/// 150 ms of silence from the first message that nothing follows, which leaves up to 40 ms after the last that still came did; 20 ms to the next
/// message, and 41 ms for its way over the base, less the 20 ms that the last one had taken; rounded up to whole messages.
const BRIDGED: Duration = Duration::from_millis(280);

/// Both send for a while; the longest time without a new message at `b` and at `a`, from the last before the event.
fn longest_gaps(world: &mut World, a: NodeId, b: NodeId, event: impl FnOnce(&mut World)) -> [Duration; 2] {
    let mut sent = Vec::new();
    let say = |world: &mut World, sent: &mut Vec<(u64, u64)>| {
        sent.push((world.send(a, b).expect("a way").0, world.send(b, a).expect("a way").0));
        world.run_for(EVERY);
    };
    for _ in 0..100 {
        say(world, &mut sent);
    }
    event(world);
    for _ in 0..100 {
        say(world, &mut sent);
    }
    let gap = |from: NodeId, to: NodeId, number: fn(&(u64, u64)) -> u64| {
        let mut times: Vec<Duration> =
            sent.iter().filter_map(|pair| Some(world.arrival(from, to, number(pair))?.at)).collect();
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("messages came")
    };
    [gap(a, b, |pair| pair.0), gap(b, a, |pair| pair.1)]
}

#[test]
fn a_path_that_dies_in_the_middle_of_a_talk_is_bridged_within_280_ms() {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    let Pair { mut world, a, b, .. } = pair;
    let gaps = longest_gaps(&mut world, a, b, |world| world.fabric.blocked.extend([(a, b), (b, a)]));
    assert!(gaps.iter().all(|gap| *gap <= BRIDGED), "{gaps:?}");
    world.assert_held();
}

#[test]
fn a_peer_that_anybody_can_reach_follows_a_router_s_new_port_as_soon_as_it_has_answered_there() {
    let mut pool = CONE;
    pool.allocation = Allocation::Random;
    let open = NatKind::with(Dependence::Endpoint, Dependence::Endpoint, Allocation::Sequential);
    let mut pair = Pair::behind(pool, open);
    pair.make_direct();
    let Pair { mut world, a, b, net_a, .. } = pair;
    let gaps = longest_gaps(&mut world, a, b, |world| world.reboot_router(net_a));
    // UNKNOWN-SOURCE, HELLO both ways and the answer take two and a half round trips.
    assert!(gaps.iter().all(|gap| *gap <= 160 * MS), "{gaps:?}");
    assert!(world.is_direct(a, b) && world.is_direct(b, a));
    world.assert_held();
}

#[test]
fn a_router_that_restarts_and_gives_other_ports_is_bridged_within_280_ms() {
    let mut pool = CONE;
    pool.allocation = Allocation::Random;
    let mut pair = Pair::behind(pool, CONE);
    pair.make_direct();
    let Pair { mut world, a, b, net_a, .. } = pair;
    let gaps = longest_gaps(&mut world, a, b, |world| world.reboot_router(net_a));
    assert!(gaps.iter().all(|gap| *gap <= BRIDGED), "{gaps:?}");
    assert!(world.is_direct(a, b) && world.is_direct(b, a), "and direct again");
    world.assert_held();
}

#[test]
fn a_talk_that_ends_on_one_side_is_doubled_for_a_moment_and_then_no_more() {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    let Pair { mut world, a, b, .. } = pair;
    for _ in 0..100 {
        let _ = (world.send(a, b), world.send(b, a));
        world.run_for(EVERY);
    }
    let relayed = |world: &mut World| {
        world.call(a, |host, now| host.status(now).counters.data_sent_relay_udp).expect("it runs")
    };
    let before = relayed(&mut world);
    for _ in 0..500 {
        let _ = world.send(a, b);
        world.run_for(EVERY);
    }
    let doubled = relayed(&mut world) - before;
    assert!(doubled <= 6, "as many as a round trip has, twice at most: {doubled}");
    world.assert_held();
}
