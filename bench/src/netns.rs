//! Three machines in a row: `left` ─ `middle` ─ `right`, joined by veth.
//!
//! A GSO send crosses a veth unsegmented, which no network card does: a whole batch costs what one packet does. Rows measured so are called
//! *super*. With `tx-udp-segmentation off` the sender's kernel cuts a batch before it leaves, and the receiver gets single packets, as
//! from a card: those rows are called *single*, and they are the ones that count.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
};

use bowline_lab::{Lab, Node, connect};

use crate::report::Options;

/// The base's port, and that of forwarders in its place.
pub(crate) const PORT: u16 = 4477;

/// How packets cross the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Single,
    Super,
}

impl Links {
    pub(crate) const ALL: [Self; 2] = [Self::Single, Self::Super];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Super => "super",
        }
    }
}

pub(crate) struct Net {
    pub(crate) left: Node,
    pub(crate) middle: Node,
    pub(crate) right: Node,
}

impl Net {
    pub(crate) fn new(options: &Options) -> Self {
        let lab = Lab::here(&options.folder);
        let (left, middle, right) = (lab.node("left"), lab.node("middle"), lab.node("right"));
        for (node, port, number) in [(&left, "l0", 1), (&right, "r0", 2)] {
            connect(node, "eth0", &middle, port);
            // Room for many devices on each side: 10.N.x.y.
            node.address("eth0", &format!("10.{number}.0.2/16"));
            middle.address(port, &format!("10.{number}.0.1/16"));
            node.route(&format!("default via 10.{number}.0.1"));
            // And many more, all of them this machine, behind its one address.
            node.route(&format!("local 10.{number}.4.0/22 dev lo"));
            middle.route(&format!("10.{number}.4.0/22 via 10.{number}.0.2"));
        }
        Self { left, middle, right }
    }

    /// Where the base listens, as seen from the left or right.
    pub(crate) fn base(side: Side) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, side as u8, 0, 1), PORT)
    }

    pub(crate) fn set(&self, links: Links) {
        let how = match links {
            Links::Single => "off",
            Links::Super => "on",
        };
        for (node, interface) in
            [(&self.left, "eth0"), (&self.middle, "l0"), (&self.middle, "r0"), (&self.right, "eth0")]
        {
            set_segmentation(node, interface, how);
        }
    }

    /// What has arrived on the right so far.
    pub(crate) fn arrived(&self) -> Arrived {
        arrived_at(&self.right, &["eth0".to_owned()])
    }
}

/// The kernel cuts what leaves here in batches, as for a card: a link of *single* rows.
pub(crate) fn cut_batches(node: &Node, interface: &str) {
    set_segmentation(node, interface, "off");
}

fn set_segmentation(node: &Node, interface: &str, how: &str) {
    let set = node.command("ethtool").args(["-K", interface, "tx-udp-segmentation", how]).output();
    let done = set.as_ref().is_ok_and(|output| output.status.success());
    assert!(done, "ethtool cannot switch segmentation on {interface}: {set:?}");
}

/// What has arrived at these interfaces of a machine so far.
pub(crate) fn arrived_at(node: &Node, interfaces: &[String]) -> Arrived {
    // A thread inside the namespace sees that one's counters.
    let text = node.enter(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap_or_default();
    let of_one = |line: &str| -> Option<(f64, f64)> {
        let (name, numbers) = line.trim().split_once(':')?;
        interfaces.iter().any(|interface| interface == name).then_some(())?;
        let mut numbers = numbers.split_whitespace().map(|n| n.parse().unwrap_or(f64::NAN));
        Some((numbers.next()?, numbers.next()?))
    };
    let (bytes, packets) =
        text.lines().filter_map(of_one).fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
    Arrived { packets, bytes }
}

/// Which end of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left = 1,
    Right = 2,
}

/// Counters of an interface. A packet that came unsegmented counts once, with its headers once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) packets: f64,
    pub(crate) bytes: f64,
}

impl Arrived {
    /// Bytes of Ethernet, IPv4 and UDP headers.
    const HEADERS: f64 = 14.0 + 20.0 + 8.0;

    /// How many datagrams of this size came since `before`.
    pub(crate) fn datagrams(self, before: Self, size: usize) -> f64 {
        let (packets, bytes) = (self.packets - before.packets, self.bytes - before.bytes);
        (bytes - packets * Self::HEADERS) / size as f64
    }
}
