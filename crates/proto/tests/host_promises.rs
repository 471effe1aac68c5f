//! Issue rows 7, 9, 10 and 13, from the host's side: whom it believes, whom it answers, and what it leaves alone.

mod host_world;

use std::{
    collections::HashSet,
    net::{SocketAddr, SocketAddrV6},
};

use bowline_proto::{
    DeviceId,
    host::{Allow, Host, HostConfig, Interface, Network, Output, Route, SendError, config},
    identity::Context,
    wire::{
        announce::HOP_LIMIT,
        peer::{HELLO_LEN, Hello, HelloReply, IntroductionKey},
        tcp::{BaseFrame, DeviceAddresses},
    },
};
use host_world::{Told, World, addr, key, ms, secs};

const PEER: &str = "192.0.2.1:4000";
const ELSEWHERE: &str = "203.0.113.66:666";
/// Where the signature of a HELLO begins, and its initiator.
const SIGNATURE: usize = HELLO_LEN - 64;
const INITIATOR: std::ops::Range<usize> = 9..23;

fn is_taken(world: &mut World, from: &str) -> bool {
    world.host.handle_datagram(None, addr(from), b"data", world.now).is_some()
}

fn told(device: DeviceId, reflexive: &[&str]) -> BaseFrame<'static> {
    BaseFrame::DeviceAddresses(DeviceAddresses {
        device,
        online: true,
        joined: true,
        introduction: IntroductionKey::NONE,
        reflexive: reflexive.iter().map(|text| addr(text)).collect(),
        own: vec![],
    })
}

#[test]
fn a_hello_whose_signature_does_not_hold_is_nothing() {
    let honest = Hello::encode(key(1).device_id(), [1; 16], &IntroductionKey::NONE, &key(2), 0, HELLO_LEN);
    let mut altered = honest.clone();
    altered[SIGNATURE] ^= 1;
    // Signed as it should be, but by another's key.
    let mut anothers =
        Hello::encode(key(1).device_id(), [2; 16], &IntroductionKey::NONE, &key(3), 0, HELLO_LEN);
    anothers[INITIATOR].copy_from_slice(key(2).device_id().as_bytes());
    let signature = key(3).sign(Context::Hello, &[&anothers[..SIGNATURE]]);
    anothers[SIGNATURE..].copy_from_slice(&signature);

    let mut world = World::with_given(&[PEER]);
    let _ = world.send(2, 10);
    for forged in [altered, anothers] {
        world.datagram(addr(ELSEWHERE), &forged);
        assert!(world.replies.is_empty());
        assert!(!is_taken(&mut world, ELSEWHERE));
    }
    assert_eq!(world.host.status(world.now).counters.hello_bad_signature, 2);
    world.datagram(addr(PEER), &honest);
    assert_eq!(world.replies, [addr(PEER)]);
}

#[test]
fn a_reply_whose_signature_does_not_hold_makes_no_path() {
    let mut world = World::with_given(&[PEER]);
    let _ = world.send(2, 10);
    let token = world.hellos[0].token;
    let mut reply = HelloReply::encode(key(1).device_id(), token, &key(2));
    *reply.last_mut().unwrap() ^= 1;
    world.datagram(addr(PEER), &reply);
    assert_eq!(world.send(2, 10), Err(SendError::NoBase));
    assert!(!is_taken(&mut world, PEER));
    world.answer(2, addr(PEER));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))));
}

#[test]
fn where_there_is_an_allow_list_others_are_answered_in_no_way() {
    let allow = Allow::Only(HashSet::from([key(2).device_id()]));
    let mut world = World::registered(HostConfig { allow, ..HostConfig::default() });
    let (friend, stranger) = (key(2).device_id(), key(3).device_id());
    world.hello(3, addr(ELSEWHERE));
    assert!(world.replies.is_empty());
    world.hand_over(&BaseFrame::Wanted(stranger));
    assert!(world.told.is_empty());
    let relayed = |world: &mut World, from: DeviceId| {
        let mut frame =
            bowline_proto::wire::relay::header(bowline_proto::wire::relay::RECV_DATA, from).to_vec();
        frame.push(1);
        world.host.handle_frame(world.conn.unwrap(), &frame, world.now).is_some()
    };
    assert!(!relayed(&mut world, stranger));
    assert_eq!(world.host.sizes().peers, 0);
    assert!(relayed(&mut world, friend));
    world.hello(2, addr(PEER));
    assert_eq!(world.replies, [addr(PEER)]);
}

