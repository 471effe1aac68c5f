//! The base server's state machine.
//!
//! A shell owns the sockets and this machine. It hands in connections, frames and datagrams, sends on what
//! [`Forward`] says it should with the bytes that it still holds, and then drains [`Base::poll_output`] until it
//! answers with a timeout.
//!
//! A connection lives in `conn` until it registers; the device it then speaks for lives in `registry`, with what
//! hangs on it: where it is on UDP (`binding`), whom it wants (`interest`) and what others are told of it (`push`).
//! `relay` decides where a message goes: two look-ups, no allocation, no timer. Whatever is kept is bounded by
//! [`BaseConfig`] or by the protocol, and goes by itself: `deadline` knows when.
//!
//! `cluster` joins many bases into one service.
//!
//! Not here: sockets, the store and the bus of a cluster, queues. The queue towards a slow host is the shell's.

mod admission;
mod binding;
mod cluster;
mod config;
mod conn;
mod counters;
mod deadline;
mod interest;
mod location;
mod memory;
mod push;
mod registry;
mod relay;
mod routes;
mod talk;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

pub use admission::Answer;
pub use cluster::{BusInput, BusOutput, CameOver, ClusterConfig, Entry, Over, ToBase};
pub use config::{BaseConfig, LEASE_LIFE, RECORD_LIFE};
pub use conn::Frames;
pub use counters::{Counters, Delays, Sizes};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
pub use routes::{Follower, Limits, Reached, Reader, Routes, SharedBudget, SourceKey, Verdict};
pub use talk::{Speaker, Step, Talk};

use self::{
    cluster::Cluster,
    conn::{Conn, Unfinished},
    deadline::{Deadlines, Key},
    memory::{Buckets, Expiring, Keyed, Map, Set, Source},
    registry::Device,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::{
        BootId, Cookie,
        tcp::{BaseFrame, Register},
    },
};

/// A TCP connection of the shell; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A UDP socket of the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u16);

/// One end of a UDP exchange on the base's side: the socket, and the address on it where that is known. Replies
/// leave from the address and port that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Via {
    /// The socket.
    pub socket: SocketId,
    /// The local IP a datagram was sent to; `None` lets the system choose.
    pub ip: Option<IpAddr>,
}

/// A UDP address as REGISTERED tells it to a host, and the socket behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpAddress {
    /// `::` with a port, or an address that the operator advertises.
    pub address: SocketAddr,
    /// The socket that receives what is sent there.
    pub socket: SocketId,
}

/// Where a relayed message goes. Its header has been rewritten in place (SEND-DATA to RECV-DATA, SEND-JOINED to RECV-JOINED), so the shell
/// sends the very bytes it handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Nowhere: it was no data, or it was dropped (and counted).
    Nowhere,
    /// As one datagram.
    Udp {
        /// From here.
        via: Via,
        /// To the destination's confirmed address.
        to: SocketAddr,
    },
    /// As one frame (the shell puts the length before it), into the bounded data queue of this connection. When that
    /// queue is full the shell drops the message and calls [`Base::handle_overflow`] with the ticket.
    Tcp {
        /// To this connection.
        conn: ConnId,
        /// Who is to be told when it is dropped.
        ticket: Ticket,
    },
    /// To another base of the cluster, after a prefix.
    Base(ToBase),
}

/// Whose message to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The sender.
    pub from: DeviceId,
    /// The destination.
    pub to: DeviceId,
}

/// What the shell has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Transmit {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
        /// These bytes.
        payload: Vec<u8>,
    },
    /// Append control frames (lengths included) to a connection's queue. They are never dropped: a connection whose
    /// queue would pass the shell's bound is closed instead.
    Write {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        frames: Vec<u8>,
    },
    /// Close a connection once what was written before has been sent (or the shell's patience ends). The machine
    /// has forgotten it already; the shell need not call [`Base::handle_closed`].
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Find out whether this device may register, and tell [`Base::handle_answer`]. Only where
    /// [`BaseConfig::ask`] is set.
    Ask {
        /// The connection that waits for it.
        conn: ConnId,
        /// The device; its signature holds.
        device: DeviceId,
    },
    /// Do this at the store and the bus of the cluster.
    Bus(BusOutput),
    /// Nothing more to do before this moment (or, with `None`, before the next input).
    Timeout(Option<Instant>),
}

