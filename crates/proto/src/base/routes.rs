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
//! [`Reader::judge`] is the whole of a worker's decision. The machine relays through the same functions, so that a
//! simulated world, which has no workers, and a real server cannot differ. What is not plain data to a device that is
//! reached over UDP, and no such NAT-INIT, is the machine's: a worker hands it on, cheapest check first.

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use papaya::{HashMapRef, LocalGuard};
use siphasher::sip::SipHasher24;

use super::{
    BaseConfig, ConnId, Over, SocketId, ToBase, Via,
    config::{CONFIRM_RATE, RELAY_UNIT, SMALL_DATA},
    location::Session,
    memory::Keyed,
};
use crate::{
    bucket::Rate,
    id::DeviceId,
    wire::{
        ANY_PATH_DATA, COOKIE_LEN, Cookie, MAX_DATA, addr,
        cluster::{self, BASE_DATA, BASE_PING, BASE_PONG, BaseData, BaseKey, PREFIX_LEN, PROBE_LEN, Probe},
        relay::{self, SEND_DATA},
        udp::{
            MAP_CHECK, MAP_CHECK_LEN, NAT_CONFIRM, NAT_INIT, NAT_INIT_MIN_LEN, NAT_OK_LEN, NatConfirm,
            NatInit, NatOk, PADDED_LEN, UnverifiedNatInit,
        },
    },
};

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
    pub(super) remotes: Table<DeviceId, Arc<BaseLeg>>,
    /// Where other bases send from.
    bases: Table<SocketAddr, ()>,
    /// What other bases make tags with; `None` where there are none.
    base_key: Option<BaseKey>,
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
pub(super) struct SourceKey([u8; 24]);

impl SourceKey {
    pub(super) fn new(socket: SocketId, address: SocketAddr) -> Self {
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
    budget: Arc<Budget>,
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

/// What a device may have relayed in a second.
#[derive(Debug, Clone, Copy)]
struct Rates {
    messages: Option<Rate>,
    /// In units of [`RELAY_UNIT`] bytes.
    bytes: Option<Rate>,
}

impl Rates {
    /// The rates of these limits, each a second's worth; `None` where there is no limit at all.
    fn of(messages: Option<u32>, bytes: Option<u32>) -> Option<Self> {
        let rates =
            Self { messages: messages.map(|n| Rate::per_second(n.max(1))), bytes: bytes.map(rate_of) };
        (messages.is_some() || bytes.is_some()).then_some(rates)
    }
}

/// What a device may still have relayed, whoever of several readers counts it: buckets as [`crate::bucket::Bucket`] is.
#[derive(Debug, Default)]
pub(super) struct Budget {
    messages_full_at: AtomicU64,
    bytes_full_at: AtomicU64,
}

/// Takes `n` of a bucket, if there are as many.
fn take_many(full_at: &AtomicU64, n: u32, rate: Rate, now: u64) -> bool {
    let every = rate.every.as_nanos() as u64;
    let (cost, burst) = (every * u64::from(n), every * u64::from(rate.burst));
    let taken = full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
        let full_at = full_at.max(now) + cost;
        (full_at <= now + burst).then_some(full_at)
    });
    taken.is_ok()
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

/// What is to be done with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A relayed message with its header rewritten: it goes there as it is.
    Forward {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
    },
    /// A relayed message with its header rewritten: it goes to another base, after these bytes.
    ToBase {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
        /// What goes before it.
        prefix: [u8; PREFIX_LEN],
    },
    /// A message that another base has sent: what comes after so many bytes goes there as it is.
    Deliver {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
        /// Bytes that only concerned the bases.
        skip: usize,
    },
    /// A relayed message that does not go over UDP, or is too large: the machine knows what becomes of it.
    Data,
    /// A message of a device that has had relayed what it may: drop it. The machine tells it now and then.
    OverRate {
        /// The sender.
        from: DeviceId,
        /// For whom it was.
        to: DeviceId,
    },
    /// NAT-INIT with something new in it, or NAT-CONFIRM, under a cookie that is alive: for the machine, before all else.
    Handshake,
    /// A NAT-INIT with nothing new in it: what is left of it after so many bytes is its answer, which goes back the way it came.
    Answer {
        /// So many bytes at its front do not go back.
        skip: usize,
    },
    /// What nobody can be behind: no binding there, no such cookie. The machine may answer NAT-UNKNOWN, rarely.
    Stranger,
    /// NAT-CONFIRM under a cookie that is not alive, or what only a base of the cluster may send: drop it.
    Refused,
    /// No message of a host: drop it.
    Malformed,
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
                remotes.insert(device, leg);
            }
            None => {
                remotes.remove(&device);
            }
        }
    }

    /// A view of the table for a batch of datagrams. Memory that was replaced meanwhile is given back when it is dropped.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            routes: self,
            sources: self.sources.pin(),
            places: self.places.pin(),
            remotes: self.remotes.pin(),
            bases: self.bases.pin(),
            cookies: self.cookies.pin(),
            last: None,
        }
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
        remotes: &Pinned<'_, DeviceId, Arc<BaseLeg>>,
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
        remotes: &Pinned<'_, DeviceId, Arc<BaseLeg>>,
        budget: &Budget,
        (from, to): (DeviceId, DeviceId),
        length: usize,
        now: Instant,
    ) -> Way {
        let now_nanos = self.nanos(now);
        let fresh = |leg: &&Arc<BaseLeg>| leg.until.load(Ordering::Relaxed) > now_nanos;
        match remotes.get(&to).filter(|_| length <= ANY_PATH_DATA).filter(fresh) {
            None => Way::Elsewhere,
            Some(_) if !self.within_rate(budget, length, now) => Way::OverRate,
            Some(leg) => {
                let prefix = cluster::prefix(to, leg.tag(from, to));
                Way::Base(ToBase { prefix, over: Over::Udp { via: leg.via, to: leg.to } })
            }
        }
    }

    /// Whether what devices may have relayed is limited.
    pub(super) fn has_rates(&self) -> bool {
        self.rates.is_some()
    }

    /// Whether a device may have one more message relayed, of so many bytes. It costs at least one unit of them.
    pub(super) fn within_rate(&self, budget: &Budget, length: usize, now: Instant) -> bool {
        let Some(rates) = self.rates else { return true };
        let (units, now) = ((length / RELAY_UNIT + 1) as u32, self.nanos(now));
        let within =
            |rate: Option<Rate>, full_at, n| rate.is_none_or(|rate| take_many(full_at, n, rate, now));
        within(rates.messages, &budget.messages_full_at, 1)
            && within(rates.bytes, &budget.bytes_full_at, units)
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
    pub(super) fn seize(
        &self,
        key: SourceKey,
        device: DeviceId,
        budget: Arc<Budget>,
        now: Instant,
    ) -> Option<DeviceId> {
        let source = Source { device, budget, heard: AtomicU64::new(self.nanos(now)) };
        self.sources.pin().insert(key, source).map(|before| before.device)
    }

    /// Who is behind an address, and when a message of his last came from there.
    pub(super) fn holder(&self, key: SourceKey) -> Option<(DeviceId, Instant)> {
        let sources = self.sources.pin();
        let source = sources.get(&key)?;
        Some((source.device, self.moment(source.heard.load(Ordering::Relaxed))))
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
        if self.full_size { ANY_PATH_DATA } else { SMALL_DATA }
    }
}

