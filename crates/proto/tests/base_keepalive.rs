//! Keepalives: a NAT-INIT in which nothing is new is answered by whoever gets it, a worker beside the machine or the machine itself, and nobody
//! can tell which. (How long a binding lives and what moves it is asserted in `base_binding`, with a worker's answers.)

mod base_world;

use base_world::{FIRST, Host, SECOND, World, addr, ms, over_tcp, over_udp, secs};
use bowline_proto::{
    base::{Forward, Verdict, Via},
    wire::udp::{NAT_INIT_MIN_LEN, NAT_OK_LEN, NatOk, PADDED_LEN},
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Two devices that know each other; the first is on UDP with both ports of the base.
fn two() -> (World, Host, Host) {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.join(&mut host);
    world.nat_init(&mut host, SECOND, NAT_OK_LEN).unwrap();
    world.join(&mut peer);
    world.befriend(&host, &peer);
    (world, host, peer)
}

/// What a worker says of a datagram, and its answer, if it has one.
fn judge(world: &World, via: Via, from: std::net::SocketAddr, datagram: &[u8]) -> (Verdict, Option<Vec<u8>>) {
    let mut judged = datagram.to_vec();
    let verdict = world.base.routes().reader().judge(via, from, &mut judged, world.now);
    let answer = if let Verdict::Answer { skip } = verdict { Some(judged[skip..].to_vec()) } else { None };
    if answer.is_none() {
        assert_eq!(judged, datagram, "what a worker does not answer is left as it came");
    }
    (verdict, answer)
}

#[test]
fn a_worker_answers_what_changes_nothing_and_leaves_the_rest_to_the_machine() {
    let (world, mut host, _) = two();
    let answered = |world: &World, via, from, datagram: &[u8]| match judge(world, via, from, datagram).0 {
        Verdict::Answer { .. } => true,
        Verdict::Handshake => false,
        other => panic!("{other:?}"),
    };
    let elsewhere = addr("203.0.113.66:6");
    let init = world.nat_init_bytes(&mut host, FIRST, 0);
    assert!(!answered(&world, FIRST, elsewhere, &init), "from elsewhere");
    assert!(!answered(&world, SECOND, elsewhere, &init), "from elsewhere, to the other port");
    assert!(!answered(&world, Via { socket: bowline_proto::base::SocketId(2), ip: None }, host.udp, &init));
    assert!(answered(&world, FIRST, host.udp, &init));
    assert!(answered(&world, SECOND, host.udp, &init), "each port by itself");

    let own = std::mem::replace(&mut host.own, vec![addr("10.9.9.9:9")]);
    let changed = world.nat_init_bytes(&mut host, FIRST, 0);
    assert!(!answered(&world, FIRST, host.udp, &changed), "other addresses of its own");
    host.own = own;
    host.number += 16;
    let ahead = world.nat_init_bytes(&mut host, FIRST, 0);
    assert!(!answered(&world, FIRST, host.udp, &ahead), "far above the last verified one");
    assert_eq!(world.base.counters().nat_init_replayed, 0);
}

#[test]
fn a_device_whose_infos_come_is_never_verified_again_and_one_that_only_claims_higher_numbers_is() {
    let (mut world, mut host, _) = two();
    let verified = world.base.counters().nat_init_verified;
    for _ in 0..40 {
        world.advance(secs(25));
        world.info(&mut host);
        for via in [FIRST, SECOND] {
            assert!(world.nat_init(&mut host, via, 0).is_some());
        }
    }
    assert_eq!(world.base.counters().nat_init_verified, verified);
    assert_eq!(world.unverified(), 80);
    // Without INFO: 16 above it, and not one more.
    let init = |world: &World, ahead| {
        let init =
            world.nat_init_bytes(&mut Host { number: host.number - 3 + ahead, ..host.clone() }, FIRST, 0);
        judge(world, FIRST, host.udp, &init).0
    };
    assert!(matches!(init(&world, 16), Verdict::Answer { .. }));
    assert_eq!(init(&world, 17), Verdict::Handshake);
    // What was answered so delays a move by no more than that.
    host.number += 14;
    host.udp = addr("203.0.113.7:7");
    assert!(world.nat_init(&mut host, FIRST, 0).is_some());
}

#[test]
fn what_was_verified_is_not_answered_again_and_an_old_keepalive_is_not_for_ever() {
    let (mut world, mut host, _) = two();
    host.number += 16;
    let verified = world.nat_init_bytes(&mut host, FIRST, 0);
    let from = host.udp;
    let copy = |world: &mut World, init: &[u8]| world.exchange(FIRST, from, init).is_some();
    assert!(copy(&mut world, &verified));
    assert!(!copy(&mut world, &verified));

    // Whoever has seen one pass may have it answered again from there: while the host has not gone on.
    let keepalive = world.nat_init_bytes(&mut host, FIRST, 0);
    for _ in 0..15 {
        assert!(copy(&mut world, &keepalive));
        world.info(&mut host);
    }
    assert!(copy(&mut world, &keepalive));
    world.info(&mut host);
    assert!(!copy(&mut world, &keepalive));
}

#[test]
fn nobody_answers_under_a_cookie_that_is_gone() {
    let (mut world, mut host, _) = two();
    let old = world.nat_init_bytes(&mut host, FIRST, 0);
    assert!(judge(&world, FIRST, host.udp, &old).1.is_some());
    world.register(&mut host);
    assert_eq!(judge(&world, FIRST, host.udp, &old).0, Verdict::Stranger);
    // Under the new one the address is inherited: it has to show anew that it is its.
    let new = world.nat_init_bytes(&mut host, FIRST, 0);
    assert_eq!(judge(&world, FIRST, host.udp, &new).0, Verdict::Handshake);
    world.info(&mut host);
    assert!(world.nat_init(&mut host, FIRST, 0).is_some());
    let next = world.nat_init_bytes(&mut host, FIRST, 0);
    assert!(judge(&world, FIRST, host.udp, &next).1.is_some());
    world.base.handle_frame(host.conn, &mut [bowline_proto::wire::tcp::LEAVE], world.now);
    assert_eq!(judge(&world, FIRST, host.udp, &next).0, Verdict::Stranger);
}

#[test]
fn an_answer_is_never_longer_than_its_cause_and_padded_only_if_that_was() {
    let (mut world, mut host, _) = two();
    for own in [0, 1, 12] {
        host.own = (0..own).map(|n| addr(&format!("10.0.0.{n}:1"))).collect();
        world.nat_init(&mut host, FIRST, 0).unwrap();
        for length in [0, NAT_INIT_MIN_LEN + 1, 500, PADDED_LEN - 1, PADDED_LEN, 1_400] {
            let init = world.nat_init_bytes(&mut host, FIRST, length);
            let (_, answer) = judge(&world, FIRST, host.udp, &init);
            let answer = answer.expect("a worker's answer");
            let expected = if init.len() >= PADDED_LEN { PADDED_LEN } else { NAT_OK_LEN };
            assert_eq!(answer.len(), expected, "to {} bytes", init.len());
            assert!(answer[NAT_OK_LEN..].iter().all(|&byte| byte == 0), "padding says nothing");
            let ok = NatOk::decode(&answer).unwrap();
            assert_eq!(
                (ok.cookie, ok.seq, ok.seen, ok.confirmed),
                (host.cookie, host.number, host.udp, true)
            );
        }
    }
}

#[test]
fn what_a_worker_answered_moves_nothing_when_it_comes_again_from_elsewhere() {
    let (mut world, mut host, peer) = two();
    let init = world.nat_init_bytes(&mut host, FIRST, PADDED_LEN);
    assert!(judge(&world, FIRST, host.udp, &init).1.is_some());
    world.workers_answer = false;
    assert_eq!(world.exchange(FIRST, addr("203.0.113.66:6"), &init), None);
    assert_eq!(world.base.counters().nat_init_replayed, 1);
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    // A newer one does.
    host.udp = addr("203.0.113.7:7");
    assert!(world.nat_init(&mut host, FIRST, NAT_OK_LEN).is_some());
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn));
}

