//! What whoever reads a connection does with its frames beside the machine: nobody can tell which of them it was. (Every frame of all tests
//! of the base is judged so as well, and compared with what the machine does.)

mod base_world;

use base_world::{FIRST, Host, World, ms, over_tcp, over_udp, secs, send_data};
use bowline_proto::{
    base::{BaseConfig, Forward, Step, Ticket},
    bucket::Rate,
    wire::tcp::{self, BaseFrame, ErrorCode, Info},
};

fn two() -> (World, Host, Host) {
    let mut world = World::new();
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    for host in [&mut a, &mut b] {
        world.register(host);
        world.info(host);
        world.read(host.conn);
    }
    (world, a, b)
}

/// What the reader of a host's connection would do with a message to a device, of so many bytes.
fn judge(world: &World, host: &Host, to: &Host, length: usize) -> Option<Step> {
    world.judge_frame(host.conn, &mut send_data(to.id, length))
}

fn info(number: u64, host: &Host) -> Vec<u8> {
    let mut out = Vec::new();
    Info { number, master_key: host.master, own: host.own.clone() }.write(&mut out);
    out.split_off(2)
}

#[test]
fn messages_to_whom_the_table_knows_go_on_and_all_others_are_the_machines() {
    let (mut world, a, mut b) = two();
    let to_b = Step::Forward(Forward::Tcp { conn: b.conn, ticket: Ticket { from: a.id, to: b.id } });
    assert_eq!(judge(&world, &a, &b, 1_000), Some(to_b));
    assert_eq!(judge(&world, &a, &Host::new(3), 1_000), Some(Step::Machine), "nobody there");
    assert_eq!(judge(&world, &a, &b, 16_001), Some(Step::Machine), "too large");
    assert_eq!(world.judge_frame(a.conn, &mut send_data(b.id, 0)[..10]), Some(Step::Machine), "cut");
    world.confirm_udp(&mut b);
    let over_udp = Step::Forward(Forward::Udp { via: FIRST, to: b.udp });
    assert_eq!(judge(&world, &a, &b, 1_200), Some(over_udp));
    assert_eq!(judge(&world, &a, &b, 1_201), Some(to_b));
    world.advance(secs(34));
    for host in [&a, &b] {
        assert!(matches!(world.judge_frame(host.conn, &mut info(9, host)), Some(Step::Pong(9))));
    }
    world.advance(secs(1));
    assert_eq!(judge(&world, &a, &b, 1_200), Some(to_b), "its leg on UDP is no longer fresh");
}

#[test]
fn a_connection_that_is_over_or_lingers_speaks_for_nobody() {
    let (mut world, mut a, mut b) = two();
    let before = a.conn;
    world.register(&mut a);
    assert_eq!(world.judge_frame(before, &mut send_data(b.id, 1)), None, "replaced by its own boot");
    assert!(matches!(judge(&world, &a, &b, 1), Some(Step::Forward(_))));

    world.confirm_udp(&mut b);
    world.base.handle_closed(b.conn, world.now);
    world.flush();
    assert_eq!(judge(&world, &b, &a, 1), None, "lost, and UDP vouches for its device");
    assert_eq!(judge(&world, &a, &b, 1_201), Some(Step::Machine), "no way to it");
    world.register(&mut b);
    assert!(matches!(judge(&world, &b, &a, 1), Some(Step::Forward(_))));

    world.write(a.conn, tcp::write_leave);
    assert_eq!(judge(&world, &a, &b, 1), None, "it has left");
    assert_eq!(judge(&world, &b, &a, 1), Some(Step::Machine));
    let silent = world.connect(a.tcp);
    assert_eq!(world.judge_frame(silent, &mut send_data(b.id, 1)), None, "not registered");
}

#[test]
fn infos_with_nothing_new_keep_a_device_and_those_with_something_new_are_the_machines() {
    let (mut world, mut a, b) = two();
    for _ in 0..5 {
        world.advance(secs(59));
        world.info(&mut a);
        assert_eq!(world.read(a.conn), [BaseFrame::Pong(a.number)]);
    }
    assert_eq!(world.error(b.conn).0, ErrorCode::Silent, "it said nothing for 60 s");
    world.advance(secs(60));
    assert_eq!(world.error(a.conn).0, ErrorCode::Silent);

    let (world, mut a, _) = two();
    assert_eq!(world.judge_frame(a.conn, &mut info(7, &a)), Some(Step::Pong(7)));
    let master = std::mem::replace(&mut a.master, [0xaa; 16]);
    assert_eq!(world.judge_frame(a.conn, &mut info(8, &a)), Some(Step::Machine), "another key");
    a.master = master;
    a.own.clear();
    assert_eq!(world.judge_frame(a.conn, &mut info(9, &a)), Some(Step::Machine), "other addresses");
}

#[test]
fn an_info_that_was_answered_beside_the_machine_outdates_older_ones() {
    let (mut world, mut a, b) = two();
    world.befriend(&a, &b);
    a.number = 20;
    world.info(&mut a);
    assert_eq!(world.read(a.conn), [BaseFrame::Pong(21)]);
    a.own.clear();
    a.number = 10;
    world.info(&mut a);
    assert_eq!(world.read(a.conn), [BaseFrame::Pong(11)]);
    assert_eq!(world.told(&b), [], "what came with a lower number does not count");
    a.number = 30;
    world.info(&mut a);
    assert_eq!(world.told(&b).len(), 1);
}

