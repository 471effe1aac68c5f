//! Where messages go over UDP: the table that the machine writes and everybody who forwards reads.
//!
//! The machine has one owner; messages are forwarded by a worker for each core. [`Routes`] is what they share: who is behind a source
//! address, where a device is on UDP and until when, and which cookies are alive. Readers take no lock and write nothing that
//! another core reads: each lookup is a hash table's (`papaya`), a refresh moves one number, and only what changes is replaced. What
//! lapses carries its moment with it, so nobody has to take it out in time.
//!
//! A NAT-INIT in which nothing is new is answered by whoever gets it ([`Routes::renew`]): a device that only keeps itself alive costs the
//! machine nothing.
//!
//! What a worker decides by it is in `reader`, what who reads a connection decides in [`super::talk`]. The machine relays through the same
//! functions, so that a simulated world, which has no workers, and a real server cannot differ. Who forwards by a copy of the table, as a
//! program in the system's kernel does, is told of every change ([`Follower`]).

mod budget;
mod follower;
mod reader;

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub(super) use budget::Budget;
pub use budget::Limits;
use budget::Rates;
pub use follower::{Follower, Reached, SharedBudget};
use papaya::{HashMapRef, LocalGuard};
pub use reader::{Reader, Verdict};
use siphasher::sip::SipHasher24;

use super::{
    BaseConfig, ConnId, Over, SocketId, ToBase, Via, config::SMALL_DATA, location::Session, memory::Keyed,
};
use crate::{
    bucket::Rate,
    id::DeviceId,
    wire::{
        ANY_PATH_DATA, Cookie, MAX_DATA, addr,
        cluster::{self, BaseKey},
        udp::{NatInit, NatOk, PADDED_LEN},
    },
};

/// How exactly it is known when a device elsewhere was last sent something, in nanoseconds.
const USED_STEP: u64 = 1_000_000_000;

/// The table. One machine writes it; whoever holds it may read.
#[derive(Debug)]
pub struct Routes {
    /// Moments are kept as nanoseconds since this one, so that they fit into an atomic.
    start: Instant,
    /// What each device may have relayed; `None`: as much as it wants.
    rates: Option<Rates>,
    /// What a device may send of other frames.
    pub(super) frame_rate: Rate,
    /// A device whose INFOs stay away for as long is gone.
    pub(super) info_timeout: Duration,
    sources: Table<SourceKey, Source>,
    pub(super) places: Table<DeviceId, Place>,
    /// How many of them have a leg on UDP.
    legs: AtomicUsize,
    /// What challenges are made with.
    pub(super) secret: [u8; 16],
    /// The registered devices by their cookies.
    pub(super) cookies: Table<Cookie, Arc<Session>>,
    /// Devices of other bases that are reached over UDP.
    pub(super) remotes: Table<DeviceId, RemotePlace>,
    /// Where other bases send from.
    bases: Table<SocketAddr, ()>,
    /// What other bases make tags with; `None` where there are none.
    base_key: Option<BaseKey>,
    follower: Option<Arc<dyn Follower>>,
}

/// Where a device of another base is reached over UDP.
#[derive(Debug)]
pub(super) struct RemotePlace {
    leg: Arc<BaseLeg>,
    /// The last message that went there, to within [`USED_STEP`].
    used: AtomicU64,
}

/// The way to another base over UDP.
#[derive(Debug)]
pub(super) struct BaseLeg {
    via: Via,
    to: SocketAddr,
    key: BaseKey,
    start: Instant,
    /// It counts until then.
    until: AtomicU64,
}

impl BaseLeg {
    pub(super) fn via(&self) -> Via {
        self.via
    }

    pub(super) fn to(&self) -> SocketAddr {
        self.to
    }

    pub(super) fn is(&self, to: SocketAddr) -> bool {
        self.to == to
    }

    pub(super) fn tag(&self, from: DeviceId, to: DeviceId) -> [u8; 8] {
        cluster::tag(&self.key, from, to)
    }

    pub(super) fn until(&self) -> Instant {
        self.start + Duration::from_nanos(self.until.load(Ordering::Relaxed))
    }

    pub(super) fn prolong(&self, until: Instant) {
        let nanos = until.saturating_duration_since(self.start).as_nanos() as u64;
        self.until.store(nanos, Ordering::Relaxed);
    }
}

pub(super) type Table<K, V> = papaya::HashMap<K, V, Keyed>;
pub(super) type Pinned<'a, K, V> = HashMapRef<'a, K, V, Keyed, LocalGuard<'a>>;

