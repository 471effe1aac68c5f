//! What a worker decides beside the machine: the routes it reads are the machine's, at once, and whatever else comes is the machine's to
//! judge. (That the two agree about every datagram of the other tests is asserted in `base_world`.)

mod base_world;

use base_world::{FIRST, Host, SECOND, World, ms, secs, send_data};
use bowline_proto::{
    base::{BaseConfig, Forward, Verdict},
    wire::{
        relay::{self, RECV_DATA},
        udp::{NAT_OK_LEN, NatConfirm, PADDED_LEN},
    },
};

fn two_on_udp(config: BaseConfig) -> (World, Host, Host) {
    let mut world = World::with(config);
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    for host in [&mut a, &mut b] {
        world.register(host);
        world.confirm_udp(host);
    }
    (world, a, b)
}

#[test]
fn two_readers_see_a_moved_binding_at_once() {
    let (mut world, a, mut b) = two_on_udp(BaseConfig::default());
    let routes = world.base.routes();
    let (mut one, mut other) = (routes.reader(), routes.reader());
    let old = b.udp;
    for reader in [&mut one, &mut other] {
        let verdict = reader.judge(FIRST, a.udp, &mut send_data(b.id, 100), world.now);
        assert_eq!(verdict, Verdict::Forward { via: FIRST, to: old });
    }
    drop((one, other));
    b.udp.set_port(7_777);
    world.nat_init(&mut b, FIRST, NAT_OK_LEN).unwrap();
    for mut reader in [routes.reader(), routes.reader()] {
        // The old address is dead, the new one not confirmed; what comes from it is taken already.
        assert_eq!(reader.judge(FIRST, a.udp, &mut send_data(b.id, 100), world.now), Verdict::Data);
        assert_eq!(reader.judge(FIRST, old, &mut send_data(a.id, 100), world.now), Verdict::Stranger);
        let verdict = reader.judge(FIRST, b.udp, &mut send_data(a.id, 100), world.now);
        assert_eq!(verdict, Verdict::Forward { via: FIRST, to: a.udp });
    }
    world.confirm_udp(&mut b);
    let verdict = routes.reader().judge(FIRST, a.udp, &mut send_data(b.id, 100), world.now);
    assert_eq!(verdict, Verdict::Forward { via: FIRST, to: b.udp });
}

#[test]
fn a_lapsed_leg_is_left_without_anybody_taking_it_out() {
    let (world, a, b) = two_on_udp(BaseConfig::default());
    let routes = world.base.routes();
    // The machine has not been woken: the leg carries its own end.
    let judge = |after| routes.reader().judge(FIRST, a.udp, &mut send_data(b.id, 1), world.now + after);
    assert_eq!(judge(secs(35) - ms(1)), Verdict::Forward { via: FIRST, to: b.udp });
    assert_eq!(judge(secs(35)), Verdict::Data);
}

#[test]
fn a_message_that_goes_on_is_rewritten_and_anything_else_is_left_as_it_came() {
    let (world, a, b) = two_on_udp(BaseConfig::default());
    let routes = world.base.routes();
    let mut reader = routes.reader();
    let mut message = send_data(b.id, 300);
    assert!(matches!(reader.judge(FIRST, a.udp, &mut message, world.now), Verdict::Forward { .. }));
    assert_eq!(message[0], RECV_DATA);
    assert_eq!(relay::split(&message), Ok((a.id, &[0xda; 300][..])));
    for length in [1_201, 16_000, 16_001] {
        let sent = send_data(b.id, length);
        let mut message = sent.clone();
        assert_eq!(reader.judge(FIRST, a.udp, &mut message, world.now), Verdict::Data);
        assert_eq!(message, sent);
    }
}

