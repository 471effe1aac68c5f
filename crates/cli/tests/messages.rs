//! `bowline send` and `bowline listen`: datagrams as lines, as bytes, as JSON, in netcat's manner.

#![cfg(unix)]

mod support;

use nix::sys::signal::Signal;
use support::{Base, Home, NOBODY, Running, names};

#[test]
fn the_words_of_the_command_line_are_one_datagram_and_come_out_as_one_line() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("--once");
    let sent = Home::new().run(&format!("send {id} hello there, world --base {}", base.name)).ok();
    assert_eq!((sent.stdout, sent.stderr), (String::new(), String::new()));
    assert_eq!(listener.end().ok().stdout, "hello there, world\n");
}

#[test]
fn every_line_of_standard_input_is_a_datagram_and_empty_ones_are_too() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("-n 3");
    let mut sender = Home::new().start(&format!("send {id} --base {}", base.name));
    sender.write(b"one\n\nno end of line");
    sender.end().ok();
    let mut lines: Vec<String> = listener.end().ok().stdout.lines().map(ToOwned::to_owned).collect();
    lines.sort(); // datagrams may overtake each other on their way from relay to direct
    assert_eq!(lines, ["", "no end of line", "one"]);
}

#[test]
fn a_line_leaves_as_soon_as_it_is_typed() {
    let base = Base::start();
    let (_home, mut listener, id) = base.listener("");
    let mut sender = Home::new().start(&format!("send {id} --base {}", base.name));
    for line in ["first", "second", "third"] {
        sender.write(format!("{line}\n").as_bytes());
        listener.stdout.line_with(line);
    }
    sender.end().ok();
}

#[test]
fn raw_bytes_come_out_as_they_went_in() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("--raw --once");
    let bytes: Vec<u8> = (0..1000).map(|i| (i % 7) as u8 + b'a').collect();
    let mut sender = Home::new().start(&format!("send {id} --raw --base {}", base.name));
    sender.write(&bytes);
    sender.end().ok();
    assert_eq!(listener.end().ok().stdout.as_bytes(), bytes, "not a byte more, not even a line feed");
}

#[test]
fn the_sender_is_shown_where_it_is_asked_for() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("--once --from");
    let sender = Home::new();
    let from = sender.id();
    sender.run(&format!("send {id} hi --key {} --base {}", sender.key().display(), base.name)).ok();
    assert_eq!(listener.end().ok().stdout, format!("{from} hi\n"));
}

#[test]
fn json_is_one_object_per_datagram_and_nothing_else() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("--json -n 2");
    let sender = Home::new();
    for message in ["text", "\u{e9}\t\"quoted\""] {
        let mut command = sender.bowline(&format!("send {id} --base {}", base.name));
        Running::start(command.arg(message)).end().ok();
    }
    let objects = listener.end().ok().json();
    assert_eq!(names(&objects[0]), ["address", "data", "from", "path"]);
    assert_eq!((&objects[0]["data"], &objects[1]["data"]), (&"text".into(), &"\u{e9}\t\"quoted\"".into()));
    for object in &objects {
        object["from"].as_str().unwrap().parse::<bowline_proto::DeviceId>().unwrap();
        let path = object["path"].as_str().unwrap();
        assert!(["relay-tcp", "relay-udp", "direct"].contains(&path), "{object}");
        assert_eq!(object["address"].is_string(), path == "direct", "{object}");
    }
}

#[test]
fn the_id_and_the_base_are_told_on_standard_error() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("");
    let ended = listener.end_by(Signal::SIGINT).ok();
    assert!(ended.stdout.is_empty());
    assert!(ended.stderr.contains(&format!("listening as {id}")), "{ended:?}");
    assert!(ended.stderr.contains(&format!("registered at {}", base.name)), "{ended:?}");
}

#[test]
fn ctrl_c_ends_listening_well_unless_more_datagrams_were_asked_for() {
    let base = Base::start();
    let (_home, listener, _) = base.listener("");
    listener.end_by(Signal::SIGTERM).ok();
    let (_home, mut listener, id) = base.listener("-n 2");
    Home::new().run(&format!("send {id} one --base {}", base.name)).ok();
    listener.stdout.line_with("one");
    let reason = listener.end_by(Signal::SIGINT).failed(1);
    assert!(reason.contains("1 of 2"), "{reason}");
}

