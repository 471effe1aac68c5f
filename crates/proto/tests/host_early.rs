//! Issue row 11, from the side that stays: what goes to the new port of a peer before the peer has answered there.

mod host_world;

use bowline_proto::{
    host::{HostConfig, Relay, Route, config},
    wire::{
        ANY_PATH_DATA,
        peer::IntroductionKey,
        tcp::{BaseFrame, DeviceAddresses},
    },
};
use host_world::{World, addr, key, ms, secs};

const OLD: &str = "192.0.2.1:4000";
/// Another port of the same NAT.
const NEW: &str = "192.0.2.1:5000";
const NEXT: &str = "192.0.2.1:6000";
const ELSEWHERE: &str = "192.0.2.2:5000";

/// The base says where a peer is.
fn push(world: &mut World, peer: u8, reflexive: &[&str]) {
    world.hand_over(&BaseFrame::DeviceAddresses(DeviceAddresses {
        device: key(peer).device_id(),
        online: true,
        joined: true,
        introduction: IntroductionKey::NONE,
        reflexive: reflexive.iter().map(|text| addr(text)).collect(),
        own: vec![],
    }));
}

/// A host with a direct path to its peer 2, which carries 1,200 bytes; the other addresses have not answered.
fn direct_and(others: &[&str]) -> World {
    let mut world = World::registered(HostConfig::default());
    let _ = world.send(2, 10);
    push(&mut world, 2, &[&[OLD], others].concat());
    world.advance(ms(40));
    world.answer(2, addr(OLD));
    world.advance(ms(1));
    world.answer(2, addr(OLD));
    assert_eq!(direct(&mut world, ANY_PATH_DATA), OLD);
    world.datagram(addr(OLD), b"data");
    world
}

