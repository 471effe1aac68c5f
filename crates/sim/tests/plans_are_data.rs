//! A plan is data: from a seed, from bytes or from a file, the same plan gives the same run.

use std::time::Duration;

use bowline_sim::{
    faults::{Fault, Planned},
    packet::NodeId,
    plan::Plan,
    world::World,
};

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
fn a_quarter_of_all_plans_has_a_cluster_and_each_returns_from_its_file() {
    let plans: Vec<Plan> = (0..200).map(Plan::new).filter(|plan| plan.cluster.is_some()).collect();
    assert!((30..70).contains(&plans.len()), "{} of 200", plans.len());
    for plan in &plans {
        assert!((2..=4).contains(&plan.bases.len()));
        let again: Plan = serde_json::from_str(&serde_json::to_string(plan).unwrap()).unwrap();
        assert_eq!(*plan, again);
    }
    let faults = || plans.iter().flat_map(|plan| &plan.faults).map(|planned| &planned.fault);
    assert!(faults().any(|fault| matches!(fault, Fault::CutBus(_))));
    assert!(faults().any(|fault| matches!(fault, Fault::StopBus { emptied: true })));
    assert!(faults().any(|fault| *fault == Fault::NoLeader));
    assert!(plans.iter().any(|plan| plan.hosts.iter().any(|host| !host.bases.is_empty())));
}

#[test]
fn without_a_base_all_that_is_left_is_meant_as_before() {
    let mut plan = (0..).map(Plan::new).find(|plan| plan.bases.len() == 3).unwrap();
    for host in &mut plan.hosts {
        host.bases = vec![0, 2];
    }
    let faults = |plan: &Plan, second_base: usize| {
        vec![
            Fault::Cut(plan.nets()[0]),
            Fault::CutBus(NodeId(second_base)),
            Fault::FreezeHost(plan.host(1)),
            Fault::Partition(NodeId(second_base), plan.host(0)),
            Fault::BlockUdp(plan.net_of_base(NodeId(second_base))),
        ]
    };
    let planned = |fault| Planned { at: Duration::ZERO, lasts: Duration::from_secs(1), fault };
    plan.faults = faults(&plan, 1).into_iter().map(planned).collect();
    plan.faults.insert(0, planned(Fault::BaseCrash { base: NodeId(0), silently: false }));
    let without = plan.without_base(0).unwrap();
    assert_eq!(without.bases, plan.bases[1..]);
    assert!(without.hosts.iter().all(|host| host.bases == [1]));
    let left: Vec<Fault> = without.faults.iter().map(|planned| planned.fault.clone()).collect();
    assert_eq!(left, faults(&without, 0));
    assert_eq!(without.without_base(1), None, "it is the only one that hosts know");
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
