//! Who stays when a device registers twice: attempts of one boot, other boots, cloned identities; what a new
//! session of the same boot inherits, and how long a registration outlives its TCP connection.

mod base_world;

use base_world::{FIRST, Host, World, addr, ms, over_tcp, over_udp, secs};
use bowline_proto::wire::{
    tcp::{BaseFrame, ErrorCode, NoticeCode},
    udp::NAT_OK_LEN,
};

/// The same device in another process.
fn other_boot(host: &Host, boot: u8) -> Host {
    Host { boot: [boot; 8], attempt: 0, ..host.clone() }
}

#[test]
fn the_higher_attempt_of_one_boot_wins_and_the_loser_hears_error_8() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.register(&mut host);
    let first = host.conn;
    world.register(&mut host);
    assert_eq!(world.error(first).0, ErrorCode::Replaced);
    assert!(world.base.is_registered(host.id));
    assert_eq!(world.base.sizes().cookies, 1, "the loser's cookie is dead");
}

#[test]
fn an_equal_or_lower_attempt_is_the_one_that_is_turned_away() {
    let mut world = World::new();
    let mut host = Host { attempt: 4, ..Host::new(1) };
    world.register(&mut host);
    for attempt in [4, 3] {
        let mut late = Host { attempt, ..host.clone() };
        world.try_register(&mut late);
        assert_eq!(world.error(late.conn).0, ErrorCode::Replaced);
    }
    assert!(!world.closed.contains(&host.conn));
}

#[test]
fn of_two_boots_the_later_arrival_wins() {
    let mut world = World::new();
    let mut old = Host { attempt: 7, ..Host::new(1) };
    world.register(&mut old);
    let mut new = other_boot(&old, 9);
    world.register(&mut new);
    assert_eq!(world.error(old.conn).0, ErrorCode::Replaced);
    assert!(!world.closed.contains(&new.conn));
}

#[test]
fn a_boot_that_comes_back_after_it_was_replaced_is_a_clone_and_the_registered_one_stays() {
    let mut world = World::new();
    let mut old = Host::new(1);
    world.register(&mut old);
    let mut new = other_boot(&old, 9);
    world.register(&mut new);
    world.try_register(&mut old);
    assert_eq!(world.error(old.conn), (ErrorCode::Cloned, 60));
    let frames = world.read(new.conn);
    assert!(matches!(&frames[..], [BaseFrame::Notice(n)] if n.code == NoticeCode::KeyInUse), "{frames:?}");
    assert!(!world.closed.contains(&new.conn));
}

#[test]
fn a_replaced_boot_is_remembered_for_ten_minutes() {
    let mut world = World::new();
    let mut old = Host::new(1);
    world.register(&mut old);
    let mut new = other_boot(&old, 9);
    world.register(&mut new);
    for _ in 0..11 {
        world.advance(secs(55));
        world.info(&mut new);
    }
    world.register(&mut old);
    assert_eq!(world.error(new.conn).0, ErrorCode::Replaced);
}

#[test]
fn a_replaced_boot_may_return_once_the_other_has_left() {
    let mut world = World::new();
    let mut old = Host::new(1);
    world.register(&mut old);
    let mut new = other_boot(&old, 9);
    world.register(&mut new);
    world.base.handle_closed(new.conn, world.now);
    world.register(&mut old);
}

#[test]
fn a_registration_without_udp_ends_with_its_connection() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.register(&mut host);
    world.base.handle_closed(host.conn, world.now);
    assert!(!world.base.is_registered(host.id));
}

#[test]
fn a_registration_with_confirmed_udp_outlives_its_connection_by_35_seconds() {
    let mut world = World::new();
    let mut host = Host::new(1);
    let mut peer = Host::new(2);
    world.join(&mut host);
    world.join(&mut peer);
    world.befriend(&host, &peer);
    world.advance(secs(10));
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    world.base.handle_closed(host.conn, world.now);
    assert_eq!(over_udp(world.data_udp(&peer, host.id, 100)), Some(host.udp));
    world.advance(secs(34));
    assert_eq!(world.told(&peer), [], "peers see nothing of it");
    assert_eq!(over_udp(world.data_udp(&peer, host.id, 100)), Some(host.udp));
    world.advance(secs(1));
    assert!(!world.base.is_registered(host.id));
    let told = world.told(&peer);
    assert!(told.len() == 1 && !told[0].online && told[0].own.is_empty(), "{told:?}");
}

