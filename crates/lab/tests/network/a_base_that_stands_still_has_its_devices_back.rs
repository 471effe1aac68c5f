//! Row 3: a base that stands still for a while (its machine sleeps, or is moved), or is killed and started again, has its devices back
//! without anybody's help.

use std::time::{Duration, Instant};

use bowline_lab::{
    Internet, Nat,
    program::{Base, Listener, Pinger},
    with_bowline,
};
use nix::sys::signal::Signal;

use crate::{BASE, OFTEN, SOON};

/// Longer than devices in a talk wait before they look for another base.
const STILL: Duration = Duration::from_secs(6);

#[test]
fn after_a_standstill_and_after_a_kill_the_only_base_carries_on() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let machine = internet.server(lab, "base", 10);
        let mut base = Base::start(&machine, &BASE[..1]);
        let name = base.names()[0].to_owned();
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Symmetric));
        let listener = Listener::start(&left.device_v4(lab, "listener", 2), "listener", &[&name]);
        let pinger = Pinger::start(&right.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &[&name]);
        pinger.wait_path("relay-udp", SOON, 0);

        base.process.signal(Signal::SIGSTOP);
        std::thread::sleep(STILL); // what is tested is the standstill itself
        base.process.signal(Signal::SIGCONT);
        let continued = Instant::now();
        let answer = pinger.wait_answer_sent_after(continued, SOON * 4);
        lab.measured(&format!(
            "after a standstill of {STILL:?}: answers again after {:?}",
            answer.at - continued
        ));
        assert!(base.process.is_running());
        pinger.wait_answers(50, SOON, pinger.mark());

        base.process.kill();
        drop(base);
        let again = Base::start(&machine, &BASE[..1]);
        assert_eq!(again.names()[0], name, "a base keeps its key");
        let started = Instant::now();
        let answer = pinger.wait_answer_sent_after(started, SOON * 6);
        lab.measured(&format!("after a kill and a start: answers again after {:?}", answer.at - started));
        pinger.wait_answers(50, SOON, pinger.mark());
    });
}
