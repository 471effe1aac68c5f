//! What a host tells its user: events as they happen, and a snapshot of everything on request.
//!
//! Plain data, no behaviour beyond display. Moments are [`Instant`]s; a shell turns them into ages.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    id::DeviceId,
    wire::tcp::{ErrorCode, NoticeCode, UnreachableReason},
};

/// The way messages to (or from) a peer take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// No way at present.
    None,
    /// Through the base, over its TCP connection.
    RelayTcp,
    /// Through the base, over UDP.
    RelayUdp,
    /// Straight to this address of the peer.
    Direct(SocketAddr),
    /// To oneself: delivered on this device.
    Local,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::RelayTcp => f.write_str("relay tcp"),
            Self::RelayUdp => f.write_str("relay udp"),
            Self::Direct(address) => write!(f, "direct {address}"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// Something happened that a user may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session with a base stands.
    Registered {
        /// As configured.
        base: String,
        /// The base's ID.
        id: DeviceId,
        /// Its address.
        remote: SocketAddr,
        /// This device's address as the base sees it.
        seen: SocketAddr,
    },
    /// The base answers over UDP, too (`true`), or no longer does.
    RelayUdp(bool),
    /// The session with the base ended; a new race has begun (or begins after a back-off).
    BaseLost {
        /// As configured.
        base: String,
        /// In words.
        reason: String,
    },
    /// A base could not be used: the reason in words (refused, another ID than the one written, …).
    BaseRefused {
        /// As configured.
        base: String,
        /// What it said, if it was an ERROR.
        code: Option<ErrorCode>,
        /// In words.
        reason: String,
    },
    /// Messages to a peer take another way from now on.
    PathChanged {
        /// The peer.
        peer: DeviceId,
        /// The way before.
        from: Path,
        /// The way now.
        to: Path,
        /// Why, in a few words.
        reason: &'static str,
    },
    /// The direct path to a peer carries messages up to this size, in bytes; larger ones take the relay. Told when it changes.
    DirectSize {
        /// The peer.
        peer: DeviceId,
        /// The largest message.
        size: usize,
    },
    /// A base could not deliver to a peer. Information only.
    Unreachable {
        /// The peer.
        peer: DeviceId,
        /// What the base said.
        reason: UnreachableReason,
    },
    /// Another process with this key took over; this one stays away for a while.
    Replaced,
    /// A base has something to say.
    Notice {
        /// Its kind.
        code: NoticeCode,
        /// In words.
        text: String,
    },
    /// Bases of different clusters: devices on them cannot meet.
    ClustersDiffer {
        /// One base and its cluster.
        one: (String, DeviceId),
        /// The other.
        other: (String, DeviceId),
    },
    /// A router has mapped this port for this device, and the base reaches it there; `None`: no longer.
    PortMapped(Option<SocketAddr>),
    /// A device announced itself on a local link.
    Announced {
        /// The device.
        peer: DeviceId,
        /// Where.
        from: SocketAddr,
    },
}

/// Everything that is known at a moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// This device.
    pub id: DeviceId,
    /// The base in use, once registered.
    pub base: Option<BaseStatus>,
    /// While there is none: why, in words.
    pub why_no_base: Option<String>,
    /// Own addresses, as told to the base.
    pub own: Vec<SocketAddr>,
    /// Of these, the port that a router has mapped for this device, if the base reaches it there.
    pub mapped: Option<SocketAddr>,
    /// All peers that there is state for.
    pub peers: Vec<PeerStatus>,
    /// Counters since the start.
    pub counters: Counters,
}

/// The session with a base.
#[derive(Debug, Clone)]
pub struct BaseStatus {
    /// As configured.
    pub name: String,
    /// Its ID.
    pub id: DeviceId,
    /// Its TCP address.
    pub remote: SocketAddr,
    /// This device's TCP address as the base sees it.
    pub seen: SocketAddr,
    /// Registered since.
    pub since: Instant,
    /// Round trip of INFO and PONG.
    pub rtt: Option<Duration>,
    /// Its UDP addresses.
    pub udp: Vec<BindingStatus>,
}

/// One UDP address of the base.
#[derive(Debug, Clone)]
pub struct BindingStatus {
    /// The base's address.
    pub address: SocketAddr,
    /// This device's reflexive address as seen there, if it was answered.
    pub reflexive: Option<SocketAddr>,
    /// Whether this is the one that relayed messages come by.
    pub confirmed: bool,
    /// Whether messages of 1,200 bytes are known to pass upwards.
    pub full_size: bool,
    /// Last answer.
    pub answered: Option<Instant>,
    /// Its round trip.
    pub rtt: Option<Duration>,
}

/// A peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Its ID.
    pub id: DeviceId,
    /// The way messages take at present.
    pub path: Path,
    /// Since when.
    pub since: Instant,
    /// Why this way and no better one, in words.
    pub why: String,
    /// Round trip of the direct path.
    pub rtt: Option<Duration>,
    /// The largest message that the way is known to carry.
    pub max_datagram: usize,
    /// Whether the base says it is online (`None`: it says nothing, as of strangers).
    pub online: Option<bool>,
    /// All address pairs.
    pub pairs: Vec<PairStatus>,
}

/// An address pair and what it answered.
#[derive(Debug, Clone)]
pub struct PairStatus {
    /// The own address, if the system does not choose.
    pub local: Option<IpAddr>,
    /// The peer's.
    pub remote: SocketAddr,
    /// Where the remote address comes from.
    pub source: CandidateSource,
    /// HELLOs sent so far.
    pub sent: u64,
    /// Replies that came.
    pub answered: u64,
    /// When the last HELLO was sent.
    pub last_sent: Option<Instant>,
    /// When the last reply came.
    pub last_answer: Option<Instant>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// The next HELLO.
    pub next: Option<Instant>,
    /// What the system says when we send there, if that fails.
    pub error: Option<String>,
}

/// Where a candidate comes from; the order is the ranking of otherwise equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CandidateSource {
    /// The user gave it.
    Given,
    /// The peer proved that it is there.
    Proven,
    /// As a base sees the peer.
    Reflexive,
    /// Announced on a local link.
    Link,
    /// The peer's own address, told by the base.
    Own,
    /// As a base sees the peer, but with the peer's own port: a NAT keeps it where it can, perhaps not towards the base alone.
    KeptPort,
    /// A KNOCK came that way, while ports were guessed.
    Punched,
}

impl fmt::Display for CandidateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "given",
            Self::Proven => "proven",
            Self::Reflexive => "reflexive",
            Self::Link => "link",
            Self::Own => "own",
            Self::KeptPort => "kept port",
            Self::Punched => "punched",
        })
    }
}

/// What was counted since the start; each name says what it counts. The last two are the shell's: messages that nobody fetched
/// in time, and datagrams that the system dropped because a socket's buffer was full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub data_sent_direct: u64,
    pub data_sent_relay_udp: u64,
    pub data_sent_relay_tcp: u64,
    pub data_received_direct: u64,
    pub data_received_relay_udp: u64,
    pub data_received_relay_tcp: u64,
    pub malformed: u64,
    pub unknown_source: u64,
    pub not_allowed: u64,
    pub hello_sent: u64,
    pub hello_received: u64,
    pub hello_over_budget: u64,
    pub hello_bad_signature: u64,
    pub hello_replayed: u64,
    pub reply_received: u64,
    pub reply_stray: u64,
    pub base_stray: u64,
    pub knock_sent: u64,
    pub knock_received: u64,
    pub announcements: u64,
    pub peers_evicted: u64,
    pub output_dropped: u64,
    pub inbox_dropped: u64,
    pub socket_overflow: u64,
}
