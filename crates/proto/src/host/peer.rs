//! One peer: what is known of its addresses, the pairs being tried, and the direct path if one stands.
//!
//! A peer is *asking* (a base told us that it wants us) or *wanted* (we sent to it, or the allow list names it). Both are
//! *active* while there is traffic, then *idle*, then forgotten. Who owns which source address, and how HELLOs that come
//! in are checked, is decided in [`super::peers`].

mod candidates;
mod doubt;
mod hello;
mod punch;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Event, Hop, Lease, Path,
    config::{FORGET, GATHER, IDLE, PEER_BYTES, PEER_HELD, SIZE_BYTES, SIZE_WANTED, SMALL_DATA},
    context::{Context, HelloCost, Rtt, earlier},
    early::Early,
    event::PeerStatus,
    pair::Pair,
    path::Standing,
    peers::RelayView,
    refresh::PathRefresh,
    replay::Heard,
    sources::Sources,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::{
        ANY_PATH_DATA, Token,
        peer::{IntroductionKey, PADDED_HELLO_LEN, PREFIX_LEN},
    },
};

pub(super) use candidates::Known;
pub(super) use punch::Mapping;
use punch::Punch;

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: DeviceId,
    pub(super) role: Role,
    pub(super) activity: Activity,
    /// Last use by either side.
    pub(super) used: Instant,
    /// Whether the present base has our REQUEST-INFO.
    pub(super) requested: bool,
    pub(super) known: Known,
    pub(super) introduction: IntroductionKey,
    pub(super) online: Option<bool>,
    pub(super) direct: Option<Standing>,
    /// Source addresses it claims, and those it has proven, oldest first.
    pub(super) claims: VecDeque<SocketAddr>,
    pub(super) proofs: VecDeque<(SocketAddr, Instant)>,
    pub(super) heard: Heard,
    pub(super) introduced: Bucket,
    /// The keys by which it may introduce itself, and the version of the master key they are for.
    pub(super) introduction_keys: Option<((u64, bool), [IntroductionKey; 2])>,
    /// Whether its last HELLO said that it takes joined data.
    pub(super) takes_joined: bool,
    /// Whether the base said so last that it takes them through a base; only while that base would tell us otherwise.
    pub(super) takes_joined_relayed: bool,
    pub(super) drawn: Bucket,
    pub(super) unknown_source: Bucket,
    pub(super) link_reaction: Bucket,
    /// What its path has shown of how long the NATs on it keep a mapping.
    refresh: PathRefresh,
    /// Its path went silent in the middle of a talk, and nobody has looked into the reason yet.
    pub(super) went_silent: bool,
    /// The first message to it after which nothing has come from it by any way.
    unheard: Option<Instant>,
    /// Ladders that began because it, or the base, came back.
    came_back: Bucket,
    /// How many such ladders may follow the loss of the last path.
    ladders_left: u8,
    /// What may go to where it is said to be now.
    pub(super) early: Early,
    /// The moment under which the index of deadlines has it.
    pub(super) scheduled: Option<Instant>,
    /// The lease that was given out, while it is still like this.
    pub(super) leased: Option<Lease>,
    pairs: Vec<Pair>,
    tokens: VecDeque<SentHello>,
    bytes: Bucket,
    size_bytes: Bucket,
    rests: Vec<Rest>,
    punch: Punch,
    reported: Path,
    /// The size of the direct path as last told.
    reported_size: usize,
    since: Instant,
}

/// Why there is state for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It asked for us: its reflexive addresses get five HELLOs each.
    Asking,
    /// We want it.
    Wanted,
}

/// Whether anything is done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Active,
    /// No traffic of ours since this moment; forgotten later.
    Idle(Instant),
}

/// A HELLO on its way: the pairs it was sent on, and what it cost there.
#[derive(Debug)]
struct SentHello {
    token: Token,
    at: Instant,
    length: usize,
    hops: Vec<(Hop, HelloCost)>,
}

