//! Rows 5 and 7: two devices behind ordinary home routers become direct, at once, without losing what they say meanwhile.

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

#[test]
fn two_ordinary_home_routers_are_punched_within_seconds() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let pinger =
            Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names()[..1]);

        let direct = pinger.wait_path("direct", SOON, 0);
        let address = direct.address.expect("a direct path has an address");
        assert_eq!(address.ip().to_string(), "203.0.113.1", "through the listener's router");
        pinger.wait_answers(50, SOON, pinger.mark());

        let answers = pinger.answers(0);
        let later = answers.iter().skip_while(|answer| answer.path != "direct");
        assert!(later.clone().all(|answer| answer.path == "direct"), "and it stays so: {answers:?}");
        let missing = answers.windows(2).filter(|pair| pair[1].seq != pair[0].seq + 1).count();
        assert_eq!(missing, 0, "nor is an answer lost on the way from relay to direct: {answers:?}");
        let summary = pinger.finish();
        lab.measured(&format!("direct after {:?} ms", summary.first_direct_ms));
    });
}

#[test]
fn a_symmetric_router_is_punched_towards_a_full_cone() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let left = internet.home(lab, 1, Nat::FullCone);
        let right = internet.home(lab, 2, Nat::Symmetric);
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let pinger =
            Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names()[..1]);
        pinger.wait_path("direct", SOON, 0);
        pinger.wait_answers(50, SOON, pinger.mark());
    });
}

#[test]
fn two_devices_behind_one_router_without_hairpin_meet_inside() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let home = internet.home(lab, 1, Nat::Home);
        let listener = Listener::start(&home.device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let pinger =
            Pinger::start(&home.device_v4(lab, "pinger", 3), &listener.id, OFTEN, &base.names()[..1]);
        let address = pinger.wait_path("direct", SOON, 0).address.expect("a direct path has an address");
        assert_eq!(address.ip().to_string(), "10.1.0.2");
    });
}
