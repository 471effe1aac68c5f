//! Issue row 5, from the base's side: NAT-INIT, NAT-OK, NAT-CONFIRM; a binding per UDP address, what is refused,
//! and what lapses when.

mod base_world;

use std::{collections::BTreeSet, net::SocketAddr};

use base_world::{FIRST, Host, SECOND, World, addr, ms, over_tcp, over_udp, secs};
use bowline_proto::{
    base::SourceKey,
    wire::udp::{NAT_OK_LEN, NAT_UNKNOWN, NatConfirm, NatInit, NatOk, PADDED_LEN},
};

/// A registered host and a peer that can send to it over TCP.
fn two() -> (World, Host, Host) {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.register(&mut host);
    world.register(&mut peer);
    (world, host, peer)
}

#[test]
fn the_handshake_moves_relayed_data_to_udp_and_nothing_less_does() {
    let (mut world, mut host, peer) = two();
    let ok = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!((ok.cookie, ok.seq, ok.seen, ok.confirmed), (host.cookie, 1, host.udp, false));
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn));
    let ok = world.nat_confirm(&host, FIRST, &ok).unwrap();
    assert!(ok.confirmed);
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    assert!(world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap().confirmed);
}

#[test]
fn a_repeated_nat_confirm_is_answered_again() {
    let (mut world, mut host, _) = two();
    let ok = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    for _ in 0..3 {
        assert!(world.nat_confirm(&host, FIRST, &ok).unwrap().confirmed);
    }
}

#[test]
fn a_replayed_nat_init_moves_nothing() {
    let (mut world, mut host, peer) = two();
    let captured = world.nat_init_bytes(&mut host, FIRST, NAT_OK_LEN);
    let ok = world.exchange(FIRST, host.udp, &captured).unwrap();
    world.nat_confirm(&host, FIRST, &ok).unwrap();
    assert_eq!(world.exchange(FIRST, addr("203.0.113.66:6"), &captured), None);
    assert!(world.datagrams.is_empty());
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    assert_eq!(world.base.counters().nat_init_replayed, 1);
}

#[test]
fn a_nat_init_that_was_answered_without_a_look_at_its_signature_cannot_be_replayed_from_elsewhere() {
    let (mut world, mut host, peer) = two();
    world.confirm_udp(&mut host);
    let keepalive = world.nat_init_bytes(&mut host, FIRST, NAT_OK_LEN);
    assert!(world.exchange(FIRST, host.udp, &keepalive).is_some());
    assert_eq!(world.unverified(), 1);

    assert_eq!(world.exchange(FIRST, addr("203.0.113.66:6"), &keepalive), None);
    assert!(world.datagrams.is_empty());
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    assert!(world.nat_init(&mut host, FIRST, NAT_OK_LEN).is_some(), "the next one counts");
}

#[test]
fn a_replayed_nat_init_moves_nothing_even_when_the_binding_is_gone() {
    let (mut world, mut host, _) = two();
    let captured = world.nat_init_bytes(&mut host, FIRST, NAT_OK_LEN);
    world.exchange(FIRST, host.udp, &captured).unwrap();
    for _ in 0..3 {
        world.advance(secs(30));
        world.info(&mut host);
    }
    assert_eq!(world.base.sizes().bound_addresses, 0);
    assert_eq!(world.exchange(FIRST, addr("203.0.113.66:6"), &captured), None);
    assert_eq!(world.base.sizes().bound_addresses, 0);
}

#[test]
fn a_nat_init_for_one_socket_is_worth_nothing_at_another() {
    let (mut world, mut host, _) = two();
    let for_first = world.nat_init_bytes(&mut host, FIRST, NAT_OK_LEN);
    assert_eq!(world.exchange(SECOND, host.udp, &for_first), None);
    assert_eq!(world.base.counters().nat_init_bad_signature, 1);
    assert!(world.exchange(FIRST, host.udp, &for_first).is_some(), "nothing was set by the failure");
}

#[test]
fn a_nat_init_signed_by_another_or_altered_or_for_another_base_is_dropped() {
    let (mut world, mut host, peer) = two();
    let init = NatInit { cookie: host.cookie, seq: 9, own: host.own.clone() };
    let by_another = init.encode(&peer.key, world.id, 0, NAT_OK_LEN);
    let elsewhere = init.encode(&host.key, peer.id, 0, NAT_OK_LEN);
    let mut altered = world.nat_init_bytes(&mut host, FIRST, NAT_OK_LEN);
    altered[20] ^= 1;
    for forged in [by_another, elsewhere, altered] {
        assert_eq!(world.exchange(FIRST, host.udp, &forged), None);
    }
    assert_eq!(world.base.counters().nat_init_bad_signature, 3);
    assert_eq!(world.base.sizes().bound_addresses, 0);
}

