//! Issue rows 7 and 12, from the host's side: when HELLOs leave, which pair wins, and how a path that goes silent ends.

mod host_world;

use bowline_proto::host::{HostConfig, Path, Relay, Route, SendError};
use host_world::{World, addr, key, ms, secs};

const FIRST: &str = "192.0.2.1:4000";
const SECOND: &str = "192.0.2.2:4000";

#[test]
fn hellos_follow_the_ladder_then_rounds_and_grow_rare_where_nothing_answers() {
    let mut world = World::with_given(&[FIRST]);
    for _ in 0..16 {
        // In use all the time: an idle peer gets none.
        let _ = world.send(2, 10);
        world.advance(secs(60));
    }
    let times = world.hello_times(addr(FIRST));
    assert_eq!(times[..5], [0, 100, 300, 700, 1_500]);
    let gaps: Vec<u128> = times[4..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, nominal) in gaps.iter().zip([25_000, 25_000, 50_000, 100_000, 200_000, 200_000]) {
        assert!((nominal * 9 / 10..=nominal).contains(gap), "jitter goes downwards, by a tenth: {gaps:?}");
    }
    assert!(gaps.len() >= 5);
}

#[test]
fn a_pair_that_answers_is_asked_every_25_seconds_and_no_more() {
    let mut world = World::with_given(&[FIRST]);
    let _ = world.send(2, 10);
    world.advance(ms(20));
    world.answer(2, addr(FIRST));
    // The padded ones that follow the first reply are answered, too: the size is known then.
    world.advance(ms(1));
    world.answer(2, addr(FIRST));
    let before = world.hellos.len();
    for _ in 0..100 {
        world.advance(secs(1));
        world.hello(2, addr(FIRST));
        if world.hellos.last().is_some_and(|hello| hello.at + ms(1_000) >= world.now) {
            world.answer(2, addr(FIRST));
        }
    }
    let rounds = world.hellos.len() - before;
    assert!((4..=5).contains(&rounds), "{rounds} rounds in 100 s");
}

#[test]
fn the_first_to_respond_wins_and_the_size_is_probed_at_once() {
    let mut world = World::with_given(&[FIRST, SECOND]);
    assert_eq!(world.send(2, 10), Err(SendError::NoBase));
    world.advance(ms(30));
    world.answer(2, addr(SECOND));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(hop)) if hop.to == addr(SECOND)));
    let padded: Vec<_> = world.hellos.iter().filter(|hello| hello.length == 1_209).map(|h| h.to).collect();
    assert_eq!(padded, [addr(SECOND)]);
    world.answer(2, addr(FIRST));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(hop)) if hop.to == addr(SECOND)), "it stays");
}

#[test]
fn a_reply_counts_only_from_where_its_hello_went_and_within_five_seconds() {
    let mut world = World::with_given(&[FIRST]);
    let _ = world.send(2, 10);
    let token = world.hellos[0].token;
    let reply = bowline_proto::wire::peer::HelloReply::encode(key(1).device_id(), token, &key(2));
    world.datagram(addr(SECOND), &reply);
    assert_eq!(world.send(2, 10), Err(SendError::NoBase));
    world.advance(secs(6));
    world.datagram(addr(FIRST), &reply);
    assert_eq!(world.send(2, 10), Err(SendError::NoBase));
    assert_eq!(world.host.status(world.now).counters.reply_stray, 2);
}

