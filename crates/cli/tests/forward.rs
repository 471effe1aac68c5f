//! `bowline forward` and `bowline serve`: sockets here and there, and nothing that is not allowed.

#![cfg(unix)]

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
    thread,
};

use nix::sys::signal::Signal;
use support::{Base, Home, NOBODY, Running, names};

/// Sends back what comes, until its end; its port.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let _ = std::io::copy(&mut socket.try_clone().unwrap(), &mut socket);
                let _ = socket.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// A device that serves these to that friend.
fn server(base: &Base, friend: &Home, args: &str) -> (Home, Running, String) {
    let home = Home::new();
    let mut running = home.start(&format!("serve --allow {} {args} --base {}", friend.id(), base.name));
    running.stderr.line_with("registered at");
    let id = home.id();
    (home, running, id)
}

/// A forward that stands; where it listens.
fn forward(home: &Home, base: &Base, args: &str) -> (Running, String) {
    let mut running = home.start(&format!("forward --json {args} --base {}", base.name));
    let line: serde_json::Value = serde_json::from_str(&running.stdout.line_with("listening")).unwrap();
    let listening = line["listening"].as_str().unwrap();
    (running, listening.rsplit(' ').next().unwrap().to_owned())
}

fn there_and_back(mut socket: TcpStream, bytes: Vec<u8>) {
    let mut reader = socket.try_clone().unwrap();
    let expected = bytes.clone();
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    });
    socket.write_all(&bytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    reading.join().unwrap();
}

#[test]
fn a_port_here_is_a_port_there_for_many_at_a_time_and_the_end_of_one_way_leaves_the_other() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (_home, _server, id) = server(&base, &friend, &format!("--target 127.0.0.1:{port}"));
    let (forward, address) = forward(&friend, &base, &format!("-L 0:127.0.0.1:{port} {id}"));
    let clients: Vec<_> = (0..40)
        .map(|number: usize| {
            let address = address.clone();
            let bytes = vec![number as u8; 50_000 + number];
            thread::spawn(move || there_and_back(TcpStream::connect(address).unwrap(), bytes))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    forward.end_by(Signal::SIGINT).ok();
}

#[test]
fn who_connects_to_localhost_gets_through_by_either_address() {
    // Nothing else is there to connect to without IPv6.
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (_home, _server, id) = server(&base, &friend, &format!("--target 127.0.0.1:{port} --listen 0"));
    for forwards in ["-L 0", "-R 0"] {
        let (_forward, address) = forward(&friend, &base, &format!("{forwards}:127.0.0.1:{port} {id}"));
        let at = address.strip_prefix("127.0.0.1:").unwrap();
        for address in [format!("127.0.0.1:{at}"), format!("[::1]:{at}")] {
            there_and_back(TcpStream::connect(address).unwrap(), vec![7; 10_000]);
        }
        // One that somebody else has is refused, and not left out.
        let reason = friend.run(&format!("forward -L {at}:127.0.0.1:{port} {id} --base {}", base.name));
        assert!(reason.failed(1).contains("in use"), "{reason:?}");
    }
}

#[test]
fn a_command_whose_terminal_is_closed_takes_its_leave_unless_it_was_told_to_stay() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (_home, mut server, id) = server(&base, &friend, &format!("--json --target 127.0.0.1:{port}"));
    // Whatever whoever runs this test does on SIGHUP.
    let start = |on_hangup: &str| {
        let bowline = friend.bowline("");
        let args = format!("forward --json -L 0:127.0.0.1:{port} {id} --base {}", base.name);
        let mut command = Command::new("env");
        command.args([on_hangup, env!("CARGO_BIN_EXE_bowline")]).args(args.split(' '));
        command.envs(bowline.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut running = Running::start(&mut command);
        let line: serde_json::Value = serde_json::from_str(&running.stdout.line_with("listening")).unwrap();
        (running, line["listening"].as_str().unwrap().to_owned())
    };
    let (running, _) = start("--default-signal=HUP");
    server.stdout.line_with("\"connected\":true");
    running.end_by(Signal::SIGHUP).ok();
    server.stdout.line_with("\"connected\":false");

    // As `nohup` does.
    let (running, listening) = start("--ignore-signal=HUP");
    running.signal(Signal::SIGHUP);
    there_and_back(TcpStream::connect(listening).unwrap(), vec![7; 10_000]);
    running.end_by(Signal::SIGINT).ok();
}

#[test]
fn what_is_not_in_the_list_is_refused_with_the_reason_on_both_sides() {
    let (base, friend) = (Base::start(), Home::new());
    let (_home, mut server, id) = server(&base, &friend, "--target localhost:1");
    let (mut forward, address) = forward(&friend, &base, &format!("-L 0:localhost:22 {id}"));
    let mut socket = TcpStream::connect(address).unwrap();
    assert_eq!(socket.read(&mut [0; 10]).unwrap_or(0), 0, "it is closed at once");
    let line: serde_json::Value = serde_json::from_str(&forward.stdout.line_with("error")).unwrap();
    let error = line["error"].as_str().unwrap();
    assert!(error.contains(&id) && error.contains("refused localhost:22: not in its allow list"), "{error}");
    server.stderr.line_with("refused localhost:22");
}

#[test]
fn a_target_that_does_not_answer_is_told_apart_from_one_that_is_refused() {
    let (base, friend) = (Base::start(), Home::new());
    let (_home, _server, id) = server(&base, &friend, "--target 127.0.0.1:1");
    let (mut forward, address) = forward(&friend, &base, &format!("-L 0:127.0.0.1:1 {id}"));
    let _socket = TcpStream::connect(address).unwrap();
    let line = forward.stdout.line_with("error");
    assert!(line.contains("could not connect to 127.0.0.1:1") && line.contains("refused"), "{line}");
}

#[test]
fn a_stranger_does_not_get_in() {
    let (base, friend) = (Base::start(), Home::new());
    let (_home, mut server, id) = server(&base, &friend, "--json --target localhost:1");
    let stranger = Home::new();
    let reason = stranger.run(&format!("forward -L 0:localhost:1 {id} --base {}", base.name)).failed(1);
    assert!(reason.contains("allow list") && reason.contains(&stranger.id()), "{reason}");
    let told = server.stderr.line_with("refused");
    assert!(told.contains(&format!("--allow {}", stranger.id())), "{told}");
    let reason = stranger.run(&format!("forward -R 0:localhost:1 {id} --base {}", base.name)).failed(1);
    assert!(reason.contains("allow list") && reason.contains(&stranger.id()), "{reason}");
    // Once is enough.
    let ended = server.end_by(Signal::SIGTERM).ok();
    let lines = ended.json();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["device"], &lines[0]["refused"]), (&stranger.id().into(), &true.into()));
    assert_eq!(ended.stderr.matches("refused").count(), 1, "{ended:?}");
}