#[test]
fn an_address_draws_one_hello_a_second_and_all_of_a_peers_together_eight() {
    let mut world = World::registered(HostConfig::default());
    for _ in 0..3 {
        world.hello(2, addr(PEER));
        world.advance(ms(200));
    }
    assert_eq!((world.replies.len(), world.hello_times(addr(PEER)).len()), (3, 1));
    for n in 0..12 {
        world.hello(2, addr(&format!("203.0.113.{n}:4000")));
        world.advance(ms(150));
    }
    assert_eq!(world.hellos.len(), config::DRAWN_PEER.burst as usize);
}

#[test]
fn data_of_nobody_is_answered_if_it_has_nine_bytes_and_once_a_second() {
    let mut world = World::registered(HostConfig::default());
    world.datagrams.clear();
    for (length, answers) in [(8, 0), (9, 1), (100, 1)] {
        world.datagram(addr(ELSEWHERE), &vec![7; length]);
        assert_eq!(world.datagrams.len(), answers);
    }
    world.advance(secs(1));
    world.datagram(addr(ELSEWHERE), &[7; 9]);
    assert_eq!(world.datagrams.len(), 2);
    assert!(world.datagrams.iter().all(|(to, bytes)| *to == addr(ELSEWHERE) && bytes.len() == 9));
}

/// A host with a base and a direct path to peer 2, over which 500 bytes are known to pass.
fn direct() -> World {
    let mut world = World::registered(HostConfig::default());
    let _ = world.send(2, 10);
    world.hand_over(&told(key(2).device_id(), &[PEER]));
    world.advance(ms(10));
    world.answer(2, addr(PEER));
    assert!(matches!(world.send(2, 500), Ok(Route::Direct(_))));
    world
}

#[test]
fn large_messages_take_the_relay_until_a_large_hello_was_answered() {
    let mut world = direct();
    assert!(matches!(world.send(2, 501), Ok(Route::RelayTcp(_))));
    assert!(matches!(world.send(2, 1_200), Ok(Route::RelayTcp(_))));
    assert_eq!(world.hellos.last().map(|hello| hello.length), Some(1_209));
    world.answer(2, addr(PEER));
    assert!(matches!(world.send(2, 1_200), Ok(Route::Direct(_))));
}

#[test]
fn a_path_to_an_address_that_the_peer_has_left_is_suspect_at_once() {
    let mut world = direct();
    world.hand_over(&told(key(2).device_id(), &["192.0.2.2:4000"]));
    assert!(matches!(world.send(2, 10), Ok(Route::Both(..))));
    world.answer(2, addr(PEER));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))), "it answers again");
}

#[test]
fn after_a_sleep_every_path_is_suspect_and_all_is_asked_anew() {
    let mut world = direct();
    world.answer(2, addr(PEER));
    world.advance(secs(5));
    let (hellos, lookups) = (world.hellos.len(), world.lookups.len());
    world.resume();
    assert!(matches!(world.send(2, 10), Ok(Route::Both(..))));
    assert_eq!((world.hellos.len(), world.lookups.len()), (hellos + 1, lookups + 1));
}

/// A host that has said INFO and knows peer 2; strangers have used up what HELLOs from the peer's address may cost.
fn exhausted() -> World {
    let mut world = World::registered(HostConfig::default());
    let _ = world.send(2, 10);
    world
}

fn exhaust(world: &mut World) {
    for n in 10..20 {
        world.hello(n, addr("203.0.113.66:700"));
    }
    world.replies.clear();
}

fn introduced(world: &mut World, token: u8, introduction: &IntroductionKey) -> bool {
    let hello = Hello::encode(key(1).device_id(), [token; 16], introduction, &key(2), 0, HELLO_LEN);
    let before = world.replies.len();
    world.datagram(addr(ELSEWHERE), &hello);
    world.replies.len() > before
}

#[test]
fn only_a_right_introduction_spares_a_hello_the_budget_of_strangers() {
    let mut world = exhausted();
    exhaust(&mut world);
    let right = IntroductionKey::derive(&world.master_keys[0], key(2).device_id());
    let wrong = IntroductionKey::derive(&world.master_keys[0], key(3).device_id());
    assert!(!introduced(&mut world, 1, &IntroductionKey::NONE));
    assert!(!introduced(&mut world, 2, &wrong));
    assert!(introduced(&mut world, 3, &right));
}

