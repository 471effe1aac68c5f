//! A network that has IPv6 alone and a NAT64: what others know by IPv4 addresses is tried under those that the NAT64 has for them.

mod host_world;

use std::net::SocketAddr;

use bowline_proto::{
    host::{HostConfig, Interface, Nat64, Network, Path, Route},
    wire::{
        peer::IntroductionKey,
        tcp::{BaseFrame, DeviceAddresses},
    },
};
use host_world::{World, addr, key, ms};

const PEER: &str = "198.51.100.20:5000";
const PEER_BEHIND_NAT64: &str = "[64:ff9b::198.51.100.20]:5000";
const BASE_BY_IPV4: &str = "203.0.113.9:4477";
const BASE_BEHIND_NAT64: &str = "[64:ff9b::203.0.113.9]:4477";

fn nat64() -> Option<Nat64> {
    Some(Nat64::of("64:ff9b::192.0.0.170".parse().unwrap()).unwrap())
}

/// A host that is registered at a base with this UDP address and has been told where its peer 2 is.
fn world() -> World {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(BASE_BY_IPV4)]);
    let _ = world.send(2, 10);
    tell(&mut world, &[PEER], &["10.1.0.2:5000"]);
    world
}

fn tell(world: &mut World, reflexive: &[&str], own: &[&str]) {
    let addresses = |texts: &[&str]| texts.iter().map(|text| addr(text)).collect();
    world.hand_over(&BaseFrame::DeviceAddresses(DeviceAddresses {
        device: key(2).device_id(),
        online: true,
        joined: false,
        introduction: IntroductionKey::NONE,
        reflexive: addresses(reflexive),
        own: addresses(own),
    }));
}

/// The device is in a network that has IPv6 alone.
fn moves_to_ipv6(world: &mut World) {
    let lte = Interface {
        index: 7,
        name: "lte0".to_owned(),
        loopback: false,
        multicast: false,
        default_v4: false,
        default_v6: true,
        preferred: true,
        addresses: vec![("2001:db8:7::2".parse().unwrap(), 64)],
        routes: vec![],
    };
    let network = Network { interfaces: vec![lte], port_v4: Some(4000), port_v6: Some(4000) };
    world.host.handle_network(network, world.now);
    world.drain();
}

/// Where datagrams have gone since the last time this was asked.
fn sent_to(world: &mut World) -> Vec<SocketAddr> {
    world.datagrams.drain(..).map(|(to, _)| to).collect()
}

#[test]
fn peer_and_base_are_tried_behind_the_nat64_and_the_path_stands_there() {
    let mut world = world();
    moves_to_ipv6(&mut world);
    let _ = sent_to(&mut world);
    world.host.handle_nat64(nat64(), world.now);
    world.drain();
    world.advance(ms(300));
    let sent = sent_to(&mut world);
    assert!(sent.contains(&addr(PEER_BEHIND_NAT64)) && sent.contains(&addr(BASE_BEHIND_NAT64)), "{sent:?}");
    assert!(!sent.contains(&addr(PEER)) && !sent.contains(&addr(BASE_BY_IPV4)), "{sent:?}");
    // A private address means another machine there.
    assert!(sent.iter().all(|to| !to.to_string().contains("64:ff9b::a01:2")), "{sent:?}");

    world.answer(2, addr(PEER_BEHIND_NAT64));
    let direct = |world: &World| {
        let status = world.host.peer_status(key(2).device_id(), world.now);
        status.is_some_and(|status| status.path == Path::Direct(addr(PEER_BEHIND_NAT64)))
    };
    assert!(direct(&world));
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(hop)) if hop.to == addr(PEER_BEHIND_NAT64)));
    // The base says the same once more, as it does after every change: nobody has moved.
    tell(&mut world, &[PEER], &["10.1.0.2:5000", "10.1.0.3:5000"]);
    assert!(matches!(world.send(2, 10), Ok(Route::Direct(_))), "the path is above suspicion");
    // It says that the peer is elsewhere: now it has.
    tell(&mut world, &["198.51.100.20:6000"], &[]);
    assert!(matches!(world.send(2, 10), Ok(Route::Both(..))), "the path is suspect");
}

#[test]
fn a_nat64_counts_only_where_nothing_else_leads_to_ipv4() {
    let mut world = world();
    world.host.handle_nat64(nat64(), world.now);
    world.drain();
    world.advance(ms(300));
    let sent = sent_to(&mut world);
    assert!(sent.contains(&addr(PEER)) && sent.iter().all(SocketAddr::is_ipv4), "{sent:?}");

    // It is remembered, and counts as soon as it is needed, …
    moves_to_ipv6(&mut world);
    world.advance(ms(300));
    let sent = sent_to(&mut world);
    assert!(sent.contains(&addr(PEER_BEHIND_NAT64)) && sent.iter().all(SocketAddr::is_ipv6), "{sent:?}");
    // … until there is IPv4 again …
    world.moves_to("198.51.100.1");
    world.advance(ms(300));
    let sent = sent_to(&mut world);
    assert!(sent.contains(&addr(PEER)) && sent.contains(&addr(BASE_BY_IPV4)), "{sent:?}");
    assert!(!sent.contains(&addr(BASE_BEHIND_NAT64)), "{sent:?}");
    // … or none any more.
    moves_to_ipv6(&mut world);
    world.host.handle_nat64(None, world.now);
    world.drain();
    let _ = sent_to(&mut world);
    world.advance(ms(300));
    let sent = sent_to(&mut world);
    assert!(sent.iter().all(SocketAddr::is_ipv4), "{sent:?}");
}
