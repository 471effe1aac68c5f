//! Issue rows 9 and 13, from the host's side: interest ends when a peer idles; peers, pairs and unverified work are
//! bounded, and what happens at each bound.

mod host_world;

use std::{collections::BTreeSet, net::SocketAddr, ops::RangeInclusive, time::Duration};

use bowline_proto::{
    DeviceId, SecretKey,
    host::{HostConfig, Route, SendError, config},
    wire::{
        peer::{Hello, HelloReply, IntroductionKey},
        tcp::{BaseFrame, DeviceAddresses},
    },
};
use host_world::{Told, World, addr, key, ms, secs};

fn device(n: u32) -> DeviceId {
    let mut bytes = [0xde; 14];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    DeviceId::from_bytes(bytes)
}

#[test]
fn interest_is_requested_with_the_first_message_and_released_after_two_minutes_without() {
    let mut world = World::registered(HostConfig::default());
    let peer = key(2).device_id();
    assert!(matches!(world.send(2, 10), Ok(Route::RelayTcp(_))));
    assert_eq!(world.told, [Told::Request(peer)]);
    world.advance(config::IDLE - ms(1));
    assert_eq!(world.told, [Told::Request(peer)]);
    world.advance(ms(1));
    assert_eq!(world.told, [Told::Request(peer), Told::Release(peer)]);
    assert!(world.send(2, 10).is_ok());
    assert_eq!(world.told[2..], [Told::Request(peer)]);
}

#[test]
fn a_peer_that_only_asks_is_asked_back_and_forgotten_in_the_end() {
    let mut world = World::registered(HostConfig::default());
    let peer = key(2).device_id();
    world.hand_over(&BaseFrame::Wanted(peer));
    assert_eq!(world.told, [Told::Request(peer)]);
    world.advance(config::IDLE);
    assert_eq!(world.told, [Told::Request(peer), Told::Release(peer)]);
    world.advance(config::FORGET);
    assert_eq!(world.host.sizes().peers, 0);
}

#[test]
fn one_peer_too_many_has_the_relay_alone_while_all_are_in_use_and_replaces_an_idle_one_later() {
    let mut world = World::registered(HostConfig::default());
    for n in 0..config::MAX_PEERS as u32 {
        assert!(world.host.route(device(n), 1, world.now).is_ok());
    }
    world.drain();
    world.told.clear();
    let too_many = Err(SendError::TooManyPeers { limit: config::MAX_PEERS });
    assert_eq!(world.host.want(device(9_999), world.now), too_many);
    assert!(matches!(world.host.route(device(9_999), 1, world.now), Ok(Route::RelayTcp(_))));
    world.drain();
    assert_eq!(world.told, [], "nothing is sought");
    world.advance(config::PEER_HELD - ms(1));
    assert!(world.host.route(device(5), 1, world.now).is_ok());
    world.advance(ms(1));
    world.told.clear();
    assert!(world.host.route(device(9_999), 1, world.now).is_ok());
    world.drain();
    assert_eq!(world.host.sizes().peers, config::MAX_PEERS);
    // The one unused longest is gone, and its interest with it.
    assert!(world.host.peer_status(device(5), world.now).is_some());
    let released: Vec<_> = world.told.iter().filter(|told| matches!(told, Told::Release(_))).collect();
    assert_eq!(released.len(), 1, "{released:?}");
}

#[test]
fn peers_that_only_ask_are_fewer_and_the_one_unused_longest_goes() {
    let mut world = World::registered(HostConfig::default());
    for n in 0..config::MAX_ASKING_PEERS as u32 + 10 {
        world.hand_over(&BaseFrame::Wanted(device(n)));
        world.advance(config::WANTED_TAKEN.every);
    }
    assert_eq!(world.host.sizes().peers, config::MAX_ASKING_PEERS);
    let released = world.told.iter().filter(|told| matches!(told, Told::Release(_))).count();
    assert_eq!(released, 10, "the base takes so many interests, and no more");
    assert!(world.host.peer_status(device(0), world.now).is_none());
    assert_eq!(world.host.status(world.now).counters.peers_evicted, 10);
}

