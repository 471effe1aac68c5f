//! `bowline ping`: times and paths, for people and for programs.

#![cfg(unix)]

mod support;

use std::time::Instant;

use nix::sys::signal::Signal;
use support::{Base, Home, NOBODY, names};

#[test]
fn json_is_a_line_per_answer_and_a_last_one_and_the_path_becomes_direct() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let objects = Home::new().run(&format!("ping {id} -c 5 -i 0.1 --json --base {}", base.name)).ok().json();
    assert_eq!(objects.len(), 6, "{objects:?}");
    let (last, answers) = objects.split_last().unwrap();
    for (number, answer) in (1..).zip(answers) {
        assert_eq!(names(answer), ["address", "path", "rtt_ms", "seq"]);
        assert_eq!(answer["seq"], number);
        // No round trip between processes is shorter: it counts from before the ping left.
        assert!(answer["rtt_ms"].as_f64().unwrap() > 0.01, "{answer}");
    }
    let path = answers[4]["path"].as_str().unwrap();
    assert_eq!(path, "direct");
    answers[4]["address"].as_str().unwrap().parse::<std::net::SocketAddr>().unwrap();
    assert_eq!(names(last), ["first_direct_ms", "received", "sent"]);
    assert_eq!((&last["sent"], &last["received"]), (&5.into(), &5.into()));
    assert!(last["first_direct_ms"].as_f64().unwrap() < 400.0, "{last}");
}

#[test]
fn people_see_times_paths_changes_and_a_summary() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let shown = Home::new().run(&format!("ping {id} -c 3 -i 0.2 --base {}", base.name)).ok().stdout;
    for expected in [
        "seq=1 ",
        "seq=3 ",
        " ms  direct ",
        "3 sent, 3 received, 0% lost",
        "round trip min/avg/max/mdev = ",
        "direct after ",
    ] {
        assert!(shown.contains(expected), "no {expected:?} in\n{shown}");
    }
    // A change of path has a line of its own; the first answer may come directly already.
    let first = shown.lines().find(|line| line.starts_with("seq=")).unwrap();
    assert!(first.contains("direct") || shown.contains("path: "), "{shown}");
    assert!(!shown.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn where_only_the_relay_is_allowed_the_path_says_so() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    for (config, path) in [
        ("direct = false\nrelay_udp = false\nlink_local = false\n", "relay-tcp"),
        ("direct = false\nlink_local = false\n", "relay-udp"),
    ] {
        let home = Home::new();
        home.configure(config);
        let objects = home.run(&format!("ping {id} -c 4 -i 0.1 --json --base {}", base.name)).ok().json();
        assert_eq!(objects[3]["path"], path, "{objects:?}");
        assert!(objects[3]["address"].is_null());
        assert!(objects[4]["first_direct_ms"].is_null());
    }
}

#[test]
fn the_first_ping_leaves_at_once_and_the_last_answer_ends_it() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let began = Instant::now();
    Home::new().run(&format!("ping {id} -c 1 -i 3600 --timeout 3600 --base {}", base.name)).ok();
    assert!(began.elapsed().as_secs() < 10);
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_the_summary_is_printed_all_the_same() {
    let base = Base::start();
    let ended =
        Home::new().run(&format!("ping {NOBODY} -c 2 -i 0.1 --timeout 0.3 --json --base {}", base.name));
    let reason = ended.failed(1);
    assert!(reason.contains("none of 2 pings") && reason.contains(NOBODY), "{reason}");
    assert!(reason.contains("it is offline, or it refuses, or it is elsewhere"), "{reason}");
    let last = ended.json().pop().unwrap();
    assert_eq!((&last["sent"], &last["received"]), (&2.into(), &0.into()));
    assert!(last["first_direct_ms"].is_null());
}

#[test]
fn a_device_that_is_there_and_answers_no_pings_is_told_apart() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("--no-echo");
    let reason = Home::new().run(&format!("ping {id} -c 1 --timeout 2 --base {}", base.name)).failed(1);
    assert!(reason.contains("reachable, but answers no pings"), "{reason}");
}

#[test]
fn an_unreachable_base_is_an_error_in_time_with_its_reason() {
    let ended = Home::new().run(&format!("ping {NOBODY} --timeout 0.5 --base 127.0.0.1:1"));
    let reason = ended.failed(1);
    assert!(reason.contains("0.5 s") && reason.contains("refused"), "{reason}");
}

#[test]
fn ctrl_c_prints_the_summary_and_success_means_that_something_was_answered() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let mut ping = Home::new().start(&format!("ping {id} --base {}", base.name));
    ping.stdout.line_with("seq=1 ");
    let ended = ping.end_by(Signal::SIGINT).ok();
    assert!(ended.stdout.contains("1 sent, 1 received"), "{ended:?}");

    let mut ping = Home::new().start(&format!("ping {NOBODY} --base {}", base.name));
    ping.stdout.line_with("PING");
    ping.end_by(Signal::SIGINT).failed(1);
}

#[test]
fn what_is_no_device_id_is_wrong_use() {
    let home = Home::new();
    let mistyped = NOBODY.replace('9', "8");
    for wrong in ["nobody", &mistyped, "93kz-a462"] {
        let ended = home.run(&format!("ping {wrong}"));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(wrong), "{ended:?}");
    }
    for wrong in ["ping", "ping a b", "ping --count", "pong", &format!("ping {NOBODY} -c 0")] {
        assert_eq!(home.run(wrong).code, Some(2), "{wrong}");
    }
}

#[test]
fn a_device_does_not_ping_itself() {
    let home = Home::new();
    let (id, key) = (home.id(), home.key());
    let reason = home.run(&format!("ping {id} --key {}", key.display())).failed(2);
    assert!(reason.contains(&id), "{reason}");
}
