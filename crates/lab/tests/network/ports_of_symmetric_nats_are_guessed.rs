//! Row 7a: one device behind a symmetric NAT, the other behind an ordinary home router, which asks for the port that nobody knows. It
//! is guessed; switched off, everything stays on the relay.

use std::time::Duration;

use bowline_lab::{
    Internet, Lab, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

/// One attempt finds random ports in 44 of 45 cases; after a rest of a minute there is another.
const TWO_ATTEMPTS: Duration = Duration::from_secs(100);

fn pinger_and_listener(lab: &Lab, [one, other]: [Nat; 2], config: &str) -> (Base, Listener, Pinger) {
    let internet = Internet::new(lab);
    let base = Base::start(&internet.server(lab, "base", 10), &BASE);
    let (left, right) = (internet.home(lab, 1, one), internet.home(lab, 2, other));
    let names = &base.names()[..1];
    let listener = Listener::start_with(&left.device_v4(lab, "listener", 2), "listener", names, config);
    let pinger = Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, names);
    (base, listener, pinger)
}

fn becomes_direct(lab: &Lab, nats: [Nat; 2], within: Duration) {
    let (_base, _listener, pinger) = pinger_and_listener(lab, nats, "");
    let address = pinger.wait_path("direct", within, 0).address.expect("a direct path has an address");
    assert_eq!(address.ip().to_string(), "203.0.113.1", "through the listener's router");
    let mark = pinger.mark();
    let answers = pinger.wait_answers(200, SOON * 2, mark);
    assert!(answers.iter().skip(50).all(|answer| answer.path == "direct"), "and it stays so: {answers:?}");
    let all = pinger.answers(0);
    let missing = all.windows(2).filter(|pair| pair[1].seq != pair[0].seq + 1).count();
    assert_eq!(missing, 0, "nor is an answer lost on the way there: {all:?}");
    lab.measured(&format!("{nats:?}: direct after {:?} ms", pinger.finish().first_direct_ms));
}

#[test]
fn a_counting_nat_at_the_listener_is_predicted() {
    with_bowline(|lab| becomes_direct(lab, [Nat::SymmetricSequential, Nat::Home], SOON * 2));
}

#[test]
fn a_counting_nat_at_the_pinger_is_predicted() {
    with_bowline(|lab| becomes_direct(lab, [Nat::PortPool, Nat::SymmetricSequential], SOON * 2));
}

#[test]
fn a_random_nat_at_the_listener_is_guessed() {
    with_bowline(|lab| becomes_direct(lab, [Nat::Symmetric, Nat::Home], TWO_ATTEMPTS));
}

#[test]
fn a_random_nat_at_the_pinger_is_guessed() {
    with_bowline(|lab| becomes_direct(lab, [Nat::Home, Nat::Symmetric], TWO_ATTEMPTS));
}

#[test]
fn switched_off_at_the_side_that_has_to_knock_no_port_is_found() {
    with_bowline(|lab| {
        let nats = [Nat::Home, Nat::SymmetricSequential];
        let (_base, _listener, pinger) = pinger_and_listener(lab, nats, "guess_ports = false\n");
        pinger.wait_path("relay-udp", SOON, 0);
        let answers = pinger.wait_answers(300, SOON * 3, pinger.mark());
        assert!(answers.iter().all(|answer| answer.path == "relay-udp"), "{answers:?}");
    });
}
