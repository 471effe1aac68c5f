//! What a device may have relayed, and what it may still.
//!
//! A [`Budget`] is two buckets, as [`crate::bucket::Bucket`] is one, for whoever of several readers counts. Where somebody follows the routes
//! ([`super::Follower`]), they are in memory that he has given, and count what he forwards, too.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{Routes, follower::SharedBudget};
use crate::{
    base::{Base, config::RELAY_UNIT},
    bucket::Rate,
    wire::MAX_DATA,
};

/// What a device may have relayed in a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    messages: Option<Rate>,
    /// In units of [`RELAY_UNIT`] bytes.
    units: Option<Rate>,
}

impl Rates {
    /// The rates of these limits, each a second's worth; `None` where there is no limit at all.
    pub(super) fn of(messages: Option<u32>, bytes: Option<u32>) -> Option<Self> {
        let rates =
            Self { messages: messages.map(|n| Rate::per_second(n.max(1))), units: bytes.map(rate_of) };
        (messages.is_some() || bytes.is_some()).then_some(rates)
    }
}

/// The rate at which a device may have `limit` bytes a second relayed.
fn rate_of(limit: u32) -> Rate {
    // A burst below the largest message would never let that one pass.
    let burst = (limit / RELAY_UNIT as u32).max((MAX_DATA / RELAY_UNIT + 1) as u32);
    let every = Duration::from_nanos(1_000_000_000 * RELAY_UNIT as u64 / u64::from(limit.max(1)));
    Rate { burst, every }
}

/// What every device may have relayed, for who follows the routes and counts as the base does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The moments in a [`SharedBudget`] are nanoseconds since this one.
    pub start: Instant,
    /// Of messages, merged ones each by itself.
    pub messages: Option<Rate>,
    /// Of units of data: each message has one more than it fills.
    pub units: Option<Rate>,
    /// So many bytes are one.
    pub unit: usize,
}

impl Base {
    /// What every device may have relayed; `None`: as much as it wants.
    #[must_use]
    pub fn relay_limits(&self) -> Option<Limits> {
        let Routes { start, rates, .. } = *self.routes;
        rates.map(|Rates { messages, units }| Limits { start, messages, units, unit: RELAY_UNIT })
    }
}

/// What a device may still have relayed: when all its messages, and all its units, would be there again.
#[derive(Debug)]
pub(in crate::base) enum Budget {
    Own([AtomicU64; 2]),
    Shared(Box<dyn SharedBudget>),
}

impl Budget {
    /// Takes a message with so much data, if all of it is there.
    pub(super) fn take(&self, rates: Rates, length: usize, now: u64) -> bool {
        let [messages, units] = match self {
            Self::Own(full_at) => full_at,
            Self::Shared(shared) => shared.full_at(),
        };
        let within =
            |full_at, n, rate: Option<Rate>| rate.is_none_or(|rate| take_many(full_at, n, rate, now));
        if !within(messages, 1, rates.messages) {
            return false;
        }
        let fits = within(units, (length / RELAY_UNIT + 1) as u32, rates.units);
        if !fits && let Some(rate) = rates.messages {
            messages.fetch_sub(rate.every.as_nanos() as u64, Ordering::Relaxed);
        }
        fits
    }

    /// What the follower knows it by, if he counts in it.
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            Self::Own(_) => None,
            Self::Shared(shared) => Some(shared.number()),
        }
    }
}

/// Takes `n` of a bucket, if there are as many.
fn take_many(full_at: &AtomicU64, n: u32, rate: Rate, now: u64) -> bool {
    let every = rate.every.as_nanos() as u64;
    let (cost, burst) = (every * u64::from(n), every * u64::from(rate.burst));
    let taken = full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
        let full_at = full_at.max(now) + cost;
        (full_at <= now + burst).then_some(full_at)
    });
    taken.is_ok()
}

impl Routes {
    /// A full budget for a session.
    pub(in crate::base) fn new_budget(&self) -> Budget {
        let own = || Budget::Own(Default::default());
        match self.follower() {
            Some(follower) if self.has_rates() => follower.budget().map_or_else(own, Budget::Shared),
            _ => own(),
        }
    }

    /// Whether what devices may have relayed is limited.
    pub(in crate::base) fn has_rates(&self) -> bool {
        self.rates.is_some()
    }

    /// Whether a device may have one more message relayed, of so many bytes. It costs at least one unit of them.
    pub(in crate::base) fn within_rate(&self, budget: &Budget, length: usize, now: Instant) -> bool {
        self.rates.is_none_or(|rates| budget.take(rates, length, self.nanos(now)))
    }
}
