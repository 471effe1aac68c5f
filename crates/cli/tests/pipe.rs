//! `bowline pipe`: bytes across, encrypted, in netcat's manner; and short names.

#![cfg(unix)]

mod support;

use std::fs;

use nix::sys::signal::Signal;
use support::{Base, Home, NOBODY, Running, names};

/// A device that listens with `pipe`; its home, the process, and its ID.
fn listener(base: &Base, args: &str) -> (Home, Running, String) {
    let home = Home::new();
    let mut running = home.start(&format!("pipe --listen --base {} {args}", base.name));
    running.stderr.line_with("registered at");
    let id = home.id();
    (home, running, id)
}

#[test]
fn what_goes_in_here_comes_out_there_both_ways_and_each_way_ends_by_itself() {
    let base = Base::start();
    let (_home, mut listener, id) = listener(&base, "");
    let mut dialler = Home::new().start(&format!("pipe {id} --base {}", base.name));
    dialler.write(b"question\n");
    listener.stdout.line_with("question");
    listener.write(b"answer\n");
    dialler.stdout.line_with("answer");
    // The dialler's input ends; the listener still has something to say.
    dialler.stdin = None;
    listener.write(b"one more thing\n");
    dialler.stdout.line_with("one more thing");
    listener.stdin = None;
    assert_eq!(dialler.end().ok().stdout, "answer\none more thing\n");
    let ended = listener.end().ok();
    assert_eq!(ended.stdout, "question\n");
    assert!(ended.stderr.contains("connected from"), "{ended:?}");
}

#[test]
fn both_ends_report_for_programs_beside_the_data() {
    let base = Base::start();
    let (home, listener, id) = listener(&base, "--json");
    let friend = Home::new();
    let mut dialler = friend.start(&format!("pipe {id} --json --base {}", base.name));
    dialler.write(b"question\n");
    dialler.stdin = None;
    let listened = listener.end().ok();
    assert_eq!(listened.stdout, "question\n");
    for (ended, device, sent, received) in [(dialler.end().ok(), id, 9, 0), (listened, friend.id(), 0, 9)] {
        let reports = ended.reports();
        assert_eq!(names(&reports[0]), ["address", "device", "path"]);
        assert_eq!(names(&reports[1]), ["address", "device", "path", "received", "seconds", "sent"]);
        assert_eq!((&reports[0]["device"], &reports[1]["device"]), (&device.clone().into(), &device.into()));
        assert_eq!((&reports[1]["sent"], &reports[1]["received"]), (&sent.into(), &received.into()));
        assert_eq!(reports.len(), 2);
        for report in &reports {
            let path = report["path"].as_str().unwrap();
            assert!(["relay-tcp", "relay-udp", "direct"].contains(&path), "{report}");
        }
    }
    drop(home);
}

#[test]
fn megabytes_arrive_whole() {
    let base = Base::start();
    let (home, mut listener, id) = listener(&base, "");
    listener.stdin = None;
    let mut dialler = Home::new().start(&format!("pipe {id} --base {}", base.name));
    let text: String = (0..600_000).map(|number| format!("{number}\n")).collect();
    dialler.write(text.as_bytes());
    dialler.end().ok();
    let ended = listener.end().ok();
    assert!(ended.stdout == text, "{} of {} bytes", ended.stdout.len(), text.len());
    drop(home);
}

#[test]
fn a_device_that_is_not_named_is_kept_out_and_told_so() {
    let base = Base::start();
    let (_home, mut listener, id) = listener(&base, &format!("--from {NOBODY}"));
    let reason = Home::new().run(&format!("pipe {id} --base {}", base.name)).failed(1);
    assert!(reason.contains("allow list") && reason.contains(&id), "{reason}");
    assert!(listener.is_running());
}

#[test]
fn a_device_that_is_named_comes_in_and_only_one_does() {
    let base = Base::start();
    let friend = Home::new();
    let (_home, listener, id) = listener(&base, &format!("--from {}", friend.id()));
    let mut dialler = friend.start(&format!("pipe {id} --base {}", base.name));
    dialler.write(b"it is me\n");
    dialler.stdin = None;
    let listened = listener.end().ok();
    assert_eq!(listened.stdout, "it is me\n");
    dialler.end().ok();
}