#[test]
fn a_nat_confirm_may_take_up_what_a_worker_answered_and_prove_the_size_with_it() {
    for (length, full_size) in [(NAT_OK_LEN, false), (PADDED_LEN, true)] {
        let mut world = World::new();
        let (mut host, mut peer) = (Host::new(1), Host::new(2));
        world.register(&mut host);
        world.join(&mut peer);
        world.nat_init(&mut host, FIRST, NAT_OK_LEN).unwrap();
        let init = world.nat_init_bytes(&mut host, FIRST, length);
        let (_, answer) = judge(&world, FIRST, host.udp, &init);
        let ok = NatOk::decode(&answer.expect("a worker's answer")).unwrap();
        assert!(!ok.confirmed);
        let ahead = NatOk { seq: ok.seq + 1, ..ok };
        assert_eq!(world.nat_confirm(&host, FIRST, &ahead), None, "above all that was answered");
        assert!(world.nat_confirm(&host, FIRST, &ok).is_some_and(|ok| ok.confirmed));
        assert_eq!(over_udp(world.data_tcp(&peer, host.id, 500)), Some(host.udp));
        assert_eq!(over_udp(world.data_tcp(&peer, host.id, 1_200)).is_some(), full_size);
    }
}

#[test]
fn the_base_sends_over_udp_for_35_seconds_after_a_worker_heard_the_device_and_knows_the_address_for_60() {
    let (mut world, mut host, mut peer) = two();
    world.advance(secs(30));
    for host in [&mut host, &mut peer] {
        world.info(host);
    }
    let init = world.nat_init_bytes(&mut host, FIRST, 0);
    assert!(judge(&world, FIRST, host.udp, &init).1.is_some());
    assert!(world.base.routes_agree());
    world.advance(ms(34_999));
    assert_eq!(over_udp(world.data_tcp(&peer, host.id, 10)), Some(host.udp));
    world.advance(ms(1));
    assert_eq!(over_tcp(world.data_tcp(&peer, host.id, 10)), Some(host.conn));
    for host in [&mut host, &mut peer] {
        world.info(host);
    }
    // The other port was not heard since, and is gone; this one lives until a minute has passed.
    let bound = |world: &World| world.base.sizes().bound_addresses;
    assert_eq!(bound(&world), 1);
    world.advance(ms(24_999));
    assert_eq!(bound(&world), 1);
    world.advance(ms(1));
    assert_eq!(bound(&world), 0);
}

