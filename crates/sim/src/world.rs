//! The world: clock, event queue, nodes. Whoever runs it sees time pass only as events come.
//!
//! One seed gives one run. Everything that happens is an event in one queue, ordered by moment and then by when it
//! was put there; every choice by chance comes from generators that the seed starts. The world performs what nodes
//! ask for, watches what must never happen, and counts every message from hand to hand. What happens *to* it (faults,
//! traffic) comes from outside: from tests, or from [`crate::scenario`].

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId, SecretKey,
    host::{BaseName, Host, HostConfig, Path, PeerStatus, Route, SendError},
    wire::announce,
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    adversary::{self, Attacker, Forged},
    base_node::{BaseNode, PORT},
    bus::{Bus, Delivery, Heard},
    checks::{self, FORGED, REPLAYED, Violation},
    fabric::{Fabric, Hop, Hops, INTERNET, NetId, NetSpec, Prefix, Step, scoped},
    host_node::{Effect, HostNode, Received},
    link::Profile,
    logs,
    nat::{Dependence, Firewall, NatKind},
    packet::{Body, NodeId, Packet, Time},
    stack::{Emitted, Env, Iface, Stack},
    trace::{Fate, Trace},
};

/// A lookup of a name takes this long.
const RESOLVE_TIME: Duration = Duration::from_millis(20);
/// IPv6 nets of the world: `2a00:1::/32` and up, ordinary unicast space.
const PUBLIC_V6: u16 = 0x2a00;
/// Violations kept; one is enough to fail, a few tell more.
const MAX_VIOLATIONS: usize = 20;

#[derive(Debug)]
enum Event {
    Hop(Hop),
    Wake(NodeId),
    Resolved {
        node: NodeId,
        base: usize,
        result: Result<Vec<SocketAddr>, String>,
    },
    Announcement {
        node: NodeId,
        from: SocketAddr,
        payload: Bytes,
    },
    /// Something comes to a base from the bus, if its link has not been broken since it was sent.
    Bus {
        node: NodeId,
        session: u32,
        heard: Heard,
    },
    /// The attacker's turn.
    Attack,
    /// The turn of a device that floods.
    Flood(NodeId),
}

#[derive(Debug)]
struct Queued {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

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

    // ---- building -------------------------------------------------------------------------------------------

    /// A net with public addresses of both families and no gateway rules: a data centre.
    pub fn data_centre(&mut self, name: &str, latency: Duration) -> NetId {
        let v4 = Some(self.fabric.public_v4());
        let v6 = Some(self.public_v6());
        self.fabric.add(NetSpec { v4, v6, ..spec(name, INTERNET, latency) })
    }

    /// A home: private IPv4 behind a NAT, no IPv6.
    pub fn home(&mut self, name: &str, nat: NatKind, latency: Duration) -> NetId {
        self.home_in(name, INTERNET, nat, latency)
    }

    /// A home whose NAT stands in another net (a carrier's).
    pub fn home_in(&mut self, name: &str, parent: NetId, nat: NatKind, latency: Duration) -> NetId {
        let v4 = Some(Prefix::new(IpAddr::from([192, 168, 1, 0]), 24));
        self.fabric.add(NetSpec { v4, nat: Some(nat), ..spec(name, parent, latency) })
    }

    /// A carrier's net behind its NAT.
    pub fn carrier(&mut self, name: &str, nat: NatKind, latency: Duration) -> NetId {
        let v4 = Some(Prefix::new(IpAddr::from([100, 64, 0, 0]), 16));
        self.fabric.add(NetSpec { v4, nat: Some(nat), ..spec(name, INTERNET, latency) })
    }

    /// A net with IPv6 alone behind a stateful firewall.
    pub fn home_v6(&mut self, name: &str, filtering: Dependence, latency: Duration) -> NetId {
        let v6 = Some(self.public_v6());
        let firewall = Some(Firewall::new(filtering, Duration::from_secs(120)));
        self.fabric.add(NetSpec { v6, firewall, ..spec(name, INTERNET, latency) })
    }

    /// A link without any router: only link-local addresses.
    pub fn bare_link(&mut self, name: &str) -> NetId {
        self.fabric.add(spec(name, INTERNET, Duration::ZERO))
    }

