//! A TCP connection: accepted → cookie given → registered, and the frames that come over it.
//!
//! Everything that goes wrong on a connection ends it with ERROR here. What a registration means is decided in
//! `registry`; a connection that speaks for a device holds no more than its ID.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use rand::Rng;

use super::{
    Base, BaseConfig, ConnId, Draining, Forward, Output, UdpAddress,
    config::{SMALL_DATA, WIDE_SHARE},
    deadline::Key,
    memory::{Keyed, Map, Source},
    talk::{Last, Speaker},
};
use crate::{
    id::DeviceId,
    wire::{
        COOKIE_LEN, Cookie, MAX_BASE_ADDRESSES, Malformed, addr,
        relay::{self, HEADER_LEN},
        tcp::{self, BaseFrame, BaseHello, ErrorCode, HostFrame, NoticeCode},
    },
};

/// Lists of UDP addresses that are kept for connections to share: more listening addresses than a base has.
const MAX_UDP_LISTS: usize = 16;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) remote: SocketAddr,
    /// What REGISTERED tells; each socket once.
    pub(super) udp: Arc<[UdpAddress]>,
    state: State,
    /// What whoever reads it knows of it.
    speaker: Arc<Speaker>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// GET-COOKIE comes next.
    Accepted(Waiting),
    /// REGISTER comes next, bound to this cookie.
    CookieGiven(Waiting, Cookie),
    /// What it said holds; whether its device is allowed is being asked.
    Asked(Waiting),
    /// It speaks for this device.
    Registered(DeviceId),
    /// It spoke for this device, which has registered at another base: what is under way may still pass.
    Lingering(DeviceId),
}

/// An unfinished connection's place in [`Unfinished`] and its patience.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    serial: u64,
    silent_at: Instant,
}

/// Why a connection ends: an ERROR in parts.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) retry_after: u16,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, retry_after: u16, text: impl Into<String>) -> Self {
        Self { code, retry_after, text: text.into() }
    }

    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Self::new(ErrorCode::Malformed, 0, why)
    }

    pub(super) fn busy(config: &BaseConfig, why: &str) -> Self {
        Self::new(ErrorCode::Busy, config.busy_retry_after, why)
    }

    pub(super) fn draining(config: &BaseConfig) -> Self {
        Self::new(ErrorCode::Draining, config.draining_retry_after, "this base is shutting down")
    }
}

/// Frames of one connection that came in at once: messages come in runs, and the way of the last is mostly that of the next.
#[derive(Debug)]
pub struct Frames<'a> {
    base: &'a mut Base,
    conn: ConnId,
    now: Instant,
    last: Option<Last>,
}

impl Frames<'_> {
    /// The same as [`Base::handle_frame`].
    pub fn handle(&mut self, frame: &mut [u8]) -> Forward {
        if let Some(forward) = self.last.as_ref().and_then(|last| last.take(frame)) {
            self.base.counters.forwarded_tcp += 1;
            self.base.counters.forwarded_tcp_bytes += (frame.len() - HEADER_LEN) as u64;
            return forward;
        }
        let came = frame.first_chunk().copied();
        let forward = self.base.handle_frame(self.conn, frame, self.now);
        // Where there are budgets, each message is counted.
        let alike = matches!(forward, Forward::Tcp { .. }) && !self.base.routes.has_rates();
        self.last = if alike { Last::new(came, frame, forward) } else { None };
        forward
    }
}

impl Base {
    /// A TCP connection was accepted. `udp` is the list that REGISTERED will tell this host: four at most, each
    /// socket once (what is over that is left out). Whoever reads the connection may do by what he gets what [`Routes::talk`] says.
    ///
    /// [`Routes::talk`]: super::Routes::talk
    pub fn handle_accepted(
        &mut self,
        conn: ConnId,
        remote: SocketAddr,
        udp: &[UdpAddress],
        now: Instant,
    ) -> Arc<Speaker> {
        let remote = addr::canonical(remote);
        self.counters.connections_accepted += 1;
        let silent_at = now + self.config.setup_timeout;
        let serial = self.unfinished.add(conn, Source::of(remote.ip()));
        let state = State::Accepted(Waiting { serial, silent_at });
        let udp = self.udp_list(udp);
        let speaker = Arc::<Speaker>::default();
        self.conns.insert(conn, Box::new(Conn { remote, udp, state, speaker: Arc::clone(&speaker) }));
        self.deadlines.by(Key::Conn(conn), silent_at);
        tracing::debug!(?conn, %remote, "accepted");

        if self.draining == Draining::Done {
            self.fail(conn, Failure::draining(&self.config), now);
        } else if let Some(oldest) =
            self.unfinished.over_share(Source::of(remote.ip()), self.config.max_unfinished_per_source)
        {
            self.counters.connections_refused += 1;
            let text = "too many unregistered connections from this address";
            self.fail(oldest, Failure::new(ErrorCode::SourceLimit, self.config.busy_retry_after, text), now);
        } else if self.unfinished.len() > self.config.max_unfinished
            && let Some(oldest) = self.unfinished.oldest()
        {
            self.counters.connections_refused += 1;
            self.fail(oldest, Failure::busy(&self.config, "too many unregistered connections"), now);
        }
        speaker
    }

