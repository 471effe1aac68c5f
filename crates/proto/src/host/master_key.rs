//! The introduction master key: what bases derive introduction keys from (protocol section 4).
//!
//! New at the start and daily; the one before stays valid for an hour, since peers may still hold keys made from it. It
//! goes to the base with every INFO, which is not this file's business.

use std::time::Instant;

use super::{
    config::{MASTER_KEY_GRACE, MASTER_KEY_LIFE},
    context::Context,
};
use crate::{
    id::DeviceId,
    wire::{INTRODUCTION_KEY_LEN, peer::IntroductionKey},
};

/// The present master key and, for a while, the one before.
#[derive(Debug)]
pub(super) struct MasterKey {
    current: [u8; INTRODUCTION_KEY_LEN],
    previous: Option<([u8; INTRODUCTION_KEY_LEN], Instant)>,
    renew: Instant,
    renewals: u64,
}

impl MasterKey {
    pub(super) fn new(ctx: &mut Context, now: Instant) -> Self {
        Self { current: ctx.random(), previous: None, renew: now + MASTER_KEY_LIFE, renewals: 0 }
    }

    pub(super) fn current(&self) -> &[u8; INTRODUCTION_KEY_LEN] {
        &self.current
    }

    /// The keys by which `initiator` may introduce itself.
    pub(super) fn introduction_keys(&self, initiator: DeviceId, now: Instant) -> [IntroductionKey; 2] {
        let previous = match self.previous {
            Some((key, until)) if now < until => IntroductionKey::derive(&key, initiator),
            _ => IntroductionKey::NONE,
        };
        [IntroductionKey::derive(&self.current, initiator), previous]
    }

    /// As long as this is the same, so are the introduction keys: they need not be made for every HELLO.
    pub(super) fn version(&self, now: Instant) -> (u64, bool) {
        (self.renewals, self.previous.is_some_and(|(_, until)| now < until))
    }

    /// Whether it has just been renewed: the base has to hear of it.
    pub(super) fn tick(&mut self, ctx: &mut Context, now: Instant) -> bool {
        if self.renew > now {
            return false;
        }
        let previous = Some((self.current, now + MASTER_KEY_GRACE));
        let renewals = self.renewals + 1;
        *self = Self { current: ctx.random(), previous, renew: now + MASTER_KEY_LIFE, renewals };
        true
    }

    pub(super) fn renewal(&self) -> Instant {
        self.renew
    }
}
