//! All that a host has to do with its bases: which session is in use, what still counts of older ones, and what came in from
//! them. When to race for another one, and for whom, is in `choosing`.

mod choosing;

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use choosing::{Entry, Leaving, Wait};

use super::{
    BaseName, CloseReason, ConnId, Delivery, Event, HostConfig, Output, Path, Sizes,
    config::{MAX_OLD_SESSIONS, NAT_UNKNOWN_REACTION, OLD_SESSION, PATH_SILENT_REACTION, STABLE_SESSION},
    context::{Context, earlier},
    mapping::Mapping,
    master_key::MasterKey,
    race::Race,
    session::{Session, Verdict},
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::{
        BootId, Cookie,
        joined::read as read_joined,
        peer::IntroductionKey,
        tcp::{self, BaseFrame, DeviceAddresses, ErrorCode, UnreachableReason},
        udp::{BaseDatagram, NONCE_LEN},
    },
};

/// What a base's message means to the rest of the host.
#[derive(Debug)]
pub(super) enum FromBase<'a> {
    /// Nothing beyond the session.
    Nothing,
    /// A session stands: tell it whom we want.
    Registered,
    /// What was relayed.
    Data(Delivery<'a>),
    /// Where a peer is.
    Addresses(DeviceAddresses),
    /// A device asks for us.
    Wanted(DeviceId),
    /// A message did not arrive.
    Unreachable(DeviceId, UnreachableReason),
}

/// The host's bases.
#[derive(Debug)]
pub(super) struct Bases {
    entries: Vec<Entry>,
    boot: BootId,
    attempt: u32,
    /// The attempt that the present session came from.
    session_attempt: u32,
    next_conn: u64,
    race: Option<Race>,
    wait: Wait,
    lost_races: u32,
    /// How often in a row another device was found to use this key, and until when that counts.
    cloned: (u32, Instant),
    session: Option<Session>,
    old: Vec<OldSession>,
    leave: Option<Leaving>,
    master_key: MasterKey,
    mapping: Mapping,
    remembered: BTreeMap<String, DeviceId>,
    clusters: BTreeMap<usize, DeviceId>,
    nat_unknown: Bucket,
    path_silent: Bucket,
    race_again: Bucket,
    why_not: Option<String>,
    /// What a base said in this race says more than that another cannot be reached.
    why_was_said: bool,
    udp_reported: bool,
    closed: bool,
}

/// A session that has a successor: what still comes from it counts.
#[derive(Debug)]
struct OldSession {
    session: Session,
    until: Instant,
    open: bool,
    /// Its TCP connection was lost, not ended by either side: over UDP it goes on until its successor stands.
    lingers: bool,
}

