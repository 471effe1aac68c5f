//! What somebody caught and sends again. A HELLO counts for five seconds, and the claim it makes for five more; a
//! HELLO-REPLY counts once.

mod host_world;

use bowline_proto::{
    host::{HostConfig, Relay, Route},
    wire::peer::{HELLO_LEN, Hello, HelloReply, IntroductionKey},
};
use host_world::{World, addr, key, ms, secs};

const PEER: &str = "203.0.113.2:4002";
const ELSEWHERE: &str = "203.0.113.66:666";

fn hello(token: u8) -> Vec<u8> {
    Hello::encode(key(1).device_id(), [token; 16], &IntroductionKey::NONE, &key(2), 0, HELLO_LEN)
}

/// Whether what comes from an address is taken for somebody's.
fn is_taken(world: &mut World, from: &str) -> bool {
    world.host.handle_datagram(None, addr(from), b"data", world.now).is_some()
}

#[test]
fn a_hello_that_is_replayed_again_and_again_gains_ten_seconds_and_no_more() {
    let mut world = World::with_given(&[]);
    world.datagram(addr(PEER), &hello(1));
    assert_eq!(world.replies.len(), 1);
    let mut taken_for = 0;
    for _ in 0..600 {
        world.advance(ms(100));
        world.datagram(addr(ELSEWHERE), &hello(1));
        taken_for += u32::from(is_taken(&mut world, ELSEWHERE));
    }
    assert!((90..=100).contains(&taken_for), "{taken_for} tenths of a second");
    assert!(world.host.status(world.now).counters.hello_replayed >= 500);
    // The peer's own next one counts as ever.
    world.datagram(addr(PEER), &hello(2));
    assert!(is_taken(&mut world, PEER));
}

#[test]
fn a_replay_does_not_keep_a_proven_address_alive() {
    let mut world = World::with_given(&[PEER]);
    let _ = world.send(2, 10);
    world.advance(ms(40));
    world.answer(2, addr(PEER));
    world.datagram(addr(PEER), &hello(1));
    for _ in 0..70 {
        world.advance(secs(1));
        assert!(is_taken(&mut world, PEER));
        world.datagram(addr(PEER), &hello(1));
    }
    world.advance(secs(10));
    assert!(!is_taken(&mut world, PEER));
}

#[test]
fn the_same_hello_on_another_pair_within_five_seconds_is_no_replay() {
    let mut world = World::with_given(&[]);
    world.datagram(addr(PEER), &hello(1));
    world.advance(ms(4_900));
    world.datagram(addr(ELSEWHERE), &hello(1));
    assert_eq!(world.replies.len(), 2);
    assert_eq!(world.host.status(world.now).counters.hello_replayed, 0);
}

#[test]
fn a_reply_that_comes_again_neither_slows_the_path_nor_clears_suspicion() {
    let given = vec![(key(2).device_id(), addr(PEER))];
    let mut world = World::registered(HostConfig { given, ..HostConfig::default() });
    let _ = world.send(2, 10);
    world.advance(ms(40));
    let reply = HelloReply::encode(key(1).device_id(), world.hellos[0].token, &key(2));
    world.datagram(addr(PEER), &reply);
    let rtt = |world: &World| world.host.peer_status(key(2).device_id(), world.now).unwrap().rtt;
    assert_eq!(rtt(&world), Some(ms(40)));
    world.advance(secs(4));
    world.datagram(addr(PEER), &reply);
    assert_eq!(rtt(&world), Some(ms(40)), "a copy says nothing of how long the way is");
    // The path goes silent: copies do not bring it back.
    let _ = world.send(2, 10);
    world.advance(ms(450));
    world.datagram(addr(PEER), &reply);
    assert!(matches!(world.send(2, 10), Ok(Route::Both(_, Relay::Tcp(_)))));
    assert_eq!(world.host.status(world.now).counters.reply_stray, 2);
}
