//! HELLOs that come a second time, later: an initiator takes no reply after five seconds, so nobody honest sends one again.
//!
//! What is remembered is bounded; who kept more HELLOs of a peer than that can replay the oldest once more, and gains the
//! five seconds of a claim by it.

use std::{collections::VecDeque, time::Instant};

use super::config::{HEARD_TOKENS, TOKEN_LIFE};
use crate::wire::Token;

/// The tokens of one peer's HELLOs, with the moment at which each came first; the oldest first.
#[derive(Debug, Default)]
pub(super) struct Heard {
    tokens: VecDeque<(u64, Instant)>,
}

impl Heard {
    /// Whether this HELLO came before, too long ago for its initiator to care.
    pub(super) fn is_replay(&self, token: &Token, now: Instant) -> bool {
        self.first(token).is_some_and(|first| first + TOKEN_LIFE <= now)
    }

    /// A HELLO has been verified.
    pub(super) fn note(&mut self, token: &Token, now: Instant) {
        if self.first(token).is_some() {
            return;
        }
        if self.tokens.len() == HEARD_TOKENS {
            self.tokens.pop_front();
        }
        self.tokens.push_back((short(token), now));
    }

    pub(super) fn contains(&self, token: &Token) -> bool {
        self.first(token).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    fn first(&self, token: &Token) -> Option<Instant> {
        let token = short(token);
        self.tokens.iter().rev().find(|(heard, _)| *heard == token).map(|&(_, at)| at)
    }
}

/// Half a token is enough to tell the few of one peer apart.
fn short(token: &Token) -> u64 {
    token.first_chunk().map_or(0, |half| u64::from_be_bytes(*half))
}
