//! Row 3: all bases are asked at once, the first to answer is the only one registered at, the others are closed; a
//! base that accepts and stays silent holds nobody up; a dead winner is replaced fast.

mod common;

use std::time::Duration;

use bowline_sim::{packet::NodeId, world::World};
use common::*;

const REGISTER: u8 = 0x02;

/// Two hosts that know three bases, of which the first is nearest and the last farthest.
fn three_bases() -> (World, [NodeId; 3], NodeId, NodeId) {
    let mut world = World::new(1);
    let bases = [(5, "near"), (15, "middle"), (40, "far")].map(|(ms, name)| {
        let net = world.data_centre(name, ms * MS);
        world.base(name, net)
    });
    let [a, b] = ["a", "b"].map(|name| {
        let net = world.home(name, SYMMETRIC, 10 * MS);
        world.host(name, net, &bases)
    });
    (world, bases, a, b)
}

fn is_registered_at(world: &mut World, host: NodeId, base: NodeId) -> bool {
    let id = world.id(host);
    world.with_base(base, |base, env| base.with(env, |machine, _| machine.is_registered(id))) == Some(true)
}

fn registers_sent_to(world: &World, host: NodeId, base: NodeId) -> usize {
    let ip = world.address(base, true).unwrap();
    world.trace.frames(host, Duration::ZERO).filter(|f| f.1.ip() == ip && f.2[0] == REGISTER).count()
}

#[test]
fn only_the_first_to_answer_gets_register_and_the_others_are_closed() {
    let (mut world, bases, a, _) = three_bases();
    settle(&mut world);
    assert_eq!(bases.map(|base| registers_sent_to(&world, a, base)), [1, 0, 0]);
    assert_eq!(bases.map(|base| is_registered_at(&mut world, a, base)), [true, false, false]);
    assert_eq!(
        bases.map(|base| world.at_base(base).connections()),
        [2, 0, 0],
        "two hosts, one connection each"
    );
    world.assert_held();
}

#[test]
fn a_base_that_accepts_and_stays_silent_holds_nobody_up() {
    let (mut world, bases, a, b) = three_bases();
    world.with_base(bases[0], |base, _| base.frozen = true);
    let at = world
        .wait(10 * SECOND, |world| registered(world, a) && registered(world, b))
        .expect("registered elsewhere");
    // Connect, GET-COOKIE, REGISTER: three round trips to the next base.
    assert!(at < 3 * 2 * 25 * MS + 50 * MS, "registered after {at:?}");
    assert!(is_registered_at(&mut world, a, bases[1]));
    world.assert_held();
}

#[test]
fn a_winner_that_never_answers_register_is_passed_over_after_two_seconds() {
    let (mut world, bases, a, _) = three_bases();
    // It has sent BASE-HELLO, and is stopped before REGISTER comes.
    world.wait(SECOND, |world| registers_sent_to(world, a, bases[0]) == 1).expect("REGISTER is sent");
    world.with_base(bases[0], |base, _| base.frozen = true);
    let start = world.now();
    let at = world.wait(10 * SECOND, |world| registered(world, a)).expect("registered elsewhere");
    assert!((2 * SECOND..2 * SECOND + 500 * MS).contains(&(at - start)), "{:?}", at - start);
}

#[test]
fn messages_flow_again_in_under_a_second_when_the_winner_resets() {
    let (mut world, bases, a, b) = three_bases();
    settle(&mut world);
    world.run_for(30 * SECOND);
    assert_eq!(talk(&mut world, a, b, SECOND, 5 * SECOND).1, 0);
    world.with_base(bases[0], |base, env| base.crash(false, env));
    let after = first_to_arrive(&mut world, a, b, 20 * MS, 10 * SECOND);
    assert!(after < SECOND, "messages flow again after {after:?}");
    world.assert_held();
}

#[test]
fn messages_flow_again_in_under_four_seconds_when_the_winner_falls_silent() {
    for dies in [true, false] {
        let (mut world, bases, a, b) = three_bases();
        settle(&mut world);
        world.run_for(30 * SECOND);
        assert_eq!(talk(&mut world, a, b, 100 * MS, 5 * SECOND).1, 0);
        world.with_base(bases[0], |base, env| if dies { base.crash(true, env) } else { base.frozen = true });
        let net = world.stack(bases[0]).ifaces[0].net;
        world.fabric.net_mut(net).cut = dies;
        // Both send: each notices by its own data.
        let start = world.now();
        let mut numbers = Vec::new();
        let flows = |world: &World, numbers: &[(u64, u64)]| {
            numbers.iter().any(|n| world.arrival(a, b, n.0).is_some())
                && numbers.iter().any(|n| world.arrival(b, a, n.1).is_some())
        };
        while !flows(&world, &numbers) && world.now() < start + 10 * SECOND {
            if let (Ok(one), Ok(other)) = (world.send(a, b), world.send(b, a)) {
                numbers.push((one.0, other.0));
            }
            world.run_for(50 * MS);
        }
        let after = world.now() - start;
        assert!(after < 4 * SECOND, "messages flow again after {after:?} (dead: {dies})");
        world.assert_held();
    }
}

#[test]
fn a_name_with_both_families_is_asked_at_both() {
    let mut world = World::new(1);
    let centre = world.data_centre("centre", 5 * MS);
    let base = world.base("base", centre);
    let ips = [true, false].map(|v4| world.address(base, v4).unwrap());
    world.names.insert("base.example".to_owned(), ips.to_vec());
    // One host has IPv4 alone, the other IPv6 alone: the same name serves both.
    let v4 = world.home("v4", CONE, 10 * MS);
    let v6 = world.home_v6("v6", bowline_sim::nat::Dependence::AddressAndPort, 10 * MS);
    let [a, b] = [v4, v6].map(|net| {
        world.host_with("host", &[net], &[], None, |config| {
            config.bases = vec!["base.example".parse().unwrap()];
        })
    });
    settle(&mut world);
    assert_eq!(talk(&mut world, a, b, SECOND, 10 * SECOND), (10, 0));
    assert_eq!(talk(&mut world, b, a, SECOND, 10 * SECOND), (10, 0));
    world.assert_held();
}

#[test]
fn a_base_at_the_end_of_a_slow_link_is_registered_at_once_and_for_good() {
    let mut world = World::new(1);
    // There and back in 2.6 s: a satellite, or a link whose queue is full.
    let far = world.data_centre("far", 1_250 * MS);
    let base = world.base("base", far);
    let [a, b] = ["a", "b"].map(|name| {
        let net = world.home(name, SYMMETRIC, 50 * MS);
        world.host(name, net, &[base])
    });
    world.wait(20 * SECOND, |world| registered(world, a) && registered(world, b)).expect("registered");
    assert_eq!(talk(&mut world, a, b, SECOND, 60 * SECOND).1, 0);
    assert_eq!(registers_sent_to(&world, a, base), 1, "no doubt that it is there");
    assert!(is_registered_at(&mut world, a, base));
    world.assert_held();
}
