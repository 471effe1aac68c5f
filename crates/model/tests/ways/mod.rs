//! Ways through a model, for the real machines to be led along: all short ones, and long random ones.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use stateright::Model;

/// Every step out of the first so many states in breadth-first order, each as the actions that lead to it.
pub(crate) fn every_step<M: Model<State: Hash, Action: Clone>>(
    model: &M,
    states: usize,
) -> Vec<Vec<M::Action>> {
    let mut known = HashSet::new();
    let mut open: VecDeque<(M::State, Vec<M::Action>)> =
        model.init_states().into_iter().map(|state| (state, Vec::new())).collect();
    let mut ways = Vec::new();
    while let Some((state, way)) = open.pop_front() {
        for action in actions(model, &state) {
            let longer: Vec<_> = way.iter().cloned().chain([action.clone()]).collect();
            if let Some(next) = model.next_state(&state, action)
                && known.len() < states
                && known.insert(fingerprint(&next))
            {
                open.push_back((next, longer.clone()));
            }
            ways.push(longer);
        }
    }
    ways
}

/// A random way of so many steps, those included that change nothing in the model.
pub(crate) fn random<M: Model<Action: Clone>>(model: &M, seed: u64, steps: usize) -> Vec<M::Action> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut state = model.init_states().remove(0);
    let mut way = Vec::new();
    for _ in 0..steps {
        let possible = actions(model, &state);
        if possible.is_empty() {
            break;
        }
        let action = possible[rng.random_range(0..possible.len())].clone();
        if let Some(next) = model.next_state(&state, action.clone()) {
            state = next;
        }
        way.push(action);
    }
    way
}

fn actions<M: Model>(model: &M, state: &M::State) -> Vec<M::Action> {
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The value of a constant in the table of `docs/protocol.md`, which is compared with the source elsewhere.
pub(crate) fn documented(name: &str) -> &'static str {
    let page = include_str!("../../../../docs/protocol.md");
    let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    row.and_then(|row| row.split('|').nth(2)).map(str::trim).expect("the constant is in the table")
}

/// The same of a duration in seconds.
pub(crate) fn seconds(name: &str) -> u64 {
    let value = documented(name);
    value.strip_suffix(" s").and_then(|n| n.parse().ok()).expect("so many seconds")
}