/// A registered device, for whoever wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceView {
    /// The device.
    pub id: DeviceId,
    /// This boot of it has been here since.
    pub since: Instant,
    /// Where its TCP connection comes from; `None` while that is lost and UDP vouches for it.
    pub remote: Option<SocketAddr>,
    /// Where it is reached over UDP, and until when unless it is heard.
    pub udp: Option<(SocketAddr, Instant)>,
    /// How many devices it wants to talk with.
    pub interests: usize,
}

/// The base server.
#[derive(Debug)]
pub struct Base {
    config: BaseConfig,
    id: DeviceId,
    rng: ChaCha12Rng,
    keyed: Keyed,
    draining: Draining,
    /// The other bases, if there are any.
    cluster: Option<Box<Cluster>>,

    /// Boxed, as devices are: half of a table that has just grown is empty.
    conns: Map<ConnId, Box<Conn>>,
    /// What REGISTERED tells of UDP addresses, one list for each listening address.
    udp_lists: Vec<Arc<[UdpAddress]>>,
    unfinished: Unfinished,
    /// Unfinished connections whose device the shell is asked about, and what they said.
    asked: Map<ConnId, (Cookie, Register)>,
    short_of_memory: bool,
    devices: Map<DeviceId, Box<Device>>,
    /// Who is behind a source address on one of the base's sockets, where devices are on UDP, the cookies of
    /// registered devices: what others read while this machine writes it.
    routes: Arc<Routes>,
    /// Who wants a device, whether it is here or not: the reverse of all interests.
    wanters: Map<DeviceId, Set<DeviceId>>,
    interests_in_all: usize,
    /// Whom a device that left had wanted.
    absent: Expiring<DeviceId, Vec<DeviceId>>,
    /// Boots that another boot replaced.
    replaced: Expiring<(DeviceId, BootId), ()>,

    register_rates: Buckets<Source>,
    register_rates_wide: Buckets<Source>,
    register_spare: Bucket,
    verify_rate: Bucket,
    nat_unknown_rates: Buckets<SocketAddr>,
    nat_unknown_rate: Bucket,

    /// Every state of a device that others may be told of has a number of its own.
    versions: u64,
    deadlines: Deadlines,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// Whether this base is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    No,
    /// Hosts have been told to leave, the rest is ended then.
    Until(Instant),
    Done,
}

impl Base {
    /// A base with this ID. `seed` is the source of all its randomness (cookies, challenges).
    #[must_use]
    pub fn new(config: BaseConfig, id: DeviceId, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let keyed = Keyed::new(&mut rng);
        let mut secret = [0; 16];
        rng.fill_bytes(&mut secret);
        let mut deadlines = Deadlines::new(keyed);
        deadlines.by(Key::Memory, now + config::SWEEP_EVERY);
        Self {
            id,
            keyed,
            draining: Draining::No,
            cluster: None,
            conns: Map::with_hasher(keyed),
            udp_lists: Vec::new(),
            unfinished: Unfinished::new(keyed),
            asked: Map::with_hasher(keyed),
            short_of_memory: false,
            devices: Map::with_hasher(keyed),
            routes: Arc::new(Routes::new(&config, (keyed, secret), now)),
            wanters: Map::with_hasher(keyed),
            interests_in_all: 0,
            absent: Expiring::new(config::ABSENT_MEMORY, config.max_absent_interests, keyed),
            replaced: Expiring::new(config::REPLACED_MEMORY, config.max_replaced_boots, keyed),
            register_rates: Buckets::new(config.register_rate, config.max_sources, keyed),
            register_rates_wide: Buckets::new(config.register_rate_wide, config.max_sources, keyed),
            register_spare: Bucket::default(),
            verify_rate: Bucket::default(),
            nat_unknown_rates: Buckets::new(config::NAT_UNKNOWN_RATE, config.max_sources, keyed),
            nat_unknown_rate: Bucket::default(),
            versions: 0,
            deadlines,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            config,
            rng,
        }
    }