fn direct(world: &mut World, length: usize) -> String {
    match world.send(2, length) {
        Ok(Route::Direct(hop)) => hop.to.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Where a message goes beside the relay.
fn beside(world: &mut World, length: usize) -> String {
    match world.send(2, length) {
        Ok(Route::Both(hop, Relay::Tcp(_))) => hop.to.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_go_over_the_relay_and_to_the_new_port_until_it_answers() {
    let mut world = direct_and(&[]);
    push(&mut world, 2, &[NEW]);
    assert_eq!(world.hello_times(addr(NEW)).len(), 1, "the HELLO goes first");
    assert_eq!(beside(&mut world, 10), NEW);
    world.advance(ms(40));
    assert_eq!(beside(&mut world, ANY_PATH_DATA), NEW);
    world.answer(2, addr(NEW));
    assert_eq!(direct(&mut world, 10), NEW);
}

#[test]
fn an_answer_from_where_the_peer_was_ends_it_too() {
    let mut world = direct_and(&[]);
    push(&mut world, 2, &[NEW]);
    assert_eq!(beside(&mut world, 10), NEW);
    world.answer(2, addr(OLD));
    assert_eq!(direct(&mut world, 10), OLD);
    world.advance(ms(450));
    assert_eq!(beside(&mut world, 10), OLD, "silent again, and still within half a second");
}

#[test]
fn sixteen_messages_and_no_more() {
    let mut world = direct_and(&[]);
    push(&mut world, 2, &[NEW]);
    let went: Vec<_> = (0..20).map(|_| beside(&mut world, ANY_PATH_DATA)).collect();
    assert!(went[..16].iter().all(|to| to == NEW) && went[16..].iter().all(|to| to == OLD), "{went:?}");
    // Nor by the HELLOs that follow the first.
    world.advance(ms(150));
    assert_eq!(world.hello_times(addr(NEW)).len(), 2);
    assert_eq!(beside(&mut world, 10), OLD);
}

#[test]
fn half_a_second_and_no_longer() {
    let mut world = direct_and(&[]);
    push(&mut world, 2, &[NEW]);
    world.advance(config::EARLY_FOR - ms(1));
    assert_eq!(beside(&mut world, 10), NEW);
    world.advance(ms(1));
    assert_eq!(beside(&mut world, 10), OLD);
}

#[test]
fn larger_messages_stay_where_they_are() {
    let mut world = direct_and(&[]);
    // One that shows that more is wanted, and the answer to the HELLO that looks for it.
    let _ = world.send(2, ANY_PATH_DATA);
    world.advance(ms(40));
    world.answer(2, addr(OLD));
    let more = ANY_PATH_DATA + 1;
    assert_eq!(direct(&mut world, more), OLD);
    push(&mut world, 2, &[NEW]);
    assert_eq!(beside(&mut world, more), OLD);
    assert_eq!(beside(&mut world, ANY_PATH_DATA), NEW);
}

#[test]
fn another_ip_gets_nothing_before_it_has_answered() {
    let mut world = direct_and(&[]);
    push(&mut world, 2, &[ELSEWHERE]);
    assert_eq!(world.hello_times(addr(ELSEWHERE)).len(), 1);
    assert_eq!(beside(&mut world, 10), OLD);

    let mut world = direct_and(&[]);
    push(&mut world, 2, &[ELSEWHERE, NEW]);
    assert_eq!(beside(&mut world, 10), NEW, "of several the one with the IP");
}

#[test]
fn nothing_goes_without_a_hello_before_it() {
    let mut world = direct_and(&[]);
    world.advance(secs(2));
    // HELLOs to another peer at that IP use up what one IP gets.
    let _ = world.send(3, 10);
    for n in 0..5 {
        let ports: Vec<String> = (0..4).map(|m| format!("192.0.2.1:{}", 7000 + 4 * n + m)).collect();
        push(&mut world, 3, &ports.iter().map(String::as_str).collect::<Vec<_>>());
    }
    push(&mut world, 2, &[NEW]);
    assert!(world.hello_times(addr(NEW)).is_empty(), "it has to wait");
    assert_eq!(beside(&mut world, 10), OLD);
    for _ in 0..100 {
        world.advance(ms(10));
        let said_hello = !world.hello_times(addr(NEW)).is_empty();
        assert_eq!(beside(&mut world, 10), if said_hello { NEW } else { OLD });
        if said_hello {
            return;
        }
    }
    panic!("no HELLO");
}

#[test]
fn an_address_that_stands_for_another_peer_gets_nothing() {
    let mut world = direct_and(&[]);
    let _ = world.send(3, 10);
    push(&mut world, 3, &[NEW]);
    world.answer(3, addr(NEW));
    push(&mut world, 2, &[NEW]);
    assert_eq!(beside(&mut world, 10), OLD);
}

#[test]
fn an_address_that_was_named_before_and_has_not_answered_gets_nothing() {
    let mut world = direct_and(&[NEW]);
    push(&mut world, 2, &[NEW]);
    assert_eq!(beside(&mut world, 10), OLD);
}

#[test]
fn an_address_that_the_base_takes_back_gets_nothing_more() {
    let mut world = direct_and(&[]);
    push(&mut world, 2, &[NEW]);
    assert_eq!(beside(&mut world, 10), NEW);
    push(&mut world, 2, &[ELSEWHERE]);
    assert_eq!(beside(&mut world, 10), OLD);
}

#[test]
fn a_path_that_was_suspect_before_the_push_vouches_for_nothing() {
    let mut world = direct_and(&[]);
    assert_eq!(direct(&mut world, 10), OLD);
    world.advance(ms(700));
    assert_eq!(beside(&mut world, 10), OLD, "it went silent");
    push(&mut world, 2, &[NEW]);
    assert_eq!(beside(&mut world, 10), OLD);
}

#[test]
fn a_peer_that_moves_on_within_five_seconds_is_not_followed() {
    for (after, followed) in [(config::EARLY_MOVES.every - ms(1), false), (config::EARLY_MOVES.every, true)] {
        let mut world = direct_and(&[]);
        push(&mut world, 2, &[NEW]);
        assert_eq!(beside(&mut world, 10), NEW);
        world.advance(ms(40));
        world.answer(2, addr(NEW));
        world.advance(after - ms(40));
        push(&mut world, 2, &[NEXT]);
        assert_eq!(beside(&mut world, 10), if followed { NEXT } else { NEW });
    }
}
