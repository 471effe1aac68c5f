//! The session with a base, from REGISTERED on: INFO and PONG, what the base tells of peers, and whether it still lives.
//!
//! How a session comes about is the race's business ([`super::race`]); what DEVICE-ADDRESSES mean is the peers'.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    ConnId, Output,
    candidate::names_a_place,
    config::{KEEPALIVE, PONG_TIMEOUT, PONG_TIMEOUT_IDLE, SESSION_DEAD, TCP_QUIET},
    context::{Context, Rtt, earlier},
    event::BaseStatus,
    nat::{Bindings, Terms},
};
use crate::wire::{
    self,
    tcp::{BaseHello, Info, Registered},
};

/// What a session is made from when REGISTERED comes.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) conn: ConnId,
    /// The position of the base in the configuration, and its name there.
    pub(super) base: usize,
    pub(super) name: String,
    pub(super) remote: SocketAddr,
    /// The own address that it was reached from, if not by the system's choice.
    pub(super) source: Option<IpAddr>,
    pub(super) hello: BaseHello,
    /// How long it took to answer REGISTER.
    pub(super) took: Duration,
    /// What its name resolved to.
    pub(super) resolved: Vec<SocketAddr>,
    /// Whether the user wrote its ID: its word on UDP addresses is then believed.
    pub(super) id_written: bool,
}

/// A session with a base.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: ConnId,
    pub(super) base: usize,
    pub(super) name: String,
    pub(super) remote: SocketAddr,
    pub(super) hello: BaseHello,
    pub(super) seen: SocketAddr,
    pub(super) since: Instant,
    pub(super) bindings: Bindings,
    keepalive: Duration,
    /// Numbers INFOs and NAT-INITs, per cookie.
    counter: u64,
    next_info: Instant,
    /// The oldest INFO without its PONG.
    waiting: Option<(u64, Instant)>,
    health: Health,
    /// When something last came over TCP.
    heard: Instant,
    /// How long it took to answer REGISTER: a round trip at least, while no other is known.
    took: Duration,
    rtt: Rtt,
}

/// Whether data sent over TCP is followed by anything that comes in over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Quiet,
    /// Data went out at this moment and nothing has come since.
    Awaiting(Instant),
    /// … and INFO has been sent because of it.
    Probing,
    /// The base has been given up: a new race runs.
    Lost,
}

/// What a tick finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    /// No PONG came in time: a new race is due (said once).
    Silent,
    /// Nothing has come for so long that the base has dropped it, too.
    Dead,
}

impl Session {
    pub(super) fn open(opening: Opening, registered: &Registered, ctx: &Context, now: Instant) -> Self {
        let Opening { conn, base, name, remote, source, hello, took, resolved, id_written } = opening;
        let keepalive = Duration::from_secs(u64::from(registered.keepalive)).clamp(KEEPALIVE.0, KEEPALIVE.1);
        let terms = Terms { base: hello.base, cookie: hello.cookie, keepalive };
        let believed = |address: SocketAddr| {
            id_written || address.ip() == remote.ip() || resolved.iter().any(|r| r.ip() == address.ip())
        };
        let addresses: Vec<(u8, SocketAddr)> = registered
            .udp
            .iter()
            .enumerate()
            .map(|(i, &told)| {
                let ip = if is_unspecified(told.ip()) { remote.ip() } else { told.ip() };
                (i as u8, wire::addr::canonical(SocketAddr::new(ip, told.port())))
            })
            .filter(|&(_, address)| names_a_place(address) && believed(address))
            .collect();
        let mut bindings = Bindings::new(terms, &addresses, source, ctx.config.relay_udp, now);
        bindings.reach(&ctx.locals, now);
        Self {
            conn,
            base,
            name,
            remote,
            hello,
            seen: registered.seen,
            since: now,
            bindings,
            keepalive,
            counter: 0,
            next_info: now,
            waiting: None,
            health: Health::Quiet,
            heard: now,
            took,
            rtt: Rtt::default(),
        }
    }

    /// Sends INFO at the next tick.
    pub(super) fn info_now(&mut self, now: Instant) {
        self.next_info = now;
    }

    /// Something came over this session's TCP connection.
    pub(super) fn heard_tcp(&mut self, now: Instant) {
        self.heard = now;
        if self.health != Health::Lost {
            self.health = Health::Quiet;
        }
    }

    /// When something last came from the base, by either way.
    pub(super) fn last_heard(&self) -> Instant {
        self.bindings.last_heard().map_or(self.heard, |at| at.max(self.heard))
    }

    pub(super) fn handle_pong(&mut self, number: u64, now: Instant) {
        if let Some((waiting, at)) = self.waiting
            && number >= waiting
        {
            if number == waiting {
                self.rtt.sample(now - at);
            }
            self.waiting = None;
        }
    }

    /// A relayed message goes out over TCP.
    pub(super) fn note_tcp_data(&mut self, now: Instant) {
        if self.health == Health::Quiet {
            self.health = Health::Awaiting(now);
        }
    }

    pub(super) fn tick(
        &mut self,
        master_key: &[u8; wire::INTRODUCTION_KEY_LEN],
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let own = ctx.own_addresses(self.remote.ip().is_loopback());
        let result = self.bindings.tick(&own, &mut self.counter, ctx, now);
        if result.info {
            self.next_info = now;
        }
        if let Health::Awaiting(since) = self.health
            && now >= since + TCP_QUIET
        {
            self.health = Health::Probing;
            self.next_info = now;
        }
        if self.next_info <= now {
            self.counter += 1;
            self.waiting.get_or_insert((self.counter, now));
            self.next_info = now + self.keepalive;
            let mut frames = Vec::new();
            Info { number: self.counter, master_key: *master_key, own }.write(&mut frames);
            ctx.push(Output::Write { conn: self.conn, frames });
        }
        if now >= self.heard + SESSION_DEAD {
            return Verdict::Dead;
        }
        if self.health != Health::Lost && self.pong_deadline().is_some_and(|at| at <= now) {
            self.health = Health::Lost;
            return Verdict::Silent;
        }
        Verdict::Alive
    }

    /// The session has lost its TCP connection: what UDP still needs, for as long as the base keeps the registration.
    pub(super) fn tick_udp(&mut self, ctx: &mut Context, now: Instant) {
        let own = ctx.own_addresses(self.remote.ip().is_loopback());
        let _ = self.bindings.tick(&own, &mut self.counter, ctx, now);
    }

    fn pong_deadline(&self) -> Option<Instant> {
        let (_, at) = self.waiting?;
        let data_waits =
            matches!(self.health, Health::Awaiting(_) | Health::Probing) || self.bindings.is_probing();
        let limit = if data_waits {
            PONG_TIMEOUT.max(self.rtt.smoothed().unwrap_or(self.took) * 3)
        } else {
            PONG_TIMEOUT_IDLE
        };
        (self.health != Health::Lost).then(|| at + limit)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let health = match self.health {
            Health::Awaiting(since) => Some(since + TCP_QUIET),
            _ => None,
        };
        let own = earlier(Some(self.next_info), earlier(health, self.pong_deadline()));
        earlier(earlier(own, Some(self.heard + SESSION_DEAD)), self.bindings.deadline())
    }

    pub(super) fn status(&self) -> BaseStatus {
        BaseStatus {
            name: self.name.clone(),
            id: self.hello.base,
            remote: self.remote,
            seen: self.seen,
            since: self.since,
            rtt: self.rtt.smoothed(),
            udp: self.bindings.status(),
        }
    }
}

fn is_unspecified(ip: IpAddr) -> bool {
    ip.to_canonical().is_unspecified()
}
