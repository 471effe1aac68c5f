//! Guessing ports: the way to a peer when one of the two is behind a symmetric NAT, and the other's filter asks for the port
//! (protocol section 8).
//!
//! The symmetric side *opens*: every further socket that knocks at the peer gets another port outside. The other side *knocks*, from
//! its one socket, at ports that the NAT may have given: the next ones where it counts, any where it does not. A KNOCK that gets
//! through, either way, shows a pair that is open in both directions; an ordinary HELLO on it does the rest.
//!
//! ```text
//! idle ─data over the relay─▶ noticed ─1 s, still no path─▶ attempt (12 s) ─no path─▶ resting (1 min, 2, 4 … 1 h) ─▶ idle
//!   ▲───────────────────────── a path stands ────────────────┘
//! ```
//!
//! Data that came over the relay says that the peer wants us as we want it, so that both begin at about the same moment. A host makes
//! one attempt at a time; a peer whose turn it is meanwhile rests as if its own had failed, and stays in step with the other side.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{Peer, Role};
use crate::{
    bucket::Bucket,
    host::{
        CandidateSource, Hop, SocketId,
        config::{
            CAME_BACK, MAX_PAIRS, PUNCH_AFTER, PUNCH_ATTEMPTS, PUNCH_DATAGRAMS, PUNCH_EVERY, PUNCH_FOR,
            PUNCH_HITS, PUNCH_NEAR, PUNCH_REST, PUNCH_SEQUENCE, PUNCH_SEQUENCE_FIRST, PUNCH_SOCKETS,
            PUNCH_TRIED,
        },
        context::{Context, earlier},
        locals::Locals,
        pair::Pair,
    },
    wire::peer::knock,
};

/// The lowest port that is guessed: no NAT gives those below to a socket above.
const FIRST_PORT: u16 = 1024;

/// How a NAT maps one socket towards different remote ports, as the UDP addresses of one base show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::host) enum Mapping {
    /// Not enough is known.
    #[default]
    Unknown,
    /// One port for all.
    Same,
    /// A port for each: a symmetric NAT. The highest seen; `counts`: they lie close together.
    Varies { highest: u16, counts: bool },
}

impl Mapping {
    /// From what the base saw, an entry for each of its IPv4 addresses that answered.
    pub(in crate::host) fn of(seen: impl Iterator<Item = SocketAddr>) -> Self {
        let seen: Vec<SocketAddr> = seen.filter(SocketAddr::is_ipv4).collect();
        let Some(ip) = seen.first().map(SocketAddr::ip) else { return Self::Unknown };
        let ports = || seen.iter().filter(|address| address.ip() == ip).map(SocketAddr::port);
        match (ports().min(), ports().max()) {
            (Some(lowest), Some(highest)) if lowest != highest => {
                Self::Varies { highest, counts: highest - lowest <= PUNCH_NEAR }
            }
            _ if seen.len() > 1 => Self::Same,
            _ => Self::Unknown,
        }
    }

    fn varies(self) -> bool {
        matches!(self, Self::Varies { .. })
    }
}

/// What is known of guessing for one peer.
#[derive(Debug, Default)]
pub(super) struct Punch {
    stage: Stage,
    /// Attempts since the last that succeeded.
    failed: u32,
    attempts: Bucket,
    /// Further sockets that are open for this peer.
    sockets: Vec<SocketId>,
    /// Those of them at which a HELLO came.
    heard: Vec<SocketId>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// Both sides send over the relay; looked at again then.
    Noticed(Instant),
    Attempt(Attempt),
    Resting(Instant),
}

#[derive(Debug)]
struct Attempt {
    part: Part,
    until: Instant,
    next: Instant,
    /// Datagrams that are left.
    left: u32,
    hits: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// At ports of this address, from the main socket; `near`: the next of those that follow what was seen, and how many.
    Knock { ip: IpAddr, near: Option<(u16, u16)> },
    /// At this address, each time from one more socket.
    Open { to: SocketAddr },
}

impl Part {
    fn may_knock_at_us(self, from: SocketAddr) -> bool {
        match self {
            Self::Knock { ip, .. } => from.ip() == ip,
            Self::Open { to } => from == to,
        }
    }

    fn ip(self) -> IpAddr {
        match self {
            Self::Knock { ip, .. } => ip,
            Self::Open { to } => to.ip(),
        }
    }
}