#[test]
fn a_device_whose_connection_is_lost_lives_on_by_what_a_worker_heard() {
    let (mut world, mut host, _) = two();
    world.advance(secs(30));
    let init = world.nat_init_bytes(&mut host, FIRST, 0);
    assert!(judge(&world, FIRST, host.udp, &init).1.is_some());
    world.base.handle_closed(host.conn, world.now);
    world.advance(ms(34_999));
    assert!(world.base.is_registered(host.id));
    world.advance(ms(1));
    assert!(!world.base.is_registered(host.id));
    assert_eq!(judge(&world, FIRST, host.udp, &init).0, Verdict::Stranger);
}

#[test]
fn workers_and_the_machine_get_along_on_one_device() {
    let (mut world, mut host, _) = two();
    let first = world.nat_init_bytes(&mut host, FIRST, 0);
    let second = world.nat_init_bytes(&mut host, SECOND, PADDED_LEN);
    let (routes, now, udp) = (world.base.routes(), world.now, host.udp);
    std::thread::scope(|scope| {
        let workers = [(FIRST, first), (SECOND, second)].map(|(via, init)| {
            let routes = &routes;
            scope.spawn(move || {
                let all = (0..2_000).map(|_| routes.reader().judge(via, udp, &mut init.clone(), now));
                all.filter(|verdict| matches!(verdict, Verdict::Answer { .. })).count()
            })
        });
        for round in 0..200 {
            // A host that had gone on by 16 numbers would have made the two too old to be answered.
            if round % 20 == 0 {
                world.info(&mut host);
            }
            world.base.handle_timeout(now);
        }
        assert_eq!(workers.map(|worker| worker.join().unwrap()), [2_000; 2]);
    });
    assert!(world.base.routes_agree());
}

/// One world with workers and one without, whose hosts do the same.
struct Both {
    worlds: [World; 2],
    hosts: [[Host; 2]; 2],
    /// NAT-INITs as they were sent, and the NAT-OKs that came: any of them may be used again.
    sent: Vec<(Via, Vec<u8>)>,
    oks: Vec<(Via, std::net::SocketAddr, NatOk)>,
}