#[test]
fn of_peers_that_only_ask_none_at_work_is_given_up_for_another() {
    let mut world = asked_by_as_many_as_fit();
    let first = key(2).device_id();
    let evicted = |world: &World| world.host.status(world.now).counters.peers_evicted;
    world.hand_over(&BaseFrame::Wanted(device(1)));
    assert_eq!((world.host.sizes().peers, evicted(&world)), (config::MAX_ASKING_PEERS, 0));
    assert!(world.host.peer_status(first, world.now).is_some());
    assert!(world.host.peer_status(device(1), world.now).is_none());
    // Once it is silent it makes room.
    world.advance(config::PEER_HELD);
    world.hand_over(&BaseFrame::Wanted(device(1)));
    assert_eq!((world.host.sizes().peers, evicted(&world)), (config::MAX_ASKING_PEERS, 1));
    assert!(world.host.peer_status(first, world.now).is_none());
    assert!(world.host.peer_status(device(1), world.now).is_some());
}

/// A host that as many peers as fit have asked for, and have answered.
fn asked_by_as_many_as_fit() -> World {
    let mut world = World::registered(HostConfig::default());
    for n in 0..config::MAX_ASKING_PEERS as u16 {
        let peer = numbered_or_second(n);
        let at = SocketAddr::from(([192, 0, 2, 7], 2_000 + n));
        world.hand_over(&BaseFrame::Wanted(peer.device_id()));
        world.hand_over(&told(peer.device_id(), at));
        let token = world.hellos.last().filter(|hello| hello.to == at).expect("it is said HELLO").token;
        world.datagram(at, &HelloReply::encode(key(1).device_id(), token, &peer));
        world.advance(config::WANTED_TAKEN.every);
    }
    world
}

/// The first of them is known by name.
fn numbered_or_second(n: u16) -> SecretKey {
    if n == 0 { key(2) } else { numbered(n) }
}

#[test]
fn who_asked_and_says_hello_no_more_makes_room_whatever_he_sends_over_the_relay() {
    let mut world = asked_by_as_many_as_fit();
    let until = world.now + config::PROOF_LIFE;
    while world.now <= until {
        world.advance(config::PEER_HELD - secs(1));
        for n in 0..config::MAX_ASKING_PEERS as u16 {
            world.hand_over(&BaseFrame::RecvData(numbered_or_second(n).device_id(), b"still here"));
        }
    }
    world.hand_over(&BaseFrame::Wanted(device(1)));
    assert_eq!(world.host.sizes().peers, config::MAX_ASKING_PEERS);
    assert!(world.host.peer_status(device(1), world.now).is_some());
}

/// The key of one of many peers.
fn numbered(n: u16) -> SecretKey {
    let mut seed = [0xee; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed)
}

/// The base says that a device is seen there.
fn told(device: DeviceId, at: SocketAddr) -> BaseFrame<'static> {
    BaseFrame::DeviceAddresses(DeviceAddresses {
        device,
        online: true,
        joined: true,
        introduction: IntroductionKey([5; 16]),
        reflexive: vec![at],
        own: vec![],
    })
}

/// A host that has sent to many peers, all of which the base says are behind one address, each with its own port.
fn wants_a_site(world: &mut World, peers: RangeInclusive<u8>) {
    for n in peers {
        assert!(world.send(n, 10).is_ok());
        world.hand_over(&told(key(n).device_id(), site(n)));
    }
}

fn site(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 4_000 + u16::from(n)))
}

/// Time passes in which these peers answer every HELLO that comes to them, 20 ms later.
fn they_answer(world: &mut World, peers: RangeInclusive<u8>, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        let before = world.hellos.len();
        world.advance(ms(20));
        for at in before.min(world.hellos.len())..world.hellos.len() {
            let to = world.hellos[at].to;
            if let Some(n) = peers.clone().find(|&n| site(n) == to) {
                world.answer(n, to);
            }
        }
    }
}

fn direct(world: &World, peers: RangeInclusive<u8>) -> usize {
    peers.filter(|&n| world.host.max_direct(key(n).device_id()).is_some()).count()
}

#[test]
fn two_hundred_devices_behind_one_address_that_answer_are_all_direct_within_three_seconds() {
    let mut world = World::registered(HostConfig::default());
    wants_a_site(&mut world, 2..=201);
    they_answer(&mut world, 2..=201, secs(3));
    assert_eq!(direct(&world, 2..=201), 200);
}

