//! `bowline send-file` and `bowline receive`: whole files under their names, or none.

#![cfg(unix)]

mod support;

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use support::{Base, Home, NOBODY, Running, eventually, names};

/// Large enough to be interrupted.
const LARGE: usize = 60_000_000;

/// A device that receives into a folder of its home; its home, the process, its ID, the folder.
fn receiver(base: &Base, args: &str) -> (Home, Running, String, PathBuf) {
    let home = Home::new();
    let folder = home.path().join("in");
    fs::create_dir(&folder).unwrap();
    let mut running = home.start(&format!("receive in --json {args} --base {}", base.name));
    running.stderr.line_with("registered at");
    let id = home.id();
    (home, running, id, folder)
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    (0..length as u64).map(|at| (((at + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 56) as u8).collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Waits until a part of a file is there.
fn part_of(folder: &Path, at_least: u64) -> PathBuf {
    let find = || {
        let part = entries(folder).into_iter().find(|name| name.ends_with(".part"))?;
        let part = folder.join(part);
        fs::metadata(&part).is_ok_and(|found| found.len() >= at_least).then_some(part)
    };
    let mut found = None;
    eventually(|| {
        found = find();
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn files_arrive_whole_under_their_names_and_both_sides_say_so() {
    let base = Base::start();
    let (_receiver, running, id, folder) = receiver(&base, "--once");
    let sender = Home::new();
    let contents = [("empty", vec![]), ("a file.bin", bytes(3_000_000, 1))];
    for (name, content) in &contents {
        fs::write(sender.path().join(name), content).unwrap();
    }
    let mut command = sender.bowline("send-file --json");
    command.arg("empty").arg("a file.bin").arg(&id).args(["--base", &base.name]);
    let sent = Running::start(&mut command).end().ok().json();
    assert_eq!(
        names(&sent[1]),
        ["address", "blake3", "bytes", "bytes_per_second", "file", "path", "resumed_from", "seconds"]
    );
    let received = running.end().ok().json();
    assert_eq!(names(&received[1]), ["blake3", "bytes", "file", "from", "resumed_from"]);
    assert_eq!(received[1]["from"], sender.id());
    for ((name, content), (sent, received)) in contents.iter().zip(sent.iter().zip(&received)) {
        assert!(fs::read(folder.join(name)).unwrap() == *content, "{name}");
        assert_eq!((&sent["blake3"], &sent["bytes"]), (&received["blake3"], &content.len().into()));
        assert_eq!(received["file"], *name);
    }
    assert_eq!(entries(&folder), ["a file.bin", "empty"], "and no part is left");
}

#[test]
fn an_interrupted_file_goes_on_where_it_ended_and_is_not_there_before() {
    let base = Base::start();
    let (_receiver, mut running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    let content = bytes(LARGE, 2);
    fs::write(sender.path().join("large"), &content).unwrap();
    let send = format!("send-file large {id} --json --base {}", base.name);
    let first = sender.start(&send);
    part_of(&folder, 1_000_000);
    first.end_by(Signal::SIGINT).failed(1);
    assert!(!folder.join("large").exists());
    running.stderr.line_with("was not received");
    let sent = sender.run(&send).ok().json();
    assert!(sent[0]["resumed_from"].as_u64().unwrap() >= 1_000_000, "{sent:?}");
    assert!(fs::read(folder.join("large")).unwrap() == content);
    assert_eq!(entries(&folder), ["large"]);
}

#[test]
fn who_receives_once_waits_for_the_rest_of_what_was_interrupted() {
    let base = Base::start();
    let (_receiver, mut running, id, folder) = receiver(&base, "--once");
    let sender = Home::new();
    fs::write(sender.path().join("small"), "x").unwrap();
    let content = bytes(LARGE, 11);
    fs::write(sender.path().join("large"), &content).unwrap();
    let send = format!("send-file small large {id} --base {}", base.name);
    let first = sender.start(&send);
    part_of(&folder, 1_000_000);
    first.end_by(Signal::SIGINT).failed(1);
    running.stderr.line_with("was not received");
    // The connection of one that is killed ends after the next one's has begun, or has sent everything.
    let second = sender.start(&send);
    part_of(&folder, 5_000_000);
    second.end_by(Signal::SIGKILL);
    sender.run(&send).ok();
    running.end().ok();
    assert!(fs::read(folder.join("large")).unwrap() == content);
}

#[test]
fn a_part_of_other_bytes_is_not_gone_on_with() {
    let base = Base::start();
    let (_receiver, mut running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    fs::write(sender.path().join("large"), bytes(LARGE, 3)).unwrap();
    let send = format!("send-file large {id} --json --base {}", base.name);
    let first = sender.start(&send);
    part_of(&folder, 1_000_000);
    first.end_by(Signal::SIGINT).failed(1);
    running.stderr.line_with("was not received");
    let other = bytes(LARGE, 4);
    fs::write(sender.path().join("large"), &other).unwrap();
    assert_eq!(sender.run(&send).ok().json()[0]["resumed_from"], 0);
    assert!(fs::read(folder.join("large")).unwrap() == other);
}

#[test]
fn a_receiver_that_dies_and_comes_back_gets_the_rest() {
    let base = Base::start();
    let (home, running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    let content = bytes(LARGE, 5);
    fs::write(sender.path().join("large"), &content).unwrap();
    let sending = sender.start(&format!("send-file large {id} --json --base {}", base.name));
    part_of(&folder, 1_000_000);
    running.end_by(Signal::SIGKILL);
    let mut again = home.start(&format!("receive in --json --base {}", base.name));
    again.stderr.line_with("registered at");
    let sent = sending.end().ok().json();
    assert!(sent[0]["resumed_from"].as_u64().unwrap() >= 1_000_000, "{sent:?}");
    assert!(fs::read(folder.join("large")).unwrap() == content);
}

#[test]
fn a_file_of_that_name_stays_unless_it_is_to_be_replaced() {
    let base = Base::start();
    let (home, running, id, folder) = receiver(&base, "");
    fs::write(folder.join("file"), "mine").unwrap();
    let sender = Home::new();
    fs::write(sender.path().join("file"), "yours").unwrap();
    let send = format!("send-file file {id} --base {}", base.name);
    let reason = sender.run(&send).failed(1);
    assert!(reason.contains("--replace") && reason.contains("'file'"), "{reason}");
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "mine");
    running.end_by(Signal::SIGTERM).ok();
    let mut again = home.start(&format!("receive in --replace --base {}", base.name));
    again.stderr.line_with("registered at");
    sender.run(&send).ok();
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "yours");
}

#[test]
fn more_files_than_a_process_may_have_open_are_sent_and_a_refused_one_keeps_none_of_the_others_back() {
    const FILES: usize = 100;
    let base = Base::start();
    let (_receiver, _running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    let name = |number: usize| format!("file{number:03}");
    for number in 0..FILES {
        fs::write(sender.path().join(name(number)), [number as u8]).unwrap();
    }
    fs::write(folder.join(name(7)), "mine").unwrap();
    let script = format!("ulimit -n 64; exec \"$0\" send-file file* {id} --base {}", base.name);
    let bowline = sender.bowline("");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_bowline")]).current_dir(sender.path());
    command.envs(bowline.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let sent = Running::start(&mut command).end();
    let reason = sent.failed(1);
    assert!(reason.contains(&format!("1 of {FILES} files")), "{reason}");
    assert!(
        sent.stderr.contains("file007: ") && sent.stderr.contains("has a file 'file007' already"),
        "{sent:?}"
    );
    assert_eq!(fs::read_to_string(folder.join(name(7))).unwrap(), "mine");
    let others = (0..FILES).filter(|&number| number != 7);
    assert!(others.clone().all(|number| fs::read(folder.join(name(number))).unwrap() == [number as u8]));
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_told_of_as_what_it_is_here() {
    let base = Base::start();
    let (_receiver, _running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    let send = |name: &str| {
        fs::write(sender.path().join(name), bytes(LARGE, 10)).unwrap();
        let sending = sender.start(&format!("send-file {name} {id} --base {}", base.name));
        part_of(&folder, 1_000_000);
        (fs::File::options().append(true).open(sender.path().join(name)).unwrap(), sending)
    };
    let (mut file, sending) = send("grows");
    file.write_all(b"more").unwrap();
    let sent = sending.end().ok();
    assert!(sent.stderr.contains("grows changed while it was sent"), "{sent:?}");
    assert_eq!(fs::metadata(folder.join("grows")).unwrap().len(), LARGE as u64);
    let (file, sending) = send("shrinks");
    file.set_len(1).unwrap();
    let reason = sending.end().failed(1);
    assert_eq!(reason, "shrinks: became shorter while it was sent");
}

#[test]
fn a_file_that_is_sent_again_is_there_already_unless_it_is_another_by_now_at_either_end() {
    let base = Base::start();
    let (_receiver, _running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    let send = format!("send-file empty file {id} --json --base {}", base.name);
    let write = |content: &str| fs::write(sender.path().join("file"), content).unwrap();
    write("once");
    fs::write(sender.path().join("empty"), "").unwrap();
    let resumed = |sent: Vec<serde_json::Value>| [0, 1].map(|at| sent[at]["resumed_from"].as_u64().unwrap());
    assert_eq!(resumed(sender.run(&send).ok().json()), [0, 0]);
    assert_eq!(resumed(sender.run(&send).ok().json()), [0, 4]);
    write("more");
    let sent = sender.run(&send);
    assert!(
        sent.failed(1).contains("1 of 2") && sent.stderr.contains("has a file 'file' already"),
        "{sent:?}"
    );
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "once");
    write("once");
    fs::write(folder.join("file"), "mine now").unwrap();
    let sent = sender.run(&send);
    assert!(
        sent.failed(1).contains("1 of 2") && sent.stderr.contains("has a file 'file' already"),
        "{sent:?}"
    );
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "mine now");
}

#[test]
fn who_was_killed_may_send_again_at_once_and_goes_on() {
    let base = Base::start();
    let (_receiver, mut running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    let content = bytes(LARGE, 7);
    fs::write(sender.path().join("large"), &content).unwrap();
    let send = format!("send-file large {id} --json --base {}", base.name);
    let first = sender.start(&send);
    part_of(&folder, 1_000_000);
    first.end_by(Signal::SIGKILL);
    let sent = sender.run(&send).ok().json();
    assert!(sent[0]["resumed_from"].as_u64().unwrap() >= 1_000_000, "{sent:?}");
    assert!(fs::read(folder.join("large")).unwrap() == content);
    running.stderr.line_with("has given it up");
}

#[test]
fn a_sender_that_was_killed_is_missed_once_its_base_says_that_it_is_gone() {
    let base = Base::start();
    let (_receiver, mut running, id, folder) = receiver(&base, "");
    let sender = Home::new();
    // Without UDP to the base its registration ends with its TCP connection, instead of half a minute later.
    sender.configure("link_local = false\nrelay_udp = false\n");
    fs::write(sender.path().join("large"), bytes(LARGE, 8)).unwrap();
    let sending = sender.start(&format!("send-file large {id} --base {}", base.name));
    part_of(&folder, 1_000_000);
    sending.end_by(Signal::SIGKILL);
    let told = running.stderr.line_with("was not received");
    assert!(told.contains("is gone"), "{told}");
    assert!(!folder.join("large").exists());
}

/// A receiver whose folder is a file system of its own, of so many MiB; the process, its ID, the folder. `None` where that is forbidden.
fn receiver_on_a_disk_of(mib: usize, base: &Base) -> Option<(Home, Running, String, PathBuf)> {
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "namespaces are forbidden here");
        eprintln!("SKIPPED: namespaces are forbidden here");
        return None;
    }
    let home = Home::new();
    fs::create_dir(home.path().join("in")).unwrap();
    let id = home.id();
    let script = format!(
        "mount -t tmpfs -o size={mib}m none in && exec {} receive in --base {}",
        env!("CARGO_BIN_EXE_bowline"),
        base.name
    );
    let receive = home.bowline("");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).current_dir(home.path());
    for (name, value) in receive.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        command.env(name, value);
    }
    let mut receiver = Running::start(&mut command);
    receiver.stderr.line_with("registered at");
    let root = PathBuf::from(format!("/proc/{}/root", receiver.id()));
    let folder = root.join(home.path().strip_prefix("/").unwrap()).join("in");
    Some((home, receiver, id, folder))
}

#[test]
fn a_disk_without_room_is_said_to_be_full_before_anything_is_sent() {
    let base = Base::start();
    let Some((_home, _receiver, id, _folder)) = receiver_on_a_disk_of(1, &base) else { return };
    let sender = Home::new();
    fs::write(sender.path().join("file"), bytes(2_000_000, 6)).unwrap();
    let reason = sender.run(&format!("send-file file {id} --base {}", base.name)).failed(1);
    assert!(reason.contains("no room") && reason.contains("2000000 bytes are needed"), "{reason}");
}

#[test]
fn a_folder_that_nothing_can_be_written_into_is_wrong_use() {
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "namespaces are forbidden here");
        eprintln!("SKIPPED: namespaces are forbidden here");
        return;
    }
    let home = Home::new();
    fs::create_dir(home.path().join("in")).unwrap();
    let script = "mount -t tmpfs -o ro none in && exec \"$0\" receive in --base 127.0.0.1:9";
    let bowline = home.bowline("");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_bowline")]).current_dir(home.path());
    command.envs(bowline.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut receiving = Running::start(&mut command);
    let told = receiving.stderr.line_with("nothing can be written");
    assert!(told.contains("/in") && told.contains("Read-only"), "{told}");
    receiving.end().failed(2);
}

#[test]
fn a_disk_that_fills_up_is_told_at_both_ends_and_with_room_the_file_goes_on() {
    let base = Base::start();
    let Some((_home, mut receiver, id, folder)) = receiver_on_a_disk_of(64, &base) else { return };
    let sender = Home::new();
    let content = bytes(LARGE, 9);
    fs::write(sender.path().join("large"), &content).unwrap();
    let send = format!("send-file large {id} --json --base {}", base.name);
    let sending = sender.start(&send);
    part_of(&folder, 1_000_000);
    let filler = folder.join("filler");
    let mut filling = fs::File::create(&filler).unwrap();
    let full = std::iter::repeat_with(|| filling.write_all(&[0; 1 << 20])).find_map(Result::err).unwrap();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let reason = sending.end().failed(1);
    assert!(reason.contains("no room left"), "{reason}");
    receiver.stderr.line_with("no room left");
    assert!(!folder.join("large").exists());
    let part = fs::metadata(part_of(&folder, 1_000_000)).unwrap().len();
    drop(filling);
    fs::remove_file(filler).unwrap();
    let sent = sender.run(&send).ok().json();
    assert_eq!(sent[0]["resumed_from"], part, "{sent:?}");
    assert!(fs::read(folder.join("large")).unwrap() == content);
    assert_eq!(entries(&folder), ["large"]);
}

#[test]
fn who_may_not_send_is_told_so() {
    let base = Base::start();
    let (_receiver, _running, id, folder) = receiver(&base, &format!("--from {NOBODY}"));
    let sender = Home::new();
    fs::write(sender.path().join("file"), "x").unwrap();
    let reason = sender.run(&format!("send-file file {id} --base {}", base.name)).failed(1);
    assert!(reason.contains("allow list"), "{reason}");
    assert!(entries(&folder).is_empty());
}

#[test]
fn what_cannot_be_sent_is_wrong_use_before_anybody_is_dialled() {
    let home = Home::new();
    for (file, what) in [("missing", "cannot be read"), (".", "not a file")] {
        let reason = home.run(&format!("send-file {file} {NOBODY}")).failed(2);
        assert!(reason.contains(what), "{reason}");
    }
    let reason = home.run("receive missing/incoming").failed(2);
    assert!(reason.contains("missing"), "{reason}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_no_length_or_no_writer_is_refused_at_once_and_not_sent_empty() {
    let home = Home::new();
    let pipe = home.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, what) in [(pipe.to_str().unwrap(), "not a file"), ("/proc/self/status", "how long it is")] {
        let mut sending = home.start(&format!("send-file --base 127.0.0.1:9 {path} {NOBODY}"));
        sending.stderr.line_with(what);
        assert_eq!(sending.end().code, Some(2));
    }
}

#[test]
fn the_folder_is_made_and_what_cannot_be_made_is_told_with_what_to_do() {
    let base = Base::start();
    let home = Home::new();
    let mut running = home.start(&format!("receive incoming --once --base {}", base.name));
    running.stderr.line_with("registered at");
    assert!(home.path().join("incoming").is_dir());
    let reason = home.run(&format!("receive nowhere/incoming --base {}", base.name)).failed(2);
    assert!(reason.contains("nowhere/incoming") && reason.contains("make it"), "{reason}");
}
