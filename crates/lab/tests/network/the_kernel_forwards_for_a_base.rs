//! Row 6, as what stays on the relay: a base whose kernel forwards for it (`fast_path`) is the same to its devices, in all that they do.

use std::time::{Duration, Instant};

use bowline_lab::{
    Internet, Nat, Node,
    program::{Base, Listener, Pinger, run_to_end},
    with_bowline_as_root,
};

use crate::{ADMIN, BASE, OFTEN, SOON, counted};

const FAST: [&str; 4] = ["--fast-path", "wan", "--admin", ADMIN];

/// Messages that a base has relayed by this path.
fn relayed(node: &Node, path: &str) -> u64 {
    counted(node, &format!("bowline_relayed_messages_total{{path=\"{path}\"}} "))
}

#[test]
fn devices_talk_roam_and_come_back_while_the_kernel_forwards() {
    with_bowline_as_root(|lab| {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "base", 10);
        let base = Base::start_with(&server, &BASE, &FAST);
        let homes = [1, 2, 3].map(|number| internet.home(lab, number, Nat::Symmetric));
        let listener =
            Listener::start(&homes[0].device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let device = homes[1].device_v4(lab, "mover", 2);
        let pinger = Pinger::start(&device, &listener.id, OFTEN, &base.names()[..1]);

        pinger.wait_path("relay-udp", SOON, 0);
        let (kernel, workers) = (relayed(&server, "kernel"), relayed(&server, "udp"));
        let mark = pinger.mark();
        let answers = pinger.wait_answers(200, SOON * 2, mark);
        assert!(answers.iter().all(|answer| answer.path == "relay-udp"), "{answers:?}");
        assert!(answers.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "{answers:?}");
        // A question and an answer each.
        assert!(relayed(&server, "kernel") >= kernel + 400);
        assert_eq!(relayed(&server, "udp"), workers, "the workers saw none of it");

        // Into another network: the kernel's copy follows.
        device.ip("link del dev eth0");
        homes[2].cable(&device, "wwan0");
        homes[2].address_v4(&device, "wwan0", 2);
        let moved = Instant::now();
        let answer = pinger.wait_answer_sent_after(moved, SOON * 2);
        let mark = pinger.mark();
        pinger.wait_path("relay-udp", SOON, mark);
        let kernel = relayed(&server, "kernel");
        pinger.wait_answers(100, SOON, pinger.mark());
        assert!(relayed(&server, "kernel") >= kernel + 200);
        lab.measured(&format!("after a move, answers came again within {:?}", answer.at - moved));
    });
}

#[test]
fn a_device_gets_no_more_than_its_limit_while_the_kernel_forwards() {
    const A_SECOND: u64 = 50;
    with_bowline_as_root(|lab| {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "base", 10);
        let file = server.home().join("base.toml");
        std::fs::write(&file, format!("[base.limits]\nrelay_messages_per_second = {A_SECOND}\n")).unwrap();
        let config = file.display().to_string();
        let base = Base::start_with(&server, &BASE, &[&FAST[..], &["--config", &config]].concat());
        let homes = [1, 2, 3].map(|number| internet.home(lab, number, Nat::Symmetric));
        let listen =
            |name, number| Listener::start(&homes[0].device_v4(lab, name, number), name, &base.names()[..1]);
        let listeners = [listen("busy", 2), listen("quiet", 3)];
        let ping = |at: usize, name, interval| {
            let device = homes[at].device_v4(lab, name, 2);
            Pinger::start(&device, &listeners[at - 1].id, interval, &base.names()[..1])
        };
        let quiet = ping(2, "within", Duration::from_millis(100));
        quiet.wait_path("relay-udp", SOON, 0);
        let started = Instant::now();
        let busy = ping(1, "over", Duration::from_millis(2));
        busy.wait_path("relay-udp", SOON, 0);

        let over_rate = "bowline_dropped_total{reason=\"over_rate\"} ";
        let before = (relayed(&server, "kernel"), counted(&server, over_rate));
        let answers = quiet.wait_answers(50, SOON * 4, quiet.mark());
        assert!(answers.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "{answers:?}");
        let answered = busy.answers(0).len() as u64;
        let most = A_SECOND + (started.elapsed().as_secs_f64() * A_SECOND as f64).ceil() as u64;
        assert!(answered > A_SECOND && answered <= most, "{answered} answers, {most} at most");
        // Its pings and the answers to them, by the kernel for the most part: some it leaves to the workers, who tell the device.
        let after = (relayed(&server, "kernel"), counted(&server, over_rate));
        assert!(after.0 - before.0 > 3 * A_SECOND, "{before:?}, {after:?}");
        assert!(after.1 - before.1 > 10 * A_SECOND, "{before:?}, {after:?}");
    });
}

#[test]
fn a_base_says_what_it_lacks_for_a_fast_path() {
    with_bowline_as_root(|lab| {
        let node = lab.node("base");
        let arguments = ["base", "--listen", "127.0.0.1:0", "--state", "state", "--fast-path", "eth7"];
        let ended = run_to_end(&node, &arguments, Duration::from_secs(10));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let why = "cannot use eth7: there is no such network interface";
        assert!(ended.notes.join(" ").contains(why), "{ended:?}");
    });
}
