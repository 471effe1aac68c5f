//! The network of the world on its own: routes through nested NATs and firewalls, hairpin, and TCP over bad links.
//! No row of its own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bowline_sim::{
    fabric::{Fabric, Hop, INTERNET, NetId, NetSpec, Prefix, Step},
    link::Profile,
    nat::{Allocation, Dependence, Firewall, NatKind},
    packet::{Body, NodeId, Packet, Time},
    stack::{Emitted, Env, Iface, SockId, Stack},
    tcp::TcpEvent,
    trace::{Fate, Trace},
};
use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const MS: Duration = Duration::from_millis(1);

/// Nodes that are nothing but stacks, on a fabric.
struct Bench {
    fabric: Fabric,
    stacks: Vec<Stack>,
    trace: Trace,
    rng: ChaCha8Rng,
    hops: BTreeMap<(Time, u64), Hop>,
    next: u64,
    now: Time,
    origin: Instant,
    datagrams: Vec<(NodeId, SocketAddr, Bytes)>,
    told: Vec<(NodeId, SockId, TcpEvent)>,
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self {
            fabric: Fabric::new(seed),
            stacks: Vec::new(),
            trace: Trace::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            hops: BTreeMap::new(),
            next: 0,
            now: Time::ZERO,
            origin: Instant::now(),
            datagrams: Vec::new(),
            told: Vec::new(),
        }
    }

    fn node(&mut self, net: NetId) -> NodeId {
        let node = NodeId(self.stacks.len());
        let addresses = self.fabric.attach(net, node, 1);
        let mut stack = Stack::new(node);
        stack.ifaces.push(Iface { index: 1, net, addresses, multicast: true });
        self.stacks.push(stack);
        node
    }

    fn v4(&self, node: NodeId) -> IpAddr {
        self.stacks[node.0].ifaces[0].addresses.iter().map(|a| a.0).find(IpAddr::is_ipv4).unwrap()
    }

    fn with<T>(&mut self, node: NodeId, f: impl FnOnce(&mut Stack, &mut Env<'_>) -> T) -> T {
        let mut emitted = Emitted::new();
        let mut env = Env {
            now: self.now,
            origin: self.origin,
            rng: &mut self.rng,
            trace: &mut self.trace,
            emitted: &mut emitted,
        };
        let result = f(&mut self.stacks[node.0], &mut env);
        let mut hops = Vec::new();
        for (net, packet) in emitted {
            self.fabric.emit(net, packet, self.now, &mut hops, &mut self.trace);
        }
        self.schedule(hops);
        result
    }

    fn schedule(&mut self, hops: Vec<(Time, Hop)>) {
        for (at, hop) in hops {
            self.hops.insert((at, self.next), hop);
            self.next += 1;
        }
    }

    fn udp(&mut self, from: NodeId, to: SocketAddr) {
        self.with(from, |stack, env| stack.send_udp(None, 5000, to, Bytes::from_static(b"x"), env)).unwrap();
    }

    fn run(&mut self, until: Time) {
        loop {
            let hop = self.hops.first_key_value().map(|(k, _)| k.0);
            let timer = self.stacks.iter().filter_map(Stack::timer).min();
            let Some(next) = [hop, timer].into_iter().flatten().min().filter(|&at| at <= until) else {
                break;
            };
            self.now = self.now.max(next);
            for node in 0..self.stacks.len() {
                let told = self.with(NodeId(node), Stack::on_timer);
                self.told.extend(told.into_iter().map(|(sock, event)| (NodeId(node), sock, event)));
            }
            if hop.is_some_and(|at| at <= self.now) {
                let (_, hop) = self.hops.pop_first().unwrap();
                let mut hops = Vec::new();
                let step = self.fabric.step(hop, self.now, &mut hops, &mut self.trace);
                self.schedule(hops);
                match step {
                    Step::Arrived(a) => self.arrived(a.node, &a.packet),
                    Step::Dropped(why, p) => self.trace.fate(p.line, self.now, Fate::Dropped(why, p.dst)),
                    Step::Onward => {}
                }
            }
        }
        self.now = until;
    }

    fn arrived(&mut self, node: NodeId, packet: &Packet) {
        match &packet.body {
            Body::Udp(payload) => self.datagrams.push((node, packet.src, payload.clone())),
            Body::Tcp(segment) => {
                let told =
                    self.with(node, |stack, env| stack.on_segment(packet.dst, packet.src, segment, env));
                self.told.extend(told.into_iter().map(|(sock, event)| (node, sock, event)));
            }
        }
    }
}