#[test]
fn infos_over_the_rate_of_frames_are_the_machines_to_refuse() {
    let frame_rate = Rate { burst: 3, every: secs(1) };
    let mut world = World::with(BaseConfig { frame_rate, ..BaseConfig::default() });
    let mut a = Host::new(1);
    world.register(&mut a);
    for _ in 0..5 {
        world.info(&mut a);
    }
    let frames = world.read(a.conn);
    let pongs = frames.iter().filter(|frame| matches!(frame, BaseFrame::Pong(_))).count();
    assert_eq!((pongs, world.base.counters().frames_over_rate), (3, 2));
    assert!(matches!(frames.last(), Some(BaseFrame::Notice(_))));
    world.advance(secs(1));
    world.info(&mut a);
    assert_eq!(world.read(a.conn), [BaseFrame::Pong(a.number)]);
}

#[test]
fn a_small_message_after_udp_was_silent_is_the_machines_and_later_ones_are_not() {
    let (mut world, mut a, b) = two();
    world.confirm_udp(&mut a);
    assert!(matches!(judge(&world, &a, &b, 100), Some(Step::Forward(_))), "UDP has just spoken");
    world.advance(ms(1_000));
    assert!(
        matches!(judge(&world, &a, &b, 501), Some(Step::Forward(_))),
        "too large to have been meant for UDP"
    );
    assert_eq!(judge(&world, &a, &b, 500), Some(Step::Machine));
    assert_eq!(over_tcp(world.data_tcp(&a, b.id, 500)), Some(b.conn));
    assert!(matches!(judge(&world, &a, &b, 500), Some(Step::Forward(_))), "it goes over TCP now");
    assert_eq!(over_udp(world.data_tcp(&b, a.id, 100)), None);
}

#[test]
fn what_a_device_may_have_relayed_is_one_budget_whoever_counts() {
    let mut world = World::with(BaseConfig { relay_messages: Some(10), ..BaseConfig::default() });
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.register(&mut a);
    world.register(&mut b);
    for n in 0..10 {
        if n % 2 == 0 {
            assert!(matches!(judge(&world, &a, &b, 100), Some(Step::Forward(_))));
        } else {
            assert!(over_tcp(world.data_tcp(&a, b.id, 100)).is_some());
        }
    }
    let ticket = Ticket { from: a.id, to: b.id };
    assert_eq!(judge(&world, &a, &b, 100), Some(Step::OverRate(ticket)));
    assert_eq!(judge(&world, &a, &Host::new(3), 100), Some(Step::Machine), "nothing is taken for nobody");
    assert_eq!(world.data_tcp(&a, b.id, 100), Forward::Nowhere);
}

#[test]
fn messages_that_look_the_same_go_the_same_way_within_one_block_and_not_beyond() {
    let (mut world, a, mut b) = two();
    let routes = world.base.routes();
    let speaker = world.speaker(a.conn);
    let mut talk = routes.talk(&speaker, world.now).unwrap();
    let mut other = Host::new(3);
    for to in [&b, &b, &other, &b] {
        let mut message = send_data(to.id, 700);
        match talk.judge(&mut message) {
            Step::Forward(Forward::Tcp { conn, ticket }) => {
                assert_eq!((conn, ticket, to.id), (b.conn, Ticket { from: a.id, to: b.id }, b.id));
                assert_eq!(message[1..15], *a.id.as_bytes());
            }
            step => assert_eq!((step, to.id, message), (Step::Machine, other.id, send_data(other.id, 700))),
        }
    }
    drop(talk);
    world.register(&mut other);
    world.confirm_udp(&mut b);
    let over_udp = Step::Forward(Forward::Udp { via: FIRST, to: b.udp });
    assert_eq!(judge(&world, &a, &b, 700), Some(over_udp));
    assert!(matches!(judge(&world, &a, &other, 700), Some(Step::Forward(Forward::Tcp { .. }))));
}

#[test]
fn one_that_looks_the_same_and_is_longer_than_udp_carries_goes_over_tcp() {
    let (mut world, a, mut b) = two();
    world.confirm_udp(&mut b);
    let (routes, speaker) = (world.base.routes(), world.speaker(a.conn));
    let mut talk = routes.talk(&speaker, world.now).unwrap();
    let over_udp = Step::Forward(Forward::Udp { via: FIRST, to: b.udp });
    let over_tcp = Step::Forward(Forward::Tcp { conn: b.conn, ticket: Ticket { from: a.id, to: b.id } });
    for (length, way) in [(1_200, over_udp), (1_201, over_tcp), (1_200, over_udp), (100, over_udp)] {
        assert_eq!(talk.judge(&mut send_data(b.id, length)), way, "{length} bytes");
    }
}

#[test]
fn messages_that_look_the_same_are_each_counted_where_a_device_has_a_budget() {
    let mut world = World::with(BaseConfig { relay_messages: Some(10), ..BaseConfig::default() });
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.register(&mut a);
    world.register(&mut b);
    let (routes, speaker) = (world.base.routes(), world.speaker(a.conn));
    let mut talk = routes.talk(&speaker, world.now).unwrap();
    let mut judge = || talk.judge(&mut send_data(b.id, 100));
    assert_eq!((0..10).filter(|_| matches!(judge(), Step::Forward(_))).count(), 10);
    assert_eq!(judge(), Step::OverRate(Ticket { from: a.id, to: b.id }));
}
