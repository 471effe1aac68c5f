//! Whose address is this: which peer a datagram's source address stands for.
//!
//! Each address has one owner. Who has only sent a HELLO from there *claims* it, for 5 seconds; who has answered a
//! HELLO of ours there has *proven* it, for 75. Proven beats claimed; among claims the first stays.

use std::{collections::HashMap, net::SocketAddr, time::Instant};

use super::config::{CLAIM_LIFE, DRAWN, PROOF_LIFE};
use crate::{bucket::Bucket, id::DeviceId};

/// All source addresses that stand for a peer. How many a peer may have is held by the peer's own lists.
#[derive(Debug, Default)]
pub(super) struct Sources {
    map: HashMap<SocketAddr, Source>,
}

#[derive(Debug)]
struct Source {
    owner: DeviceId,
    standing: Standing,
    drawn: Bucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Claimed(Instant),
    Proven(Instant),
}

impl Standing {
    fn until(self) -> Instant {
        match self {
            Self::Claimed(until) | Self::Proven(until) => until,
        }
    }
}

/// What a HELLO from an address amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Taken, newly: to be proven.
    New,
    /// Taken already, not proven.
    Again,
    /// Proven already; the proof is renewed.
    Proven,
    /// Another peer holds the address.
    Held,
}

impl Sources {
    /// The peer that data from this address is from.
    pub(super) fn owner(&self, from: SocketAddr, now: Instant) -> Option<DeviceId> {
        self.map.get(&from).filter(|s| s.standing.until() > now).map(|s| s.owner)
    }

    /// Until when data from this address is that peer's, as things stand.
    pub(super) fn owned_until(&self, from: SocketAddr, peer: DeviceId) -> Option<Instant> {
        self.map.get(&from).filter(|s| s.owner == peer).map(|s| s.standing.until())
    }

    /// A verified HELLO came from there.
    pub(super) fn claim(&mut self, from: SocketAddr, peer: DeviceId, now: Instant) -> Claim {
        match self.map.get_mut(&from).filter(|s| s.standing.until() > now) {
            None => {
                let drawn = self.map.get(&from).map(|s| s.drawn).unwrap_or_default();
                let standing = Standing::Claimed(now + CLAIM_LIFE);
                self.map.insert(from, Source { owner: peer, standing, drawn });
                Claim::New
            }
            Some(source) if source.owner != peer => Claim::Held,
            Some(source) => match source.standing {
                Standing::Claimed(_) => {
                    source.standing = Standing::Claimed(now + CLAIM_LIFE);
                    Claim::Again
                }
                Standing::Proven(_) => {
                    source.standing = Standing::Proven(now + PROOF_LIFE);
                    Claim::Proven
                }
            },
        }
    }

    /// A reply to a HELLO of ours came from there. Who owned it before does so no longer; that peer is returned.
    pub(super) fn prove(&mut self, from: SocketAddr, peer: DeviceId, now: Instant) -> Option<DeviceId> {
        let standing = Standing::Proven(now + PROOF_LIFE);
        let before = self.map.insert(from, Source { owner: peer, standing, drawn: Bucket::default() })?;
        (before.owner != peer).then_some(before.owner)
    }

    /// Whether the one HELLO that an unproven source draws may be sent there now.
    pub(super) fn may_draw(&mut self, from: SocketAddr, now: Instant) -> bool {
        self.map.get_mut(&from).is_some_and(|s| s.drawn.take(DRAWN, now))
    }

    /// This peer's address is given up, if it is (still) its own.
    pub(super) fn release(&mut self, from: SocketAddr, peer: DeviceId) {
        if self.map.get(&from).is_some_and(|s| s.owner == peer) {
            self.map.remove(&from);
        }
    }

    /// The same, but only while it is a claim: what has been proven meanwhile stays.
    pub(super) fn release_claim(&mut self, from: SocketAddr, peer: DeviceId) {
        if self.map.get(&from).is_some_and(|s| s.owner == peer && matches!(s.standing, Standing::Claimed(_)))
        {
            self.map.remove(&from);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
}
