//! Issue row 9, from the base's side: who learns what of whom. A stranger cannot tell a refusal from an absence.

mod base_world;

use std::net::SocketAddr;

use base_world::{FIRST, Host, SECOND, World, addr, ms, secs};
use bowline_proto::wire::{
    peer::IntroductionKey,
    tcp::{self, BaseFrame, DeviceAddresses, Info, UnreachableReason},
    udp::NAT_OK_LEN,
};

fn three() -> (World, Host, Host, Host) {
    let mut world = World::new();
    let (mut a, mut b, mut c) = (Host::new(1), Host::new(2), Host::new(3));
    for host in [&mut a, &mut b, &mut c] {
        world.join(host);
    }
    (world, a, b, c)
}

#[test]
fn addresses_are_told_as_soon_as_both_want_each_other_and_not_before() {
    let (mut world, a, b, _) = three();
    world.request(&a, &b);
    assert_eq!(world.told(&a), []);
    assert_eq!(world.read(b.conn), [BaseFrame::Wanted(a.id)]);
    world.request(&b, &a);
    let to = |other: &Host, me: &Host| DeviceAddresses {
        device: other.id,
        online: true,
        joined: false,
        introduction: IntroductionKey::derive(&other.master, me.id),
        reflexive: vec![other.udp],
        own: other.own.clone(),
    };
    assert_eq!(world.told(&a), [to(&b, &a)]);
    assert_eq!(world.told(&b), [to(&a, &b)]);
}

#[test]
fn a_stranger_hears_the_same_of_a_device_that_refuses_and_of_one_that_is_absent() {
    let (mut world, a, b, _) = three();
    let absent = Host::new(99);
    let mut heard = Vec::new();
    for target in [&b, &absent] {
        world.request(&a, target);
        world.request(&a, target);
        for length in [0, 100, 1_200, 5_000, 16_000, 16_001] {
            world.data_tcp(&a, target.id, length);
            world.data_udp(&a, target.id, length);
        }
        // The queue towards the target is full.
        let ticket = bowline_proto::base::Ticket { from: a.id, to: target.id };
        world.base.handle_overflow(ticket, 1, world.now);
        world.release(&a, target);
        world.advance(secs(2));
        let hide = |frame| match frame {
            BaseFrame::Unreachable(id, reason) => format!("unreachable {} {reason:?}", id == target.id),
            other => format!("{other:?}"),
        };
        heard.push(world.read(a.conn).into_iter().map(hide).collect::<Vec<_>>());
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], ["unreachable true TooLarge"]);
}

#[test]
fn a_stranger_hears_the_same_when_the_device_comes_and_goes() {
    let (mut world, a, mut b, _) = three();
    world.request(&a, &b);
    world.write(b.conn, tcp::write_leave);
    world.data_tcp(&a, b.id, 10);
    world.advance(secs(5));
    world.join(&mut b);
    world.advance(secs(5));
    assert_eq!(world.read(a.conn), []);
}

#[test]
fn unreachable_goes_to_whom_the_destination_wanted_when_last_here() {
    let (mut world, a, b, c) = three();
    world.befriend(&a, &b);
    world.write(b.conn, tcp::write_leave);
    world.told(&a);
    for from in [&a, &c] {
        world.data_tcp(from, b.id, 10);
    }
    assert_eq!(world.unreachable(&a), [(b.id, UnreachableReason::NotHere)]);
    assert_eq!(world.unreachable(&c), []);
}

#[test]
fn one_that_is_gone_or_has_released_is_told_as_gone_without_key_and_addresses() {
    let (mut world, a, b, c) = three();
    world.befriend(&a, &b);
    world.befriend(&a, &c);
    world.advance(secs(1));
    world.release(&b, &a);
    assert_eq!(world.told(&a), [DeviceAddresses::gone(b.id)]);
    world.advance(secs(1));
    world.write(c.conn, tcp::write_leave);
    assert_eq!(world.told(&a), [DeviceAddresses::gone(c.id)]);
    world.advance(secs(20));
    assert_eq!(world.told(&a), [], "once");
}

