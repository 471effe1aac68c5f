//! One side behind a symmetric NAT, the other's filter asks for the port: direct all the same, within a budget, and off by a switch.

mod common;

use std::time::Duration;

use bowline_proto::host::config::{PUNCH_DATAGRAMS, PUNCH_SOCKETS};
use bowline_sim::nat::{Allocation, Dependence, NatKind};
use common::*;

/// A new port for every remote endpoint, one after the other.
const COUNTING: NatKind =
    NatKind::with(Dependence::AddressAndPort, Dependence::AddressAndPort, Allocation::Sequential);

/// Both send ten messages a second: after which time it is direct both ways.
fn direct_after(pair: &mut Pair, limit: Duration) -> Option<Duration> {
    let began = pair.world.now();
    let Pair { world, a, b, .. } = pair;
    while world.now() < began + limit {
        let _ = world.send(*a, *b);
        let _ = world.send(*b, *a);
        world.run_for(100 * MS);
        if world.is_direct(*a, *b) && world.is_direct(*b, *a) {
            return Some(world.now() - began);
        }
    }
    None
}

/// KNOCKs sent so far by both.
fn knocks(pair: &Pair) -> usize {
    let counters = |host| pair.world.at_host(host).machine().unwrap().status(pair.world.instant()).counters;
    [pair.a, pair.b].map(|host| counters(host).knock_sent as usize).into_iter().sum()
}

#[test]
fn ports_that_follow_each_other_are_found_in_three_seconds() {
    for (seed, (one, other)) in [(CONE, COUNTING), (COUNTING, CONE)].into_iter().enumerate() {
        let mut pair = Pair::seeded(seed as u64, one, other);
        let after = direct_after(&mut pair, 12 * SECOND).expect("a direct path");
        assert!(after < 3 * SECOND, "{after:?}");
        assert!(knocks(&pair) < 150, "{}", knocks(&pair));
        pair.world.assert_held();
    }
}

#[test]
fn random_ports_are_found_nine_times_of_ten_within_twelve_seconds() {
    let runs = 40;
    let mut times: Vec<Duration> = (0..runs)
        .filter_map(|seed| {
            let mut pair = if seed % 2 == 0 {
                Pair::seeded(seed, CONE, SYMMETRIC)
            } else {
                Pair::seeded(seed, SYMMETRIC, CONE)
            };
            let after = direct_after(&mut pair, 12 * SECOND);
            pair.world.assert_held();
            after
        })
        .collect();
    times.sort();
    println!("{} of {runs}, the middle after {:?}", times.len(), times[times.len() / 2]);
    assert!(times.len() as u64 * 10 >= runs * 9, "{} of {runs}: {times:?}", times.len());
}

#[test]
fn a_path_that_was_guessed_carries_what_follows_and_its_sockets_are_the_only_ones_left() {
    let mut pair = Pair::seeded(4, CONE, SYMMETRIC);
    direct_after(&mut pair, 12 * SECOND).expect("a direct path");
    let Pair { mut world, a, b, .. } = pair;
    world.run_for(SECOND);
    for (from, to) in [(a, b), (b, a)] {
        let (came, lost) = talk(&mut world, from, to, 20 * MS, 30 * SECOND);
        assert!(came > 1000 && lost == 0, "{came} came, {lost} lost");
        assert!(world.is_direct(from, to));
    }
    let open = |host| world.at_host(host).machine().unwrap().sizes().sockets;
    assert_eq!(open(a), 0);
    assert!((1..=4).contains(&open(b)), "{}", open(b));
    world.assert_held();
}

#[test]
fn idle_peers_have_no_sockets() {
    let mut pair = Pair::seeded(4, CONE, SYMMETRIC);
    direct_after(&mut pair, 12 * SECOND).expect("a direct path");
    let Pair { mut world, a, b, .. } = pair;
    world.run_for(150 * SECOND);
    for host in [a, b] {
        assert_eq!(world.at_host(host).machine().unwrap().sizes().sockets, 0);
    }
    world.assert_held();
}

#[test]
fn two_symmetric_nats_stay_on_the_relay_and_are_told_why() {
    let mut pair = Pair::behind(SYMMETRIC, SYMMETRIC);
    assert_eq!(direct_after(&mut pair, 30 * SECOND), None);
    assert_eq!(knocks(&pair), 0);
    let why = pair.world.peer(pair.a, pair.b).unwrap().why;
    assert!(why.contains("both devices") && why.contains("symmetric"), "{why}");
    pair.world.assert_held();
}

#[test]
fn switched_off_nothing_is_guessed_and_the_reason_says_so() {
    let mut pair = Pair::unsettled(1, CONE, SYMMETRIC);
    for host in [pair.a, pair.b] {
        pair.world.call(host, |host, now| host.set_guess_ports(false, now));
    }
    settle(&mut pair.world);
    assert_eq!(direct_after(&mut pair, 20 * SECOND), None);
    assert_eq!(knocks(&pair), 0);
    let why = pair.world.peer(pair.a, pair.b).unwrap().why;
    assert!(why.contains("switched off"), "{why}");
    pair.world.assert_held();
}

/// One side alone guesses, so that no attempt succeeds: what that costs, and how it backs off.
#[test]
fn attempts_that_fail_stay_within_their_budget_and_become_rare() {
    for (one, other, limit) in [(CONE, SYMMETRIC, PUNCH_DATAGRAMS as usize), (SYMMETRIC, CONE, PUNCH_SOCKETS)]
    {
        let mut pair = Pair::unsettled(1, one, other);
        let b = pair.b;
        pair.world.call(b, |host, now| host.set_guess_ports(false, now));
        settle(&mut pair.world);
        let began = pair.world.now();
        assert_eq!(direct_after(&mut pair, 15 * SECOND), None);
        let most = most_in_a_second(&sent(&pair.world, pair.a, "KNOCK", began));
        assert!(most <= 128, "64 a second, after a burst of as many: {most}");
        let first = knocks(&pair);
        assert!(first > limit / 2 && first <= limit, "{first} of {limit}");
        let sockets = pair.world.at_host(pair.a).machine().unwrap().sizes().sockets;
        assert_eq!(sockets, 0, "all are closed again");
        // 12 s, a rest of 60; 12 s, a rest of 120: two more attempts in ten minutes at most … and none in the first rest.
        assert_eq!(direct_after(&mut pair, 50 * SECOND), None);
        assert_eq!(knocks(&pair), first);
        assert_eq!(direct_after(&mut pair, 600 * SECOND), None);
        let later = knocks(&pair) - first;
        assert!(later > limit / 2 && later <= 3 * limit, "{later} of 3 times {limit}");
        pair.world.assert_held();
    }
}

fn most_in_a_second(sent: &[(Duration, std::net::SocketAddr)]) -> usize {
    sent.iter()
        .map(|(at, _)| sent.iter().filter(|(other, _)| *other >= *at && *other < *at + SECOND).count())
        .max()
        .unwrap_or(0)
}
