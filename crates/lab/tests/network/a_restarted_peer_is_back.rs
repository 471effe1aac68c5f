//! Row 11: a peer that was killed and started again with its key is back at once, though its new process knows nobody.

use std::time::Instant;

use bowline_lab::{
    Internet, Nat, connect,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

#[test]
fn a_peer_behind_a_router_that_was_killed_and_started_again_is_back() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let device = left.device_v4(lab, "listener", 2);
        let mut listener = Listener::start(&device, "listener", &base.names()[..1]);
        let pinger =
            Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names()[..1]);
        pinger.wait_path("direct", SOON, 0);

        listener.process.kill();
        let again = Listener::start(&device, "listener", &base.names()[..1]);
        assert_eq!(again.id, listener.id, "the same device");
        let started = Instant::now(); // it listens: what comes before is not the layer's time
        let answer = pinger.wait_answer_sent_after(started, SOON);
        let mark = pinger.mark();
        let direct = pinger.wait_path("direct", SOON * 2, mark);
        lab.measured(&format!(
            "answers {:?} after the restart (by {}), direct after {:?}",
            answer.at - started,
            answer.path,
            direct.at - started
        ));
    });
}

#[test]
fn a_peer_on_the_link_that_was_killed_and_started_again_is_back_without_a_base() {
    with_bowline(|lab| {
        let (left, right) = (lab.node("left"), lab.node("right"));
        connect(&left, "eth0", &right, "eth0");
        let mut listener = Listener::start(&left, "listener", &[]);
        let pinger = Pinger::start(&right, &listener.id, OFTEN, &[]);
        pinger.wait_path("direct", SOON, 0);

        listener.process.kill();
        let _again = Listener::start(&left, "listener", &[]);
        pinger.wait_answer_sent_after(Instant::now(), SOON);
    });
}
