//! Where bases come from, what the configuration file may say, and how output looks where.

#![cfg(unix)]

mod support;

use support::{Base, Home, NOBODY, Running};

#[test]
fn bases_come_from_the_option_or_the_variable_or_the_file_in_this_order() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let nowhere = "127.0.0.1:1";
    let ping = |file: &str, variable: &str, option: &str| {
        let home = Home::new();
        home.configure(&format!("link_local = false\nbases = [{file:?}]\n"));
        let mut command = home.bowline(&format!("ping {id} -c 1 --timeout 1 {option}"));
        if !variable.is_empty() {
            command.env("BOWLINE_BASE", variable);
        }
        Running::start(&mut command).end().code
    };
    assert_eq!(ping(&base.name, "", ""), Some(0));
    assert_eq!(ping(nowhere, &base.name, ""), Some(0));
    assert_eq!(ping(&base.name, nowhere, ""), Some(1), "the variable overrules the file");
    assert_eq!(ping(nowhere, nowhere, &format!("--base {}", base.name)), Some(0));
    assert_eq!(ping(nowhere, &format!("{nowhere}, {}", base.name), ""), Some(0), "several in the variable");
    let several = format!("--base {nowhere} --base {}", base.name);
    assert_eq!(ping(nowhere, "", &several), Some(0), "several options");
}

#[test]
fn a_file_named_on_the_command_line_replaces_the_default_one() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let home = Home::new();
    let other = home.path().join("other.toml");
    std::fs::write(&other, format!("link_local = false\nbases = [{:?}]\n", base.name)).unwrap();
    home.run(&format!("ping {id} -c 1 --timeout 5 --config {}", other.display())).ok();
    let reason = home.run(&format!("ping {id} --config {}/none.toml", home.path().display())).failed(2);
    assert!(reason.contains("none.toml") && reason.contains("does not exist"), "{reason}");
}

#[test]
fn what_the_file_cannot_mean_is_wrong_use_with_file_and_line() {
    let home = Home::new();
    home.configure("link_local = false\nalow = []\n");
    for command in ["id", "listen", "base", &format!("ping {NOBODY}")] {
        let reason = home.run(command).failed(2);
        assert!(
            reason.contains("config.toml") && reason.contains("line 2") && reason.contains("alow"),
            "{reason}"
        );
    }
}

#[test]
fn a_base_that_cannot_be_parsed_is_wrong_use() {
    let home = Home::new();
    let ended = home.run(&format!("ping {NOBODY} --base nobody@base.example"));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let mut command = home.bowline(&format!("ping {NOBODY}"));
    let reason = Running::start(command.env("BOWLINE_BASE", "base.example:99999")).end().failed(2);
    assert!(reason.contains("BOWLINE_BASE") && reason.contains("99999"), "{reason}");
}

#[test]
fn who_finds_no_base_at_the_address_that_stands_for_all_is_told_what_to_say() {
    let reason = Home::new().run(&format!("ping {NOBODY} --timeout 0.5 --base {NOBODY}@0.0.0.0:9")).failed(1);
    assert!(reason.contains("0.0.0.0") && reason.contains("<its host name>"), "{reason}");
}

#[test]
fn an_allow_list_keeps_others_out() {
    let base = Base::start();
    let (friend, stranger) = (Home::new(), Home::new());
    let home = Home::new();
    home.configure(&format!("link_local = false\nallow = [{:?}]\n", friend.id()));
    let mut listener = home.start(&format!("listen --base {}", base.name));
    listener.stderr.line_with("registered at");
    let ping = format!("ping {} -c 2 -i 0.1 --timeout 1 --base {}", home.id(), base.name);
    stranger.run(&ping).failed(1);
    friend.run(&format!("{ping} --key {}", friend.key().display())).ok();
}

#[test]
fn output_is_plain_in_a_pipe_and_coloured_where_that_is_forced() {
    let home = Home::new();
    assert!(!home.run("id").ok().stdout.contains('\x1b'));
    let mut command = home.bowline("id");
    let forced = Running::start(command.env("CLICOLOR_FORCE", "1")).end().ok();
    assert!(forced.stdout.contains('\x1b'));
    let mut command = home.bowline("id --json");
    let forced = Running::start(command.env("CLICOLOR_FORCE", "1")).end().ok();
    assert!(!forced.stdout.contains('\x1b'), "never in JSON");
}

#[test]
fn logs_go_to_standard_error_when_asked_for() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let home = Home::new();
    let send = format!("send {id} hello --base {}", base.name);
    assert!(home.run(&send).ok().stderr.is_empty());
    let verbose = home.run(&format!("{send} -v")).ok();
    assert!(verbose.stdout.is_empty() && verbose.stderr.contains("Registered"), "{verbose:?}");
    let mut command = home.bowline(&send);
    let filtered = Running::start(command.env("RUST_LOG", "info")).end().ok();
    assert!(filtered.stderr.contains("Registered"), "{filtered:?}");
    let mut command = home.bowline(&format!("{send} -v"));
    let filtered = Running::start(command.env("RUST_LOG", "error")).end().ok();
    assert!(filtered.stderr.is_empty(), "RUST_LOG has precedence: {filtered:?}");
}
