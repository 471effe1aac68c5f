//! The race for a base: connect to every address of every base, take the first that answers, register there alone.
//!
//! Life cycle: a [`Race`] starts when there is no session (or the present one is in doubt), resolves names, opens
//! connections (staggered within a base, RFC 8305), sends GET-COOKIE on each, REGISTERs at the first BASE-HELLO, and
//! ends with [`Outcome::Won`] or [`Outcome::Lost`]. Connections that answered later wait, unregistered, until it is
//! decided. When to race, and for how long to back off, is decided in [`super::bases`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    BaseName, ConnId, Output,
    config::{
        BASE_PORT, CONNECT_STAGGER, CONNECT_TIMEOUT, MAX_BASE_CONNECTS, MAX_FURTHER_CONNECTS, RACE_STUCK,
        REGISTER_TIMEOUT, RESOLVE_PATIENCE, WEB_PORT,
    },
    context::{Context, earlier},
    locals::Locals,
    session::Opening,
};
use crate::{
    id::DeviceId,
    wire::{
        BootId,
        tcp::{self, BaseHello, GetCookie, Register},
    },
};

/// One race.
#[derive(Debug)]
pub(super) struct Race {
    entrants: Vec<Entrant>,
    conns: BTreeMap<ConnId, Conn>,
    registering: Option<ConnId>,
    since: Instant,
}

/// A base that takes part.
#[derive(Debug)]
pub(super) struct Entrant {
    base: usize,
    name: BaseName,
    /// The ID it must have: written, or remembered.
    expected: Option<DeviceId>,
    /// Where it was before.
    known: Vec<SocketAddr>,
    /// Whether its name is being looked up.
    asked: bool,
    phase: Phase,
}

impl Entrant {
    pub(super) fn new(
        base: usize,
        name: BaseName,
        expected: Option<DeviceId>,
        known: Vec<SocketAddr>,
        start: Instant,
    ) -> Self {
        Self { base, name, expected, known, asked: false, phase: Phase::Waiting { until: start } }
    }

    /// Connects to these addresses as well, before those that are still to be tried.
    fn connect(&mut self, addresses: Vec<SocketAddr>, locals: &Locals, now: Instant) {
        let (mut resolved, mut queue, next) = match std::mem::replace(&mut self.phase, Phase::Out) {
            Phase::Connecting { resolved, queue, next, .. } => (resolved, queue, next),
            _ => (Vec::new(), Vec::new(), now),
        };
        let begin = resolved.len();
        for address in addresses {
            if !resolved.contains(&address) {
                resolved.push(address);
            }
        }
        queue.extend(targets(&resolved[begin..], self.name.port, locals).into_iter().rev());
        if !resolved.is_empty() {
            self.phase = Phase::Connecting { resolved, queue, next };
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// The present base's head start is not over.
    Waiting { until: Instant },
    /// The name is being looked up, for so long by itself.
    Resolving { alone: Instant },
    /// Connections are being opened; `queue` holds the addresses still to be tried.
    Connecting { resolved: Vec<SocketAddr>, queue: Vec<Target>, next: Instant },
    /// It cannot be used in this race.
    Out,
}

/// An address of a base, and from where it is tried.
#[derive(Debug, Clone, Copy)]
struct Target {
    source: Option<IpAddr>,
    to: SocketAddr,
}

#[derive(Debug)]
struct Conn {
    entrant: usize,
    remote: SocketAddr,
    source: Option<IpAddr>,
    stage: Stage,
    /// The base has said something.
    answered: bool,
}

#[derive(Debug)]
enum Stage {
    Connecting {
        give_up: Instant,
    },
    AwaitingHello {
        give_up: Instant,
    },
    /// Answered after the winner; kept until the race is decided.
    Ready(BaseHello),
    /// REGISTER went out at this moment.
    Registering(BaseHello, Instant),
}

/// How the race stands after an input.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Undecided.
    Running,
    /// This connection may register.
    Register(ConnId),
    /// No base could be used.
    Lost,
}

/// A host's side of a registration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) boot: BootId,
    pub(super) number: u32,
}

