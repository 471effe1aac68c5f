//! What a device may have relayed, and what it may still.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{base::config::RELAY_UNIT, bucket::Rate, wire::MAX_DATA};

/// What a device may have relayed in a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) messages: Option<Rate>,
    /// In units of [`RELAY_UNIT`] bytes.
    pub(super) bytes: Option<Rate>,
}

impl Rates {
    /// The rates of these limits, each a second's worth; `None` where there is no limit at all.
    pub(super) fn of(messages: Option<u32>, bytes: Option<u32>) -> Option<Self> {
        let rates =
            Self { messages: messages.map(|n| Rate::per_second(n.max(1))), bytes: bytes.map(rate_of) };
        (messages.is_some() || bytes.is_some()).then_some(rates)
    }
}

/// What a device may still have relayed, whoever of several readers counts it: buckets as [`crate::bucket::Bucket`] is.
#[derive(Debug, Default)]
pub(in crate::base) struct Budget {
    pub(super) messages_full_at: AtomicU64,
    pub(super) bytes_full_at: AtomicU64,
}

/// Takes `n` of a bucket, if there are as many.
pub(super) fn take_many(full_at: &AtomicU64, n: u32, rate: Rate, now: u64) -> bool {
    let every = rate.every.as_nanos() as u64;
    let (cost, burst) = (every * u64::from(n), every * u64::from(rate.burst));
    let taken = full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
        let full_at = full_at.max(now) + cost;
        (full_at <= now + burst).then_some(full_at)
    });
    taken.is_ok()
}

/// The rate at which a device may have `limit` bytes a second relayed.
fn rate_of(limit: u32) -> Rate {
    // A burst below the largest message would never let that one pass.
    let burst = (limit / RELAY_UNIT as u32).max((MAX_DATA / RELAY_UNIT + 1) as u32);
    let every = Duration::from_nanos(1_000_000_000 * RELAY_UNIT as u64 / u64::from(limit.max(1)));
    Rate { burst, every }
}
