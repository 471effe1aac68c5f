//! `cluster`: host → base → base → host beside host → base → host, over UDP between the bases and over NATS alone; and what a cluster of two
//! and of four bases carries.
//!
//! Every base is a machine of its own, with a link to each other machine. All bases and the NATS server share *one* core, as the one base
//! does that they are compared with: where two bases each do their part of a message, packets a second can reach half of one base's. What a
//! cluster carries whose bases have a core each is calculated from CPU seconds, and says so.
//!
//! The reference is the same base with the same hosts, without the second half of the way.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bowline_lab::{Lab, Node, Process, connect};
use bowline_proto::wire::relay::{self, HEADER_LEN, RECV_DATA};

use crate::{
    cpu, gear,
    host::{BaseProcess, Host, Wire, send_data},
    netns::{Arrived, PORT, arrived_at, cut_batches},
    relay::{Turn, report_turns},
    report::{Goal, Options, Report, in_turn},
};

/// Longer than bases take to find each other.
const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER_LIMITS: &str = "[base.limits]\nregistrations_per_second = 1000\nregistrations_burst = 1000\n";
const BUS: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);

pub(crate) fn run(options: &Options, report: &mut Report) {
    let goal = Goal::AtLeast(0.5);
    if Command::new("nats-server").arg("--version").output().is_err() {
        for case in ["2 bases, UDP", "2 bases, NATS alone", "capacity of 2 bases", "capacity of 4 bases"] {
            report.missing(case, "kpps", goal, "nats-server is missing");
        }
        return;
    }
    let (turn, rounds) =
        if options.quick { (Duration::from_millis(700), 3) } else { (Duration::from_secs(3), 5) };
    let span = Span::new(options, 4);
    {
        let cluster = Cluster::start(&span, 2, true);
        for size in [1_200, 100] {
            let pairs = cluster.beside_one(&[(0, 1)], size, turn, rounds);
            report_turns(report, &format!("2 bases, UDP, single {size} B"), "one base", &pairs, goal);
        }
        capacity(&cluster, turn, rounds, report);
    }
    capacity(&Cluster::start(&span, 4, true), turn, rounds, report);
    let pairs = Cluster::start(&span, 2, false).beside_one(&[(0, 1)], 1_200, turn, rounds);
    report_turns(report, "2 bases, NATS alone, single 1200 B", "one base", &pairs, Goal::None);
}

/// Everybody talks with everybody: what the cluster would carry with a core for each base.
fn capacity(cluster: &Cluster<'_>, turn: Duration, rounds: usize, report: &mut Report) {
    let count = cluster.bases.len();
    let flows: Vec<_> = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).collect();
    let pairs = cluster.beside_one(&flows, 1_200, turn, rounds);
    let carried: Vec<_> = pairs.iter().map(|(all, one)| (count as f64 / all.cpu, 1.0 / one.cpu)).collect();
    let across = 100 * (count - 1) / count;
    let case = format!("capacity of {count} bases, {across} % across");
    report.pairs(&case, "Mpkt per second, a core for each base (calculated)", &carried, Goal::None);
}

/// Machines: left and right with the hosts, bases between them, each linked to all others; and the one of the bus.
struct Span {
    left: Node,
    right: Node,
    bases: Vec<Node>,
    bus: Node,
}

impl Span {
    fn new(options: &Options, count: u8) -> Self {
        let lab = Lab::here(&options.folder);
        let node = |name: &str| lab.node(name);
        let bases = (0..count).map(|n| node(&format!("base{n}"))).collect();
        let span = Self { left: node("left"), right: node("right"), bases, bus: node("bus") };
        span.bus.address("lo", &format!("{BUS}/32"));
        for (n, base) in (0..).zip(&span.bases) {
            // One address by which all know it, whichever link leads there.
            base.address("lo", &format!("{}/32", own(n)));
            for (side, name, net) in [(&span.left, "left", 1), (&span.right, "right", 2)] {
                link(side, &format!("b{n}"), base, name, &format!("10.{net}.{n}"));
                side.route(&format!("{} via 10.{net}.{n}.2 src 10.{net}.{n}.1", own(n)));
            }
            link(&span.bus, &format!("b{n}"), base, "bus", &format!("10.4.{n}"));
            span.bus.route(&format!("{} via 10.4.{n}.2 src {BUS}", own(n)));
            base.route(&format!("{BUS} via 10.4.{n}.1 src {}", own(n)));
            for (m, other) in (0..n).zip(&span.bases) {
                link(other, &format!("b{n}"), base, &format!("b{m}"), &format!("10.3.{}", 16 * m + n));
                other.route(&format!("{} via 10.3.{}.2 src {}", own(n), 16 * m + n, own(m)));
                base.route(&format!("{} via 10.3.{}.1 src {}", own(m), 16 * m + n, own(n)));
            }
        }
        span
    }

    /// What has come to the hosts on the right so far.
    fn arrived(&self) -> Arrived {
        let interfaces: Vec<String> = (0..self.bases.len()).map(|n| format!("b{n}")).collect();
        arrived_at(&self.right, &interfaces)
    }
}

/// A base's address on all of its links.
fn own(base: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, base + 1)
}