#[test]
fn a_reader_that_leaves_ends_listening_quietly() {
    let base = Base::start();
    let home = Home::new();
    // head leaves after the first line; the second one has nowhere to go.
    let script = format!(
        "{} listen --base {} | head -n 1; echo status ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_bowline"),
        base.name
    );
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script]).env("XDG_CONFIG_HOME", home.path().join("config"));
    let mut pipe = Running::start(&mut command);
    pipe.stderr.line_with("registered at");
    let mut sender = Home::new().start(&format!("send {} --base {}", home.id(), base.name));
    sender.write(b"first\n");
    pipe.stdout.line_with("first");
    // Until it notices, which takes one more datagram that arrives.
    let status = loop {
        sender.write(b"second\n");
        if let Some(status) = pipe.stdout.line_with_within("status", std::time::Duration::from_millis(200)) {
            break status;
        }
    };
    assert_eq!(status, "status 0");
    let ended = pipe.end();
    assert!(!ended.stderr.contains("pipe") && !ended.stderr.contains("output"), "{ended:?}");
}

#[test]
fn a_message_too_large_is_refused_with_the_limit_before_anything_is_waited_for() {
    let home = Home::new();
    let mut command = home.bowline(&format!("send {NOBODY} --timeout 3600 --base 127.0.0.1:1"));
    let mut sender = Running::start(&mut command);
    sender.write(&[b'x'; 20_000]);
    let reason = sender.end().failed(1);
    assert!(reason.contains("line 1") && reason.contains("16000"), "{reason}");
    let mut command = home.bowline(&format!("send {NOBODY} --timeout 3600 --base 127.0.0.1:1"));
    let reason = Running::start(command.arg("x".repeat(16_001))).end().failed(1);
    assert!(reason.contains("16001") && reason.contains("16000"), "{reason}");
}

#[test]
fn a_message_of_the_largest_size_arrives_whole() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("--once");
    let message = "x".repeat(16_000);
    let home = Home::new();
    let mut command = home.bowline(&format!("send {id} --base {}", base.name));
    Running::start(command.arg(&message)).end().ok();
    assert_eq!(listener.end().ok().stdout, format!("{message}\n"));
}

#[test]
fn without_a_base_sending_ends_in_time_and_says_why() {
    let home = Home::new();
    let reason = home.run(&format!("send {NOBODY} hello --timeout 0.5 --base 127.0.0.1:1")).failed(1);
    assert!(reason.contains("0.5 s") && reason.contains("refused"), "{reason}");
    let reason = home.run(&format!("send {NOBODY} hello --timeout 0.2")).failed(1);
    assert!(reason.contains("no base is configured") && reason.contains("BOWLINE_BASE"), "{reason}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let base = Base::start();
    for raw in ["", "--raw"] {
        let home = Home::new();
        let mut command = home.bowline(&format!("send {NOBODY} {raw} --base {}", base.name));
        let input = std::fs::File::open(home.path()).unwrap();
        let sent = command.stdin(input).output().unwrap();
        let reason = String::from_utf8_lossy(&sent.stderr);
        assert_eq!(sent.status.code(), Some(1), "{reason}");
        assert!(reason.contains("standard input cannot be read"), "{reason}");
    }
}

#[test]
fn a_sender_waits_for_its_base_to_come_up() {
    let base = Base::start();
    let (home, address) = (base.home, base.name.split_once('@').unwrap().1.to_owned());
    base.running.end_by(Signal::SIGTERM).ok();
    let mut sender = Home::new().start(&format!("send {NOBODY} --base {address} -v"));
    sender.write(b"hello\n");
    sender.stderr.line_with("refused");
    let mut again = home.start(&format!("base --listen {address} --state state --drain 0"));
    again.stdout.line_with("base ");
    sender.end().ok();
}

#[test]
fn ctrl_c_ends_a_sender_that_waits() {
    let home = Home::new();
    let mut sender = home.start(&format!("send {NOBODY} hello --timeout 3600 --base 127.0.0.1:1 -v"));
    sender.stderr.line_with("refused");
    assert_eq!(sender.end_by(Signal::SIGINT).failed(1), "interrupted");
}

#[test]
fn pings_are_answered_unseen_unless_echo_is_off() {
    let base = Base::start();
    let (_home, listener, id) = base.listener("-n 1");
    let ping = format!("ping {id} -c 1 --timeout 0.5 --base {}", base.name);
    Home::new().run(&ping).ok();
    Home::new().run(&format!("send {id} after the ping --base {}", base.name)).ok();
    assert_eq!(listener.end().ok().stdout, "after the ping\n");

    let (_home, listener, id) = base.listener("-n 1 --no-echo --json");
    let ping = format!("ping {id} -c 1 --timeout 0.5 --base {}", base.name);
    Home::new().run(&ping).failed(1);
    let printed = listener.end().ok().json();
    let request = printed[0].get("data").or(printed[0].get("data_base64")).unwrap();
    assert!(!request.as_str().unwrap().is_empty());
}
