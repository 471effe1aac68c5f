//! What other hosts send: data, HELLOs, replies to ours, and the little messages beside. Cheap checks come first; nothing that has not
//! been verified creates state.

use std::{net::SocketAddr, time::Instant};

use super::{Peers, RelayView, draw_hop, rebuild};
use crate::{
    host::{
        Allow, Hop, SocketId,
        bases::Bases,
        config::{
            DRAWN_PEER, INTRODUCED, LINK_REACTIONS, MAX_CLAIMS, MAX_PROVEN, UNKNOWN_SOURCE_MIN,
            UNKNOWN_SOURCE_REACTION,
        },
        context::Context,
        path::Standing,
        peer::Role,
        sources::Claim,
    },
    id::DeviceId,
    wire::{
        Token,
        peer::{HelloReply, UnverifiedHello, UnverifiedHelloReply, unknown_source},
    },
};

impl Peers {
    /// The peer that data from this address is from. It counts as a sign of life of the way it came by.
    pub(in crate::host) fn handle_data(
        &mut self,
        hop: Hop,
        length: usize,
        ctx: &mut Context,
        now: Instant,
    ) -> Option<DeviceId> {
        let from = hop.to;
        let Some(id) = self.sources.owner(from, now) else {
            ctx.counters.unknown_source += 1;
            let open = matches!(ctx.config.allow, Allow::Everyone) && ctx.config.direct;
            if open && length >= UNKNOWN_SOURCE_MIN && ctx.budgets.unknown_source(from, now) {
                ctx.transmit(hop, unknown_source().to_vec());
            }
            return None;
        };
        let peer = self.map.get_mut(&id)?;
        peer.used = now;
        peer.note_heard();
        if let Some(standing) = peer.direct.as_mut().filter(|s| s.hop.leads_back(&hop)) {
            standing.note_data(now);
        }
        Some(id)
    }

    /// Relayed data came from a device: traffic, if there is state for it.
    pub(in crate::host) fn note_relayed(&mut self, id: DeviceId, ctx: &Context, now: Instant) {
        if let Some(peer) = self.map.get_mut(&id).filter(|p| p.is_active()) {
            peer.note_relayed(ctx, now);
            let stands = peer.direct.as_ref().is_some_and(|standing| !standing.is_suspect());
            if !stands {
                self.reschedule(id);
            }
        }
    }

    pub(in crate::host) fn handle_hello(
        &mut self,
        hello: UnverifiedHello<'_>,
        hop: Hop,
        bases: &Bases,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) {
        ctx.counters.hello_received += 1;
        let id = hello.claim().initiator;
        if hello.claim().responder != ctx.id || id == ctx.id || !ctx.config.direct {
            ctx.counters.malformed += 1;
            return;
        }
        if !ctx.allows(id) {
            ctx.counters.not_allowed += 1;
            return;
        }
        if self.map.get(&id).is_some_and(|peer| peer.heard.is_replay(&hello.claim().token, now)) {
            ctx.counters.hello_replayed += 1;
            return;
        }
        // Whom a base has introduced is one we have asked back for: for anybody else not even a hash is computed.
        let peer = self.map.get_mut(&id);
        let known = peer.is_some();
        let introduced = peer.is_some_and(|peer| {
            // Made once, not for every HELLO: forged ones come by the hundred thousand.
            let version = bases.introduction_version(now);
            let made = peer.introduction_keys.filter(|(of, _)| *of == version).map(|(_, keys)| keys);
            let keys = made.unwrap_or_else(|| bases.introduction_keys(id, now));
            peer.introduction_keys = Some((version, keys));
            keys.iter().any(|key| hello.is_introduced_by(key))
        });
        if !self.hello_in_budget(id, introduced, hop.to, ctx, now) {
            ctx.counters.hello_over_budget += 1;
            return;
        }
        let takes_joined = hello.takes_joined();
        let Some(hello) = hello.verify(&mut ctx.known_keys) else {
            ctx.counters.hello_bad_signature += 1;
            return;
        };
        if !known {
            if !self.make_room_for_asking(relay, ctx, now) {
                return;
            }
            let role = if ctx.names(id) { Role::Wanted } else { Role::Asking };
            self.activate(id, role, relay, ctx, now);
        }
        self.accept_hello(id, hello.token, takes_joined, hop, ctx, now);
        self.reschedule(id);
    }

    pub(in crate::host) fn remembers_hello(&self, from: DeviceId, token: &Token) -> bool {
        self.map.get(&from).is_some_and(|peer| peer.heard.contains(token))
    }

    /// Introduced ones have a budget a device; strangers share one, and each source has its part of it.
    fn hello_in_budget(
        &mut self,
        id: DeviceId,
        introduced: bool,
        from: SocketAddr,
        ctx: &mut Context,
        now: Instant,
    ) -> bool {
        match self.map.get_mut(&id) {
            Some(peer) if introduced => peer.introduced.take(INTRODUCED, now),
            _ => ctx.budgets.stranger(from.ip(), ctx.locals.on_link(from), now),
        }
    }

