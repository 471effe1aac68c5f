//! `flood`: 200,000 forged packets a second at a base while real traffic flows: NAT-INITs under cookies that nobody has, from sources that
//! nobody is.
//!
//! The reference is the same traffic, at a pace that the gear's core can hold beside the flood, while the same packets go to a port that
//! nobody reads, so that the gear's work is the same. Since that pace leaves the base time to spare, a second row says what its core has
//! left: the share that the flood does not take.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bowline_proto::{
    SecretKey,
    wire::udp::{NatInit, PADDED_LEN},
};

use crate::{
    gear::{Priority, Running},
    host::{self, BaseProcess, Host, Wire, send_data},
    netns::{Links, Net, PORT, Side},
    raw::{self, Link, device_ip},
    relay::{Turn, measure},
    report::{Goal, Options, Report, in_turn},
};

const OFFERED: f64 = 200e3;
/// Real packets a second: what the gear holds beside the flood.
const REAL: f64 = 50e3;
/// Different forged packets; sources and cookies repeat afterwards.
const FORGED: usize = 1_000;
/// Addresses that they come from.
const SOURCES: usize = 900;
/// Threads that forge REGISTERs: each waits for the base most of the time.
const FORGERS: usize = 8;
/// A port of the base's machine where packets are dropped at once.
const NOWHERE: u16 = 9;

pub(crate) fn run(options: &Options, report: &mut Report) {
    let net = Net::new(options);
    net.set(Links::Single);
    let (turn, rounds) =
        if options.quick { (Duration::from_millis(900), 4) } else { (Duration::from_secs(3), 5) };
    // Read by nobody: full at once, and what comes then is dropped.
    let _unread = net.middle.udp((Ipv4Addr::UNSPECIFIED, NOWHERE).into());
    for (what, forged) in [("NAT-INIT, bare", nat_init(0)), ("NAT-INIT, padded", nat_init(PADDED_LEN))] {
        let turn_of = |port| flooded(&net, &forged, port, turn);
        let pairs = in_turn(rounds, || turn_of(PORT), || turn_of(NOWHERE));
        let rates: Vec<_> = pairs.iter().map(|(a, b)| (a.0.rate / 1e3, b.0.rate / 1e3)).collect();
        let offered = pairs.iter().map(|(a, _)| a.1).sum::<f64>() / pairs.len() as f64 / 1e3;
        let unit = format!("kpps of real data, {offered:.0} k forged a second offered");
        report.pairs(what, &unit, &rates, Goal::AtLeast(0.80));
        // What a core gives to real traffic with and without: the flood's own CPU seconds are lost to it.
        let left: Vec<_> = pairs.iter().map(|(a, b)| (1.0 - (a.0.busy - b.0.busy).max(0.0), 1.0)).collect();
        report.pairs(&format!("{what}: left of a core"), "share", &left, Goal::None);
    }
    registers(&net, turn, rounds, report);
}

/// Connections from many addresses, each with a REGISTER whose signature is forged, as fast as the gear makes them. The reference is the
/// same traffic while as many connections are made to a port that refuses them.
fn registers(net: &Net, turn: Duration, rounds: usize, report: &mut Report) {
    let turn_of = |port| registered(net, port, turn);
    let pairs = in_turn(rounds, || turn_of(PORT), || turn_of(NOWHERE));
    let rates: Vec<_> = pairs.iter().map(|(a, b)| (a.0.rate / 1e3, b.0.rate / 1e3)).collect();
    let offered = pairs.iter().map(|(a, _)| a.1).sum::<f64>() / pairs.len() as f64 / 1e3;
    let unit = format!("kpps of real data, {offered:.1} k forged a second offered");
    report.pairs("REGISTER", &unit, &rates, Goal::AtLeast(0.80));
    let left: Vec<_> = pairs.iter().map(|(a, b)| (1.0 - (a.0.busy - b.0.busy).max(0.0), 1.0)).collect();
    report.pairs("REGISTER: left of a core", "share", &left, Goal::None);
}

/// Real packets a second that arrived, and forged REGISTERs offered.
fn registered(net: &Net, port: u16, turn: Duration) -> (Turn, f64) {
    let talk = Talk::start(net);
    let (base, to) = (talk.base.id, SocketAddrV4::new(*Net::base(Side::Left).ip(), port));
    let forge = |forger: usize| {
        let node = net.left.clone();
        let body = move |stop: &AtomicBool| {
            let mut offered = 0;
            let mut number = forger * SOURCES / FORGERS;
            while !stop.load(Ordering::Relaxed) {
                number = (number + 1) % SOURCES;
                offered += u64::from(host::forge(device_ip(Side::Left, number), to, base).is_ok());
            }
            offered
        };
        Running::start(Priority::Load, move |stop| node.enter(|| body(stop)))
    };
    let forgers: Vec<Running> = (0..FORGERS).map(forge).collect();
    let measured = talk.measure(net, turn);
    let offered: u64 = forgers.into_iter().map(Running::stop).sum();
    (measured, offered as f64 / (turn.as_secs_f64() * 1.2))
}

/// Forged NAT-INITs: well-formed, signed by somebody, under cookies that nobody has.
fn nat_init(length: usize) -> Vec<Vec<u8>> {
    let key = SecretKey::from_seed(&[9; 32]);
    let one = |number: usize| {
        let mut cookie = [0xee; 8];
        cookie[..4].copy_from_slice(&(number as u32).to_be_bytes());
        NatInit { cookie, seq: 1, own: vec![] }.encode(&key, key.device_id(), 0, length)
    };
    (0..FORGED).map(one).collect()
}

/// A base, and two devices that are registered there over TCP and UDP.
struct Talk {
    base: BaseProcess,
    /// They stay connected.
    hosts: [Host; 2],
    left: Arc<Wire>,
    right: Arc<Wire>,
}

impl Talk {
    fn start(net: &Net) -> Self {
        let base = BaseProcess::start(&net.middle, "");
        let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
        let mut hosts = [
            Host::register(&net.left, Net::base(Side::Left), base.id, 1),
            Host::register(&net.right, Net::base(Side::Right), base.id, 2),
        ];
        hosts[0].confirm(&left);
        hosts[1].confirm(&right);
        Self { base, hosts, left, right }
    }

    /// What arrives of the real traffic.
    fn measure(&self, net: &Net, turn: Duration) -> Turn {
        let link = Link::new(&net.left, "eth0", &net.middle, "l0");
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 2), self.left.port());
        let real = link.frame(from, Net::base(Side::Left), &send_data(self.hosts[1].id, 1_200));
        let load = || raw::replay(&net.left, vec![real; 64], Some(REAL), Priority::First);
        measure(net, self.base.process.pid(), turn, 1_200, load, &self.right)
    }
}

/// Real packets a second that arrived, and forged ones offered.
fn flooded(net: &Net, forged: &[Vec<u8>], port: u16, turn: Duration) -> (Turn, f64) {
    let talk = Talk::start(net);
    let link = Link::new(&net.left, "eth0", &net.middle, "l0");
    let to = SocketAddrV4::new(*Net::base(Side::Left).ip(), port);
    let frame = |(number, payload): (usize, &Vec<u8>)| {
        let from = SocketAddrV4::new(device_ip(Side::Left, number % SOURCES), 1_024 + number as u16);
        link.frame(from, to, payload)
    };
    let frames = forged.iter().enumerate().map(frame).collect();
    let flood = raw::replay(&net.left, frames, Some(OFFERED), Priority::First);
    let measured = talk.measure(net, turn);
    let offered = flood.stop() as f64 / (turn.as_secs_f64() * 1.2);
    (measured, offered)
}
