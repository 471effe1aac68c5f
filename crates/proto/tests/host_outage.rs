//! Nothing gets through for a while, and no system says so: what a host does meanwhile, so that it is back as soon as something does.

mod host_world;

use bowline_proto::{
    host::{CloseReason, HostConfig, Relay, Route, SendError, config},
    wire::{
        tcp::BaseFrame,
        udp::{NAT_INIT, NatOk},
    },
};
use host_world::{COOKIE, World, addr, key, ms};

const PEER: &str = "198.51.100.77:5000";
const UDP: &str = "203.0.113.9:4477";

/// A direct path to peer 2 stands.
fn direct(mut world: World) -> World {
    let _ = world.send(2, 10);
    world.advance(ms(40));
    world.answer(2, addr(PEER));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))));
    world
}

/// It sends ten messages a second; the ways they take.
fn sends(world: &mut World, seconds: u64) -> Vec<Result<Route, SendError>> {
    let send = |_| {
        world.advance(ms(100));
        world.send(2, 10)
    };
    (0..10 * seconds).map(send).collect()
}

/// Numbers of the NAT-INITs so far.
fn nat_inits(world: &World) -> Vec<u64> {
    let to_base = world.datagrams.iter().filter(|(at, bytes)| *at == addr(UDP) && bytes[0] == NAT_INIT);
    to_base.map(|(_, bytes)| u64::from_be_bytes(bytes[9..17].try_into().unwrap())).collect()
}

/// The base answers this NAT-INIT.
fn nat_ok(world: &mut World, seq: u64) {
    let seen = addr("198.51.100.1:4000");
    let ok = NatOk { cookie: COOKIE, seq, challenge: [3; 8], confirmed: true, seen };
    world.datagram(addr(UDP), &ok.encode(0));
}

/// Registered, with UDP, and talking over it with peer 2, whom no direct path leads to.
fn relayed() -> World {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
    let seq = *nat_inits(&world).last().unwrap();
    nat_ok(&mut world, seq);
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    world
}

#[test]
fn where_nothing_else_is_left_a_silent_path_stays_in_use_for_75_seconds_and_is_asked_each_second() {
    let mut world = direct(World::with_given(&[PEER]));
    let before = world.hellos.len();
    let ways = sends(&mut world, 60);
    assert!(ways.iter().all(|way| matches!(way, Ok(Route::Direct(_)))), "{ways:?}");
    let hellos = world.hellos.len() - before;
    assert!((55..=75).contains(&hellos), "{hellos} HELLOs");
    world.answer(2, addr(PEER));
    assert!(world.host.lease(key(2).device_id()).is_some(), "any reply, and it is above suspicion");
    sends(&mut world, 76);
    assert_eq!(world.send(2, 10), Err(SendError::NoBase), "nothing confirmed it for 75 seconds");
}

#[test]
fn a_silent_path_is_left_for_a_base_that_answers_and_not_for_one_that_does_not() {
    for answers in [true, false] {
        let given = vec![(key(2).device_id(), addr(PEER))];
        let mut world = direct(World::registered(HostConfig { given, ..HostConfig::default() }));
        if !answers {
            world.stops_answering();
        }
        let ways = sends(&mut world, 10);
        let both = matches!(ways.last(), Some(Ok(Route::Both(_, Relay::Tcp(_)))));
        let relay = matches!(ways.last(), Some(Ok(Route::RelayTcp(_))));
        assert_eq!((relay, both), (answers, !answers), "{ways:?}");
    }
}

#[test]
fn while_messages_would_go_over_udp_that_is_silent_the_base_is_asked_each_second_for_a_minute() {
    let mut world = relayed();
    world.stops_answering();
    sends(&mut world, 10);
    let before = nat_inits(&world).len();
    sends(&mut world, 20);
    let asked = nat_inits(&world).len() - before;
    assert!((18..=22).contains(&asked), "{asked} NAT-INITs in 20 seconds");
    let last = *nat_inits(&world).last().unwrap();
    nat_ok(&mut world, last);
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))), "at once");
    sends(&mut world, 62);
    let before = nat_inits(&world).len();
    sends(&mut world, 40);
    let asked = nat_inits(&world).len() - before;
    assert!(asked <= 3, "{asked} NAT-INITs in 40 seconds: the base has forgotten");
}

#[test]
fn a_race_that_hangs_begins_anew_when_the_base_answers_over_udp() {
    let mut world = relayed();
    world.stops_answering();
    sends(&mut world, 8);
    world.resolved(0, Ok(vec![addr("203.0.113.9:4477")]));
    sends(&mut world, 2);
    let before = world.lookups.len();
    let last = *nat_inits(&world).last().unwrap();
    nat_ok(&mut world, last);
    assert_eq!(world.lookups.len(), before + 1, "what the system sends again may come seconds later");
    nat_ok(&mut world, last);
    assert_eq!(world.lookups.len(), before + 1);
}

#[test]
fn a_peer_that_is_heard_again_after_an_outage_is_looked_for_at_once_twice_at_most() {
    let given = vec![(key(2).device_id(), addr(PEER))];
    let came = |world: &mut World| {
        let before = world.hellos.len();
        world.hand_over(&BaseFrame::RecvData(key(2).device_id(), b"here"));
        world.advance(ms(1));
        world.hellos.len() - before
    };
    let mut world = World::registered(HostConfig { given: given.clone(), ..HostConfig::default() });
    sends(&mut world, 15);
    assert_eq!(came(&mut world), 0, "there was no path");
    let mut world = direct(World::registered(HostConfig { given, ..HostConfig::default() }));
    sends(&mut world, 1);
    assert_eq!(came(&mut world), 0, "nothing has come from it for a moment only");
    for looked_for in [1, 1, 0, 0] {
        sends(&mut world, 15);
        assert_eq!(came(&mut world), looked_for);
    }
}

#[test]
fn while_messages_wait_for_a_base_the_next_race_begins_within_five_seconds() {
    let bases = vec!["base.example".parse().unwrap()];
    let mut world = World::new(HostConfig { bases, link_local: false, ..HostConfig::default() });
    for _ in 0..20 {
        let before = world.lookups.len();
        if let Some(conn) = world.conn.take() {
            let why = CloseReason::Refused("refused".to_owned());
            world.host.handle_closed(conn, why, world.now);
        }
        world.resolved(0, Err("no such name".to_owned()));
        assert_eq!(world.send(2, 10), Err(SendError::NoBase));
        world.advance(config::RACE_WANTED);
        assert_eq!(world.lookups.len(), before + 1, "lookups at {:?}", world.lookups);
    }
}
