//! Row 6: direct, else UDP through the base, else TCP through the base; a network that drops UDP still works over TCP.

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{A_ROUND, BASE, OFTEN, SOON};

#[test]
fn where_udp_is_dropped_messages_flow_over_tcp_and_once_it_passes_directly() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let office = internet.home(lab, 1, Nat::UdpBlocked);
        let home = internet.home(lab, 2, Nat::Home);
        let listener = Listener::start(&home.device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let pinger =
            Pinger::start(&office.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names()[..1]);

        let answers = pinger.wait_answers(100, SOON, 0);
        assert!(answers.iter().all(|answer| answer.path == "relay-tcp"), "{answers:?}");

        let mark = pinger.mark();
        office.router.set_nat(Nat::Home);
        let direct = pinger.wait_path("direct", A_ROUND, mark);
        let before = pinger.answers(mark).into_iter().find(|answer| answer.path == "relay-tcp");
        assert!(before.is_some_and(|before| before.at < direct.at), "the relay carries on until then");
        lab.measured(&format!("direct {:?} after UDP was let through", direct.at - answers[99].at));
    });
}

#[test]
fn where_udp_is_dropped_on_the_way_later_tcp_takes_over() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let office = internet.home(lab, 1, Nat::Home);
        let home = internet.home(lab, 2, Nat::Home);
        let listener = Listener::start(&home.device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let pinger =
            Pinger::start(&office.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names()[..1]);
        pinger.wait_path("direct", SOON, 0);

        let mark = pinger.mark();
        office.router.set_nat(Nat::UdpBlocked);
        // The device itself turns to TCP after 1.75 s. The base's half of UDP stands for 35 s by itself: until then, answers are lost.
        pinger.wait_path("relay-tcp", A_ROUND + SOON, mark);
        let answers = pinger.wait_answers(50, SOON, pinger.mark());
        assert!(answers.iter().all(|answer| answer.path == "relay-tcp"), "{answers:?}");
        lab.measured(&format!("gap when all UDP stopped: {:?}", pinger.longest_gap(mark)));
    });
}
