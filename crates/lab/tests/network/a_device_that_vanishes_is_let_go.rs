//! Row 13, half-open TCP: a device that is cut off without a word (no FIN, no reset, no UDP) does not stay registered.

use std::time::Duration;

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

/// What a base waits for an acknowledgement of what it has sent; how often it looks again is the system's to say.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

#[test]
fn a_device_on_tcp_alone_whose_network_is_gone_is_no_longer_registered_half_a_minute_later() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let office = internet.home(lab, 1, Nat::UdpBlocked);
        let device = office.device_v4(lab, "listener", 2);
        let listener = Listener::start(&device, "listener", &base.names()[..1]);
        let home = internet.home(lab, 2, Nat::Home);
        let pinger =
            Pinger::start(&home.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &base.names()[..1]);
        pinger.wait_answers(50, SOON, 0);

        let mark = base.process.mark();
        office.router.nft(
            "add table ip cut; add chain ip cut c { type filter hook forward priority -10; policy drop; }",
        );
        let cut = std::time::Instant::now();
        let lost = format!("lost device={}", listener.id);
        base.process.wait(&lost, UNACKNOWLEDGED * 2, mark, |line| line.text.contains(&lost).then_some(()));
        let after = cut.elapsed();
        lab.measured(&format!("no longer registered {after:?} after it was cut off"));
        assert!(after < UNACKNOWLEDGED + SOON * 2, "{after:?}");

        // It is back by itself when it can be.
        office.router.nft("delete table ip cut");
        let again = std::time::Instant::now();
        let answer = pinger.wait_answer_sent_after(again, UNACKNOWLEDGED * 2);
        lab.measured(&format!("and back {:?} after its network was", answer.at - again));
    });
}
