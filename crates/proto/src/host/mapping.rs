//! A port that a router has mapped for us: told to the base, and by it to peers, once it is known to lead here.
//!
//! The shell asks the router (PCP, NAT-PMP, UPnP) and says what that answered. Routers promise much: a mapping may be behind
//! another NAT, or be gone since the router restarted. So the base is asked to send a few bytes there (MAP-CHECK), and what comes
//! (MAP-OK) is the proof. It is asked again every now and then; what no longer leads here is no longer told, and the shell asks the
//! router anew.

use std::{net::SocketAddr, time::Instant};

use super::{
    Event, Hop, Output,
    config::{MAP_CHECK_EVERY, MAP_CHECK_GAPS},
    context::Context,
};
use crate::wire::{
    Cookie,
    udp::{MapCheck, NONCE_LEN},
};

/// The mapping, if the router has given one.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    address: Option<SocketAddr>,
    /// The base was asked so often since it last answered.
    asked: usize,
    next: Option<Instant>,
    nonces: [[u8; NONCE_LEN]; MAP_CHECK_GAPS.len()],
}

impl Mapping {
    /// The router has given this mapping, or none any more.
    pub(super) fn set(&mut self, address: Option<SocketAddr>, ctx: &mut Context, now: Instant) {
        if self.address != address {
            tell(None, ctx);
            *self = Self { address, ..Self::default() };
            self.check(now);
        }
    }

    /// Something has changed that it may depend on: asked from the beginning, and told meanwhile as before.
    pub(super) fn check(&mut self, now: Instant) {
        self.asked = 0;
        self.next = self.address.map(|_| now);
    }

    /// A MAP-OK: `true` if it is what was waited for, from wherever it came. A router that has a flow of ours with the base
    /// already gives it another source.
    pub(super) fn handle_ok(&mut self, nonce: [u8; NONCE_LEN], ctx: &mut Context, now: Instant) -> bool {
        let is_awaited = self.nonces[..self.asked].contains(&nonce);
        if is_awaited {
            self.asked = 0;
            self.next = Some(now + ctx.jittered(MAP_CHECK_EVERY));
            tell(self.address, ctx);
        }
        is_awaited
    }

    /// Asks the base, if it is time: `way` is its address that answers over UDP, and the session's cookie.
    pub(super) fn tick(&mut self, way: Option<(SocketAddr, Cookie)>, ctx: &mut Context, now: Instant) {
        let (Some(address), Some((base, cookie))) = (self.address, way) else { return };
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let Some(&gap) = MAP_CHECK_GAPS.get(self.asked) else {
            // Not here any more, or never was: the router is asked again, and the base before that if the answer is the same.
            tell(None, ctx);
            ctx.push(Output::RenewMapping);
            self.asked = 0;
            self.next = Some(now + MAP_CHECK_EVERY);
            return;
        };
        let nonce = ctx.random();
        self.nonces[self.asked] = nonce;
        self.asked += 1;
        self.next = Some(now + gap);
        ctx.transmit(Hop::anywhere(base), MapCheck { cookie, nonce, address }.encode());
    }

    pub(super) fn deadline(&self, way: bool) -> Option<Instant> {
        self.next.filter(|_| way)
    }
}

/// From now on this address is told to the base, or none.
fn tell(address: Option<SocketAddr>, ctx: &mut Context) {
    if ctx.mapped != address {
        ctx.mapped = address;
        ctx.event(Event::PortMapped(address));
    }
}