impl Bases {
    pub(super) fn new(config: &HostConfig, ctx: &mut Context, now: Instant) -> Self {
        Self {
            entries: config.bases.iter().cloned().map(Entry::new).collect(),
            boot: ctx.random(),
            attempt: 0,
            session_attempt: 0,
            next_conn: 0,
            race: None,
            wait: Wait::No,
            lost_races: 0,
            cloned: (0, now),
            session: None,
            old: Vec::new(),
            leave: None,
            master_key: MasterKey::new(ctx, now),
            mapping: Mapping::default(),
            remembered: config.remembered.iter().cloned().collect(),
            clusters: BTreeMap::new(),
            nat_unknown: Bucket::default(),
            path_silent: Bucket::default(),
            race_again: Bucket::default(),
            why_not: None,
            why_was_said: false,
            udp_reported: false,
            closed: false,
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// While there is no session: the last one, if it lost no more than its TCP connection. The base keeps its
    /// registration for as long, and relays over UDP.
    pub(super) fn lingering(&self) -> Option<&Session> {
        self.old.last().filter(|old| self.session.is_none() && old.lingers).map(|old| &old.session)
    }

    pub(super) fn lingering_mut(&mut self) -> Option<&mut Session> {
        let none = self.session.is_none();
        self.old.last_mut().filter(|old| none && old.lingers).map(|old| &mut old.session)
    }

    pub(super) fn measure(&self, sizes: &mut Sizes) {
        let race = self.race.as_ref().map_or(0, Race::connections);
        let old = self.old.iter().filter(|old| old.open).count();
        sizes.old_sessions = self.old.len();
        sizes.connections = race + usize::from(self.session.is_some()) + old;
    }

    pub(super) fn any_configured(&self) -> bool {
        !self.entries.is_empty()
    }

    pub(super) fn why_not(&self) -> Option<String> {
        match (&self.session, &self.why_not) {
            (Some(_), _) => None,
            (None, _) if self.entries.is_empty() => Some("no base server is configured".to_owned()),
            (None, Some(why)) => Some(why.clone()),
            (None, None) => Some("connecting".to_owned()),
        }
    }

    pub(super) fn remembered(&self) -> Vec<(String, DeviceId)> {
        self.remembered.iter().map(|(name, &id)| (name.clone(), id)).collect()
    }

    /// Whether an introduction made for `initiator` is known to us under the present or the previous master key.
    pub(super) fn introduction_keys(&self, initiator: DeviceId, now: Instant) -> [IntroductionKey; 2] {
        self.master_key.introduction_keys(initiator, now)
    }

    /// As long as this is the same, so are all introduction keys.
    pub(super) fn introduction_version(&self, now: Instant) -> (u64, bool) {
        self.master_key.version(now)
    }

    /// Whether this is a UDP address of a base in use (or lately in use).
    pub(super) fn is_base(&self, from: SocketAddr) -> bool {
        self.session.iter().chain(self.old.iter().map(|o| &o.session)).any(|s| s.bindings.has(from))
    }

    // --- Inputs ------------------------------------------------------------------------------------------------

    /// The network changed, or the device woke up: everything learned about the way to the base is in doubt.
    pub(super) fn handle_moved(&mut self, ctx: &mut Context, now: Instant) {
        if self.closed || self.entries.is_empty() {
            return;
        }
        self.mapping.check(now);
        self.handle_ways_changed(ctx, now);
        if let Some(session) = &mut self.session {
            session.bindings.restart(true, now);
            session.info_now(now);
        }
        if let Some(session) = self.lingering_mut() {
            session.bindings.restart(true, now);
        }
        self.lost_races = 0;
        // Whoever said that it is not to be asked may have been on the way that was left.
        self.entries.iter_mut().for_each(|entry| entry.avoid = None);
        if !matches!(self.wait, Wait::Key(at) if at > now) {
            self.start_race(ctx, now);
        }
    }

    /// The base's addresses may be to be had under other names than before.
    pub(super) fn handle_ways_changed(&mut self, ctx: &Context, now: Instant) {
        let lingering = self.old.iter_mut().map(|old| &mut old.session);
        for session in self.session.iter_mut().chain(lingering) {
            session.bindings.reach(&ctx.locals, now);
        }
    }

    /// Own addresses changed in a way that leaves paths alone: the base is told.
    pub(super) fn handle_addresses_changed(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.bindings.restart(false, now);
            session.info_now(now);
        }
    }

    pub(super) fn handle_port_mapping(
        &mut self,
        outside: Option<SocketAddr>,
        ctx: &mut Context,
        now: Instant,
    ) {
        self.with_mapping(ctx, now, |mapping, ctx| mapping.set(outside, ctx, now));
    }

    /// A MAP-OK came, from wherever: whether it was waited for.
    pub(super) fn handle_map_ok(&mut self, nonce: [u8; NONCE_LEN], ctx: &mut Context, now: Instant) -> bool {
        self.with_mapping(ctx, now, |mapping, ctx| mapping.handle_ok(nonce, ctx, now))
    }

    /// Does something with the mapping, and tells the base if that changes what it is to be told.
    fn with_mapping<R>(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        call: impl FnOnce(&mut Mapping, &mut Context) -> R,
    ) -> R {
        let before = ctx.mapped;
        let result = call(&mut self.mapping, ctx);
        if ctx.mapped != before {
            self.handle_addresses_changed(now);
        }
        result
    }

    /// Where the base can be asked about the mapping, and as whom.
    fn mapping_way(&self, now: Instant) -> Option<(SocketAddr, Cookie)> {
        let session = self.session.as_ref()?;
        Some((session.bindings.answering(now)?, session.hello.cookie))
    }

    /// A direct path went silent in the middle of a talk. If our own router has restarted, it has forgotten the way to the base as well:
    /// said once more, over both, the base has the new one before the messages that now go there.
    pub(super) fn handle_path_silent(&mut self, now: Instant) {
        if let Some(session) = &mut self.session
            && self.path_silent.take(PATH_SILENT_REACTION, now)
        {
            session.bindings.restart(false, now);
            session.info_now(now);
        }
    }

    pub(super) fn handle_resolved(
        &mut self,
        base: usize,
        result: Result<Vec<SocketAddr>, String>,
        ctx: &mut Context,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get(base) else { return };
        let addresses = result.unwrap_or_else(|error| {
            let reason = format!("its name cannot be resolved: {error}");
            self.why_not = Some(format!("{}: {reason}", entry.name));
            ctx.event(Event::BaseRefused { base: entry.name.to_string(), code: None, reason });
            Vec::new()
        });
        if let Some(race) = &mut self.race {
            race.handle_resolved(base, addresses, &ctx.locals, now);
        }
    }

    pub(super) fn handle_connected(&mut self, conn: ConnId, ctx: &mut Context, now: Instant) {
        if let Some(race) = &mut self.race {
            race.handle_connected(conn, ctx, now);
        }
    }

    pub(super) fn handle_closed(&mut self, conn: ConnId, why: &CloseReason, ctx: &mut Context, now: Instant) {
        let reason = match why {
            CloseReason::Refused(text) => format!("it cannot be reached: {text}"),
            CloseReason::Lost(text) => format!("the connection was lost: {text}"),
            CloseReason::Malformed(error) => format!("it sent a malformed frame: {error}"),
        };
        self.conn_failed(conn, None, reason, ctx, now);
    }

    /// A frame came in. `Err` means that the connection has been dropped because of it.
    pub(super) fn handle_frame<'a>(
        &mut self,
        conn: ConnId,
        frame: &'a [u8],
        ctx: &mut Context,
        now: Instant,
    ) -> FromBase<'a> {
        let message = match BaseFrame::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                ctx.counters.malformed += 1;
                ctx.push(Output::Close { conn });
                self.conn_failed(conn, None, format!("it sent a malformed frame: {error}"), ctx, now);
                return FromBase::Nothing;
            }
        };
        if self.race.as_ref().is_some_and(|race| race.owns(conn)) {
            return self.handle_race_frame(conn, message, ctx, now);
        }
        if self.session.as_ref().is_some_and(|s| s.conn == conn) {
            return self.handle_session_frame(message, ctx, now);
        }
        if self.old.iter().any(|o| o.session.conn == conn && o.open) {
            return match message {
                BaseFrame::RecvData(from, data) => one(from, data, Path::RelayTcp),
                BaseFrame::RecvJoined(from, body) => joined(from, body, Path::RelayTcp, ctx),
                BaseFrame::Error(_) => {
                    ctx.push(Output::Close { conn });
                    self.close_old(conn);
                    FromBase::Nothing
                }
                _ => FromBase::Nothing,
            };
        }
        FromBase::Nothing
    }

    /// A datagram came from an address for which [`Bases::is_base`] holds.
    pub(super) fn handle_datagram<'a>(
        &mut self,
        from: SocketAddr,
        datagram: &'a [u8],
        ctx: &mut Context,
        now: Instant,
    ) -> FromBase<'a> {
        let Ok(message) = BaseDatagram::decode(datagram) else {
            ctx.counters.malformed += 1;
            return FromBase::Nothing;
        };
        let current = match &mut self.session {
            Some(session) => Some(session),
            None => self.old.last_mut().filter(|old| old.lingers).map(|old| &mut old.session),
        };
        let current = current.filter(|s| s.bindings.has(from));
        match (message, current) {
            (BaseDatagram::RecvData(from, data), current) => {
                if let Some(session) = current {
                    session.bindings.heard(now);
                }
                one(from, data, Path::RelayUdp)
            }
            (BaseDatagram::RecvJoined(from, body), current) => {
                if let Some(session) = current {
                    session.bindings.heard(now);
                }
                joined(from, body, Path::RelayUdp, ctx)
            }
            (BaseDatagram::NatOk(ok), Some(session)) => {
                let before: Vec<SocketAddr> = session.bindings.reflexive().collect();
                session.bindings.handle_nat_ok(from, &ok, datagram.len(), ctx, now);
                if !session.bindings.reflexive().eq(before) {
                    self.mapping.check(now);
                }
                FromBase::Nothing
            }
            // What is awaited was taken before.
            (BaseDatagram::MapOk(_), _) => {
                ctx.counters.base_stray += 1;
                FromBase::Nothing
            }
            (BaseDatagram::NatUnknown, Some(session)) => {
                if self.nat_unknown.take(NAT_UNKNOWN_REACTION, now) {
                    session.bindings.note_unknown();
                    session.bindings.restart(false, now);
                    session.info_now(now);
                }
                FromBase::Nothing
            }
            (_, None) => FromBase::Nothing,
        }
    }

    /// The system cannot send to an address for which [`Bases::is_base`] holds: TCP carries the data meanwhile.
    pub(super) fn handle_send_error(&mut self, to: SocketAddr, too_large: bool) {
        if let Some(session) = self.session.as_mut().filter(|s| s.bindings.has(to)) {
            session.bindings.handle_send_error(to, too_large);
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, ctx: &mut Context, now: Instant) {
        if self.closed {
            return;
        }
        if self.master_key.tick(ctx, now)
            && let Some(session) = &mut self.session
        {
            session.info_now(now);
        }
        if let Some(session) = &mut self.session {
            let conn = session.conn;
            match session.tick(self.master_key.current(), ctx, now) {
                Verdict::Alive => {}
                Verdict::Silent => self.start_race(ctx, now),
                Verdict::Dead => {
                    ctx.push(Output::Close { conn });
                    self.conn_failed(conn, None, "nothing came from it for a minute".to_owned(), ctx, now);
                }
            }
        }
        if let Some(session) = self.lingering_mut() {
            session.tick_udp(ctx, now);
        }
        let way = self.mapping_way(now);
        self.with_mapping(ctx, now, |mapping, ctx| mapping.tick(way, ctx, now));
        self.report_udp(ctx, now);
        self.tick_leaving(ctx, now);
        self.old.retain(|old| {
            if old.until <= now && old.open {
                ctx.push(Output::Close { conn: old.session.conn });
            }
            old.until > now
        });
        let in_doubt = self.session.is_none() || self.wait != Wait::No;
        if in_doubt && self.race.is_none() && self.wait.until().is_none_or(|at| at <= now) {
            self.start_race(ctx, now);
        }
        self.tick_race(ctx, now);
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let race = match &self.race {
            Some(race) => race.deadline(),
            None if self.session.is_none() && !self.entries.is_empty() => {
                Some(self.wait.until().unwrap_or(now))
            }
            None => self.wait.until(),
        };
        let session = self.session.as_ref().and_then(Session::deadline);
        let old = self.old.iter().map(|o| o.until).min();
        let leaving = self.leave.as_ref().map(|l| l.at);
        let over_udp = self.session().or_else(|| self.lingering());
        let udp = over_udp.and_then(|s| s.bindings.lapse(now));
        let lingering = self.lingering().and_then(|s| s.bindings.deadline());
        let mapping = self.mapping.deadline(self.mapping_way(now).is_some());
        [race, session, old, leaving, udp, lingering, mapping, Some(self.master_key.renewal())]
            .into_iter()
            .fold(None, earlier)
    }

    /// Leaves the base at once and for good.
    pub(super) fn close(&mut self, ctx: &mut Context) {
        self.closed = true;
        if let Some(race) = self.race.take() {
            race.cancel(ctx);
        }
        for old in self.old.drain(..).filter(|o| o.open) {
            ctx.push(Output::Close { conn: old.session.conn });
        }
        if let Some(session) = self.session.take() {
            let mut frames = Vec::new();
            tcp::write_leave(&mut frames);
            ctx.push(Output::Write { conn: session.conn, frames });
            ctx.push(Output::Close { conn: session.conn });
        }
    }

    fn retire(&mut self, session: Session, open: bool, lingers: bool, ctx: &mut Context, now: Instant) {
        if self.old.len() == MAX_OLD_SESSIONS {
            let oldest = self.old.remove(0);
            if oldest.open {
                ctx.push(Output::Close { conn: oldest.session.conn });
            }
        }
        self.old.push(OldSession { session, until: now + OLD_SESSION, open, lingers });
    }

    fn close_old(&mut self, conn: ConnId) {
        for old in self.old.iter_mut().filter(|o| o.session.conn == conn) {
            old.open = false;
        }
    }

    // --- The session -------------------------------------------------------------------------------------------

    fn handle_session_frame<'a>(
        &mut self,
        message: BaseFrame<'a>,
        ctx: &mut Context,
        now: Instant,
    ) -> FromBase<'a> {
        let Some(session) = &mut self.session else { return FromBase::Nothing };
        session.heard_tcp(now);
        match message {
            BaseFrame::RecvData(from, data) => return one(from, data, Path::RelayTcp),
            BaseFrame::RecvJoined(from, body) => return joined(from, body, Path::RelayTcp, ctx),
            BaseFrame::DeviceAddresses(addresses) => return FromBase::Addresses(addresses),
            BaseFrame::Wanted(device) => return FromBase::Wanted(device),
            BaseFrame::Unreachable(device, reason) => return FromBase::Unreachable(device, reason),
            BaseFrame::Pong(number) => session.handle_pong(number, now),
            BaseFrame::GoAway(seconds) => self.go_away(seconds, ctx, now),
            BaseFrame::Notice(notice) => ctx.event(Event::Notice { code: notice.code, text: notice.text }),
            BaseFrame::Error(error) => {
                let conn = session.conn;
                ctx.push(Output::Close { conn });
                self.obey(conn, error.code, error.retry_after, ctx, now);
                let reason = format!("it ended the session: {}", describe(error.code, &error.text));
                self.conn_failed(conn, Some(error.code), reason, ctx, now);
            }
            BaseFrame::BaseHello(_) | BaseFrame::Registered(_) => {
                let conn = session.conn;
                ctx.push(Output::Close { conn });
                self.conn_failed(conn, None, "it sent something out of order".to_owned(), ctx, now);
            }
            BaseFrame::Unknown(_) => {}
        }
        FromBase::Nothing
    }

    /// A connection ended, for whatever reason: of the race, of the session, or of an old one.
    fn conn_failed(
        &mut self,
        conn: ConnId,
        code: Option<ErrorCode>,
        reason: String,
        ctx: &mut Context,
        now: Instant,
    ) {
        if let Some(base) = self.race.as_ref().and_then(|race| race.base_of(conn)) {
            let name = self.entries[base].name.to_string();
            let said = self.race.as_ref().is_some_and(|race| race.has_answered(conn));
            if said || !self.why_was_said {
                self.why_not = Some(format!("{name}: {reason}"));
                self.why_was_said = said;
            }
            ctx.event(Event::BaseRefused { base: name, code, reason });
            if let Some(race) = &mut self.race {
                race.drop_conn(conn, now);
            }
            self.tick_race(ctx, now);
            return;
        }
        self.close_old(conn);
        let Some(session) = self.session.take_if(|s| s.conn == conn) else { return };
        self.why_not = Some(format!("{}: {reason}", session.name));
        ctx.event(Event::BaseLost { base: session.name.clone(), reason });
        self.leave = None;
        let stable = now >= session.since + STABLE_SESSION;
        // An ERROR means that the base has forgotten the session; a lost connection does not.
        self.retire(session, false, code.is_none(), ctx, now);
        self.report_udp(ctx, now);
        if self.race.is_none() && self.wait == Wait::No {
            if stable {
                self.start_race(ctx, now);
                self.tick_race(ctx, now);
            } else {
                self.lost_races += 1;
                self.back_off(ctx, now);
            }
        }
    }

    fn report_udp(&mut self, ctx: &mut Context, now: Instant) {
        let session = self.session().or_else(|| self.lingering());
        let usable = session.is_some_and(|s| s.bindings.is_usable(now));
        if usable != self.udp_reported {
            self.udp_reported = usable;
            ctx.event(Event::RelayUdp(usable));
        }
    }
}

fn one(from: DeviceId, data: &[u8], path: Path) -> FromBase<'_> {
    FromBase::Data(Delivery { from, data, segment: data.len().max(1), path })
}

/// A body that makes no sense is the sender's doing, not the base's.
fn joined<'a>(from: DeviceId, body: &'a [u8], path: Path, ctx: &mut Context) -> FromBase<'a> {
    match read_joined(body) {
        Ok((segment, data)) => FromBase::Data(Delivery { from, data, segment, path }),
        Err(_) => {
            ctx.counters.malformed += 1;
            FromBase::Nothing
        }
    }
}

fn describe(code: ErrorCode, text: &str) -> String {
    if text.is_empty() { code.to_string() } else { format!("{code} ({text})") }
}
