//! `idle`: many registered devices, each with its TCP connection and a confirmed UDP address, that do nothing but refresh every 25 seconds.
//!
//! Resident memory of the base for each of them, and the CPU time of a round of refreshes as a share of a core over the 25 seconds it belongs
//! to: *at their pace*, as hosts do it (a bare NAT-INIT to one UDP address of the base, and INFO; behind symmetric NATs to each of its
//! addresses), 100,000 of them spread over 25 seconds, and *one by one*, each message waiting for the answer to the last and the third step of
//! the handshake with it, which is the most that it can cost. What the system's kernel holds for their connections is not the base's and not in it.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    cpu,
    host::{BaseProcess, Host, Wire},
    netns::{Net, Side},
    raw::device_ip,
    report::{Goal, Options, Report},
};

const DEVICES: usize = 100_000;
const DEVICES_QUICK: usize = 4_000;
/// Devices of one source IP: each has a port of its own.
const OF_AN_IP: usize = 128;
const KEEPALIVE: f64 = 25.0;
/// Rounds at their pace: a base verifies a NAT-INIT as often at least, of a host that uses two numbers a keepalive or more.
const ROUNDS: usize = 8;
/// Longer than an answer is under way that comes at all.
const LATE: Duration = Duration::from_millis(500);
/// Devices after which memory is counted: what a base has without any is no device's, and it takes some to have it all touched.
const FIRST: usize = 128;
/// Descriptors for all but devices.
const SPARE: usize = 500;
/// Setting up may take so long in all.
const SETUP: Duration = Duration::from_secs(900);

/// Limits that let everybody in at once.
pub(crate) const OPEN_TO_ALL: &str = "[base.limits]\ndevices = 200000\nunfinished = 100000\nunfinished_per_source = 100000\n\
    registrations_per_second = 100000\nregistrations_burst = 100000\nverifications_per_second = 1000000\nsetup_timeout_seconds = 100\n";

pub(crate) fn run(options: &Options, report: &mut Report) {
    let count = allowed(if options.quick { DEVICES_QUICK } else { DEVICES });
    let goals = (Goal::AtMost(4.0), Goal::AtMost(15.0));
    let net = Net::new(options);
    let base = BaseProcess::start(&net.middle, OPEN_TO_ALL);
    let pid = base.process.pid();
    let wires: Vec<Wire> = (0..OF_AN_IP).map(|_| Wire::new(&net.left)).collect();
    let start = Instant::now();
    let mut hosts: Vec<(Host, usize)> = Vec::with_capacity(count);
    let mut empty = 0.0;
    for number in 0..count {
        let (ip, port) = (device_ip(Side::Left, number / OF_AN_IP), number % OF_AN_IP);
        let mut host = register_from(&net, ip, base.id, number as u32);
        host.confirm(&wires[port]);
        hosts.push((host, port));
        if number + 1 == FIRST {
            // Its workers have their buffers by now, and what runs is in memory.
            empty = cpu::resident(pid);
        }
        if start.elapsed() > SETUP {
            break;
        }
    }
    let count = hosts.len();
    let of_each = || (cpu::resident(pid) - empty) / (count - FIRST) as f64 / 1024.0;
    let resident = of_each();
    report.figures(&format!("{count} devices: memory"), "KiB resident for each", &[resident], goals.0);

    // Of as many as were meant, whatever the run could set up.
    let share = |used: f64, refreshes: usize| used / refreshes as f64 * DEVICES as f64 / KEEPALIVE * 100.0;
    for (whose, each, goal) in [("", false, goals.1), (" behind symmetric NATs", true, Goal::None)] {
        let used = at_their_pace(&mut hosts, &wires, pid, each);
        let shares: Vec<f64> = used.map(|used| share(used, count)).collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let case = format!("refresh of {DEVICES} devices{whose} in 25 s, at their pace, from {count}");
        report.figures(&case, "% of a core", &[mean], goal);
        report.figures("the same, round by round", "% of a core", &shares, Goal::None);
    }
    let before = cpu::seconds(pid);
    for (host, port) in &mut hosts {
        host.refresh(&wires[*port]);
    }
    let used = share(cpu::seconds(pid) - before, count);
    let case = format!("refresh of {DEVICES} devices in 25 s, one by one, from {count}");
    report.figures(&case, "% of a core", &[used], goals.1);
    let again = of_each();
    report.figures(
        &format!("{count} devices: memory after it"),
        "KiB resident for each",
        &[again],
        Goal::AtMost(4.0),
    );
}

/// Rounds of refreshes, each device in its turn; the CPU seconds of each round.
fn at_their_pace<'a>(
    hosts: &'a mut [(Host, usize)],
    wires: &'a [Wire],
    pid: u32,
    each: bool,
) -> impl Iterator<Item = f64> + 'a {
    let gap = Duration::from_secs_f64(KEEPALIVE / DEVICES as f64);
    if each {
        for (host, port) in &mut *hosts {
            host.bind_all(&wires[*port]);
        }
    }
    (0..ROUNDS).map(move |_| {
        let before = cpu::seconds(pid);
        let (mut due, mut answers, mut asked) = (Instant::now(), 0, 0);
        for (host, port) in &mut *hosts {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Gear that was held up does not make up for it: a burst would be cheaper for the base than what hosts do.
            due = Instant::now() + gap;
            answers += wires[*port].count();
            asked += host.keep_alive(&wires[*port], each);
        }
        for (host, _) in &mut *hosts {
            host.await_pong();
        }
        let last = Instant::now() + LATE;
        while answers < asked && Instant::now() < last {
            std::thread::sleep(gap);
            answers += wires.iter().map(Wire::count).sum::<usize>();
        }
        let used = cpu::seconds(pid) - before;
        assert!(answers * 100 >= asked * 99, "{answers} of {asked} NAT-INITs were answered");
        used
    })
}

/// As many devices as descriptors are allowed for, here and in the base; the system's hard limit is raised where that may be done.
pub(crate) fn allowed(count: usize) -> usize {
    let wanted = (count + SPARE) as u64;
    let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted); // only an administrator may
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    count.min((hard as usize).saturating_sub(SPARE))
}

/// A device whose TCP connection comes from this address.
pub(crate) fn register_from(net: &Net, ip: Ipv4Addr, base: bowline_proto::DeviceId, number: u32) -> Host {
    let mut host = Host::register_from(&net.left, ip, Net::base(Side::Left), base, number);
    host.ip = Some(ip);
    host
}
