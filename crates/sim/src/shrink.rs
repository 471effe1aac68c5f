//! A failing plan made small: what it does not need to fail is left out.
//!
//! Each attempt runs the smaller plan; what still fails is kept. Faults go first, one by one and then in the hope that two
//! of them hid each other, again and again until none can go; then pairs; then bases, and what makes
//! their cluster special; then links become perfect; then faults become short.

use std::time::Duration;

use crate::{bus::Weather, link::Profile, plan::Plan};

/// Runs at most: a failure that takes long to be made small is shown less small.
const MAX_RUNS: u32 = 300;
/// A fault is not made shorter than this.
const SHORTEST: Duration = Duration::from_millis(100);

struct Shrinking {
    plan: Plan,
    runs: u32,
}

impl Plan {
    /// The plan without what it does not need to fail. A plan that holds comes back as it is.
    #[must_use]
    pub fn shrunk(&self) -> Self {
        let mut shrinking = Shrinking { plan: self.clone(), runs: 0 };
        if !self.run().held() {
            shrinking.shrink();
        }
        shrinking.plan
    }
}

impl Shrinking {
    fn shrink(&mut self) {
        while self.fewer_faults() {}
        self.fewer_pairs();
        self.fewer_bases();
        self.plainer_cluster();
        self.perfect_links();
        self.shorter_faults();
    }

    /// Keeps a smaller plan if it still fails.
    fn try_with(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut smaller = self.plan.clone();
        change(&mut smaller);
        if self.runs == MAX_RUNS || smaller == self.plan {
            return false;
        }
        self.runs += 1;
        let fails = !smaller.run().held();
        if fails {
            self.plan = smaller;
        }
        fails
    }

    fn fewer_faults(&mut self) -> bool {
        let before = self.plan.faults.len();
        for half in [0..before / 2, before / 2..before] {
            self.try_with(|plan| drop(plan.faults.drain(half.start..half.end.min(plan.faults.len()))));
        }
        let mut i = 0;
        while i < self.plan.faults.len() {
            let fault = self.plan.faults[i].clone();
            if !self.try_with(|plan| plan.faults.retain(|other| *other != fault)) {
                i += 1;
            }
        }
        self.plan.faults.len() < before
    }

    fn fewer_pairs(&mut self) {
        let mut i = 0;
        while i < self.plan.pairs.len() && self.plan.pairs.len() > 1 {
            let pair = self.plan.pairs[i];
            if !self.try_with(|plan| plan.pairs.retain(|&other| other != pair)) {
                i += 1;
            }
        }
    }

    fn fewer_bases(&mut self) {
        let mut i = 0;
        while i < self.plan.bases.len() && self.plan.bases.len() > 1 {
            let without = self.plan.without_base(i);
            if !without.is_some_and(|without| self.try_with(|plan| *plan = without)) {
                i += 1;
            }
        }
    }

    fn plainer_cluster(&mut self) {
        self.try_with(|plan| plan.cluster = None);
        let changes: [fn(&mut Weather); 3] = [
            |weather| *weather = Weather::default(),
            |weather| weather.lost = 0,
            |weather| weather.doubled = 0,
        ];
        for change in changes {
            self.try_with(|plan| plan.cluster.iter_mut().for_each(|cluster| change(&mut cluster.weather)));
        }
        self.try_with(|plan| plan.cluster.iter_mut().for_each(|cluster| cluster.over_udp = false));
    }

    fn perfect_links(&mut self) {
        for i in 0..self.plan.places.len() {
            self.try_with(|plan| plan.places[i].1 = Profile::perfect(plan.places[i].1.latency));
        }
    }

    fn shorter_faults(&mut self) {
        for i in 0..self.plan.faults.len() {
            while self.plan.faults[i].lasts > SHORTEST && self.try_with(|plan| plan.faults[i].lasts /= 2) {}
        }
    }
}