/// A device's address as one of the base's sockets sees it, as one string of bytes: hashed and compared at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceKey([u8; 24]);

impl SourceKey {
    /// An address as this socket sees it.
    #[must_use]
    pub fn new(socket: SocketId, address: SocketAddr) -> Self {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        let mut key = [0; 24];
        key[..16].copy_from_slice(&ip.octets());
        key[16..18].copy_from_slice(&address.port().to_be_bytes());
        key[18..20].copy_from_slice(&socket.0.to_be_bytes());
        key[20..].copy_from_slice(&scope.to_be_bytes());
        Self(key)
    }

    /// IP (of IPv4, the mapped one), port, socket, scope, most significant byte first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }
}

impl Hash for SourceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// Who is behind a source address.
#[derive(Debug)]
struct Source {
    device: DeviceId,
    /// What counts its messages.
    session: Arc<Session>,
    /// Its last message to relay.
    heard: AtomicU64,
}

/// Where a device is.
#[derive(Debug)]
pub(super) struct Place {
    /// Its TCP connection.
    pub(super) conn: Option<ConnId>,
    leg: Option<Leg>,
}

/// Where a device is on UDP.
#[derive(Debug)]
struct Leg {
    via: Via,
    to: SocketAddr,
    /// Whether 1,215 bytes are known to pass downwards.
    full_size: bool,
    /// The base sends there until then.
    until: AtomicU64,
}

/// Where a message goes as far as UDP is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Udp {
        via: Via,
        to: SocketAddr,
        /// The most data that this leg carries.
        limit: usize,
    },
    /// To another base.
    Base(ToBase),
    /// Larger than any message may be.
    TooLarge,
    /// The sender has had relayed what he may.
    OverRate,
    /// Not over UDP. Nothing was taken of the sender's budget.
    Elsewhere,
}

impl Routes {
    pub(super) fn new(config: &BaseConfig, (keyed, secret): (Keyed, [u8; 16]), start: Instant) -> Self {
        Self {
            start,
            secret,
            rates: Rates::of(config.relay_messages, config.relay_rate),
            frame_rate: config.frame_rate,
            info_timeout: config.info_timeout,
            sources: Table::with_hasher(keyed),
            places: Table::with_hasher(keyed),
            legs: AtomicUsize::default(),
            cookies: Table::with_hasher(keyed),
            remotes: Table::with_hasher(keyed),
            bases: Table::with_hasher(keyed),
            base_key: None,
            follower: None,
        }
    }

    /// There are other bases.
    pub(super) fn with_base_key(self, key: BaseKey) -> Self {
        Self { base_key: Some(key), ..self }
    }

    /// A base may send from this address, or no longer.
    pub(super) fn know_base(&self, address: SocketAddr) {
        self.bases.pin().insert(address, ());
    }

    pub(super) fn forget_base(&self, address: SocketAddr) {
        self.bases.pin().remove(&address);
    }

    pub(super) fn is_base(&self, address: SocketAddr) -> bool {
        self.bases.pin().contains_key(&address)
    }

    /// A way to another base.
    pub(super) fn base_leg(&self, via: Via, to: SocketAddr, key: BaseKey, until: Instant) -> Arc<BaseLeg> {
        let leg = BaseLeg { via, to, key, start: self.start, until: AtomicU64::default() };
        leg.prolong(until);
        Arc::new(leg)
    }

    /// The way over UDP to a device that is not here.
    pub(super) fn set_remote(&self, device: DeviceId, leg: Option<Arc<BaseLeg>>) {
        let remotes = self.remotes.pin();
        match leg {
            Some(leg) => {
                let used = remotes.get(&device).map_or(0, |before| before.used.load(Ordering::Relaxed));
                remotes.insert(device, RemotePlace { leg, used: AtomicU64::new(used) });
            }
            None => {
                remotes.remove(&device);
            }
        }
    }

    /// Whether a message has gone over UDP to a device that is not here, within that time.
    pub(super) fn remote_was_used(&self, device: DeviceId, within: Duration, now: Instant) -> bool {
        let remotes = self.remotes.pin();
        let used = remotes.get(&device).map_or(0, |place| place.used.load(Ordering::Relaxed));
        used > 0 && now < self.moment(used) + within
    }