#[test]
fn nothing_is_served_unless_it_is_said_what_and_to_whom() {
    let base = Base::start();
    for args in [String::new(), format!("--allow {NOBODY}"), "--target localhost:22".to_owned()] {
        let reason = Home::new().run(&format!("serve {args} --base {}", base.name)).failed(2);
        assert!(reason.contains("--allow") && reason.contains("[serve]"), "{reason}");
    }
}

#[test]
fn the_configuration_file_says_what_is_served_by_names_too() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let home = Home::new();
    home.configure("link_local = false\n[serve]\nallow = [\"friend\"]\ntargets = [\"127.0.0.1:*\"]\n");
    let peers = home.path().join("config/bowline/peers.toml");
    std::fs::write(peers, format!("friend = \"{}\"\n", friend.id())).unwrap();
    let mut server = home.start(&format!("serve --base {}", base.name));
    server.stderr.line_with("registered at");
    let (_forward, address) = forward(&friend, &base, &format!("-L 0:127.0.0.1:{port} {}", home.id()));
    there_and_back(TcpStream::connect(address).unwrap(), b"hello".to_vec());
    server.stderr.line_with("friend is connected");
}

#[test]
fn both_ends_report_a_socket_and_a_refusal_for_programs() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (_home, mut server, id) = server(&base, &friend, &format!("--json --target 127.0.0.1:{port}"));
    let proxy = format!("ssh-proxy {id} --json --base {}", base.name);
    let mut dialler = friend.start(&format!("{proxy} --target 127.0.0.1:{port}"));
    dialler.write(b"hello");
    let dialled = dialler.end().ok();
    assert_eq!(dialled.stdout, "hello");
    let reports = dialled.reports();
    assert_eq!(names(&reports[0]), ["address", "device", "path"]);
    assert_eq!(names(&reports[1]), ["address", "device", "path", "received", "seconds", "sent"]);
    assert_eq!((&reports[1]["sent"], &reports[1]["received"]), (&5.into(), &5.into()));
    server.stdout.line_with("\"connected\":false");
    friend.run(&format!("{proxy} --target localhost:22")).failed(1);
    server.stdout.line_with("\"connected\":false");
    let lines = server.end_by(Signal::SIGTERM).ok().json();
    assert!(lines.iter().all(|line| line["device"] == friend.id()), "{lines:?}");
    let (visits, sockets): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.get("connected").is_some());
    assert_eq!(visits.iter().map(|line| &line["connected"]).collect::<Vec<_>>(), [true, false, true, false]);
    assert_eq!(names(sockets[0]), ["device", "error", "received", "sent", "to"]);
    assert_eq!((&sockets[0]["sent"], &sockets[0]["received"]), (&5.into(), &5.into()));
    assert!(sockets[0]["to"] == format!("127.0.0.1:{port}") && sockets[0]["error"].is_null());
    assert!(sockets[1]["error"].as_str().unwrap().contains("allow list"), "{sockets:?}");
}

