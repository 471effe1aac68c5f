//! The boundary of the host's machine: what a shell hands in, what it gets back, how a host is set up.
//!
//! Plain types, no behaviour.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;

use super::{BaseName, Event, Path};
use crate::id::DeviceId;

/// A TCP connection to a base, named by the machine; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// An own UDP socket. The first, [`SocketId::MAIN`], is the shell's for each family; others are IPv4 alone, named by the machine, and
/// opened and closed as it says: guessing the ports of a NAT takes many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SocketId(pub u32);

impl SocketId {
    /// The socket that all ordinary datagrams leave by.
    pub const MAIN: Self = Self(0);
}

/// Who may talk to this device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Allow {
    /// Everyone.
    #[default]
    Everyone,
    /// These devices; others are not answered at all.
    Only(std::collections::HashSet<DeviceId>),
}

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Its bases, none for local links alone.
    pub bases: Vec<BaseName>,
    /// Who may talk to it.
    pub allow: Allow,
    /// Whether it tries direct paths at all.
    pub direct: bool,
    /// Whether ports of symmetric NATs are guessed where no direct path comes to stand otherwise.
    pub guess_ports: bool,
    /// Whether it uses UDP to its base.
    pub relay_udp: bool,
    /// Whether it announces itself and listens on local links.
    pub link_local: bool,
    /// Addresses of peers given by the user.
    pub given: Vec<(DeviceId, SocketAddr)>,
    /// The program and its version, told to bases.
    pub agent: String,
    /// IDs of bases seen in an earlier run, by `host:port`.
    pub remembered: Vec<(String, DeviceId)>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            bases: Vec::new(),
            allow: Allow::Everyone,
            direct: true,
            guess_ports: true,
            relay_udp: true,
            link_local: true,
            given: Vec::new(),
            agent: concat!("bowline/", env!("CARGO_PKG_VERSION")).to_owned(),
            remembered: Vec::new(),
        }
    }
}

/// A network interface as the system describes it. Those that the user excludes are left out by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The system's number for it, the scope ID of link-local addresses.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a loopback.
    pub loopback: bool,
    /// Whether it can multicast (and announcements are not switched off on it).
    pub multicast: bool,
    /// Whether a default route for IPv4 leads through it.
    pub default_v4: bool,
    /// Whether a default route for IPv6 leads through it.
    pub default_v6: bool,
    /// Whether datagrams to far away leave by it, of one family at least, where nobody says by which they should.
    pub preferred: bool,
    /// Its addresses, with the length of their prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Destinations beyond its own prefixes that routes (other than default ones) lead to through it.
    pub routes: Vec<(IpAddr, u8)>,
}

/// The network as this device sees it at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// All interfaces that are up.
    pub interfaces: Vec<Interface>,
    /// The port of the IPv4 socket, if there is one.
    pub port_v4: Option<u16>,
    /// The port of the IPv6 socket, if there is one.
    pub port_v6: Option<u16>,
}

/// What the shell has to do, in this order.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send a datagram, never fragmented.
    Transmit {
        /// The own socket to send from.
        socket: SocketId,
        /// The own address to send from; `None` lets the system choose.
        source: Option<IpAddr>,
        /// Where to; link-local addresses carry their scope.
        to: SocketAddr,
        /// These bytes.
        payload: Bytes,
    },
    /// Open one more IPv4 socket, on a port of the system's choice. If that fails, answer with
    /// [`super::Host::handle_socket_failed`].
    OpenSocket(SocketId),
    /// Close it.
    CloseSocket(SocketId),
    /// The router's mapping does not lead here (any more): ask the router again, and hand the answer to
    /// [`super::Host::handle_port_mapping`].
    RenewMapping,
    /// Send the announcement on this interface.
    Announce {
        /// The interface's number.
        interface: u32,
        /// The content.
        payload: Bytes,
    },
    /// Look up a base's name and answer with [`super::Host::handle_resolved`].
    Resolve {
        /// The position of the base in the configuration.
        base: usize,
        /// The name (or IP address) to look up.
        host: String,
        /// The port to put into the addresses.
        port: u16,
    },
    /// Connect by TCP and answer with [`super::Host::handle_connected`] or [`super::Host::handle_closed`].
    Connect {
        /// The connection's name from now on.
        conn: ConnId,
        /// The own address to connect from, by the interface that has it; `None` lets the system choose.
        source: Option<IpAddr>,
        /// Where to.
        to: SocketAddr,
    },
    /// Append control frames (lengths included) to a connection's queue; they are never dropped.
    Write {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        frames: Vec<u8>,
    },
    /// Close a connection (or give up connecting) once what was written before has been sent. The machine has
    /// forgotten it; the shell need not call [`super::Host::handle_closed`].
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Tell the user.
    Event(Event),
    /// Nothing more to do before this moment (or, with `None`, before the next input).
    Timeout(Option<Instant>),
}