    /// A verified HELLO: answered, unless the address is another's; an address not yet proven draws one of ours.
    fn accept_hello(
        &mut self,
        id: DeviceId,
        token: Token,
        takes_joined: bool,
        hop: Hop,
        ctx: &mut Context,
        now: Instant,
    ) {
        let from = hop.to;
        let claim = self.sources.claim(from, id, now);
        let answered = claim != Claim::Held;
        if answered {
            let reply = HelloReply::encode(id, token, &ctx.key);
            ctx.transmit(hop, reply);
        }
        let Some(peer) = self.map.get_mut(&id) else { return };
        // It is not signed: who has caught a HELLO could send it again from elsewhere, changed.
        if claim == Claim::Proven || (peer.proofs.is_empty() && !peer.heard.contains(&token)) {
            peer.takes_joined = takes_joined;
        }
        peer.heard.note(&token, now);
        if answered {
            peer.note_hello_at(hop.socket);
        }
        if claim == Claim::New {
            peer.claims.retain(|&a| a != from);
            if peer.claims.len() == MAX_CLAIMS
                && let Some(oldest) = peer.claims.pop_front()
            {
                self.sources.release_claim(oldest, id);
            }
            peer.claims.push_back(from);
        }
        if let Some(standing) =
            peer.direct.as_mut().filter(|s| s.hop.leads_back(&hop) && claim == Claim::Proven)
        {
            standing.note_heard(now);
        }
        // A source to be proven draws a HELLO; so does one that reaches us while we have no good path ourselves.
        let wanting = peer.role == Role::Wanted && peer.direct.as_ref().is_none_or(Standing::is_suspect);
        let draw = claim != Claim::Proven || wanting;
        if draw && self.sources.may_draw(from, now) && peer.drawn.take(DRAWN_PEER, now) {
            peer.send_hello(draw_hop(peer, hop, &ctx.locals), false, ctx, now);
        }
    }

    pub(in crate::host) fn handle_reply(
        &mut self,
        reply: UnverifiedHelloReply<'_>,
        hop: Hop,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) {
        let claim = *reply.claim();
        let peer = self.map.get_mut(&claim.responder).filter(|_| claim.initiator == ctx.id);
        let answer = peer.as_ref().and_then(|p| p.match_reply(&claim.token, hop, now));
        let (Some(peer), Some(answer)) = (peer, answer) else {
            ctx.counters.reply_stray += 1;
            return;
        };
        if reply.verify(&mut ctx.known_keys).is_none() {
            ctx.counters.hello_bad_signature += 1;
            return;
        }
        ctx.counters.reply_received += 1;
        peer.note_answered(&claim.token, &answer);
        let id = peer.id;
        peer.claims.retain(|&a| a != hop.to);
        peer.proofs.retain(|&(a, _)| a != hop.to);
        if peer.proofs.len() == MAX_PROVEN
            && let Some((oldest, _)) = peer.proofs.pop_front()
        {
            self.sources.release(oldest, id);
        }
        peer.proofs.push_back((hop.to, now));
        if let Some(reason) = peer.handle_answer(answer, ctx, now) {
            peer.report(relay.path, reason, ctx, now);
        }
        peer.report_size(ctx);
        if let Some(loser) = self.sources.prove(hop.to, id, now) {
            if let Some(loser) = self.map.get_mut(&loser) {
                loser.claims.retain(|&a| a != hop.to);
                loser.proofs.retain(|&(a, _)| a != hop.to);
            }
            self.check_lease(loser);
        }
        self.reschedule(id);
    }

    /// A host says that it does not know us: one HELLO on that path, if a path of ours leads there.
    pub(in crate::host) fn handle_unknown_source(
        &mut self,
        from: SocketAddr,
        ctx: &mut Context,
        now: Instant,
    ) {
        let Some(id) = self.sources.owner(from, now) else { return };
        let Some(peer) = self.map.get_mut(&id) else { return };
        let Some(hop) = peer.direct.as_ref().map(|s| s.hop).filter(|hop| hop.to == from) else { return };
        if peer.unknown_source.take(UNKNOWN_SOURCE_REACTION, now) {
            peer.send_hello(hop, false, ctx, now);
            self.reschedule(id);
        }
    }

    /// Somebody guesses ports. That has a meaning while we do, too, and only if it can be the same peer.
    pub(in crate::host) fn handle_knock(&mut self, hop: Hop, ctx: &mut Context, now: Instant) {
        ctx.counters.knock_received += 1;
        let Some(id) = ctx.punching else { return };
        if let Some(peer) = self.map.get_mut(&id) {
            peer.handle_knock(hop, now);
            self.reschedule(id);
        }
    }

    /// A further socket cannot be had: only a present attempt opens any.
    pub(in crate::host) fn handle_socket_failed(&mut self, socket: SocketId, ctx: &mut Context) {
        ctx.forget_socket();
        let Some(id) = ctx.punching else { return };
        if let Some(peer) = self.map.get_mut(&id) {
            peer.handle_socket_failed(socket);
            self.reschedule(id);
        }
    }

    /// A device has announced itself anew on a local link.
    pub(in crate::host) fn handle_announced(
        &mut self,
        id: DeviceId,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) {
        if !ctx.config.direct || !ctx.allows(id) {
            return;
        }
        let candidates = self.link.candidates(id, now);
        let Some(peer) = self.map.get_mut(&id).filter(|p| p.is_active() && p.role == Role::Wanted) else {
            return;
        };
        if !peer.link_reaction.take(LINK_REACTIONS, now) {
            return;
        }
        peer.known.link = candidates;
        rebuild(peer, relay, ctx, now);
        self.reschedule(id);
    }
}
