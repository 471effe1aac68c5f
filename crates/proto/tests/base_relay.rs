//! Which leg carries a relayed message, what is done to its bytes, and what its sender hears when none does.

mod base_world;

use base_world::{FIRST, Host, World, ms, over_tcp, over_udp, secs, send_data};
use bowline_proto::{
    base::{BaseConfig, Forward, Ticket},
    wire::{
        relay::{self, RECV_DATA},
        tcp::{RELEASE_INFO, UnreachableReason},
        udp::NAT_OK_LEN,
    },
};

fn two() -> (World, Host, Host) {
    let mut world = World::new();
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.register(&mut a);
    world.register(&mut b);
    (world, a, b)
}

#[test]
fn a_message_is_rewritten_in_place_and_nothing_else_of_it_changes() {
    let (mut world, a, b) = two();
    let mut message = send_data(b.id, 300);
    let forward = world.frame(a.conn, &mut message);
    assert_eq!(forward, Forward::Tcp { conn: b.conn, ticket: Ticket { from: a.id, to: b.id } });
    assert_eq!(message[0], RECV_DATA);
    assert_eq!(relay::split(&message), Ok((a.id, &[0xda; 300][..])));
}

#[test]
fn small_messages_go_over_a_confirmed_leg_and_full_size_ones_once_that_is_proven() {
    for (padded, limit) in [(NAT_OK_LEN, 500), (bowline_proto::wire::udp::PADDED_LEN, 1_200)] {
        let (mut world, a, mut b) = two();
        world.confirm_udp_with(&mut b, padded);
        for length in [0, 1, limit] {
            assert_eq!(over_udp(world.data_tcp(&a, b.id, length)), Some(b.udp));
        }
        for length in [limit + 1, 16_000] {
            assert_eq!(over_tcp(world.data_tcp(&a, b.id, length)), Some(b.conn));
        }
    }
}

#[test]
fn what_was_proven_holds_for_the_address_it_was_proven_at_only() {
    let (mut world, a, mut b) = two();
    world.confirm_udp(&mut b);
    world.confirm_udp_with(&mut b, NAT_OK_LEN);
    assert_eq!(over_udp(world.data_tcp(&a, b.id, 1_200)), Some(b.udp));
    b.udp.set_port(7_777);
    world.confirm_udp_with(&mut b, NAT_OK_LEN);
    assert_eq!(over_tcp(world.data_tcp(&a, b.id, 1_200)), Some(b.conn));
}

#[test]
fn a_confirmed_seq_whose_nat_ok_was_bare_proves_nothing_of_size() {
    let (mut world, a, mut b) = two();
    world.nat_init(&mut b, FIRST, bowline_proto::wire::udp::PADDED_LEN).unwrap();
    let bare = world.nat_init(&mut b, FIRST, NAT_OK_LEN).unwrap();
    world.nat_confirm(&b, FIRST, &bare).unwrap();
    assert_eq!(over_tcp(world.data_tcp(&a, b.id, 501)), Some(b.conn));
}

#[test]
fn more_than_16000_bytes_are_unreachable_4_for_everyone() {
    let (mut world, a, b) = two();
    assert_eq!(world.data_tcp(&a, b.id, 16_001), Forward::Nowhere);
    assert_eq!(world.unreachable(&a), [(b.id, UnreachableReason::TooLarge)]);
}

#[test]
fn what_no_way_carries_is_unreachable_2_to_those_the_destination_wants() {
    let (mut world, a, mut b) = two();
    world.confirm_udp(&mut b);
    world.befriend(&a, &b);
    world.base.handle_closed(b.conn, world.now);
    assert_eq!(world.data_tcp(&a, b.id, 1_201), Forward::Nowhere);
    assert_eq!(world.unreachable(&a), [(b.id, UnreachableReason::QueueFull)]);
    let mut stranger = Host::new(3);
    world.register(&mut stranger);
    assert_eq!(world.data_tcp(&stranger, b.id, 1_201), Forward::Nowhere);
    assert_eq!(world.unreachable(&stranger), []);
}

