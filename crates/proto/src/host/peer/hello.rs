//! HELLOs to a peer: which are sent, what they may cost, and what an answer means.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Answer, Peer, Rest, Role, SentHello, rtt_of};
use crate::{
    host::{
        CandidateSource, Hop,
        config::{
            FASTER_ROUNDS, GATHER, MAX_CANDIDATES, MAX_PAIRS, MAX_TOKENS, PEER_BYTES, PROOF_LIFE, REST,
            REST_AFTER, ROUND, TOKEN_LIFE,
        },
        context::{Context, HelloCost},
        pair::Pair,
    },
    wire::{
        Token,
        peer::{Hello, PADDED_HELLO_LEN, SAYING_HELLO_LEN, TAKES_JOINED},
    },
};

impl Peer {
    /// One HELLO beside the schedule, to one hop.
    pub(in crate::host) fn send_hello(&mut self, hop: Hop, padded: bool, ctx: &mut Context, now: Instant) {
        let length = if padded { PADDED_HELLO_LEN } else { SAYING_HELLO_LEN };
        let _ = self.bytes.take_many(length as u32, PEER_BYTES, now);
        self.send_hello_of(hop, length, ctx, now);
    }

    /// The same, of any length, where the bytes have been paid for.
    pub(super) fn send_hello_of(&mut self, hop: Hop, length: usize, ctx: &mut Context, now: Instant) {
        if let Some(pair) = self.pairs.iter_mut().find(|p| p.hop == hop) {
            pair.note_sent(now);
        }
        let cost = HelloCost { ip: !self.answers_at(hop.to, now), flow: false };
        if cost.ip {
            ctx.budgets.urgent_hello_to(hop.to.ip(), now);
        }
        self.transmit_hello(vec![(hop, cost)], length, ctx, now);
    }

    /// Whether it has answered a HELLO at this very address within the life of a proof: then no HELLO there is aimed at somebody else.
    fn answers_at(&self, address: SocketAddr, now: Instant) -> bool {
        self.proofs.iter().any(|&(proven, at)| proven == address && at + PROOF_LIFE > now)
    }

    fn transmit_hello(
        &mut self,
        hops: Vec<(Hop, HelloCost)>,
        length: usize,
        ctx: &mut Context,
        now: Instant,
    ) {
        let token = ctx.random();
        let datagram =
            Bytes::from(Hello::encode(self.id, token, &self.introduction, &ctx.key, TAKES_JOINED, length));
        for &(hop, _) in &hops {
            ctx.transmit(hop, datagram.clone());
            ctx.counters.hello_sent += 1;
        }
        while self.tokens.len() >= MAX_TOKENS || self.tokens.front().is_some_and(|t| t.at + TOKEN_LIFE <= now)
        {
            self.tokens.pop_front();
        }
        self.early.note_hello(hops.iter().map(|&(hop, _)| hop), now);
        self.tokens.push_back(SentHello { token, at: now, length, hops });
    }

    /// Sends the HELLOs that are due: one signature for all pairs, best pairs first where a budget is short.
    pub(super) fn send_due(&mut self, ctx: &mut Context, now: Instant) {
        let mut hops = Vec::new();
        for at in 0..self.pairs.len() {
            if !self.pairs[at].is_due(now + GATHER) {
                continue;
            }
            match self.budget_for(at, ctx, now) {
                Ok(cost) => {
                    hops.push((self.pairs[at].hop, cost));
                    let asking = self.role == Role::Asking;
                    let stands = self.direct.as_ref().is_some_and(|s| s.hop == self.pairs[at].hop);
                    let round = if stands { self.round(ctx) } else { ROUND };
                    self.pairs[at].advance(round, asking, ctx, now);
                }
                Err(later) => {
                    // Of all that wait for a budget, first HELLOs come before repetitions.
                    let behind = if self.pairs[at].is_new_flow() { Duration::ZERO } else { GATHER * 2 };
                    self.pairs[at].next = Some(later.max(now + GATHER * 2) + behind);
                }
            }
        }
        if !hops.is_empty() {
            self.transmit_hello(hops, SAYING_HELLO_LEN, ctx, now);
        }
    }

    fn budget_for(&mut self, at: usize, ctx: &mut Context, now: Instant) -> Result<HelloCost, Instant> {
        let (to, flow) = (self.pairs[at].hop.to, self.pairs[at].is_new_flow());
        let ip = to.ip();
        if let Some(until) = self.rests.iter().find(|r| r.ip == ip).and_then(|r| r.until)
            && until > now
        {
            return Err(until);
        }
        let cost = HelloCost { ip: !self.answers_at(to, now), flow };
        ctx.budgets.hello_to(ip, cost, now)?;
        if !self.bytes.take_many(SAYING_HELLO_LEN as u32, PEER_BYTES, now) {
            ctx.budgets.give_back(ip, cost, now);
            return Err(now + PEER_BYTES.every * SAYING_HELLO_LEN as u32);
        }
        self.note_unanswered(ip, now);
        Ok(cost)
    }