#[test]
fn a_device_that_is_not_there_is_given_up_with_what_is_known() {
    let base = Base::start();
    let reason = Home::new().run(&format!("pipe {NOBODY} --timeout 1 --base {}", base.name)).failed(1);
    assert!(reason.contains("did not answer within 1 s") && reason.contains(NOBODY), "{reason}");
    let reason = Home::new().run(&format!("pipe {NOBODY} --timeout 1 --base 127.0.0.1:1")).failed(1);
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn who_waits_hears_why_and_for_how_long() {
    let base = Base::start();
    let mut dialler = Home::new().start(&format!("pipe {NOBODY} --timeout 3600 --base {}", base.name));
    let line = dialler.stderr.line_with("waiting for");
    assert!(line.contains(NOBODY) && line.contains("offline") && line.contains("up to 3600 s"), "{line}");
    dialler.end_by(Signal::SIGINT).failed(1);
}

#[test]
fn a_device_that_runs_something_else_says_so() {
    let base = Base::start();
    let home = Home::new();
    let mut server = home.start(&format!("serve --allow {NOBODY} --target localhost:1 --base {}", base.name));
    server.stderr.line_with("registered at");
    let reason = Home::new().run(&format!("pipe {} --base {}", home.id(), base.name)).failed(1);
    assert!(reason.contains("another command"), "{reason}");
}

#[test]
fn when_the_other_end_dies_the_pipe_has_failed() {
    let base = Base::start();
    let (_home, mut listener, id) = listener(&base, "");
    let mut dialler = Home::new().start(&format!("pipe {id} --base {}", base.name));
    dialler.write(b"hello\n");
    listener.stdout.line_with("hello");
    listener.end_by(Signal::SIGTERM).failed(1);
    let reason = dialler.end().failed(1);
    assert!(reason.contains(&id), "{reason}");
}

#[test]
fn every_command_takes_a_name_for_an_id() {
    let base = Base::start();
    let (_home, mut listener, id) = base.listener("");
    let home = Home::new();
    fs::write(home.path().join("config/bowline/peers.toml"), format!("robot = \"{id}\"\n")).unwrap();
    home.run(&format!("send robot hello --base {}", base.name)).ok();
    listener.stdout.line_with("hello");
    home.run(&format!("ping robot -c 1 --base {}", base.name)).ok();
    let ended = home.run("ping robbot -c 1");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("robbot") && ended.stderr.contains("peers.toml"), "{ended:?}");
}

#[test]
fn who_sends_more_than_the_other_end_takes_is_told_so_and_has_failed() {
    let base = Base::start();
    // Much more than fits anywhere on the way, and so little that it is all on its way before anybody looks.
    for length in [5_000_000, 200_000] {
        let home = Home::new();
        let script = format!(
            "{} pipe --listen --base {} < /dev/null | head -c 10",
            env!("CARGO_BIN_EXE_bowline"),
            base.name
        );
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]).env("XDG_CONFIG_HOME", home.path().join("config"));
        let mut listener = Running::start(&mut command);
        listener.stderr.line_with("registered at");
        let mut dialler = Home::new().start(&format!("pipe {} --json --base {}", home.id(), base.name));
        let mut input = dialler.stdin.take().unwrap();
        // The pipe breaks where the other end takes no more.
        let writing = std::thread::spawn(move || {
            let _ = std::io::Write::write_all(&mut input, &vec![b'x'; length]);
        });
        let ended = dialler.end();
        writing.join().unwrap();
        let reason = ended.failed(1);
        assert!(reason.contains("takes no more") && reason.contains(&home.id()), "{reason}");
        assert_eq!(listener.end().stdout, "x".repeat(10));
    }
}

#[test]
fn a_listener_hears_that_who_dialled_takes_no_more() {
    let base = Base::start();
    let (_home, mut listener, id) = listener(&base, "");
    let home = Home::new();
    let script =
        format!("{} pipe {id} --base {} < /dev/null | head -c 10", env!("CARGO_BIN_EXE_bowline"), base.name);
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script]).env("XDG_CONFIG_HOME", home.path().join("config"));
    let dialler = Running::start(&mut command);
    // It may have ended before it has read all of it.
    let _ = std::io::Write::write_all(listener.stdin.as_mut().unwrap(), &[b'x'; 200_000]);
    let reason = listener.end().failed(1);
    assert!(reason.contains("takes no more"), "{reason}");
    assert_eq!(dialler.end().stdout, "x".repeat(10));
}