    /// The list as it is told, which all connections to one listening address share.
    fn udp_list(&mut self, udp: &[UdpAddress]) -> Arc<[UdpAddress]> {
        let list = each_socket_once(udp);
        if let Some(known) = self.udp_lists.iter().find(|known| known[..] == list[..]) {
            return Arc::clone(known);
        }
        let list: Arc<[UdpAddress]> = list.into();
        if self.udp_lists.len() < MAX_UDP_LISTS {
            self.udp_lists.push(Arc::clone(&list));
        }
        list
    }

    /// Several frames of a connection came in at once.
    pub fn frames(&mut self, conn: ConnId, now: Instant) -> Frames<'_> {
        Frames { base: self, conn, now, last: None }
    }

    /// A whole frame (type and body) came in.
    pub fn handle_frame(&mut self, conn: ConnId, frame: &mut [u8], now: Instant) -> Forward {
        let Some(state) = self.conns.get(&conn).map(|c| c.state) else { return Forward::Nowhere };
        let is_data = frame.first().is_some_and(|&kind| relay::is_sent(kind));
        if let State::Lingering(device) = state {
            if !is_data {
                return Forward::Nowhere;
            }
            return self.relay(device, frame, now).unwrap_or(Forward::Nowhere);
        }
        if let State::Registered(device) = state
            && is_data
        {
            let length = frame.len().saturating_sub(HEADER_LEN);
            if length <= SMALL_DATA && self.devices.get(&device).is_some_and(|d| d.location().doubt(now)) {
                self.publish(device);
            }
            return match self.relay(device, frame, now) {
                Ok(forward) => forward,
                Err(why) => {
                    self.handle_malformed(conn, why, now);
                    Forward::Nowhere
                }
            };
        }
        match HostFrame::decode(frame) {
            Ok(message) => self.handle_message(conn, state, message, now),
            Err(why) => self.handle_malformed(conn, why, now),
        }
        Forward::Nowhere
    }

    fn handle_message(&mut self, conn: ConnId, state: State, message: HostFrame<'_>, now: Instant) {
        match (state, message) {
            (State::Accepted(waiting), HostFrame::GetCookie(_)) => self.give_cookie(conn, waiting, now),
            (State::CookieGiven(_, cookie), HostFrame::Register(register)) => {
                self.handle_register(conn, &cookie, register, now);
            }
            (State::Registered(device), message) if self.over_frame_rate(device, conn, &message, now) => {}
            (State::Registered(device), message) => match message {
                HostFrame::Info(info) => self.handle_info(device, conn, info, now),
                HostFrame::RequestInfo(about) => self.handle_request_info(device, about, now),
                HostFrame::ReleaseInfo(about) => self.handle_release_info(device, about, now),
                HostFrame::Leave => self.handle_leave(device, conn, now),
                HostFrame::Unknown(kind) => {
                    self.counters.unknown_frames += 1;
                    tracing::debug!(%device, kind, "unknown frame skipped");
                }
                HostFrame::GetCookie(_) | HostFrame::Register(_) => {
                    self.fail(conn, Failure::malformed("this session is registered already"), now);
                }
                // Relayed before anything is decoded.
                HostFrame::SendData(..) | HostFrame::SendJoined(..) => {}
            },
            (State::Lingering(_), _) => {}
            (State::Accepted(_), _) => self.fail(conn, Failure::malformed("GET-COOKIE comes first"), now),
            (State::CookieGiven(..), _) => self.fail(conn, Failure::malformed("REGISTER comes next"), now),
            (State::Asked(_), _) => self.fail(conn, Failure::malformed("REGISTERED comes next"), now),
        }
    }

    /// Whether a device has sent more frames than it may: then this one is dropped, and the device is told. Leaving is always possible.
    fn over_frame_rate(&mut self, id: DeviceId, conn: ConnId, message: &HostFrame<'_>, now: Instant) -> bool {
        let rate = self.config.frame_rate;
        let Some(device) = self.devices.get(&id) else { return false };
        if matches!(message, HostFrame::Leave) || device.location().frames.take(rate, now) {
            return false;
        }
        self.counters.frames_over_rate += 1;
        self.notice(id, conn, NoticeCode::Limit, "you send more frames than this base takes", now);
        true
    }

    /// The answer to GET-COOKIE. Every version from 1 on includes ours, which is the first.
    fn give_cookie(&mut self, conn: ConnId, waiting: Waiting, now: Instant) {
        if self.draining != Draining::No {
            self.fail(conn, Failure::draining(&self.config), now);
            return;
        }
        let cookie = self.new_cookie();
        let silent_at = now + self.config.setup_timeout;
        if let Some(c) = self.conns.get_mut(&conn) {
            c.state = State::CookieGiven(Waiting { silent_at, ..waiting }, cookie);
        }
        let base = self.id;
        let cluster = self.cluster.as_ref().map_or(base, |cluster| cluster.id);
        let hello =
            BaseHello { version: tcp::VERSION, cookie, base, cluster, capabilities: tcp::TAKES_JOINED };
        self.write(conn, &BaseFrame::BaseHello(hello));
    }

    fn new_cookie(&mut self) -> Cookie {
        loop {
            let mut cookie = [0; COOKIE_LEN];
            self.rng.fill_bytes(&mut cookie);
            if !self.routes.cookies.pin().contains_key(&cookie) {
                return cookie;
            }
        }
    }

    /// From now on this connection waits for the shell's answer.
    pub(super) fn await_answer(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(&conn)
            && let State::CookieGiven(waiting, _) = c.state
        {
            c.state = State::Asked(waiting);
        }
    }

    /// From now on this connection speaks for a device.
    pub(super) fn finish(&mut self, conn: ConnId, device: DeviceId) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.speaker.speak(self.devices.get(&device).map(|device| Arc::clone(&device.session)));
            let (remote, before) = (c.remote, std::mem::replace(&mut c.state, State::Registered(device)));
            self.leave_unfinished(conn, remote, before);
        }
    }

    /// A connection's framing is lost.
    pub fn handle_malformed(&mut self, conn: ConnId, why: Malformed, now: Instant) {
        self.counters.malformed_frames += 1;
        tracing::debug!(?conn, %why, "malformed frame");
        self.fail(conn, Failure::malformed(why.to_string()), now);
    }

    /// A connection ended by itself.
    pub fn handle_closed(&mut self, conn: ConnId, now: Instant) {
        if let Some(device) = self.drop_conn(conn) {
            self.link_lost(device, now);
        }
    }

    /// LEAVE: forget me now.
    fn handle_leave(&mut self, device: DeviceId, conn: ConnId, now: Instant) {
        self.drop_conn(conn);
        self.outputs.push_back(Output::Close { conn });
        self.unregister(device, "it left", now);
    }

    /// Ends a connection with ERROR, and the registration that it speaks for.
    pub(super) fn fail(&mut self, conn: ConnId, failure: Failure, now: Instant) {
        if let Some(device) = self.fail_conn(conn, failure) {
            self.unregister(device, "its session ended with an error", now);
        }
    }

    /// Ends a connection with ERROR and tells which device it spoke for, whose registration is left alone.
    pub(super) fn fail_conn(&mut self, conn: ConnId, failure: Failure) -> Option<DeviceId> {
        let remote = self.conns.get(&conn)?.remote;
        let Failure { code, retry_after, text } = failure;
        tracing::debug!(?conn, %remote, ?code, %text, "ended with an error");
        self.write(conn, &BaseFrame::Error(tcp::Error { code, retry_after, text }));
        self.outputs.push_back(Output::Close { conn });
        self.drop_conn(conn)
    }

    fn drop_conn(&mut self, conn: ConnId) -> Option<DeviceId> {
        let c = self.conns.remove(&conn)?;
        c.speaker.speak(None);
        self.asked.remove(&conn);
        self.leave_unfinished(conn, c.remote, c.state);
        match c.state {
            State::Registered(device) => Some(device),
            State::Lingering(device) => {
                self.linger_lost(device);
                None
            }
            State::Accepted(_) | State::CookieGiven(..) | State::Asked(_) => None,
        }
    }

    /// The device that this connection speaks for has registered at another base.
    pub(super) fn set_lingering(&mut self, conn: ConnId, device: DeviceId) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.state = State::Lingering(device);
            c.speaker.speak(None);
        }
    }

    /// Takes a connection out of the table; whether it was there.
    pub(super) fn forget_conn(&mut self, conn: ConnId) -> bool {
        self.conns.remove(&conn).inspect(|c| c.speaker.speak(None)).is_some()
    }

    fn leave_unfinished(&mut self, conn: ConnId, remote: SocketAddr, state: State) {
        if let State::Accepted(waiting) | State::CookieGiven(waiting, _) | State::Asked(waiting) = state {
            self.unfinished.remove(waiting.serial, Source::of(remote.ip()));
            self.deadlines.forget(Key::Conn(conn));
        }
    }

    /// A connection that has not registered may have been silent for too long.
    pub(super) fn conn_due(&mut self, conn: ConnId, now: Instant) {
        let Some(c) = self.conns.get(&conn) else { return };
        let (silent_at, missing) = match c.state {
            State::Accepted(waiting) => (waiting.silent_at, "GET-COOKIE"),
            State::CookieGiven(waiting, _) => (waiting.silent_at, "REGISTER"),
            State::Asked(waiting) => (waiting.silent_at, "answer about this device"),
            State::Registered(_) | State::Lingering(_) => return,
        };
        if silent_at > now {
            self.deadlines.by(Key::Conn(conn), silent_at);
            return;
        }
        let text = format!("no {missing} within {} seconds", self.config.setup_timeout.as_secs());
        self.fail(conn, Failure::new(ErrorCode::Silent, 0, text), now);
    }
}

