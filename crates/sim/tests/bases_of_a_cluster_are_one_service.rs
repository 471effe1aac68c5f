//! Devices at different bases of a cluster find each other, talk, move from base to base, and survive the loss of bases and of the bus.

mod common;

use std::time::Duration;

use bowline_proto::{
    DeviceId,
    base::Base,
    wire::{frame, relay},
};
use bowline_sim::{bus::Weather, fabric::NetId, faults::Fault, packet::NodeId, world::World};
use common::*;

/// Bases of a cluster, and a host in a home of its own at each of them: it knows that base alone, or all with that one nearest.
struct Many {
    world: World,
    bases: Vec<NodeId>,
    hosts: Vec<NodeId>,
    homes: Vec<NetId>,
}

impl Many {
    fn new(count: usize, over_udp: bool, seed: u64) -> Self {
        let mut world = World::new(seed);
        let bases: Vec<NodeId> = (0..count)
            .map(|n| {
                let centre = world.data_centre(&format!("centre {n}"), 5 * MS);
                world.clustered_base(&format!("base {n}"), centre, over_udp)
            })
            .collect();
        Self { world, bases, hosts: Vec::new(), homes: Vec::new() }
    }

    /// A host in a home behind a NAT through which nothing direct passes.
    fn host(&mut self, bases: &[usize]) -> NodeId {
        let n = self.hosts.len();
        let home = self.world.home(&format!("home {n}"), SYMMETRIC, 10 * MS);
        self.host_in(home, bases)
    }

    fn host_in(&mut self, home: NetId, bases: &[usize]) -> NodeId {
        let n = self.hosts.len();
        let bases: Vec<NodeId> = bases.iter().map(|&base| self.bases[base]).collect();
        let host = self.world.host(&format!("host {n}"), home, &bases);
        self.hosts.push(host);
        self.homes.push(home);
        host
    }

    fn base_of(&self, host: NodeId) -> Option<NodeId> {
        let id = self.world.id(host);
        let has = |base: &&NodeId| self.world.at_base(**base).machine().is_some_and(|m| m.is_registered(id));
        let at: Vec<NodeId> = self.bases.iter().filter(has).copied().collect();
        assert!(at.len() <= 1, "{host:?} is registered at {at:?}");
        at.first().copied()
    }

    /// Messages both ways for a while; how many were lost.
    fn lost_of_a_talk(&mut self, a: NodeId, b: NodeId, every: Duration, time: Duration) -> usize {
        let since = self.world.now();
        while self.world.now() < since + time {
            let _ = self.world.send(a, b);
            let _ = self.world.send(b, a);
            self.world.run_for(every);
        }
        let until = self.world.now();
        self.world.run_for(5 * SECOND);
        self.world.tally(a, b, since, until).1 + self.world.tally(b, a, since, until).1
    }

    fn sizes_are_nothing(&self) {
        for &base in &self.bases {
            let Some(machine) = self.world.at_base(base).machine() else { continue };
            let sizes = machine.sizes();
            assert_eq!(
                (sizes.remote_devices, sizes.remote_interests, sizes.interests, sizes.lingering),
                (0, 0, 0, 0)
            );
        }
    }
}

fn total(many: &Many, of: impl Fn(&Base) -> u64) -> u64 {
    many.bases.iter().filter_map(|&base| many.world.at_base(base).machine()).map(of).sum()
}

#[test]
fn two_devices_at_two_bases_talk_whether_data_takes_udp_or_the_bus() {
    for over_udp in [true, false] {
        let mut many = Many::new(2, over_udp, 1);
        let (a, b) = (many.host(&[0]), many.host(&[1]));
        settle(&mut many.world);
        assert_eq!((many.base_of(a), many.base_of(b)), (Some(many.bases[0]), Some(many.bases[1])));
        assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 20 * SECOND), 0, "over UDP: {over_udp}");
        let on_bus = many.world.bus.counts[2];
        assert_eq!(many.lost_of_a_talk(a, b, 20 * MS, 10 * SECOND), 0);
        // A thousand messages; what is left on the bus is control.
        let on_bus = many.world.bus.counts[2] - on_bus;
        assert_eq!(on_bus < 100, over_udp, "{on_bus} messages on the bus");
        many.world.assert_held();
    }
}

