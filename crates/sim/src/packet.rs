//! What travels: a packet with its addresses as they are at this hop.
//!
//! Addresses change on the way (NATs); who sent it does not. Nothing here decides anything.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::tcp::Segment;

/// Virtual time since the world began.
pub type Time = Duration;

/// A host or a base in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub usize);

/// What a packet carries.
#[derive(Debug, Clone)]
pub enum Body {
    /// A UDP datagram.
    Udp(Bytes),
    /// A TCP segment.
    Tcp(Segment),
}

/// The protocols that NATs tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// A packet on its way.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The source address as it is at this hop.
    pub src: SocketAddr,
    /// The destination address as it is at this hop.
    pub dst: SocketAddr,
    /// What it carries.
    pub body: Body,
    /// Who really sent it; `None` for one that an attacker made up.
    pub origin: Option<NodeId>,
    /// The line of the diagram that tells what became of it.
    pub line: u64,
}

/// Bytes of an IPv4 header and of an IPv6 header, and of a UDP and a TCP header without options.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

impl Packet {
    /// Its protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.body {
            Body::Udp(_) => Protocol::Udp,
            Body::Tcp(_) => Protocol::Tcp,
        }
    }

    /// Its length on the wire, headers included.
    #[must_use]
    pub fn length(&self) -> usize {
        let ip = if self.dst.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        ip + match &self.body {
            Body::Udp(payload) => UDP_HEADER + payload.len(),
            Body::Tcp(segment) => TCP_HEADER + segment.data.len(),
        }
    }
}