    /// A /64 that nobody else has.
    pub fn public_v6(&mut self) -> Prefix {
        self.next_v6 += 1;
        Prefix::new(Ipv6Addr::new(PUBLIC_V6, self.next_v6, 0, 0, 0, 0, 0, 0), 64)
    }

    /// A base on a net; it runs at once.
    pub fn base(&mut self, name: &str, net: NetId) -> NodeId {
        let node = self.idle_base(name, net);
        self.with_base(node, BaseNode::start);
        node
    }

    /// A base of the world's cluster on a net; it runs at once. Data between bases may take UDP, or takes the bus.
    pub fn clustered_base(&mut self, name: &str, net: NetId, over_udp: bool) -> NodeId {
        let node = self.idle_base(name, net);
        self.with_base(node, |base, _| base.cluster = Some((DeviceId::from_bytes([0xc1; 14]), over_udp)));
        self.start_base(node);
        node
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

    fn deliver_on_bus(&mut self, out: Vec<Delivery>) {
        for (node, session, heard, at) in out {
            self.push(at, Event::Bus { node, session, heard });
        }
    }

    /// A base on a net whose program has not been started.
    pub fn idle_base(&mut self, name: &str, net: NetId) -> NodeId {
        let node = self.next_node(name);
        let mut stack = Stack::new(node);
        self.attach(&mut stack, net, 1);
        let id = SecretKey::from_seed(&self.seeds.random()).device_id();
        for ip in stack.ifaces.iter().flat_map(|i| i.addresses.iter().map(|a| a.0)) {
            self.trace.address(ip, name);
        }
        self.nodes.push(Node::Base(Box::new(BaseNode::new(node, id, stack))));
        node
    }

    /// A host on a net, with these bases; it runs at once.
    pub fn host(&mut self, name: &str, net: NetId, bases: &[NodeId]) -> NodeId {
        self.host_with(name, &[net], bases, None, |_| {})
    }

    /// A host with several interfaces, a key of choice, or another configuration; it runs at once.
    pub fn host_with(
        &mut self,
        name: &str,
        nets: &[NetId],
        bases: &[NodeId],
        key: Option<SecretKey>,
        configure: impl FnOnce(&mut HostConfig),
    ) -> NodeId {
        let node = self.make_host(name, nets, bases, key, configure);
        self.with_host(node, HostNode::start);
        node
    }

    /// A host whose program has not been started.
    pub fn idle_host(&mut self, name: &str, nets: &[NetId], bases: &[NodeId]) -> NodeId {
        self.make_host(name, nets, bases, None, |_| {})
    }

    /// A host with another's key and bases, whose program has not been started.
    pub fn idle_twin(&mut self, name: &str, net: NetId, of: NodeId) -> NodeId {
        let (key, bases) = (self.at_host(of).key().clone(), self.at_host(of).config.bases.clone());
        self.make_host(name, &[net], &[], Some(key), |config| config.bases = bases)
    }

    fn make_host(
        &mut self,
        name: &str,
        nets: &[NetId],
        bases: &[NodeId],
        key: Option<SecretKey>,
        configure: impl FnOnce(&mut HostConfig),
    ) -> NodeId {
        let node = self.next_node(name);
        let mut stack = Stack::new(node);
        for (net, index) in nets.iter().zip(1..) {
            self.attach(&mut stack, *net, index);
        }
        let key = key.unwrap_or_else(|| SecretKey::from_seed(&self.seeds.random()));
        let mut config = HostConfig { bases: self.base_names(bases, &stack), ..HostConfig::default() };
        configure(&mut config);
        // Distinct ports: collisions at port-preserving NATs are a case of its own, not an accident.
        let port = 40_000 + node.0 as u16 * 7;
        let mut host = HostNode::new(node, key, config, port, stack);
        host.base_ips = self.base_ips();
        self.nodes.push(Node::Host(Box::new(host)));
        node
    }

    /// Bases as a user on this host would write them: by the family that the host has.
    fn base_names(&self, bases: &[NodeId], stack: &Stack) -> Vec<BaseName> {
        let has_v4 = stack.ifaces.iter().any(|i| i.addresses.iter().any(|a| a.0.is_ipv4()));
        bases
            .iter()
            .filter_map(|&base| {
                let ip = self.address(base, has_v4)?;
                Some(BaseName { id: None, host: ip.to_string(), port: PORT })
            })
            .collect()
    }

    fn base_ips(&self) -> Vec<IpAddr> {
        let bases = self.nodes.iter().filter_map(|n| if let Node::Base(b) = n { Some(b) } else { None });
        bases.flat_map(|b| b.stack.ifaces.iter().flat_map(|i| i.addresses.iter().map(|a| a.0))).collect()
    }

    fn next_node(&mut self, name: &str) -> NodeId {
        let node = NodeId(self.nodes.len());
        self.trace.name(node, name);
        self.woken.push(None);
        self.skews.push(Duration::ZERO);
        self.rngs.push(ChaCha8Rng::seed_from_u64(self.seeds.random()));
        node
    }

    fn attach(&mut self, stack: &mut Stack, net: NetId, index: u32) {
        let node = NodeId(self.rngs.len() - 1);
        let addresses = self.fabric.attach(net, node, index);
        stack.ifaces.push(Iface { index, net, addresses, multicast: true });
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

    // ---- passing time ---------------------------------------------------------------------------------------

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Lets time pass up to a moment.
    pub fn run_until(&mut self, until: Time) {
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    /// Lets time pass until something is so; answers when, or `None` if it is not so after `limit`.
    pub fn wait(&mut self, limit: Duration, mut is_so: impl FnMut(&Self) -> bool) -> Option<Time> {
        let until = self.now + limit;
        loop {
            if is_so(self) {
                return Some(self.now);
            }
            if !self.step(until) {
                self.now = self.now.max(until);
                return is_so(self).then_some(self.now);
            }
        }
    }

    /// The next event that is due by then, if there is one.
    fn step(&mut self, until: Time) -> bool {
        let Some(Reverse(next)) = self.queue.peek() else { return false };
        if next.at > until {
            return false;
        }
        let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        match event {
            Event::Hop(hop) => self.hop(hop),
            Event::Wake(node) => self.wake(node, at),
            Event::Resolved { node, base, result } => {
                self.with_host(node, |host, env| {
                    if host.is_awake() {
                        host.on_resolved(base, result, env);
                    }
                });
            }
            Event::Announcement { node, from, payload } => {
                self.with_host(node, |host, env| {
                    if host.is_awake() {
                        env.trace.note(
                            env.now,
                            Some(host.node),
                            format!("hears an announcement from {from}"),
                        );
                        host.on_announcement(from, announce::HOP_LIMIT, &payload, env);
                    }
                });
            }
            Event::Bus { node, session, heard } => {
                if self.bus.delivers(node, session) {
                    self.with_base(node, |base, env| base.on_bus(heard, env));
                }
            }
            Event::Attack => self.attack_step(),
            Event::Flood(host) => self.flood_step(host),
        }
        for error in logs::take() {
            self.violate(None, format!("logged as an error: {error}"));
        }
        true
    }

    fn attack_step(&mut self) {
        if !self.attacking {
            return;
        }
        let hosts: Vec<(NodeId, DeviceId)> =
            self.hosts().into_iter().map(|host| (host, self.id(host))).collect();
        if let Some(forged) = self.attacker.as_mut().and_then(|attacker| attacker.step(&hosts)) {
            self.note_forgotten_hello(&hosts, &forged);
            self.inject(INTERNET, forged.src, forged.dst, forged.payload);
        }
        self.push(self.now + adversary::PAUSE, Event::Attack);
    }

    /// A HELLO that a host has seen so long ago that it has forgotten it gains what a new one does (section 12).
    fn note_forgotten_hello(&mut self, hosts: &[(NodeId, DeviceId)], forged: &Forged) {
        let Some(claim) = forged.replayed_hello() else { return };
        let Some(&(host, _)) = hosts.iter().find(|(_, id)| *id == claim.responder) else { return };
        let machine = self.at_host(host).machine();
        let known = machine.is_some_and(|machine| machine.remembers_hello(claim.initiator, &claim.token));
        if let (false, Some(attacker)) = (known, &mut self.attacker) {
            attacker.gains(claim.initiator, claim.responder, self.now);
        }
    }

    fn flood_step(&mut self, host: NodeId) {
        if !self.flooding.contains(&host) {
            return;
        }
        let others: Vec<DeviceId> =
            self.hosts().into_iter().filter(|&other| other != host).map(|other| self.id(other)).collect();
        let frames = adversary::flood(&mut self.rngs[host.0], &others);
        self.with_host(host, |host, env| {
            if host.is_awake() {
                host.write_beside(&frames, env);
            }
        });
        self.push(self.now + adversary::PAUSE, Event::Flood(host));
    }

    fn hop(&mut self, hop: Hop) {
        if let (Hop::Local(INTERNET, packet), true, Some(attacker)) =
            (&hop, self.attacking, &mut self.attacker)
            && packet.origin.is_some()
        {
            attacker.sees(packet, self.now);
        }
        let mut hops = Hops::new();
        let step = self.fabric.step(hop, self.now, &mut hops, &mut self.trace);
        self.schedule(hops);
        match step {
            Step::Onward => {}
            Step::Dropped(why, packet) => {
                self.trace.fate(packet.line, self.now, Fate::Dropped(why, packet.dst));
            }
            Step::Arrived(arrived) => {
                let (node, interface, packet) = (arrived.node, arrived.interface, arrived.packet);
                self.trace.fate(packet.line, self.now, Fate::Arrived(node));
                match self.nodes[node.0] {
                    Node::Host(_) => {
                        self.with_host(node, |host, env| arrive_at_host(host, interface, &packet, env));
                    }
                    Node::Base(_) => self.with_base(node, |base, env| arrive_at_base(base, &packet, env)),
                }
            }
        }
    }

    fn wake(&mut self, node: NodeId, at: Time) {
        if self.woken[node.0] != Some(at) {
            return;
        }
        self.woken[node.0] = None;
        match self.nodes[node.0] {
            Node::Host(_) => self.with_host(node, |host, env| {
                if !host.asleep {
                    host.on_wake(env);
                }
            }),
            Node::Base(_) => self.with_base(node, BaseNode::on_wake),
        }
    }

    /// Performs what a node asked for, and plans its next wake-up.
    fn settle(&mut self, node: NodeId, emitted: Emitted) {
        let mut hops = Hops::new();
        for (net, packet) in emitted {
            self.fabric.emit(net, packet, self.now, &mut hops, &mut self.trace);
        }
        self.schedule(hops);
        self.settle_effects(node);
        self.check_sizes(node);
        let wake_at = match &self.nodes[node.0] {
            Node::Host(host) if host.asleep => None,
            Node::Host(host) => host.wake_at(self.origin + self.skews[node.0]),
            Node::Base(base) => base.wake_at(self.origin + self.skews[node.0]),
        };
        if let Some(at) = wake_at.map(|at| at.max(self.now))
            && self.woken[node.0].is_none_or(|planned| at < planned)
        {
            self.woken[node.0] = Some(at);
            self.push(at, Event::Wake(node));
        }
    }

    fn check_sizes(&mut self, node: NodeId) {
        let over = match &self.nodes[node.0] {
            Node::Host(host) => host.machine().and_then(|m| m.sizes().over(host.config.bases.len())),
            Node::Base(base) => base.machine().and_then(|m| m.sizes().over(&base.config)),
        };
        if let Some(over) = over {
            self.violate(Some(node), format!("more than its bound: {over}"));
        }
    }

    fn settle_effects(&mut self, node: NodeId) {
        let effects = match &mut self.nodes[node.0] {
            Node::Host(host) => host.take_effects(),
            Node::Base(base) => base.take_violations().into_iter().map(Effect::Violation).collect(),
        };
        if let Node::Base(base) = &mut self.nodes[node.0] {
            let (now, mut out) = (self.now, Vec::new());
            for said in base.take_said() {
                self.bus.said(node, said, now, &mut self.rngs[node.0], &mut out);
            }
            self.deliver_on_bus(out);
        }
        for effect in effects {
            match effect {
                Effect::Violation(what) => self.violate(Some(node), what),
                Effect::Received(received) => self.received(node, &received),
                Effect::Resolve { base, host, port } => {
                    let result = match self.names.get(&host) {
                        Some(ips) => Ok(ips.iter().map(|&ip| SocketAddr::new(ip, port)).collect()),
                        None => Err("no such name".to_owned()),
                    };
                    self.push(self.now + RESOLVE_TIME, Event::Resolved { node, base, result });
                }
                Effect::Announce { net, from, payload } => self.announce(net, from, &payload),
            }
        }
    }

    fn announce(&mut self, net: NetId, from: SocketAddr, payload: &Bytes) {
        let at = self.now + self.fabric.net(net).lan.profile.latency;
        for (node, interface) in self.fabric.listeners(net) {
            if matches!(self.nodes[node.0], Node::Host(_)) {
                let from = scoped(from.ip(), from.port(), interface);
                self.push(at, Event::Announcement { node, from, payload: payload.clone() });
            }
        }
    }

    /// Counts a message, and checks that it is what its sender sent.
    fn received(&mut self, node: NodeId, received: &Received) {
        // What an attacker says under a name of his own is his own affair.
        if self.attacker.as_ref().is_some_and(|attacker| attacker.is(received.from)) {
            return;
        }
        let Some((from, to, number)) = checks::read_message(&received.data) else {
            return self.violate(Some(node), format!("a message from {} arrives altered", received.from));
        };
        if number >= FORGED {
            let (now, id) = (self.now, self.id(node));
            let admitted = |attacker: &Attacker| attacker.may_pass_for(received.from, id, now);
            if number < REPLAYED || !self.attacker.as_ref().is_some_and(admitted) {
                let what = format!("a forged message is taken for one of {}", received.from);
                self.violate(Some(node), what);
            }
            return;
        }
        if from.0 >= self.nodes.len() || self.id(from) != received.from {
            return self
                .violate(Some(node), format!("a message of {from:?} is taken for one of {}", received.from));
        }
        if to.0 >= self.nodes.len() || self.id(to) != self.id(node) {
            return self.violate(Some(node), format!("a message for {to:?} arrives at {node:?}"));
        }
        let (at, path) = (self.now, received.path);
        let Some(messages) = self.messages.get_mut(&(from, to)) else { return };
        // It may come before the sender's call has ended (to itself).
        let sent = messages.sent.get(&number).copied().unwrap_or(at);
        let arrival = messages.arrived.entry(number).or_insert(Arrival { sent, at, path, times: 0 });
        arrival.times += 1;
    }

    fn schedule(&mut self, hops: Hops) {
        for (at, hop) in hops {
            self.push(at, Event::Hop(hop));
        }
    }

    fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, event }));
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

fn arrive_at_host(host: &mut HostNode, interface: u32, packet: &Packet, env: &mut Env<'_>) {
    if host.asleep {
        return;
    }
    match &packet.body {
        Body::Udp(payload) => host.on_datagram(interface, packet.dst, packet.src, payload, env),
        Body::Tcp(segment) => {
            let events = host.stack.on_segment(packet.dst, packet.src, segment, env);
            host.on_tcp(events, env);
        }
    }
}

fn arrive_at_base(base: &mut BaseNode, packet: &Packet, env: &mut Env<'_>) {
    match &packet.body {
        Body::Udp(payload) => base.on_datagram(packet.dst, packet.src, payload, env),
        Body::Tcp(segment) => {
            let events = base.stack.on_segment(packet.dst, packet.src, segment, env);
            base.on_tcp(events, env);
        }
    }
}

/// A net with a perfect uplink and no addresses.
fn spec(name: &str, parent: NetId, latency: Duration) -> NetSpec {
    NetSpec {
        name: name.to_owned(),
        parent,
        v4: None,
        v6: None,
        nat: None,
        firewall: None,
        blocks_udp: false,
        lan: Profile::perfect(Duration::from_micros(200)),
        uplink: Profile::perfect(latency),
        multicast: true,
    }
}
