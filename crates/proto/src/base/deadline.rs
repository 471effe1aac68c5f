//! When the machine has to wake, for what.
//!
//! One entry a thing, at most. An entry may be early: whatever is woken looks at its own state and, where its time
//! has moved on, asks to be woken again. So activity that only prolongs a life touches nothing here.

use std::{collections::BTreeSet, time::Instant};

use super::{
    ConnId,
    memory::{Keyed, Map},
};
use crate::id::DeviceId;

/// What a deadline belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// The end of draining.
    Drain,
    /// Tables that forget.
    Memory,
    /// A connection that has not registered.
    Conn(ConnId),
    /// A device: see `registry::Device::next_deadline`.
    Device(DeviceId),
    /// What one device is to be told about another when changes have been collected.
    Pair {
        /// Who is told.
        to: DeviceId,
        /// About whom.
        about: DeviceId,
    },
    /// The cluster's clock.
    Cluster,
    /// The cluster's store has failed, and may be asked again.
    StoreRest,
    /// A device elsewhere has moved some time ago.
    Remote(DeviceId),
    /// A session whose device has registered elsewhere.
    Linger(DeviceId),
}

#[derive(Debug)]
pub(super) struct Deadlines {
    order: BTreeSet<(Instant, Key)>,
    at: Map<Key, Instant>,
}

impl Deadlines {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self { order: BTreeSet::new(), at: Map::with_hasher(keyed) }
    }

    /// Wakes `key` at this moment at the latest.
    pub(super) fn by(&mut self, key: Key, at: Instant) {
        if let Some(&earlier) = self.at.get(&key) {
            if earlier <= at {
                return;
            }
            self.order.remove(&(earlier, key));
        }
        self.at.insert(key, at);
        self.order.insert((at, key));
    }

    pub(super) fn forget(&mut self, key: Key) {
        if let Some(at) = self.at.remove(&key) {
            self.order.remove(&(at, key));
        }
    }

    /// The next thing whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Key> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.forget(key);
        Some(key)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|&(at, _)| at)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_thing_wakes_once_at_its_earliest_moment() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut deadlines = Deadlines::new(Keyed::new(&mut rand_chacha::ChaCha12Rng::from_seed([0; 32])));
        for s in [5, 3, 9] {
            deadlines.by(Key::Conn(ConnId(1)), at(s));
        }
        deadlines.by(Key::Drain, at(4));
        assert_eq!(deadlines.len(), 2);
        assert_eq!(deadlines.next(), Some(at(3)));
        assert_eq!(deadlines.pop(at(2)), None);
        assert_eq!(deadlines.pop(at(4)), Some(Key::Conn(ConnId(1))));
        assert_eq!(deadlines.pop(at(4)), Some(Key::Drain));
        assert_eq!(deadlines.pop(at(99)), None);
    }
}
