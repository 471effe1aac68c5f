//! Joined messages through a base: only where base and peer have said that they take them, within what the way is known to carry.

mod host_world;

use bowline_proto::{
    DeviceId,
    host::{HostConfig, Path, Route, config},
    wire::{
        joined::MAX_JOINED,
        peer::IntroductionKey,
        relay::{HEADER_LEN, RECV_JOINED, header},
        tcp::{BaseFrame, DeviceAddresses, TAKES_JOINED},
        udp::{NAT_OK_LEN, NatOk, PADDED_LEN, UnverifiedNatInit},
    },
};
use host_world::{World, addr, key};

const BASE_UDP: &str = "203.0.113.9:4477";

fn peer() -> DeviceId {
    key(2).device_id()
}

/// A host that wants its peer, registered at a base of these capabilities.
fn registered_at(capabilities: u32) -> World {
    let mut world = World::greeted_by(HostConfig::default(), "203.0.113.9", capabilities);
    world.welcomed(vec![addr(BASE_UDP)]);
    let _ = world.send(2, 10);
    world
}

/// The base answers the last NAT-INIT with so many bytes.
fn confirm_udp(world: &mut World, length: usize) {
    let init = world.datagrams.iter().rev().find_map(|(_, bytes)| UnverifiedNatInit::decode(bytes).ok());
    let claim = init.expect("a NAT-INIT").claim().clone();
    let (cookie, seq, seen) = (claim.cookie, claim.seq, addr("198.51.100.1:4000"));
    let ok = NatOk { cookie, seq, challenge: [1; 8], confirmed: true, seen };
    world.datagram(addr(BASE_UDP), &ok.encode(length));
}

fn tell(world: &mut World, online: bool, joined: bool) {
    world.hand_over(&BaseFrame::DeviceAddresses(DeviceAddresses {
        device: peer(),
        online,
        joined,
        introduction: IntroductionKey::NONE,
        reflexive: vec![],
        own: vec![],
    }));
}

fn joined(world: &World) -> Option<usize> {
    world.host.joined_relay(peer(), world.now)
}

fn over_udp(body: &[u8]) -> Vec<u8> {
    [&header(RECV_JOINED, peer())[..], body].concat()
}

#[test]
fn messages_are_joined_where_base_and_peer_have_said_that_they_take_them() {
    for capabilities in [0, TAKES_JOINED] {
        let mut world = registered_at(capabilities);
        confirm_udp(&mut world, PADDED_LEN);
        assert!(matches!(world.send(2, 1200), Ok(Route::RelayUdp(_))));
        assert_eq!(joined(&world), None, "nothing is known of the peer");
        tell(&mut world, true, true);
        let expected = (capabilities == TAKES_JOINED).then_some(HEADER_LEN + 1200);
        assert_eq!(joined(&world), expected);
        tell(&mut world, true, false);
        assert_eq!(joined(&world), None, "another program, with the same key");
    }
}

/// Messages to the peer are joined.
fn taken() -> World {
    let mut world = registered_at(TAKES_JOINED);
    confirm_udp(&mut world, PADDED_LEN);
    tell(&mut world, true, true);
    assert_eq!(joined(&world), Some(HEADER_LEN + 1200));
    world
}

#[test]
fn of_a_peer_that_is_gone_or_has_released_this_host_nothing_is_known() {
    let mut world = taken();
    tell(&mut world, false, false);
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    assert_eq!(joined(&world), None, "what is there now, the base need not say");
    tell(&mut world, true, true);
    assert_eq!(joined(&world), Some(HEADER_LEN + 1200));
}

#[test]
fn nor_where_the_base_has_been_released_from_telling() {
    let mut world = taken();
    world.host.set_direct(false, world.now);
    world.drain();
    assert_eq!(joined(&world), None);
}