/// HELLOs to one IP that were not answered.
#[derive(Debug)]
struct Rest {
    ip: IpAddr,
    unanswered: u32,
    until: Option<Instant>,
}

/// What a tick of a peer asks of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Release the interest.
    Release,
    /// Forget the peer.
    Forget,
}

/// A reply that counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    hop: Hop,
    rtt: Duration,
    length: usize,
    cost: HelloCost,
}

impl Peer {
    pub(super) fn new(id: DeviceId, role: Role, now: Instant) -> Self {
        Self {
            id,
            role,
            activity: Activity::Active,
            used: now,
            requested: false,
            known: Known::default(),
            introduction: IntroductionKey::NONE,
            online: None,
            direct: None,
            claims: VecDeque::new(),
            proofs: VecDeque::new(),
            heard: Heard::default(),
            introduced: Bucket::default(),
            introduction_keys: None,
            takes_joined: false,
            takes_joined_relayed: false,
            drawn: Bucket::default(),
            unknown_source: Bucket::default(),
            link_reaction: Bucket::default(),
            refresh: PathRefresh::default(),
            went_silent: false,
            unheard: None,
            came_back: Bucket::default(),
            ladders_left: 0,
            early: Early::default(),
            scheduled: None,
            leased: None,
            pairs: Vec::new(),
            tokens: VecDeque::new(),
            bytes: Bucket::default(),
            size_bytes: Bucket::default(),
            rests: Vec::new(),
            punch: Punch::default(),
            reported: Path::None,
            reported_size: SMALL_DATA,
            since: now,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.activity == Activity::Active
    }

    /// Who has to go last: idle ones first, then those that have proven nothing, then those used least recently.
    pub(super) fn worth(&self) -> (bool, bool, Instant) {
        (self.is_active(), !self.proofs.is_empty(), self.used)
    }

    /// Whether it is in use, and found where it still says HELLO: giving it up would only bring it back, in place of another.
    pub(super) fn is_at_work(&self, sources: &Sources, now: Instant) -> bool {
        let lives = |&(from, _): &(SocketAddr, Instant)| {
            sources.owned_until(from, self.id).is_some_and(|until| until > now)
        };
        self.is_active() && self.used + PEER_HELD > now && self.proofs.iter().any(lives)
    }

    /// Where a message of `length` bytes goes directly, if anywhere. `alone`: there is no relay, so that a size that
    /// any path should carry is worth trying before it is proven. The flag: the relay is to carry it as well.
    pub(super) fn direct_route(&mut self, length: usize, alone: bool, now: Instant) -> Option<(Hop, bool)> {
        self.unheard.get_or_insert(now);
        let known = self.direct_limit()?;
        if length > SIZE_WANTED
            && let Some(pair) = self.standing_pair()
        {
            pair.sizes.want();
        }
        let limit = if alone { known.max(ANY_PATH_DATA) } else { known };
        let standing = self.direct.as_mut().filter(|_| length <= limit)?;
        standing.note_sent(now);
        Some((standing.hop, standing.needs_relay()))
    }

    /// What may be done on the standing path without asking for each message.
    pub(super) fn lease(&self, sources: &Sources) -> Option<Lease> {
        let standing = self.direct.as_ref().filter(|s| self.is_active() && !s.needs_relay())?;
        // A larger message has to be seen: more is then looked for.
        let seen = self.pairs.iter().any(|p| p.hop == standing.hop && p.sizes.is_wanted());
        let limit = self.direct_limit()?;
        Some(Lease {
            hop: standing.hop,
            limit: if seen { limit } else { limit.min(SIZE_WANTED) },
            // Never more than what every path should carry: where a path becomes narrower, large messages alone are lost.
            joined: self.takes_joined.then_some((limit + PREFIX_LEN).min(PADDED_HELLO_LEN)),
            wanted: self.role == Role::Wanted,
            watched: standing.is_watched(),
            source_until: sources.owned_until(standing.hop.to, self.id),
        })
    }

    /// What the standing path is known to carry.
    pub(super) fn direct_limit(&self) -> Option<usize> {
        let hop = self.direct.as_ref()?.hop;
        Some(self.pairs.iter().find(|p| p.hop == hop).map_or(SMALL_DATA, |p| p.sizes.limit()))
    }

    fn standing_pair(&mut self) -> Option<&mut Pair> {
        let hop = self.direct.as_ref()?.hop;
        self.pairs.iter_mut().find(|p| p.hop == hop)
    }

    /// The way messages take at present, given the relay's. A suspect path is still one of them, and most suspicions pass:
    /// what is said to change is what has changed.
    pub(super) fn path(&self, relay: Path) -> Path {
        self.direct.as_ref().map_or(relay, |standing| Path::Direct(standing.hop.to))
    }

    /// Says so, if messages take another way than was said before.
    pub(super) fn report(&mut self, relay: Path, reason: &'static str, ctx: &mut Context, now: Instant) {
        let to = self.path(relay);
        if to != self.reported {
            let from = std::mem::replace(&mut self.reported, to);
            self.since = now;
            ctx.event(Event::PathChanged { peer: self.id, from, to, reason });
        }
    }

    /// Says so, if the direct path carries another size than was said before.
    pub(super) fn report_size(&mut self, ctx: &mut Context) {
        let Some(size) = self.direct_limit().filter(|&size| size != self.reported_size) else { return };
        self.reported_size = size;
        ctx.event(Event::DirectSize { peer: self.id, size });
    }

    /// Drops the direct path and every pair; what is known of the peer stays.
    pub(super) fn forbid_direct(&mut self) {
        self.direct = None;
        self.early.close();
        self.pairs.clear();
        // An answer that is on its way brings no path either.
        self.tokens.clear();
    }

    /// An event: HELLO to all pairs from now on, as at the beginning.
    pub(super) fn restart_pairs(&mut self, now: Instant) {
        for pair in &mut self.pairs {
            pair.restart(now);
        }
    }

    /// Something came from it.
    pub(super) fn note_heard(&mut self) {
        self.unheard = None;
    }

    fn stand(&mut self, hop: Hop, full_size: bool, now: Instant) {
        self.known.last_good = Some(hop.to);
        self.direct = Some(Standing::new(hop, full_size, now));
        // A pair that becomes the path inherits what its caller has use for.
        if self.pairs.iter().any(|p| p.sizes.is_wanted())
            && let Some(pair) = self.standing_pair()
        {
            pair.sizes.want();
        }
    }

    // --- Time ------------------------------------------------------------------------------------------------------

    pub(super) fn tick(&mut self, relay: &RelayView, ctx: &mut Context, now: Instant) -> Due {
        match self.activity {
            Activity::Active if now >= self.used + IDLE => {
                self.activity = Activity::Idle(now);
                if let Some(standing) = self.direct.take() {
                    self.known.last_good = Some(standing.hop.to);
                }
                for pair in &mut self.pairs {
                    pair.next = None;
                }
                self.tokens.clear();
                self.refresh = PathRefresh::default();
                self.stop_punching(ctx);
                self.report(relay.path, "no traffic for two minutes", ctx, now);
                return Due::Release;
            }
            Activity::Idle(since) => {
                return if now >= self.forget_at(since) { Due::Forget } else { Due::Nothing };
            }
            Activity::Active => {}
        }
        self.tick_path(relay, ctx, now);
        self.tick_punch(relay.mapping, ctx, now);
        self.tick_size(ctx, now);
        self.report_size(ctx);
        self.send_due(ctx, now);
        Due::Nothing
    }

    /// Looks for larger sizes on the standing path, within a budget of its own and that of all HELLOs.
    fn tick_size(&mut self, ctx: &mut Context, now: Instant) {
        if self.role != Role::Wanted || self.direct.as_ref().is_none_or(Standing::is_suspect) {
            return;
        }
        let Some(pair) = self.standing_pair() else { return };
        let (hop, was_full) = (pair.hop, pair.sizes.is_full());
        let due = pair.sizes.due(hop.to, now);
        if was_full
            && !pair.sizes.is_full()
            && let Some(standing) = &mut self.direct
        {
            standing.restart_size(now);
        }
        let Some(length) = due else { return };
        let bytes = length as u32;
        if self.size_bytes.take_many(bytes, SIZE_BYTES, now) && self.bytes.take_many(bytes, PEER_BYTES, now) {
            if let Some(pair) = self.standing_pair() {
                pair.sizes.note_sent(now);
            }
            self.send_hello_of(hop, length, ctx, now);
        } else {
            let later = self.size_bytes.next_many(bytes, SIZE_BYTES, now);
            let later = later.max(self.bytes.next_many(bytes, PEER_BYTES, now)).max(now + GATHER);
            if let Some(pair) = self.standing_pair() {
                pair.sizes.postpone(later);
            }
        }
    }

    /// An idle peer whose data still comes in is kept: its source addresses go with it.
    fn forget_at(&self, idle_since: Instant) -> Instant {
        idle_since.max(self.used) + FORGET
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.activity {
            Activity::Idle(since) => Some(self.forget_at(since)),
            Activity::Active => {
                let pairs = self.pairs.iter().filter_map(|p| p.next).min();
                let path = self.direct.as_ref().and_then(|s| s.deadline(&rtt_of(&self.pairs, s.hop)));
                let searching = self.direct.as_ref().filter(|s| self.role == Role::Wanted && !s.is_suspect());
                let size =
                    searching.and_then(|s| self.pairs.iter().find(|p| p.hop == s.hop)?.sizes.deadline());
                let others = earlier(size, self.punch.deadline());
                earlier(Some(self.used + IDLE), earlier(pairs, earlier(path, others)))
            }
        }
    }

    // --- Looking -----------------------------------------------------------------------------------------------------

    pub(super) fn has_pair(&self, hop: Hop) -> bool {
        self.pairs.iter().any(|p| p.hop == hop)
    }

    pub(super) fn pair_count(&self) -> usize {
        self.pairs.len()
    }

    pub(super) fn token_count(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn status(&self, relay: &RelayView, guess_ports: bool, max_datagram: usize) -> PeerStatus {
        let rtt = self.direct.as_ref().and_then(|s| rtt_of(&self.pairs, s.hop).smoothed());
        PeerStatus {
            id: self.id,
            path: self.path(relay.path),
            since: self.since,
            why: self.why(relay, guess_ports),
            rtt,
            max_datagram,
            online: self.online,
            pairs: self.pairs.iter().map(Pair::status).collect(),
        }
    }

    fn why(&self, relay: &RelayView, guess_ports: bool) -> String {
        match &self.direct {
            Some(s) if !s.is_suspect() => "this address pair answers".to_owned(),
            Some(s) => format!("the direct path to {} went silent; messages go both ways", s.hop.to),
            None if !self.is_active() => {
                "no traffic for two minutes; the path is kept as a candidate".to_owned()
            }
            None if self.pairs.is_empty() => match (relay.path, self.online) {
                (Path::None, _) => "no base and no announcement on a local link".to_owned(),
                (_, Some(false)) => {
                    "the device is offline, or it has released its interest in this one".to_owned()
                }
                (_, Some(true)) => {
                    "it is online, but none of its addresses may be tried from here".to_owned()
                }
                (_, None) => {
                    "it has not asked back: it is offline, or it refuses, or it is elsewhere".to_owned()
                }
            },
            None => {
                let tried = format!("{} address pairs are being tried, none has answered", self.pairs.len());
                match self.why_not_punched(relay.mapping, guess_ports) {
                    Some(why) => format!("{tried}: {why}"),
                    None => tried,
                }
            }
        }
    }
}

fn rtt_of(pairs: &[Pair], hop: Hop) -> Rtt {
    pairs.iter().find(|p| p.hop == hop).map(|p| p.rtt).unwrap_or_default()
}