/// Where a message that was handed to [`super::Host::route`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// As one datagram to the peer; with [`crate::wire::peer::escape_prefix`] before it where
    /// [`crate::wire::peer::needs_escape`] says so.
    Direct(Hop),
    /// As one datagram to the base, with the SEND-DATA header before it.
    RelayUdp(Hop),
    /// As one SEND-DATA frame into the bounded data queue of this connection; dropped and reported with
    /// [`super::Host::handle_relay_overflow`] when that is full.
    RelayTcp(ConnId),
    /// Both ways at once: the direct path is suspect, or this is where the peer is said to be now.
    Both(Hop, Relay),
    /// To this device itself: deliver it.
    Local,
}

/// The relay half of [`Route::Both`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// As [`Route::RelayUdp`].
    Udp(Hop),
    /// As [`Route::RelayTcp`].
    Tcp(ConnId),
}

/// Source and destination of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The own socket.
    pub socket: SocketId,
    /// The own address to send from; `None` lets the system choose.
    pub source: Option<IpAddr>,
    /// Where to.
    pub to: SocketAddr,
}

impl Hop {
    /// To that address, from wherever the system chooses.
    #[must_use]
    pub const fn anywhere(to: SocketAddr) -> Self {
        Self { socket: SocketId::MAIN, source: None, to }
    }

    /// Whether what came by another one came back on this way: to the socket and the address that this one leaves by. What the other
    /// end sends to another of our addresses says nothing of it; where the system chooses the source, the two cannot be told apart.
    #[must_use]
    pub fn leads_back(&self, came_by: &Self) -> bool {
        let same_source = match (self.source, came_by.source) {
            (Some(ours), Some(reached)) => ours == reached,
            _ => true,
        };
        self.to == came_by.to && self.socket == came_by.socket && same_source
    }
}

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is larger than any way carries.
    #[error("the message has {length} bytes, the way to this device carries {limit} at most")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The limit that it exceeds.
        limit: usize,
    },
    /// No base is connected, and there is no direct path to the device.
    #[error("no base server is connected, and there is no direct path to the device")]
    NoBase,
    /// No base is configured, and the device has not been seen on a local link.
    #[error("no base server is configured, and the device has not been seen on a local link")]
    UnknownDevice,
    /// There is state for as many peers as fit, and all are in use: no direct path is sought, and no base is connected that would carry
    /// messages.
    #[error("there are {limit} peers already, and all of them are in use")]
    TooManyPeers {
        /// The limit.
        limit: usize,
    },
    /// The endpoint has been closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// A message that came in, or several in one datagram: a slice of what the shell handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The sender.
    pub from: DeviceId,
    /// The bytes of all messages, one after the other.
    pub data: &'a [u8],
    /// The length of each message but the last, which may be shorter; never 0.
    pub segment: usize,
    /// The way it came.
    pub path: Path,
}

impl<'a> Delivery<'a> {
    /// The messages. An empty one is one, too.
    pub fn messages(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let data = self.data;
        let empty = data.is_empty().then_some(data);
        empty.into_iter().chain(data.chunks(self.segment))
    }
}

/// Why a TCP connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// It could not be established: the system's words.
    Refused(String),
    /// The base closed it, or it was reset: the system's words.
    Lost(String),
    /// Its framing is lost.
    Malformed(crate::wire::Malformed),
}
