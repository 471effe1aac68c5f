//! Frames that are put on the wire as they are: load of many devices, or of forged ones, for a fraction of what sockets of theirs would
//! cost.

use std::{
    io::IoSlice,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use bowline_lab::Node;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, bind, sendmmsg, socket,
    },
};

use crate::gear::{Priority, Running};

/// Frames of one call.
const BATCH: usize = 64;
const TTL: u8 = 64;
const UDP: u8 = 17;

/// The link from a node to its neighbour: the addresses that its frames bear.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    from: [u8; 6],
    to: [u8; 6],
}

impl Link {
    pub(crate) fn new(node: &Node, interface: &str, neighbour: &Node, its_interface: &str) -> Self {
        let mac = |node: &Node, name: &str| {
            let path = format!("/sys/class/net/{name}/address");
            let output = node.command("cat").arg(path).output().expect("an interface has an address");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap_or(0));
            std::array::from_fn(|_| bytes.next().unwrap_or(0))
        };
        Self { from: mac(node, interface), to: mac(neighbour, its_interface) }
    }

    /// An Ethernet frame with a UDP datagram over IPv4. Its UDP checksum is absent, which IPv4 allows.
    pub(crate) fn frame(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(42 + payload.len());
        frame.extend_from_slice(&self.to);
        frame.extend_from_slice(&self.from);
        frame.extend_from_slice(&[0x08, 0x00]);
        let ip_at = frame.len();
        frame.extend_from_slice(&[0x45, 0]);
        frame.extend_from_slice(&(28 + payload.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0x40, 0, TTL, UDP, 0, 0]);
        frame.extend_from_slice(&from.ip().octets());
        frame.extend_from_slice(&to.ip().octets());
        let sum: u32 =
            frame[ip_at..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        frame[ip_at + 10..ip_at + 12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend_from_slice(&from.port().to_be_bytes());
        frame.extend_from_slice(&to.port().to_be_bytes());
        frame.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(payload);
        frame
    }
}

/// An address of a device of load: `10.side.4.0` and up, reached through the side's own address.
pub(crate) fn device_ip(side: crate::netns::Side, number: usize) -> Ipv4Addr {
    let number = number as u16 + 1;
    Ipv4Addr::new(10, side as u8, 4 + (number >> 8) as u8, number as u8)
}

/// A socket that sends frames out of `eth0`.
fn open(node: &Node) -> OwnedFd {
    node.enter(|| {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)
            .expect("root in its own namespace may send frames");
        let mut interfaces = getifaddrs().expect("interfaces can be listed");
        let link = interfaces.find_map(|interface| {
            let storage = interface.address.filter(|_| interface.interface_name == "eth0")?;
            storage.as_link_addr().copied()
        });
        bind(socket.as_raw_fd(), &link.expect("eth0 is there")).expect("eth0 can be sent on");
        socket
    })
}

/// Sends these frames again and again, at a rate or as fast as possible.
pub(crate) fn replay(node: &Node, frames: Vec<Vec<u8>>, rate: Option<f64>, priority: Priority) -> Running {
    let socket = open(node);
    Running::start(priority, move |stop| {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let nowhere = [None; BATCH];
        let (start, mut sent, mut next) = (Instant::now(), 0u64, 0);
        // Small steps where there is a pace, or the pace would be one of bursts.
        let most = rate.map_or(BATCH, |rate| ((rate / 10_000.0) as usize).clamp(1, BATCH));
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            if let Some(rate) = rate {
                let due = sent as f64 / rate;
                let ahead = due - start.elapsed().as_secs_f64();
                if ahead > 0.0 {
                    thread::sleep(Duration::from_secs_f64(ahead));
                }
            }
            let count = most.min(frames.len() - next);
            let slices: Vec<[IoSlice<'_>; 1]> =
                frames[next..next + count].iter().map(|frame| [IoSlice::new(frame)]).collect();
            let flags = MsgFlags::empty();
            match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &nowhere[..count], [], flags) {
                Ok(results) => {
                    let taken = results.count();
                    sent += taken as u64;
                    next = (next + taken.max(1)) % frames.len();
                }
                Err(_) => thread::yield_now(),
            }
        }
        sent
    })
}
