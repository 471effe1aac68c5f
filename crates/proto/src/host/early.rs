//! Early data: messages to where a base says that a peer is now, before the peer has answered there (protocol section 9).
//!
//! A direct path stood, and a push says that the peer has left its address for another port of the same IP: a router gave it
//! a new mapping. From the HELLO that goes there on, the messages that take the relay meanwhile go there as well. They are
//! few, small and soon over, and nothing goes there alone. Which address may be named is decided in [`super::peers`].

use std::{net::SocketAddr, time::Instant};

use super::{
    Hop,
    config::{EARLY_FOR, EARLY_MESSAGES, EARLY_MOVES},
};
use crate::{bucket::Bucket, wire::ANY_PATH_DATA};

/// What may go to a peer's new address.
#[derive(Debug, Default)]
pub(super) struct Early {
    state: State,
    moves: Bucket,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    /// The base has named this address. No HELLO has gone there yet, so nothing else does.
    Named(SocketAddr),
    /// A HELLO has gone there and nothing has answered: so many more messages, until then.
    Open { hop: Hop, until: Instant, left: u32 },
}

impl Early {
    /// The peer is at this address now, as the base says.
    pub(super) fn name(&mut self, to: SocketAddr, now: Instant) {
        self.state = if self.moves.take(EARLY_MOVES, now) { State::Named(to) } else { State::Closed };
    }

    /// The base says that the peer is at these addresses and no others.
    pub(super) fn keep(&mut self, reflexive: &[SocketAddr]) {
        let (State::Named(to) | State::Open { hop: Hop { to, .. }, .. }) = self.state else { return };
        if !reflexive.contains(&to) {
            self.close();
        }
    }

    /// A HELLO goes out on these hops.
    pub(super) fn note_hello(&mut self, mut hops: impl Iterator<Item = Hop>, now: Instant) {
        if let State::Named(to) = self.state
            && let Some(hop) = hops.find(|hop| hop.to == to)
        {
            self.state = State::Open { hop, until: now + EARLY_FOR, left: EARLY_MESSAGES };
        }
    }

    /// Where a message of `length` bytes goes as well, if anywhere. It counts as sent.
    pub(super) fn take(&mut self, length: usize, now: Instant) -> Option<Hop> {
        match &mut self.state {
            State::Open { hop, until, left } if *left > 0 && now < *until && length <= ANY_PATH_DATA => {
                *left -= 1;
                Some(*hop)
            }
            State::Closed | State::Named(_) | State::Open { .. } => None,
        }
    }

    /// A reply shows where the peer is, or nothing is known any more.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }
}
