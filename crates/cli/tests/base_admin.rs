//! `bowline base` for whoever operates it: metrics, health, readiness, logs, the list of devices, and what it says of a machine that
//! gives it too little.

#![cfg(unix)]

mod support;

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    process::Command,
};

use nix::sys::signal::Signal;
use support::{Home, NOBODY, Running, ask, eventually, is_installed};

/// A base with an admin address, and more arguments.
struct Base {
    home: Home,
    running: Running,
    /// As devices are given it.
    name: String,
    admin: SocketAddr,
}

impl Base {
    fn start(config: &str, args: &str) -> Self {
        let home = Home::new();
        home.configure(config);
        let mut running =
            home.start(&format!("base --listen 127.0.0.1:0 --state state --admin 127.0.0.1:0 {args}"));
        let name = running.stdout.line_with("base ")["base ".len()..].to_owned();
        let note = running.stderr.line_with("page for people");
        let (_, admin) = note.split_once("http://").unwrap();
        Self { home, running, name, admin: admin.trim_end_matches('/').parse().unwrap() }
    }

    fn device(&self) -> (Home, Running) {
        let home = Home::new();
        let mut running = home.start(&format!("listen --base {}", self.name));
        running.stderr.line_with("registered at");
        (home, running)
    }

    fn get(&self, path: &str) -> (u16, String) {
        ask(self.admin, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin))
    }

    /// The value of a metric, with its labels as they stand on the page.
    fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

#[test]
fn metrics_tell_devices_and_what_was_relayed_and_dropped() {
    let base = Base::start("", "--drain 0");
    assert_eq!(base.metric("bowline_devices{path=\"udp\"}"), 0.0);
    let (home, listener) = base.device();
    eventually(|| base.metric("bowline_devices{path=\"udp\"}") == 1.0);
    let sender = Home::new();
    sender.configure("link_local = false\ndirect = false\n");
    sender.run(&format!("send {} hello --base {}", home.id(), base.name)).ok();
    let relayed = |path| base.metric(&format!("bowline_relayed_messages_total{{path=\"{path}\"}}"));
    eventually(|| relayed("udp") + relayed("tcp") >= 1.0);
    assert!(base.metric("bowline_registrations_total{result=\"new\"}") >= 2.0);
    assert!(base.metric("bowline_verifications_total{of=\"register\"}") >= 2.0);
    assert!(base.metric("bowline_memory_bytes") > 1e6);
    drop((listener, sender));
    let (_, text) = base.get("/metrics");
    assert!(text.ends_with("# EOF\n"), "it is OpenMetrics");
}

#[test]
fn it_is_ready_until_it_drains_and_healthy_for_as_long_as_it_answers() {
    let base = Base::start("", "--drain 3600");
    assert_eq!(base.get("/health"), (200, "ok\n".into()));
    assert_eq!(base.get("/ready"), (200, "ready\n".into()));
    let _device = base.device();
    base.running.signal(Signal::SIGTERM);
    eventually(|| base.get("/ready").0 == 503);
    assert!(base.get("/ready").1.contains("draining"));
    assert_eq!(base.get("/health").0, 200);
}

