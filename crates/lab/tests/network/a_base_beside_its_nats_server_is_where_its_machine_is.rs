//! Row 16: a base that reaches its NATS server on the loopback is told to the other bases at the address that its machine has, also where
//! the machine gets that later, or gets another.

use std::fs;

use bowline_lab::{Internet, eventually, program::Base, with_bowline};

use crate::{ADMIN, SOON, counted};

#[test]
fn other_bases_reach_it_over_udp_wherever_its_machine_has_moved() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let [beside, other] =
            [("beside", 10), ("other", 11)].map(|(name, number)| internet.server(lab, name, number));
        beside.ip("-4 addr flush dev wan");
        let store = beside.home().join("nats").display().to_string();
        let nats = beside.spawn("nats-server", &["-js", "-sd", &store]);
        nats.wait("NATS server", SOON, 0, |line| line.text.contains("Server is ready").then_some(()));
        // The other one reaches NATS over IPv6, which stays.
        let config = other.home().join("base.toml").display().to_string();
        fs::write(&config, "[base.cluster]\naddress = '203.0.113.11:4477'\n").expect("a file");
        let join = |node, server: &str, more: &[&str]| {
            let more = [&["--admin", ADMIN, "--cluster", server], more].concat();
            Base::start_with(node, &["0.0.0.0:4477"], &more)
        };
        let _beside = join(&beside, "nats://127.0.0.1:4222", &[]);
        eventually("NATS", SOON, || (counted(&beside, "bowline_cluster_bus_up ") == 1).then_some(()));

        let set = |address: &str| {
            beside.address("wan", address);
            beside.route("default via 203.0.113.254");
        };
        set("203.0.113.10/24");
        let _other = join(&other, "nats://[2001:db8:113::10]:4222", &["--config", &config]);
        let over_udp = || counted(&other, "bowline_cluster_bases{path=\"udp\"} ");
        eventually("UDP between the bases", SOON * 2, || (over_udp() == 1).then_some(()));

        beside.ip("addr del 203.0.113.10/24 dev wan");
        eventually("an end of that", SOON * 4, || (over_udp() == 0).then_some(()));
        set("203.0.113.12/24");
        eventually("UDP to the new address", SOON * 4, || (over_udp() == 1).then_some(()));
    });
}