#[test]
fn a_new_session_has_to_say_it_anew() {
    let mut world = taken();
    world.reset();
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    assert_eq!(joined(&world), None, "without TCP the base cannot say it");
    world.advance(config::RACE_BACKOFF.0);
    world.greet_with(TAKES_JOINED);
    world.welcomed(vec![addr(BASE_UDP)]);
    confirm_udp(&mut world, PADDED_LEN);
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    assert_eq!(joined(&world), None);
    tell(&mut world, true, true);
    assert_eq!(joined(&world), Some(HEADER_LEN + 1200));
}

#[test]
fn they_are_as_long_as_what_goes_to_the_base_over_udp_and_no_way_without_it() {
    let mut world = registered_at(TAKES_JOINED);
    tell(&mut world, true, true);
    assert_eq!(joined(&world), None, "there is only TCP");
    confirm_udp(&mut world, NAT_OK_LEN);
    assert_eq!(joined(&world), Some(HEADER_LEN + 500));
    world.host.set_relay_udp(false, world.now);
    world.drain();
    assert_eq!(joined(&world), None);
}

#[test]
fn nor_while_udp_brings_nothing_after_data() {
    let mut world = taken();
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    world.advance(config::UDP_SILENT);
    assert!(matches!(world.send(2, 10), Ok(Route::RelayTcp(_))));
    assert_eq!(joined(&world), None);
    world.datagram(addr(BASE_UDP), &over_udp(b"\0\x04one.two."));
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    assert_eq!(joined(&world), Some(HEADER_LEN + 1200));
}

#[test]
fn a_relayed_datagram_brings_each_of_them() {
    let mut world = registered_at(TAKES_JOINED);
    confirm_udp(&mut world, PADDED_LEN);
    let bytes = over_udp(b"\0\x04one.two.thr");
    let delivery = world.host.handle_datagram(None, addr(BASE_UDP), &bytes, world.now).unwrap();
    assert_eq!((delivery.from, delivery.path), (peer(), Path::RelayUdp));
    assert!(delivery.messages().eq([&b"one."[..], b"two.", b"thr"]));
    let frame = over_udp(b"\0\x05first1234501");
    let delivery = world.host.handle_frame(world.conn.unwrap(), &frame, world.now).unwrap();
    assert_eq!((delivery.from, delivery.path), (peer(), Path::RelayTcp));
    assert!(delivery.messages().eq([&b"first"[..], b"12345", b"01"]));
    let counters = world.host.status(world.now).counters;
    assert_eq!((counters.data_received_relay_udp, counters.data_received_relay_tcp), (3, 3));
}

#[test]
fn who_sends_a_body_that_makes_no_sense_ends_no_session() {
    let mut world = registered_at(TAKES_JOINED);
    confirm_udp(&mut world, PADDED_LEN);
    let before = world.host.status(world.now).counters.malformed;
    let too_many = [&[0, 1][..], &[7; MAX_JOINED + 1]].concat();
    let bodies = [&b""[..], b"\0", b"\0\x04", b"\0\0data", &too_many];
    for body in bodies {
        let bytes = over_udp(body);
        assert_eq!(world.host.handle_datagram(None, addr(BASE_UDP), &bytes, world.now), None);
        assert_eq!(world.host.handle_frame(world.conn.unwrap(), &bytes, world.now), None);
        world.drain();
    }
    assert!(world.host.is_registered() && world.closed.is_empty());
    assert_eq!(world.host.status(world.now).counters.malformed, before + 2 * bodies.len() as u64);
}

#[test]
fn of_whom_this_host_does_not_allow_they_are_refused() {
    let mut world = registered_at(TAKES_JOINED);
    confirm_udp(&mut world, PADDED_LEN);
    let mine = [&header(RECV_JOINED, key(1).device_id())[..], b"\0\x04data"].concat();
    assert_eq!(world.host.handle_datagram(None, addr(BASE_UDP), &mine, world.now), None);
    assert_eq!(world.host.status(world.now).counters.not_allowed, 1);
}
