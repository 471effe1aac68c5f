//! What only several processes, or a disk in trouble, can show. This program starts itself again as the other
//! process: the ignored tests are its roles.

#![cfg(unix)]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use bowline_key::KeyFile;
use tempfile::TempDir;

/// Where a role finds the file it works on.
const FILE: &str = "BOWLINE_KEY_TEST_FILE";

fn file() -> PathBuf {
    env::var_os(FILE).expect("roles are started by the tests below").into()
}

fn command(role: &str) -> Vec<String> {
    let program = env::current_exe().unwrap().into_os_string().into_string().unwrap();
    [&program, role, "--exact", "--ignored", "--nocapture", "--test-threads=1"].map(ToOwned::to_owned).into()
}

fn start(role: &str, path: &Path) -> Child {
    let words = command(role);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(FILE, path).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn line_after(child: &mut BufReader<std::process::ChildStdout>, label: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(child.read_line(&mut line).unwrap(), 0, "the role ended without {label:?}");
        if let Some((_, rest)) = line.split_once(label) {
            return rest.trim().to_owned();
        }
    }
}

#[test]
#[ignore = "a role: waits for the start, then opens or makes the key and says its ID"]
fn role_open_or_create() {
    println!("ready:");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    println!("id: {}", KeyFile::open_or_create(file()).unwrap().key().device_id());
}

#[test]
#[ignore = "a role: holds the lock until its input ends"]
fn role_hold_the_lock() {
    let _lock = KeyFile::open_or_create(file()).unwrap().lock().unwrap();
    println!("locked:");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
#[ignore = "a role: fills the file system of its file, fails to make the key, and says how"]
fn role_full_disk() {
    let path = file();
    let filler = path.parent().unwrap().join("filler");
    fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    println!("error: {}", KeyFile::open_or_create(&path).unwrap_err());
    println!("left: {:?}", names_beside(&path));
    fs::remove_file(filler).unwrap();
    KeyFile::open_or_create(&path).unwrap();
    println!("made:");
}

#[test]
#[ignore = "a role: fails to make the key where nothing can be written, and says how"]
fn role_read_only_disk() {
    println!("error: {}", KeyFile::open_or_create(file()).unwrap_err());
}

fn names_beside(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn processes_that_race_to_make_the_file_end_up_with_one_key() {
    const RACERS: usize = 8;
    let dir = TempDir::new().unwrap();
    for round in 0..5 {
        let path = dir.path().join(format!("round {round}/key"));
        let mut racers: Vec<_> = (0..RACERS).map(|_| start("role_open_or_create", &path)).collect();
        let mut outputs: Vec<_> =
            racers.iter_mut().map(|racer| BufReader::new(racer.stdout.take().unwrap())).collect();
        for output in &mut outputs {
            line_after(output, "ready:");
        }
        for racer in &mut racers {
            drop(racer.stdin.take()); // the starting gun
        }
        let ids: Vec<_> = outputs.iter_mut().map(|output| line_after(output, "id:")).collect();
        for racer in &mut racers {
            racer.wait().unwrap();
        }
        let on_disk = KeyFile::open(&path).unwrap().key().device_id().to_string();
        assert_eq!(ids, vec![on_disk; RACERS], "round {round}");
        assert_eq!(names_beside(&path), ["key"], "round {round}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_lock_holds_between_processes_and_ends_with_its_process_however_that_ends() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    for kill in [false, true] {
        let mut holder = start("role_hold_the_lock", &path);
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        line_after(&mut output, "locked:");
        let key = KeyFile::open(&path).unwrap(); // reading needs no lock
        let error = key.lock().unwrap_err().to_string();
        assert!(
            error.contains("in use by another process") && error.contains(path.to_str().unwrap()),
            "{error}"
        );
        if kill {
            holder.kill().unwrap();
        } else {
            drop(holder.stdin.take());
        }
        holder.wait().unwrap();
        drop(key.lock().unwrap());
    }
}

/// Runs a role in a mount namespace of its own, on a small file system of its own. `None` where this system does not
/// let us.
fn in_a_small_file_system(role: &str, options: &str) -> Option<String> {
    let dir = TempDir::new().unwrap();
    let namespaces = if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" };
    let script = "mount -t tmpfs -o \"$1\" bowline \"$2\" || exit 99; shift 2; exec \"$@\"";
    let output = Command::new("unshare")
        .args([namespaces, "sh", "-c", script, "sh", options])
        .arg(dir.path())
        .args(command(role))
        .env(FILE, dir.path().join("key"))
        .output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) if output.status.code() != Some(101) => {
            eprintln!("skipped: no file system of our own: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("skipped: no unshare here: {error}");
            None
        }
    }
}

#[test]
fn a_full_disk_is_one_clear_sentence_and_leaves_nothing_half_made() {
    let Some(output) = in_a_small_file_system("role_full_disk", "size=64k") else { return };
    let error = output.lines().find_map(|line| line.split_once("error: ")).unwrap().1;
    assert!(
        error.starts_with("the key file /")
            && error.ends_with("/key cannot be created: No space left on device"),
        "{error}"
    );
    assert!(output.contains("left: [\"filler\"]"), "{output}");
    assert!(output.contains("made:"), "once there is room it works: {output}");
}

#[test]
fn a_read_only_disk_is_one_clear_sentence() {
    let Some(output) = in_a_small_file_system("role_read_only_disk", "ro") else { return };
    let error = output.lines().find_map(|line| line.split_once("error: ")).unwrap().1;
    assert!(error.ends_with("/key cannot be created: Read-only file system"), "{error}");
}