impl Race {
    /// Starts a race among these bases.
    pub(super) fn new(entrants: Vec<Entrant>, now: Instant) -> Self {
        Self { entrants, conns: BTreeMap::new(), registering: None, since: now }
    }

    /// No base has said anything for so long that connections may wait for something that was lost.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        now >= self.since + RACE_STUCK && self.conns.values().all(|c| !c.answered)
    }

    pub(super) fn connections(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn owns(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    pub(super) fn base_of(&self, conn: ConnId) -> Option<usize> {
        self.conns.get(&conn).map(|c| self.entrants[c.entrant].base)
    }

    /// What a base's name stands for; nothing, if that is not to be had: then it is tried where it was before.
    pub(super) fn handle_resolved(
        &mut self,
        base: usize,
        addresses: Vec<SocketAddr>,
        locals: &Locals,
        now: Instant,
    ) {
        let Some(entrant) = self.entrants.iter_mut().find(|e| e.base == base) else { return };
        entrant.asked = false;
        match entrant.phase {
            Phase::Resolving { .. } if addresses.is_empty() => {
                entrant.connect(entrant.known.clone(), locals, now);
            }
            // It is being tried where it was before, and this is late.
            Phase::Resolving { .. } | Phase::Connecting { .. } => entrant.connect(addresses, locals, now),
            Phase::Waiting { .. } | Phase::Out => {}
        }
    }

    pub(super) fn handle_connected(&mut self, conn: ConnId, ctx: &mut Context, now: Instant) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        if !matches!(c.stage, Stage::Connecting { .. }) {
            return;
        }
        c.stage = Stage::AwaitingHello { give_up: now + CONNECT_TIMEOUT };
        let mut frames = Vec::new();
        GetCookie { highest_version: tcp::VERSION, capabilities: 0 }.write(&mut frames);
        ctx.push(Output::Write { conn, frames });
    }

    /// The base has said something: it is there, and not at the web's port as well.
    pub(super) fn note_answer(&mut self, conn: ConnId) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        c.answered = true;
        if let Phase::Connecting { queue, .. } = &mut self.entrants[c.entrant].phase {
            queue.retain(|target| target.to.ip() != c.remote.ip());
        }
    }

    pub(super) fn has_answered(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.answered)
    }

    /// A connection is of no use: the base refused, broke off, or said something that makes no sense.
    pub(super) fn drop_conn(&mut self, conn: ConnId, now: Instant) {
        let Some(c) = self.conns.remove(&conn) else { return };
        if self.registering == Some(conn) {
            self.registering = None;
        }
        // The next address of this base need not wait for the stagger (RFC 8305, section 5).
        if let Phase::Connecting { next, .. } = &mut self.entrants[c.entrant].phase {
            *next = now;
        }
    }

    /// A base answered GET-COOKIE. An answer that cannot be taken is returned in words.
    pub(super) fn handle_hello(&mut self, conn: ConnId, hello: BaseHello) -> Result<(), String> {
        let Some(c) = self.conns.get_mut(&conn) else { return Ok(()) };
        if !matches!(c.stage, Stage::AwaitingHello { .. }) {
            return Err("it sent BASE-HELLO out of order".to_owned());
        }
        if hello.version != tcp::VERSION {
            return Err(format!(
                "it speaks version {}, this program version {}",
                hello.version,
                tcp::VERSION
            ));
        }
        if let Some(expected) = self.entrants[c.entrant].expected
            && expected != hello.base
        {
            return Err(format!(
                "it says that its ID is {}, but {expected} was expected; if its key was changed on purpose, use the new ID",
                hello.base
            ));
        }
        c.stage = Stage::Ready(hello);
        Ok(())
    }

    /// Whether this connection has sent REGISTER and waits for the answer.
    pub(super) fn is_registering(&self, conn: ConnId) -> bool {
        self.registering == Some(conn)
    }

    /// REGISTERED came: the race is won. All other connections are closed.
    pub(super) fn win(mut self, conn: ConnId, ctx: &mut Context, now: Instant) -> Option<Opening> {
        let winner = self.conns.remove(&conn)?;
        for &other in self.conns.keys() {
            ctx.push(Output::Close { conn: other });
        }
        let Stage::Registering(hello, since) = winner.stage else { return None };
        let entrant = &self.entrants[winner.entrant];
        let resolved = match &entrant.phase {
            Phase::Connecting { resolved, .. } => resolved.clone(),
            _ => Vec::new(),
        };
        Some(Opening {
            conn,
            base: entrant.base,
            name: entrant.name.to_string(),
            remote: winner.remote,
            source: winner.source,
            hello,
            took: now - since,
            resolved,
            id_written: entrant.name.id.is_some(),
        })
    }

    /// Ends the race without a result.
    pub(super) fn cancel(self, ctx: &mut Context) {
        for &conn in self.conns.keys() {
            ctx.push(Output::Close { conn });
        }
    }

    /// Does what is due, and says how the race stands.
    pub(super) fn tick(&mut self, next_conn: &mut u64, ctx: &mut Context, now: Instant) -> Outcome {
        self.expire(ctx, now);
        for index in 0..self.entrants.len() {
            self.advance(index, next_conn, ctx, now);
        }
        if self.registering.is_none()
            && let Some((&conn, _)) = self.conns.iter().find(|(_, c)| matches!(c.stage, Stage::Ready(_)))
        {
            return Outcome::Register(conn);
        }
        let alive = !self.conns.is_empty()
            || self.entrants.iter().any(|e| match &e.phase {
                Phase::Waiting { .. } | Phase::Resolving { .. } => true,
                Phase::Connecting { queue, .. } => !queue.is_empty() || e.asked,
                Phase::Out => false,
            });
        if alive { Outcome::Running } else { Outcome::Lost }
    }

    /// Sends REGISTER on a connection that [`Outcome::Register`] named.
    pub(super) fn register(&mut self, conn: ConnId, attempt: Attempt, ctx: &mut Context, now: Instant) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let Stage::Ready(hello) = c.stage else { return };
        c.stage = Stage::Registering(hello, now);
        self.registering = Some(conn);
        let mut frames = Vec::new();
        Register {
            device: ctx.id,
            public_key: ctx.key.public(),
            boot: attempt.boot,
            attempt: attempt.number,
            capabilities: tcp::TAKES_JOINED,
            agent: ctx.config.agent.clone(),
        }
        .write(&mut frames, &ctx.key, hello.base, &hello.cookie);
        ctx.push(Output::Write { conn, frames });
    }

    fn advance(&mut self, index: usize, next_conn: &mut u64, ctx: &mut Context, now: Instant) {
        let entrant = &mut self.entrants[index];
        match &mut entrant.phase {
            Phase::Waiting { until } if *until <= now => {
                entrant.asked = true;
                entrant.phase = Phase::Resolving { alone: now + RESOLVE_PATIENCE };
                let BaseName { host, port, .. } = entrant.name.clone();
                ctx.push(Output::Resolve { base: entrant.base, host, port });
            }
            Phase::Resolving { alone } if *alone <= now && !entrant.known.is_empty() => {
                entrant.connect(entrant.known.clone(), &ctx.locals, now);
                self.advance(index, next_conn, ctx, now);
            }
            Phase::Connecting { queue, next, .. } if *next <= now => {
                let Some(Target { source, to }) = queue.pop() else { return };
                *next = now + CONNECT_STAGGER;
                *next_conn += 1;
                let conn = ConnId(*next_conn);
                let stage = Stage::Connecting { give_up: now + CONNECT_TIMEOUT };
                self.conns.insert(conn, Conn { entrant: index, remote: to, source, stage, answered: false });
                ctx.push(Output::Connect { conn, source, to });
            }
            _ => {}
        }
    }

    /// Whether a base has answered that may take the place of the one that is asked to register.
    fn has_another(&self) -> bool {
        self.conns.values().any(|c| matches!(c.stage, Stage::Ready(_)))
    }

    fn expire(&mut self, ctx: &mut Context, now: Instant) {
        let another = self.has_another();
        let late: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.stage.give_up(another).is_some_and(|at| at <= now))
            .map(|(&id, _)| id)
            .collect();
        for conn in late {
            ctx.push(Output::Close { conn });
            self.drop_conn(conn, now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let another = self.has_another();
        let conns = self.conns.values().filter_map(|c| c.stage.give_up(another)).min();
        let entrants = self
            .entrants
            .iter()
            .filter_map(|e| match &e.phase {
                Phase::Waiting { until } => Some(*until),
                Phase::Resolving { alone } if !e.known.is_empty() => Some(*alone),
                Phase::Connecting { queue, next, .. } if !queue.is_empty() => Some(*next),
                _ => None,
            })
            .min();
        earlier(conns, entrants)
    }
}