fn spec(name: &str, parent: NetId, v4: Prefix, nat: Option<NatKind>, uplink: Profile) -> NetSpec {
    NetSpec {
        name: name.to_owned(),
        parent,
        v4: Some(v4),
        v6: None,
        nat,
        firewall: None,
        blocks_udp: false,
        lan: Profile::perfect(MS),
        uplink,
        multicast: true,
    }
}

fn prefix(text: &str, length: u8) -> Prefix {
    Prefix::new(text.parse::<IpAddr>().unwrap(), length)
}

fn home(hairpin: bool) -> NatKind {
    NatKind { hairpin, ..NatKind::with(Dependence::Endpoint, Dependence::Endpoint, Allocation::Sequential) }
}

#[test]
fn a_datagram_crosses_a_home_nat_behind_a_carrier_nat_and_its_answer_comes_back() {
    let mut bench = Bench::new(1);
    let uplink = Profile::perfect(10 * MS);
    let public = bench.fabric.public_v4();
    let centre = bench.fabric.add(spec("centre", INTERNET, public, None, uplink));
    let carrier =
        bench.fabric.add(spec("carrier", INTERNET, prefix("100.64.0.0", 16), Some(home(true)), uplink));
    let one = bench.fabric.add(spec("one", carrier, prefix("192.168.1.0", 24), Some(home(false)), uplink));
    let two = bench.fabric.add(spec("two", carrier, prefix("192.168.1.0", 24), Some(home(false)), uplink));
    let (base, a, b) = (bench.node(centre), bench.node(one), bench.node(two));
    let to = SocketAddr::new(bench.v4(base), 4477);
    bench.udp(a, to);
    bench.udp(b, to);
    bench.run(100 * MS);
    let seen: Vec<SocketAddr> = bench.datagrams.drain(..).map(|d| d.1).collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].ip(), seen[1].ip(), "one carrier NAT");
    bench.udp(base, seen[0]);
    bench.run(200 * MS);
    assert_eq!(bench.datagrams.pop().map(|d| d.0), Some(a));
    // By the carrier's hairpin a reaches b, and b sees a's external address.
    bench.udp(a, seen[1]);
    bench.run(300 * MS);
    assert_eq!(bench.datagrams.pop().map(|d| (d.0, d.1)), Some((b, seen[0])));
    bench.fabric.net_mut(carrier).gateway.nat.as_mut().unwrap().kind.hairpin = false;
    bench.udp(a, seen[1]);
    bench.run(400 * MS);
    assert!(bench.datagrams.is_empty());
    // The same private address in two homes is two machines.
    let own = SocketAddr::new(bench.v4(b), 5000);
    assert_eq!(bench.v4(a), bench.v4(b));
    bench.udp(a, own);
    bench.run(500 * MS);
    assert_eq!(bench.datagrams.pop().map(|d| d.0), Some(a));
}

#[test]
fn a_stateful_firewall_lets_in_only_answers_and_a_udp_block_lets_nothing_through() {
    let mut bench = Bench::new(2);
    let uplink = Profile::perfect(10 * MS);
    let public = bench.fabric.public_v4();
    let centre = bench.fabric.add(spec("centre", INTERNET, public, None, uplink));
    let public = bench.fabric.public_v4();
    let firewall = Firewall::new(Dependence::AddressAndPort, Duration::from_secs(30));
    let office = bench
        .fabric
        .add(NetSpec { firewall: Some(firewall), ..spec("office", INTERNET, public, None, uplink) });
    let (outside, inside) = (bench.node(centre), bench.node(office));
    let (to_outside, to_inside) =
        (SocketAddr::new(bench.v4(outside), 5000), SocketAddr::new(bench.v4(inside), 5000));
    bench.udp(outside, to_inside);
    bench.run(100 * MS);
    assert!(bench.datagrams.is_empty());
    bench.udp(inside, to_outside);
    bench.run(200 * MS);
    bench.udp(outside, to_inside);
    bench.run(300 * MS);
    assert_eq!(bench.datagrams.drain(..).map(|d| d.0).collect::<Vec<_>>(), [outside, inside]);
    bench.fabric.net_mut(office).gateway.blocks_udp = true;
    bench.udp(inside, to_outside);
    bench.run(400 * MS);
    assert!(bench.datagrams.is_empty());
}