#[test]
fn the_first_message_to_a_device_of_another_base_arrives_at_once() {
    let mut many = Many::new(2, true, 2);
    let (a, b) = (many.host(&[0]), many.host(&[1]));
    settle(&mut many.world);
    let (number, _) = many.world.send(a, b).unwrap();
    // Two uplinks to the bases, the way between them, a millisecond of bus.
    let at = many.world.wait(SECOND, |world| world.arrival(a, b, number).is_some()).expect("it arrives");
    let took = many.world.arrival(a, b, number).unwrap().at - many.world.arrival(a, b, number).unwrap().sent;
    assert!(took < 60 * MS, "{took:?}, at {at:?}");
}

#[test]
fn addresses_and_introductions_cross_and_the_path_becomes_direct() {
    let mut many = Many::new(2, true, 3);
    let homes = ["one", "two"].map(|name| many.world.home(name, CONE, 10 * MS));
    let a = many.host_in(homes[0], &[0]);
    let b = many.host_in(homes[1], &[1]);
    settle(&mut many.world);
    make_direct(&mut many.world, a, b);
    many.world.assert_held();
}

#[test]
fn a_device_that_moves_while_its_peer_is_at_another_base_is_back_within_round_trips() {
    let mut many = Many::new(2, true, 4);
    let homes = ["one", "two"].map(|name| many.world.home(name, CONE, 10 * MS));
    let other = many.world.home("elsewhere", CONE, 10 * MS);
    let a = many.host_in(homes[0], &[0]);
    let b = many.host_in(homes[1], &[1]);
    settle(&mut many.world);
    make_direct(&mut many.world, a, b);
    let roam = Fault::Roam { host: a, interface: 1, to: other };
    roam.begin(&mut many.world, SECOND);
    roam.end(&mut many.world, None);
    let back = first_to_arrive(&mut many.world, b, a, 10 * MS, 5 * SECOND);
    assert!(back < 200 * MS, "{back:?}");
    many.world.run_for(2 * SECOND);
    make_direct(&mut many.world, a, b);
    many.world.assert_held();
}

#[test]
fn devices_of_a_base_that_is_killed_are_back_at_others() {
    let mut many = Many::new(3, true, 5);
    let (a, b, c) = (many.host(&[0, 1]), many.host(&[1]), many.host(&[0, 2]));
    settle(&mut many.world);
    assert_eq!(many.lost_of_a_talk(a, b, 200 * MS, 10 * SECOND), 0);
    assert_eq!(many.lost_of_a_talk(a, c, 200 * MS, 10 * SECOND), 0);
    let doomed = many.base_of(a).unwrap();
    many.world.kill_base(doomed);
    let back = first_to_arrive(&mut many.world, b, a, 10 * MS, 5 * SECOND);
    assert!(back < SECOND, "{back:?}");
    let back = first_to_arrive(&mut many.world, c, a, 10 * MS, 5 * SECOND);
    assert!(back < SECOND, "{back:?}");
    assert_ne!(many.base_of(a), None);
    assert_eq!(many.lost_of_a_talk(a, b, 200 * MS, 10 * SECOND), 0);
    many.world.start_base(doomed);
    many.world.run_for(20 * SECOND);
    assert_eq!(many.lost_of_a_talk(a, c, 200 * MS, 10 * SECOND), 0);
    many.world.assert_held();
}

#[test]
fn what_a_dead_base_has_stored_is_void_and_its_devices_are_told_of_as_gone() {
    let mut many = Many::new(2, true, 6);
    let (a, b) = (many.host(&[0]), many.host(&[1]));
    settle(&mut many.world);
    assert_eq!(many.lost_of_a_talk(a, b, 200 * MS, 5 * SECOND), 0);
    let since = many.world.now();
    many.world.kill_base(many.bases[1]);
    many.world.run_for(20 * SECOND);
    const DEVICE_ADDRESSES: u8 = 0x14;
    let told = written(&many.world, many.bases[0], DEVICE_ADDRESSES, since);
    assert_eq!(told.len(), 1, "once: gone");
    assert!(told[0] > since + 10 * SECOND && told[0] < since + 17 * SECOND, "{:?}", told[0] - since);
}