fn link(one: &Node, one_interface: &str, other: &Node, other_interface: &str, net: &str) {
    connect(one, one_interface, other, other_interface);
    one.address(one_interface, &format!("{net}.1/24"));
    other.address(other_interface, &format!("{net}.2/24"));
    cut_batches(one, one_interface);
    cut_batches(other, other_interface);
}

/// Bases that have found each other, and a host on either side at each of them.
struct Cluster<'a> {
    span: &'a Span,
    bases: Vec<BaseProcess>,
    _bus: Process,
    left: Arc<Wire>,
    right: Arc<Wire>,
    senders: Vec<Host>,
    receivers: Vec<Host>,
}

impl<'a> Cluster<'a> {
    fn start(span: &'a Span, count: usize, over_udp: bool) -> Self {
        let bus = start_bus(&span.bus);
        let of = |(n, node): (u8, &Node)| {
            let config = format!(
                "{CLUSTER_LIMITS}[base.cluster]\nservers = [\"nats://{BUS}:4222\"]\naddress = \"{}:{PORT}\"\nudp = {over_udp}\n",
                own(n)
            );
            BaseProcess::start_with(node, &config, &["-v"])
        };
        let bases: Vec<BaseProcess> = (0..).zip(&span.bases).take(count).map(of).collect();
        let (left, right) = (Arc::new(Wire::new(&span.left)), Arc::new(Wire::new(&span.right)));
        let mut cluster =
            Self { span, bases, _bus: bus, left, right, senders: Vec::new(), receivers: Vec::new() };
        cluster.wait_for_each_other(over_udp);
        for n in 0..count {
            let (base, id) = (SocketAddrV4::new(own(n as u8), PORT), cluster.bases[n].id);
            for (node, wire, hosts, number) in [
                (&span.left, &cluster.left, &mut cluster.senders, 2 * n),
                (&span.right, &cluster.right, &mut cluster.receivers, 2 * n + 1),
            ] {
                let mut host = Host::register(node, base, id, number as u32);
                host.confirm(wire);
                hosts.push(host);
            }
        }
        cluster
    }

    fn wait_for_each_other(&self, over_udp: bool) {
        let line = if over_udp { "data goes there over UDP" } else { "a base of the cluster is there" };
        for base in &self.bases {
            let mut left = self.bases.len() - 1;
            base.process.wait(line, PATIENCE, 0, |l| {
                left -= usize::from(left > 0 && l.text.contains(line));
                (left == 0).then_some(())
            });
        }
    }

    /// These flows (from a base to a base), and as many that stay at the first base, in turn.
    fn beside_one(
        &self,
        flows: &[(usize, usize)],
        size: usize,
        turn: Duration,
        rounds: usize,
    ) -> Vec<(Turn, Turn)> {
        let one = vec![(0, 0); flows.len()];
        in_turn(rounds, || self.turn(flows, size, turn), || self.turn(&one, size, turn))
    }

    fn turn(&self, flows: &[(usize, usize)], size: usize, turn: Duration) -> Turn {
        let flow = |&(from, to): &(usize, usize)| {
            let base = SocketAddrV4::new(own(from as u8), PORT);
            (base, send_data(self.receivers[to].id, size))
        };
        let flows: Vec<_> = flows.iter().map(flow).collect();
        self.right.drain();
        for (n, (base, datagram)) in flows.iter().enumerate() {
            self.find_the_way(n, *base, datagram);
        }
        let sink = gear::sink(&self.right);
        let load = gear::flood_many(&self.left, &flows);
        thread::sleep(turn / 5);
        let cpu = || self.bases.iter().map(|base| cpu::seconds(base.process.pid())).sum::<f64>();
        let (start, cpu_before, before) = (Instant::now(), cpu(), self.span.arrived());
        thread::sleep(turn);
        let (time, used) = (start.elapsed().as_secs_f64(), cpu() - cpu_before);
        let packets = self.span.arrived().datagrams(before, size + HEADER_LEN);
        load.stop();
        sink.stop();
        Turn { rate: packets / time, cpu: used / packets * 1e6, busy: used / time }
    }

    /// Sends until something of this flow arrives: the bases know the way then.
    fn find_the_way(&self, flow: usize, base: SocketAddrV4, datagram: &[u8]) {
        let mut probe = datagram.to_vec();
        let mark = format!("flow {flow}");
        probe[HEADER_LEN..HEADER_LEN + mark.len()].copy_from_slice(mark.as_bytes());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.left.send(None, base, &probe, None).expect("a datagram can be sent");
            let is_it = |came: &[u8]| {
                came.first() == Some(&RECV_DATA)
                    && relay::split(came).is_ok_and(|(_, data)| data.starts_with(mark.as_bytes()))
            };
            if self.right.comes_within(Duration::from_millis(200), is_it) {
                return;
            }
        }
        panic!("nothing comes of a flow through {base}");
    }
}

/// A NATS server with JetStream, on the bases' core.
fn start_bus(node: &Node) -> Process {
    let core = cpu::BASE_CORE.to_string();
    let store = node.home().join("store").to_string_lossy().into_owned();
    let listen = BUS.to_string();
    let process = node.spawn("taskset", &["-c", &core, "nats-server", "-js", "-a", &listen, "-sd", &store]);
    process.wait("line that says it is ready", PATIENCE, 0, |line| {
        line.text.contains("Server is ready").then_some(())
    });
    process
}
