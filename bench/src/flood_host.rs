//! The host's rows of `flood`: HELLOs with forged signatures at a host, from forged senders, while data flows to it directly.
//!
//! The flood comes over a second cable, at the rate that is offered ([`OFFERED`]), from the sender's core: with two cores there is no third.
//! So there are two kinds of rows. *60 kpps*: data at a rate that the sender reaches beside the flood; the reference is the same without
//! the flood. *all that fits*: data as fast as the sender can; the reference is the same with the flood aimed at a
//! socket that nobody reads, so that both pay for sending it, and what is compared is what the host does with it.
//!
//! - `strangers`: from devices that the host does not know, each datagram another one. Nothing is hashed for these.
//! - `the peer's name`: as if from the very peer that data comes from, with a wrong introduction.

use std::{
    io::IoSlice,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bowline_lab::{Node, connect};
use bowline_proto::wire::peer::{HELLO_LEN, Hello, IntroductionKey};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use crate::{
    cpu,
    direct::{Cable, Flow, PEER_PORT, key_of},
    netns::Links,
    report::{Goal, Options, Report, spread},
};

/// Forged datagrams a second.
const OFFERED: f64 = 200_000.0;
/// Forged datagrams in one send call.
const RUN: usize = 50;
/// Data of a message.
const SIZE: usize = 1_200;
/// Messages a second in the rows that leave the machine time.
const EASY: u64 = 60_000;

/// Where a HELLO's initiator and token begin: after magic and type, and after two IDs and a key more.
const INITIATOR: usize = 9;
const TOKEN: usize = 9 + 14 + 14 + 32;

/// Who the forged HELLOs claim to be from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forged {
    Strangers,
    Peer,
}

/// A thread that floods until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(from: &Node, port: u16, forged: Forged) -> Self {
        let socket = from.udp(SocketAddr::from(([0; 4], 0)));
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            cpu::pin(0);
            flood(&socket, port, forged, &told, &count);
        });
        Self { stop, sent, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there has been shown
        }
    }
}

fn flood(socket: &UdpSocket, port: u16, forged: Forged, stop: &AtomicBool, count: &AtomicU64) {
    let to = SockaddrStorage::from(SocketAddr::from(([10, 8, 0, 2], port)));
    let peer = *key_of(true).device_id().as_bytes();
    let introduction = IntroductionKey([9; 16]);
    let hello = Hello::encode(key_of(false).device_id(), [3; 16], &introduction, &key_of(true), 0, HELLO_LEN);
    let mut run = hello.repeat(RUN);
    let segment = u16::try_from(HELLO_LEN).expect("a HELLO is short");
    let began = Instant::now();
    let mut number: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        for at in 0..RUN {
            number += 1;
            // The initiator's ID comes after magic and type; the signature fits nobody.
            let hello = &mut run[at * HELLO_LEN..(at + 1) * HELLO_LEN];
            hello[INITIATOR..INITIATOR + peer.len()].copy_from_slice(&peer);
            if forged == Forged::Strangers {
                hello[INITIATOR..INITIATOR + 8].copy_from_slice(&number.to_be_bytes());
            }
            hello[TOKEN..TOKEN + 8].copy_from_slice(&number.to_be_bytes());
        }
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let sent = sendmsg(socket.as_raw_fd(), &[IoSlice::new(&run)], &control, MsgFlags::empty(), Some(&to));
        if sent.is_ok() {
            count.fetch_add(RUN as u64, Ordering::Relaxed);
        }
        let due = began + Duration::from_secs_f64(number as f64 / OFFERED);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The rows, for the benchmark `flood`.
pub(crate) fn rows(options: &Options, report: &mut Report) {
    // The base's rows come before, and `--quick` is for all of them.
    let (time, rounds) =
        if options.quick { (Duration::from_millis(400), 2) } else { (Duration::from_secs(3), 5) };
    let loads = if options.quick { &[Load::Easy][..] } else { &[Load::Easy, Load::All] };
    let cable = Cable::new(options);
    let attacker = bowline_lab::Lab::here(&options.folder).node("attacker");
    connect(&attacker, "eth0", &cable.receiver, "eth1");
    attacker.address("eth0", "10.8.0.1/24");
    cable.receiver.address("eth1", "10.8.0.2/24");
    for links in Links::ALL {
        cable.set(links);
        let how = if links == Links::Single { "off" } else { "on" };
        let set = attacker.command("ethtool").args(["-K", "eth0", "tx-udp-segmentation", how]).output();
        assert!(set.is_ok_and(|output| output.status.success()), "ethtool cannot switch segmentation");
        for forged in [Forged::Strangers, Forged::Peer] {
            for &load in loads {
                row(&cable, &attacker, (links, forged, load), (time, rounds), report);
            }
        }
    }
}

/// How much data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// What the sender reaches beside the flood.
    Easy,
    /// As much as it can.
    All,
}

fn row(
    cable: &Cable,
    attacker: &Node,
    (links, forged, load): (Links, Forged, Load),
    (time, rounds): (Duration, usize),
    report: &mut Report,
) {
    let (how, load_name) = match load {
        Load::Easy => (format!("paced:{EASY}"), "60 kpps"),
        Load::All => ("segments".to_owned(), "all that fits"),
    };
    // A socket that nobody reads: the kernel drops what comes once it is full.
    let unread = cable.receiver.udp(SocketAddr::from(([0; 4], 0)));
    let unread_port = unread.local_addr().map(|address| address.port()).unwrap_or_default();
    let mut offered = Vec::new();
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        // One flow for both: it shows as well whether the path outlives the flood.
        let mut flow = Flow::start(cable, &how, SIZE);
        let elsewhere = (load == Load::All).then(|| Flood::start(attacker, unread_port, forged));
        thread::sleep(time / 5);
        let without = flow.measure(time).rate;
        drop(elsewhere);
        let flood = Flood::start(attacker, PEER_PORT, forged);
        thread::sleep(time / 5);
        let (before, began) = (flood.sent.load(Ordering::Relaxed), Instant::now());
        let with = flow.measure(time).rate;
        let sent = flood.sent.load(Ordering::Relaxed) - before;
        offered.push(sent as f64 / began.elapsed().as_secs_f64());
        pairs.push((with / 1e3, without / 1e3));
    }
    let names = match forged {
        Forged::Strangers => "strangers",
        Forged::Peer => "the peer's name",
    };
    let case = format!("host, {}, {names}, {load_name}", links.name());
    let unit = format!("kpps of 1,200 B ({:.0} kpps forged)", spread(&offered).1 / 1e3);
    report.pairs(&case, &unit, &pairs, Goal::AtLeast(0.8));
}
