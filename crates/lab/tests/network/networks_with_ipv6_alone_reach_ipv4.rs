//! Row 7, as carriers have it: a device that has IPv6 alone, in a network with a NAT64, reaches a base that has IPv4 alone, written as an
//! address, and becomes direct with a device that has IPv4 alone behind a NAT of its own.

use std::net::IpAddr;

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

#[test]
fn a_device_behind_a_nat64_is_direct_with_one_that_has_ipv4_alone() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let carrier = internet.home(lab, 1, Nat::Home);
        let _nat64 = carrier.nat64();
        let phone = carrier.device_v6(lab, "phone", 2);
        phone.dns64();
        let home = internet.home(lab, 2, Nat::Home).device_v4(lab, "home", 2);

        let listener = Listener::start(&home, "home", &base.names());
        let pinger = Pinger::start(&phone, &listener.id, OFTEN, &base.names());
        let address = pinger.wait_path("direct", SOON, 0).address.expect("a direct path has an address");
        assert_eq!(address.ip(), "2001:db8:64::203.0.113.2".parse::<IpAddr>().unwrap());
        pinger.wait_answers(50, SOON, pinger.mark());
        drop(pinger);

        let listener = Listener::start(&phone, "phone", &base.names());
        let pinger = Pinger::start(&home, &listener.id, OFTEN, &base.names());
        let address = pinger.wait_path("direct", SOON, 0).address.expect("a direct path has an address");
        assert_eq!(address.ip(), "203.0.113.1".parse::<IpAddr>().unwrap());
    });
}