impl Punch {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Noticed(at) | Stage::Resting(at) => Some(*at),
            Stage::Attempt(attempt) => earlier(Some(attempt.next), Some(attempt.until)),
        }
    }

    /// Whether a pair that was found by guessing is kept though no candidate names it.
    pub(super) fn keeps(&self, pair: &Pair) -> bool {
        let open = pair.hop.socket != SocketId::MAIN && self.sockets.contains(&pair.hop.socket);
        pair.source == CandidateSource::Punched && (open || matches!(self.stage, Stage::Attempt(_)))
    }

    fn rest(&self) -> Duration {
        (PUNCH_REST.0 * (1 << self.failed.min(6))).min(PUNCH_REST.1)
    }
}

impl Peer {
    /// Data came from it over the relay: it wants us, too.
    pub(in crate::host) fn note_relayed(&mut self, ctx: &Context, now: Instant) {
        self.used = now;
        if self.unheard.take().is_some_and(|since| now >= since + CAME_BACK) {
            self.handle_came_back(now);
        }
        let stuck = self.role == Role::Wanted && self.direct.is_none();
        if stuck && ctx.config.direct && ctx.config.guess_ports && matches!(self.punch.stage, Stage::Idle) {
            self.punch.stage = Stage::Noticed(now + PUNCH_AFTER);
        }
    }

    /// What it would take, if guessing can help at all.
    fn part(&self, mine: Mapping, locals: &Locals) -> Option<Part> {
        let to = locals.reach(*self.known.reflexive.iter().find(|address| address.is_ipv4())?);
        match (mine, Mapping::of(self.known.reflexive.iter().copied())) {
            (Mapping::Varies { .. }, Mapping::Varies { .. }) => None,
            // Further sockets are IPv4's.
            (Mapping::Varies { .. }, _) => to.is_ipv4().then_some(Part::Open { to }),
            (_, Mapping::Varies { highest, counts }) => {
                Some(Part::Knock { ip: to.ip(), near: counts.then_some((after(highest), PUNCH_SEQUENCE)) })
            }
            _ => None,
        }
    }

    pub(super) fn tick_punch(&mut self, mine: Mapping, ctx: &mut Context, now: Instant) {
        match &self.punch.stage {
            Stage::Idle => {}
            Stage::Noticed(at) => {
                if now >= *at {
                    self.punch.stage = self.begin(mine, ctx, now);
                }
            }
            Stage::Resting(until) => {
                if now >= *until {
                    self.punch.stage = Stage::Idle;
                }
            }
            Stage::Attempt(attempt) => {
                if self.direct.is_some() {
                    self.punch.failed = 0;
                    self.end_attempt(Stage::Idle, ctx);
                } else if now >= attempt.until || !ctx.config.guess_ports {
                    let rest = Stage::Resting(now + self.punch.rest());
                    self.punch.failed += 1;
                    self.end_attempt(rest, ctx);
                } else if now >= attempt.next {
                    self.go_on(ctx, now);
                }
            }
        }
        if !matches!(self.punch.stage, Stage::Attempt(_)) && self.direct.is_none() {
            self.close_sockets(None, ctx);
        }
    }

    fn begin(&mut self, mine: Mapping, ctx: &mut Context, now: Instant) -> Stage {
        let Some(part) = self.part(mine, &ctx.locals).filter(|_| self.direct.is_none()) else {
            return Stage::Idle;
        };
        // Ordinary HELLOs have had their time.
        if !self.pairs.iter().any(|pair| pair.hop.to.ip() == part.ip() && pair.sent() >= PUNCH_TRIED) {
            return Stage::Idle;
        }
        if !self.punch.attempts.take(PUNCH_ATTEMPTS, now) {
            return Stage::Resting(self.punch.attempts.next(PUNCH_ATTEMPTS, now));
        }
        if ctx.punching.is_some_and(|other| other != self.id) {
            let rest = Stage::Resting(now + PUNCH_FOR + self.punch.rest());
            self.punch.failed += 1;
            return rest;
        }
        ctx.punching = Some(self.id);
        // Where my NAT counts, the peer finds the mapping that my HELLOs have made.
        let patient = matches!((part, mine), (Part::Open { .. }, Mapping::Varies { counts: true, .. }));
        let next = if patient { now + PUNCH_SEQUENCE_FIRST } else { now };
        let left = if matches!(part, Part::Open { .. }) { PUNCH_SOCKETS as u32 } else { PUNCH_DATAGRAMS };
        Stage::Attempt(Attempt { part, until: now + PUNCH_FOR, next, left, hits: 0 })
    }

