//! The small worlds that tests begin with.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::{net::SocketAddr, time::Duration};

use bowline_proto::host::Event;
use bowline_sim::{
    fabric::NetId,
    nat::{Allocation, Dependence, NatKind},
    packet::NodeId,
    trace,
    world::World,
};

pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

/// From a host of [`Pair`] to the base, or to the other host: half of it is either's uplink, and a little is LANs.
pub const ONE_WAY: Duration = Duration::from_micros(20_400);
const UPLINK: Duration = Duration::from_millis(10);

/// Most home routers: endpoint-independent mapping, filtering by address and port.
pub const CONE: NatKind =
    NatKind::with(Dependence::Endpoint, Dependence::AddressAndPort, Allocation::Sequential);
/// The hardest: a new random port for every remote endpoint.
pub const SYMMETRIC: NatKind =
    NatKind::with(Dependence::AddressAndPort, Dependence::AddressAndPort, Allocation::Random);

/// Two hosts in two homes, and a base; all registered and quiet.
pub struct Pair {
    pub world: World,
    pub base: NodeId,
    pub a: NodeId,
    pub b: NodeId,
    pub net_a: NetId,
    pub net_b: NetId,
    pub centre: NetId,
}

impl Pair {
    pub fn behind(one: NatKind, other: NatKind) -> Self {
        Self::seeded(1, one, other)
    }

    pub fn seeded(seed: u64, one: NatKind, other: NatKind) -> Self {
        let mut pair = Self::unsettled(seed, one, other);
        settle(&mut pair.world);
        pair
    }

    /// The same, with nothing having happened yet.
    pub fn unsettled(seed: u64, one: NatKind, other: NatKind) -> Self {
        let mut world = World::new(seed);
        let centre = world.data_centre("centre", UPLINK);
        let net_a = world.home("home a", one, UPLINK);
        let net_b = world.home("home b", other, UPLINK);
        let base = world.base("base", centre);
        let a = world.host("a", net_a, &[base]);
        let b = world.host("b", net_b, &[base]);
        Self { world, base, a, b, net_a, net_b, centre }
    }

    /// Both send until both ways are direct.
    ///
    /// # Panics
    /// When that does not happen within a few seconds.
    pub fn make_direct(&mut self) {
        make_direct(&mut self.world, self.a, self.b);
    }
}

/// Waits until all hosts are registered and what they begin with is over.
///
/// # Panics
/// When a host does not register.
pub fn settle(world: &mut World) {
    let hosts = world.hosts();
    world
        .wait(20 * SECOND, |world| hosts.iter().all(|&host| registered(world, host)))
        .expect("all hosts register");
    world.run_for(5 * SECOND);
}

pub fn registered(world: &World, host: NodeId) -> bool {
    world.at_host(host).machine().is_some_and(bowline_proto::host::Host::is_registered)
}

/// # Panics
/// When there is no direct path within a few seconds.
pub fn make_direct(world: &mut World, a: NodeId, b: NodeId) {
    for _ in 0..20 {
        if world.is_direct(a, b) && world.is_direct(b, a) {
            return;
        }
        let _ = world.send(a, b);
        let _ = world.send(b, a);
        world.run_for(SECOND / 2);
    }
    let since = world.now().saturating_sub(11 * SECOND);
    panic!("no direct path:\n{}", world.trace.diagram(since, world.now()));
}

/// Sends a message every so often for a while: how many came, and how many did not.
pub fn talk(world: &mut World, from: NodeId, to: NodeId, every: Duration, time: Duration) -> (usize, usize) {
    let since = world.now();
    while world.now() < since + time {
        let _ = world.send(from, to);
        world.run_for(every);
    }
    let until = world.now();
    world.run_for(5 * SECOND);
    world.tally(from, to, since, until)
}

/// The names of the messages that a node sent over UDP since a moment, with when and where to.
pub fn sent(world: &World, node: NodeId, name: &str, since: Duration) -> Vec<(Duration, SocketAddr)> {
    world
        .trace
        .datagrams(node, since)
        .filter(|(_, _, payload, _)| trace::datagram(payload).starts_with(name))
        .map(|(at, to, ..)| (at, to))
        .collect()
}

/// When a node wrote frames of this type over TCP since a moment.
pub fn written(world: &World, node: NodeId, kind: u8, since: Duration) -> Vec<Duration> {
    world.trace.frames(node, since).filter(|f| f.2.first() == Some(&kind)).map(|f| f.0).collect()
}

/// How often messages of one host to another changed their way since a moment.
pub fn path_changes(world: &World, node: NodeId, since: Duration) -> usize {
    let log = &world.at_host(node).log;
    log.iter().filter(|(at, event)| *at >= since && matches!(event, Event::PathChanged { .. })).count()
}

/// Sends a message every so often until the first of them arrives: after which time that was, from the beginning.
///
/// # Panics
/// When none arrives within the limit.
pub fn first_to_arrive(
    world: &mut World,
    from: NodeId,
    to: NodeId,
    every: Duration,
    limit: Duration,
) -> Duration {
    let start = world.now();
    let mut numbers = Vec::new();
    while world.now() < start + limit {
        if let Ok((number, _)) = world.send(from, to) {
            numbers.push(number);
        }
        let arrived =
            world.wait(every, |world| numbers.iter().any(|&n| world.arrival(from, to, n).is_some()));
        if let Some(at) = arrived {
            return at - start;
        }
        world.run_until(start + every * (1 + ((world.now() - start).as_micros() / every.as_micros()) as u32));
    }
    panic!("nothing arrived within {limit:?}:\n{}", world.trace.diagram(start, world.now()));
}
