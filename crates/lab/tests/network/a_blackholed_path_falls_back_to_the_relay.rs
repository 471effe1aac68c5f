//! Row 12: a direct path that goes silent is suspected, the relay carries on, and the path does not flap; when it is free again, it is used
//! again.

use std::time::Duration;

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{A_ROUND, BASE, OFTEN, SOON};

/// Suspicion takes 200 ms and half as much again, then the relay has the data.
const GAP: Duration = Duration::from_secs(2);

#[test]
fn while_the_direct_path_is_a_black_hole_the_relay_carries_on_and_then_gives_it_back() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &base.names());
        let pinger = Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names());
        pinger.wait_path("direct", SOON, 0);
        pinger.wait_answers(20, SOON, pinger.mark());

        let mark = pinger.mark();
        right.router.nft(
            r#"table ip hole {
              chain forward { type filter hook forward priority filter - 1; policy accept;
                ip saddr 203.0.113.1 drop
                ip daddr 203.0.113.1 drop
              }
            }"#,
        );
        pinger.wait_path("relay-udp", SOON, mark);
        let gap = pinger.longest_gap(mark);
        lab.measured(&format!("gap when the direct path died: {gap:?}"));
        assert!(gap < GAP, "{gap:?}");
        let hole = pinger.mark();
        let answers = pinger.wait_answers(200, SOON * 2, hole);
        assert!(answers.iter().all(|answer| answer.path == "relay-udp"), "no flapping: {answers:?}");

        right.router.nft("delete table ip hole");
        let healed = pinger.mark();
        pinger.wait_path("direct", A_ROUND, healed);
        let settled = pinger.mark();
        let answers = pinger.wait_answers(100, SOON, settled);
        assert!(answers.iter().all(|answer| answer.path == "direct"), "no flapping: {answers:?}");
    });
}
