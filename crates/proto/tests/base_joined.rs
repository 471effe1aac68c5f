//! Joined messages at a base: who is told of whom that it takes them, and that they go on as data does.

mod base_world;

use base_world::{FIRST, Host, World, addr, ms, over_tcp, over_udp};
use bowline_proto::{
    base::Forward,
    wire::{
        relay::{self, RECV_DATA, RECV_JOINED, SEND_JOINED},
        tcp::{BaseFrame, GetCookie, TAKES_JOINED},
    },
};

fn host(n: u8, capabilities: u32) -> Host {
    Host { capabilities, ..Host::new(n) }
}

/// Whether the last that a host was told of the other is that it takes them.
fn told(world: &mut World, host: &Host) -> Option<bool> {
    world.told(host).last().map(|told| told.joined)
}

#[test]
fn a_base_says_that_it_forwards_them() {
    let mut world = World::new();
    let conn = world.connect(Host::new(1).tcp);
    world.write(conn, |out| GetCookie { highest_version: 1, capabilities: 0 }.write(out));
    let hello = world.read(conn);
    assert!(matches!(&hello[..], [BaseFrame::BaseHello(hello)] if hello.takes_joined()), "{hello:?}");
}

#[test]
fn of_a_device_that_takes_them_others_are_told_so_and_of_no_other() {
    let mut world = World::new();
    // What else a later version is capable of changes nothing.
    let (mut a, mut b) = (host(1, TAKES_JOINED | 0x8000_0000), host(2, !TAKES_JOINED));
    world.join(&mut a);
    world.join(&mut b);
    world.request(&a, &b);
    world.request(&b, &a);
    assert_eq!(told(&mut world, &b), Some(true));
    assert_eq!(told(&mut world, &a), Some(false));
}

#[test]
fn a_device_that_registers_again_with_a_program_that_does_not_take_them_is_told_of_anew() {
    let mut world = World::new();
    let (mut a, mut b) = (host(1, TAKES_JOINED), host(2, TAKES_JOINED));
    world.join(&mut a);
    world.join(&mut b);
    world.befriend(&a, &b);
    for (capabilities, now) in [(0, Some(false)), (TAKES_JOINED, Some(true)), (TAKES_JOINED, None)] {
        b.capabilities = capabilities;
        b.attempt += 1;
        world.register(&mut b);
        assert_eq!(told(&mut world, &a), now);
    }
}

#[test]
fn a_device_that_has_changed_much_is_told_of_as_it_is_when_its_window_ends() {
    let mut world = World::new();
    let (mut a, mut b) = (host(1, TAKES_JOINED), host(2, TAKES_JOINED));
    world.join(&mut a);
    world.join(&mut b);
    world.befriend(&a, &b);
    for port in 1..9 {
        b.own = vec![addr(&format!("192.0.2.9:{port}"))];
        world.info(&mut b);
    }
    assert_eq!(told(&mut world, &a), Some(true));
    // The same start of it, by which nothing else is new: it waits with the rest.
    b.capabilities = 0;
    b.attempt += 1;
    world.register(&mut b);
    assert_eq!(told(&mut world, &a), None);
    world.advance(ms(250));
    assert_eq!(told(&mut world, &a), Some(false));
    // So does another start, though it asks back at once: that window is the pair's, too.
    b.capabilities = TAKES_JOINED;
    b.boot = [77; 8];
    b.attempt = 1;
    world.register(&mut b);
    world.request(&b, &a);
    world.advance(ms(500));
    assert_eq!(told(&mut world, &a), Some(true));
}

#[test]
fn they_go_on_as_data_of_their_length_does_and_stay_as_they_are() {
    let mut world = World::new();
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.register(&mut a);
    world.register(&mut b);
    let to = b.id;
    let message = |length: usize| {
        let mut message = relay::header(SEND_JOINED, to).to_vec();
        message.resize(relay::HEADER_LEN + length, 0xda);
        message
    };
    // No UDP yet: over TCP.
    let mut sent = message(300);
    assert_eq!(over_tcp(world.frame(a.conn, &mut sent)), Some(b.conn));
    assert_eq!((sent[0], relay::split(&sent)), (RECV_JOINED, Ok((a.id, &[0xda; 300][..]))));

    world.confirm_udp(&mut a);
    world.confirm_udp(&mut b);
    for length in [2, 500, 1_200] {
        assert_eq!(over_udp(world.frame(a.conn, &mut message(length))), Some(b.udp));
        // The worker's judgement is compared with the machine's.
        assert_eq!(over_udp(world.datagram(FIRST, a.udp, &message(length))), Some(b.udp));
    }
    assert_eq!(over_tcp(world.datagram(FIRST, a.udp, &message(1_201))), Some(b.conn));
    assert_eq!(world.frame(a.conn, &mut message(16_001)), Forward::Nowhere);
    // One after another that looks the same but for its type.
    let mut data = message(300);
    data[0] = relay::SEND_DATA;
    world.frame(a.conn, &mut message(300));
    world.frame(a.conn, &mut data);
    assert_eq!(data[0], RECV_DATA);
}
