//! The world: clock, event queue, nodes. Whoever runs it sees time pass only as events come.
//!
//! One seed gives one run. Everything that happens is an event in one queue, ordered by moment and then by when it
//! was put there; every choice by chance comes from generators that the seed starts. The world performs what nodes
//! ask for, watches what must never happen, and counts every message from hand to hand. What happens *to* it (faults,
//! traffic) comes from outside: from tests, or from [`crate::scenario`].

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId,
    host::{Host, Path, PeerStatus, Route, SendError},
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::passing::{Event, Queued};
use crate::{
    adversary::{self, Attacker},
    base_node::{BaseNode, PORT},
    bus::Bus,
    checks::{self, Violation},
    fabric::{Fabric, Hop, NetId},
    host_node::HostNode,
    logs,
    packet::{Body, NodeId, Packet, Time},
    stack::{Emitted, Env, Iface, Stack},
    trace::Trace,
};

mod building;
mod passing;

/// Violations kept; one is enough to fail, a few tell more.
const MAX_VIOLATIONS: usize = 20;

/// A node: a host or a base.
#[derive(Debug)]
enum Node {
    Host(Box<HostNode>),
    Base(Box<BaseNode>),
}

/// A message that came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it was sent.
    pub sent: Time,
    /// When it came first.
    pub at: Time,
    /// The way it came first.
    pub path: Path,
    /// How often it came in all.
    pub times: u32,
}

