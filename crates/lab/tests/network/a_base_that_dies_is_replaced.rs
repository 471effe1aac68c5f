//! Row 3: a base that dies is replaced by another, and messages flow again: in under 1 s when its connections are reset, in under 4 s
//! when it falls silent while data is being sent.

use std::time::{Duration, Instant};

use bowline_lab::{
    Internet, Lab, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};
use nix::sys::signal::Signal;

use crate::{BASE, OFTEN, SOON};

/// A session that ends within 10 s of its beginning is followed by a random pause. The promise is about others.
const STABLE: Duration = Duration::from_secs(11);

struct World {
    first: Base,
    _second: Base,
    _listener: Listener,
    pinger: Pinger,
}

impl World {
    /// Two devices that can only talk through the relay, both at the first of two bases: the second came up later.
    fn new(lab: &Lab) -> Self {
        let internet = Internet::new(lab);
        let other = internet.server(lab, "other", 11);
        let other_key = Base::start(&other, &["203.0.113.11:4477"]);
        let second_name = other_key.names()[0].to_owned();
        drop(other_key);

        let first = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Symmetric));
        let bases = [first.names()[0], &second_name];
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &bases);
        let pinger = Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &bases);
        let registered = pinger.wait_path("relay-udp", SOON, 0).at;

        let second = Base::start(&other, &["203.0.113.11:4477"]);
        assert_eq!(second.names()[0], second_name, "a base keeps its key");
        pinger.wait_answer_sent_after(registered + STABLE, STABLE + SOON);
        Self { first, _second: second, _listener: listener, pinger }
    }

    fn back_within(&self, lab: &Lab, what: &str, bound: Duration, died: Instant) {
        let answer = self.pinger.wait_answer_sent_after(died, SOON * 2);
        let gap = answer.at - died;
        lab.measured(&format!("{what}: answers again after {gap:?}"));
        assert!(gap < bound, "{what}: {gap:?}");
        self.pinger.wait_answers(50, SOON, self.pinger.mark());
    }
}

#[test]
fn a_base_that_is_killed_is_replaced_in_under_a_second() {
    with_bowline(|lab| {
        let mut world = World::new(lab);
        world.first.process.kill();
        world.back_within(lab, "killed", Duration::from_secs(1), Instant::now());
    });
}

#[test]
fn a_base_that_falls_silent_is_replaced_in_under_four_seconds() {
    with_bowline(|lab| {
        let world = World::new(lab);
        world.first.process.signal(Signal::SIGSTOP);
        world.back_within(lab, "silent", Duration::from_secs(4), Instant::now());
    });
}

#[test]
fn a_base_that_is_told_to_end_sends_its_hosts_away_first() {
    with_bowline(|lab| {
        let mut world = World::new(lab);
        world.first.process.signal(Signal::SIGTERM);
        assert!(world.first.process.wait_end(SOON * 4).success(), "exit status 0");
        world.back_within(lab, "drained", Duration::from_secs(1), Instant::now());
    });
}