#[test]
fn unix_sockets_are_forwarded_and_their_files_go_with_the_command() {
    let (base, friend) = (Base::start(), Home::new());
    let there = friend.path().join("there.sock");
    let listener = UnixListener::bind(&there).unwrap();
    let (_home, _server, id) = server(&base, &friend, &format!("--target {}", there.display()));
    let here = friend.path().join("here.sock");
    let (forward, address) =
        forward(&friend, &base, &format!("-L {}:{} {id}", here.display(), there.display()));
    assert_eq!(address, here.to_str().unwrap());
    let mut client = UnixStream::connect(&here).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut target, _) = listener.accept().unwrap();
    let mut text = String::new();
    target.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question");
    target.write_all(b"answer").unwrap();
    drop(target);
    text.clear();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
    forward.end_by(Signal::SIGINT).ok();
    assert!(!here.exists());
}

#[test]
fn the_device_listens_for_who_is_allowed_to_have_it_listen() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (_home, mut server, id) = server(&base, &friend, "--json --listen 0");
    let (_forward, address) = forward(&friend, &base, &format!("-R 0:127.0.0.1:{port} {id}"));
    server.stderr.line_with("listening at");
    let told: serde_json::Value = serde_json::from_str(&server.stdout.line_with("listening")).unwrap();
    assert_eq!((&told["device"], &told["listening"]), (&friend.id().into(), &address.clone().into()));
    there_and_back(TcpStream::connect(address).unwrap(), vec![5; 100_000]);
    let reason =
        friend.run(&format!("forward -R 127.0.0.9:0:127.0.0.1:{port} {id} --base {}", base.name)).failed(1);
    assert!(reason.contains("refused to listen at 127.0.0.9:0: not in its allow list"), "{reason}");
}

#[test]
fn a_device_that_died_and_was_started_again_is_dialled_again() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (home, server, id) = server(&base, &friend, &format!("--target 127.0.0.1:{port}"));
    let (_forward, address) = forward(&friend, &base, &format!("-L 0:127.0.0.1:{port} {id}"));
    there_and_back(TcpStream::connect(&address).unwrap(), b"before".to_vec());
    // It has no time to say goodbye; its successor tells those who still talk to it.
    server.end_by(Signal::SIGKILL);
    let mut again =
        home.start(&format!("serve --allow {} --target 127.0.0.1:{port} --base {}", friend.id(), base.name));
    again.stderr.line_with("registered at");
    there_and_back(TcpStream::connect(&address).unwrap(), b"after".to_vec());
}

#[test]
fn a_device_that_died_and_was_started_again_listens_again() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    // A port that is free: the device has to have the same one again.
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (home, server, id) = server(&base, &friend, &format!("--listen {listen}"));
    let (mut forward, address) = forward(&friend, &base, &format!("-R {listen}:127.0.0.1:{port} {id}"));
    there_and_back(TcpStream::connect(&address).unwrap(), b"before".to_vec());
    server.end_by(Signal::SIGKILL);
    let mut again =
        home.start(&format!("serve --allow {} --listen {listen} --base {}", friend.id(), base.name));
    again.stderr.line_with("listening at");
    there_and_back(TcpStream::connect(&address).unwrap(), b"after".to_vec());
    forward.stderr.line_with("listens again");
}