#[test]
fn nothing_can_be_changed_by_the_admin_address_and_other_sites_cannot_use_it() {
    let base = Base::start("", "--drain 0");
    let of = |method: &str, host: &str| {
        ask(base.admin, &format!("{method} /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).0
    };
    assert_eq!(of("GET", "localhost:4480"), 200);
    assert_eq!(of("GET", "evil.example"), 403);
    assert_eq!(of("POST", "127.0.0.1"), 405);
    assert_eq!(base.get("/etc/passwd").0, 404);
}

#[test]
fn an_admin_address_that_is_taken_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let args = format!("base --listen 127.0.0.1:0 --state state --admin {address}");
    let reason = Home::new().run(&args).failed(1);
    assert!(reason.contains(&address.to_string()) && reason.contains("admin"), "{reason}");
}

#[test]
fn on_sighup_the_list_of_devices_is_read_again_and_what_is_wrong_with_it_is_told_with_its_line() {
    let device = Home::new();
    let id = device.id();
    let base = {
        let list = device.path().join("allow");
        fs::write(&list, format!("{id} # mine\n")).unwrap();
        Base::start(&format!("[base]\nallow_file = {list:?}\n"), "-v --drain 0")
    };
    let mut listener = device.start(&format!("listen --base {}", base.name));
    listener.stderr.line_with("registered at");
    let mut running = base.running;
    running.signal(Signal::SIGHUP);
    // Not the line before, which says that files are about to be read: this one is written to now.
    running.stderr.line_with("list of allowed devices was read again");
    fs::write(device.path().join("allow"), "robot7\n").unwrap();
    running.signal(Signal::SIGHUP);
    let told = running.stderr.line_with("robot7");
    assert!(told.contains("line 1") && told.contains("stays in force"), "{told}");
    fs::write(device.path().join("allow"), "").unwrap();
    running.signal(Signal::SIGHUP);
    running.stderr.line_with("no longer allowed");
    listener.stderr.line_with("not on the list");
    running.end_by(Signal::SIGTERM).ok();
    drop(base.home);
}

#[cfg(target_os = "linux")]
#[test]
fn a_list_that_cannot_be_read_for_want_of_descriptors_is_read_when_there_are_some_again() {
    if !is_installed("prlimit") {
        return;
    }
    let folder = Home::new();
    let list = folder.path().join("allow");
    fs::write(&list, "").unwrap();
    let base = Base::start(&format!("[base]\nallow_file = {list:?}\n"), "-v --drain 0");
    let mut running = base.running;
    let pid = running.id().to_string();
    let may_have = |descriptors| {
        let limit = format!("--nofile={descriptors}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    may_have(3);
    fs::write(&list, format!("{NOBODY}\n")).unwrap();
    let told = running.stderr.line_with("cannot be read");
    assert!(told.contains("stays in force"), "{told}");
    may_have(1_024);
    running.stderr.line_with("list of allowed devices was read again");
    let told = running.end_by(Signal::SIGTERM).ok().stderr;
    assert_eq!(told.matches("cannot be read").count(), 1, "it is told once: {told}");
    drop(base.home);
}

#[test]
fn who_only_reaches_out_is_told_to_name_a_key_where_the_base_has_a_list() {
    let device = Home::new();
    let base = Base::start(&format!("[base]\nallow = [\"{}\"]\n", device.id()), "--drain 0");
    let other = Home::new().id();
    for (command, message) in [("send", " hello"), ("ping -c 1", ""), ("pipe", "")] {
        let args = format!("{command} --timeout 1 --base {} {other}{message}", base.name);
        let reason = device.run(&args).failed(1);
        assert!(reason.contains("not allowed") && reason.contains("--key FILE"), "{args}: {reason}");
    }
    let key = device.key().display().to_string();
    device.run(&format!("send --timeout 20 --key {key} --base {} {other} hello", base.name)).ok();
}

#[test]
fn logs_are_one_json_object_a_line_where_that_is_asked_for() {
    let base = Base::start("", "-v --log-format json --drain 0");
    let _device = base.device();
    let ended = base.running.end_by(Signal::SIGTERM).ok();
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| !line.starts_with("bowline: ")).collect();
    let objects: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let registered = objects.iter().find(|line| line["message"] == "registered");
    let registered = registered.unwrap_or_else(|| panic!("{objects:?}"));
    assert!(
        registered["level"] == "INFO"
            && registered["device"].is_string()
            && registered["timestamp"].is_string()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_base_with_many_workers_starts_where_a_process_may_have_few_file_descriptors() {
    let home = Home::new();
    home.configure("[base]\nworkers = 64\n");
    let base = "base --listen 127.0.0.1:0 --state state --drain 0";
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n 1024; exec {} {base}", env!("CARGO_BIN_EXE_bowline"))]);
    command
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .current_dir(home.path());
    let mut running = Running::start(&mut command);
    let name = running.stdout.line_with("base ")["base ".len()..].to_owned();
    let devices = [Home::new(), Home::new()];
    let mut listener = devices[0].start(&format!("listen --base {name}"));
    listener.stderr.line_with("registered at");
    let id = devices[0].id();
    devices[1].run(&format!("ping -c 3 -i 0.1 --base {name} {id}")).ok();
}

#[test]
fn a_base_does_not_start_where_not_one_device_could_connect() {
    let home = Home::new();
    let mut command = Command::new("sh");
    let base = "base --listen 127.0.0.1:0 --state state";
    command.args(["-c", &format!("ulimit -n 64; exec {} {base}", env!("CARGO_BIN_EXE_bowline"))]);
    command
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .current_dir(home.path());
    let reason = Running::start(&mut command).end().failed(1);
    assert!(reason.contains("64 file descriptors") && reason.contains("LimitNOFILE"), "{reason}");
}

#[test]
fn too_few_file_descriptors_are_told_at_the_start_and_nobody_who_is_here_suffers_when_they_run_out() {
    let home = Home::new();
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_bowline");
    let base = "base --listen 127.0.0.1:0 --state state --admin 127.0.0.1:0 --drain 0";
    command.args(["-c", &format!("ulimit -n 180; exec {program} {base}")]);
    command
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .current_dir(home.path());
    home.configure("[base]\nworkers = 1\n");
    let mut running = Running::start(&mut command);
    let told = running.stderr.line_with("file descriptors");
    assert!(told.contains("180") && told.contains("LimitNOFILE"), "{told}");
    let name = running.stdout.line_with("base ")["base ".len()..].to_owned();
    let address: SocketAddr = name.split_once('@').unwrap().1.parse().unwrap();
    let note = running.stderr.line_with("page for people");
    let admin: SocketAddr = note.split_once("http://").unwrap().1.trim_end_matches('/').parse().unwrap();

    let device = Home::new();
    let mut listener = device.start(&format!("listen --base {name}"));
    listener.stderr.line_with("registered at");
    // More connections than it has descriptors. Those it cannot serve it closes, so that a device tries elsewhere at once.
    let mut many: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
    let closed = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.read(&mut [0]), Ok(0))
            || matches!(stream.read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset)
    };
    eventually(|| many.iter_mut().filter_map(|stream| closed(stream).then_some(())).count() >= 100);
    let request = format!("GET /health HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(admin, &request).0, 200, "whoever looks after it still gets in");
    drop(many);
    let pinged = Home::new();
    eventually(|| {
        pinged.run(&format!("ping {} -c 1 --timeout 5 --base {name}", device.id())).code == Some(0)
    });
    assert!(listener.is_running() && running.is_running());
}
