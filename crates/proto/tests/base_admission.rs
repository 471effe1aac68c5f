//! Who may be here at all: a list that changes while devices are here, and a shell that is asked about the others.

mod base_world;

use std::time::Instant;

use base_world::{Host, World, addr, ms, secs};
use bowline_proto::{
    base::{Answer, BaseConfig},
    bucket::Rate,
    wire::tcp::{self, BaseFrame, ErrorCode, NoticeCode, UnreachableReason},
};

fn asking() -> World {
    World::with(BaseConfig { ask: true, ..BaseConfig::default() })
}

#[test]
fn a_device_that_is_taken_off_the_list_is_sent_away_with_error_4_and_its_peers_are_told() {
    let mut world = World::new();
    let (mut a, mut b, mut c) = (Host::new(1), Host::new(2), Host::new(3));
    for host in [&mut a, &mut b, &mut c] {
        world.join(host);
    }
    world.befriend(&a, &b);
    let (id, conn) = (b.id, b.conn);
    assert_eq!(world.base.set_allow(Some([a.id, c.id].into()), world.now), 1);
    world.flush();
    assert_eq!(world.error(conn).0, ErrorCode::NotAllowed);
    let told = world.told(&a);
    assert!(matches!(&told[..], [gone] if gone.device == id && !gone.online), "{told:?}");
    assert_eq!(world.base.sizes().devices, 2);
    // Back on the list, it is welcome again.
    assert_eq!(world.base.set_allow(None, world.now), 0);
    world.register(&mut b);
}

#[test]
fn a_device_whose_connection_is_lost_goes_from_the_list_too() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.join(&mut host);
    world.base.handle_closed(host.conn, world.now);
    assert!(world.base.is_registered(host.id), "UDP vouches for it");
    assert_eq!(world.base.set_allow(Some([].into()), world.now), 1);
    let sizes = world.base.sizes();
    assert_eq!((sizes.devices, sizes.bound_addresses, sizes.cookies), (0, 0, 0));
}

#[test]
fn the_shell_is_asked_once_the_signature_holds_and_its_answer_decides() {
    for (answer, code) in [
        (Answer::Allowed, None),
        (Answer::Refused, Some(ErrorCode::NotAllowed)),
        (Answer::Unknown, Some(ErrorCode::Busy)),
    ] {
        let mut world = asking();
        let mut host = Host::new(1);
        world.try_register(&mut host);
        assert_eq!(world.asked, [(host.conn, host.id)]);
        assert_eq!(world.read(host.conn), [], "nothing is told before the answer");
        assert!(!world.base.is_registered(host.id));
        world.base.handle_answer(host.conn, answer, world.now);
        world.flush();
        match code {
            None => assert!(matches!(world.read(host.conn)[..], [BaseFrame::Registered(_)])),
            Some(code) => assert_eq!(world.error(host.conn).0, code),
        }
        assert_eq!(world.base.is_registered(host.id), code.is_none());
        assert_eq!(world.base.sizes().asked, 0);
    }
}

#[test]
fn nobody_is_asked_about_a_device_on_the_list_or_a_signature_that_does_not_hold() {
    let (mut listed, mut forger) = (Host::new(1), Host::new(2));
    let config = BaseConfig { ask: true, allow: Some([listed.id].into()), ..BaseConfig::default() };
    let mut world = World::with(config);
    world.register(&mut listed);
    forger.conn = world.connect(forger.tcp);
    world.cookie(forger.conn);
    let (id, conn) = (world.id, forger.conn);
    world.write(conn, |out| forger.register().write(out, &forger.key, id, &[0; 8]));
    assert_eq!(world.error(conn).0, ErrorCode::Signature);
    assert_eq!(world.asked, []);
}

#[test]
fn who_is_asked_about_waits_within_the_bounds_of_unfinished_connections() {
    let mut world = World::with(BaseConfig { ask: true, max_unfinished: 3, ..BaseConfig::default() });
    let mut hosts: Vec<Host> = (1..=5).map(Host::new).collect();
    for host in &mut hosts {
        world.try_register(host);
    }
    assert_eq!((world.base.sizes().asked, world.base.sizes().unfinished), (3, 3));
    assert_eq!(world.error(hosts[0].conn).0, ErrorCode::Busy);
    // An answer that comes too late means nothing; without any, patience ends.
    world.base.handle_answer(hosts[0].conn, Answer::Allowed, world.now);
    assert!(!world.base.is_registered(hosts[0].id));
    world.advance(secs(10));
    assert_eq!(world.error(hosts[4].conn).0, ErrorCode::Silent);
    assert_eq!((world.base.sizes().asked, world.base.sizes().connections), (0, 0));
}

