//! `relay`: one flow through the base over UDP, 1,200 and 100 bytes of data, single and super-packets.
//!
//! The reference is the best of the four forwarders on the same links: each runs once, then the base and the best take turns. Two figures:
//! packets that arrive in a second with one core for the base, and its CPU seconds for a million of them. The load offered is all that the
//! other core can send.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bowline_proto::wire::relay::HEADER_LEN;

use crate::{
    cpu,
    forwarders::{self, Forwarder, KINDS},
    gear,
    host::{BaseProcess, Host, Wire, send_data},
    netns::{Links, Net, Side},
    report::{Goal, Options, Report, in_turn, spread},
};

/// What one turn measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Packets a second that arrived.
    pub(crate) rate: f64,
    /// CPU seconds of the one that forwards, for a million packets.
    pub(crate) cpu: f64,
    /// The share of its core that it used.
    pub(crate) busy: f64,
}

pub(crate) fn run(options: &Options, report: &mut Report) {
    let net = Net::new(options);
    let (turn, rounds) =
        if options.quick { (Duration::from_millis(700), 3) } else { (Duration::from_secs(3), 5) };
    for links in Links::ALL {
        net.set(links);
        for size in [1_200, 100] {
            row(&net, links, size, turn, rounds, report);
        }
    }
}

fn row(net: &Net, links: Links, size: usize, turn: Duration, rounds: usize, report: &mut Report) {
    let goal = Goal::AtLeast(if links == Links::Single { 0.90 } else { 0.80 });
    let mut best = ("", 0.0);
    for kind in KINDS {
        let trial = forward(net, kind, size, turn);
        if trial.rate > best.1 {
            best = (kind, trial.rate);
        }
    }
    let pairs = in_turn(rounds, || relay(net, size, turn), || forward(net, best.0, size, turn));
    let case = format!("{} {size} B", links.name());
    report_turns(report, &case, best.0, &pairs, goal);
}

/// Two rows: packets a second, and packets for a CPU second.
pub(crate) fn report_turns(
    report: &mut Report,
    case: &str,
    reference: &str,
    pairs: &[(Turn, Turn)],
    goal: Goal,
) {
    let rates: Vec<_> = pairs.iter().map(|(a, b)| (a.rate / 1e3, b.rate / 1e3)).collect();
    report.pairs(&format!("{case}, one core"), &format!("kpps (reference: {reference})"), &rates, goal);
    // Less is better: turned round, so that the goal reads the same.
    let costs: Vec<_> = pairs.iter().map(|(a, b)| (1.0 / a.cpu, 1.0 / b.cpu)).collect();
    let median = |of: &dyn Fn(&(Turn, Turn)) -> f64| spread(&pairs.iter().map(of).collect::<Vec<_>>()).1;
    let (ours, theirs) = (median(&|pair| pair.0.cpu), median(&|pair| pair.1.cpu));
    let busy = median(&|pair| pair.0.busy) * 100.0;
    let unit = format!("Mpkt per CPU-s ({ours:.2} and {theirs:.2} CPU-s per Mpkt; core {busy:.0} % busy)");
    report.pairs(&format!("{case}, cost"), &unit, &costs, goal);
}

/// One turn of the base: a fresh one, so that none inherits anything.
fn relay(net: &Net, size: usize, turn: Duration) -> Turn {
    let base = BaseProcess::start(&net.middle, "");
    let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
    let mut a = Host::register(&net.left, Net::base(Side::Left), base.id, 1);
    let mut b = Host::register(&net.right, Net::base(Side::Right), base.id, 2);
    a.confirm(&left);
    b.confirm(&right);
    let datagram = send_data(b.id, size);
    measure(
        net,
        base.process.pid(),
        turn,
        size,
        || gear::flood(&left, None, Net::base(Side::Left), &datagram),
        &right,
    )
}

fn forward(net: &Net, kind: &str, size: usize, turn: Duration) -> Turn {
    let forwarder = Forwarder::start(&net.middle, kind);
    let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
    let ids = [1, 2].map(|n| bowline_proto::DeviceId::of_public_key(&[n; 32]));
    forwarders::introduce(&left, None, Net::base(Side::Left), ids[0]);
    forwarders::introduce(&right, None, Net::base(Side::Right), ids[1]);
    let datagram = send_data(ids[1], size);
    let pid = forwarder.process.pid();
    measure(net, pid, turn, size, || gear::flood(&left, None, Net::base(Side::Left), &datagram), &right)
}

/// Lets load flow, and after a moment measures what arrives and what it costs.
pub(crate) fn measure(
    net: &Net,
    pid: u32,
    turn: Duration,
    size: usize,
    load: impl FnOnce() -> gear::Running,
    right: &Arc<Wire>,
) -> Turn {
    measure_by(net, || cpu::seconds(pid), turn, size, load, right)
}

/// The same, where CPU seconds are those that this says.
pub(crate) fn measure_by(
    net: &Net,
    seconds: impl Fn() -> f64,
    turn: Duration,
    size: usize,
    load: impl FnOnce() -> gear::Running,
    right: &Arc<Wire>,
) -> Turn {
    let sink = gear::sink(right);
    let load = load();
    thread::sleep(turn / 5);
    let (start, cpu_before, before) = (Instant::now(), seconds(), net.arrived());
    thread::sleep(turn);
    let (time, used) = (start.elapsed().as_secs_f64(), seconds() - cpu_before);
    let packets = net.arrived().datagrams(before, size + HEADER_LEN);
    load.stop();
    sink.stop();
    Turn { rate: packets / time, cpu: used / packets * 1e6, busy: used / time }
}