#[test]
fn paths_to_a_site_that_are_asked_each_second_keep_no_newcomer_there_waiting() {
    let mut world = World::registered(HostConfig::default());
    wants_a_site(&mut world, 2..=101);
    they_answer(&mut world, 2..=101, secs(5));
    // Who says nothing back is asked each second whether it is still there: a hundred HELLOs a second.
    for _ in 0..30 {
        for n in 2..=101 {
            assert!(world.send(n, 10).is_ok());
        }
        they_answer(&mut world, 2..=101, ms(200));
    }
    let before = world.hellos.len();
    wants_a_site(&mut world, 102..=120);
    for _ in 0..5 {
        for n in 2..=101 {
            assert!(world.send(n, 10).is_ok());
        }
        they_answer(&mut world, 2..=120, ms(200));
    }
    assert!(world.hellos.len() - before > 100, "they are asked");
    assert_eq!(direct(&world, 2..=120), 119);
}

#[test]
fn where_nobody_answers_an_address_gets_sixteen_hellos_a_second_and_first_ones_before_repetitions() {
    let mut world = World::registered(HostConfig::default());
    wants_a_site(&mut world, 2..=101);
    let elsewhere = addr("192.0.2.8:4000");
    assert!(world.send(102, 10).is_ok());
    world.hand_over(&told(key(102).device_id(), elsewhere));
    world.advance(secs(10));
    let there = world.hellos.iter().filter(|hello| hello.to.ip() == site(2).ip());
    let count = there.clone().count();
    assert!((150..=172).contains(&count), "{count}");
    let early = there.filter(|hello| hello.at <= world.start + secs(7));
    let asked: BTreeSet<_> = early.map(|hello| hello.to).collect();
    assert_eq!(asked.len(), 100, "each was tried before time is spent on trying again");
    assert_eq!(world.hello_times(elsewhere), [0, 100, 300, 700, 1_500], "others do not wait for them");
}

#[test]
fn a_base_that_floods_with_wanted_is_answered_as_often_as_an_honest_one_would_ask() {
    let mut world = World::registered(HostConfig::default());
    for n in 0..10_000 {
        world.hand_over(&BaseFrame::Wanted(device(n)));
    }
    assert_eq!(world.told.len(), config::WANTED_TAKEN.burst as usize);
    world.advance(secs(1));
    world.hand_over(&BaseFrame::Wanted(device(20_000)));
    assert_eq!(world.told.last(), Some(&Told::Request(device(20_000))));
}

#[test]
fn of_a_peer_that_only_asks_reflexive_addresses_get_five_hellos_and_own_ones_none() {
    let mut world = World::registered(HostConfig::default());
    let peer = key(2).device_id();
    world.hand_over(&BaseFrame::Wanted(peer));
    let (reflexive, own) = (addr("192.0.2.7:4000"), addr("192.0.2.99:4000"));
    world.hand_over(&BaseFrame::DeviceAddresses(DeviceAddresses {
        device: peer,
        online: true,
        joined: true,
        introduction: IntroductionKey([5; 16]),
        reflexive: vec![reflexive],
        own: vec![own],
    }));
    world.advance(secs(119));
    assert_eq!(world.hello_times(reflexive).len(), 5);
    assert_eq!(world.hello_times(own), Vec::<u128>::new());
}