impl Both {
    fn new() -> Self {
        let (mut with, mut without) = (World::new(), World::new());
        without.workers_answer = false;
        let mut hosts = [(); 2].map(|()| [Host::new(1), Host::new(2)]);
        for (world, [host, peer]) in [&mut with, &mut without].into_iter().zip(&mut hosts) {
            world.join(host);
            world.join(peer);
            world.befriend(host, peer);
        }
        Self { worlds: [with, without], hosts, sent: Vec::new(), oks: Vec::new() }
    }

    /// Does the same in both; what comes of it has to be the same.
    fn alike<T: PartialEq + std::fmt::Debug>(
        &mut self,
        mut act: impl FnMut(&mut World, &mut Host, &mut Host) -> T,
    ) -> T {
        let [with, without] = &mut self.worlds;
        let [[a, b], [c, d]] = &mut self.hosts;
        let (one, other) = (act(with, a, b), act(without, c, d));
        assert_eq!(one, other, "with workers, and without");
        assert_eq!(with.datagrams, without.datagrams);
        let frames = [(with, a, b), (without, c, d)]
            .map(|(world, host, peer)| format!("{:?}{:?}", world.read(host.conn), world.read(peer.conn)));
        assert_eq!(frames[0], frames[1]);
        one
    }

    fn step(&mut self, rng: &mut ChaCha12Rng) {
        let via = if rng.random_bool(0.5) { FIRST } else { SECOND };
        let length = if rng.random_bool(0.3) { PADDED_LEN } else { 0 };
        match rng.random_range(0..16) {
            0..6 => {
                let init = self.alike(|world, host, _| world.nat_init_bytes(host, via, length));
                self.deliver(via, &init);
            }
            6 if !self.sent.is_empty() => {
                // A copy of an older one, from where it came or from elsewhere.
                let (via, init) = self.sent[rng.random_range(0..self.sent.len())].clone();
                let forged = rng.random_bool(0.5).then(|| addr("203.0.113.66:6"));
                self.alike(|world, host, _| world.exchange(via, forged.unwrap_or(host.udp), &init));
            }
            7 if !self.oks.is_empty() => {
                let (via, _, ok) = self.oks[rng.random_range(0..self.oks.len())];
                self.alike(|world, host, _| world.nat_confirm(host, via, &ok));
            }
            8 => {
                let port = rng.random_range(1_000..1_004);
                self.alike(|_, host, _| host.udp.set_port(port));
            }
            9 => {
                let n = rng.next_u32() % 2;
                self.alike(|_, host, _| host.own = vec![addr(&format!("10.0.0.{n}:1"))]);
            }
            10 => {
                let skipped = rng.random_range(0..20);
                self.alike(|_, host, _| host.number += skipped);
            }
            11 if rng.random_bool(0.1) => {
                self.alike(|world, host, _| drop(world.register(host)));
            }
            12 => {
                let length = [100, 1_200][rng.random_range(0..2)];
                self.alike(|world, host, peer| world.data_tcp(host, peer.id, length));
            }
            _ => {
                let passed = ms([1, 400, 1_100, 9_000, 21_000][rng.random_range(0..5)]);
                self.alike(|world, host, peer| {
                    world.info(host);
                    world.info(peer);
                    world.advance(passed);
                });
            }
        }
        self.alike(|world, host, peer| {
            let legs = [100, 1_200].map(|length| -> Forward { world.data_tcp(peer, host.id, length) });
            let mut counters = *world.base.counters();
            counters.nat_init_unverified = world.unverified();
            (legs, counters, world.base.sizes().bound_addresses)
        });
    }

    fn deliver(&mut self, via: Via, init: &[u8]) {
        self.sent.push((via, init.to_vec()));
        let (from, ok) = self.alike(|world, host, _| (host.udp, world.exchange(via, host.udp, init)));
        self.oks.extend(ok.map(|ok| (via, from, ok)));
    }
}

#[test]
fn with_workers_and_without_everybody_sees_the_same() {
    let mut answered = 0;
    for seed in 0..40 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut both = Both::new();
        for _ in 0..300 {
            both.step(&mut rng);
        }
        answered += both.worlds[0].unverified() - both.worlds[0].base.counters().nat_init_unverified;
    }
    assert!(answered > 500, "workers answered {answered}");
}
