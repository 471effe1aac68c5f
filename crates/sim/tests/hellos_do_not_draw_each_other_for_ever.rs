//! Rows 7 and 13: a HELLO from an unproven source draws one, and behind NATs that give every remote endpoint a port of
//! its own and let everybody in, the drawn one comes from a new source again. That chain has to end.

mod common;

use bowline_sim::{
    nat::{Allocation, Dependence, NatKind},
    world::World,
};
use common::*;

#[test]
fn behind_open_symmetric_nats_hellos_stay_as_rare_as_rounds_are() {
    let open = NatKind::with(Dependence::AddressAndPort, Dependence::Endpoint, Allocation::Random);
    let mut world = World::new(1);
    let centre = world.data_centre("centre", 10 * MS);
    let base = world.base("base", centre);
    // Far apart: a chain of one HELLO a round trip passes below every rate limit.
    let [a, b] = ["a", "b"].map(|name| {
        let net = world.home(name, open, 60 * MS);
        world.host(name, net, &[base])
    });
    settle(&mut world);
    talk(&mut world, a, b, 10 * SECOND, 60 * SECOND);
    let before = world.at_host(a).watch.hellos_sent;
    let (came, lost) = talk(&mut world, a, b, 10 * SECOND, 300 * SECOND);
    assert_eq!((came, lost), (30, 0));
    let sent = world.at_host(a).watch.hellos_sent - before;
    // A few pairs in rounds of 25 s that grow rarer, and what each of them draws once or twice.
    assert!(sent < 150, "{sent} HELLOs in five minutes");
}
