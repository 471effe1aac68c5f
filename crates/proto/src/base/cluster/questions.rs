//! What is asked of the store: so many questions at one time, the rest when answers have come; and how long a store that fails is left
//! alone.
//!
//! ```text
//! answers ─a failure─▶ rests (ever longer, to a bound) ─time─▶ is tried with one question ─a failure─▶ rests
//!    ▲                                                                 └ an answer ─▶ answers
//!    └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! An entry that was read is an answer only where nothing has to be written: a store that has lost its majority may still be read.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};

use super::{Base, BusOutput, Claim};
use crate::{
    base::{
        config::{MAX_FINDS, STORE_REST_FIRST, STORE_REST_MAX},
        deadline::Key,
        memory::{Keyed, Set},
    },
    id::DeviceId,
};

/// Questions to the store.
#[derive(Debug)]
pub(super) struct Questions {
    /// Devices whose entry is being read or written.
    asked: Set<DeviceId>,
    /// Those whose turn comes when answers have come, or when the store has rested, each once; and some that nobody asks for any more.
    waiting: VecDeque<DeviceId>,
    /// Those that somebody asks for.
    queued: Set<DeviceId>,
    health: Health,
}

/// How the store has answered lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Answers,
    /// It failed so often in a row; nothing is read until its rest is over.
    Rests {
        failures: u32,
    },
    /// One question at a time, until one is answered.
    Tried {
        failures: u32,
    },
}

impl Questions {
    pub(super) fn new(keyed: Keyed) -> Self {
        let set = || Set::with_hasher(keyed);
        Self { asked: set(), waiting: VecDeque::new(), queued: set(), health: Health::Answers }
    }

    /// Another link with the store, or none: what was asked is not answered any more.
    pub(super) fn clear(&mut self) {
        self.asked.clear();
        self.waiting.clear();
        self.queued.clear();
        self.health = Health::Answers;
    }

    /// Asked beside the others, in the course of an answer.
    pub(super) fn also(&mut self, device: DeviceId) {
        self.asked.insert(device);
    }

    fn most(&self) -> usize {
        match self.health {
            Health::Answers => MAX_FINDS,
            Health::Tried { .. } => 1,
            Health::Rests { .. } => 0,
        }
    }

    fn wait(&mut self, device: DeviceId) {
        if self.queued.insert(device) {
            self.waiting.push_back(device);
        }
    }

    /// Whether this one is asked now; else it waits, or is being asked.
    fn ask(&mut self, device: DeviceId) -> bool {
        if self.asked.contains(&device) {
            return false;
        }
        let now = self.asked.len() < self.most();
        if now {
            self.asked.insert(device);
        } else {
            self.wait(device);
        }
        now
    }

    /// The next of those that wait.
    fn next(&mut self) -> Option<DeviceId> {
        if self.asked.len() >= self.most() {
            return None;
        }
        while let Some(device) = self.waiting.pop_front() {
            if self.queued.remove(&device) {
                return Some(device);
            }
        }
        None
    }

    /// Nobody asks for this one any more.
    pub(super) fn forget(&mut self, device: DeviceId) {
        if self.queued.remove(&device) && self.waiting.len() > 2 * self.queued.len() + MAX_FINDS {
            let queued = &self.queued;
            self.waiting.retain(|device| queued.contains(device));
        }
    }

    /// For how long the store is left alone after a failure; `None`: it rests already.
    fn fail(&mut self, rng: &mut impl Rng) -> Option<Duration> {
        let failures = match self.health {
            Health::Rests { .. } => return None,
            Health::Answers => 1,
            Health::Tried { failures } => failures.saturating_add(1),
        };
        self.health = Health::Rests { failures };
        let longest = STORE_REST_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(STORE_REST_MAX);
        Some(longest.mul_f64(rng.random_range(0.5..=1.0)))
    }
}

impl Base {
    /// Reads the entry of a device, or later, when others have been answered.
    pub(super) fn find(&mut self, device: DeviceId) {
        let cluster = self.cluster.as_mut().filter(|cluster| cluster.is_up());
        if cluster.is_some_and(|cluster| cluster.questions.ask(device)) {
            self.bus(BusOutput::Find(device));
        }
    }

    fn ask_more(&mut self) {
        while let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up())
            && let Some(device) = cluster.questions.next()
        {
            self.find(device);
        }
    }

    /// The store has answered: whether there was an entry, or that it is written, or has another revision by now.
    pub(super) fn answered(&mut self, device: DeviceId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.questions.asked.remove(&device);
        }
    }

    /// What followed from an answer is said: others may be asked now.
    pub(super) fn after_answer(&mut self, device: DeviceId) {
        let writes = self.devices.get(&device).is_some_and(|d| matches!(d.claim, Claim::Storing { .. }));
        let Some(cluster) = &mut self.cluster else { return };
        if matches!(cluster.questions.health, Health::Tried { .. }) && !writes {
            cluster.questions.health = Health::Answers;
            tracing::info!("the cluster's store answers again");
        }
        self.ask_more();
    }

    /// The store did not answer: this is asked again after the others, and none before it has rested.
    pub(super) fn find_later(&mut self, device: DeviceId, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.questions.asked.remove(&device);
        cluster.questions.wait(device);
        let first = cluster.questions.health == Health::Answers;
        if let Some(rest) = cluster.questions.fail(&mut self.rng) {
            self.deadlines.forget(Key::StoreRest);
            self.deadlines.by(Key::StoreRest, now + rest);
            if first {
                tracing::warn!(
                    "the cluster's store does not answer: it is asked ever more rarely until it does"
                );
            }
        }
        self.counters.store_failures += 1;
    }

    /// The store has rested.
    pub(in crate::base) fn store_rested(&mut self) {
        if let Some(cluster) = &mut self.cluster
            && let Health::Rests { failures } = cluster.questions.health
        {
            cluster.questions.health = Health::Tried { failures };
        }
        self.ask_more();
    }
}