    pub(super) fn nanos(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.start).as_nanos() as u64
    }

    fn moment(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }

    /// Where a message with this much data goes.
    pub(super) fn way(
        &self,
        budget: &Budget,
        from: DeviceId,
        to: DeviceId,
        length: usize,
        now: Instant,
    ) -> Way {
        self.way_by(&self.places.pin(), &self.remotes.pin(), budget, (from, to), length, now)
    }

    pub(super) fn way_by(
        &self,
        places: &Pinned<'_, DeviceId, Place>,
        remotes: &Pinned<'_, DeviceId, RemotePlace>,
        budget: &Budget,
        (from, to): (DeviceId, DeviceId),
        length: usize,
        now: Instant,
    ) -> Way {
        if length > MAX_DATA {
            return Way::TooLarge;
        }
        let now_nanos = self.nanos(now);
        let fresh = |leg: &&Leg| leg.until.load(Ordering::Relaxed) > now_nanos && length <= leg.limit();
        match places.get(&to).and_then(|place| place.leg.as_ref()).filter(fresh) {
            None if self.base_key.is_some() => self.way_to_base(remotes, budget, (from, to), length, now),
            None => Way::Elsewhere,
            Some(_) if !self.within_rate(budget, length, now) => Way::OverRate,
            Some(leg) => Way::Udp { via: leg.via, to: leg.to, limit: leg.limit() },
        }
    }

    /// Where a message goes whose destination is reached at another base over UDP.
    fn way_to_base(
        &self,
        remotes: &Pinned<'_, DeviceId, RemotePlace>,
        budget: &Budget,
        (from, to): (DeviceId, DeviceId),
        length: usize,
        now: Instant,
    ) -> Way {
        let now_nanos = self.nanos(now);
        let fresh = |place: &&RemotePlace| place.leg.until.load(Ordering::Relaxed) > now_nanos;
        match remotes.get(&to).filter(|_| length <= ANY_PATH_DATA).filter(fresh) {
            None => Way::Elsewhere,
            Some(_) if !self.within_rate(budget, length, now) => Way::OverRate,
            Some(RemotePlace { leg, used }) => {
                // Seldom: others who forward to the same device read it.
                if used.load(Ordering::Relaxed) + USED_STEP <= now_nanos {
                    used.store(now_nanos, Ordering::Relaxed);
                }
                let prefix = cluster::prefix(to, leg.tag(from, to));
                Way::Base(ToBase { prefix, over: Over::Udp { via: leg.via, to: leg.to } })
            }
        }
    }

    /// A NAT-INIT came, of so many bytes. If it says nothing new the device's binding lives on, and this is the answer.
    pub(super) fn renew(
        &self,
        session: &Session,
        via: Via,
        from: SocketAddr,
        (init, length): (&NatInit, usize),
        now: Instant,
    ) -> Option<NatOk> {
        self.renew_by(&self.places.pin(), session, (via.socket, from), (init, length), now)
    }

    fn renew_by(
        &self,
        places: &Pinned<'_, DeviceId, Place>,
        session: &Session,
        (socket, from): (SocketId, SocketAddr),
        (init, length): (&NatInit, usize),
        now: Instant,
    ) -> Option<NatOk> {
        let renewed = session.location().renew(socket, from, init, length >= PADDED_LEN, now)?;
        if let Some(until) = renewed.until
            && let Some(leg) = places.get(&session.device()).and_then(|place| place.leg.as_ref())
            && (leg.via.socket, leg.to) == (socket, from)
        {
            leg.prolong(self.nanos(until));
            if let Some(follower) = self.follower() {
                follower.lives(session.device(), leg.reached(until));
            }
        }
        let challenge = self.challenge(&init.cookie, renewed.index, from);
        Some(NatOk {
            cookie: init.cookie,
            seq: init.seq,
            challenge,
            confirmed: renewed.confirmed,
            seen: from,
        })
    }

    /// What only the receiver of a NAT-OK at this address can know; nothing is stored for it.
    pub(super) fn challenge(&self, cookie: &Cookie, index: usize, from: SocketAddr) -> [u8; 8] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(cookie);
        hasher.write(&[index as u8]);
        hasher.write(&addr::encode(from));
        hasher.finish().to_be_bytes()
    }

    /// The device under a cookie.
    pub(super) fn session(&self, cookie: &Cookie) -> Option<Arc<Session>> {
        self.cookies.pin().get(cookie).cloned()
    }

    /// Says where a device is from now on: its connection, and its leg on UDP. A leg that only lives longer moves one number.
    pub(super) fn set_place(
        &self,
        device: DeviceId,
        conn: Option<ConnId>,
        leg: Option<(Via, SocketAddr, bool, Instant)>,
    ) {
        self.tell_place(device, leg);
        let places = self.places.pin();
        if conn.is_none() && leg.is_none() {
            self.count_legs(places.remove(&device), false);
            return;
        }
        match places.get(&device).filter(|place| place.conn == conn).map(|place| (&place.leg, leg)) {
            Some((None, None)) => {}
            Some((Some(known), Some((via, to, full_size, until)))) if known.is(via, to, full_size) => {
                known.prolong(self.nanos(until));
            }
            _ => {
                let leg = leg.map(|(via, to, full_size, until)| Leg {
                    via,
                    to,
                    full_size,
                    until: AtomicU64::new(self.nanos(until)),
                });
                let has_leg = leg.is_some();
                self.count_legs(places.insert(device, Place { conn, leg }), has_leg);
            }
        }
    }

    /// One place came instead of another. The machine alone counts.
    fn count_legs(&self, before: Option<&Place>, has_leg: bool) {
        let had = before.is_some_and(|place| place.leg.is_some());
        let legs = self.legs() + usize::from(has_leg) - usize::from(had);
        self.legs.store(legs, Ordering::Relaxed);
    }

    /// Makes an address a device's; gives back whose it was.
    pub(super) fn seize(&self, key: SourceKey, session: Arc<Session>, now: Instant) -> Option<DeviceId> {
        let (device, budget) = (session.device(), session.budget().number());
        let source = Source { device, session, heard: AtomicU64::new(self.nanos(now)) };
        // Until the follower knows, nobody else gets the budget that he has counted against.
        let sources = self.sources.pin();
        let before = sources.insert(key, source).map(|before| before.device);
        match self.follower() {
            // What he cannot count is not his.
            Some(follower) if self.has_rates() && budget.is_none() => follower.let_go(&key),
            Some(follower) => follower.seized(&key, device, budget),
            None => {}
        }
        before
    }

    /// Who is behind an address, and when a message of his last came from there.
    pub(super) fn holder(&self, key: SourceKey) -> Option<(DeviceId, Instant)> {
        let sources = self.sources.pin();
        let source = sources.get(&key)?;
        let heard = self.moment(source.heard.load(Ordering::Relaxed));
        let elsewhere = self.follower().and_then(|follower| follower.heard(&key));
        Some((source.device, elsewhere.map_or(heard, |elsewhere| elsewhere.max(heard))))
    }

    /// A message of the device behind an address came: whose it is.
    pub(super) fn hear(&self, key: SourceKey, now: Instant) -> Option<DeviceId> {
        let sources = self.sources.pin();
        let source = sources.get(&key)?;
        source.heard.store(self.nanos(now), Ordering::Relaxed);
        Some(source.device)
    }

    /// The device is no longer behind this address.
    pub(super) fn let_go(&self, key: SourceKey, device: DeviceId) {
        let sources = self.sources.pin();
        if sources.get(&key).is_some_and(|source| source.device == device) {
            sources.remove(&key);
            if let Some(follower) = self.follower() {
                follower.let_go(&key);
            }
        }
    }

    pub(super) fn bound_addresses(&self) -> usize {
        self.sources.len()
    }

    /// Whether the table says of a device what the machine knows of it.
    pub(super) fn agrees(
        &self,
        device: DeviceId,
        conn: Option<ConnId>,
        leg: Option<(Via, SocketAddr, bool, Instant)>,
    ) -> bool {
        let places = self.places.pin();
        let place = places.get(&device);
        let moment = |until: &AtomicU64| self.moment(until.load(Ordering::Relaxed));
        let ours = place.and_then(|place| place.leg.as_ref());
        let ours = ours.map(|leg| (leg.via, leg.to, leg.full_size, moment(&leg.until)));
        (place.and_then(|place| place.conn), ours) == (conn, leg)
    }

    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Devices that are reached over UDP.
    pub(super) fn legs(&self) -> usize {
        self.legs.load(Ordering::Relaxed)
    }
}

impl Leg {
    fn is(&self, via: Via, to: SocketAddr, full_size: bool) -> bool {
        (self.via, self.to, self.full_size) == (via, to, full_size)
    }

    /// It never gets shorter: a worker may have heard the device while the machine looked.
    fn prolong(&self, until: u64) {
        self.until.fetch_max(until, Ordering::Relaxed);
    }

    /// The most data that it carries.
    fn limit(&self) -> usize {
        limit(self.full_size)
    }

    fn reached(&self, until: Instant) -> Reached {
        Reached { via: self.via, to: self.to, limit: self.limit(), until }
    }
}

/// The most data that a leg carries.
fn limit(full_size: bool) -> usize {
    if full_size { ANY_PATH_DATA } else { SMALL_DATA }
}
