//! Every state of the model of NAT-INIT, NAT-OK and NAT-CONFIRM that its scenarios reach, and that each of its rules is needed.

use bowline_model::{
    explore, find,
    nat::{Attacker, Scenario, Weakening},
};

#[test]
fn every_property_holds_in_every_state_and_what_must_be_possible_is() {
    for (name, scenario) in Scenario::all() {
        println!("{name}: {:?}", explore(scenario));
    }
}

#[test]
fn without_a_rule_the_property_that_it_is_for_fails() {
    for rule in Weakening::ALL {
        let way = find(rule.shown(), rule.breaks());
        assert!(way.is_some(), "{rule:?} is not needed for: {}", rule.breaks());
    }
}

#[test]
fn what_has_arrived_and_is_sent_again_leads_to_no_other_state() {
    let alone = Scenario { moves: 2, ..Scenario::quiet() };
    let replayed = Scenario { attacker: Attacker::Replayer, ..alone.clone() };
    assert_eq!(explore(replayed).states, explore(alone).states);
}
