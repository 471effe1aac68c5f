//! Which base comes next: when to race and for whom, what winning means, and what GOAWAY and ERROR ask of us.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{BaseName, Bases, FromBase, describe};
use crate::{
    host::{
        ConnId, Event, Output,
        config::{
            CLONED_BACKOFF, GOAWAY_REST, HEAD_START, MAX_KNOWN_ADDRESSES, RACE_AGAIN, RACE_BACKOFF,
            RACE_WANTED, REPLACED_WAIT, RETRY_AFTER_MAX,
        },
        context::Context,
        race::{Attempt, Entrant, Outcome, Race},
        session::Session,
    },
    id::DeviceId,
    wire::tcp::{self, BaseFrame, ErrorCode},
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: BaseName,
    /// Where the host has registered lately, the last one first.
    known: Vec<SocketAddr>,
    /// Not before this moment.
    pub(super) avoid: Option<Instant>,
    /// Not before this moment, unless there is no other: it is being started anew.
    rest: Option<Instant>,
}

impl Entry {
    pub(super) fn new(name: BaseName) -> Self {
        Self { name, known: Vec::new(), avoid: None, rest: None }
    }

    /// It is at this address, at the port that is written or at the web's.
    fn note_address(&mut self, ip: IpAddr) {
        self.known.retain(|known| known.ip() != ip);
        self.known.insert(0, SocketAddr::new(ip, self.name.port));
        self.known.truncate(MAX_KNOWN_ADDRESSES);
    }

    fn may_be_tried(&self, now: Instant) -> bool {
        self.avoid.is_none_or(|at| at <= now)
    }

    fn is_rested(&self, now: Instant) -> bool {
        self.may_be_tried(now) && self.rest.is_none_or(|at| at <= now)
    }
}

/// Whether a race may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// At any time.
    No,
    /// Not before this moment; a change of network ends the wait.
    BackOff(Instant),
    /// Not before this moment: another process has our key, and no network changes that.
    Key(Instant),
}

impl Wait {
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::No => None,
            Self::BackOff(at) | Self::Key(at) => Some(at),
        }
    }
}

/// GOAWAY was received.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) at: Instant,
    /// It takes nobody until then.
    gone_until: Instant,
}

