//! The rules of a key file, each seen from outside.

#![cfg(unix)]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use bowline_key::{KeyError, KeyFile, Malformed};
use tempfile::TempDir;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn put(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The error as its user reads it, which is one sentence and names the file.
fn sentence(path: &Path, error: &KeyError) -> String {
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "does not name the file: {text}");
    assert!(!text.contains('\n') && !text.ends_with('.'), "not one sentence: {text}");
    text
}

#[test]
fn a_key_is_made_at_first_use_and_the_same_ever_after() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    let first = KeyFile::open_or_create(&path).unwrap();
    assert!(first.was_created());
    let content = fs::read(&path).unwrap();
    let second = KeyFile::open_or_create(&path).unwrap();
    assert!(!second.was_created());
    assert_eq!(first.key().device_id(), second.key().device_id());
    assert_eq!(fs::read(&path).unwrap(), content, "the file was touched");
    assert_ne!(
        KeyFile::open_or_create(dir.path().join("other")).unwrap().key().device_id(),
        first.key().device_id()
    );
}

#[test]
fn the_file_is_for_its_owner_alone_and_so_are_the_folders_made_for_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config/bowline/key");
    KeyFile::open_or_create(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&dir.path().join("config/bowline")), 0o700);
    assert_eq!(mode(&dir.path().join("config")), 0o700);
}

#[test]
fn nothing_but_the_key_file_is_left_in_the_folder() {
    let dir = TempDir::new().unwrap();
    KeyFile::open_or_create(dir.path().join("key")).unwrap();
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["key"]);
}

#[test]
fn a_file_that_others_have_any_right_to_is_refused_with_the_remedy() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    KeyFile::open_or_create(&path).unwrap();
    for open in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
        let error = KeyFile::open_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode, .. } if mode == open), "{error}");
        assert!(sentence(&path, &error).contains(&format!("chmod 600 {}", path.display())));
    }
    for closed in [0o600, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(closed)).unwrap();
        KeyFile::open(&path).unwrap();
    }
}

#[test]
fn the_remedy_can_be_pasted_whatever_the_name() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("my 'own' key");
    put(&path, b"", 0o644);
    let error = KeyFile::open(&path).unwrap_err().to_string();
    let command = error.split('`').nth(1).unwrap();
    assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    KeyFile::open_or_create(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(4477), None).unwrap();
    let error = KeyFile::open(&path).unwrap_err();
    assert!(matches!(error, KeyError::Owner { owner: 4477, .. }), "{error}");
    sentence(&path, &error);
}

#[test]
fn only_a_regular_file_is_read_and_a_fifo_holds_nobody_up() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [folder, fifo, socket, "/dev/null".into()] {
        let error = KeyFile::open_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::NotAFile { .. }), "{error}");
        sentence(&path, &error);
    }
}

#[test]
fn a_link_to_a_key_file_is_as_good_as_the_file() {
    let dir = TempDir::new().unwrap();
    let (path, link) = (dir.path().join("key"), dir.path().join("link"));
    let made = KeyFile::open_or_create(&path).unwrap();
    symlink(&path, &link).unwrap();
    assert_eq!(KeyFile::open_or_create(&link).unwrap().key().device_id(), made.key().device_id());
}

#[test]
fn a_link_to_nowhere_is_an_error_and_nothing_is_made() {
    let dir = TempDir::new().unwrap();
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    symlink(&target, &link).unwrap();
    let error = KeyFile::open_or_create(&link).unwrap_err();
    sentence(&link, &error);
    assert!(!target.exists());
}

#[test]
fn a_file_too_large_to_be_a_key_is_not_read_to_its_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    put(&path, b"", 0o600);
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let error = KeyFile::open(&path).unwrap_err();
    assert!(matches!(error, KeyError::TooLarge { .. }), "{error}");
    sentence(&path, &error);
}

#[test]
fn a_malformed_file_is_refused_with_its_line_and_never_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    put(&path, b"# my key\nbowline-key-1 123\n", 0o600);
    let error = KeyFile::open_or_create(&path).unwrap_err();
    assert!(
        matches!(error, KeyError::Malformed { what: Malformed::Length { line: 2, found: 3 }, .. }),
        "{error}"
    );
    assert!(sentence(&path, &error).contains("line 2"));
    assert_eq!(fs::read(&path).unwrap(), b"# my key\nbowline-key-1 123\n");
    put(&path, b"", 0o600);
    assert!(matches!(
        KeyFile::open_or_create(&path).unwrap_err(),
        KeyError::Malformed { what: Malformed::Empty, .. }
    ));
}

#[test]
fn a_missing_file_is_told_apart_and_opening_makes_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("none/key");
    let error = KeyFile::open(&path).unwrap_err();
    assert!(error.is_missing());
    assert_eq!(
        sentence(&path, &error),
        format!("the key file {} cannot be read: No such file or directory", path.display())
    );
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_one_clear_sentence() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    put(&file, b"", 0o600);
    let path = file.join("bowline/key");
    let error = KeyFile::open_or_create(&path).unwrap_err();
    assert!(sentence(&path, &error).ends_with("Not a directory"), "{error}");
}

#[test]
fn a_lock_excludes_others_until_it_is_dropped() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    let one = KeyFile::open_or_create(&path).unwrap();
    let other = KeyFile::open_or_create(&path).unwrap();
    let lock = one.lock().unwrap();
    for file in [&one, &other] {
        let error = file.lock().unwrap_err();
        assert!(matches!(error, KeyError::InUse { .. }), "{error}");
        sentence(&path, &error);
    }
    drop(one);
    assert!(other.lock().is_err(), "the lock lives on its own");
    drop(lock);
    let _lock = other.lock().unwrap();
}

#[test]
fn a_key_that_was_replaced_on_disk_cannot_be_locked_any_more() {
    let dir = TempDir::new().unwrap();
    let (path, new) = (dir.path().join("key"), dir.path().join("new"));
    let read = KeyFile::open_or_create(&path).unwrap();
    KeyFile::open_or_create(&new).unwrap();
    fs::rename(&new, &path).unwrap();
    assert!(matches!(read.lock().unwrap_err(), KeyError::Replaced { .. }));
}

#[test]
fn debug_output_never_shows_the_secret() {
    let dir = TempDir::new().unwrap();
    let file = KeyFile::open_or_create(dir.path().join("key")).unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    let secret = text.lines().find_map(|line| line.strip_prefix("bowline-key-1 ")).unwrap();
    let seed: String = file.key().seed().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(secret, seed);
    assert!(!format!("{file:?}").contains(secret));
}