#[test]
fn a_tcp_stream_arrives_whole_and_in_order_over_a_link_that_loses_and_reorders() {
    let mut bench = Bench::new(3);
    let bad =
        Profile { loss: 0.1, duplicate: 0.05, reorder: 0.1, jitter: 5 * MS, ..Profile::perfect(20 * MS) };
    let public = bench.fabric.public_v4();
    let centre = bench.fabric.add(spec("centre", INTERNET, public, None, bad));
    let net = bench.fabric.add(spec("home", INTERNET, prefix("192.168.1.0", 24), Some(home(false)), bad));
    let (base, host) = (bench.node(centre), bench.node(net));
    bench.stacks[base.0].listening.insert(4477);
    let to = SocketAddr::new(bench.v4(base), 4477);
    let sock = bench.with(host, |stack, env| stack.connect(None, to, env)).unwrap();
    let text: Vec<u8> = (0..50_000u32).flat_map(u32::to_be_bytes).collect();
    bench.run(10_000 * MS);
    assert!(bench.told.iter().any(|t| t.2 == TcpEvent::Connected));
    bench.with(host, |stack, env| {
        stack.write(sock, &text, env);
        stack.close(sock, env);
    });
    bench.run(Duration::from_secs(300));
    let got: Vec<u8> = bench
        .told
        .iter()
        .filter_map(|(node, _, event)| match event {
            TcpEvent::Data(bytes) if *node == base => Some(bytes.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(got.len(), text.len());
    assert_eq!(got, text);
    assert!(bench.told.iter().any(|t| t.0 == base && t.2 == TcpEvent::Closed("closed by the other side")));
    assert_eq!(bench.stacks[base.0].timer(), None, "both ends have forgotten the connection");
    assert_eq!(bench.stacks[host.0].timer(), None, "both ends have forgotten the connection");
}

#[test]
fn a_port_without_a_listener_refuses_and_a_dead_machine_is_noticed_by_reset_or_not_at_all() {
    let mut bench = Bench::new(4);
    let uplink = Profile::perfect(10 * MS);
    let public = bench.fabric.public_v4();
    let centre = bench.fabric.add(spec("centre", INTERNET, public, None, uplink));
    let net = bench.fabric.add(spec("home", INTERNET, prefix("192.168.1.0", 24), Some(home(false)), uplink));
    let (base, host) = (bench.node(centre), bench.node(net));
    let to = SocketAddr::new(bench.v4(base), 4477);
    bench.with(host, |stack, env| stack.connect(None, to, env)).unwrap();
    bench.run(100 * MS);
    assert_eq!(bench.told.pop().map(|t| t.2), Some(TcpEvent::Refused("connection refused")));

    bench.stacks[base.0].listening.insert(4477);
    let sock = bench.with(host, |stack, env| stack.connect(None, to, env)).unwrap();
    bench.run(200 * MS);
    bench.told.clear();
    // The power goes: nobody is told, and an idle connection never finds out.
    bench.with(base, |stack, env| stack.reset_all(true, env));
    bench.run(Duration::from_secs(600));
    assert!(bench.told.is_empty(), "half-open");
    // What is written to it is answered with a reset.
    bench.with(host, |stack, env| stack.write(sock, b"hello?", env));
    bench.run(Duration::from_secs(601));
    assert_eq!(bench.told.pop().map(|t| t.2), Some(TcpEvent::Closed("connection reset")));
    // Into a cut it stalls, and gives up after a quarter of an hour.
    let sock = bench.with(host, |stack, env| stack.connect(None, to, env)).unwrap();
    bench.run(Duration::from_secs(602));
    bench.told.clear();
    bench.fabric.net_mut(centre).cut = true;
    bench.with(host, |stack, env| stack.write(sock, b"hello?", env));
    bench.run(Duration::from_secs(1202));
    assert!(bench.told.is_empty());
    bench.run(Duration::from_secs(2500));
    assert_eq!(bench.told.pop().map(|t| t.2), Some(TcpEvent::Closed("connection timed out")));
}