impl Bases {
    pub(super) fn start_race(&mut self, ctx: &mut Context, now: Instant) {
        if self.entries.is_empty() || self.closed {
            return;
        }
        if let Some(race) = self.race.take() {
            race.cancel(ctx);
        }
        self.wait = Wait::No;
        let present = self.session.as_ref().map(|s| s.base);
        // Bases that are restarted one after the other faster than they are at rest would leave none.
        let rested = self.entries.iter().any(|e| e.is_rested(now));
        let usable = |e: &Entry| if rested { e.is_rested(now) } else { e.may_be_tried(now) };
        if !self.entries.iter().any(usable) {
            self.wait = self.entries.iter().filter_map(|e| e.avoid).min().map_or(Wait::No, Wait::BackOff);
            return;
        }
        let entrants = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, e)| usable(e))
            .map(|(i, e)| {
                let expected = e.name.id.or_else(|| self.remembered.get(&e.name.authority()).copied());
                let late = present.is_some_and(|p| p != i)
                    && self.entries.get(present.unwrap_or(i)).is_some_and(usable);
                let start = if late { now + HEAD_START } else { now };
                Entrant::new(i, e.name.clone(), expected, e.known.clone(), start)
            })
            .collect();
        self.why_was_said = false;
        self.race = Some(Race::new(entrants, now));
    }

    pub(super) fn tick_race(&mut self, ctx: &mut Context, now: Instant) {
        let Some(race) = &mut self.race else { return };
        match race.tick(&mut self.next_conn, ctx, now) {
            Outcome::Running => {}
            Outcome::Register(conn) => {
                self.attempt += 1;
                race.register(conn, Attempt { boot: self.boot, number: self.attempt }, ctx, now);
            }
            Outcome::Lost => {
                self.race = None;
                self.lost_races += 1;
                self.back_off(ctx, now);
            }
        }
    }

    /// Full jitter: one second doubling to sixty.
    pub(super) fn back_off(&mut self, ctx: &mut Context, now: Instant) {
        let (first, last) = RACE_BACKOFF;
        let limit = first.saturating_mul(1 << self.lost_races.saturating_sub(1).min(10)).min(last);
        self.wait = Wait::BackOff(now + ctx.random_below(limit));
    }

    /// A message would go through a base, and there is none: the wait for the next race is no longer than this.
    pub(in crate::host) fn note_wanted(&mut self, ctx: &mut Context, now: Instant) {
        if let Wait::BackOff(at) = self.wait
            && at > now + RACE_WANTED
        {
            self.wait = Wait::BackOff(now + ctx.random_below(RACE_WANTED));
        }
    }

    pub(in crate::host) fn has_come_back(&self) -> bool {
        let session = self.session().or_else(|| self.lingering());
        session.is_some_and(|session| session.bindings.has_come_back())
    }

    /// Something came from the base over UDP after a silence. What was sent over TCP meanwhile may be repeated seconds later.
    /// Whether there was such a silence.
    pub(in crate::host) fn take_came_back(&mut self, ctx: &mut Context, now: Instant) -> bool {
        let session = match &mut self.session {
            Some(session) => Some(session),
            None => self.lingering_mut(),
        };
        let came_back = session.is_some_and(|session| session.bindings.take_came_back());
        let waits = self.session.is_none() && matches!(self.wait, Wait::BackOff(_));
        let stuck = self.race.as_ref().is_some_and(|race| race.is_stuck(now));
        if came_back && (waits || stuck) && self.race_again.take(RACE_AGAIN, now) {
            self.start_race(ctx, now);
            self.tick_race(ctx, now);
        }
        came_back
    }

    pub(super) fn handle_race_frame<'a>(
        &mut self,
        conn: ConnId,
        message: BaseFrame<'a>,
        ctx: &mut Context,
        now: Instant,
    ) -> FromBase<'a> {
        let Some(race) = &mut self.race else { return FromBase::Nothing };
        race.note_answer(conn);
        let problem = match message {
            BaseFrame::BaseHello(hello) => match race.handle_hello(conn, hello) {
                Ok(()) => {
                    self.note_cluster(conn, hello.cluster, ctx);
                    self.tick_race(ctx, now);
                    return FromBase::Nothing;
                }
                Err(problem) => problem,
            },
            BaseFrame::Registered(registered) if race.is_registering(conn) => {
                return self.registered(conn, &registered, ctx, now);
            }
            BaseFrame::Error(error) => {
                ctx.push(Output::Close { conn });
                let reason = format!("it refused: {}", describe(error.code, &error.text));
                self.obey(conn, error.code, error.retry_after, ctx, now);
                self.conn_failed(conn, Some(error.code), reason, ctx, now);
                return FromBase::Nothing;
            }
            _ => "it sent something out of order".to_owned(),
        };
        ctx.push(Output::Close { conn });
        self.conn_failed(conn, None, problem, ctx, now);
        FromBase::Nothing
    }

    fn registered<'a>(
        &mut self,
        conn: ConnId,
        registered: &tcp::Registered,
        ctx: &mut Context,
        now: Instant,
    ) -> FromBase<'a> {
        let Some(opening) = self.race.take().and_then(|race| race.win(conn, ctx, now)) else {
            return FromBase::Nothing;
        };
        self.lost_races = 0;
        self.session_attempt = self.attempt;
        self.wait = Wait::No;
        self.leave = None;
        self.why_not = None;
        self.entries[opening.base].note_address(opening.remote.ip());
        let session = Session::open(opening, registered, ctx, now);
        self.remembered.insert(self.entries[session.base].name.authority(), session.hello.base);
        ctx.event(Event::Registered {
            base: session.name.clone(),
            id: session.hello.base,
            remote: session.remote,
            seen: session.seen,
        });
        if let Some(old) = self.session.replace(session) {
            self.retire(old, true, false, ctx, now);
        }
        self.report_udp(ctx, now);
        FromBase::Registered
    }

    fn note_cluster(&mut self, conn: ConnId, cluster: DeviceId, ctx: &mut Context) {
        let Some(base) = self.race.as_ref().and_then(|race| race.base_of(conn)) else { return };
        if self.clusters.insert(base, cluster) == Some(cluster) {
            return;
        }
        if let Some((&other, &its)) = self.clusters.iter().find(|&(&b, &c)| b != base && c != cluster) {
            let name = |i: usize| self.entries[i].name.to_string();
            ctx.event(Event::ClustersDiffer { one: (name(base), cluster), other: (name(other), its) });
        }
    }

    /// Leave at a random moment within the seconds; alone, stay.
    pub(super) fn go_away(&mut self, seconds: u16, ctx: &mut Context, now: Instant) {
        if self.entries.len() < 2 {
            return;
        }
        let limit = Duration::from_secs(u64::from(seconds));
        let at = now + ctx.random_below(limit);
        self.leave = Some(Leaving { at, gone_until: now + limit });
    }

    pub(super) fn tick_leaving(&mut self, ctx: &mut Context, now: Instant) {
        let Some(leaving) = self.leave.take_if(|l| l.at <= now) else { return };
        if let Some(session) = &self.session {
            let entry = &mut self.entries[session.base];
            entry.avoid = Some(leaving.gone_until);
            entry.rest = Some(leaving.gone_until + GOAWAY_REST);
            self.start_race(ctx, now);
        }
    }

    /// What an ERROR asks of us beyond the end of its connection.
    pub(super) fn obey(
        &mut self,
        conn: ConnId,
        code: ErrorCode,
        retry_after: u16,
        ctx: &mut Context,
        now: Instant,
    ) {
        let base = match (&self.race, &self.session) {
            (Some(race), _) if race.owns(conn) => race.base_of(conn),
            (_, Some(session)) if session.conn == conn => Some(session.base),
            _ => None,
        };
        let Some(base) = base else { return };
        let session = self.session.as_ref().is_some_and(|s| s.conn == conn);
        let wait = Duration::from_secs(u64::from(retry_after)).min(RETRY_AFTER_MAX);
        if code == ErrorCode::Replaced && session && self.attempt > self.session_attempt {
            // By ourselves: this overtook the answer to a REGISTER of ours on a newer connection.
            return;
        }
        if matches!(code, ErrorCode::Replaced | ErrorCode::Cloned) {
            self.why_not = Some(format!("{}: {}", self.entries[base].name, describe(code, "")));
        }
        match code {
            ErrorCode::Replaced => {
                ctx.event(Event::Replaced);
                self.wait_for_key(conn, REPLACED_WAIT, ctx, now);
            }
            ErrorCode::Cloned => {
                let (times, until) = self.cloned;
                let times = if now < until { times } else { 0 };
                let wait = CLONED_BACKOFF.0.saturating_mul(1 << times.min(6)).min(CLONED_BACKOFF.1);
                self.cloned = (times + 1, now + wait + CLONED_BACKOFF.1);
                ctx.event(Event::Replaced);
                self.wait_for_key(conn, wait, ctx, now);
            }
            ErrorCode::Draining => {
                self.entries[base].rest = Some(now + wait);
            }
            _ if retry_after > 0 => {
                // Of many who were refused at once each comes at a moment of its own: at once they would be refused again.
                let spread = ctx.random_below(wait.min(RACE_BACKOFF.1));
                self.entries[base].avoid = Some(now + wait + spread);
            }
            _ => {}
        }
    }

    /// Another process has this key, as it was told on a connection that is closed already: stay away from all bases for
    /// a while.
    fn wait_for_key(&mut self, conn: ConnId, wait: Duration, ctx: &mut Context, now: Instant) {
        if let Some(mut race) = self.race.take() {
            race.drop_conn(conn, now);
            race.cancel(ctx);
        }
        self.wait = Wait::Key(now + wait);
    }
}
