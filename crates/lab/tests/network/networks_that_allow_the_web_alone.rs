//! Row 6: where nothing passes but TCP to the web's ports, a device that knows a base by its name alone is there all the same.

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{OFTEN, SOON};

#[test]
fn behind_a_router_that_passes_only_the_web_a_base_that_listens_there_is_found_without_being_told() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = internet.server(lab, "base", 10);
        let _base = Base::start(&base, &["203.0.113.10:4477", "203.0.113.10:443"]);
        let home = internet.home(lab, 1, Nat::Home);
        let office = internet.home(lab, 2, Nat::Tcp443Only);
        let name = ["203.0.113.10"]; // no port
        let listener = Listener::start(&office.device_v4(lab, "listener", 2), "listener", &name);
        let pinger = Pinger::start(&home.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &name);
        let first = pinger.wait_answer(SOON, 0);
        assert!(first.path.starts_with("relay"), "{first:?}");
        let answers = pinger.wait_answers(50, SOON, pinger.mark());
        assert!(answers.iter().all(|answer| answer.path != "direct"), "{answers:?}");
    });
}
