//! Row 7: a peer that only asked for us gets five HELLOs an address; once we send to it, it is tried like any other.

mod common;

use std::time::Duration;

use common::*;

#[test]
fn sending_back_later_starts_the_ladder_and_keeps_its_rounds() {
    let Pair { mut world, a, b, .. } = Pair::behind(SYMMETRIC, SYMMETRIC);
    // Two such NATs cannot be punched: whatever b does about a is visible as HELLOs.
    talk(&mut world, a, b, SECOND, 10 * SECOND);
    let asking = sent(&world, b, "HELLO ", Duration::ZERO).len();
    assert!(asking > 0, "b helps a to punch");
    let quiet = world.now();
    talk(&mut world, a, b, SECOND, 30 * SECOND);
    assert_eq!(sent(&world, b, "HELLO ", quiet).len(), 0, "five an address and no more");
    let since = world.now();
    talk(&mut world, b, a, SECOND, 40 * SECOND);
    // To its reflexive addresses, which had had their five; its own addresses are new.
    let wanted =
        sent(&world, b, "HELLO ", since).into_iter().filter(|(_, to)| to.ip().to_string().starts_with("11."));
    assert!(wanted.count() > 5, "a ladder and a round");
    world.assert_held();
}
