//! Rows 6 and 7: nothing waits for punching. The first message leaves over the relay in the instant it is sent, and
//! the path is direct after as many round trips as the exchange needs, no more.

mod common;

use bowline_proto::host::{Path, Route};
use common::*;

#[test]
fn the_first_message_leaves_over_the_relay_in_the_instant_it_is_sent() {
    let Pair { mut world, a, b, .. } = Pair::behind(CONE, CONE);
    let at = world.now();
    let (number, route) = world.send(a, b).unwrap();
    assert!(matches!(route, Route::RelayUdp(_)), "{route:?}");
    world.wait(SECOND, |world| world.arrival(a, b, number).is_some()).expect("it arrives");
    let arrival = world.arrival(a, b, number).unwrap();
    // One way to the base and one way on: nothing in between.
    assert!(arrival.at - at < 2 * ONE_WAY + MS, "{arrival:?}");
    assert_eq!(arrival.path, Path::RelayUdp);
    world.assert_held();
}

#[test]
fn the_path_is_direct_both_ways_within_a_few_round_trips() {
    let Pair { mut world, a, b, .. } = Pair::behind(CONE, CONE);
    let at = world.now();
    world.send(a, b).unwrap();
    let direct = world.wait(5 * SECOND, |world| world.is_direct(a, b)).expect("a direct path");
    // REQUEST-INFO up and WANTED down, REQUEST-INFO up and DEVICE-ADDRESSES down: two round trips to the base.
    // HELLO and reply on a pair of cone NATs: one more between the two, after at most one rung of the ladder.
    let limit = 3 * (2 * 2 * ONE_WAY) + 100 * MS + 10 * MS;
    println!("direct after {:?}", direct - at);
    assert!(direct - at < limit, "direct after {:?}, {limit:?} allowed", direct - at);
    world.send(b, a).unwrap();
    world.wait(5 * SECOND, |world| world.is_direct(b, a)).expect("a direct path back");
    let (number, route) = world.send(a, b).unwrap();
    assert!(matches!(route, Route::Direct(_)), "{route:?}");
    world.run_for(SECOND);
    assert!(matches!(world.arrival(a, b, number).unwrap().path, Path::Direct(_)));
    world.assert_held();
}
