//! Whole worlds: the bytes choose nets, NATs, hosts, bases, who talks, and what goes wrong when.
//!
//! What must hold is the world's own: see `bowline_sim::checks` and `bowline_sim::scenario`.

use std::time::Duration;

use bowline_sim::plan::Plan;

/// How much of the packet diagram before a violation is shown.
const BEFORE: Duration = Duration::from_secs(5);

/// A world that the bytes choose, to its end.
pub fn worlds(bytes: &[u8]) {
    let plan = Plan::from_bytes(bytes);
    let world = plan.run().world;
    if let Some(first) = world.violations.first() {
        let diagram = world.trace.diagram(first.at.saturating_sub(BEFORE), first.at);
        panic!("{}{diagram}{first:#?}", plan.describe());
    }
}