#[test]
fn an_introduction_under_the_master_key_before_the_present_one_counts_for_an_hour() {
    let mut world = exhausted();
    world.advance(config::MASTER_KEY_LIFE + secs(26));
    assert_eq!(world.master_keys.len(), 2, "a new one each day");
    let _ = world.send(2, 10);
    let old = IntroductionKey::derive(&world.master_keys[0], key(2).device_id());
    exhaust(&mut world);
    assert!(introduced(&mut world, 1, &old));
    world.advance(config::MASTER_KEY_GRACE);
    let _ = world.send(2, 10);
    exhaust(&mut world);
    assert!(!introduced(&mut world, 2, &old));
}

#[test]
fn an_address_that_did_not_answer_32_hellos_rests_for_ten_minutes() {
    let same_ip = ["192.0.2.1:4000", "192.0.2.1:4001", "192.0.2.1:4002", "192.0.2.1:4003"];
    let mut world = World::with_given(&same_ip);
    for _ in 0..200 {
        let _ = world.send(2, 10);
        world.advance(secs(10));
    }
    let times: Vec<_> = world.hellos.iter().map(|hello| hello.at).collect();
    let pause = times[config::REST_AFTER as usize] - times[config::REST_AFTER as usize - 1];
    assert!(pause >= config::REST && pause < config::REST + secs(30), "{pause:?}");
}

#[test]
fn addresses_that_are_told_once_more_draw_no_new_ladder() {
    let mut world = World::registered(HostConfig::default());
    let _ = world.send(2, 10);
    world.hand_over(&told(key(2).device_id(), &[PEER]));
    world.advance(secs(10));
    assert_eq!(world.hello_times(addr(PEER)).len(), 5);
    world.hand_over(&told(key(2).device_id(), &[PEER, "192.0.2.2:4000"]));
    world.advance(secs(10));
    assert_eq!(world.hello_times(addr(PEER)).len(), 5);
    assert_eq!(world.hello_times(addr("192.0.2.2:4000")).len(), 5);
}

#[test]
fn addresses_that_were_not_asked_for_are_not_kept() {
    let mut world = World::registered(HostConfig::default());
    let _ = world.send(2, 10);
    world.advance(config::IDLE);
    assert_eq!(world.told.last(), Some(&Told::Release(key(2).device_id())));
    world.hand_over(&told(key(2).device_id(), &[PEER]));
    let _ = world.send(2, 10);
    world.advance(secs(2));
    assert!(world.hello_times(addr(PEER)).is_empty());
}

#[test]
fn a_peer_that_is_forgotten_leaves_no_address_behind() {
    let mut world = World::registered(HostConfig::default());
    world.hello(2, addr(PEER));
    world.answer(2, addr(PEER));
    world.hello(2, addr(ELSEWHERE));
    assert_eq!(world.host.sizes().sources, 2);
    world.advance(config::IDLE + config::FORGET + ms(1));
    let sizes = world.host.sizes();
    assert_eq!((sizes.peers, sizes.sources), (0, 0));
}

#[test]
fn announcements_count_from_the_link_only() {
    let on_link = |ip: &str, scope| SocketAddr::V6(SocketAddrV6::new(ip.parse().unwrap(), 4000, 0, scope));
    let mut heard = Vec::new();
    for (from, hop_limit) in [
        (on_link("fe80::2", 1), HOP_LIMIT),
        (on_link("fe80::2", 1), HOP_LIMIT - 1),
        (on_link("2001:db8::2", 0), HOP_LIMIT),
        (addr("192.0.2.1:4000"), HOP_LIMIT),
    ] {
        let now = std::time::Instant::now();
        let mut host = Host::new(HostConfig::default(), key(1), [7; 32], now);
        let eth = Interface {
            index: 1,
            name: "eth0".to_owned(),
            loopback: false,
            multicast: true,
            default_v4: false,
            default_v6: false,
            preferred: false,
            addresses: vec![("fe80::1".parse().unwrap(), 64)],
            routes: vec![],
        };
        host.handle_network(Network { interfaces: vec![eth], port_v4: None, port_v6: Some(4000) }, now);
        let _ = host.route(key(2).device_id(), 10, now);
        host.handle_announcement(from, hop_limit, key(2).device_id().as_bytes(), now);
        let outputs = std::iter::from_fn(|| Some(host.poll_output(now)));
        let mut outputs = outputs.take_while(|output| !matches!(output, Output::Timeout(_)));
        heard.push(outputs.any(|output| matches!(output, Output::Transmit { .. })));
    }
    assert_eq!(heard, [true, false, false, false]);
}