#[test]
fn an_answer_finds_the_base_full_if_others_came_first() {
    let mut world = World::with(BaseConfig { ask: true, max_devices: 1, ..BaseConfig::default() });
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.try_register(&mut a);
    world.try_register(&mut b);
    for conn in [a.conn, b.conn] {
        world.base.handle_answer(conn, Answer::Allowed, world.now);
    }
    world.flush();
    assert!(world.base.is_registered(a.id));
    assert_eq!(world.error(b.conn).0, ErrorCode::Busy);
}

#[test]
fn without_memory_newcomers_get_error_6_and_those_here_may_return() {
    let mut world = World::new();
    let (mut here, mut new) = (Host::new(1), Host::new(2));
    world.register(&mut here);
    world.base.set_short_of_memory(true);
    world.register(&mut here);
    world.try_register(&mut new);
    assert_eq!(world.error(new.conn), (ErrorCode::Busy, 10));
    world.base.set_short_of_memory(false);
    world.register(&mut new);
}

#[test]
fn a_device_over_its_frames_is_told_its_frames_are_dropped_and_it_may_still_leave() {
    let frame_rate = Rate { burst: 5, every: ms(100) };
    let mut world = World::with(BaseConfig { frame_rate, ..BaseConfig::default() });
    let mut host = Host::new(1);
    world.register(&mut host);
    for _ in 0..20 {
        world.info(&mut host);
    }
    let frames = world.read(host.conn);
    let pongs = frames.iter().filter(|frame| matches!(frame, BaseFrame::Pong(_))).count();
    let notices: Vec<_> = frames
        .iter()
        .filter_map(|f| if let BaseFrame::Notice(n) = f { Some(n.code) } else { None })
        .collect();
    assert_eq!((pongs, notices), (5, vec![NoticeCode::Limit]));
    assert_eq!(world.base.counters().frames_over_rate, 15);
    // A new connection of the same boot finds the same budget.
    world.register(&mut host);
    world.info(&mut host);
    assert!(!world.read(host.conn).iter().any(|frame| matches!(frame, BaseFrame::Pong(_))));
    world.advance(ms(100));
    world.info(&mut host);
    assert!(matches!(world.read(host.conn)[..], [BaseFrame::Pong(_)]));
    world.write(host.conn, tcp::write_leave);
    assert!(!world.base.is_registered(host.id));
}

#[test]
fn a_device_over_its_messages_is_told_and_they_are_dropped_however_small_they_are() {
    let mut world = World::with(BaseConfig { relay_messages: Some(10), ..BaseConfig::default() });
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.register(&mut a);
    world.join(&mut b);
    let passed = (0..100).filter(|_| base_world::over_udp(world.data_tcp(&a, b.id, 0)).is_some()).count();
    assert_eq!(passed, 10);
    assert_eq!(world.unreachable(&a), [(b.id, UnreachableReason::Rate)]);
    assert_eq!(world.base.counters().dropped_over_rate, 90);
    world.advance(ms(100));
    assert!(base_world::over_udp(world.data_tcp(&a, b.id, 1_000)).is_some());
}

#[test]
fn how_long_changes_wait_before_they_are_told_is_counted() {
    let mut world = World::new();
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    world.join(&mut a);
    world.join(&mut b);
    world.befriend(&a, &b);
    world.advance(secs(1));
    let start = world.now;
    for port in 1..=5 {
        a.own = vec![addr(&format!("10.0.0.1:{port}"))];
        world.info(&mut a);
    }
    world.advance(secs(5));
    let delays = world.base.counters().push_delay;
    assert_eq!(delays.counts, [4, 0, 0, 0, 1, 0, 0, 0, 0], "four at once, the last at the end of the window");
    assert_eq!(delays.sum, ms(250));
    assert!(world.base.devices().all(|device| device.since <= start && device.udp.is_some()));
    let _: Option<Instant> = world.flush();
}
