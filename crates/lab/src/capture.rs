//! UDP datagrams as they cross a machine's interfaces, both directions, read from a packet socket.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt::RcvBuf,
    },
};

use crate::node::Node;

/// A datagram on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// Hop limit or time to live.
    pub hop_limit: u8,
    /// What it carries, after the UDP header.
    pub payload: Vec<u8>,
}

/// All UDP datagrams of a machine from now on.
#[derive(Debug)]
pub struct Capture {
    seen: Arc<Mutex<Vec<Datagram>>>,
}

impl Capture {
    /// Begins to record. Everything sent or received after this returns is seen.
    #[must_use]
    pub fn start(node: &Node) -> Self {
        const BUFFER: usize = 4 << 20; // the reader may wait a while for one of two busy cores
        let packets = node.enter(|| {
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .expect("a test may listen on its own network")
        });
        let _ = setsockopt(&packets, RcvBuf, &BUFFER); // the system may grant less
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        thread::spawn(move || read(&packets, &record));
        Self { seen }
    }

    /// What has crossed so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Datagram> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(packets: &OwnedFd, record: &Mutex<Vec<Datagram>>) {
    let mut frame = vec![0; 1 << 16];
    loop {
        match recv(packets.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => {
                if let Some(datagram) = parse(&frame[..length]) {
                    record.lock().unwrap_or_else(PoisonError::into_inner).push(datagram);
                }
            }
            Err(Errno::EINTR | Errno::ENETDOWN) => {} // an interface went down; the others go on
            Err(_) => return,
        }
    }
}

/// Ethernet, IPv4 or IPv6 without extension headers, UDP; everything else is `None`.
fn parse(frame: &[u8]) -> Option<Datagram> {
    let (header, packet) = frame.split_at_checked(14)?;
    let (from, to, hop_limit, segment): (IpAddr, IpAddr, _, _) = match header[12..] {
        [0x08, 0x00] => {
            let header = packet.get(..20)?;
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
            if header[9] != UDP || fragment != 0 {
                return None;
            }
            let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).ok()?));
            let length = usize::from(header[0] & 0x0f) * 4;
            (ip(12)?.into(), ip(16)?.into(), header[8], packet.get(length..)?)
        }
        [0x86, 0xdd] => {
            let header = packet.get(..40)?;
            if header[6] != UDP {
                return None;
            }
            let ip = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).ok()?));
            (ip(8)?.into(), ip(24)?.into(), header[7], packet.get(40..)?)
        }
        _ => return None,
    };
    let word = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
    // The UDP length, not the frame's: short frames are padded.
    let payload = segment.get(8..usize::from(word(4)?))?.to_vec();
    Some(Datagram {
        from: SocketAddr::new(from, word(0)?),
        to: SocketAddr::new(to, word(2)?),
        hop_limit,
        payload,
    })
}

/// The protocol number of UDP.
const UDP: u8 = 17;
