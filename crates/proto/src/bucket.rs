//! A token bucket: how every rate of the protocol is bounded.
//!
//! It holds no clock: each call brings the time. Credit never exceeds the burst, so a long quiet time earns no more
//! than that.

use std::time::{Duration, Instant};

/// A rate with its burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once after a quiet time.
    pub burst: u32,
    /// The time in which one is earned back.
    pub every: Duration,
}

impl Rate {
    /// `n` a second, and as many at once.
    #[must_use]
    pub const fn per_second(n: u32) -> Self {
        Self { burst: n, every: Duration::from_nanos(1_000_000_000 / n as u64) }
    }
}

/// The state of one bounded rate: the moment at which the bucket would be full again (the virtual scheduling
/// form of a token bucket, one word of state).
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one, if there is one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.take_many(1, rate, now)
    }

    /// Takes `n`, if there are as many.
    pub fn take_many(&mut self, n: u32, rate: Rate, now: Instant) -> bool {
        let full_at = self.after(n, rate, now);
        if full_at > now + rate.every * rate.burst {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }

    /// Takes one whether there is one or not: what cannot wait is paid for by what can. The debt is at most one burst.
    pub fn charge(&mut self, rate: Rate, now: Instant) {
        let full = rate.every * rate.burst;
        let full_at = self.full_at.map_or(now, |t| t.max(now)) + rate.every;
        self.full_at = Some(full_at.min(now + full * 2));
    }

    /// Takes `n` that may have yet to be earned, and tells when they will have been. How many wait is for the caller to bound.
    pub fn reserve(&mut self, n: u32, rate: Rate, now: Instant) -> Instant {
        let full_at = self.after(n, rate, now);
        self.full_at = Some(full_at);
        full_at.checked_sub(rate.every * rate.burst).map_or(now, |earned| earned.max(now))
    }

    /// Gives one back that was taken and not used up.
    pub fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.and_then(|t| t.checked_sub(rate.every));
    }

    /// When the bucket would be full again if `n` were taken.
    fn after(&self, n: u32, rate: Rate, now: Instant) -> Instant {
        self.full_at.map_or(now, |t| t.max(now)) + rate.every * n
    }

    /// When the next one can be taken.
    #[must_use]
    pub fn next(&self, rate: Rate, now: Instant) -> Instant {
        self.next_many(1, rate, now)
    }

    /// When the next `n` can be taken.
    #[must_use]
    pub fn next_many(&self, n: u32, rate: Rate, now: Instant) -> Instant {
        match self.full_at {
            Some(full_at) if full_at + rate.every * n > now + rate.every * rate.burst => {
                full_at + rate.every * n - rate.every * rate.burst
            }
            _ => now,
        }
    }

    /// Whether the bucket is full again: it can be forgotten without anyone gaining by it.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|t| t <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_no_more_after_a_long_rest() {
        let rate = Rate { burst: 8, every: Duration::from_secs(1) };
        let start = Instant::now();
        let mut bucket = Bucket::default();
        for rest in [0, 3600] {
            let now = start + Duration::from_secs(rest);
            assert!((0..8).all(|_| bucket.take(rate, now)));
            assert!(!bucket.take(rate, now));
            assert_eq!(bucket.next(rate, now), now + rate.every);
            assert!(bucket.take(rate, now + rate.every));
            assert!(!bucket.take(rate, now + rate.every));
        }
    }
}
