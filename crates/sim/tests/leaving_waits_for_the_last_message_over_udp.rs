//! Row 11's other end: LEAVE goes over TCP and may overtake a message that goes over UDP; the base drops what comes after it.

mod common;

use std::time::Duration;

use bowline_proto::host::{Host, Route};
use common::*;

#[test]
fn a_round_trip_after_the_last_message_and_not_at_all_otherwise() {
    let Pair { mut world, a, b, .. } = Pair::behind(SYMMETRIC, SYMMETRIC);
    assert_eq!(world.call(a, |host, now| Host::parting(host, now)), Some(Duration::ZERO), "nothing was sent");
    let (number, route) = world.send(a, b).unwrap();
    assert!(matches!(route, Route::RelayUdp(_)), "{route:?}");
    let parting = world.call(a, |host, now| host.parting(now)).unwrap();
    assert!(parting >= 2 * ONE_WAY, "{parting:?} is no round trip");
    assert!(world.arrival(a, b, number).is_none());
    world.run_for(parting);
    assert_eq!(world.call(a, |host, now| host.parting(now)), Some(Duration::ZERO));
    assert!(world.arrival(a, b, number).is_some(), "it has been relayed by then");
}
