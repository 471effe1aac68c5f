//! Every state of the model of HELLO and HELLO-REPLY that its scenarios reach, and that each of its rules is needed.

use bowline_model::{
    explore, find,
    handshake::{Scenario, Weakening},
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