#[test]
fn it_ends_earlier_when_udp_lapses() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.join(&mut host);
    world.advance(secs(30));
    world.base.handle_closed(host.conn, world.now);
    world.advance(ms(4_999));
    assert!(world.base.is_registered(host.id));
    world.advance(ms(1));
    assert!(!world.base.is_registered(host.id));
}

#[test]
fn a_host_that_moves_while_its_connection_is_lost_is_still_here() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.join(&mut host);
    world.base.handle_closed(host.conn, world.now);
    host.udp = addr("198.51.100.1:7000");
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    world.advance(secs(1));
    assert!(world.base.is_registered(host.id));
}

#[test]
fn a_new_session_of_the_same_boot_inherits_everything_and_peers_see_no_change() {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.join(&mut host);
    world.join(&mut peer);
    world.befriend(&host, &peer);

    world.register(&mut host);
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 1_200)), Some(host.udp), "the confirmed leg stays");
    assert_eq!(over_udp(world.data_udp(&host, peer.id, 10)), Some(peer.udp), "the old binding still sends");
    world.request(&host, &peer);
    let told = world.told(&host);
    assert_eq!(told.len(), 1, "a repeated REQUEST-INFO is answered at once");
    assert_eq!((told[0].online, &told[0].own), (true, &peer.own));
    world.info(&mut host);
    world.confirm_udp(&mut host);
    world.advance(secs(6));
    assert_eq!(world.told(&peer), []);
}

#[test]
fn interests_that_a_new_session_does_not_repeat_are_released_after_five_seconds() {
    let mut world = World::new();
    let (mut host, mut kept, mut dropped) = (Host::new(1), Host::new(2), Host::new(3));
    for h in [&mut host, &mut kept, &mut dropped] {
        world.join(h);
    }
    world.befriend(&host, &kept);
    world.befriend(&host, &dropped);
    world.register(&mut host);
    world.request(&host, &kept);
    world.advance(ms(4_999));
    assert_eq!(world.told(&dropped), []);
    world.advance(ms(1));
    let told = world.told(&dropped);
    assert!(told.len() == 1 && !told[0].online);
    assert_eq!(world.told(&kept), []);
}

#[test]
fn inherited_bindings_end_with_the_first_confirmation_under_the_new_cookie() {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.join(&mut host);
    world.join(&mut peer);
    let old = host.udp;
    world.nat_init(&mut host, base_world::SECOND, NAT_OK_LEN).unwrap();
    world.register(&mut host);
    host.udp = addr("198.51.100.1:7000");
    let ok = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert!(!ok.confirmed);
    let second = world.base.sizes().bound_addresses;
    world.nat_confirm(&host, FIRST, &ok).unwrap();
    assert_eq!(world.base.sizes().bound_addresses, second - 1);
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    assert_ne!(host.udp, old);
}

#[test]
fn inherited_bindings_that_are_never_confirmed_anew_end_after_35_seconds() {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.join(&mut host);
    world.join(&mut peer);
    world.register(&mut host);
    // Refreshed, but not confirmed under the new cookie.
    world.advance(secs(20));
    world.info(&mut host);
    assert!(!world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap().confirmed);
    world.advance(ms(14_999));
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    world.advance(ms(1));
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn));
}

#[test]
fn a_new_boot_inherits_nothing_and_its_peers_are_not_told_that_it_is_gone() {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.join(&mut host);
    world.join(&mut peer);
    world.befriend(&host, &peer);
    world.advance(secs(1));
    let mut new = other_boot(&host, 9);
    new.own = vec![addr("10.9.9.9:1")];
    world.register(&mut new);
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(new.conn));
    world.info(&mut new);
    // It is told at once who wants it, and asks back.
    world.request(&new, &peer);
    let told = world.told(&peer);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].online, &told[0].own), (true, &new.own));
}

#[test]
fn a_new_boot_that_does_not_ask_back_is_gone_for_its_peers() {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.join(&mut host);
    world.join(&mut peer);
    world.befriend(&host, &peer);
    world.register(&mut other_boot(&host, 9));
    world.advance(secs(1));
    let told = world.told(&peer);
    assert!(told.len() == 1 && !told[0].online, "{told:?}");
}
