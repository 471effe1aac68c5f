//! A machine with many interfaces, most of them of containers that come and go.

mod host_world;

use bowline_proto::{
    host::{Event, HostConfig, Interface, Network, Path},
    wire::{
        peer::IntroductionKey,
        tcp::{BaseFrame, DeviceAddresses},
    },
};
use host_world::{World, addr, key, ms, secs};

/// An interface of the machine's own, and so many that lead to a container each.
fn network(containers: std::ops::Range<u32>) -> Network {
    let of_container = containers.map(|number| Interface {
        index: 10 + number,
        name: format!("veth{number}"),
        loopback: false,
        multicast: true,
        default_v4: false,
        default_v6: false,
        preferred: false,
        addresses: vec![(format!("fe80::c:{number:x}").parse().unwrap(), 64)],
        routes: vec![],
    });
    let own = Interface {
        index: 1,
        name: "eth0".to_owned(),
        default_v4: true,
        addresses: vec![("198.51.100.1".parse().unwrap(), 24), ("fe80::1".parse().unwrap(), 64)],
        ..of_container.clone().next().unwrap()
    };
    Network {
        interfaces: [own].into_iter().chain(of_container).collect(),
        port_v4: Some(4000),
        port_v6: Some(4000),
    }
}

impl World {
    fn on(&mut self, network: Network) -> Vec<u32> {
        self.announced.clear();
        self.host.handle_network(network, self.now);
        self.drain();
        std::mem::take(&mut self.announced)
    }
}

#[test]
fn a_device_announces_itself_where_an_interface_is_new_and_nowhere_else() {
    let mut world = World::new(HostConfig::default());
    assert_eq!(world.on(network(0..3)), [1, 10, 11, 12]);
    world.advance(secs(1));
    assert_eq!(world.on(network(0..4)), [13]);
    assert_eq!(world.on(network(1..4)), [0; 0], "one has gone");
    assert_eq!(world.on(network(0..4)), [10], "and is back");
    // It has an address now: what was said before went nowhere.
    let mut changed = network(0..4);
    changed.interfaces[1].addresses.push(("fe80::c:77".parse().unwrap(), 64));
    assert_eq!(world.on(changed), [10]);
    // Another way out is another place.
    let mut moved = network(0..4);
    moved.interfaces[0].addresses[0].0 = "198.51.100.2".parse().unwrap();
    assert_eq!(world.on(moved), [1, 10, 11, 12, 13]);
    world.announced.clear();
    world.advance(secs(25));
    world.announced.sort_unstable();
    assert_eq!(world.announced, [1, 10, 11, 12, 13], "and all of them in their turn");
}

#[test]
fn containers_that_come_and_go_leave_paths_and_candidates_as_they_are() {
    let mut world = World::new(HostConfig {
        given: vec![(key(2).device_id(), addr("198.51.100.9:4000"))],
        ..HostConfig::default()
    });
    world.on(network(0..3));
    let _ = world.send(2, 10);
    world.answer(2, addr("198.51.100.9:4000"));
    world.advance(secs(3));
    let (hellos, events) = (world.hellos.len(), world.events.len());
    for containers in [0..2, 0..9, 4..9] {
        world.on(network(containers));
        world.advance(ms(100));
    }
    assert_eq!(world.hellos.len(), hellos);
    assert!(!world.events[events..].iter().any(|event| matches!(event, Event::PathChanged { .. })));
    let peer = world.host.peer_status(key(2).device_id(), world.now).unwrap();
    assert_eq!(peer.path, Path::Direct(addr("198.51.100.9:4000")));
}

#[test]
fn a_network_that_has_become_near_is_tried() {
    let mut world = World::registered(HostConfig::default());
    world.on(network(0..3));
    let peer = key(2).device_id();
    let _ = world.send(2, 10);
    world.hand_over(&BaseFrame::DeviceAddresses(DeviceAddresses {
        device: peer,
        online: true,
        joined: false,
        introduction: IntroductionKey::NONE,
        reflexive: vec![],
        own: vec![addr("172.20.0.5:4000")],
    }));
    let tried = |world: &World| world.hello_times(addr("172.20.0.5:4000")).len();
    assert_eq!(tried(&world), 0, "it is somebody else's in every network");
    let mut near = network(0..3);
    near.interfaces[1].addresses.push(("172.20.0.1".parse().unwrap(), 24));
    world.on(near);
    assert_eq!(tried(&world), 1);
}

/// Two ways out, of which the system prefers the first.
fn two_ways() -> Network {
    let way = |index: u32, address: &str, preferred| Interface {
        index,
        name: format!("eth{index}"),
        loopback: false,
        multicast: false,
        default_v4: true,
        default_v6: false,
        preferred,
        addresses: vec![(address.parse().unwrap(), 24)],
        routes: vec![],
    };
    let interfaces = vec![way(1, WIFI, true), way(2, LTE, false)];
    Network { interfaces, port_v4: Some(4000), port_v6: None }
}

const WIFI: &str = "10.1.0.2";
const LTE: &str = "100.64.0.2";
const BASE_ADDRESS: &str = "203.0.113.9:4477";

fn with_two_ways() -> World {
    let bases = vec!["203.0.113.9".parse().unwrap()];
    let mut world = World::new(HostConfig { bases, link_local: false, ..HostConfig::default() });
    world.host.handle_network(two_ways(), world.now);
    world.drain();
    world.connects.clear();
    world.resolved(0, Ok(vec![addr(BASE_ADDRESS)]));
    world
}

#[test]
fn a_base_that_the_preferred_way_does_not_lead_to_is_reached_by_the_other_one_over_tcp_and_udp() {
    let mut world = with_two_ways();
    let began = world.now;
    world.advance(secs(2));
    let by_choice: Vec<_> = world.connects.iter().map(|&(_, to)| to.port()).collect();
    assert_eq!(by_choice, [4477, 443]);
    let &[(at, source, to)] = &world.further_connects[..] else { panic!("{:?}", world.further_connects) };
    assert_eq!((source, to), (LTE.parse().unwrap(), addr(BASE_ADDRESS)));
    assert_eq!(at - began, ms(500), "after the others have begun");

    world.connected_and_greeted();
    world.welcomed(vec![addr(BASE_ADDRESS)]);
    assert!(world.host.is_registered());
    world.advance(ms(300));
    let sources = |world: &World| {
        let to_base = world.sources.iter().filter(|(to, _)| *to == addr(BASE_ADDRESS));
        to_base.map(|&(_, source)| source).collect::<Vec<_>>()
    };
    let by_udp = sources(&world);
    assert!(!by_udp.is_empty() && by_udp.iter().all(|&s| s == Some(LTE.parse().unwrap())), "{by_udp:?}");

    // That way is gone: whatever leads to the base is taken.
    let Network { mut interfaces, port_v4, port_v6 } = two_ways();
    interfaces.pop();
    world.sources.clear();
    world.host.handle_network(Network { interfaces, port_v4, port_v6 }, world.now);
    world.drain();
    world.advance(ms(300));
    let by_udp = sources(&world);
    assert!(!by_udp.is_empty() && by_udp.iter().all(Option::is_none), "{by_udp:?}");
}

#[test]
fn a_base_that_answers_is_tried_by_no_other_way() {
    let mut world = with_two_ways();
    world.connected_and_greeted();
    world.advance(secs(2));
    assert_eq!(world.further_connects, []);
}