    fn note_unanswered(&mut self, ip: IpAddr, now: Instant) {
        let rest = match self.rests.iter().position(|r| r.ip == ip) {
            Some(at) => &mut self.rests[at],
            None => {
                if self.rests.len() >= 2 * MAX_CANDIDATES {
                    self.rests.remove(0);
                }
                self.rests.push(Rest { ip, unanswered: 0, until: None });
                let last = self.rests.len() - 1;
                &mut self.rests[last]
            }
        };
        rest.unanswered += 1;
        rest.until = None;
        if rest.unanswered >= REST_AFTER {
            (rest.unanswered, rest.until) = (0, Some(now + REST));
        }
    }

    /// Between HELLOs on the standing path: it is kept open where NATs forget sooner than others.
    fn round(&self, ctx: &Context) -> Duration {
        self.refresh.within(ctx.refresh.within(ROUND))
    }

    /// Whether a HELLO-REPLY with this token, from there, answers a HELLO of ours: the exact pair, in time.
    pub(in crate::host) fn match_reply(&self, token: &Token, came_by: Hop, now: Instant) -> Option<Answer> {
        let sent = self.tokens.iter().find(|t| t.token == *token && t.at + TOKEN_LIFE > now)?;
        let (hop, cost) = *sent.hops.iter().find(|(hop, _)| hop.leads_back(&came_by))?;
        Some(Answer { hop, rtt: now - sent.at, length: sent.length, cost })
    }

    /// This HELLO has been answered on this pair: what comes again later is a copy, and says nothing of the path's life or length.
    pub(in crate::host) fn note_answered(&mut self, token: &Token, answer: &Answer) {
        if let Some(sent) = self.tokens.iter_mut().find(|t| t.token == *token) {
            sent.hops.retain(|(hop, _)| *hop != answer.hop);
        }
    }

    /// A verified reply. The path may come to stand, or to move.
    pub(in crate::host) fn handle_answer(
        &mut self,
        answer: Answer,
        ctx: &mut Context,
        now: Instant,
    ) -> Option<&'static str> {
        let Answer { hop, rtt, length, cost } = answer;
        ctx.budgets.give_back(hop.to.ip(), cost, now);
        self.note_heard();
        self.early.close();
        self.rests.retain(|r| r.ip != hop.to.ip());
        self.refresh.note_answer(hop.to.ip(), now);
        let stands = self.direct.as_ref().is_none_or(|s| s.hop == hop || s.is_suspect());
        let round = if stands { self.round(ctx) } else { ROUND };
        let at = match self.pairs.iter().position(|p| p.hop == hop) {
            Some(at) => at,
            // A HELLO that was drawn, on a pair that no candidate names.
            None => {
                if self.pairs.len() == MAX_PAIRS {
                    self.pairs.pop();
                }
                let mut pair = Pair::new(hop, CandidateSource::Proven, now);
                pair.note_sent(now);
                pair.next = None;
                self.pairs.push(pair);
                self.pairs.len() - 1
            }
        };
        let pair = &mut self.pairs[at];
        let in_round = pair.last_answer.is_some();
        pair.handle_reply(rtt, ctx, now);
        if round < ROUND {
            pair.keep_alive(round, ctx, now);
        }
        pair.sizes.note_answer(length, now);
        if self.role == Role::Asking {
            pair.next = None;
        }
        let full_size = pair.sizes.is_full();
        // A message was followed by nothing, and yet the path is there: it may have been too large for it.
        if self.direct.as_ref().is_some_and(|s| s.hop == hop && s.is_probing()) {
            pair.sizes.doubt(now);
        }
        let reason = match &mut self.direct {
            None => Some("first to respond"),
            Some(standing) if standing.hop == hop => {
                let was_suspect = standing.is_suspect();
                standing.note_reply(now);
                if full_size {
                    standing.note_full_size();
                } else {
                    standing.retry_size(now);
                }
                return was_suspect.then_some("it answers again");
            }
            Some(standing) if standing.is_suspect() => Some("first to respond"),
            Some(standing) => {
                let current = standing.hop;
                let its = rtt_of(&self.pairs, current);
                // Its router has given it another port: the old one may bring nothing any more.
                let other_port = current.to.ip() == hop.to.ip() && current.to.port() != hop.to.port();
                if !in_round && other_port && standing.is_overdue(&its, now) {
                    Some("it answers there, and no longer where it was")
                } else {
                    (in_round && self.pairs[at].is_clearly_faster(its.smoothed(), FASTER_ROUNDS))
                        .then_some("clearly faster")
                }
            }
        };
        if reason.is_some() {
            self.stand(hop, full_size, now);
        }
        reason
    }
}
