//! What becomes of the standing path when it goes silent, one of the two moves, or the system cannot send on it.

use std::time::Instant;

use super::{Peer, rtt_of};
use crate::host::{
    Hop,
    candidate::Judge,
    config::{CAME_BACK_LADDER, CAME_BACK_LADDERS},
    context::Context,
    path::{Act, Standing},
    peers::RelayView,
    refresh::PathRefresh,
};

impl Peer {
    /// Messages pass again that did not for a while: what was tried meanwhile was tried in vain, and the next round may be far.
    pub(in crate::host) fn handle_came_back(&mut self, now: Instant) {
        let looking = self.is_active() && self.direct.as_ref().is_none_or(Standing::is_suspect);
        if looking && self.ladders_left > 0 && self.came_back.take(CAME_BACK_LADDER, now) {
            self.ladders_left -= 1;
            // Where nothing passed, HELLOs told nothing of those whom they were for.
            self.rests.clear();
            for pair in &mut self.pairs {
                pair.restart_rested(now);
            }
        }
    }

    /// This device moved: what was learned about unanswering addresses was learned elsewhere.
    pub(in crate::host) fn handle_moved(&mut self, judge: &Judge<'_>, now: Instant) {
        self.rests.clear();
        self.early.close();
        self.refresh = PathRefresh::default();
        for pair in &mut self.pairs {
            pair.sizes.reset();
        }
        self.rebuild(judge, now);
        if let Some(standing) = &mut self.direct {
            if standing.hop.source.is_some_and(|ip| !judge.locals.has(ip)) {
                self.known.last_good = Some(standing.hop.to);
                self.direct = None;
            } else {
                standing.suspect(now);
                standing.restart_size(now);
            }
        }
        if self.is_active() {
            self.restart_pairs(now);
        }
    }

    /// The standing path is in doubt for an outside reason. A pair that has answered since the path's last sign of life
    /// takes over at once; otherwise all are asked again.
    pub(in crate::host) fn doubt(&mut self, now: Instant) {
        let Some(standing) = &mut self.direct else { return };
        let (hop, heard) = (standing.hop, standing.heard);
        let fresher = self
            .pairs
            .iter()
            .filter(|p| p.hop != hop && p.last_answer.is_some_and(|at| at >= heard))
            .max_by_key(|p| p.last_answer);
        if let Some(pair) = fresher {
            let (hop, full_size) = (pair.hop, pair.sizes.is_full());
            self.stand(hop, full_size, now);
            return;
        }
        standing.suspect(now);
        self.restart_pairs(now);
    }

    /// The system cannot send on this hop.
    pub(in crate::host) fn handle_send_error(
        &mut self,
        hop: Hop,
        error: &str,
        too_large: bool,
        now: Instant,
    ) -> bool {
        let Some(pair) = self.pairs.iter_mut().find(|p| p.hop == hop) else { return false };
        pair.error = Some(error.to_owned());
        if too_large {
            if pair.sizes.refused(now)
                && let Some(standing) = self.direct.as_mut().filter(|s| s.hop == hop)
            {
                standing.restart_size(now);
            }
            return false;
        }
        if self.direct.as_ref().is_none_or(|s| s.hop != hop || s.is_suspect()) {
            return false;
        }
        self.doubt(now);
        true
    }

    pub(super) fn tick_path(&mut self, relay: &RelayView, ctx: &mut Context, now: Instant) {
        let Some(standing) = &mut self.direct else { return };
        let hop = standing.hop;
        let rtt = rtt_of(&self.pairs, hop);
        match standing.tick(&rtt, relay.heard, now) {
            Act::Nothing => {}
            Act::Probe { talking } => {
                self.went_silent |= talking;
                self.send_hello(hop, false, ctx, now);
            }
            Act::ProbeSize => self.send_hello(hop, true, ctx, now),
            Act::Suspect { unused } => {
                self.refresh.note_silent(hop.to.ip(), unused, now);
                // Whether the base answers decides how long the path is held to.
                self.went_silent = true;
                self.ladders_left = CAME_BACK_LADDERS;
                self.doubt(now);
                self.restart_pairs(now);
                self.report(relay.path, "it went silent", ctx, now);
            }
            Act::Drop(reason) => {
                self.direct = None;
                self.report(relay.path, reason, ctx, now);
            }
        }
    }
}
