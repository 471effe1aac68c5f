//! How large a datagram an address pair carries: found by HELLOs padded to ever larger sizes (RFC 8899, DPLPMTUD).
//!
//! A pair begins small; that 1,200 bytes pass is asked at once, by the standing path ([`super::path`]). Beyond that a
//! search begins when the caller sends messages that come near: who never does is spared the probes.
//!
//! ```text
//! searching ─no larger size left to try─▶ resting ─600 s─▶ searching
//!     ▲                                      │ every round, and when an answer was missed: the proven size is asked again
//!     └──three of these unanswered: 1,200, and that is asked, too
//! ```
//! Lengths here are those of whole datagrams: of a HELLO with its padding. A message may need an escape, so that it may be
//! [`PREFIX_LEN`] shorter than the longest HELLO that was answered.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::config::{
    PATH_MTUS, SIZE_CONFIRM, SIZE_CONFIRM_LARGE, SIZE_CONFIRM_MIN, SIZE_LARGE, SIZE_RAISE, SIZE_TRIES,
    SIZE_TRIES_LARGE, SMALL_DATA,
};
use crate::wire::{
    MAX_DATA,
    peer::{PADDED_HELLO_LEN, PREFIX_LEN},
};

/// Bytes of IP and UDP headers.
const HEADERS_V4: usize = 20 + 8;
const HEADERS_V6: usize = 40 + 8;

/// What is known of the sizes that a pair carries.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// The longest HELLO that was answered; 0 before 1,200 bytes are known to pass.
    proven: usize,
    /// The shortest length that is known not to pass.
    ceiling: Option<usize>,
    /// Whether the caller has use for more.
    wanted: bool,
    probe: Option<Probe>,
    /// When the proven size was last answered.
    confirmed: Option<Instant>,
    /// Nothing larger is tried before.
    resting: Option<Instant>,
}

#[derive(Debug)]
struct Probe {
    length: usize,
    /// How often it was sent.
    tries: usize,
    next: Instant,
}

impl Sizes {
    /// The largest message that is known to pass, even escaped.
    pub(super) fn limit(&self) -> usize {
        if self.is_full() { self.proven - PREFIX_LEN } else { SMALL_DATA }
    }

    /// Whether messages of 1,200 bytes are known to pass.
    pub(super) fn is_full(&self) -> bool {
        self.proven >= PADDED_HELLO_LEN
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// The caller sends messages of nearly the size that every path carries.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// A HELLO of this length was answered.
    pub(super) fn note_answer(&mut self, length: usize, now: Instant) {
        if length < PADDED_HELLO_LEN {
            return;
        }
        if length >= self.proven {
            self.proven = length;
            self.confirmed = Some(now);
        }
        if self.ceiling.is_some_and(|ceiling| ceiling <= length) {
            self.ceiling = None;
        }
        self.probe.take_if(|probe| probe.length <= length);
    }

    /// The network has changed: nothing that was learned holds.
    pub(super) fn reset(&mut self) {
        *self = Self { wanted: self.wanted, ..Self::default() };
    }

    /// The system refuses a size. The one that was just asked for, or else one that was thought to pass: then it begins
    /// anew, and `true` is returned.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        match &self.probe {
            Some(probe) if probe.tries > 0 && probe.length > self.proven => {
                let length = probe.length;
                self.fail(length, now);
                false
            }
            _ => {
                self.reset();
                true
            }
        }
    }

    /// A message was not followed by anything, and a small HELLO then was answered: perhaps it was too large.
    pub(super) fn doubt(&mut self, now: Instant) {
        let lately = self.confirmed.is_some_and(|at| now < at + SIZE_CONFIRM_MIN);
        let confirming = self.probe.as_ref().is_some_and(|probe| probe.length <= self.proven);
        if self.proven > PADDED_HELLO_LEN && !lately && !confirming {
            self.probe = Some(Probe { length: self.proven, tries: 0, next: now });
        }
    }

    /// The padded HELLO that is due, if one is.
    pub(super) fn due(&mut self, to: SocketAddr, now: Instant) -> Option<usize> {
        if !self.is_full() || !self.wanted {
            return None;
        }
        loop {
            if self.probe.is_none() {
                let length = self.next_length(to, now)?;
                self.probe = Some(Probe { length, tries: 0, next: now });
            }
            let probe = self.probe.as_ref().filter(|probe| probe.next <= now)?;
            let most = if probe.length > SIZE_LARGE { SIZE_TRIES_LARGE } else { SIZE_TRIES.len() };
            if probe.tries < most {
                return Some(probe.length);
            }
            let length = probe.length;
            self.fail(length, now);
            if !self.is_full() {
                return None;
            }
        }
    }

    /// What was due has been sent.
    pub(super) fn note_sent(&mut self, now: Instant) {
        if let Some(probe) = &mut self.probe {
            probe.next = now + SIZE_TRIES.get(probe.tries).copied().unwrap_or_default();
            probe.tries += 1;
        }
    }

    /// There was no budget for it.
    pub(super) fn postpone(&mut self, until: Instant) {
        if let Some(probe) = &mut self.probe {
            probe.next = until;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.is_full() || !self.wanted {
            return None;
        }
        match (&self.probe, self.resting) {
            (Some(probe), _) => Some(probe.next),
            (None, Some(resting)) => Some(self.confirm_at().map_or(resting, |at| at.min(resting))),
            // A search is to begin.
            (None, None) => self.confirmed,
        }
    }

    /// When the proven size is asked for again; 1,200 bytes are not: whoever has no more than that needs no proof.
    fn confirm_at(&self) -> Option<Instant> {
        let every: Duration = if self.proven > SIZE_LARGE { SIZE_CONFIRM_LARGE } else { SIZE_CONFIRM };
        self.confirmed.filter(|_| self.proven > PADDED_HELLO_LEN).map(|at| at + every)
    }

    fn next_length(&mut self, to: SocketAddr, now: Instant) -> Option<usize> {
        if self.confirm_at().is_some_and(|at| at <= now) {
            return Some(self.proven);
        }
        if self.resting.is_some_and(|until| until > now) {
            return None;
        }
        if self.resting.take().is_some() {
            // Paths become better, too.
            self.ceiling = None;
        }
        let found = self.candidate(to);
        if found.is_none() {
            self.resting = Some(now + SIZE_RAISE);
        }
        found
    }

    /// The next length to try. What most links carry comes first; where that fails, the middle of what is left.
    fn candidate(&self, to: SocketAddr) -> Option<usize> {
        let headers = if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        let lengths = PATH_MTUS.map(|mtu| (mtu - headers).min(MAX_DATA + PREFIX_LEN));
        let left: Vec<usize> = lengths
            .into_iter()
            .filter(|&length| length > self.proven && self.ceiling.is_none_or(|ceiling| length < ceiling))
            .collect();
        match self.ceiling {
            Some(_) => left.get(left.len() / 2).copied(),
            None => {
                let usual = left.iter().find(|&&length| length + headers >= SIZE_LARGE);
                usual.or(left.first()).copied()
            }
        }
    }

    /// A length was asked for in vain.
    fn fail(&mut self, length: usize, now: Instant) {
        self.probe = None;
        self.ceiling = Some(length);
        if length > self.proven {
            return;
        }
        // What passed before no longer does: a black hole. What lies between is looked for at once.
        self.resting = None;
        if length > PADDED_HELLO_LEN {
            self.proven = PADDED_HELLO_LEN;
            self.probe = Some(Probe { length: PADDED_HELLO_LEN, tries: 0, next: now });
        } else {
            self.reset();
        }
    }
}
