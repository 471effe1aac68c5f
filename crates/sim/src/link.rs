//! A link in one direction: latency, jitter, loss, duplication, reordering, corruption, MTU, rate.
//!
//! A link decides when a packet arrives at its other end, how often, and whether unharmed. It knows nothing of
//! addresses and holds no packets: the world's event queue does.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::packet::Time;

/// The properties of a link. Probabilities are of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The least time from end to end.
    pub latency: Duration,
    /// Up to this much is added, evenly.
    pub jitter: Duration,
    /// How likely a packet is lost.
    pub loss: f64,
    /// How likely it arrives twice.
    pub duplicate: f64,
    /// How likely it is overtaken: held back for up to three times latency and jitter.
    pub reorder: f64,
    /// How likely a bit flips. What is not a control message is then caught by a checksum and lost.
    pub corrupt: f64,
    /// The largest packet, IP header included; larger ones vanish without a word.
    pub mtu: usize,
    /// Bytes a second; `None` for as many as come.
    pub rate: Option<u64>,
    /// The longest queue in front of it, in time; what would wait longer is dropped.
    pub queue: Duration,
}

impl Profile {
    /// A link that does nothing but take this long.
    #[must_use]
    pub const fn perfect(latency: Duration) -> Self {
        Self {
            latency,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            mtu: 1500,
            rate: None,
            queue: Duration::from_millis(100),
        }
    }
}

/// Why a packet does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// By chance.
    Chance,
    /// It is larger than the MTU.
    Mtu,
    /// The queue is full.
    Queue,
}

/// One arrival at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Time,
    /// Whether a bit flipped on the way.
    pub corrupted: bool,
}

/// A link and what is under way on it.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its properties; may be changed at any time.
    pub profile: Profile,
    free_at: Time,
    last_arrival: Time,
}

impl Link {
    /// An idle link.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self { profile, free_at: Time::ZERO, last_arrival: Time::ZERO }
    }

    /// Puts a packet of `length` bytes on the link: its arrivals, one or two.
    ///
    /// # Errors
    /// When it is lost: why.
    pub fn transit(
        &mut self,
        length: usize,
        now: Time,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Arrival, Option<Arrival>), Loss> {
        let p = self.profile;
        if length > p.mtu {
            return Err(Loss::Mtu);
        }
        if p.loss > 0.0 && rng.random_bool(p.loss) {
            return Err(Loss::Chance);
        }
        let mut start = now;
        if let Some(rate) = p.rate {
            start = self.free_at.max(now);
            if start - now > p.queue {
                return Err(Loss::Queue);
            }
            start += Duration::from_nanos(length as u64 * 1_000_000_000 / rate.max(1));
            self.free_at = start;
        }
        let first = self.arrival(start, rng);
        let second = chance(p.duplicate, rng).then(|| self.arrival(start, rng));
        Ok((first, second))
    }

    fn arrival(&mut self, start: Time, rng: &mut ChaCha8Rng) -> Arrival {
        let p = self.profile;
        let mut at = start + p.latency + up_to(p.jitter, rng);
        if chance(p.reorder, rng) {
            at += up_to((p.latency + p.jitter) * 3, rng);
        } else {
            // Jitter is a queue somewhere: it delays those behind, it does not let them overtake.
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        Arrival { at, corrupted: chance(p.corrupt, rng) }
    }
}

fn chance(probability: f64, rng: &mut ChaCha8Rng) -> bool {
    probability > 0.0 && rng.random_bool(probability)
}

/// A random time up to a limit, in whole microseconds: diagrams stay readable.
fn up_to(limit: Duration, rng: &mut ChaCha8Rng) -> Duration {
    match limit.as_micros() as u64 {
        0 => Duration::ZERO,
        micros => Duration::from_micros(rng.random_range(0..=micros)),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn jitter_delays_but_never_reorders_unless_asked() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (reorder, ordered) in [(0.0, true), (0.3, false)] {
            let mut link = Link::new(Profile { jitter: 30 * MS, reorder, ..Profile::perfect(10 * MS) });
            let arrivals: Vec<Time> =
                (0..200).map(|i| link.transit(100, i * MS, &mut rng).unwrap().0.at).collect();
            assert_eq!(arrivals.is_sorted(), ordered);
        }
    }

    #[test]
    fn loss_and_duplication_happen_as_often_as_stated() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut link = Link::new(Profile { loss: 0.2, duplicate: 0.1, ..Profile::perfect(MS) });
        let fates: Vec<_> = (0..10_000).map(|_| link.transit(100, MS, &mut rng)).collect();
        let lost = fates.iter().filter(|f| f.is_err()).count();
        let twice = fates.iter().filter(|f| matches!(f, Ok((_, Some(_))))).count();
        assert!((1800..2200).contains(&lost) && (650..950).contains(&twice), "{lost} lost, {twice} twice");
    }

    #[test]
    fn a_rate_spaces_packets_and_its_queue_is_bounded() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut link = Link::new(Profile { rate: Some(100_000), ..Profile::perfect(MS) });
        let fates: Vec<_> = (0..20).map(|_| link.transit(1000, Time::ZERO, &mut rng)).collect();
        assert_eq!(fates[0].unwrap().0.at, 11 * MS);
        assert_eq!(fates[1].unwrap().0.at, 21 * MS);
        // 100 ms of queue at 10 ms a packet.
        assert_eq!(fates.iter().filter(|f| **f == Err(Loss::Queue)).count(), 9);
    }

    #[test]
    fn what_exceeds_the_mtu_vanishes() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut link = Link::new(Profile { mtu: 1280, ..Profile::perfect(MS) });
        assert!(link.transit(1280, Time::ZERO, &mut rng).is_ok());
        assert_eq!(link.transit(1281, Time::ZERO, &mut rng), Err(Loss::Mtu));
    }
}
