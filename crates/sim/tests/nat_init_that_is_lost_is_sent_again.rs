//! Row 5: NAT-INIT is retried after 250, 500, 1000 and 2000 ms, then at the keepalive; the first and the third are
//! padded to 1,215 bytes.

mod common;

use std::time::Duration;

use bowline_proto::wire::udp::{NAT_INIT, PADDED_LEN};
use common::*;

#[test]
fn an_unanswered_nat_init_follows_its_ladder_and_then_the_keepalive() {
    let Pair { mut world, a, net_a, .. } = Pair::unsettled(1, CONE, CONE);
    world.fabric.net_mut(net_a).gateway.blocks_udp = true;
    let registered = world.wait(5 * SECOND, |world| registered(world, a)).expect("registered over TCP");
    world.run_for(60 * SECOND);
    let sent: Vec<(Duration, usize)> = world
        .trace
        .datagrams(a, Duration::ZERO)
        .filter(|(_, to, payload, _)| payload.first() == Some(&NAT_INIT) && to.port() == 4477)
        .map(|(at, _, payload, _)| (at - registered, payload.len()))
        .collect();
    let at: Vec<u128> = sent.iter().take(5).map(|s| s.0.as_millis()).collect();
    assert_eq!(at, [0, 250, 750, 1750, 3750]);
    let padded: Vec<bool> = sent.iter().take(5).map(|s| s.1 == PADDED_LEN).collect();
    assert_eq!(padded, [true, false, true, false, false]);
    let next = sent[5].0;
    assert!(
        (20 * SECOND..=30 * SECOND).contains(&next),
        "the next one comes with the keepalive, not after {next:?}"
    );
}

#[test]
fn one_lost_nat_init_costs_a_quarter_of_a_second() {
    let Pair { mut world, a, net_a, .. } = Pair::unsettled(1, CONE, CONE);
    world.fabric.net_mut(net_a).gateway.blocks_udp_out = true;
    let registered = world.wait(5 * SECOND, |world| registered(world, a)).expect("registered over TCP");
    world.run_for(100 * MS);
    world.fabric.net_mut(net_a).gateway.blocks_udp_out = false;
    let confirmed = |world: &bowline_sim::world::World| {
        let status = world.at_host(a).machine().unwrap().status(world.instant());
        status.base.is_some_and(|base| base.udp.iter().any(|binding| binding.confirmed))
    };
    let at = world.wait(5 * SECOND, confirmed).expect("confirmed");
    // The second rung, its answer, and the exchange of NAT-CONFIRM.
    assert!(at - registered < 250 * MS + 4 * ONE_WAY + 20 * MS, "{:?}", at - registered);
    world.assert_held();
}
