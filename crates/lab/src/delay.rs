//! A delay line: packets that come in by an interface wait, each for the same time, before the machine sees them.
//!
//! Kernels of test machines often lack netem. This uses what they have: an iptables rule hands packets to a queue of the
//! kernel (NFQUEUE), a thread of the test learns of each by netlink and lets it go when its time has come. The kernel keeps
//! the packets; what passes here is a number for each. Nothing is reordered or lost; what no longer fits into the queue is not delayed.
//!
//! The rule stands in `raw PREROUTING`, before the connection table: further on, the first packets of a flow would wait
//! unconfirmed, and a symmetric NAT would give each of them a port of its own. It says `--queue-bypass`: without the thread
//! there is no delay, and no loss.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::socket::{
        setsockopt,
        sockopt::{RcvBuf, RcvBufForce},
    },
    sys::time::{TimeSpec, TimeValLike as _},
};

use crate::node::{Node, run};

/// The number of the queue; every machine has its own.
const QUEUE: u16 = 1;
/// Packets that may wait: a second of 60,000 small ones.
const QUEUE_LENGTH: u32 = 65_535;
/// Of the socket; each waiting note of a packet takes some 700 bytes of it.
const BUFFER: usize = 4 << 20;
/// How often the thread looks whether it is still wanted when no packets come.
const IDLE: Duration = Duration::from_millis(200);

/// A delay line; it ends when dropped.
#[derive(Debug)]
pub struct Delay {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Delays whatever comes in by this interface of a machine, IPv4 and IPv6. One line a machine.
    #[track_caller]
    #[must_use]
    pub fn on(node: &Node, interface: &str, by: Duration) -> Self {
        let queue = node.enter(Queue::open).unwrap_or_else(|error| {
            panic!("{}: the kernel gives no packet queue (NETFILTER_NETLINK_QUEUE): {error}", node.name())
        });
        for program in ["iptables-nft", "ip6tables-nft"] {
            let rule = format!(
                "-w -t raw -A PREROUTING -i {interface} -j NFQUEUE --queue-num {QUEUE} --queue-bypass"
            );
            run(node.command(program).args(rule.split(' ')));
        }
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || queue.serve(by, &until));
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there has been printed
        }
    }
}

/// A queue of the kernel, and the packets in it.
struct Queue {
    socket: Socket,
    /// Packet numbers, and when each may go: in both respects in order.
    waiting: VecDeque<(Instant, u32)>,
    buffer: Vec<u8>,
}

impl Queue {
    /// Claims the queue, in the network namespace of the calling thread.
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        // Beyond the system's limit, where we may; in a user namespace we may not.
        if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
            setsockopt(&socket, RcvBuf, &BUFFER)?;
        }
        // A packet whose note does not fit is not delayed (see `wire::configuration`), and that is no error.
        socket.set_no_enobufs(true)?;
        let mut queue = Self { socket, waiting: VecDeque::new(), buffer: Vec::with_capacity(1 << 16) };
        for attributes in wire::configuration(QUEUE_LENGTH) {
            queue.socket.send(&wire::message(wire::CONFIG, wire::ACKNOWLEDGED, QUEUE, &attributes), 0)?;
            queue.receive()?;
            wire::acknowledged(&queue.buffer)?;
        }
        queue.socket.set_non_blocking(true)?;
        Ok(queue)
    }

    fn serve(mut self, by: Duration, ended: &AtomicBool) {
        while !ended.load(Ordering::Relaxed) {
            self.release(Instant::now());
            let wait =
                self.waiting.front().map_or(IDLE, |(at, _)| at.saturating_duration_since(Instant::now()));
            wait_readable(self.socket.as_fd(), wait);
            self.take(by);
        }
    }

    /// Notes what has come.
    fn take(&mut self, by: Duration) {
        loop {
            match self.receive() {
                Ok(()) => {
                    let at = Instant::now() + by;
                    self.waiting.extend(wire::packets(&self.buffer).map(|packet| (at, packet)));
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {} // the rest is still there
                Err(_) => return, // nothing more at present
            }
        }
    }

    /// Lets all packets go whose time has come: one verdict holds for a packet and all before it.
    fn release(&mut self, now: Instant) {
        let mut last = None;
        while let Some((_, packet)) = self.waiting.pop_front_if(|(at, _)| *at <= now) {
            last = Some(packet);
        }
        if let Some(packet) = last {
            let verdict = wire::message(wire::VERDICT_BATCH, wire::REQUEST, QUEUE, &wire::accept(packet));
            let _ = self.socket.send(&verdict, 0); // an error means that the packets are gone
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0).map(drop)
    }
}

