//! Row 3: several bases are tried at once; one that accepts and says nothing, one that answers nothing at all, or one
//! address of a name that leads nowhere, costs no time.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

/// From the start of both programs, one after the other, to the first answer. Waiting for a timeout of any kind takes longer.
const HELD_UP: Duration = Duration::from_millis(1800);

#[test]
fn bases_that_accept_and_stay_silent_or_drop_everything_cost_no_time() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let silent = internet.server(lab, "silent", 11);
        let _accepts = silent.enter(|| TcpListener::bind("203.0.113.11:4477")).expect("bound");
        let bases = ["203.0.113.11:4477", "203.0.113.99:4477", base.names()[0]];
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let devices = [left.device_v4(lab, "listener", 2), right.device_v4(lab, "pinger", 2)];
        let started = Instant::now();
        let listener = Listener::start(&devices[0], "listener", &bases);
        let pinger = Pinger::start(&devices[1], &listener.id, OFTEN, &bases);
        let first = pinger.wait_answer(SOON, 0);
        lab.measured(&format!("first answer {:?} after the start", first.at - started));
        assert!(first.at - started < HELD_UP, "{:?}", first.at - started);
    });
}

#[test]
fn a_name_with_a_dead_ipv6_address_and_a_live_ipv4_one_costs_no_time() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        // Nobody is at ::99: connecting there takes seconds to fail.
        lab.hosts("127.0.0.1 localhost\n2001:db8:113::99 base.example\n203.0.113.10 base.example\n");
        let name = format!("{}@base.example", base.id());
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let devices = [left.device(lab, "listener", 2), right.device(lab, "pinger", 2)];
        let started = Instant::now();
        let listener = Listener::start(&devices[0], "listener", &[&name]);
        let pinger = Pinger::start(&devices[1], &listener.id, OFTEN, &[&name]);
        let first = pinger.wait_answer(SOON, 0);
        lab.measured(&format!("first answer {:?} after the start", first.at - started));
        assert!(first.at - started < HELD_UP, "{:?}", first.at - started);
    });
}