impl Stage {
    /// `another`: whether there is another base to turn to.
    fn give_up(&self, another: bool) -> Option<Instant> {
        match *self {
            Self::Connecting { give_up } | Self::AwaitingHello { give_up } => Some(give_up),
            Self::Registering(_, since) => {
                Some(since + if another { REGISTER_TIMEOUT } else { CONNECT_TIMEOUT })
            }
            Self::Ready(_) => None,
        }
    }
}

/// What is tried, in this order: all by the system's choice of a way out, then the base's own port by the ways that it does not prefer.
fn targets(addresses: &[SocketAddr], port: u16, locals: &Locals) -> Vec<Target> {
    let tried = connects(addresses, port);
    let own = tried.iter().filter(|address| address.port() == port);
    let further = own.flat_map(|&to| {
        locals.further_sources(to).into_iter().map(move |source| Target { source: Some(source), to })
    });
    let by_choice = tried.iter().map(|&to| Target { source: None, to });
    by_choice.chain(further.take(MAX_FURTHER_CONNECTS)).collect()
}

/// Where to connect, in this order: all addresses at the base's own port, then, if that is the usual one, at the web's.
fn connects(addresses: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    let mut queue = interleave(addresses);
    queue.truncate(MAX_BASE_CONNECTS);
    if port == BASE_PORT {
        queue.extend_from_within(..);
        let own = queue.len() / 2;
        queue[own..].iter_mut().for_each(|address| address.set_port(WEB_PORT));
    }
    queue
}

