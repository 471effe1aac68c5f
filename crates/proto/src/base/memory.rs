//! Bounded memory: maps whose hashes nobody outside can aim at, and two kinds of map that forget.
//!
//! All of them are deterministic for a given seed, iteration order included, so that a simulated world replays.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{BuildHasher, Hash},
    net::IpAddr,
    time::{Duration, Instant},
};

use rand::Rng;
use siphasher::sip::SipHasher13;

use super::config::LATEST_TURN;
use crate::bucket::{Bucket, Rate};

/// SipHash under keys from the machine's seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyed(u64, u64);

impl Keyed {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        Self(rng.next_u64(), rng.next_u64())
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

pub(super) type Map<K, V> = HashMap<K, V, Keyed>;
pub(super) type Set<K> = HashSet<K, Keyed>;

/// A map in which every entry lives equally long and the oldest go first when their weights exceed a limit.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    life: Duration,
    limit: usize,
    weight: usize,
    serial: u64,
    entries: Map<K, Entry<V>>,
    /// By serial, so the oldest first: all live equally long.
    order: BTreeMap<u64, (Instant, K)>,
}

#[derive(Debug)]
struct Entry<V> {
    serial: u64,
    weight: usize,
    value: V,
}

impl<K: Copy + Eq + Hash, V> Expiring<K, V> {
    pub(super) fn new(life: Duration, limit: usize, keyed: Keyed) -> Self {
        Self { life, limit, weight: 0, serial: 0, entries: Map::with_hasher(keyed), order: BTreeMap::new() }
    }

    /// Puts an entry in, in place of an older one with the same key.
    pub(super) fn insert(&mut self, key: K, value: V, weight: usize, now: Instant) {
        self.remove(&key);
        self.serial += 1;
        self.weight += weight;
        self.entries.insert(key, Entry { serial: self.serial, weight, value });
        self.order.insert(self.serial, (now + self.life, key));
        while self.weight > self.limit {
            let Some((_, (_, oldest))) = self.order.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let entry = self.entries.get(key)?;
        let (until, _) = self.order.get(&entry.serial)?;
        (*until > now).then_some(&entry.value)
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.weight -= entry.weight;
            self.order.remove(&entry.serial);
        }
    }

    /// Forgets what has had its time.
    pub(super) fn purge(&mut self, now: Instant) {
        while let Some((_, &(until, key))) = self.order.first_key_value() {
            if until > now {
                break;
            }
            self.remove(&key);
        }
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }
}

/// One rate for each of many sources. A source whose bucket is full again is forgotten sooner or later; at the limit
/// the oldest is, whatever its state.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    limit: usize,
    buckets: Map<K, Limited>,
    /// The same keys, in the order in which they are looked at next.
    ring: VecDeque<K>,
}

/// What is known of one source.
#[derive(Debug, Default)]
struct Limited {
    bucket: Bucket,
    /// When the last one that was refused may come back.
    turn: Option<Instant>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate, limit: usize, keyed: Keyed) -> Self {
        Self { rate, limit: limit.max(1), buckets: Map::with_hasher(keyed), ring: VecDeque::new() }
    }

    /// Takes one for this source, or from what others leave over, or says when to come back. Of many that are refused at once each has a
    /// turn of its own: told the same, all would come for the one that there is by then.
    pub(super) fn take(&mut self, key: K, spare: impl FnOnce() -> bool, now: Instant) -> Result<(), Instant> {
        if !self.buckets.contains_key(&key) {
            // Two looked at for each that is new: the table shrinks as fast as it may grow.
            self.sweep(2, now);
            if self.buckets.len() >= self.limit
                && let Some(oldest) = self.ring.pop_front()
            {
                self.buckets.remove(&oldest);
            }
            self.ring.push_back(key);
        }
        let Limited { bucket, turn } = self.buckets.entry(key).or_default();
        if bucket.take(self.rate, now) || spare() {
            return Ok(());
        }
        let next = bucket.next(self.rate, now);
        let latest = next.max(now + LATEST_TURN);
        let at = turn.map_or(next, |turn| next.max(turn + self.rate.every)).min(latest);
        *turn = Some(at);
        Err(at)
    }

    /// Looks at the next few and forgets those that are full again.
    pub(super) fn sweep(&mut self, count: usize, now: Instant) {
        for _ in 0..count.min(self.ring.len()) {
            let Some(key) = self.ring.pop_front() else { return };
            if self.buckets.get(&key).is_none_or(|limited| limited.bucket.is_full(now)) {
                self.buckets.remove(&key);
            } else {
                self.ring.push_back(key);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }
}

/// Whom a rate is meant for: an IPv4 address, or the IPv6 network that one customer usually gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4([u8; 4]),
    /// A /64: one link.
    V6([u8; 8]),
    /// A /48: one site.
    V6Wide([u8; 6]),
}

impl Source {
    /// The source itself, and the wider one that it is a part of (IPv6 only).
    pub(super) fn of(ip: IpAddr) -> (Self, Option<Self>) {
        match ip.to_canonical() {
            IpAddr::V4(ip) => (Self::V4(ip.octets()), None),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                (Self::V6([a, b, c, d, e, f, g, h]), Some(Self::V6Wide([a, b, c, d, e, f])))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: Keyed = Keyed(1, 2);

    #[test]
    fn the_oldest_entries_go_when_weights_exceed_the_limit_or_their_time_has_come() {
        let start = Instant::now();
        let mut map = Expiring::new(Duration::from_secs(10), 5, KEYED);
        map.insert(1, 'a', 2, start);
        map.insert(2, 'b', 2, start + Duration::from_secs(1));
        map.insert(3, 'c', 3, start + Duration::from_secs(2));
        let now = start + Duration::from_secs(3);
        assert_eq!([1, 2, 3].map(|k| map.get(&k, now).copied()), [None, Some('b'), Some('c')]);
        assert_eq!(map.weight(), 5);
        map.purge(start + Duration::from_secs(11));
        assert_eq!(map.weight(), 3);
        assert_eq!(map.get(&3, start + Duration::from_secs(11)), Some(&'c'));
        assert_eq!(map.get(&3, start + Duration::from_secs(12)), None);
    }

    #[test]
    fn sources_are_limited_each_by_itself_and_their_number_is_bounded() {
        let now = Instant::now();
        let mut buckets = Buckets::new(Rate::per_second(1), 3, KEYED);
        for source in 0..3 {
            assert_eq!(buckets.take(source, || false, now), Ok(()));
            assert_eq!(buckets.take(source, || false, now), Err(now + Duration::from_secs(1)));
        }
        assert_eq!(buckets.take(3, || false, now), Ok(()));
        assert_eq!(buckets.len(), 3);
        buckets.sweep(10, now + Duration::from_secs(1));
        assert_eq!(buckets.len(), 0);
    }
}
