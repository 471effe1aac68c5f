//! Row 6: behind two symmetric NATs no direct path is possible, and every message gets through all the same, over the relay's UDP.

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

#[test]
fn behind_two_symmetric_nats_every_message_flows_through_the_base_over_udp() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Symmetric));
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let pinger =
            Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names()[..1]);

        pinger.wait_path("relay-udp", SOON, 0);
        let mark = pinger.mark();
        let answers = pinger.wait_answers(200, SOON * 2, mark);
        assert!(answers.iter().all(|answer| answer.path == "relay-udp"), "{answers:?}");
        let gaps = answers.windows(2).filter(|pair| pair[1].seq != pair[0].seq + 1).count();
        assert_eq!(gaps, 0, "no message is missing: {answers:?}");
    });
}
