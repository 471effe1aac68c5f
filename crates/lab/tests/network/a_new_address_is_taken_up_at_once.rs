//! Row 11: the system's own notification of a change starts NAT-INIT and HELLO at once, for a new address as for a new interface.
//!
//! The gaps are printed; the bounds here are generous, the benchmark proper has tight ones.

use std::time::{Duration, Instant};

use bowline_lab::{
    Home, Internet, Lab, Nat, Node,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

/// A change that was noticed is over well within this; one that was not takes a round of 25 s.
const GAP: Duration = Duration::from_secs(3);

struct World {
    _base: Base,
    _listener: Listener,
    pinger: Pinger,
    device: Node,
    homes: [Home; 3],
}

impl World {
    /// A device in home 1 that pings one in home 2, directly; home 3 is where it may go.
    fn new(lab: &Lab) -> Self {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let homes = [1, 2, 3].map(|number| internet.home(lab, number, Nat::Home));
        let listener =
            Listener::start(&homes[1].device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let device = homes[0].device_v4(lab, "mover", 2);
        let pinger = Pinger::start(&device, &listener.id, OFTEN, &base.names()[..1]);
        pinger.wait_path("direct", SOON, 0);
        pinger.wait_answers(20, SOON, pinger.mark());
        Self { _base: base, _listener: listener, pinger, device, homes }
    }

    /// Makes a change, and reports how long answers were missing and when the way was direct again.
    fn change(&self, lab: &Lab, what: &str, change: impl FnOnce()) {
        let mark = self.pinger.mark();
        change();
        let changed = Instant::now();
        let answer = self.pinger.wait_answer_sent_after(changed, SOON * 2);
        let back = self.pinger.mark();
        let direct = self.pinger.wait_path("direct", SOON * 2, back);
        self.pinger.wait_answers(20, SOON, self.pinger.mark());
        let gap = self.pinger.longest_gap(mark);
        lab.measured(&format!(
            "{what}: first answer {:?} after the change (by {}), direct after {:?}, longest gap {gap:?}",
            answer.at - changed,
            answer.path,
            direct.at - changed,
        ));
        assert!(gap < GAP, "{what}: no answers for {gap:?}");
    }
}

#[test]
fn a_new_address_on_the_same_interface_is_taken_up() {
    with_bowline(|lab| {
        let world = World::new(lab);
        world.change(lab, "another address", || {
            world.device.ip("addr del 10.1.0.2/24 dev eth0");
            world.homes[0].address_v4(&world.device, "eth0", 9);
        });
    });
}

#[test]
fn an_interface_that_is_replaced_by_another_is_taken_up() {
    with_bowline(|lab| {
        let world = World::new(lab);
        world.change(lab, "another interface and router", || {
            world.device.ip("link del dev eth0");
            world.homes[2].cable(&world.device, "wwan0");
            world.homes[2].address_v4(&world.device, "wwan0", 2);
        });
    });
}

#[test]
fn a_router_that_changes_its_public_address_is_taken_up() {
    with_bowline(|lab| {
        let world = World::new(lab);
        // Nothing on the device tells of this: its lost data does.
        world.change(lab, "another public address of the router", || {
            let router = &world.homes[0].router;
            router.ip("addr del 203.0.113.1/24 dev wan");
            router.address("wan", "203.0.113.77/24");
            router.route("default via 203.0.113.254");
        });
    });
}
