//! What is known of the host from outside: nothing changes by asking.

use std::time::Instant;

use super::{Host, PeerStatus, Sizes, Status, peers::RelayView, session::Session};
use crate::{
    id::DeviceId,
    wire::{ANY_PATH_DATA, MAX_DATA},
};

impl Host {
    /// This device.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.ctx.id
    }

    /// Whether a session with a base stands.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.bases.session().is_some()
    }

    /// Everything that is known at this moment.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        Status {
            id: self.ctx.id,
            base: self.bases.session().map(Session::status),
            why_no_base: self.bases.why_not(),
            own: self.own_addresses(),
            mapped: self.ctx.mapped,
            peers: self.peers.iter().filter_map(|p| self.peer_status(p.id, now)).collect(),
            counters: self.ctx.counters,
        }
    }

    /// What is known of one peer.
    #[must_use]
    pub fn peer_status(&self, peer: DeviceId, now: Instant) -> Option<PeerStatus> {
        let relay = RelayView::of(&self.bases, now);
        self.peers.get(peer).map(|p| p.status(&relay, self.ctx.config.guess_ports, self.max_datagram(peer)))
    }

    /// The largest message that a way to this peer is known to carry at present; 0 where there is none.
    #[must_use]
    pub fn max_datagram(&self, peer: DeviceId) -> usize {
        if self.is_registered() || peer == self.ctx.id {
            return MAX_DATA;
        }
        // Without a base, what every path should carry is tried on any.
        self.max_direct(peer).map_or(0, |limit| limit.max(ANY_PATH_DATA))
    }

    /// The largest message that the direct path to this peer is known to carry, if one stands.
    #[must_use]
    pub fn max_direct(&self, peer: DeviceId) -> Option<usize> {
        self.peers.get(peer)?.direct_limit()
    }

    /// The IDs of bases by `host:port`, to be handed to the next run.
    #[must_use]
    pub fn remembered_bases(&self) -> Vec<(String, DeviceId)> {
        self.bases.remembered()
    }

    /// Whether a HELLO of a peer with this token would be taken for one that came before: the last [`HEARD_TOKENS`](super::config::HEARD_TOKENS) are.
    #[must_use]
    pub fn remembers_hello(&self, from: DeviceId, token: &crate::wire::Token) -> bool {
        self.peers.remembers_hello(from, token)
    }

    /// How much the machine holds at this moment.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        self.ctx.measure(&mut sizes);
        self.bases.measure(&mut sizes);
        self.peers.measure(&mut sizes);
        sizes
    }
}
