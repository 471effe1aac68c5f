//! Joined messages: only to a peer that has said that it takes them, within what the path carries; and taken apart where they come.

mod host_world;

use bowline_proto::{
    host::{HostConfig, Path},
    wire::{
        joined::{self, MAX_JOINED},
        peer::{
            Hello, IntroductionKey, JOINED_HEADER_LEN, PADDED_HELLO_LEN, PREFIX_LEN, SAYING_HELLO_LEN,
            TAKES_JOINED, joined_header, unknown_source,
        },
    },
};
use host_world::{World, addr, key, ms, secs};

const PEER: &str = "192.0.2.1:4000";

/// A host with a direct path to its peer, which has said nothing of what it takes.
fn direct() -> World {
    let mut world = World::with_given(&[PEER]);
    let _ = world.send(2, 10);
    world.advance(ms(20));
    world.answer(2, addr(PEER));
    world
}

fn says(world: &mut World, token: u8, takes: u8) {
    let none = &IntroductionKey::NONE;
    let hello = Hello::encode(key(1).device_id(), [token; 16], none, &key(2), takes, SAYING_HELLO_LEN);
    world.datagram(addr(PEER), &hello);
}

fn joined(world: &mut World) -> Option<usize> {
    while world.host.poll_revoked().is_some() {}
    world.host.lease(key(2).device_id()).expect("the path stands").joined
}

#[test]
fn messages_are_joined_for_a_peer_whose_last_hello_said_that_it_takes_them() {
    let mut world = direct();
    assert_eq!(joined(&mut world), None);
    // A HELLO that ends with its signature, one with a byte that says something else, one that says it.
    world.hello(2, addr(PEER));
    assert_eq!(joined(&mut world), None);
    says(&mut world, 1, !TAKES_JOINED);
    assert_eq!(joined(&mut world), None);
    says(&mut world, 2, TAKES_JOINED);
    assert!(world.host.poll_revoked().is_some(), "whoever has a lease hears of it");
    assert!(joined(&mut world).is_some());
    // It was replaced by a program that does not.
    world.advance(secs(6));
    world.hello(2, addr(PEER));
    assert!(world.host.poll_revoked().is_some());
    assert_eq!(joined(&mut world), None);
}

#[test]
fn a_hello_that_somebody_caught_and_changed_says_nothing_from_elsewhere() {
    let mut world = direct();
    says(&mut world, 1, TAKES_JOINED);
    assert!(joined(&mut world).is_some());
    let none = &IntroductionKey::NONE;
    for token in [1, 2] {
        let caught = Hello::encode(key(1).device_id(), [token; 16], none, &key(2), 0, SAYING_HELLO_LEN);
        world.datagram(addr("203.0.113.66:666"), &caught);
        assert!(joined(&mut world).is_some(), "whether or not it has come before");
    }
}

#[test]
fn nor_does_its_copy_before_any_address_is_proven() {
    let mut world = World::with_given(&[PEER]);
    let _ = world.send(2, 10);
    world.advance(ms(20));
    says(&mut world, 1, TAKES_JOINED);
    let none = &IntroductionKey::NONE;
    let caught = Hello::encode(key(1).device_id(), [1; 16], none, &key(2), 0, SAYING_HELLO_LEN);
    world.datagram(addr("203.0.113.66:666"), &caught);
    world.answer(2, addr(PEER));
    assert!(joined(&mut world).is_some());
}

#[test]
fn a_forged_hello_says_nothing() {
    let mut world = direct();
    let none = &IntroductionKey::NONE;
    let mut hello = Hello::encode(key(1).device_id(), [9; 16], none, &key(2), TAKES_JOINED, SAYING_HELLO_LEN);
    hello[SAYING_HELLO_LEN - 2] ^= 1;
    world.datagram(addr(PEER), &hello);
    assert_eq!(joined(&mut world), None);
}