    /// The moment of the last [`Output::Timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.pop(now) {
            match key {
                Key::Drain => self.end_drain(),
                Key::Memory => self.forget_old(now),
                Key::Conn(conn) => self.conn_due(conn, now),
                Key::Device(device) => self.device_due(device, now),
                Key::Pair { to, about } => self.pair_due(to, about, now),
                Key::Cluster => self.cluster_due(now),
                Key::StoreRest => self.store_rested(),
                Key::Remote(device) => self.settle(device, now),
                Key::Linger(device) => self.end_linger(device),
            }
        }
    }

    /// Tells every host to leave within `seconds`, and new ones to go elsewhere; those still here then get ERROR 7. The last
    /// part of that time is for what is under way to those who have just left, and not told. With 0: at once.
    pub fn drain(&mut self, seconds: u16, now: Instant) {
        if self.draining == Draining::Done {
            return;
        }
        let until = now + std::time::Duration::from_secs(seconds.into());
        self.draining = Draining::Until(until);
        if seconds == 0 {
            self.end_drain();
            return;
        }
        self.deadlines.forget(Key::Drain);
        self.deadlines.by(Key::Drain, until);
        let told = seconds - (seconds / config::DRAIN_SHARE).min(config::DRAIN_MARGIN);
        let hosts: Vec<ConnId> = self.devices.values().filter_map(|device| device.link.conn()).collect();
        for conn in hosts {
            self.write(conn, &BaseFrame::GoAway(told));
        }
    }

    /// ERROR 7 to all. Nobody is told of the others' going: all are.
    fn end_drain(&mut self) {
        self.draining = Draining::Done;
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            self.fail_conn(conn, conn::Failure::draining(&self.config));
        }
        let devices: Vec<DeviceId> = self.devices.keys().copied().collect();
        for device in devices {
            self.remove(device);
        }
        self.end_lease();
    }

    fn forget_old(&mut self, now: Instant) {
        self.absent.purge(now);
        self.replaced.purge(now);
        self.register_rates.sweep(config::SWEEP_ENTRIES, now);
        self.register_rates_wide.sweep(config::SWEEP_ENTRIES, now);
        self.nat_unknown_rates.sweep(config::SWEEP_ENTRIES, now);
        self.deadlines.by(Key::Memory, now + config::SWEEP_EVERY);
    }

    /// What the shell has to do next.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        let _ = now;
        if self.outputs.is_empty() {
            self.send_wants();
        }
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadlines.next()))
    }

    /// Appends a control frame to a connection's queue.
    fn write(&mut self, conn: ConnId, frame: &BaseFrame<'_>) {
        if let Some(Output::Write { conn: last, frames }) = self.outputs.back_mut()
            && *last == conn
        {
            frame.write(frames);
            return;
        }
        let mut frames = Vec::new();
        frame.write(&mut frames);
        self.outputs.push_back(Output::Write { conn, frames });
    }

    /// This base.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Where messages go over UDP: for those who forward them beside this machine. What changed is seen there before
    /// the output that tells of it is given out.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    /// Whether the routes say what the machine knows; they always do, and tests ask.
    #[must_use]
    pub fn routes_agree(&self) -> bool {
        let known = |device: &Device| (device.link.conn(), device.location().confirmed_leg());
        let places =
            self.devices.values().map(|device| known(device)).filter(|place| *place != (None, None)).count();
        places == self.routes.places()
            && self.devices.iter().all(|(&id, device)| {
                let (conn, leg) = known(device);
                self.routes.agrees(id, conn, leg)
            })
    }

    /// The devices that are registered here, in no order.
    pub fn devices(&self) -> impl Iterator<Item = DeviceView> + '_ {
        self.devices.iter().map(|(&id, device)| DeviceView {
            id,
            since: device.since,
            remote: device.link.conn().and_then(|conn| self.conns.get(&conn)).map(|conn| conn.remote),
            udp: device.location().confirmed_leg().map(|(_, to, _, until)| (to, until)),
            interests: device.interests.len(),
        })
    }

    /// Whether hosts have been told to leave.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining != Draining::No
    }

    /// Whether this device is registered here.
    #[must_use]
    pub fn is_registered(&self, device: DeviceId) -> bool {
        self.devices.contains_key(&device)
    }

    /// How much the machine holds at this moment.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let (remote_devices, remote_interests) =
            self.cluster.as_ref().map_or((0, 0), |cluster| cluster.sizes());
        Sizes {
            remote_devices,
            remote_interests,
            lingering: self.cluster.as_ref().map_or(0, |cluster| cluster.lingering.len()),
            connections: self.conns.len(),
            unfinished: self.unfinished.len(),
            asked: self.asked.len(),
            devices: self.devices.len(),
            cookies: self.routes.cookies.len(),
            bound_addresses: self.routes.bound_addresses(),
            on_udp: self.routes.legs(),
            interests: self.interests_in_all,
            absent_interests: self.absent.weight(),
            replaced_boots: self.replaced.weight(),
            sources: self.register_rates.len()
                + self.register_rates_wide.len()
                + self.nat_unknown_rates.len(),
            deadlines: self.deadlines.len(),
            outputs: self.outputs.len(),
        }
    }
}