/// The rate at which a device may have `limit` bytes a second relayed.
fn rate_of(limit: u32) -> Rate {
    // A burst below the largest message would never let that one pass.
    let burst = (limit / RELAY_UNIT as u32).max((MAX_DATA / RELAY_UNIT + 1) as u32);
    let every = Duration::from_nanos(1_000_000_000 * RELAY_UNIT as u64 / u64::from(limit.max(1)));
    Rate { burst, every }
}

/// The table as one batch of datagrams sees it.
#[derive(Debug)]
pub struct Reader<'a> {
    routes: &'a Routes,
    sources: Pinned<'a, SourceKey, Source>,
    places: Pinned<'a, DeviceId, Place>,
    remotes: Pinned<'a, DeviceId, Arc<BaseLeg>>,
    bases: Pinned<'a, SocketAddr, ()>,
    cookies: Pinned<'a, Cookie, Arc<Session>>,
    last: Option<Last>,
}

/// The way of the last message: flows come in runs, and the next one is mostly of the same.
#[derive(Debug)]
struct Last {
    socket: SocketId,
    address: SocketAddr,
    to: DeviceId,
    now: Instant,
    from: DeviceId,
    leg: (Via, SocketAddr),
    /// To another base, after this.
    prefix: Option<[u8; PREFIX_LEN]>,
    /// The most data that the leg carries.
    limit: usize,
}

impl Last {
    fn is(&self, socket: SocketId, address: SocketAddr, to: DeviceId, length: usize, now: Instant) -> bool {
        self.to == to
            && self.address == address
            && self.socket == socket
            && self.now == now
            && length <= self.limit
    }
}

