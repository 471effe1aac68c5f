//! The host's state machine: what runs on every device.
//!
//! A shell owns the sockets, the clock and this machine. After every call it drains [`Host::poll_output`] until that
//! answers with a timeout. A message's bytes are never held here: [`Host::route`] says where they go, and received
//! ones are handed back as slices of what the shell handed in.

pub mod event;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
pub use event::{
    BaseStatus, BindingStatus, CandidateSource, Counters, Event, PairStatus, Path, PeerStatus, Status,
};

use crate::{id::DeviceId, identity::SecretKey};

/// A TCP connection to a base, named by the machine; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A base as the user writes it: `[<base ID>@]host[:port]`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseName {
    /// The ID it must have, if one was written.
    pub id: Option<DeviceId>,
    /// A name or an IP address.
    pub host: String,
    /// The port, 4477 where none was written.
    pub port: u16,
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
    /// Its addresses, with the length of their prefix.
    pub addresses: Vec<(IpAddr, u8)>,
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
        /// The own address to send from; `None` lets the system choose.
        source: Option<IpAddr>,
        /// Where to; link-local addresses carry their scope.
        to: SocketAddr,
        /// These bytes.
        payload: Bytes,
    },
    /// Send the announcement on this interface.
    Announce {
        /// The interface's number.
        interface: u32,
        /// The content.
        payload: Bytes,
    },
    /// Look up a base's name and answer with [`Host::handle_resolved`].
    Resolve {
        /// The position of the base in the configuration.
        base: usize,
        /// The name (or IP address) to look up.
        host: String,
        /// The port to put into the addresses.
        port: u16,
    },
    /// Connect by TCP and answer with [`Host::handle_connected`] or [`Host::handle_closed`].
    Connect {
        /// The connection's name from now on.
        conn: ConnId,
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
    /// forgotten it; the shell need not call [`Host::handle_closed`].
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Tell the user.
    Event(Event),
    /// Nothing more to do before this moment (or, with `None`, before the next input).
    Timeout(Option<Instant>),
}

/// Where a message that was handed to [`Host::route`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// As one datagram to the peer; with [`crate::wire::peer::escape_prefix`] before it where
    /// [`crate::wire::peer::needs_escape`] says so.
    Direct(Hop),
    /// As one datagram to the base, with the SEND-DATA header before it.
    RelayUdp(Hop),
    /// As one SEND-DATA frame into the bounded data queue of this connection; dropped and reported with
    /// [`Host::handle_relay_overflow`] when that is full.
    RelayTcp(ConnId),
    /// Both ways at once: the direct path is suspect.
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
    /// The own address to send from; `None` lets the system choose.
    pub source: Option<IpAddr>,
    /// Where to.
    pub to: SocketAddr,
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
    /// There is state for as many peers as fit, and all are in use.
    #[error("there are {limit} peers already, and all of them are in use")]
    TooManyPeers {
        /// The limit.
        limit: usize,
    },
    /// The endpoint has been closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// A message that came in: a slice of what the shell handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The sender.
    pub from: DeviceId,
    /// Its bytes.
    pub data: &'a [u8],
    /// The way it came.
    pub path: Path,
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

/// A host.
#[derive(Debug)]
pub struct Host {}

impl Host {
    /// A host with this key. `seed` is the source of all its randomness.
    #[must_use]
    pub fn new(config: HostConfig, key: SecretKey, seed: [u8; 32], now: Instant) -> Self {
        let _ = (config, key, seed, now);
        todo!()
    }
    /// The network is (or has become) like this. To be called at the start and whenever the system reports a change,
    /// at once, without waiting for more changes.
    pub fn handle_network(&mut self, network: Network, now: Instant) {
        let _ = (network, now);
        todo!()
    }
    /// The device was asleep (the clock jumped): treat everything as changed.
    pub fn handle_resume(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }
    /// The answer to [`Output::Resolve`], or the reason why there is none.
    pub fn handle_resolved(&mut self, base: usize, result: Result<Vec<SocketAddr>, String>, now: Instant) {
        let _ = (base, result, now);
        todo!()
    }
    /// A connection stands.
    pub fn handle_connected(&mut self, conn: ConnId, now: Instant) {
        let _ = (conn, now);
        todo!()
    }
    /// A connection ended or was never established.
    pub fn handle_closed(&mut self, conn: ConnId, why: CloseReason, now: Instant) {
        let _ = (conn, why, now);
        todo!()
    }
    /// A whole frame (type and body) came from a base.
    pub fn handle_frame<'a>(&mut self, conn: ConnId, frame: &'a [u8], now: Instant) -> Option<Delivery<'a>> {
        let _ = (conn, frame, now);
        todo!()
    }
    /// A datagram came in, sent to `local` if the system says so.
    pub fn handle_datagram<'a>(
        &mut self,
        local: Option<IpAddr>,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<Delivery<'a>> {
        let _ = (local, from, datagram, now);
        todo!()
    }
    /// Something came to the multicast group. The machine checks source, hop limit and length.
    pub fn handle_announcement(&mut self, from: SocketAddr, hop_limit: u8, payload: &[u8], now: Instant) {
        let _ = (from, hop_limit, payload, now);
        todo!()
    }
    /// The system refused to send a datagram (unreachable, too large, address gone).
    pub fn handle_send_error(&mut self, hop: Hop, error: &std::io::Error, now: Instant) {
        let _ = (hop, error, now);
        todo!()
    }
    /// A message was dropped because the data queue towards the base was full.
    pub fn handle_relay_overflow(&mut self, peer: DeviceId, now: Instant) {
        let _ = (peer, now);
        todo!()
    }
    /// The moment of the last [`Output::Timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }
    /// Where a message of `length` bytes to `peer` goes, now. It counts as sent: paths are watched and direct ones
    /// attempted accordingly.
    ///
    /// # Errors
    /// When there is no way; the error names the limit that was exceeded.
    pub fn route(&mut self, peer: DeviceId, length: usize, now: Instant) -> Result<Route, SendError> {
        let _ = (peer, length, now);
        todo!()
    }
    /// Starts a direct path to a peer without sending it anything.
    ///
    /// # Errors
    /// As [`Host::route`].
    pub fn want(&mut self, peer: DeviceId, now: Instant) -> Result<(), SendError> {
        let _ = (peer, now);
        todo!()
    }
    /// Leaves: the base forgets this device at once. Everything after this is refused.
    pub fn close(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }
    /// What the shell has to do next.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        let _ = now;
        todo!()
    }
    /// This device.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        todo!()
    }
    /// Whether a session with a base stands.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        todo!()
    }
    /// Everything that is known at this moment.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let _ = now;
        todo!()
    }
    /// What is known of one peer.
    #[must_use]
    pub fn peer_status(&self, peer: DeviceId, now: Instant) -> Option<PeerStatus> {
        let _ = (peer, now);
        todo!()
    }
    /// The largest message that the present way to a peer is known to carry.
    #[must_use]
    pub fn max_datagram(&self, peer: DeviceId) -> usize {
        let _ = peer;
        todo!()
    }
    /// The IDs of bases by `host:port`, to be handed to the next run.
    #[must_use]
    pub fn remembered_bases(&self) -> Vec<(String, DeviceId)> {
        let _: Option<Duration> = None;
        todo!()
    }
}
