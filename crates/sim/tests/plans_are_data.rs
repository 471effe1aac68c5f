//! A plan is data: from a seed, from bytes or from a file, the same plan gives the same run.

use std::time::Duration;

use bowline_sim::{plan::Plan, world::World};

/// A run as its diagram, to the end.
fn diagram(plan: &Plan) -> String {
    plan.run().world.trace.diagram(Duration::ZERO, Duration::MAX)
}

#[test]
fn a_plan_runs_the_same_from_its_seed_and_from_its_file() {
    let plan = Plan::new(3);
    let again: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(plan, again);
    let first = diagram(&plan);
    assert!(!first.is_empty() && first == diagram(&again));
}

#[test]
fn other_bytes_choose_another_plan_and_the_same_bytes_the_same() {
    let bytes = [[7; 8].as_slice(), &[1; 200]].concat();
    let plan = Plan::from_bytes(&bytes);
    assert_eq!(plan, Plan::from_bytes(&bytes));
    let changes = |at: &usize| {
        let mut other = bytes.clone();
        other[*at] ^= 0xff;
        plan != Plan::from_bytes(&other)
    };
    // The lower bytes of a number that only few choices are made with change nothing.
    let count = (8..60).filter(changes).count();
    assert!(count > 5, "{count} of 52 bytes matter");
    assert_eq!(Plan::from_bytes(&[]), Plan::from_bytes(&[0; 8]), "what is missing follows from the seed");
}

#[test]
fn what_is_logged_as_an_error_fails_the_world() {
    let mut world = World::new(1);
    let net = world.data_centre("centre", Duration::from_millis(1));
    world.base("base", net);
    world.run_for(Duration::from_secs(20));
    world.assert_held();
    tracing::error!("something that must not happen");
    world.run_for(Duration::from_secs(20));
    assert!(world.violations.iter().any(|violation| violation.what.contains("something that must not")));
}

#[test]
fn a_plan_that_holds_is_not_made_smaller() {
    let plan = Plan::new(3);
    assert!(plan.run().held());
    assert_eq!(plan.shrunk(), plan);
}