fn wait_readable(socket: BorrowedFd<'_>, within: Duration) {
    let within = TimeSpec::nanoseconds(i64::try_from(within.as_nanos()).unwrap_or(i64::MAX));
    // An interruption is as good as the time: whoever calls looks at both.
    let _ = ppoll(&mut [PollFd::new(socket, PollFlags::POLLIN)], Some(within), None);
}

/// The few messages of `linux/netfilter/nfnetlink_queue.h` that are needed.
mod wire {
    use std::io;

    const SUBSYSTEM: u16 = 3 << 8; // NFNL_SUBSYS_QUEUE
    const PACKET: u16 = SUBSYSTEM; // NFQNL_MSG_PACKET
    pub(super) const CONFIG: u16 = SUBSYSTEM | 2; // NFQNL_MSG_CONFIG
    pub(super) const VERDICT_BATCH: u16 = SUBSYSTEM | 3; // NFQNL_MSG_VERDICT_BATCH
    const ERROR: u16 = 2; // NLMSG_ERROR
    pub(super) const REQUEST: u16 = 1; // NLM_F_REQUEST
    pub(super) const ACKNOWLEDGED: u16 = REQUEST | 4; // with NLM_F_ACK

    /// Message header, then family, version and queue.
    const HEADERS: usize = 16 + 4;

    pub(super) fn message(kind: u16, flags: u16, queue: u16, attributes: &[u8]) -> Vec<u8> {
        let length = (HEADERS + attributes.len()) as u32;
        let mut message = Vec::with_capacity(length as usize);
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // sequence number and port: nothing is matched by them
        message.extend([0, 0]); // any family, version 0
        message.extend(queue.to_be_bytes());
        message.extend(attributes);
        message
    }

    fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut attribute = Vec::new();
        attribute.extend((4 + data.len() as u16).to_ne_bytes());
        attribute.extend(kind.to_ne_bytes());
        attribute.extend(data);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    /// What claims a queue and sets it up, in four messages.
    pub(super) fn configuration(length: u32) -> [Vec<u8>; 4] {
        /// Let a packet through undelayed when the queue is full (1 << 0), take packets that are segmented later (1 << 2).
        const FLAGS: [u8; 4] = 5_u32.to_be_bytes();
        [
            attribute(1, &[1, 0, 0, 0]),                           // NFQA_CFG_CMD: bind
            attribute(2, &[0, 0, 0, 0, 1]), // NFQA_CFG_PARAMS: not a byte of the packet, only that it is there
            attribute(3, &length.to_be_bytes()), // NFQA_CFG_QUEUE_MAXLEN
            [attribute(4, &FLAGS), attribute(5, &FLAGS)].concat(), // NFQA_CFG_MASK, NFQA_CFG_FLAGS
        ]
    }

    /// NFQA_VERDICT_HDR: accept this packet and all before it.
    pub(super) fn accept(packet: u32) -> Vec<u8> {
        const NF_ACCEPT: [u8; 4] = 1_u32.to_be_bytes();
        attribute(2, &[NF_ACCEPT, packet.to_be_bytes()].concat())
    }

    pub(super) fn acknowledged(bytes: &[u8]) -> io::Result<()> {
        let code = bytes.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
        match (number(bytes, 4), code) {
            (Some(ERROR), Some(0)) => Ok(()),
            (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
            _ => Err(io::Error::other("the kernel did not answer as expected")),
        }
    }

    /// The numbers of the packets that these messages tell of.
    pub(super) fn packets(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
        std::iter::from_fn(move || {
            loop {
                let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
                let message = bytes.get(..length).filter(|message| message.len() >= HEADERS)?;
                bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
                if number(message, 4) == Some(PACKET)
                    && let Some(packet) = packet(&message[HEADERS..])
                {
                    return Some(packet);
                }
            }
        })
    }

    /// The number in NFQA_PACKET_HDR, among a packet's attributes.
    fn packet(mut attributes: &[u8]) -> Option<u32> {
        loop {
            let (length, kind) = (number(attributes, 0)?, number(attributes, 2)?);
            if kind == 1 {
                return attributes.get(4..8)?.try_into().ok().map(u32::from_be_bytes);
            }
            attributes = attributes.get(usize::from(length).max(4).next_multiple_of(4)..)?;
        }
    }

    fn number(bytes: &[u8], at: usize) -> Option<u16> {
        bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
    }
}
