//! `relay-latency`: what the base adds to a packet's time, at a tenth and at four fifths of the load it can carry, against the forwarder at
//! the same load.
//!
//! A third flow of a datagram a millisecond is timed from end to end; the load beside it is another flow's.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bowline_proto::{DeviceId, wire::relay::HEADER_LEN};

use crate::{
    forwarders::{self, Forwarder},
    gear::{self, Priority},
    host::{BaseProcess, Host, Wire, send_data},
    netns::{Links, Net, Side},
    probe::{self, Found},
    raw::{self, Link},
    report::{Goal, Options, Report, in_turn},
};

/// The forwarder that is the best one for single packets of one flow.
const FORWARDER: &str = "coalesce";
const SIZE: usize = 1_200;

/// The wires of two flows: the load's, and the timed one.
struct Ends {
    load: [Arc<Wire>; 2],
    timed: [Arc<Wire>; 2],
}

impl Ends {
    fn new(net: &Net) -> Self {
        let wires = || [Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right))];
        Self { load: wires(), timed: wires() }
    }
}

pub(crate) fn run(options: &Options, report: &mut Report) {
    let net = Net::new(options);
    net.set(Links::Single);
    let (turn, rounds) =
        if options.quick { (Duration::from_secs(2), 3) } else { (Duration::from_secs(10), 5) };
    // Of both the same pace: a share of what the base can carry.
    let most = with_base(&net, |net, ends, load, _| {
        let sink = gear::sink(&ends.load[1]);
        let load = offer(net, ends, load, None);
        thread::sleep(Duration::from_millis(300));
        let (start, before) = (Instant::now(), net.arrived());
        thread::sleep(Duration::from_secs(1));
        let rate = net.arrived().datagrams(before, SIZE + HEADER_LEN) / start.elapsed().as_secs_f64();
        load.stop();
        sink.stop();
        rate
    });
    for share in [0.1, 0.8] {
        let timed = |net: &Net, ends: &Ends, load: DeviceId, to: DeviceId| -> Found {
            let sink = gear::sink(&ends.load[1]);
            let load = offer(net, ends, load, Some(most * share));
            thread::sleep(Duration::from_millis(200));
            let datagram = send_data(to, probe::DATA);
            let [left, right] = &ends.timed;
            let found = probe::during(left, Net::base(Side::Left), &datagram, right, || thread::sleep(turn));
            load.stop();
            sink.stop();
            found
        };
        let pairs = in_turn(rounds, || with_base(&net, timed), || with_forwarder(&net, timed));
        for (name, quantile, goal) in
            [("p50", 0.5, Goal::None), ("p99", 0.99, Goal::AtMost(2.0)), ("p99.9", 0.999, Goal::None)]
        {
            let case = format!("{:.0} % load ({:.0} kpps), {name}", share * 100.0, most * share / 1e3);
            let micros: Vec<_> =
                pairs.iter().map(|(a, b)| (a.micros(quantile), b.micros(quantile))).collect();
            report.pairs(&case, &format!("µs (reference: {FORWARDER})"), &micros, goal);
        }
    }
}

fn offer(net: &Net, ends: &Ends, to: DeviceId, rate: Option<f64>) -> gear::Running {
    let link = Link::new(&net.left, "eth0", &net.middle, "l0");
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 2), ends.load[0].port());
    let frame = link.frame(from, Net::base(Side::Left), &send_data(to, SIZE));
    raw::replay(&net.left, vec![frame; 64], rate, Priority::Load)
}

/// `body` gets the IDs of the load's and of the timed flow's destination.
fn with_base<T>(net: &Net, body: impl Fn(&Net, &Ends, DeviceId, DeviceId) -> T) -> T {
    let base = BaseProcess::start(&net.middle, "");
    let ends = Ends::new(net);
    let mut hosts = Vec::new();
    for (number, wire) in ends.load.iter().chain(&ends.timed).enumerate() {
        let (node, side) = if number % 2 == 0 { (&net.left, Side::Left) } else { (&net.right, Side::Right) };
        let mut host = Host::register(node, Net::base(side), base.id, number as u32);
        host.confirm(wire);
        hosts.push(host);
    }
    body(net, &ends, hosts[1].id, hosts[3].id)
}

fn with_forwarder<T>(net: &Net, body: impl Fn(&Net, &Ends, DeviceId, DeviceId) -> T) -> T {
    let _forwarder = Forwarder::start(&net.middle, FORWARDER);
    let ends = Ends::new(net);
    let ids = [1, 2, 3, 4].map(|n| DeviceId::of_public_key(&[n; 32]));
    for (number, wire) in ends.load.iter().chain(&ends.timed).enumerate() {
        let side = if number % 2 == 0 { Side::Left } else { Side::Right };
        forwarders::introduce(wire, None, Net::base(side), ids[number]);
    }
    body(net, &ends, ids[1], ids[3])
}
