//! The host's rows of `flood`: HELLOs with forged signatures at a host, from forged senders, while data flows to it directly.
//!
//! The flood comes over a second cable, unsegmented or not as the rows say, from a core of the sender's. Its rate is the one that is offered
//! ([`OFFERED`]); as much as the host's socket takes reaches the host. Data flows as fast as the sender can, and, in a row of its
//! own, at a rate that it would reach easily: there nothing but the host's own work can hold it up.
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
use bowline_proto::{
    DeviceId,
    wire::peer::{HELLO_LEN, Hello, IntroductionKey},
};
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
    fn start(from: &Node, forged: Forged) -> Self {
        let socket = from.udp(SocketAddr::from(([0; 4], 0)));
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            cpu::pin(0);
            flood(&socket, forged, &told, &count);
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

fn flood(socket: &UdpSocket, forged: Forged, stop: &AtomicBool, count: &AtomicU64) {
    let to = SockaddrStorage::from(SocketAddr::from(([10, 8, 0, 2], PEER_PORT)));
    let introduction = IntroductionKey([9; 16]);
    let hello = Hello::encode(key_of(false).device_id(), [3; 16], &introduction, &key_of(true), HELLO_LEN);
    let mut run = hello.repeat(RUN);
    let segment = u16::try_from(HELLO_LEN).expect("a HELLO is short");
    let began = Instant::now();
    let mut number: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        for at in 0..RUN {
            number += 1;
            // The initiator's ID comes after magic and type; the signature fits nobody.
            let hello = &mut run[at * HELLO_LEN..(at + 1) * HELLO_LEN];
            let initiator = match forged {
                Forged::Peer => key_of(true).device_id(),
                Forged::Strangers => DeviceId::of_public_key(&{
                    let mut key = [0; 32];
                    key[..8].copy_from_slice(&number.to_be_bytes());
                    key
                }),
            };
            hello[9..9 + 14].copy_from_slice(initiator.as_bytes());
            hello[100..108].copy_from_slice(&number.to_be_bytes());
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
    let (time, rounds) =
        if options.quick { (Duration::from_millis(700), 3) } else { (Duration::from_secs(3), 5) };
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
            let easy = format!("paced:{EASY}");
            for (load, name) in [("segments", "all that fits"), (easy.as_str(), "60 kpps offered")] {
                row(&cable, &attacker, links, forged, (load, name), (time, rounds), report);
            }
        }
    }
}

fn row(
    cable: &Cable,
    attacker: &Node,
    links: Links,
    forged: Forged,
    (load, load_name): (&str, &str),
    (time, rounds): (Duration, usize),
    report: &mut Report,
) {
    let mut offered = Vec::new();
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        // One flow for both: it shows as well whether the path outlives the flood.
        let mut flow = Flow::start(cable, load, SIZE);
        thread::sleep(time / 5);
        let without = flow.measure(time).rate;
        let flood = Flood::start(attacker, forged);
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