#[test]
fn without_the_bus_devices_of_one_base_go_on_and_over_udp_those_of_two_as_well() {
    let mut many = Many::new(2, true, 7);
    let (a, b, c) = (many.host(&[0]), many.host(&[1]), many.host(&[0]));
    settle(&mut many.world);
    assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 5 * SECOND), 0);
    assert_eq!(many.lost_of_a_talk(a, c, 100 * MS, 5 * SECOND), 0);
    many.world.run_bus(false, false);
    assert_eq!(many.lost_of_a_talk(a, c, 50 * MS, 10 * SECOND), 0);
    assert_eq!(many.lost_of_a_talk(a, b, 50 * MS, 10 * SECOND), 0);
    many.world.run_bus(true, false);
    assert_eq!(many.lost_of_a_talk(a, b, 50 * MS, 10 * SECOND), 0);
    many.world.assert_held();
}

#[test]
fn while_the_store_has_no_leader_bases_count_as_they_did_and_who_comes_meanwhile_is_found_afterwards() {
    for over_udp in [true, false] {
        let mut many = Many::new(2, over_udp, 14);
        let (a, b) = (many.host(&[0]), many.host(&[1]));
        settle(&mut many.world);
        assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 5 * SECOND), 0);
        many.world.bus.without_leader = true;
        let late = many.host(&[1]);
        assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 40 * SECOND), 0, "over UDP: {over_udp}");
        assert_eq!(total(&many, |base| base.counters().bases_lost), 0);
        many.world.bus.without_leader = false;
        let back = first_to_arrive(&mut many.world, a, late, 50 * MS, 10 * SECOND);
        assert!(back < 6 * SECOND, "{back:?}");
        assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 20 * SECOND), 0);
        assert_eq!(total(&many, |base| base.counters().bases_lost), 0);
        many.world.assert_held();
    }
}

#[test]
fn a_bus_that_comes_back_with_nothing_stored_is_filled_again() {
    for over_udp in [true, false] {
        let mut many = Many::new(2, over_udp, 8);
        let (a, b) = (many.host(&[0]), many.host(&[1]));
        settle(&mut many.world);
        assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 5 * SECOND), 0);
        many.world.run_bus(false, true);
        many.world.run_for(10 * SECOND);
        many.world.run_bus(true, false);
        many.world.run_for(SECOND);
        // Who asks for the first time now finds what was stored anew.
        let c = many.host(&[0]);
        many.world.run_for(10 * SECOND);
        assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 5 * SECOND), 0, "over UDP: {over_udp}");
        assert_eq!(many.lost_of_a_talk(c, b, 100 * MS, 5 * SECOND), 0);
        many.world.assert_held();
    }
}

#[test]
fn a_device_that_registers_while_the_bus_is_gone_is_found_when_it_is_back() {
    let mut many = Many::new(2, true, 9);
    let a = many.host(&[0]);
    settle(&mut many.world);
    many.world.run_bus(false, false);
    let b = many.host(&[1]);
    many.world.run_for(5 * SECOND);
    many.world.run_bus(true, false);
    let back = first_to_arrive(&mut many.world, a, b, 50 * MS, 5 * SECOND);
    assert!(back < 200 * MS, "{back:?}");
    assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 5 * SECOND), 0);
}

#[test]
fn a_device_that_starts_again_at_another_base_is_there_and_nowhere_else() {
    let mut many = Many::new(2, true, 10);
    let (a, b) = (many.host(&[0]), many.host(&[0, 1]));
    settle(&mut many.world);
    for _ in 0..4 {
        assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 3 * SECOND), 0);
        let home = many.base_of(b).unwrap();
        // The machine dies without a word, and its old base is out of its reach when it is back.
        many.world.with_host(b, bowline_sim::host_node::HostNode::crash);
        many.world.with_base(home, |base, _| base.frozen = true);
        many.world.run_for(SECOND);
        many.world.with_host(b, bowline_sim::host_node::HostNode::start);
        many.world.run_for(5 * SECOND);
        many.world.with_base(home, bowline_sim::base_node::BaseNode::thaw);
        many.world.run_for(2 * SECOND);
        assert!(many.base_of(b).is_some(), "it is registered at one of them");
        many.world.run_for(60 * SECOND);
    }
}

