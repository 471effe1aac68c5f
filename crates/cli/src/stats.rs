//! The figures of a ping: what was sent, what came back, how long it took. Pure; time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Requests that are still waited for. Beyond, the oldest is given up: with the shortest interval this is still
/// longer than any round trip.
const MAX_PENDING: usize = 10_000;

/// Everything counted so far.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pending: BTreeMap<u32, Instant>,
    pub(crate) sent: u32,
    pub(crate) received: u32,
    pub(crate) repeated: u32,
    sum: f64,
    sum_of_squares: f64,
    least: Option<Duration>,
    most: Duration,
}

/// The usual four.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RoundTrips {
    pub(crate) min: Duration,
    pub(crate) avg: Duration,
    pub(crate) max: Duration,
    /// Standard deviation, which ping has always called by this name.
    pub(crate) mdev: Duration,
}

impl Stats {
    /// The number of the next request; the first is 1.
    pub(crate) const fn next_number(&self) -> u32 {
        self.sent.wrapping_add(1)
    }

    /// The next request left.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.sent = self.next_number();
        self.pending.insert(self.sent, now);
        if self.pending.len() > MAX_PENDING {
            self.pending.pop_first();
        }
    }

    /// An answer came: its round trip, unless it came before.
    pub(crate) fn received(&mut self, number: u32, now: Instant) -> Option<Duration> {
        let Some(sent) = self.pending.remove(&number) else {
            self.repeated += 1;
            return None;
        };
        let rtt = now.saturating_duration_since(sent);
        self.received += 1;
        self.sum += rtt.as_secs_f64();
        self.sum_of_squares += rtt.as_secs_f64().powi(2);
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        self.most = self.most.max(rtt);
        Some(rtt)
    }

    /// Whether every request was answered.
    pub(crate) const fn all_answered(&self) -> bool {
        self.sent == self.received
    }

    /// Whole percents of requests without an answer.
    pub(crate) fn loss_percent(&self) -> u32 {
        let lost = u64::from(self.sent - self.received);
        u32::try_from(lost * 100 / u64::from(self.sent.max(1))).unwrap_or(100)
    }

    /// Nothing before the first answer.
    pub(crate) fn round_trips(&self) -> Option<RoundTrips> {
        let count = f64::from(self.received);
        let average = self.sum / count;
        // Rounding may bring the variance of equal round trips a hair below zero.
        let variance = (self.sum_of_squares / count - average.powi(2)).max(0.0);
        Some(RoundTrips {
            min: self.least?,
            avg: Duration::from_secs_f64(average),
            max: self.most,
            mdev: Duration::from_secs_f64(variance.sqrt()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_summary_is_that_of_the_answers() {
        let (mut stats, start) = (Stats::default(), Instant::now());
        for _ in 0..4 {
            stats.sent(start);
        }
        for (number, rtt) in [(1, 2 * MS), (3, 4 * MS), (2, 9 * MS)] {
            assert_eq!(stats.received(number, start + rtt), Some(rtt));
        }
        let round_trips = stats.round_trips().unwrap();
        assert_eq!((round_trips.min, round_trips.avg, round_trips.max), (2 * MS, 5 * MS, 9 * MS));
        assert_eq!(round_trips.mdev.as_micros(), 2943); // the square root of 26/3 ms²
        assert_eq!((stats.sent, stats.received, stats.loss_percent()), (4, 3, 25));
        assert!(!stats.all_answered());
    }

    #[test]
    fn an_answer_counts_once_and_only_if_it_was_asked_for() {
        let (mut stats, now) = (Stats::default(), Instant::now());
        stats.sent(now);
        assert!(stats.received(1, now).is_some());
        assert!(stats.received(1, now).is_none());
        assert!(stats.received(7, now).is_none());
        assert_eq!((stats.received, stats.repeated), (1, 2));
        assert!(stats.all_answered());
    }

    #[test]
    fn no_answer_has_no_round_trip() {
        let mut stats = Stats::default();
        assert_eq!((stats.round_trips(), stats.loss_percent()), (None, 0));
        stats.sent(Instant::now());
        assert_eq!((stats.round_trips(), stats.loss_percent()), (None, 100));
    }

    #[test]
    fn what_is_waited_for_is_bounded_and_the_oldest_goes() {
        let (mut stats, now) = (Stats::default(), Instant::now());
        for _ in 0..=MAX_PENDING {
            stats.sent(now);
        }
        assert_eq!(stats.pending.len(), MAX_PENDING);
        assert!(stats.received(1, now).is_none());
        assert!(stats.received(2, now).is_some());
    }
}