impl Reader<'_> {
    /// Decides about a datagram. A message that goes on has its header rewritten, an answer is written over what it answers; everything
    /// else is left as it came.
    pub fn judge(&mut self, via: Via, from: SocketAddr, datagram: &mut [u8], now: Instant) -> Verdict {
        if from.port() == 0 {
            // No answer can go there, and no message.
            return Verdict::Malformed;
        }
        match (datagram.first(), datagram.len()) {
            (Some(&SEND_DATA), _) => self.judge_data(via, from, datagram, now),
            (Some(&NAT_INIT), NAT_INIT_MIN_LEN..) => self.judge_nat_init(via, from, datagram, now),
            (Some(&NAT_CONFIRM), NAT_OK_LEN) if self.may_confirm(via, from, datagram, now) => {
                Verdict::Handshake
            }
            (Some(&NAT_CONFIRM), NAT_OK_LEN) => Verdict::Refused,
            (Some(&MAP_CHECK), MAP_CHECK_LEN) if self.knows_cookie_of(datagram) => Verdict::Handshake,
            (Some(&MAP_CHECK), MAP_CHECK_LEN) => Verdict::Refused,
            (Some(&BASE_DATA), _) => self.judge_base_data(from, datagram, now),
            (Some(&(BASE_PING | BASE_PONG)), PROBE_LEN) if self.routes.base_key.is_some() => {
                self.judge_probe(from, datagram)
            }
            _ => Verdict::Malformed,
        }
    }

    fn knows_cookie_of(&self, datagram: &[u8]) -> bool {
        self.session_of(datagram).is_some()
    }

    /// Whether it confirms an address of a device at all, and the device has not just done so again and again.
    fn may_confirm(&self, via: Via, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let (Some(session), Ok(confirm)) = (self.session_of(datagram), NatConfirm::decode(datagram)) else {
            return false;
        };
        let mut location = session.location();
        let challenge = |index| self.routes.challenge(&confirm.cookie, index, addr::canonical(from));
        location.index_of(via.socket).is_some_and(|index| challenge(index) == confirm.challenge)
            && location.confirms.take(CONFIRM_RATE, now)
    }

    fn session_of(&self, datagram: &[u8]) -> Option<&Session> {
        let cookie = datagram[1..].first_chunk::<COOKIE_LEN>()?;
        self.cookies.get(cookie).map(|session| &**session)
    }

    fn judge_nat_init(&self, via: Via, from: SocketAddr, datagram: &mut [u8], now: Instant) -> Verdict {
        let Some(session) = self.session_of(datagram) else { return Verdict::Stranger };
        let (length, from) = (datagram.len(), addr::canonical(from));
        let answer = UnverifiedNatInit::decode(datagram).ok().and_then(|init| {
            let init = (init.claim(), length);
            self.routes.renew_by(&self.places, session, (via.socket, from), init, now)
        });
        let Some(ok) = answer else { return Verdict::Handshake };
        let skip = length - NatOk::length_for(length);
        ok.write(&mut datagram[skip..]);
        Verdict::Answer { skip }
    }

    fn judge_data(&mut self, via: Via, from: SocketAddr, message: &mut [u8], now: Instant) -> Verdict {
        let Ok((to, data)) = relay::split(message) else { return Verdict::Malformed };
        let length = data.len();
        if let Some(last) = &self.last
            && last.is(via.socket, from, to, length, now)
        {
            let (via, to) = last.leg;
            return forward(message, last.from, via, to, last.prefix);
        }
        let key = SourceKey::new(via.socket, addr::canonical(from));
        let Some(source) = self.sources.get(&key) else { return Verdict::Stranger };
        source.heard.store(self.routes.nanos(now), Ordering::Relaxed);
        let pair = (source.device, to);
        let way = self.routes.way_by(&self.places, &self.remotes, &source.budget, pair, length, now);
        let (leg, limit, prefix) = match way {
            Way::Udp { via, to, limit } => ((via, to), limit, None),
            Way::Base(ToBase { prefix, over: Over::Udp { via, to } }) => {
                ((via, to), ANY_PATH_DATA, Some(prefix))
            }
            Way::OverRate => return Verdict::OverRate { from: source.device, to },
            Way::Base(_) | Way::TooLarge | Way::Elsewhere => return Verdict::Data,
        };
        let device = source.device;
        if self.routes.rates.is_none() {
            let socket = via.socket;
            self.last = Some(Last { socket, address: from, to, now, from: device, leg, prefix, limit });
        }
        forward(message, device, leg.0, leg.1, prefix)
    }

    /// A message that another base has sent: to a device that is reached over UDP here.
    fn judge_base_data(&self, from: SocketAddr, datagram: &[u8], now: Instant) -> Verdict {
        let Some(key) = &self.routes.base_key else { return Verdict::Malformed };
        let Ok(data) = BaseData::decode(datagram) else { return Verdict::Malformed };
        if !self.bases.contains_key(&addr::canonical(from))
            || data.tag != cluster::tag(key, data.from, data.to)
        {
            return Verdict::Refused;
        }
        let now = self.routes.nanos(now);
        let fresh = |leg: &&Leg| leg.until.load(Ordering::Relaxed) > now && data.length <= leg.limit();
        match self.places.get(&data.to).and_then(|place| place.leg.as_ref()).filter(fresh) {
            Some(leg) => Verdict::Deliver { via: leg.via, to: leg.to, skip: PREFIX_LEN },
            None => Verdict::Data,
        }
    }

    /// BASE-PING and BASE-PONG are for the machine, if a base has sent them.
    fn judge_probe(&self, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let is_ours = |key| Probe::decode(datagram, key).is_some();
        let known = self.bases.contains_key(&addr::canonical(from));
        if known && self.routes.base_key.as_ref().is_some_and(is_ours) {
            Verdict::Handshake
        } else {
            Verdict::Refused
        }
    }
}

fn forward(
    message: &mut [u8],
    from: DeviceId,
    via: Via,
    to: SocketAddr,
    prefix: Option<[u8; PREFIX_LEN]>,
) -> Verdict {
    match (relay::rewrite(message, from), prefix) {
        (Ok(()), None) => Verdict::Forward { via, to },
        (Ok(()), Some(prefix)) => Verdict::ToBase { via, to, prefix },
        (Err(_), _) => Verdict::Malformed,
    }
}
