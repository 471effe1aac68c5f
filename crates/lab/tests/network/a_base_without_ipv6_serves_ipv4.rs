//! Row 3: on a machine where IPv6 is switched off, a base that was told nothing about addresses serves IPv4.

use bowline_lab::{
    Internet,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{OFTEN, SOON};

#[test]
fn where_ipv6_is_off_devices_meet_over_ipv4() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let node = internet.server(lab, "base", 10);
        node.sysctl("net.ipv6.conf.all.disable_ipv6=1");
        let mut base = Base::start(&node, &[]);
        let name = ["203.0.113.10"];
        let listener = Listener::start(&internet.server(lab, "listener", 20), "listener", &name);
        let pinger = Pinger::start(&internet.server(lab, "pinger", 21), &listener.id, OFTEN, &name);
        pinger.wait_path("direct", SOON * 2, 0);
        assert!(base.process.is_running());
    });
}