#[test]
fn a_path_that_goes_silent_is_asked_twice_then_doubled_by_the_relay_then_dropped() {
    let given = vec![(key(2).device_id(), addr(FIRST))];
    let mut world = World::registered(HostConfig { given, ..HostConfig::default() });
    assert!(matches!(world.send(2, 10), Ok(Route::RelayTcp(_))));
    world.advance(ms(40));
    world.answer(2, addr(FIRST));
    world.advance(ms(1));
    world.answer(2, addr(FIRST));
    let hellos = world.hellos.len();
    world.advance(secs(5));
    assert_eq!(world.hellos.len(), hellos, "silence without data says nothing");
    let sent = world.now;
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))));
    let mut both_after = None;
    for _ in 0..40 {
        world.advance(ms(25));
        match world.send(2, 10).unwrap() {
            Route::Direct(_) => {}
            Route::Both(hop, Relay::Tcp(_)) => {
                assert_eq!(hop.to, addr(FIRST));
                both_after = Some((world.now - sent).as_millis());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let both_after = both_after.expect("it becomes suspect");
    assert!((400..=425).contains(&both_after), "two times W of 200 ms: {both_after}");
    let probes = world.hellos[hellos..].iter().filter(|h| h.at < world.now - ms(25)).count();
    assert_eq!(probes, 2, "one HELLO, and once more");
    // Data in clears nothing, a reply does.
    world.datagram(addr(FIRST), b"data");
    assert!(matches!(world.send(2, 10), Ok(Route::Both(..))));
    world.answer(2, addr(FIRST));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))));
    // Again, and nothing ever answers.
    world.advance(secs(2));
    assert!(matches!(world.send(2, 10), Ok(Route::RelayTcp(_))), "dropped");
    assert_eq!(world.host.peer_status(key(2).device_id(), world.now).unwrap().path, Path::RelayTcp);
}

#[test]
fn data_that_is_answered_by_data_draws_no_hello_on_its_path() {
    let mut world = World::with_given(&[FIRST]);
    let _ = world.send(2, 10);
    world.advance(ms(40));
    world.answer(2, addr(FIRST));
    world.advance(ms(1));
    world.answer(2, addr(FIRST));
    let before = world.hellos.len();
    for _ in 0..100 {
        assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))));
        world.advance(ms(50));
        world.datagram(addr(FIRST), b"data");
        world.advance(ms(50));
    }
    assert_eq!(world.hellos.len(), before);
}

/// A robot on Wi-Fi and LTE sends by one, its peer answers to the other: when the first goes silent, what comes by the second says nothing.
#[test]
fn what_comes_to_another_own_address_does_not_show_that_the_way_out_is_open() {
    const WIFI: &str = "198.51.100.1";
    const LTE: &str = "203.0.113.1";
    let given = vec![(key(2).device_id(), addr(FIRST))];
    let mut world = World::registered(HostConfig { given, ..HostConfig::default() });
    world.is_at(&[WIFI, LTE]);
    let _ = world.send(2, 10);
    world.advance(ms(40));
    for _ in 0..2 {
        let reply = world.reply(2, addr(FIRST));
        world.datagram_at(WIFI, addr(FIRST), &reply);
        world.advance(ms(1));
    }
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(hop)) if hop.source == Some(WIFI.parse().unwrap())));
    let sent = world.now;
    let by_wifi_alone =
        |route| matches!(route, Ok(Route::Direct(hop)) if hop.source == Some(WIFI.parse().unwrap()));
    while by_wifi_alone(world.send(2, 10)) {
        assert!(world.now - sent < secs(1), "the way out is silent, and nobody notices");
        world.advance(ms(25));
        world.datagram_at(LTE, addr(FIRST), b"data");
        let hello = world.next_hello(2);
        world.datagram_at(LTE, addr(FIRST), &hello);
    }
}

#[test]
fn where_direct_paths_are_switched_off_no_network_brings_them_back() {
    let mut world = World::with_given(&[FIRST]);
    let _ = world.send(2, 10);
    world.advance(ms(20));
    world.answer(2, addr(FIRST));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))));
    world.host.set_direct(false, world.now);
    let before = world.hellos.len();
    for address in ["198.51.100.2", "198.51.100.3"] {
        world.moves_to(address);
        let _ = world.send(2, 10);
        world.advance(secs(60));
    }
    assert_eq!(world.hellos.len(), before);
    world.host.set_direct(true, world.now);
    world.drain();
    assert!(world.hellos.len() > before, "switched on, they are sought where the device is now");
}

#[test]
fn an_answer_that_was_on_its_way_when_direct_paths_were_switched_off_brings_none() {
    let mut world = World::with_given(&[FIRST]);
    let _ = world.send(2, 10);
    world.host.set_direct(false, world.now);
    world.answer(2, addr(FIRST));
    assert_eq!(world.host.peer_status(key(2).device_id(), world.now).unwrap().path, Path::None);
    assert_eq!(world.host.status(world.now).counters.reply_stray, 1);
}