#[test]
fn unreachable_comes_once_a_second_a_pair_and_ten_times_a_second_a_host() {
    let (mut world, a, b) = two();
    world.befriend(&a, &b);
    let overflow = |world: &mut World| {
        let ticket = Ticket { from: a.id, to: b.id };
        world.base.handle_overflow(ticket, 1, world.now);
        world.flush();
        world.unreachable(&a).len()
    };
    assert_eq!(overflow(&mut world), 1);
    assert_eq!(overflow(&mut world), 0);
    world.advance(ms(999));
    assert_eq!(overflow(&mut world), 0);
    world.advance(ms(1));
    assert_eq!(overflow(&mut world), 1);

    world.advance(secs(5));
    for n in 0..50 {
        world.data_tcp(&a, Host::new(100 + n).id, 16_001);
    }
    assert_eq!(world.unreachable(&a).len(), 10);
}

#[test]
fn a_device_over_its_rate_is_told_and_its_message_dropped() {
    let mut world = World::with(BaseConfig { relay_rate: Some(64_000), ..BaseConfig::default() });
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.register(&mut a);
    world.register(&mut b);
    let passed = (0..100).filter(|_| over_tcp(world.data_tcp(&a, b.id, 1_000)).is_some()).count();
    assert!((50..=64).contains(&passed), "{passed}");
    assert_eq!(world.unreachable(&a), [(b.id, UnreachableReason::Rate)]);
    world.advance(secs(1));
    assert!(over_tcp(world.data_tcp(&a, b.id, 1_000)).is_some());
}

#[test]
fn a_send_data_without_a_whole_id_ends_a_connection_and_is_dropped_on_udp() {
    let (mut world, a, mut b) = two();
    world.confirm_udp(&mut b);
    assert_eq!(world.datagram(FIRST, b.udp, &send_data(a.id, 0)[..14]), Forward::Nowhere);
    assert_eq!(world.base.counters().malformed_datagrams, 1);
    world.frame(a.conn, &mut send_data(b.id, 0)[..14]);
    assert_eq!(world.error(a.conn).0, bowline_proto::wire::tcp::ErrorCode::Malformed);
}

#[test]
fn frames_that_come_at_once_go_where_they_would_go_one_by_one() {
    // Runs of one destination and size, and everything that ends a run: another size, another destination, nobody, a leg over
    // UDP, a frame that is no message, and a limit.
    for limit in [None, Some(4)] {
        let make = || {
            let mut world = World::with(BaseConfig { relay_messages: limit, ..BaseConfig::default() });
            let [mut a, mut b, mut c] = [1, 2, 3].map(Host::new);
            [&mut a, &mut b, &mut c].into_iter().for_each(|host| drop(world.register(host)));
            world.confirm_udp(&mut c);
            (world, a, b, c)
        };
        let (mut one, a, b, c) = make();
        let (mut other, ..) = make();
        let nobody = Host::new(4).id;
        let mut came: Vec<Vec<u8>> = Vec::new();
        for (to, length) in [(b.id, 300), (b.id, 301), (c.id, 301), (c.id, 900), (nobody, 900), (b.id, 900)] {
            came.extend([(); 3].map(|()| send_data(to, length)));
        }
        let release: Vec<u8> = [&[RELEASE_INFO][..], b.id.as_bytes()].concat();
        came.insert(4, release);
        let singly: Vec<(Forward, Vec<u8>)> = came
            .iter()
            .map(|frame| {
                let mut frame = frame.clone();
                (one.base.handle_frame(a.conn, &mut frame, one.now), frame)
            })
            .collect();
        let mut walk = other.base.frames(a.conn, other.now);
        let together: Vec<(Forward, Vec<u8>)> =
            came.into_iter().map(|mut frame| (walk.handle(&mut frame), frame)).collect();
        assert_eq!(singly, together);
        assert_eq!(one.base.counters(), other.base.counters());
        assert!(one.base.counters().forwarded_tcp >= 4);
    }
}