#[test]
fn the_first_changes_are_told_at_once_and_the_next_are_collected_in_windows_that_double() {
    let (mut world, mut a, b, _) = three();
    world.befriend(&a, &b);
    world.advance(secs(1));
    let mut change = |world: &mut World, n: u16| {
        a.own = vec![addr(&format!("10.0.0.1:{n}"))];
        world.info(&mut a);
    };
    // A move is rarely a single change: four pass.
    for n in 11..=14 {
        change(&mut world, n);
        assert_eq!(world.told(&b)[0].own, [addr(&format!("10.0.0.1:{n}"))]);
    }
    change(&mut world, 2);
    change(&mut world, 3);
    world.advance(ms(249));
    assert_eq!(world.told(&b), []);
    world.advance(ms(1));
    let told = world.told(&b);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].own, [addr("10.0.0.1:3")]);
    change(&mut world, 4);
    world.advance(ms(499));
    assert_eq!(world.told(&b), []);
    world.advance(ms(1));
    assert_eq!(world.told(&b).len(), 1);
    world.advance(secs(2));
    change(&mut world, 5);
    assert_eq!(world.told(&b).len(), 1, "after a quiet window at once again");
}

#[test]
fn a_move_on_udp_is_pushed_to_all_interested_without_waiting_for_tcp() {
    let (mut world, mut a, b, c) = three();
    world.befriend(&a, &b);
    world.befriend(&a, &c);
    world.advance(secs(1));
    a.udp = addr("198.51.100.1:7000");
    world.nat_init(&mut a, FIRST, NAT_OK_LEN).unwrap();
    for peer in [&b, &c] {
        let told = world.told(peer);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].reflexive, [a.udp]);
    }
}

/// A device that was shown to receive at its address, and a hundred that talk with it.
fn popular() -> (World, Host, Vec<Host>) {
    let mut world = World::new();
    let mut popular = Host::new(0);
    world.join(&mut popular);
    let mut peers: Vec<Host> = (1..=100).map(Host::new).collect();
    for peer in &mut peers {
        world.register(peer);
        world.befriend(&popular, peer);
    }
    world.advance(secs(15));
    world.info(&mut popular);
    (world, popular, peers)
}

/// How often the peers were told of an address that fits.
fn tellings(world: &mut World, peers: &[Host], fits: impl Fn(SocketAddr) -> bool) -> usize {
    let told = peers.iter().flat_map(|peer| world.told(peer)).flat_map(|told| told.reflexive);
    told.filter(|&address| fits(address)).count()
}

#[test]
fn an_address_at_which_nobody_was_shown_to_receive_is_told_to_64_at_once_and_to_five_a_second() {
    let (mut world, mut liar, peers) = popular();
    let victim = addr("203.0.113.66:53000");
    liar.udp = victim;
    world.nat_init(&mut liar, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(tellings(&mut world, &peers, |a| a == victim), 64);
    world.advance(secs(2));
    assert_eq!(tellings(&mut world, &peers, |a| a == victim), 10);
    world.advance(secs(20));
    assert_eq!(tellings(&mut world, &peers, |a| a == victim), 26, "each once");
}

#[test]
fn whoever_forges_a_new_address_every_second_has_five_told_a_second() {
    let (mut world, mut liar, peers) = popular();
    let mut all = 0;
    for n in 0..120 {
        liar.udp = addr(&format!("203.0.113.{n}:53000"));
        world.nat_init(&mut liar, FIRST, NAT_OK_LEN);
        world.info(&mut liar);
        world.advance(secs(1));
        all += tellings(&mut world, &peers, |a| a.ip().to_string().starts_with("203.0.113."));
    }
    assert!((64..=64 + 5 * 120).contains(&all), "{all}");
}

#[test]
fn once_a_device_was_shown_to_receive_at_an_address_all_are_told_of_it_at_once() {
    let (mut world, mut mover, peers) = popular();
    mover.udp = addr("198.51.100.1:7000");
    let new = mover.udp;
    let ok = world.nat_init(&mut mover, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(tellings(&mut world, &peers, |a| a == new), 64);
    world.nat_confirm(&mover, FIRST, &ok).unwrap();
    assert_eq!(tellings(&mut world, &peers, |a| a == new), 36);
    // Another port of that IP is as good, and so is the IP of its TCP connection.
    for next in ["198.51.100.1:7001", "192.0.2.0:7002"] {
        world.advance(secs(15));
        world.info(&mut mover);
        mover.udp = addr(next);
        world.nat_init(&mut mover, FIRST, NAT_OK_LEN).unwrap();
        assert_eq!(tellings(&mut world, &peers, |a| a == addr(next)), 100, "{next}");
    }
}

#[test]
fn the_list_with_the_highest_number_counts_and_every_info_gets_its_pong() {
    let (mut world, mut a, b, _) = three();
    world.befriend(&a, &b);
    world.advance(secs(1));
    let info = |world: &mut World, number, port| {
        let own = vec![addr(&format!("10.0.0.1:{port}"))];
        world.write(a.conn, |out| Info { number, master_key: [port as u8; 16], own }.write(out));
        assert_eq!(world.read(a.conn), [BaseFrame::Pong(number)]);
        world.advance(secs(2));
    };
    info(&mut world, 50, 5);
    info(&mut world, 40, 4);
    info(&mut world, 50, 6);
    let told = world.told(&b);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].own, [addr("10.0.0.1:5")]);
    assert_eq!(told[0].introduction, IntroductionKey::derive(&[5; 16], b.id));
    // A NAT-INIT with a higher number replaces the list, not the key.
    a.number = 60;
    a.own = vec![addr("10.0.0.1:7")];
    world.nat_init(&mut a, FIRST, NAT_OK_LEN).unwrap();
    let told = world.told(&b);
    assert_eq!(told[0].own, [addr("10.0.0.1:7")]);
    assert_eq!(told[0].introduction, IntroductionKey::derive(&[5; 16], b.id));
}

