//! Row 12: a path that dies is suspected within two silences and left; loss alone never makes a path flap.

mod common;

use std::time::Duration;

use bowline_proto::host::Path;
use common::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn messages_take_the_relay_within_half_a_second_of_a_silent_death_and_lose_no_more_after() {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    let Pair { mut world, a, b, .. } = pair;
    talk(&mut world, a, b, 20 * MS, 2 * SECOND);
    world.fabric.blocked.extend([(a, b), (b, a)]);
    let after = first_to_arrive(&mut world, a, b, 20 * MS, 5 * SECOND);
    assert!(after <= 500 * MS, "{after:?}");
    assert_eq!(talk(&mut world, a, b, 20 * MS, 10 * SECOND).1, 0, "the relay carries everything");
    assert_eq!(world.path(a, b), Path::RelayUdp);
    world.fabric.blocked.clear();
    talk(&mut world, a, b, SECOND, 210 * SECOND);
    assert!(world.is_direct(a, b), "a pair that stopped answering is still tried, more and more rarely");
    world.assert_held();
}

#[test]
fn two_hours_with_one_message_in_twenty_lost_do_not_move_the_path() {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    let Pair { mut world, a, b, net_a, .. } = pair;
    let net = world.fabric.net_mut(net_a);
    for link in [&mut net.up, &mut net.down] {
        link.profile.loss = 0.05;
    }
    let since = world.now();
    while world.now() < since + 2 * HOUR {
        let _ = (world.send(a, b), world.send(b, a));
        world.run_for(SECOND / 2);
    }
    // One suspicion needs two HELLOs or their replies lost in a row, right after silence.
    let changes = path_changes(&world, a, since) + path_changes(&world, b, since);
    assert!(changes <= 4, "{changes} changes of path in two hours");
    assert!(world.is_direct(a, b));
    world.assert_held();
}

#[test]
fn one_way_traffic_draws_one_hello_a_second_and_keeps_its_path() {
    let mut pair = Pair::behind(CONE, CONE);
    pair.make_direct();
    let Pair { mut world, a, b, .. } = pair;
    world.run_for(2 * SECOND);
    let since = world.now();
    talk(&mut world, a, b, 20 * MS, 60 * SECOND);
    let hellos = sent(&world, a, "HELLO ", since).len();
    assert!((30..=75).contains(&hellos), "{hellos} HELLOs in a minute");
    assert_eq!(path_changes(&world, a, since), 0);
    world.assert_held();
}
