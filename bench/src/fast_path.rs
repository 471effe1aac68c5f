//! `fast-path`: the base with the kernel forwarding for it, against the same base with its workers alone, and against the kernel that
//! forwards plain IP.
//!
//! What the kernel does in the place of a process is in no process's account, so both cores of the machine are counted, load and receiver
//! with them: packets that arrive for each second that the two cores were busy. What load and receiver cost is the same on all
//! sides, so the ratios say less than the truth. Rates are no measure here: the fast path runs on the core that sends, the workers have
//! one for themselves.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bowline_proto::wire::relay::HEADER_LEN;

use crate::{
    gear,
    host::{BaseProcess, Host, Wire, send_data},
    netns::{Links, Net, Side},
    relay::{self, Turn},
    relay_many,
    report::{Goal, Options, Report, in_turn, spread},
};

const FAST: &str = "fast_path = [\"l0\", \"r0\"]\n";
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);

pub(crate) fn run(options: &Options, report: &mut Report) {
    let net = Net::new(options);
    net.middle.sysctl("net.ipv4.ip_forward=1");
    let (turn, rounds) =
        if options.quick { (Duration::from_millis(700), 3) } else { (Duration::from_secs(3), 5) };
    for links in Links::ALL {
        net.set(links);
        for size in [1_200, 100] {
            let case = format!("{} {size} B", links.name());
            let fast = || one_flow(&net, FAST, size, turn);
            let pairs = in_turn(rounds, fast, || one_flow(&net, "", size, turn));
            rows(report, &case, "the workers", &pairs, Goal::AtLeast(1.0));
            let pairs = in_turn(rounds, fast, || routed(&net, size, turn));
            rows(report, &case, "plain IP forwarding", &pairs, Goal::None);
        }
    }
    net.set(Links::Single);
    for size in [1_200, 100] {
        let pairs = in_turn(rounds, || many(&net, FAST, size, turn), || many(&net, "", size, turn));
        let case = format!("{} devices, single {size} B", 2 * relay_many::PAIRS);
        rows(report, &case, "the workers", &pairs, Goal::AtLeast(1.0));
    }
}

fn rows(report: &mut Report, case: &str, reference: &str, pairs: &[(Turn, Turn)], goal: Goal) {
    let costs: Vec<_> = pairs.iter().map(|(a, b)| (1.0 / a.cpu, 1.0 / b.cpu)).collect();
    let median =
        |of: &dyn Fn(&(Turn, Turn)) -> f64| spread(&pairs.iter().map(of).collect::<Vec<_>>()).1 / 1e3;
    let (ours, theirs) = (median(&|pair| pair.0.rate), median(&|pair| pair.1.rate));
    let unit =
        format!("Mpkt per CPU-s of the machine (reference: {reference}; {ours:.0} and {theirs:.0} kpps)");
    report.pairs(case, &unit, &costs, goal);
}

fn one_flow(net: &Net, config: &str, size: usize, turn: Duration) -> Turn {
    let base = BaseProcess::start(&net.middle, config);
    let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
    let mut a = Host::register(&net.left, Net::base(Side::Left), base.id, 1);
    let mut b = Host::register(&net.right, Net::base(Side::Right), base.id, 2);
    a.confirm(&left);
    b.confirm(&right);
    let datagram = send_data(b.id, size);
    measure(net, turn, size, || gear::flood(&left, None, Net::base(Side::Left), &datagram), &right)
}

/// The same datagrams, straight to the receiver.
fn routed(net: &Net, size: usize, turn: Duration) -> Turn {
    let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
    let (to, datagram) = (SocketAddrV4::new(RIGHT, right.port()), vec![0; size + HEADER_LEN]);
    measure(net, turn, size, || gear::flood(&left, None, to, &datagram), &right)
}

fn many(net: &Net, config: &str, size: usize, turn: Duration) -> Turn {
    let crowd = relay_many::Crowd::new(net, config);
    measure(net, turn, size, || crowd.load(net, size), &crowd.right)
}

/// As for `relay`, with the CPU seconds of the whole machine.
fn measure(
    net: &Net,
    turn: Duration,
    size: usize,
    load: impl FnOnce() -> gear::Running,
    right: &Arc<Wire>,
) -> Turn {
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    let start = Instant::now();
    let busy = || cores * start.elapsed().as_secs_f64() - idle();
    relay::measure_by(net, busy, turn, size, load, right)
}

/// Seconds that the cores had nothing to do, all together.
fn idle() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    // cpu  user nice system idle iowait …
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks = |line: &str| {
        line.split_whitespace().skip(3).take(2).map(|word| word.parse::<f64>().ok()).sum::<Option<f64>>()
    };
    line.and_then(ticks).map_or(f64::NAN, |ticks| ticks / TICKS_A_SECOND)
}
