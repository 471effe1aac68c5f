//! `overload`: far more is offered than the base can forward; what still arrives, and what happens to a well-behaved third flow meanwhile.
//!
//! A core of gear sends hardly more than a core of base forwards, so the base's core is busy with other things for nine tenths of each
//! millisecond: what is offered is then ten times too much, or what the table says.
//!
//! The reference is the base's own best: the most that arrived at any of several paces.
//!
//! The system gives every sender one of the base's sockets. The third flow is measured in another one than the flood's, and in the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_proto::{DeviceId, wire::relay::HEADER_LEN};

use crate::{
    gear::{self, Priority},
    host::{BaseProcess, Host, Wire, send_data},
    netns::{Links, Net, Side},
    probe,
    raw::{self, Link},
    relay_tcp::{Flow, Proxy, framed},
    report::{Goal, Options, Report, spread},
};

/// Paces offered when its best is looked for, packets a second.
const PACES: [f64; 6] = [10e3, 20e3, 30e3, 40e3, 60e3, 80e3];
/// A flood has lasted for so long when it is measured what it does.
const SETTLED: Duration = Duration::from_millis(400);

pub(crate) fn run(options: &Options, report: &mut Report) {
    let net = Net::new(options);
    net.set(Links::Single);
    let (turn, rounds) =
        if options.quick { (Duration::from_millis(700), 3) } else { (Duration::from_secs(3), 5) };
    for size in [100, 1_200] {
        udp(&net, size, turn, rounds, report);
    }
    tcp(&net, turn, rounds, report);
}

/// Pairs that each send over TCP as fast as they are let: one alone takes all that the base can do, ten offer ten times that.
fn tcp(net: &Net, turn: Duration, rounds: usize, report: &mut Report) {
    const PAIRS: u32 = 10;
    const SIZE: usize = 1_200;
    let base = BaseProcess::start(&net.middle, "");
    let third_wires = [Wire::new(&net.left), Wire::new(&net.right)].map(Arc::new);
    let mut third = [(&net.left, Side::Left), (&net.right, Side::Right)]
        .map(|(node, side)| Host::register(node, Net::base(side), base.id, side as u32));
    let message = send_data(third[1].id, probe::DATA);
    let mut number = 10;
    let mut run = |pairs: u32| {
        for (host, wire) in third.iter_mut().zip(&third_wires) {
            host.refresh(wire);
        }
        let flows: Vec<Flow> = (0..pairs)
            .map(|_| {
                number += 2;
                let left = Host::register(&net.left, Net::base(Side::Left), base.id, number);
                let right = Host::register(&net.right, Net::base(Side::Right), base.id, number + 1);
                Flow::start(left.tcp, right.tcp, &framed(right.id, SIZE))
            })
            .collect();
        std::thread::sleep(turn / 5);
        let mut rate = 0.0;
        let found = probe::during(&third_wires[0], Net::base(Side::Left), &message, &third_wires[1], || {
            rate = arrival_rate(&flows, turn);
        });
        flows.into_iter().for_each(Flow::stop);
        (rate, found)
    };
    let (mut pairs, mut lost, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (alone, _) = run(1);
        let (together, found) = run(PAIRS);
        pairs.push((together, alone));
        lost.push(found.lost() * 100.0);
        p99.push(found.micros(0.99) / 1e3);
    }
    drop(base);
    let proxy: Vec<_> =
        (0..rounds).map(|_| (proxy(net, PAIRS, SIZE, turn), proxy(net, 1, SIZE, turn))).collect();
    let case = format!("TCP {SIZE} B, {PAIRS} pairs as fast as they can");
    report.pairs(&format!("{case}: goodput"), "Gbit/s (reference: one pair)", &pairs, Goal::AtLeast(0.90));
    report.figures(&format!("{case}: third flow lost"), "%", &lost, Goal::AtMost(1.0));
    report.figures(&format!("{case}: third flow p99"), "ms", &p99, Goal::AtMost(5.0));
    report.pairs(&format!("{case}: a plain proxy"), "Gbit/s (reference: one pair)", &proxy, Goal::None);
}

/// What so many pairs carry through a plain proxy in the base's place, Gbit/s: how well the system itself bears them.
fn proxy(net: &Net, pairs: u32, size: usize, turn: Duration) -> f64 {
    let proxy = Proxy::start(net);
    let message = framed(DeviceId::from_bytes([1; 14]), size);
    let start = |(left, right)| Flow::start(left, right, &message);
    let flows: Vec<Flow> = (0..pairs).map(|_| start(proxy.pair(net))).collect();
    std::thread::sleep(turn / 5);
    let rate = arrival_rate(&flows, turn);
    flows.into_iter().for_each(Flow::stop);
    rate
}

