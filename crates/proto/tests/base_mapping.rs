//! Mapped ports, from the base's side: MAP-OK goes to the IP that asks, where the device is known to receive, and to nobody else.

mod base_world;

use base_world::{FIRST, Host, SECOND, World, addr, secs};
use bowline_proto::wire::udp::{MAP_CHECK_LEN, MAP_OK_LEN, MapCheck, NAT_OK_LEN, map_ok};

const NONCE: [u8; 8] = *b"whatever";

/// A host that is confirmed at [`FIRST`], in a world without datagrams.
fn confirmed() -> (World, Host) {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.register(&mut host);
    world.confirm_udp(&mut host);
    world.datagrams.clear();
    (world, host)
}

fn check(host: &Host, address: &str) -> Vec<u8> {
    MapCheck { cookie: host.cookie, nonce: NONCE, address: addr(address) }.encode()
}

fn mapped(host: &Host, port: u16) -> String {
    std::net::SocketAddr::new(host.udp.ip(), port).to_string()
}

#[test]
fn the_nonce_goes_to_the_address_that_was_asked_about_and_is_shorter_than_the_question() {
    let (mut world, host) = confirmed();
    let (question, there) = (check(&host, &mapped(&host, 40_123)), mapped(&host, 40_123));
    world.datagram(FIRST, host.udp, &question);
    assert_eq!(world.datagrams, [(FIRST, addr(&there), map_ok(NONCE))]);
    assert_eq!((question.len(), map_ok(NONCE).len()), (MAP_CHECK_LEN, MAP_OK_LEN));
    const { assert!(MAP_OK_LEN < MAP_CHECK_LEN) };
}

#[test]
fn nothing_goes_to_another_ip_nor_to_ports_of_servers_nor_for_anybody_else() {
    let (mut world, host) = confirmed();
    let good = check(&host, &mapped(&host, 40_123));
    let mut strange = good.clone();
    strange[1] ^= 1;
    let (elsewhere, server) = (check(&host, "203.0.113.66:40123"), check(&host, &mapped(&host, 53)));
    for (via, from, question) in [
        (FIRST, host.udp, &elsewhere),
        (FIRST, host.udp, &server),
        (FIRST, host.udp, &strange),
        // From where the device is not bound: another address, another of the base's sockets.
        (FIRST, addr("203.0.113.66:6"), &good),
        (SECOND, host.udp, &good),
    ] {
        world.datagram(via, from, question);
    }
    let sent: Vec<_> = world.datagrams.iter().filter(|(_, _, bytes)| *bytes == map_ok(NONCE)).collect();
    assert!(sent.is_empty(), "{sent:?}");
}

#[test]
fn a_device_gets_four_at_once_and_one_a_second() {
    let (mut world, host) = confirmed();
    let question = check(&host, &mapped(&host, 40_123));
    for _ in 0..10 {
        world.datagram(FIRST, host.udp, &question);
    }
    assert_eq!(world.datagrams.len(), 4);
    world.advance(secs(1));
    for _ in 0..10 {
        world.datagram(FIRST, host.udp, &question);
    }
    assert_eq!(world.datagrams.len(), 5);
}

#[test]
fn who_was_not_heard_to_receive_there_in_this_session_gets_nothing_sent() {
    let (mut world, mut host) = confirmed();
    let sent = |world: &mut World, host: &Host| {
        world.datagrams.clear();
        world.datagram(FIRST, host.udp, &check(host, &mapped(host, 40_123)));
        world.datagrams.len()
    };
    assert_eq!(sent(&mut world, &host), 1);
    // A NAT-INIT shows that somebody sends from there, or forges it.
    host.udp = addr("203.0.113.66:50000");
    let ok = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(sent(&mut world, &host), 0);
    world.nat_confirm(&host, FIRST, &ok).unwrap();
    assert_eq!(sent(&mut world, &host), 1);
    // The next session of it inherits the binding, and has to show it again.
    world.register(&mut host);
    assert_eq!(sent(&mut world, &host), 0);
    let ok = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(sent(&mut world, &host), 0);
    world.nat_confirm(&host, FIRST, &ok).unwrap();
    assert_eq!(sent(&mut world, &host), 1);
}