#[test]
fn the_padding_of_a_nat_init_is_not_signed_and_comes_back_at_most() {
    let (mut world, mut host, _) = two();
    let mut padded = world.nat_init_bytes(&mut host, FIRST, PADDED_LEN);
    *padded.last_mut().unwrap() = 0xff;
    world.datagram(FIRST, host.udp, &padded);
    assert_eq!(world.datagrams.pop().unwrap().2.len(), PADDED_LEN);
    let bare = world.nat_init_bytes(&mut host, FIRST, 0);
    world.datagram(FIRST, host.udp, &bare);
    assert_eq!(world.datagrams.pop().unwrap().2.len(), NAT_OK_LEN);
}

#[test]
fn a_host_that_moves_is_moved_by_nat_init_and_its_old_address_is_dead_at_once() {
    let (mut world, mut host, peer) = two();
    world.confirm_udp(&mut host);
    let old = host.clone();
    host.udp = addr("198.51.100.1:7000");
    let ok = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(ok.seen, host.udp);
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn), "not confirmed there yet");
    assert_eq!(over_tcp(world.data_udp(&host, peer.id, 10)), Some(peer.conn), "upwards it works");
    assert_eq!(over_tcp(world.data_udp(&old, peer.id, 10)), None);
    world.nat_confirm(&host, FIRST, &ok).unwrap();
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
}

#[test]
fn what_was_bound_before_a_host_registered_again_elsewhere_is_told_to_nobody() {
    let (mut world, mut host, peer) = two();
    world.befriend(&host, &peer);
    for _ in 0..3 {
        world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
        world.nat_init(&mut host, SECOND, NAT_OK_LEN).unwrap();
    }
    let old = host.udp;
    world.register(&mut host);
    world.request(&host, &peer);
    host.udp = addr("198.51.100.1:7000");
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    world.advance(secs(1));

    let told = world.told(&peer);
    let last = told.last().expect("a move is told");
    assert!(last.online);
    assert!(last.reflexive.contains(&host.udp) && !last.reflexive.contains(&old), "{:?}", last.reflexive);
}

#[test]
fn nat_confirms_that_prove_nothing_are_refused() {
    let (mut world, mut host, peer) = two();
    let ok = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    let confirm =
        |ok: &NatOk| NatConfirm { cookie: ok.cookie, seq: ok.seq, challenge: ok.challenge }.encode();
    let guessed = confirm(&NatOk { challenge: [1; 8], ..ok });
    let ahead = confirm(&NatOk { seq: ok.seq + 1, ..ok });
    let stranger = confirm(&NatOk { cookie: [9; 8], ..ok });
    for (via, from, datagram) in [
        (FIRST, host.udp, &guessed),
        (FIRST, host.udp, &ahead),
        (FIRST, host.udp, &stranger),
        (SECOND, host.udp, &confirm(&ok)),
        (FIRST, addr("203.0.113.66:6"), &confirm(&ok)),
    ] {
        assert_eq!(world.exchange(via, from, datagram), None);
    }
    assert_eq!(world.base.counters().nat_confirm_refused, 5);
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn));
}

#[test]
fn a_challenge_that_was_heard_at_one_address_confirms_no_other() {
    let (mut world, mut host, peer) = two();
    let mine = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    // Whoever can forge a source names a victim's address, and never hears what the base answers there.
    host.udp = addr("203.0.113.66:6");
    let unheard = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    let guess = NatOk { challenge: mine.challenge, ..unheard };
    assert_eq!(world.nat_confirm(&host, FIRST, &guess), None);
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn));
}

#[test]
fn small_data_over_tcp_says_that_udp_does_not_come_through_unless_udp_has_just_spoken() {
    for (silent_for, length, goes_on) in [(ms(900), 100, true), (secs(2), 501, true), (secs(2), 100, false)] {
        let (mut world, mut host, peer) = two();
        world.confirm_udp(&mut host);
        world.advance(silent_for);
        let _ = world.data_tcp(&host, peer.id, length);
        assert_eq!(
            over_udp(world.data_tcp(&peer, host.id, 10)).is_some(),
            goes_on,
            "{silent_for:?} {length}"
        );
        world.confirm_udp(&mut host);
        assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    }
}

#[test]
fn a_late_nat_confirm_does_not_undo_a_newer_one() {
    let (mut world, mut host, peer) = two();
    let first = world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    let second = world.nat_init(&mut host, SECOND, NAT_OK_LEN).unwrap();
    world.nat_confirm(&host, SECOND, &second).unwrap();
    assert_eq!(world.nat_confirm(&host, FIRST, &first), None);
    let forward = world.data_tcp(&peer, host.id, 10);
    assert!(matches!(forward, bowline_proto::base::Forward::Udp { via, .. } if via == SECOND));
}