#[derive(Debug, Default)]
struct Messages {
    next: u64,
    sent: BTreeMap<u64, Time>,
    arrived: BTreeMap<u64, Arrival>,
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// The nets.
    pub fabric: Fabric,
    /// The packet diagram.
    pub trace: Trace,
    /// What must never happen and did.
    pub violations: Vec<Violation>,
    /// What the bases of the cluster share.
    pub bus: Bus,
    /// Names that resolve.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    origin: Instant,
    now: Time,
    order: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    nodes: Vec<Node>,
    woken: Vec<Option<Time>>,
    rngs: Vec<ChaCha8Rng>,
    seeds: ChaCha8Rng,
    messages: BTreeMap<(NodeId, NodeId), Messages>,
    next_v6: u16,
    /// How far each node's clock is ahead.
    skews: Vec<Duration>,
    attacker: Option<Attacker>,
    attacking: bool,
    flooding: BTreeSet<NodeId>,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        logs::watch();
        let mut seeds = ChaCha8Rng::seed_from_u64(seed);
        Self {
            fabric: Fabric::new(seeds.random()),
            trace: Trace::default(),
            violations: Vec::new(),
            bus: Bus::default(),
            names: BTreeMap::new(),
            origin: Instant::now(),
            now: Time::ZERO,
            order: 0,
            queue: BinaryHeap::new(),
            nodes: Vec::new(),
            woken: Vec::new(),
            rngs: Vec::new(),
            seeds,
            messages: BTreeMap::new(),
            next_v6: 1,
            skews: Vec::new(),
            attacker: None,
            attacking: false,
            flooding: BTreeSet::new(),
        }
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The moment as machines know it whose clocks never jumped.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.origin + self.now
    }

    /// The moment as a node's machine knows it.
    #[must_use]
    pub fn instant_at(&self, node: NodeId) -> Instant {
        self.instant() + self.skews[node.0]
    }

    /// When a moment that a machine names was.
    #[must_use]
    pub fn time_of(&self, instant: Instant) -> Time {
        instant.saturating_duration_since(self.origin)
    }

    // ---- looking --------------------------------------------------------------------------------------------

    /// A host.
    ///
    /// # Panics
    /// When the node is a base: the test's mistake.
    #[must_use]
    pub fn at_host(&self, node: NodeId) -> &HostNode {
        match &self.nodes[node.0] {
            Node::Host(host) => host,
            Node::Base(_) => panic!("{node:?} is a base"),
        }
    }

    /// A base.
    ///
    /// # Panics
    /// When the node is a host: the test's mistake.
    #[must_use]
    pub fn at_base(&self, node: NodeId) -> &BaseNode {
        match &self.nodes[node.0] {
            Node::Base(base) => base,
            Node::Host(_) => panic!("{node:?} is a host"),
        }
    }

    /// All hosts.
    #[must_use]
    pub fn hosts(&self) -> Vec<NodeId> {
        (0..self.nodes.len()).map(NodeId).filter(|n| matches!(self.nodes[n.0], Node::Host(_))).collect()
    }

    /// All bases.
    #[must_use]
    pub fn bases(&self) -> Vec<NodeId> {
        (0..self.nodes.len()).map(NodeId).filter(|n| matches!(self.nodes[n.0], Node::Base(_))).collect()
    }

    /// A host's ID.
    #[must_use]
    pub fn id(&self, node: NodeId) -> DeviceId {
        match &self.nodes[node.0] {
            Node::Host(host) => host.id,
            Node::Base(base) => base.id,
        }
    }

    /// An address of a node on its first interface that has one of this family.
    #[must_use]
    pub fn address(&self, node: NodeId, v4: bool) -> Option<IpAddr> {
        let wanted = |ip: &IpAddr| ip.is_ipv4() == v4 && !crate::fabric::is_link_local(*ip);
        self.stack(node).ifaces.iter().flat_map(|i| i.addresses.iter().map(|a| a.0)).find(wanted)
    }

    /// A node's network stack.
    #[must_use]
    pub fn stack(&self, node: NodeId) -> &Stack {
        match &self.nodes[node.0] {
            Node::Host(host) => &host.stack,
            Node::Base(base) => &base.stack,
        }
    }

    /// What one host knows of another.
    #[must_use]
    pub fn peer(&self, from: NodeId, to: NodeId) -> Option<PeerStatus> {
        self.at_host(from).machine()?.peer_status(self.id(to), self.instant_at(from))
    }

    /// The way messages from one host to another take at present.
    #[must_use]
    pub fn path(&self, from: NodeId, to: NodeId) -> Path {
        self.peer(from, to).map_or(Path::None, |peer| peer.path)
    }

    /// Whether messages from one host to another go directly.
    #[must_use]
    pub fn is_direct(&self, from: NodeId, to: NodeId) -> bool {
        matches!(self.path(from, to), Path::Direct(_))
    }

    /// What became of a message.
    #[must_use]
    pub fn arrival(&self, from: NodeId, to: NodeId, number: u64) -> Option<Arrival> {
        self.messages.get(&(from, to))?.arrived.get(&number).copied()
    }

    /// How many messages of a pair were sent since a moment and did arrive, and did not.
    #[must_use]
    pub fn tally(&self, from: NodeId, to: NodeId, since: Time, until: Time) -> (usize, usize) {
        let Some(messages) = self.messages.get(&(from, to)) else { return (0, 0) };
        let sent: Vec<u64> =
            messages.sent.iter().filter(|(_, at)| (since..until).contains(*at)).map(|(&n, _)| n).collect();
        let came = sent.iter().filter(|n| messages.arrived.contains_key(n)).count();
        (came, sent.len() - came)
    }

    /// Panics with the violations and the diagram around them, if there are any.
    ///
    /// # Panics
    /// When something happened that must not.
    pub fn assert_held(&self) {
        if let Some(first) = self.violations.first() {
            let diagram = self.trace.diagram(first.at.saturating_sub(Duration::from_secs(3)), first.at);
            panic!("{:#?}\n{diagram}", self.violations);
        }
    }

    // ---- acting ---------------------------------------------------------------------------------------------

    /// Sends a message of the least length.
    ///
    /// # Errors
    /// The machine's.
    pub fn send(&mut self, from: NodeId, to: NodeId) -> Result<(u64, Route), SendError> {
        self.send_sized(from, to, checks::MIN_MESSAGE)
    }

    /// Sends a message of a length: its number, and where the machine sent it.
    ///
    /// # Errors
    /// The machine's.
    pub fn send_sized(&mut self, from: NodeId, to: NodeId, length: usize) -> Result<(u64, Route), SendError> {
        let id = self.id(to);
        let messages = self.messages.entry((from, to)).or_default();
        let number = messages.next;
        messages.next += 1;
        let data = checks::message(from, to, number, length);
        let now = self.now;
        let result = self.with_host(from, |host, env| {
            let result = host.send(id, &data, env);
            if let Err(error) = &result {
                env.trace.note(env.now, Some(host.node), format!("cannot send: {error}"));
            }
            result
        })?;
        if let Some(messages) = self.messages.get_mut(&(from, to)) {
            messages.sent.insert(number, now);
        }
        self.settle_effects(from);
        Ok((number, result))
    }

    /// Does something with a host's machine.
    pub fn call<T>(&mut self, node: NodeId, f: impl FnOnce(&mut Host, Instant) -> T) -> Option<T> {
        self.with_host(node, |host, env| host.with(env, f))
    }

    /// Does something with a host, then performs what it asks for.
    ///
    /// # Panics
    /// When the node is a base: the test's mistake.
    pub fn with_host<T>(&mut self, node: NodeId, f: impl FnOnce(&mut HostNode, &mut Env<'_>) -> T) -> T {
        let mut emitted = Emitted::new();
        let mut env = Env {
            now: self.now,
            origin: self.origin + self.skews[node.0],
            rng: &mut self.rngs[node.0],
            trace: &mut self.trace,
            emitted: &mut emitted,
        };
        let Node::Host(host) = &mut self.nodes[node.0] else { panic!("{node:?} is a base") };
        let result = f(host, &mut env);
        self.settle(node, emitted);
        result
    }

    /// Does something with a base, then performs what it asks for.
    ///
    /// # Panics
    /// When the node is a host: the test's mistake.
    pub fn with_base<T>(&mut self, node: NodeId, f: impl FnOnce(&mut BaseNode, &mut Env<'_>) -> T) -> T {
        let mut emitted = Emitted::new();
        let mut env = Env {
            now: self.now,
            origin: self.origin + self.skews[node.0],
            rng: &mut self.rngs[node.0],
            trace: &mut self.trace,
            emitted: &mut emitted,
        };
        let Node::Base(base) = &mut self.nodes[node.0] else { panic!("{node:?} is a host") };
        let result = f(base, &mut env);
        self.settle(node, emitted);
        result
    }

    /// An attacker on a net sends a datagram with any source he likes.
    pub fn inject(&mut self, net: NetId, src: SocketAddr, dst: SocketAddr, payload: Bytes) {
        let line = self.trace.datagram(self.now, None, src, dst, &payload);
        let packet = Packet { src, dst, body: Body::Udp(payload), origin: None, line };
        self.push(self.now, Event::Hop(Hop::Local(net, packet)));
    }

    /// Somebody on the internet begins to listen and to forge, or stops.
    pub fn attack(&mut self, on: bool) {
        if on && !self.attacking {
            let seed = self.seeds.random();
            self.attacker.get_or_insert_with(|| Attacker::new(seed));
            self.push(self.now, Event::Attack);
        }
        self.attacking = on;
    }

    /// A host writes to its base what no machine would, or stops.
    pub fn flood(&mut self, host: NodeId, on: bool) {
        if on && self.flooding.insert(host) {
            self.push(self.now, Event::Flood(host));
        } else if !on {
            self.flooding.remove(&host);
        }
    }

    /// A host tells its base that the addresses of everyone else are its own.
    pub fn lie(&mut self, host: NodeId) {
        let others = (0..self.nodes.len()).map(NodeId).filter(|&node| node != host);
        let victims = others.flat_map(|node| {
            let port = if let Node::Host(victim) = &self.nodes[node.0] { victim.port } else { PORT };
            self.stack(node)
                .ifaces
                .iter()
                .flat_map(|i| &i.addresses)
                .map(move |a| (a.0, port))
                .collect::<Vec<_>>()
        });
        let routers = self.fabric.ids().filter_map(|net| self.fabric.net(net).gateway.nat.as_ref());
        let routers = routers.map(|nat| (nat.external.into(), PORT));
        let frames = adversary::lie(victims.chain(routers));
        self.with_host(host, |host, env| host.write_beside(&frames, env));
    }

    /// A node's clock jumps ahead; with `told`, a host learns of it as of a time asleep.
    pub fn jump_clock(&mut self, node: NodeId, by: Duration, told: bool) {
        self.skews[node.0] += by;
        match self.nodes[node.0] {
            Node::Host(_) => self.with_host(node, |host, env| {
                if host.is_awake() && told {
                    host.with(env, Host::handle_resume);
                }
                host.on_wake(env);
            }),
            Node::Base(_) => self.with_base(node, BaseNode::on_wake),
        }
    }

    /// The gateway of a net forgets all TCP connections of hosts on it without telling anybody.
    pub fn forget_tcp(&mut self, net: NetId) {
        for host in self.hosts_on(net) {
            let conns: Vec<u64> = self.stack(host).streams().map(|(_, conn)| conn).collect();
            self.fabric.net_mut(net).gateway.forgotten.extend(conns);
        }
    }

    /// The gateway of a net resets all TCP connections of hosts on it.
    pub fn reset_tcp(&mut self, net: NetId) {
        for host in self.hosts_on(net) {
            self.with_host(host, HostNode::reset_connections);
        }
    }

    fn hosts_on(&self, net: NetId) -> Vec<NodeId> {
        let hosts = self.hosts().into_iter();
        hosts.filter(|&host| self.stack(host).ifaces.iter().any(|iface| iface.net == net)).collect()
    }

    /// A line in the diagram.
    pub fn note(&mut self, node: Option<NodeId>, text: impl Into<String>) {
        self.trace.note(self.now, node, text);
    }

    /// Records that something must never have happened.
    pub fn violate(&mut self, node: Option<NodeId>, what: impl Into<String>) {
        let what = what.into();
        self.trace.note(self.now, node, format!("VIOLATION: {what}"));
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { at: self.now, node, what });
        }
    }

    /// A base's program starts (again).
    pub fn start_base(&mut self, node: NodeId) {
        self.with_base(node, BaseNode::start);
        if self.at_base(node).cluster.is_some() {
            let (id, now, mut out) = (self.id(node), self.now, Vec::new());
            self.bus.attach(node, id, now, &mut out);
            self.deliver_on_bus(out);
        }
    }

    /// A base's program is killed: its connections are reset, and its link with the bus breaks.
    pub fn kill_base(&mut self, node: NodeId) {
        self.lose_base(node, false);
    }

    /// A base's program dies, or with `silently` its whole machine: then nobody is told.
    pub fn lose_base(&mut self, node: NodeId, silently: bool) {
        self.with_base(node, |base, env| base.crash(silently, env));
        if self.at_base(node).cluster.is_some() {
            self.link_with_bus(node, false);
        }
    }

    /// Makes or breaks a base's link with the bus.
    pub fn link_with_bus(&mut self, node: NodeId, up: bool) {
        let (now, mut out) = (self.now, Vec::new());
        self.note(Some(node), if up { "its bus is there" } else { "its bus is gone" });
        self.bus.set_link(node, up, now, &mut out);
        self.deliver_on_bus(out);
    }

    /// The bus's server stops or starts; `emptied`: and has lost what was stored.
    pub fn run_bus(&mut self, running: bool, emptied: bool) {
        let (now, mut out) = (self.now, Vec::new());
        self.note(None, if running { "the bus runs" } else { "the bus has stopped" });
        self.bus.set_running(running, emptied, now, &mut out);
        self.deliver_on_bus(out);
    }

    /// A net's NAT and firewall lose all their state.
    pub fn reboot_router(&mut self, net: NetId) {
        let rng = &mut self.seeds;
        let gateway = &mut self.fabric.net_mut(net).gateway;
        if let Some(nat) = &mut gateway.nat {
            nat.reboot(rng);
        }
        if let Some(firewall) = &mut gateway.firewall {
            firewall.reboot();
        }
    }

    /// Gives a host's interface another net (or none): what roaming and address changes are made of. The host is told
    /// by [`HostNode::network_changed`], which is for the caller to do.
    pub fn move_interface(&mut self, node: NodeId, index: u32, to: Option<NetId>) {
        let Node::Host(host) = &mut self.nodes[node.0] else { return };
        if let Some(at) = host.stack.ifaces.iter().position(|i| i.index == index) {
            let old = host.stack.ifaces.remove(at);
            self.fabric.detach(old.net, node, index);
        }
        if let Some(net) = to {
            let addresses = self.fabric.attach(net, node, index);
            host.stack.ifaces.push(Iface { index, net, addresses, multicast: true });
            host.stack.ifaces.sort_by_key(|i| i.index);
        }
    }
}