    /// As many datagrams as the budget of new flows has, and a few less: first HELLOs of others do not wait for these.
    fn go_on(&mut self, ctx: &mut Context, now: Instant) {
        let Stage::Attempt(attempt) = &mut self.punch.stage else { return };
        attempt.next = now + PUNCH_EVERY;
        while attempt.left > 0 && ctx.budgets.guess(now) {
            attempt.left -= 1;
            let hop = match &mut attempt.part {
                Part::Knock { ip, near } => Hop::anywhere(SocketAddr::new(*ip, next_port(near, ctx))),
                Part::Open { to } => {
                    let Some(socket) = ctx.open_socket() else {
                        attempt.left = 0;
                        return;
                    };
                    self.punch.sockets.push(socket);
                    Hop { socket, ..Hop::anywhere(*to) }
                }
            };
            ctx.transmit(hop, knock().to_vec());
            ctx.counters.knock_sent += 1;
        }
        if attempt.left == 0 {
            attempt.next = attempt.until;
        }
    }

    /// A KNOCK came by this hop: if it can be a hit of the present attempt, HELLO goes that way.
    pub(in crate::host) fn handle_knock(&mut self, came_by: Hop, now: Instant) {
        let Stage::Attempt(attempt) = &mut self.punch.stage else { return };
        let own = came_by.socket == SocketId::MAIN || self.punch.sockets.contains(&came_by.socket);
        if !own || attempt.hits >= PUNCH_HITS || !attempt.part.may_knock_at_us(came_by.to) {
            return;
        }
        attempt.hits += 1;
        let hop = Hop { source: None, ..came_by };
        // What was learned about HELLOs to this address that nobody answered does not hold here.
        self.rests.retain(|rest| rest.ip != hop.to.ip());
        match self.pairs.iter_mut().find(|pair| pair.hop == hop) {
            Some(pair) => pair.restart(now),
            None => {
                self.pairs.truncate(MAX_PAIRS - 1);
                self.pairs.push(Pair::new(hop, CandidateSource::Punched, now));
            }
        }
    }

    /// A HELLO of the peer came here, and was answered: its path may lead to this socket from now on.
    pub(in crate::host) fn note_hello_at(&mut self, socket: SocketId) {
        let Punch { sockets, heard, .. } = &mut self.punch;
        if socket != SocketId::MAIN && sockets.contains(&socket) && !heard.contains(&socket) {
            heard.push(socket);
        }
    }

    /// One of its sockets cannot be had: no more of them.
    pub(in crate::host) fn handle_socket_failed(&mut self, socket: SocketId) {
        self.punch.sockets.retain(|&open| open != socket);
        self.punch.heard.retain(|&open| open != socket);
        self.pairs.retain(|pair| pair.hop.socket != socket);
        if let Stage::Attempt(attempt) = &mut self.punch.stage {
            attempt.left = 0;
            attempt.next = attempt.until;
        }
    }

    fn end_attempt(&mut self, next: Stage, ctx: &mut Context) {
        self.punch.stage = next;
        ctx.punching.take_if(|punching| *punching == self.id);
        // Those by which something came stay while there is a path: the other side may have chosen any of them.
        let heard = std::mem::take(&mut self.punch.heard);
        let hit: Vec<SocketId> = self.pairs.iter().map(|pair| pair.hop.socket).chain(heard).collect();
        self.punch.sockets.retain(|socket| {
            let kept = hit.contains(socket);
            if !kept {
                ctx.close_socket(*socket);
            }
            kept
        });
    }

    /// Closes its further sockets, but for that of the standing path if it is named.
    fn close_sockets(&mut self, but: Option<SocketId>, ctx: &mut Context) {
        self.punch.heard.clear();
        if self.punch.sockets.is_empty() {
            return;
        }
        for socket in std::mem::take(&mut self.punch.sockets) {
            if Some(socket) == but {
                self.punch.sockets.push(socket);
            } else {
                ctx.close_socket(socket);
            }
        }
        self.pairs.retain(|pair| pair.hop.socket == SocketId::MAIN || Some(pair.hop.socket) == but);
    }