#[test]
fn runs_are_recognised_by_sender_socket_destination_and_size() {
    let (mut world, mut a, b) = two_on_udp(BaseConfig::default());
    let mut c = Host::new(3);
    world.register(&mut c);
    world.confirm_udp_with(&mut c, NAT_OK_LEN);
    world.nat_init(&mut a, SECOND, NAT_OK_LEN).unwrap();
    let routes = world.base.routes();
    let mut reader = routes.reader();
    let mut judge = |via, from, to, length| {
        let mut message = send_data(to, length);
        match reader.judge(via, from, &mut message, world.now) {
            Verdict::Forward { to, .. } => Ok((relay::split(&message).unwrap().0, to)),
            verdict => Err(verdict),
        }
    };
    for _ in 0..2 {
        assert_eq!(judge(FIRST, a.udp, b.id, 100), Ok((a.id, b.udp)));
        assert_eq!(judge(FIRST, a.udp, c.id, 500), Ok((a.id, c.udp)));
        assert_eq!(judge(FIRST, a.udp, c.id, 501), Err(Verdict::Data));
        assert_eq!(judge(FIRST, b.udp, c.id, 500), Ok((b.id, c.udp)));
        assert_eq!(judge(SECOND, a.udp, c.id, 500), Ok((a.id, c.udp)));
        assert_eq!(judge(SECOND, b.udp, c.id, 500), Err(Verdict::Stranger));
        assert_eq!(judge(FIRST, a.udp, b.id, 1_200), Ok((a.id, b.udp)));
    }
}

#[test]
fn only_what_knows_a_living_cookie_is_a_handshake() {
    let (mut world, mut a, _) = two_on_udp(BaseConfig::default());
    let routes = world.base.routes();
    let judge_from = |from, datagram: &[u8], world: &World| {
        routes.reader().judge(FIRST, from, &mut datagram.to_vec(), world.now)
    };
    let judge = |datagram: &[u8], world: &World| judge_from(a_address(), datagram, world);
    let (udp, ok) = (a.udp, world.nat_init(&mut a, FIRST, NAT_OK_LEN).unwrap());
    let init = world.nat_init_bytes(&mut a, FIRST, NAT_OK_LEN);
    let confirm = NatConfirm { cookie: a.cookie, seq: ok.seq, challenge: ok.challenge }.encode();
    assert_eq!(judge(&init, &world), Verdict::Handshake);
    world.advance(secs(5));
    assert_eq!(judge(&confirm, &world), Verdict::Refused, "it confirms another address");
    for _ in 0..32 {
        assert_eq!(judge_from(udp, &confirm, &world), Verdict::Handshake);
    }
    assert_eq!(judge_from(udp, &confirm, &world), Verdict::Refused, "again and again");
    world.advance(ms(100));
    assert_eq!(judge_from(udp, &confirm, &world), Verdict::Handshake);
    for (datagram, verdict) in [(&init, Verdict::Stranger), (&confirm, Verdict::Refused)] {
        let mut forged = datagram.clone();
        forged[1] ^= 1;
        assert_eq!(judge(&forged, &world), verdict);
        assert_eq!(judge(&datagram[..40], &world), Verdict::Malformed);
    }
    world.base.handle_frame(a.conn, &mut [bowline_proto::wire::tcp::LEAVE], world.now);
    world.flush();
    assert_eq!(judge(&init, &world), Verdict::Stranger);
}

fn a_address() -> std::net::SocketAddr {
    "192.0.2.200:9".parse().unwrap()
}

#[test]
fn a_budget_is_one_for_all_readers_and_the_machine() {
    // A second's worth, a message of 63 bytes being one unit of 64.
    for (relay_rate, relay_messages) in [(Some(64_000), None), (None, Some(1_000))] {
        let config = BaseConfig { relay_rate, relay_messages, ..BaseConfig::default() };
        let (mut world, a, b) = two_on_udp(config);
        let routes = world.base.routes();
        let mut round = || {
            let mut judged = send_data(b.id, 63);
            let verdict = routes.reader().judge(FIRST, a.udp, &mut judged, world.now);
            let forward = world.base.handle_datagram(FIRST, a.udp, &mut send_data(b.id, 63), world.now);
            let copied = world.copy.relay(FIRST, a.udp, &send_data(b.id, 63), world.now);
            let passed = usize::from(matches!(verdict, Verdict::Forward { .. }))
                + usize::from(matches!(forward, Forward::Udp { .. }))
                + usize::from(copied.is_some());
            assert!(passed > 0 || verdict == Verdict::OverRate { from: a.id, to: b.id });
            passed
        };
        assert_eq!((0..2_000).map(|_| round()).sum::<usize>(), 1_000);
        assert_eq!(round(), 0);
        world.now += ms(100);
        let round = || {
            let copied = world.copy.relay(FIRST, a.udp, &send_data(b.id, 63), world.now).is_some();
            let verdict = routes.reader().judge(FIRST, a.udp, &mut send_data(b.id, 63), world.now);
            usize::from(copied) + usize::from(matches!(verdict, Verdict::Forward { .. }))
        };
        assert_eq!((0..200).map(|_| round()).sum::<usize>(), 100);
        // Nobody else has paid for it.
        assert!(world.copy.relay(FIRST, b.udp, &send_data(a.id, 63), world.now).is_some());
    }
}