#[test]
fn wanted_comes_once_per_pair_in_ten_seconds_however_often_one_asks() {
    let (mut world, a, b, _) = three();
    for _ in 0..5 {
        world.request(&a, &b);
        world.release(&a, &b);
    }
    world.request(&a, &b);
    assert_eq!(world.wanted(&b), [a.id]);
    world.advance(ms(9_999));
    assert_eq!(world.wanted(&b), []);
    world.advance(ms(1));
    assert_eq!(world.wanted(&b), [a.id], "what waited comes when it may");
}

#[test]
fn standing_interests_are_told_to_a_device_that_registers() {
    let (mut world, a, b, _) = three();
    let mut late = Host::new(50);
    world.request(&a, &late);
    world.request(&b, &late);
    world.register(&mut late);
    world.try_register(&mut Host::new(51));
    world.request(&late, &a);
    assert_eq!(world.told(&a).len(), 1);
    world.write(late.conn, tcp::write_leave);
    world.release(&b, &late);
    world.try_register(&mut late);
    let wanted = world.wanted(&late);
    assert_eq!(wanted, [a.id]);
}

#[test]
fn a_repeated_request_is_answered_anew() {
    let (mut world, a, b, _) = three();
    world.befriend(&a, &b);
    world.advance(secs(1));
    world.request(&a, &b);
    assert_eq!(world.told(&a).len(), 1);
    assert_eq!(world.told(&b), []);
}

#[test]
fn who_asks_again_and_again_is_told_in_windows_that_double() {
    let (mut world, a, b, _) = three();
    world.befriend(&a, &b);
    world.advance(secs(1));
    for _ in 0..100 {
        world.request(&a, &b);
    }
    assert_eq!(world.told(&a).len(), 4);
    world.advance(ms(250));
    assert_eq!(world.told(&a).len(), 1);
}

#[test]
fn a_newcomer_hears_of_a_device_that_flaps_no_more_often_than_the_others() {
    let (mut world, mut a, b, c) = three();
    world.befriend(&a, &b);
    world.advance(secs(1));
    let mut change = |world: &mut World, n: u16| {
        a.own = vec![addr(&format!("10.0.0.1:{n}"))];
        world.info(&mut a);
        a.clone()
    };
    let a = (1..=5).map(|n| change(&mut world, n)).last().unwrap();
    world.request(&a, &c);
    world.request(&c, &a);
    assert_eq!(world.told(&c).len(), 1);
    change(&mut world, 6);
    assert_eq!(world.told(&c), []);
    world.advance(ms(250));
    assert_eq!(world.told(&c).pop().unwrap().own, [addr("10.0.0.1:6")]);
}

#[test]
fn addresses_that_were_not_heard_since_a_move_are_not_told() {
    let (mut world, mut a, b, _) = three();
    world.befriend(&a, &b);
    let home = a.udp;
    world.nat_init(&mut a, SECOND, NAT_OK_LEN).unwrap();
    world.advance(secs(1));
    world.told(&b);
    // Away from home: the first socket of the base hears of it, the second has not yet.
    a.udp = addr("198.51.100.1:7000");
    world.nat_init(&mut a, FIRST, NAT_OK_LEN).unwrap();
    let told = world.told(&b);
    assert_eq!(told.last().unwrap().reflexive, [a.udp], "not {home}");
}

#[test]
fn oneself_is_not_a_device_to_want() {
    let (mut world, a, ..) = three();
    world.request(&a, &a);
    assert_eq!(world.read(a.conn), []);
    assert_eq!(world.base.sizes().interests, 0);
}
