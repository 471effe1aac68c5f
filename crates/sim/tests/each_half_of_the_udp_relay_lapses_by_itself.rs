//! Row 5: the host sends over UDP for 35 s after a NAT-OK, the base for 35 s after it last heard; where a half has
//! lapsed, TCP carries the data.

mod common;

use bowline_proto::{
    host::{Path, Route},
    wire::udp::NAT_INIT,
};
use common::*;

#[test]
fn the_host_s_half_lapses_35_s_after_the_last_nat_ok() {
    let Pair { mut world, a, b, net_a, .. } = Pair::behind(SYMMETRIC, SYMMETRIC);
    world.run_for(40 * SECOND);
    world.fabric.net_mut(net_a).gateway.blocks_udp = true;
    let last_ok = last_answer(&world, a);
    // Nothing is sent meanwhile: silence after data is another rule.
    world.run_until(last_ok + 34 * SECOND + 900 * MS);
    let (_, before) = world.send(a, b).unwrap();
    assert!(matches!(before, Route::RelayUdp(_)), "{before:?}");
    world.run_until(last_ok + 35 * SECOND + 10 * MS);
    let (number, after) = world.send(a, b).unwrap();
    assert!(matches!(after, Route::RelayTcp(_)), "{after:?}");
    world.run_for(SECOND);
    assert_eq!(world.arrival(a, b, number).map(|m| m.path), Some(Path::RelayUdp), "b's half still stands");
}

fn last_answer(world: &bowline_sim::world::World, host: bowline_sim::packet::NodeId) -> std::time::Duration {
    let status = world.at_host(host).machine().unwrap().status(world.instant());
    let answered = status.base.unwrap().udp.iter().filter_map(|binding| binding.answered).max().unwrap();
    world.time_of(answered)
}

#[test]
fn the_base_s_half_lapses_35_s_after_it_last_heard() {
    let Pair { mut world, a, b, net_a, .. } = Pair::behind(SYMMETRIC, SYMMETRIC);
    world.run_for(40 * SECOND);
    world.fabric.net_mut(net_a).gateway.blocks_udp = true;
    let heard = world
        .trace
        .datagrams(a, std::time::Duration::ZERO)
        .filter(|(_, to, payload, arrived)| to.port() == 4477 && *arrived && payload[0] == NAT_INIT)
        .map(|d| d.0)
        .last()
        .expect("NAT-INITs have arrived");
    // What b sends leaves over UDP and is lost, until the base gives up its half.
    let mut first = None;
    while world.now() < heard + 40 * SECOND && first.is_none() {
        let (number, _) = world.send(b, a).unwrap();
        let sent = world.now();
        world.run_for(SECOND / 2);
        first = world.arrival(b, a, number).map(|arrival| (sent, arrival.path));
    }
    let (sent, path) = first.expect("messages arrive again");
    assert_eq!(path, Path::RelayTcp);
    let after = sent - heard;
    assert!((34 * SECOND..36 * SECOND).contains(&after), "over TCP after {after:?}");
}