/// What arrives of all flows together while so much time passes, Gbit/s.
fn arrival_rate(flows: &[Flow], turn: Duration) -> f64 {
    let arrived = || flows.iter().map(Flow::arrived).sum::<u64>();
    let (start, before) = (Instant::now(), arrived());
    std::thread::sleep(turn);
    (arrived() - before) as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64()
}

/// Which of the base's sockets the third flow comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Another,
    TheFloods,
}

/// A wire whose datagrams wait in the same queue of the base as that one's, or in another.
fn wire_in(queue: Queue, net: &Net, base: &BaseProcess, flood: &Wire) -> Wire {
    let address = Net::base(Side::Left);
    let full = base.queue_of(flood, address);
    // One in a few dozen of all ports fits.
    let found = (0..1_000).map(|_| Wire::new(&net.left)).find(|wire| {
        let is_same = base.queue_of(wire, address) == full;
        is_same == (queue == Queue::TheFloods)
    });
    found.expect("the system spreads senders over all of the base's sockets")
}

fn udp(net: &Net, size: usize, turn: Duration, rounds: usize, report: &mut Report) {
    let base = BaseProcess::start(&net.middle, "");
    let (heavy_left, heavy_right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
    let thirds = [Queue::Another, Queue::TheFloods]
        .map(|queue| (Arc::new(wire_in(queue, net, &base, &heavy_left)), Arc::new(Wire::new(&net.right))));
    let mut hosts = Vec::new();
    let pairs =
        [(&heavy_left, &heavy_right)].into_iter().chain(thirds.iter().map(|(left, right)| (left, right)));
    for (number, (left, right)) in pairs.enumerate() {
        for (node, side, wire) in [(&net.left, Side::Left, left), (&net.right, Side::Right, right)] {
            let number = 2 * number as u32 + side as u32;
            let mut host = Host::register(node, Net::base(side), base.id, number);
            host.confirm(wire);
            hosts.push((host, Arc::clone(wire)));
        }
    }
    let link = Link::new(&net.left, "eth0", &net.middle, "l0");
    let from = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 1, 0, 2), heavy_left.port());
    let frame = link.frame(from, Net::base(Side::Left), &send_data(hosts[1].0.id, size));
    let _busy = gear::occupy_base();
    let messages = [3, 5].map(|receiver: usize| send_data(hosts[receiver].0.id, probe::DATA));

    // One pace: what arrived and what was offered a second, and the third flow.
    let settle = (turn / 5).max(SETTLED);
    let run = |pace: Option<f64>, queue: Queue| {
        let sink = gear::sink(&heavy_right);
        let load = raw::replay(&net.left, vec![frame.clone(); 64], pace, Priority::Load);
        std::thread::sleep(settle);
        let mut rates = (0.0, 0.0);
        let ((left, right), third) = (&thirds[queue as usize], &messages[queue as usize]);
        let found = probe::during(left, Net::base(Side::Left), third, right, || {
            let (start, before) = (Instant::now(), net.arrived());
            std::thread::sleep(turn);
            rates.0 = net.arrived().datagrams(before, size + HEADER_LEN) / start.elapsed().as_secs_f64();
        });
        let whole = (settle + turn).as_secs_f64() + 0.25;
        rates.1 = load.stop() as f64 / whole;
        sink.stop();
        (rates, found)
    };
    let mut most = PACES.iter().map(|&pace| run(Some(pace), Queue::Another).0.0).fold(0.0, f64::max);
    let mut rows =
        [Queue::Another, Queue::TheFloods].map(|queue| (queue, Vec::new(), Vec::new(), Vec::new()));
    let mut offered = Vec::new();
    for round in 0..rounds {
        for (host, wire) in &mut hosts {
            host.refresh(wire);
        }
        if round > 0 {
            most = run(Some(most * 1.05), Queue::Another).0.0.max(most);
        }
        for (queue, pairs, lost, p99) in &mut rows {
            let ((arrived, sent), found) = run(None, *queue);
            pairs.push((arrived / 1e3, most / 1e3));
            offered.push(sent / most);
            lost.push(found.lost() * 100.0);
            p99.push(found.micros(0.99) / 1e3);
        }
    }
    let factor = spread(&offered).1;
    for (queue, pairs, lost, p99) in &rows {
        let beside = if *queue == Queue::TheFloods { ", a third flow in the same queue" } else { "" };
        let case = format!("UDP {size} B, {factor:.1} times offered{beside}");
        report.pairs(
            &format!("{case}: goodput"),
            "kpps (reference: its own best)",
            pairs,
            Goal::AtLeast(0.90),
        );
        report.figures(&format!("{case}: third flow lost"), "%", lost, Goal::AtMost(1.0));
        report.figures(&format!("{case}: third flow p99"), "ms", p99, Goal::AtMost(5.0));
    }
}
