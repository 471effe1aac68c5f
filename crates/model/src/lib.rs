//! Models of the three handshakes that others can disturb, with an attacker among the moves, searched to the end.
//!
//! Each model is one file: the honest parties and their messages, what an attacker may do, what must always hold, and
//! what must be possible (or the model would say nothing). The rules are written down anew, from `docs/protocol.md`,
//! with numbers small enough for every state to be visited; `tests/` compare them step by step with the real machines.
//! A *weakening* leaves one rule out: a test shows that each then breaks the property that it is there for.
//!
//! - [`handshake`]: HELLO and HELLO-REPLY between hosts (section 6).
//! - [`nat`]: NAT-INIT, NAT-OK and NAT-CONFIRM (section 5).
//! - [`registration`]: REGISTER, replacement, cookies (section 4).
//!
//! Not here: timers and budgets (time is a tick that lets things lapse, in the order in which they really do), sizes,
//! bytes, cryptography (a signature is the name of who made it). What is explored is bounded, and each scenario says how.

pub mod handshake;
pub mod nat;
pub mod registration;

use std::{
    collections::BTreeSet,
    fmt::Debug,
    hash::Hash,
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

/// How much a search went through.
#[derive(Debug, Clone, Copy)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps between them that were looked at.
    pub steps: usize,
    /// The longest way to a state by which it was found.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
}

/// A model whose states can be searched.
pub trait Searchable:
    Model<
        State: Clone + Debug + Hash + PartialEq + Send + Sync,
        Action: Clone + Debug + PartialEq + Send + Sync,
    > + Send
    + Sync
    + 'static
{
}

impl<M> Searchable for M where
    M: Model<
            State: Clone + Debug + Hash + PartialEq + Send + Sync,
            Action: Clone + Debug + PartialEq + Send + Sync,
        > + Send
        + Sync
        + 'static
{
}

/// Visits every state. What must always hold is looked at in each, and what must be possible has to be found.
///
/// # Panics
/// When a property fails: with a way there.
#[must_use]
pub fn explore<M: Searchable>(model: M) -> Explored {
    let begun = Instant::now();
    // Every state is visited only while some property has no discovery: those that hold never have one.
    let checker = model.checker().spawn_bfs().join();
    checker.assert_properties();
    Explored {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
    }
}

/// A short way to a state where this property fails (or, where it is a possibility, to an example), if there is one.
#[must_use]
pub fn find<M: Searchable>(model: M, property: &'static str) -> Option<Vec<M::Action>> {
    let enough = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().finish_when(enough).spawn_bfs().join();
    let way = checker.discovery(property)?.into_vec();
    // The search goes roughly, not strictly, by length: what comes after the first such state is left out.
    let Property { expectation, condition, .. } = checker.model().property(property);
    let shows =
        |state: &M::State| condition(checker.model(), state) == (expectation == Expectation::Sometimes);
    let end = way.iter().position(|(state, _)| shows(state))?;
    Some(way.into_iter().take(end).filter_map(|(_, action)| action).collect())
}