#[test]
fn what_is_not_relayed_costs_nothing() {
    let config = BaseConfig { relay_rate: Some(32_000), relay_messages: Some(400), ..BaseConfig::default() };
    let (world, a, b) = two_on_udp(config);
    let routes = world.base.routes();
    let judge = |length| routes.reader().judge(FIRST, a.udp, &mut send_data(b.id, length), world.now);
    let passes = |verdict| matches!(verdict, Verdict::Forward { .. });
    // 26 messages of 19 units; what is left of 500 is 6.
    assert_eq!((0..1_000).filter(|_| passes(judge(1_200))).count(), 26);
    assert_eq!((0..1_000).filter(|_| passes(judge(1))).count(), 6);
    assert_eq!((0..1_000).filter(|_| passes(judge(1))).count(), 0);
}

#[test]
fn who_cannot_count_a_device_does_not_forward_for_it() {
    let config = BaseConfig { relay_messages: Some(5), ..BaseConfig::default() };
    let mut world = World::with_room(config, 1);
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    for host in [&mut a, &mut b] {
        world.register(host);
        world.confirm_udp(host);
    }
    let forwards = |world: &World, from: &Host, to: &Host| {
        world.copy.judge(FIRST, from.udp, &send_data(to.id, 10), world.now).is_some()
    };
    assert!(forwards(&world, &a, &b));
    assert!(!forwards(&world, &b, &a), "there is no room for another");
    let routes = world.base.routes();
    let passes = || {
        let verdict = routes.reader().judge(FIRST, b.udp, &mut send_data(a.id, 10), world.now);
        matches!(verdict, Verdict::Forward { .. })
    };
    assert_eq!((0..10).filter(|_| passes()).count(), 5, "a worker forwards for it");
    // It gets the address of the one that is counted.
    b.udp = a.udp;
    world.confirm_udp(&mut b);
    assert!(!forwards(&world, &b, &b));
}

#[test]
fn a_session_that_has_ended_leaves_its_budget_to_another() {
    let config = BaseConfig { relay_messages: Some(5), ..BaseConfig::default() };
    let mut world = World::with_room(config, 200);
    for n in 0..1_000 {
        let mut host = Host::new((n % 100) as u8);
        world.register(&mut host);
        world.confirm_udp(&mut host);
        let relay = || world.copy.relay(FIRST, host.udp, &send_data(host.id, 10), world.now);
        assert_eq!((0..10).filter_map(|_| relay()).count(), 5, "session {n}");
        world.base.handle_frame(host.conn, &mut [bowline_proto::wire::tcp::LEAVE], world.now);
        world.flush();
        world.advance(secs(1));
    }
}

/// What somebody sends who goes by his copy of the routes; that a worker does the same is asserted where the datagram comes.
fn copied(world: &mut World, from: &Host, to: &Host) -> bool {
    let copied = world.copy.judge(FIRST, from.udp, &send_data(to.id, 10), world.now).is_some();
    world.datagram(FIRST, from.udp, &send_data(to.id, 10));
    copied
}

#[test]
fn a_leg_that_a_worker_has_prolonged_lives_on_for_who_follows_the_routes() {
    let (mut world, mut a, mut b) = two_on_udp(BaseConfig::default());
    world.advance(secs(25));
    for host in [&mut a, &mut b] {
        world.nat_init(host, FIRST, PADDED_LEN).unwrap();
    }
    assert_eq!(world.unverified(), 2, "the machine has not heard of it");
    world.advance(secs(35) - ms(1));
    assert!(copied(&mut world, &a, &b));
    world.advance(ms(1));
    assert!(!copied(&mut world, &a, &b));
}

#[test]
fn an_address_that_is_nobody_s_any_more_is_nobody_s_for_who_follows_the_routes() {
    let (mut world, mut a, mut b) = two_on_udp(BaseConfig::default());
    for _ in 0..2 {
        world.advance(secs(30));
        world.nat_init(&mut b, FIRST, PADDED_LEN).unwrap();
        world.info(&mut a);
        world.info(&mut b);
    }
    assert!(!copied(&mut world, &a, &b), "it was silent for 60 seconds");
    assert!(copied(&mut world, &b, &b));
}
