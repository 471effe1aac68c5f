//! A base under systemd: the unit that comes with bowline is right, gives away next to nothing, and what it takes away is not missed.

#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

use nix::sys::signal::Signal;
use support::{Home, Running, is_installed};

/// What the unit needs for a fast path on top.
const FAST_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/fast-path.conf");
/// The same for port 443.
const PORT_443: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port-443.conf");
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/bowline-base.service");
/// The exposure that `systemd-analyze security` finds at most, in tenths; 100 is a service with no restrictions.
const EXPOSURE: &str = "--threshold=13";
/// A user with no rights.
const ORDINARY: u32 = 65_534;

#[test]
fn the_unit_is_one_that_systemd_understands_and_finds_safe() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let home = Home::new();
    // The program does not lie where the unit has it.
    let text =
        fs::read_to_string(UNIT).unwrap().replace("/usr/local/bin/bowline", env!("CARGO_BIN_EXE_bowline"));
    let unit = home.path().join("bowline-base.service");
    fs::write(&unit, text).unwrap();
    let analyze = |args: &[&str]| {
        let done = Command::new("systemd-analyze").args(args).arg(&unit).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    };
    let (right, said) = analyze(&["verify", "--man=no", "--recursive-errors=no"]);
    assert!(right && !said.contains("bowline-base.service"), "{said}");
    let (safe, said) = analyze(&["security", "--offline=true", "--no-pager", EXPOSURE]);
    assert!(safe, "{said}");

    let folder = home.path().join("bowline-base.service.d");
    fs::create_dir(&folder).unwrap();
    for (file, name) in [(FAST_PATH, "fast-path.conf"), (PORT_443, "port-443.conf")] {
        fs::copy(file, folder.join(name)).unwrap();
        let (right, said) = analyze(&["verify", "--man=no", "--recursive-errors=no"]);
        assert!(right && !said.contains(name), "{said}");
    }
}

#[test]
fn with_what_comes_for_port_443_it_may_listen_there() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // What holds last.
    let said = fs::read_to_string(UNIT).unwrap() + &fs::read_to_string(PORT_443).unwrap();
    let value_of = |key: &str| {
        let mut values = said.lines().rev().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.next().unwrap_or_default().to_owned()
    };
    let rights = value_of("AmbientCapabilities").to_lowercase();
    let mut rights: Vec<_> = rights.split_whitespace().map(|right| right.replace("cap_", "+")).collect();
    rights.insert(0, "-all".to_owned());
    let rights = rights.join(",");

    let home = Home::new();
    let copy = home.path().join("bowline");
    fs::copy(env!("CARGO_BIN_EXE_bowline"), &copy).unwrap();
    chown(home.path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
    // A network of its own, in which port 443 is free.
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"]);
    command.args([
        "setpriv",
        &format!("--reuid={ORDINARY}"),
        &format!("--regid={ORDINARY}"),
        "--clear-groups",
    ]);
    command.args(["--no-new-privs", &format!("--inh-caps={rights}"), &format!("--ambient-caps={rights}")]);
    command.arg(format!("--bounding-set={rights}"));
    if value_of("PrivateUsers") == "yes" {
        command.args(["unshare", "--user", "--map-root-user"]);
    }
    command.arg(&copy).args("base --listen 127.0.0.1:443 --state state --drain 0".split(' '));
    command.current_dir(home.path()).env("HOME", home.path());
    let mut base = Running::start(&mut command);
    base.stdout.line_with("@127.0.0.1:443");
    base.end_by(Signal::SIGTERM).ok();
}

#[test]
fn as_an_ordinary_user_without_any_rights_it_serves() {
    let program = env!("CARGO_BIN_EXE_bowline");
    let arguments = "base --listen 127.0.0.1:0 --state state --admin 127.0.0.1:0 --drain 0";
    let home = Home::new();
    let mut command = home.bowline(arguments);
    if nix::unistd::geteuid().is_root() {
        // Where others may not look, a copy for them.
        let copy = home.path().join("bowline");
        fs::copy(program, &copy).unwrap();
        for path in [home.path().to_owned(), home.path().join("config"), home.path().join("config/bowline")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            chown(&path, Some(ORDINARY), Some(ORDINARY)).unwrap();
        }
        command = Command::new("setpriv");
        command.args([&format!("--reuid={ORDINARY}"), &format!("--regid={ORDINARY}"), "--clear-groups"]);
        command.args(["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]).arg(&copy);
        command.args(arguments.split(' ')).current_dir(home.path()).env("HOME", home.path());
        command.env("XDG_CONFIG_HOME", home.path().join("config"));
    }
    let mut base = Running::start(&mut command);
    let name = base.stdout.line_with("base ")["base ".len()..].to_owned();
    let mut device = Home::new().start(&format!("listen --base {name}"));
    device.stderr.line_with("registered at");
    base.end_by(Signal::SIGTERM).ok();
}