#[test]
fn a_device_takes_a_place_to_listen_at_over_from_a_forward_of_its_own_that_was_killed_or_still_runs() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_home, _server, id) = server(&base, &friend, &format!("--listen {listen}"));
    let args = format!("-R {listen}:127.0.0.1:{port} {id}");
    let (first, address) = forward(&friend, &base, &args);
    there_and_back(TcpStream::connect(&address).unwrap(), b"first".to_vec());
    first.end_by(Signal::SIGKILL);
    let (second, address) = forward(&friend, &base, &args);
    there_and_back(TcpStream::connect(&address).unwrap(), b"second".to_vec());
    let (_third, address) = forward(&friend, &base, &args);
    there_and_back(TcpStream::connect(&address).unwrap(), b"third".to_vec());
    let reason = second.end().failed(1);
    assert!(reason.contains(&format!("listens at {listen} for another command")), "{reason}");
}

#[test]
fn a_device_that_stops_to_answer_is_told_of_and_so_is_its_return() {
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (_home, server, id) = server(&base, &friend, &format!("--target 127.0.0.1:{port}"));
    let (mut forward, address) = forward(&friend, &base, &format!("-L 0:127.0.0.1:{port} {id}"));
    server.signal(Signal::SIGSTOP);
    let client =
        thread::spawn(move || there_and_back(TcpStream::connect(address).unwrap(), b"hello".to_vec()));
    let line = forward.stderr.line_with("has been silent for 5 s");
    assert!(line.contains(&id) && line.contains("up to 180 s"), "{line}");
    server.signal(Signal::SIGCONT);
    forward.stderr.line_with("answers again");
    client.join().unwrap();
}

#[test]
fn a_device_that_is_gone_holds_no_new_socket_up_for_longer_than_it_may_take_to_dial_it_anew() {
    const SOCKETS: usize = 20;
    let (base, friend) = (Base::start(), Home::new());
    let port = echo_server();
    let (_home, server, id) = server(&base, &friend, &format!("--target 127.0.0.1:{port}"));
    let (mut forward, address) = forward(&friend, &base, &format!("--timeout 3 -L 0:127.0.0.1:{port} {id}"));
    let mut under_way = TcpStream::connect(&address).unwrap();
    under_way.write_all(b"before").unwrap();
    under_way.read_exact(&mut [0; 6]).unwrap();
    server.signal(Signal::SIGSTOP);
    // One after the other they would take a minute.
    let _sockets: Vec<_> = (0..SOCKETS).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for _ in 0..SOCKETS {
        let line = forward.stdout.line_with("error");
        assert!(line.contains(&id) && line.contains("did not answer within 3 s"), "{line}");
    }
    // What was under way goes on where the device comes back, and so does what is new.
    server.signal(Signal::SIGCONT);
    there_and_back(TcpStream::connect(&address).unwrap(), b"after".to_vec());
    there_and_back(under_way, b"after".to_vec());
}

#[test]
fn a_slow_reader_holds_its_writer_up_and_nobody_else() {
    let (base, friend) = (Base::start(), Home::new());
    // Takes connections and never reads.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let (deaf_port, port) = (deaf.local_addr().unwrap().port(), echo_server());
    let args = format!("--target 127.0.0.1:{deaf_port} --target 127.0.0.1:{port}");
    let (_home, _server, id) = server(&base, &friend, &args);
    let (_first, to_deaf) = forward(&friend, &base, &format!("-L 0:127.0.0.1:{deaf_port} {id}"));
    let mut socket = TcpStream::connect(to_deaf).unwrap();
    socket.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let block = vec![0; 1 << 20];
    let taken = (0..200).take_while(|_| socket.write_all(&block).is_ok()).count();
    assert!(taken < 100, "{taken} MiB were taken for a reader that reads nothing");
    let (_second, to_echo) = forward(&friend, &base, &format!("-L 0:127.0.0.1:{port} {id}"));
    there_and_back(TcpStream::connect(to_echo).unwrap(), vec![1; 100_000]);
}
