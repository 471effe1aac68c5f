//! Mapped ports, from the host's side: told to the base only once it has reached us there, and no longer than that.

mod host_world;

use std::net::SocketAddr;

use bowline_proto::{
    host::{Event, HostConfig},
    wire::udp::{MapCheck, NatOk, UnverifiedNatInit, map_ok},
};
use host_world::{World, addr, ms, secs};

const BASE: &str = "203.0.113.9:4477";
const MAPPED: &str = "198.51.100.1:40123";

/// A host that is registered, and whose first NAT-INIT was answered.
fn bound() -> World {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(BASE)]);
    answer_nat_init(&mut world);
    world
}

fn answer_nat_init(world: &mut World) {
    let init = world.datagrams.iter().rev().find_map(|(_, bytes)| UnverifiedNatInit::decode(bytes).ok());
    let claim = init.expect("a NAT-INIT").claim().clone();
    let seen = addr("198.51.100.1:50000");
    let ok = NatOk { cookie: claim.cookie, seq: claim.seq, challenge: [1; 8], confirmed: true, seen };
    world.datagram(addr(BASE), &ok.encode(1215));
}

fn map(world: &mut World, outside: Option<&str>) {
    world.host.handle_port_mapping(outside.map(addr), world.now);
    world.drain();
}

fn checks(world: &World) -> Vec<MapCheck> {
    world.datagrams.iter().filter_map(|(_, bytes)| MapCheck::decode(bytes).ok()).collect()
}

fn told(world: &World) -> Vec<SocketAddr> {
    world.host.status(world.now).own
}

#[test]
fn a_mapped_port_is_told_first_once_the_base_has_reached_it() {
    let mut world = bound();
    map(&mut world, Some(MAPPED));
    let asked = checks(&world);
    assert_eq!((asked.len(), asked[0].address), (1, addr(MAPPED)));
    assert!(!told(&world).contains(&addr(MAPPED)));
    // The router gives it another source, since there is a flow with the base already.
    world.datagram(addr("203.0.113.9:1029"), &map_ok(asked[0].nonce));
    assert_eq!(told(&world).first(), Some(&addr(MAPPED)));
    assert_eq!(world.host.status(world.now).mapped, Some(addr(MAPPED)));
    assert!(world.events.contains(&Event::PortMapped(Some(addr(MAPPED)))));
    // The base hears of it at once.
    let own = world.datagrams.iter().rev().find_map(|(_, bytes)| UnverifiedNatInit::decode(bytes).ok());
    assert_eq!(own.unwrap().claim().own.first(), Some(&addr(MAPPED)));
}

#[test]
fn another_nonce_proves_nothing_and_a_port_that_is_not_reached_is_not_told() {
    let mut world = bound();
    map(&mut world, Some(MAPPED));
    world.datagram(addr(BASE), &map_ok(*b"a guess!"));
    world.advance(secs(10));
    assert_eq!(checks(&world).len(), 4, "asked after 250, 500, 1000 ms again, then no more");
    assert!(!told(&world).contains(&addr(MAPPED)));
    assert_eq!(world.renewals, 1, "the router is asked anew");
}

#[test]
fn a_port_that_led_here_is_asked_for_again_and_no_longer_told_when_it_is_gone() {
    let mut world = bound();
    map(&mut world, Some(MAPPED));
    let asked = checks(&world);
    world.datagram(addr(BASE), &map_ok(asked[0].nonce));
    for _ in 0..10 {
        world.advance(secs(10));
        answer_nat_init(&mut world);
    }
    assert!(checks(&world).len() > 1, "within a hundred seconds");
    world.advance(secs(4));
    assert!(!told(&world).contains(&addr(MAPPED)));
    assert!(world.events.contains(&Event::PortMapped(None)));
    assert_eq!(world.renewals, 1);
}

#[test]
fn what_the_router_takes_back_is_no_longer_told() {
    let mut world = bound();
    map(&mut world, Some(MAPPED));
    let asked = checks(&world);
    world.datagram(addr(BASE), &map_ok(asked[0].nonce));
    map(&mut world, None);
    assert!(!told(&world).contains(&addr(MAPPED)));
    world.advance(ms(1));
    // An answer that comes late proves nothing either.
    world.datagram(addr(BASE), &map_ok(asked[0].nonce));
    assert!(!told(&world).contains(&addr(MAPPED)));
}