    /// Nothing more is tried, and all further sockets are closed, but for that of a path that still stands.
    pub(in crate::host) fn stop_punching(&mut self, ctx: &mut Context) {
        self.punch.failed = 0;
        self.end_attempt(Stage::Idle, ctx);
        self.close_sockets(self.direct.as_ref().map(|standing| standing.hop.socket), ctx);
    }

    /// The peer is seen elsewhere: what failed before may succeed.
    pub(in crate::host) fn restart_punching(&mut self, ctx: &mut Context) {
        self.punch.failed = 0;
        match &self.punch.stage {
            Stage::Attempt(_) => self.end_attempt(Stage::Idle, ctx),
            Stage::Resting(_) => self.punch.stage = Stage::Idle,
            Stage::Idle | Stage::Noticed(_) => {}
        }
    }

    /// Why there is no direct path, as far as NATs are the reason.
    pub(super) fn why_not_punched(&self, mine: Mapping, on: bool) -> Option<String> {
        const SYMMETRIC: &str = "a NAT that gives a new port for every destination (symmetric)";
        let its = Mapping::of(self.known.reflexive.iter().copied());
        let whose = match (mine.varies(), its.varies()) {
            (true, true) => {
                return Some(format!(
                    "both devices are behind {SYMMETRIC}: no direct path is possible, messages stay on the relay"
                ));
            }
            (true, false) => "this device is",
            (false, true) => "the other device is",
            (false, false) => return None,
        };
        let state = match &self.punch.stage {
            _ if !on => "guessing its ports is switched off",
            Stage::Attempt(_) => "its ports are being guessed",
            Stage::Resting(_) => "guessing its ports has not succeeded, and is tried again, ever more rarely",
            Stage::Idle | Stage::Noticed(_) => "its ports are guessed while both devices send",
        };
        Some(format!("{whose} behind {SYMMETRIC}; {state}"))
    }
}

/// The next port to knock at: those that follow first, then any.
fn next_port(near: &mut Option<(u16, u16)>, ctx: &mut Context) -> u16 {
    match near {
        Some((port, left)) if *left > 0 => {
            let this = *port;
            (*port, *left) = (after(this), *left - 1);
            this
        }
        _ => ctx.random_port(FIRST_PORT),
    }
}

fn after(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(FIRST_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(seen: &[&str]) -> Mapping {
        Mapping::of(seen.iter().map(|address| address.parse().unwrap()))
    }

    #[test]
    fn what_two_ports_of_a_base_see_tells_the_kind_of_nat() {
        assert_eq!(mapping(&[]), Mapping::Unknown);
        assert_eq!(
            mapping(&["[2001:db8::1]:7", "[2001:db8::1]:8"]),
            Mapping::Unknown,
            "nobody translates IPv6"
        );
        assert_eq!(mapping(&["192.0.2.1:7000"]), Mapping::Unknown);
        assert_eq!(mapping(&["192.0.2.1:7000", "192.0.2.1:7000"]), Mapping::Same);
        let counts = Mapping::Varies { highest: 7001, counts: true };
        assert_eq!(mapping(&["192.0.2.1:7001", "192.0.2.1:7000"]), counts);
        let random = Mapping::Varies { highest: 50_123, counts: false };
        assert_eq!(mapping(&["192.0.2.1:7000", "192.0.2.1:50123"]), random);
        // Two ways out, one port each: nothing varies.
        assert_eq!(mapping(&["192.0.2.1:7000", "198.51.100.1:7001"]), Mapping::Same);
    }

    #[test]
    fn ports_that_follow_come_first_and_go_around() {
        let mut near = Some((65_534, 3));
        let mut ctx =
            Context::new(Default::default(), crate::identity::SecretKey::from_seed(&[7; 32]), [1; 32]);
        let ports: Vec<u16> = (0..3).map(|_| next_port(&mut near, &mut ctx)).collect();
        assert_eq!(ports, [65_534, 65_535, FIRST_PORT]);
        assert!((0..1000).all(|_| next_port(&mut near, &mut ctx) >= FIRST_PORT));
    }
}