/// IPv6 first, then the families by turns (RFC 8305, section 4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let of = |v6: bool| addresses.iter().copied().filter(move |a| matches!(a.ip(), IpAddr::V6(_)) == v6);
    let (mut six, mut four) = (of(true), of(false));
    let mut out = Vec::with_capacity(addresses.len());
    loop {
        let pair = [six.next(), four.next()];
        out.extend(pair.into_iter().flatten());
        if pair == [None, None] {
            return out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_with_ipv6_first() {
        let a = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mixed = [a("192.0.2.1:1"), a("192.0.2.2:1"), a("192.0.2.3:1"), a("[2001:db8::1]:1")];
        let want = [a("[2001:db8::1]:1"), a("192.0.2.1:1"), a("192.0.2.2:1"), a("192.0.2.3:1")];
        assert_eq!(interleave(&mixed), want);
    }

    #[test]
    fn a_base_at_its_usual_port_is_tried_at_the_web_s_after_all_else() {
        let a = |text: &str| text.parse::<SocketAddr>().unwrap();
        let usual = [a("192.0.2.1:4477"), a("[2001:db8::1]:4477")];
        let want = [a("[2001:db8::1]:4477"), a("192.0.2.1:4477"), a("[2001:db8::1]:443"), a("192.0.2.1:443")];
        assert_eq!(connects(&usual, BASE_PORT), want);
        let other = [a("192.0.2.1:5000")];
        assert_eq!(connects(&other, 5000), other, "who writes another port means it");
    }
}