#[test]
fn the_base_sends_over_udp_for_35_seconds_after_the_last_sign_from_there() {
    let (mut world, mut host, mut peer) = two();
    world.confirm_udp(&mut host);
    world.advance(secs(25));
    world.info(&mut host);
    world.info(&mut peer);
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    world.advance(ms(34_999));
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    world.advance(ms(1));
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn));
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp), "it needs no new confirmation");
}

#[test]
fn relayed_data_from_a_binding_keeps_it_but_does_not_keep_the_other_direction() {
    let (mut world, mut host, mut peer) = two();
    world.confirm_udp(&mut host);
    for second in 0..80 {
        world.advance(secs(1));
        if second % 25 == 0 {
            world.info(&mut host);
            world.info(&mut peer);
        }
        assert_eq!(over_tcp(world.data_udp(&host, peer.id, 10)), Some(peer.conn));
    }
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn), "each half stands alone");
}

/// A device that two of the base's addresses see at different places (as its IPv4 and IPv6 ones do), and one that it talks with.
fn seen_at_two_places() -> (World, Host, Host, [SocketAddr; 2]) {
    let (mut world, mut host, peer) = two();
    world.confirm_udp(&mut host);
    let places = [host.udp, addr("[2001:db8::1]:7000")];
    host.udp = places[1];
    world.nat_init(&mut host, SECOND, NAT_OK_LEN).unwrap();
    host.udp = places[0];
    world.befriend(&host, &peer);
    (world, host, peer, places)
}

/// Where a peer was told last that the device is.
fn told_places(world: &mut World, peer: &Host) -> BTreeSet<SocketAddr> {
    world.advance(secs(20));
    world.told(peer).last().map(|told| told.reflexive.iter().copied().collect()).unwrap_or_default()
}

#[test]
fn a_device_that_moves_in_both_families_is_told_of_in_both_in_whatever_order_that_shows() {
    for order in [[0, 1], [1, 0]] {
        let (mut world, mut host, peer, _) = seen_at_two_places();
        let places = [addr("203.0.113.7:7001"), addr("[2001:db8::2]:7000")];
        let vias = [FIRST, SECOND];
        let inits: Vec<_> = vias.map(|via| world.nat_init_bytes(&mut host, via, NAT_OK_LEN)).into();
        for at in order {
            assert!(world.exchange(vias[at], places[at], &inits[at]).is_some());
        }
        assert_eq!(told_places(&mut world, &peer), BTreeSet::from(places), "{order:?}");
    }
}

#[test]
fn where_a_device_is_seen_as_before_after_a_move_elsewhere_is_told_again() {
    let (mut world, mut host, peer, places) = seen_at_two_places();
    host.udp = addr("203.0.113.7:7001");
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(
        told_places(&mut world, &peer),
        BTreeSet::from([host.udp]),
        "the other may be of the network that was left"
    );
    let moved = std::mem::replace(&mut host.udp, places[1]);
    world.nat_init(&mut host, SECOND, NAT_OK_LEN).unwrap();
    assert_eq!(told_places(&mut world, &peer), BTreeSet::from([moved, places[1]]));
}

#[test]
fn a_device_that_has_moved_and_registers_again_is_told_of_where_it_is() {
    let (mut world, mut host, peer, places) = seen_at_two_places();
    host.udp = addr("203.0.113.7:7001");
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    let moved = std::mem::replace(&mut host.udp, places[1]);
    world.nat_init(&mut host, SECOND, NAT_OK_LEN).unwrap();
    world.register(&mut host);
    assert_eq!(host.number, 0, "numbers begin anew");
    world.request(&host, &peer);
    world.info(&mut host);
    world.nat_init(&mut host, SECOND, NAT_OK_LEN).unwrap();
    host.udp = moved;
    world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(told_places(&mut world, &peer), BTreeSet::from([moved, places[1]]));
}

#[test]
fn a_binding_silent_for_60_seconds_is_gone() {
    let (mut world, mut host, peer) = two();
    world.confirm_udp(&mut host);
    world.advance(secs(30));
    world.info(&mut host);
    world.advance(ms(29_999));
    assert_eq!(world.base.sizes().bound_addresses, 1);
    world.advance(ms(1));
    assert_eq!(world.base.sizes().bound_addresses, 0);
    assert_eq!(over_tcp(world.data_udp(&host, peer.id, 10)), None);
}

#[test]
fn a_binding_lives_from_messages_that_only_who_follows_the_routes_has_seen() {
    let (mut world, mut host, _) = two();
    world.confirm_udp(&mut host);
    world.advance(secs(30));
    world.info(&mut host);
    let source = SourceKey::new(FIRST.socket, host.udp);
    world.copy.tables().heard.insert(*source.as_bytes(), world.now);
    world.advance(ms(59_999));
    assert_eq!(world.base.sizes().bound_addresses, 1);
    world.advance(ms(1));
    assert_eq!(world.base.sizes().bound_addresses, 0);
}