#[test]
fn a_rolling_restart_of_all_bases_loses_no_message() {
    for over_udp in [true, false] {
        let mut many = Many::new(3, over_udp, 11);
        let hosts: Vec<NodeId> = (0..6).map(|_| many.host(&[0, 1, 2])).collect();
        settle(&mut many.world);
        let pairs = [(0, 1), (2, 3), (4, 5)].map(|(a, b)| (hosts[a], hosts[b]));
        for (a, b) in pairs {
            assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 5 * SECOND), 0);
        }
        let since = many.world.now();
        for base in many.bases.clone() {
            many.world.with_base(base, |base, env| base.with(env, |machine, now| machine.drain(10, now)));
            let until = many.world.now() + 13 * SECOND;
            while many.world.now() < until {
                for (a, b) in pairs {
                    let _ = many.world.send(a, b);
                    let _ = many.world.send(b, a);
                }
                many.world.run_for(50 * MS);
            }
            many.world.kill_base(base);
            many.world.start_base(base);
            // Hosts stay away from a draining base for a minute.
            many.world.run_for(75 * SECOND);
        }
        let until = many.world.now();
        let lost: Vec<_> = pairs
            .iter()
            .map(|&(a, b)| many.world.tally(a, b, since, until).1 + many.world.tally(b, a, since, until).1)
            .collect();
        assert_eq!(lost, [0; 3], "over UDP: {over_udp}");
        assert!(total(&many, |base| base.counters().registered) > 0);
        many.world.assert_held();
    }
}

#[test]
fn a_bus_that_delays_doubles_reorders_and_loses_does_no_harm() {
    for seed in 20..26 {
        let mut many = Many::new(3, true, seed);
        many.world.bus.weather = Weather { least: MS, most: 300 * MS, lost: 50, doubled: 100 };
        let hosts: Vec<NodeId> = (0..6).map(|n| many.host(&[n % 3, (n + 1) % 3])).collect();
        settle(&mut many.world);
        for n in 0..3 {
            let pairs = [(0, 1), (2, 3), (4, 5), (0, 5)].map(|(a, b)| (hosts[a], hosts[b]));
            for (a, b) in pairs {
                let _ = first_to_arrive(&mut many.world, a, b, 50 * MS, 10 * SECOND);
                let _ = first_to_arrive(&mut many.world, b, a, 50 * MS, 10 * SECOND);
            }
            let base = many.bases[n];
            many.world.kill_base(base);
            many.world.run_for(10 * SECOND);
            many.world.start_base(base);
            many.world.link_with_bus(many.bases[(n + 1) % 3], false);
            many.world.run_for(5 * SECOND);
            many.world.link_with_bus(many.bases[(n + 1) % 3], true);
            many.world.run_for(20 * SECOND);
        }
        many.world.assert_held();
    }
}

#[test]
fn what_nobody_cares_for_any_more_is_forgotten() {
    let mut many = Many::new(2, true, 12);
    let (a, b) = (many.host(&[0]), many.host(&[1]));
    settle(&mut many.world);
    assert_eq!(many.lost_of_a_talk(a, b, 100 * MS, 5 * SECOND), 0);
    let sizes = many.world.at_base(many.bases[0]).machine().unwrap().sizes();
    assert_eq!((sizes.remote_devices, sizes.remote_interests), (1, 1));
    // Idle peers are released after two minutes.
    many.world.run_for(Duration::from_secs(300));
    many.sizes_are_nothing();
    assert!(many.base_of(a).is_some() && many.base_of(b).is_some());
}

#[test]
fn a_device_that_sends_to_ever_others_takes_no_room_from_the_rest() {
    let mut many = Many::new(2, true, 14);
    let (a, b, c) = (many.host(&[0]), many.host(&[1]), many.host(&[0]));
    settle(&mut many.world);
    let mut frames = Vec::new();
    for n in 0..2_000_u16 {
        let mut id = [0x5a; 14];
        id[..2].copy_from_slice(&n.to_be_bytes());
        frame::write(&mut frames, |out| {
            out.extend_from_slice(&relay::header(relay::SEND_DATA, DeviceId::from_bytes(id)));
        });
    }
    many.world.with_host(a, |host, env| host.write_beside(&frames, env));
    many.world.run_for(SECOND);
    let base = many.world.at_base(many.bases[0]).machine().unwrap();
    assert!((1_000..1_100).contains(&base.sizes().remote_devices), "{}", base.sizes().remote_devices);
    assert!(base.counters().remotes_refused > 900);
    assert_eq!(many.lost_of_a_talk(b, c, 100 * MS, 5 * SECOND), 0);
}
