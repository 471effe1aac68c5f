//! Rows 3 and 6: networks with IPv6 alone work and become direct; through a base with both families, a device with IPv4 alone
//! and one with IPv6 alone reach each other.

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

#[test]
fn two_devices_with_ipv6_alone_become_direct_through_their_firewalls() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[1..]);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let listener = Listener::start(&left.device_v6(lab, "listener", 2), "listener", &base.names());
        let pinger = Pinger::start(&right.device_v6(lab, "pinger", 2), &listener.id, OFTEN, &base.names());
        let address = pinger.wait_path("direct", SOON, 0).address.expect("a direct path has an address");
        assert_eq!(address.ip().to_string(), "2001:db8:1::2");
        pinger.wait_answers(50, SOON, pinger.mark());
    });
}

#[test]
fn ipv4_alone_and_ipv6_alone_meet_at_the_base() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &base.names());
        let pinger = Pinger::start(&right.device_v6(lab, "pinger", 2), &listener.id, OFTEN, &base.names());
        pinger.wait_path("relay-udp", SOON, 0);
        let answers = pinger.wait_answers(100, SOON, pinger.mark());
        assert!(answers.iter().all(|answer| answer.path == "relay-udp"), "{answers:?}");
    });
}

/// Nobody tells the base its addresses, and the device reaches it by IPv6, as one with both does where the base's name has both.
#[test]
fn who_came_by_ipv6_is_found_by_ipv4_too() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &["0.0.0.0:4477", "[::]:4477"]);
        let [by_ipv4, by_ipv6] = BASE.map(|address| format!("{}@{address}", base.id()));
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &[&by_ipv4]);
        let pinger = Pinger::start(&right.device(lab, "pinger", 2), &listener.id, OFTEN, &[&by_ipv6]);
        let address = pinger.wait_path("direct", SOON, 0).address.expect("a direct path has an address");
        assert_eq!(address.ip().to_string(), "203.0.113.1");
    });
}