#[test]
fn the_port_that_a_router_may_have_kept_is_tried_where_the_base_sees_another_one() {
    let hellos = |wanted: bool, own: &str| {
        let mut world = World::registered(HostConfig::default());
        if wanted {
            assert!(world.send(2, 10).is_ok());
        }
        world.hand_over(&BaseFrame::Wanted(key(2).device_id()));
        world.hand_over(&BaseFrame::DeviceAddresses(DeviceAddresses {
            device: key(2).device_id(),
            online: true,
            joined: true,
            introduction: IntroductionKey::NONE,
            reflexive: vec![addr("192.0.2.7:20001"), addr("192.0.2.7:20002")],
            own: vec![addr("[fd00::1]:5000"), addr(own), addr("172.16.0.1:6000")],
        }));
        world.advance(secs(5));
        let tried: BTreeSet<_> = world.hellos.iter().map(|hello| hello.to).collect();
        tried.into_iter().map(|to| to.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(hellos(true, "10.0.0.1:4000"), ["192.0.2.7:4000", "192.0.2.7:20001", "192.0.2.7:20002"]);
    assert_eq!(
        hellos(true, "10.0.0.1:20002"),
        ["192.0.2.7:20001", "192.0.2.7:20002"],
        "kept, as one base port sees"
    );
    assert_eq!(
        hellos(false, "10.0.0.1:4000"),
        ["192.0.2.7:20001", "192.0.2.7:20002"],
        "who only asks names no address"
    );
}

#[test]
fn candidates_and_pairs_are_bounded_and_some_addresses_are_never_tried() {
    let mut world = World::registered(HostConfig::default());
    let never = [
        "192.0.2.1:0",
        "192.0.2.1:22",
        "224.0.0.1:4000",
        "255.255.255.255:4000",
        "0.0.0.0:4000",
        "198.51.100.255:4000",
        "10.1.2.3:4000",
        "127.0.0.1:4000",
        "169.254.1.1:4000",
        "198.51.100.1:4000",
        "[fdb0::1]:4000",
        "[2001:db8::1]:4000",
    ]
    .map(addr);
    assert!(world.send(2, 10).is_ok());
    world.hand_over(&BaseFrame::DeviceAddresses(DeviceAddresses {
        device: key(2).device_id(),
        online: true,
        joined: true,
        introduction: IntroductionKey::NONE,
        reflexive: (1..=4).map(|n| addr(&format!("192.0.2.{n}:4000"))).collect(),
        own: never.to_vec(),
    }));
    world.advance(secs(60));
    let tried: BTreeSet<_> = world.hellos.iter().map(|hello| hello.to).collect();
    assert_eq!(tried.len(), 4, "{tried:?}");
    assert!(world.host.sizes().pairs <= config::MAX_PAIRS);
}

#[test]
fn hellos_of_strangers_cost_a_bounded_number_of_verifications_and_create_a_bounded_number_of_peers() {
    let mut world = World::registered(HostConfig::default());
    for n in 0..200u32 {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let stranger = SecretKey::from_seed(&seed);
        let hello = Hello::encode(key(1).device_id(), [1; 16], &IntroductionKey::NONE, &stranger, 0, 0);
        world.datagram(addr(&format!("203.0.113.{}:{}", n % 250, 5_000 + n)), &hello);
    }
    assert_eq!(world.replies.len(), config::STRANGERS.burst as usize);
    assert_eq!(world.host.sizes().peers, config::STRANGERS.burst as usize);
    let counters = world.host.status(world.now).counters;
    assert_eq!(counters.hello_over_budget, 200 - u64::from(config::STRANGERS.burst));
}

#[test]
fn one_source_of_strangers_has_five_in_two_seconds() {
    let mut world = World::registered(HostConfig::default());
    for n in 2..40 {
        world.hello(n, addr("203.0.113.7:5000"));
    }
    // The first has the address; the others are verified, and not answered while it is his.
    let counters = world.host.status(world.now).counters;
    assert_eq!(counters.hello_over_budget, 38 - u64::from(config::STRANGER_SOURCE.burst));
    assert_eq!(world.replies.len(), 1);
}

#[test]
fn an_unproven_source_is_taken_for_five_seconds_and_draws_one_hello() {
    let mut world = World::registered(HostConfig::default());
    let from = addr("203.0.113.7:5000");
    let takes = |world: &mut World| world.host.handle_datagram(None, from, b"data", world.now).is_some();
    assert!(!takes(&mut world));
    world.hello(2, from);
    assert_eq!(world.hello_times(from).len(), 1);
    assert!(takes(&mut world));
    world.advance(config::CLAIM_LIFE - ms(1));
    assert!(takes(&mut world));
    world.advance(ms(1));
    assert!(!takes(&mut world));
    world.hello(2, from);
    world.answer(2, from);
    world.advance(config::PROOF_LIFE - ms(1));
    assert!(takes(&mut world));
    world.advance(ms(1));
    assert!(!takes(&mut world));
}

#[test]
fn a_peer_that_became_idle_and_sends_again_is_not_forgotten_while_it_does() {
    let mut world = World::with_given(&["192.0.2.1:4000"]);
    let from = addr("192.0.2.1:4000");
    world.hello(2, from);
    world.answer(2, from);
    world.advance(config::IDLE + secs(1));
    // It never stops now; what it sends draws nothing of ours but replies.
    let mut refused = 0;
    for _ in 0..60 {
        world.hello(2, from);
        world.answer(2, from);
        for _ in 0..25 {
            world.advance(secs(1));
            refused += u32::from(world.host.handle_datagram(None, from, b"data", world.now).is_none());
        }
    }
    assert_eq!(refused, 0);
}
