//! An address pair: one way that might lead to a peer, when it is tried next, and what it has answered.

use std::time::{Duration, Instant};

use super::{
    CandidateSource, Hop,
    config::{ASKING_HELLOS, FASTER_BY, FASTER_SHARE, LADDER, ROUND, ROUND_MAX},
    context::{Context, Rtt},
    event::PairStatus,
    size::Sizes,
};

/// A pair and its schedule.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) hop: Hop,
    pub(super) source: CandidateSource,
    stage: Stage,
    /// The next HELLO; never, once an asking peer's address has had its five.
    pub(super) next: Option<Instant>,
    pub(super) rtt: Rtt,
    pub(super) last_answer: Option<Instant>,
    pub(super) sizes: Sizes,
    pub(super) error: Option<String>,
    faster_rounds: u8,
    sent: u64,
    answered: u64,
    last_sent: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// This rung of the ladder is next.
    Ladder(usize),
    /// Rounds; so many were unanswered.
    Rounds { unanswered: u32 },
}

impl Pair {
    pub(super) fn new(hop: Hop, source: CandidateSource, now: Instant) -> Self {
        Self {
            hop,
            source,
            stage: Stage::Ladder(0),
            next: Some(now),
            rtt: Rtt::default(),
            last_answer: None,
            sizes: Sizes::default(),
            error: None,
            faster_rounds: 0,
            sent: 0,
            answered: 0,
            last_sent: None,
        }
    }

    /// An event: the ladder begins anew.
    pub(super) fn restart(&mut self, now: Instant) {
        self.stage = Stage::Ladder(0);
        self.next = Some(now);
    }

    /// The same, where the last ladder is over.
    pub(super) fn restart_rested(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Rounds { .. }) {
            self.restart(now);
        }
    }

    pub(super) fn is_due(&self, by: Instant) -> bool {
        self.next.is_some_and(|at| at <= by)
    }

    /// Whether the next HELLO opens a flow that a NAT has to keep in mind.
    pub(super) fn is_new_flow(&self) -> bool {
        self.stage == Stage::Ladder(0)
    }

    /// A HELLO was sent as scheduled; where it is answered, the next follows after this round.
    pub(super) fn advance(&mut self, round: Duration, asking: bool, ctx: &mut Context, now: Instant) {
        self.note_sent(now);
        self.next = Some(match &mut self.stage {
            Stage::Ladder(rung) if *rung + 1 < LADDER.len() => {
                *rung += 1;
                now + (LADDER[*rung] - LADDER[*rung - 1])
            }
            Stage::Ladder(_) => {
                self.stage = Stage::Rounds { unanswered: 0 };
                now + ctx.jittered(round)
            }
            Stage::Rounds { unanswered } => {
                *unanswered += 1;
                now + ctx.jittered((round * (1 << (*unanswered - 1).min(4))).min(ROUND_MAX))
            }
        });
        if asking && self.sent >= ASKING_HELLOS {
            self.next = None;
        }
    }

    /// A HELLO was sent beside the schedule (a probe).
    pub(super) fn note_sent(&mut self, now: Instant) {
        self.sent += 1;
        self.last_sent = Some(now);
        self.error = None;
    }

    /// A reply came.
    pub(super) fn handle_reply(&mut self, rtt: Duration, ctx: &mut Context, now: Instant) {
        self.rtt.sample(rtt);
        self.answered += 1;
        self.last_answer = Some(now);
        match &mut self.stage {
            Stage::Ladder(_) => {
                self.stage = Stage::Rounds { unanswered: 0 };
                self.next = Some(now + ctx.jittered(ROUND));
            }
            Stage::Rounds { unanswered } => {
                if *unanswered > 1 {
                    self.next = Some(now + ctx.jittered(ROUND));
                }
                *unanswered = 0;
            }
        }
    }

    /// The next HELLO comes within this round.
    pub(super) fn keep_alive(&mut self, round: Duration, ctx: &mut Context, now: Instant) {
        self.next = self.next.map(|next| next.min(now + ctx.jittered(round)));
    }

    /// Whether this pair has now been clearly faster than the standing path for enough rounds.
    pub(super) fn is_clearly_faster(&mut self, than: Option<Duration>, rounds: u8) -> bool {
        let faster = match (self.rtt.smoothed(), than) {
            (Some(mine), Some(its)) => mine < its.mul_f64(FASTER_SHARE) && mine + FASTER_BY <= its,
            _ => false,
        };
        self.faster_rounds = if faster { self.faster_rounds.saturating_add(1) } else { 0 };
        self.faster_rounds >= rounds
    }

    /// HELLOs sent on it so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn status(&self) -> PairStatus {
        PairStatus {
            local: self.hop.source,
            remote: self.hop.to,
            source: self.source,
            sent: self.sent,
            answered: self.answered,
            last_sent: self.last_sent,
            last_answer: self.last_answer,
            rtt: self.rtt.smoothed(),
            next: self.next,
            error: self.error.clone(),
        }
    }
}