#[test]
fn joined_messages_are_as_long_as_what_the_path_is_known_to_carry() {
    let mut world = direct();
    says(&mut world, 1, TAKES_JOINED);
    let small = joined(&mut world).unwrap();
    assert_eq!(small, 500 + PREFIX_LEN);
    // The padded HELLO that follows the first reply is answered.
    world.advance(ms(1));
    assert_eq!(world.hellos.last().unwrap().length, PADDED_HELLO_LEN);
    world.answer(2, addr(PEER));
    assert_eq!(joined(&mut world), Some(PADDED_HELLO_LEN));
    // More passes, for large messages: joined ones stay as they are, since a path may become narrower.
    let _ = world.send(2, 1200);
    world.advance(ms(10));
    while world.hellos.last().unwrap().length > PADDED_HELLO_LEN {
        let length = world.hellos.last().unwrap().length;
        world.answer(2, addr(PEER));
        world.advance(ms(10));
        if world.hellos.last().unwrap().length == length {
            break;
        }
    }
    assert!(world.host.lease(key(2).device_id()).unwrap().limit > 1200);
    assert_eq!(joined(&mut world), Some(PADDED_HELLO_LEN));
    let count = |size, length| joined::count(size, length - JOINED_HEADER_LEN);
    assert_eq!(count(100, small), 4);
    assert_eq!(count(100, PADDED_HELLO_LEN), 11);
    assert_eq!(count(599, PADDED_HELLO_LEN), 2);
    assert_eq!(count(600, PADDED_HELLO_LEN), 1);
    assert_eq!(count(1, PADDED_HELLO_LEN), MAX_JOINED);
}

#[test]
fn every_hello_says_that_this_host_takes_them() {
    let mut world = direct();
    world.advance(secs(60));
    let hellos = world.datagrams.iter().filter(|(_, bytes)| bytes.get(PREFIX_LEN - 1) == Some(&1));
    let said: Vec<_> = hellos.map(|(_, bytes)| bytes[SAYING_HELLO_LEN - 1]).collect();
    assert!(said.len() > 3 && said.iter().all(|&takes| takes == TAKES_JOINED), "{said:?}");
}

#[test]
fn a_datagram_of_joined_messages_brings_each_of_them() {
    let mut world = direct();
    let bytes = [&joined_header(4)[..], b"one.two.thr"].concat();
    let delivery = world.host.handle_datagram(None, addr(PEER), &bytes, world.now).unwrap();
    assert_eq!(delivery.from, key(2).device_id());
    assert_eq!(delivery.path, Path::Direct(addr(PEER)));
    assert!(delivery.messages().eq([&b"one."[..], b"two.", b"thr"]));
    assert_eq!(world.host.status(world.now).counters.data_received_direct, 3);
}

#[test]
fn joined_messages_from_nobody_are_dropped_and_draw_no_more_than_a_message_does() {
    let mut world = World::new(HostConfig::default());
    let bytes = [&joined_header(4)[..], &[7; 4 * MAX_JOINED]].concat();
    for _ in 0..10 {
        assert_eq!(world.host.handle_datagram(None, addr(PEER), &bytes, world.now), None);
        world.drain();
    }
    assert_eq!(world.datagrams.len(), 1);
    assert_eq!(world.datagrams[0].1, unknown_source()[..]);
}

#[test]
fn what_would_cost_more_than_so_many_messages_is_malformed() {
    let mut world = direct();
    let malformed = |world: &World| world.host.status(world.now).counters.malformed;
    let before = malformed(&world);
    for bytes in [
        [&joined_header(1)[..], &[7; MAX_JOINED + 1]].concat(),
        [&joined_header(0)[..], b"data"].concat(),
        joined_header(4).to_vec(),
        joined_header(4)[..JOINED_HEADER_LEN - 1].to_vec(),
    ] {
        assert_eq!(world.host.handle_datagram(None, addr(PEER), &bytes, world.now), None);
    }
    assert_eq!(malformed(&world), before + 4);
}
