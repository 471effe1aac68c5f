//! How time passes: one event after the other, and what each does to the nodes.

use std::{cmp::Reverse, net::SocketAddr, time::Duration};

use bowline_proto::{DeviceId, wire::announce};
use bytes::Bytes;

use super::{Arrival, Node, World};
use crate::{
    adversary::{self, Attacker, Forged},
    base_node::BaseNode,
    bus::{Delivery, Heard},
    checks::{self, FORGED, REPLAYED},
    fabric::{Hop, Hops, INTERNET, NetId, Step, scoped},
    host_node::{Effect, HostNode, Received},
    logs,
    packet::{Body, NodeId, Packet, Time},
    stack::{Emitted, Env},
    trace::Fate,
};

/// A lookup of a name takes this long.
const RESOLVE_TIME: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) enum Event {
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
pub(super) struct Queued {
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

impl World {
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
    pub(super) fn settle(&mut self, node: NodeId, emitted: Emitted) {
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

    pub(super) fn settle_effects(&mut self, node: NodeId) {
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

    pub(super) fn deliver_on_bus(&mut self, out: Vec<Delivery>) {
        for (node, session, heard, at) in out {
            self.push(at, Event::Bus { node, session, heard });
        }
    }

    fn schedule(&mut self, hops: Hops) {
        for (at, hop) in hops {
            self.push(at, Event::Hop(hop));
        }
    }

    pub(super) fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, event }));
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
