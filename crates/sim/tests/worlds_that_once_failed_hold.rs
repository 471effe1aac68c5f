//! Seeds of random worlds that found a fault once: what was found stays found. `docs/testing.md` says how to hunt for more.

use std::time::Duration;

use bowline_sim::scenario::Plan;

/// Each with what it found.
const SEEDS: [(u64, &str); 4] = [
    (66, "a session that nobody answers stayed registered"),
    (1007, "a host with both families learned its reflexive address in one of them only"),
    (1040, "the same"),
    (5133, "a host took its own newer session for another process; probes were not paid for"),
];

#[test]
fn every_one_of_them() {
    for (seed, found) in SEEDS {
        let world = Plan::new(seed).run().world;
        let Some(first) = world.violations.first() else { continue };
        let since = first.at.saturating_sub(Duration::from_secs(2));
        panic!("seed {seed} ({found}): {}\n{}", first.what, world.trace.diagram(since, first.at));
    }
}