#[test]
fn an_unchanged_nat_init_close_to_the_last_is_not_verified_but_keeps_the_binding() {
    let (mut world, mut host, _) = two();
    world.confirm_udp(&mut host);
    let verified = world.base.counters().nat_init_verified;
    for _ in 0..16 {
        assert!(world.nat_init(&mut host, FIRST, NAT_OK_LEN).is_some());
    }
    assert_eq!(world.base.counters().nat_init_verified, verified);
    assert_eq!(world.unverified(), 16);
    assert!(world.nat_init(&mut host, FIRST, NAT_OK_LEN).is_some());
    assert_eq!(world.base.counters().nat_init_verified, verified + 1, "the seventeenth is");
}

#[test]
fn verifications_are_limited_to_a_burst_of_eight_and_one_a_second_per_cookie() {
    let (mut world, mut host, _) = two();
    let mut answered = 0;
    for n in 0..20 {
        host.udp = addr(&format!("198.51.100.{n}:7000"));
        answered += usize::from(world.nat_init(&mut host, FIRST, NAT_OK_LEN).is_some());
    }
    assert_eq!(answered, 8);
    assert_eq!(world.base.counters().nat_init_over_rate, 12);
    world.advance(secs(1));
    assert!(world.nat_init(&mut host, FIRST, NAT_OK_LEN).is_some());
    assert!({
        host.udp = addr("198.51.100.99:7000");
        world.nat_init(&mut host, FIRST, NAT_OK_LEN).is_none()
    });
}

#[test]
fn an_address_bound_to_another_device_changes_owner_only_by_nat_confirm() {
    let (mut world, mut host, mut thief) = two();
    world.confirm_udp(&mut host);
    thief.udp = host.udp;
    let ok = world.nat_init(&mut thief, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(over_udp(world.data_tcp(&thief, host.id, 10)), Some(host.udp));
    let mut message = base_world::send_data(thief.id, 10);
    world.base.handle_datagram(FIRST, host.udp, &mut message, world.now);
    assert_eq!(message[1..15], *host.id.as_bytes(), "what comes from there is still the owner's");

    world.nat_confirm(&thief, FIRST, &ok).unwrap();
    assert_eq!(over_tcp(world.data_tcp(&thief, host.id, 10)), Some(host.conn), "the loser is on TCP");
    assert_eq!(over_udp(world.data_tcp(&host, thief.id, 10)), Some(host.udp));
}

#[test]
fn an_address_whose_owner_has_lapsed_is_free() {
    let (mut world, mut host, mut heir) = two();
    world.confirm_udp(&mut host);
    world.base.handle_frame(host.conn, &mut [0x19], world.now);
    heir.udp = host.udp;
    world.nat_init(&mut heir, FIRST, NAT_OK_LEN).unwrap();
    let mut message = base_world::send_data(host.id, 10);
    world.base.handle_datagram(FIRST, heir.udp, &mut message, world.now);
    assert_eq!(world.base.counters().unknown_source, 0);
}

#[test]
fn what_cannot_be_placed_is_answered_with_one_byte_once_a_second() {
    let (mut world, mut host, peer) = two();
    host.cookie = [9; 8];
    let lost = world.nat_init_bytes(&mut host, FIRST, PADDED_LEN);
    world.datagram(FIRST, host.udp, &lost);
    assert_eq!(world.datagrams, [(FIRST, host.udp, vec![NAT_UNKNOWN])]);
    world.datagrams.clear();
    world.data_udp(&host, peer.id, 10);
    assert_eq!(world.datagrams, [], "once a second");
    world.advance(secs(1));
    world.data_udp(&host, peer.id, 10);
    assert_eq!(world.datagrams, [(FIRST, host.udp, vec![NAT_UNKNOWN])]);
}

#[test]
fn the_cookie_of_a_replaced_session_is_dead_on_udp() {
    let (mut world, mut host, _) = two();
    let old = host.clone();
    world.register(&mut host);
    let mut stale = Host { cookie: old.cookie, ..host.clone() };
    let bytes = world.nat_init_bytes(&mut stale, FIRST, NAT_OK_LEN);
    world.datagrams.clear();
    world.datagram(FIRST, host.udp, &bytes);
    assert_eq!(world.datagrams[0].2, [NAT_UNKNOWN]);
}

#[test]
fn what_comes_from_port_0_is_not_looked_at() {
    let (mut world, mut host, _) = two();
    let init = world.nat_init_bytes(&mut host, FIRST, NAT_OK_LEN);
    assert_eq!(world.exchange(FIRST, addr("203.0.113.66:0"), &init), None);
    assert!(world.datagrams.is_empty());
    assert_eq!(world.base.sizes().bound_addresses, 0);
}