fn each_socket_once(udp: &[UdpAddress]) -> Vec<UdpAddress> {
    let mut list: Vec<UdpAddress> = Vec::with_capacity(udp.len().min(MAX_BASE_ADDRESSES));
    for address in udp {
        if list.len() < MAX_BASE_ADDRESSES && list.iter().all(|a| a.socket != address.socket) {
            list.push(*address);
        }
    }
    list
}

/// The connections that have not registered, in order of arrival: all, and those of each source.
#[derive(Debug)]
pub(super) struct Unfinished {
    serial: u64,
    order: BTreeMap<u64, ConnId>,
    per_source: Map<Source, BTreeSet<u64>>,
}

impl Unfinished {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self { serial: 0, order: BTreeMap::new(), per_source: Map::with_hasher(keyed) }
    }

    fn add(&mut self, conn: ConnId, (narrow, wide): (Source, Option<Source>)) -> u64 {
        self.serial += 1;
        self.order.insert(self.serial, conn);
        for source in [Some(narrow), wide].into_iter().flatten() {
            self.per_source.entry(source).or_default().insert(self.serial);
        }
        self.serial
    }

    fn remove(&mut self, serial: u64, (narrow, wide): (Source, Option<Source>)) {
        if self.order.remove(&serial).is_none() {
            return;
        }
        for source in [Some(narrow), wide].into_iter().flatten() {
            if let Some(serials) = self.per_source.get_mut(&source) {
                serials.remove(&serial);
                if serials.is_empty() {
                    self.per_source.remove(&source);
                }
            }
        }
    }

    /// Who gives way where a source has more than its share. Arrival decides, not what was said: GET-COOKIE costs nothing, and a newcomer
    /// whose own is still on its way would be the first to go.
    fn over_share(&self, (narrow, wide): (Source, Option<Source>), limit: usize) -> Option<ConnId> {
        let oldest = |source, limit| {
            let serials = self.per_source.get(&source).filter(|serials| serials.len() > limit)?;
            self.order.get(serials.first()?).copied()
        };
        oldest(narrow, limit).or_else(|| oldest(wide?, limit.saturating_mul(WIDE_SHARE)))
    }

    fn oldest(&self) -> Option<ConnId> {
        self.order.first_key_value().map(|(_, &conn)| conn)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
