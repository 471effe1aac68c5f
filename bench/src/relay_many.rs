//! `relay-many`: a thousand devices that talk in pairs, their single datagrams interleaved one by one.
//!
//! The hardest case for whoever lives from runs: no two datagrams in a row have one destination. The reference is the best of the same four
//! forwarders on the same traffic.

use std::{sync::Arc, time::Duration};

use bowline_proto::DeviceId;

use crate::{
    forwarders::{self, Forwarder, KINDS},
    gear::{Priority, Running},
    host::{BaseProcess, Host, Wire, send_data},
    netns::{Links, Net, Side},
    raw::{self, Link, device_ip},
    relay::{Turn, measure, report_turns},
    report::{Goal, Options, Report, in_turn},
};

pub(crate) const PAIRS: usize = 500;

pub(crate) fn run(options: &Options, report: &mut Report) {
    let net = Net::new(options);
    net.set(Links::Single);
    let (turn, rounds) =
        if options.quick { (Duration::from_millis(600), 3) } else { (Duration::from_secs(3), 5) };
    for size in [1_200, 100] {
        let mut best = ("", 0.0);
        for kind in KINDS {
            let trial = forward(&net, kind, size, turn);
            if trial.rate > best.1 {
                best = (kind, trial.rate);
            }
        }
        let pairs = in_turn(rounds, || relay(&net, size, turn), || forward(&net, best.0, size, turn));
        let case = format!("{} devices, single {size} B", 2 * PAIRS);
        report_turns(report, &case, best.0, &pairs, Goal::AtLeast(0.90));
    }
}

/// One turn of the base.
fn relay(net: &Net, size: usize, turn: Duration) -> Turn {
    let crowd = Crowd::new(net, "");
    measure(net, crowd.base.process.pid(), turn, size, || crowd.load(net, size), &crowd.right)
}

/// A base, and the devices.
pub(crate) struct Crowd {
    base: BaseProcess,
    left: Arc<Wire>,
    pub(crate) right: Arc<Wire>,
    /// Who is written to.
    partners: Vec<DeviceId>,
    /// They stay registered while these live.
    _hosts: Vec<Host>,
}

impl Crowd {
    pub(crate) fn new(net: &Net, config: &str) -> Self {
        let limits = "[base.limits]\nregistrations_per_second = 10000\nregistrations_burst = 10000\nverifications_per_second = 10000\n";
        let base = BaseProcess::start(&net.middle, &format!("{config}{limits}"));
        let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
        let mut hosts = Vec::new();
        let mut partners = Vec::new();
        for number in 0..PAIRS {
            let of = |side, node, wire: &Wire, n| {
                let mut host = Host::register(node, Net::base(side), base.id, n);
                host.ip = Some(device_ip(side, number));
                host.confirm(wire);
                host
            };
            let a = of(Side::Left, &net.left, &left, 2 * number as u32);
            let b = of(Side::Right, &net.right, &right, 2 * number as u32 + 1);
            partners.push(b.id);
            hosts.extend([a, b]);
        }
        Self { base, left, right, partners, _hosts: hosts }
    }

    pub(crate) fn load(&self, net: &Net, size: usize) -> Running {
        interleaved(net, &self.left, &self.partners, size)
    }
}

fn forward(net: &Net, kind: &str, size: usize, turn: Duration) -> Turn {
    let forwarder = Forwarder::start(&net.middle, kind);
    let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
    let mut load = Vec::new();
    for number in 0..PAIRS {
        for (side, wire) in [(Side::Left, &left), (Side::Right, &right)] {
            let mut key = [side as u8; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            let id = DeviceId::of_public_key(&key);
            forwarders::introduce(wire, Some(device_ip(side, number)), Net::base(side), id);
            if side == Side::Right {
                load.push(id);
            }
        }
    }
    let send = || interleaved(net, &left, &load, size);
    measure(net, forwarder.process.pid(), turn, size, send, &right)
}

/// Each of the left to its partner on the right, by turns.
fn interleaved(net: &Net, left: &Wire, partners: &[DeviceId], size: usize) -> Running {
    let link = Link::new(&net.left, "eth0", &net.middle, "l0");
    let frame = |(number, id): (usize, &DeviceId)| {
        let from = std::net::SocketAddrV4::new(device_ip(Side::Left, number), left.port());
        link.frame(from, Net::base(Side::Left), &send_data(*id, size))
    };
    let frames = partners.iter().enumerate().map(frame).collect();
    raw::replay(&net.left, frames, None, Priority::Normal)
}
