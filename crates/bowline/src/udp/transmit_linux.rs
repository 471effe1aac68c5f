//! Sending on Linux: `sendmsg` with the source address, the interface, the segment size and the mark as control messages.
//!
//! A few parts (a header and the caller's bytes) are gathered by the kernel. Many short ones, the datagrams of a batch, are copied together
//! first: the kernel's own copy takes longer for each piece than that, twice as long in all where its memory was last in another
//! core's cache. `quinn-udp` would do all of this but name the interface, and takes every EINVAL, which a source address that has just
//! vanished causes, for a kernel without segmentation.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bowline_proto::host::Hop;
use nix::{
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};
use quinn_udp::UdpSocketState;

use super::Socket;
use crate::{
    Ecn,
    config::{COPY_PARTS, COPY_PARTS_BELOW, MAX_SEGMENTED_BYTES, UNSEGMENTED},
};

thread_local! {
    /// Where parts are copied together.
    static TOGETHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where the system does not segment: a device on the way there cannot (EIO). Never tried again.
#[derive(Debug, Default)]
pub(super) struct Segments {
    any_refused: AtomicBool,
    refused: RwLock<Vec<IpAddr>>,
}

impl Segments {
    pub(super) fn max(&self, state: &UdpSocketState, to: IpAddr) -> usize {
        if self.any_refused.load(Ordering::Relaxed) && self.is_refused(to) {
            1
        } else {
            state.max_gso_segments()
        }
    }

    fn is_refused(&self, to: IpAddr) -> bool {
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        refused.len() >= UNSEGMENTED || refused.contains(&to)
    }

    fn refuse(&self, to: IpAddr) {
        let mut refused = self.refused.write().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < UNSEGMENTED && !refused.contains(&to) {
            refused.push(to);
        }
        self.any_refused.store(true, Ordering::Relaxed);
    }
}

pub(super) fn send(
    socket: &Socket,
    hop: Hop,
    interface: Option<u32>,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
    ecn: Ecn,
) -> io::Result<()> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if parts.len() < COPY_PARTS || bytes / parts.len() >= COPY_PARTS_BELOW {
        return send_parts(socket, hop, interface, parts, segment, ecn);
    }
    TOGETHER.with_borrow_mut(|together| {
        together.clear();
        together.reserve(bytes.max(MAX_SEGMENTED_BYTES));
        parts.iter().for_each(|part| together.extend_from_slice(part));
        send_parts(socket, hop, interface, &[IoSlice::new(together)], segment, ecn)
    })
}

fn send_parts(
    socket: &Socket,
    hop: Hop,
    interface: Option<u32>,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
    ecn: Ecn,
) -> io::Result<()> {
    let interface = interface.unwrap_or(0);
    let (info_v4, info_v6, size) =
        (packet_info_v4(hop.source, interface), packet_info_v6(hop.source, interface), segment.unwrap_or(0));
    let source = match hop.source {
        Some(IpAddr::V4(_)) => Some(ControlMessage::Ipv4PacketInfo(&info_v4)),
        Some(IpAddr::V6(_)) => Some(ControlMessage::Ipv6PacketInfo(&info_v6)),
        None => None,
    };
    let segments = segment.map(|_| ControlMessage::UdpGsoSegments(&size));
    let (tos, class) = (ecn as u8, i32::from(ecn as u8));
    // A socket is of one family: no IPv4 address is written as an IPv6 one here.
    let mark = match hop.to {
        _ if ecn == Ecn::NotEct => None,
        SocketAddr::V4(_) => Some(ControlMessage::Ipv4Tos(&tos)),
        SocketAddr::V6(_) => Some(ControlMessage::Ipv6TClass(&class)),
    };
    let mut control = [ControlMessage::UdpGsoSegments(&size); 3];
    let mut count = 0;
    for message in [source, segments, mark].into_iter().flatten() {
        control[count] = message;
        count += 1;
    }
    let control = &control[..count];
    let to = SockaddrStorage::from(hop.to);
    loop {
        match sendmsg(socket.ready.socket().as_raw_fd(), parts, control, MsgFlags::empty(), Some(&to)) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => {
                if error == Errno::EIO && segment.is_some() {
                    socket.segments.refuse(hop.to.ip());
                }
                return Err(error.into());
            }
        }
    }
}

fn packet_info_v4(source: Option<IpAddr>, interface: u32) -> libc::in_pktinfo {
    let source = match source {
        Some(IpAddr::V4(source)) => u32::from_ne_bytes(source.octets()),
        _ => 0,
    };
    libc::in_pktinfo {
        ipi_ifindex: interface.cast_signed(),
        ipi_spec_dst: libc::in_addr { s_addr: source },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

fn packet_info_v6(source: Option<IpAddr>, interface: u32) -> libc::in6_pktinfo {
    let source = match source {
        Some(IpAddr::V6(source)) => source.octets(),
        _ => [0; 16],
    };
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source }, ipi6_ifindex: interface }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_cannot_be_segmented_for_does_not_end_it_for_others() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let state = UdpSocketState::new((&socket).into()).unwrap();
        let segments = Segments::default();
        let host = |n: u8| IpAddr::from([192, 0, 2, n]);
        assert!(segments.max(&state, host(1)) > 1);
        segments.refuse(host(1));
        assert_eq!(segments.max(&state, host(1)), 1);
        assert!(segments.max(&state, host(2)) > 1);
        (0..u8::MAX).for_each(|n| segments.refuse(host(n)));
        assert_eq!(segments.refused.read().unwrap().len(), UNSEGMENTED);
        assert_eq!(segments.max(&state, host(255)), 1, "with so many it is the system that cannot");
    }
}
