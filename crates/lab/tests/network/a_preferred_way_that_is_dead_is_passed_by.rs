//! Row 11, where the system does not help: a Wi-Fi that is associated and leads nowhere keeps its route, and the system goes on to prefer it
//! to a way that works. The base is reached by the other one, and so is a peer behind a NAT.

use std::time::{Duration, Instant};

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

/// The base counts as silent after two seconds, and the other way's turn comes half a second later.
const PASSED_BY: Duration = Duration::from_secs(8);

#[test]
fn a_wifi_that_leads_nowhere_and_keeps_its_route_is_passed_by() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let [wifi, lte, other] = [1, 2, 3].map(|number| internet.home(lab, number, Nat::Home));
        let device = lab.node("device");
        for (home, interface, metric) in [(&wifi, "wifi", 100), (&lte, "lte", 600)] {
            let number = home.number();
            home.cable(&device, interface);
            device.address(interface, &format!("10.{number}.0.2/24"));
            device.route(&format!("default via 10.{number}.0.1 dev {interface} metric {metric}"));
        }
        let listener = Listener::start(&other.device_v4(lab, "other", 2), "other", &base.names());
        let pinger = Pinger::start(&device, &listener.id, OFTEN, &base.names());
        pinger.wait_path("direct", SOON, 0);

        wifi.router.nft("insert rule inet lab forward drop");
        let dead = Instant::now();
        pinger.wait_answer_sent_after(dead, PASSED_BY);
        lab.measured(&format!("the next answer came after {:?}", dead.elapsed()));
        pinger.wait_path("direct", SOON, pinger.mark());
        drop(pinger);

        // A device that starts there is no worse off.
        let pinger = Pinger::start(&device, &listener.id, OFTEN, &base.names());
        pinger.wait_path("direct", PASSED_BY, 0);
    });
}
