//! `bowline id`: who a device is, and the rules of its key file as a user meets them.

#![cfg(unix)]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use support::{Home, names};

#[test]
fn the_key_is_made_at_first_use_for_its_owner_alone_and_kept() {
    let home = Home::new();
    let first = home.run("id").ok();
    assert!(first.stdout.contains("(made just now)"), "{first:?}");
    assert_eq!(fs::metadata(home.key()).unwrap().mode() & 0o777, 0o600);
    let second = home.run("id").ok();
    assert_eq!(second.stdout, first.stdout.replace(" (made just now)", ""));
    assert!(first.stderr.is_empty() && second.stderr.is_empty());
}

#[test]
fn json_is_one_object_with_id_ipv6_form_and_public_key() {
    let home = Home::new();
    let shown = home.run("id --json").ok().json();
    assert_eq!(shown.len(), 1);
    assert_eq!(names(&shown[0]), ["created", "id", "ipv6", "key_file", "public_key"]);
    let text = |member: &str| shown[0][member].as_str().unwrap().to_owned();
    let id: bowline_proto::DeviceId = text("id").parse().unwrap();
    assert_eq!(text("ipv6"), id.to_ipv6().to_string());
    let mut public = [0; 32];
    for (byte, digits) in public.iter_mut().zip(text("public_key").as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    assert_eq!(bowline_proto::DeviceId::of_public_key(&public), id);
}

#[test]
fn another_key_file_is_another_device_by_option_and_by_configuration() {
    let home = Home::new();
    let (default, other) = (home.id(), home.path().join("other"));
    let by_option = home.run(&format!("id --json --key {}", other.display())).ok().json();
    assert_ne!(by_option[0]["id"], default.as_str());
    home.configure(&format!("key = {:?}\n", other.display().to_string()));
    assert_eq!(home.id(), by_option[0]["id"]);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    let home = Home::new();
    home.id();
    fs::set_permissions(home.key(), fs::Permissions::from_mode(0o644)).unwrap();
    for command in ["id", "listen"] {
        let reason = home.run(command).failed(1);
        assert!(reason.contains(&format!("chmod 600 {}", home.key().display())), "{reason}");
    }
    assert_eq!(fs::metadata(home.key()).unwrap().mode() & 0o777, 0o644, "nobody's rights were changed");
}

#[test]
fn a_file_that_is_no_key_is_refused_and_stays_as_it_is() {
    let home = Home::new();
    fs::write(home.key(), "hello\n").unwrap();
    fs::set_permissions(home.key(), fs::Permissions::from_mode(0o600)).unwrap();
    let reason = home.run("id").failed(1);
    assert!(reason.contains("line 1") && reason.contains(home.key().to_str().unwrap()), "{reason}");
    assert_eq!(fs::read_to_string(home.key()).unwrap(), "hello\n");
}

#[test]
fn a_file_that_is_no_key_and_open_to_others_is_not_to_be_closed() {
    let home = Home::new();
    let other = home.path().join("passwd");
    fs::write(&other, "root:x:0:0:root:/root:/bin/bash\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let reason = home.run(&format!("id --key {}", other.display())).failed(1);
    assert!(reason.contains("is no key file") && !reason.contains("chmod"), "{reason}");
}

#[test]
fn a_key_that_was_named_and_is_not_there_is_made_and_that_is_told() {
    let home = Home::new();
    let ping = format!("ping {} --key no/key -c 1 --timeout 0.1 --base 127.0.0.1:1", support::NOBODY);
    let told = home.run(&ping).stderr;
    assert_eq!(told.matches("made a new key").count(), 1, "{told}");
    assert!(told.contains("no/key"), "{told}");
    let told = home.run(&ping).stderr;
    assert!(!told.contains("made a new key"), "{told}");
}

#[test]
fn a_command_that_only_reaches_out_makes_no_key() {
    let home = Home::new();
    home.run(&format!("ping {} -c 1 --timeout 0.1 --base 127.0.0.1:1", support::NOBODY)).failed(1);
    assert!(!home.key().exists());
}
