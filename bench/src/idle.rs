//! `idle`: many registered devices, each with its TCP connection and a confirmed UDP address, that do nothing but refresh every 25 seconds.
//!
//! Two figures: resident memory of the base for each of them, and the CPU time of one round of refreshes as a share of a core
//! over the 25 seconds it belongs to. What the system's kernel holds for their connections is not the base's and not in it.

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
    let empty = cpu::resident(pid);
    let wires: Vec<Wire> = (0..OF_AN_IP).map(|_| Wire::new(&net.left)).collect();
    let start = Instant::now();
    let mut hosts: Vec<(Host, usize)> = Vec::with_capacity(count);
    for number in 0..count {
        let (ip, port) = (device_ip(Side::Left, number / OF_AN_IP), number % OF_AN_IP);
        let mut host = register_from(&net, ip, base.id, number as u32);
        host.confirm(&wires[port]);
        hosts.push((host, port));
        if start.elapsed() > SETUP {
            break;
        }
    }
    let count = hosts.len();
    let resident = (cpu::resident(pid) - empty) / count as f64 / 1024.0;
    report.figures(&format!("{count} devices: memory"), "KiB resident for each", &[resident], goals.0);

    let before = cpu::seconds(pid);
    for (host, port) in &mut hosts {
        host.refresh(&wires[*port]);
    }
    let used = cpu::seconds(pid) - before;
    // Of as many as were meant, whatever the run could set up.
    let share = used / KEEPALIVE * 100.0 * DEVICES as f64 / count as f64;
    let case = format!("refresh of {DEVICES} devices in 25 s, from {count}");
    report.figures(&case, "% of a core", &[share], goals.1);
    let again = (cpu::resident(pid) - empty) / count as f64 / 1024.0;
    report.figures(
        &format!("{count} devices: memory after it"),
        "KiB resident for each",
        &[again],
        Goal::AtMost(4.0),
    );
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
