//! Sending where `sendmsg` is not called directly: `quinn-udp`, one contiguous datagram at a time.
//!
//! The source address is set where the system allows; the interface is the system's choice.

use std::{
    borrow::Cow,
    io::{self, IoSlice},
    net::IpAddr,
};

use bowline_proto::host::Hop;
use quinn_udp::{Transmit, UdpSocketState};

use super::Socket;
use crate::Ecn;

/// Segmentation is not used on these systems.
#[derive(Debug, Default)]
pub(super) struct Segments;

impl Segments {
    pub(super) fn max(&self, _: &UdpSocketState, _: IpAddr) -> usize {
        1
    }
}

pub(super) fn send(
    socket: &Socket,
    hop: Hop,
    _interface: Option<u32>,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
    ecn: Ecn,
) -> io::Result<()> {
    let contents = match parts {
        [one] => Cow::Borrowed(&**one),
        parts => Cow::Owned(parts.iter().map(|part| &**part).collect::<Vec<_>>().concat()),
    };
    let transmit = Transmit {
        destination: hop.to,
        ecn: ecn.to_udp(),
        contents: &contents,
        segment_size: segment.map(usize::from),
        src_ip: hop.source,
    };
    socket.state.try_send(socket.ready.socket().into(), &transmit)
}
