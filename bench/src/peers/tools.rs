//! What is there to compare with: programs found, asked for their version, and started; nothing here panics, a peer that does not work is a
//! row that says so.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bowline_lab::{Line, Process};

/// Where Debian keeps programs of administrators; not in everybody's path.
const BESIDE: [&str; 2] = ["/usr/sbin", "/sbin"];
const POLL: Duration = Duration::from_millis(10);
/// Longer than anything takes that is bound to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a program is there; what to type if it is not.
pub(super) fn installed(program: &str, package: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(BESIDE.map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("not installed; type: apt install {package}"))
}

/// The first word that looks like a version in what a program says of itself.
pub(super) fn version(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return "?".to_owned() };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let words = said.split_whitespace().map(|word| word.trim_start_matches("v.").trim_start_matches('v'));
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    words
        .filter(|word| word.chars().all(|c| c.is_ascii_digit() || c == '.'))
        .find(is_version)
        .unwrap_or("?")
        .to_owned()
}

/// Waits for a line in which `find` finds something.
pub(super) fn wait<T>(
    process: &mut Process,
    what: &str,
    mark: usize,
    find: impl Fn(&Line) -> Option<T>,
) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let running = process.is_running();
        let lines = process.lines(mark);
        if let Some(found) = lines.iter().find_map(&find) {
            return Ok(found);
        }
        if !running || Instant::now() > deadline {
            let last = process.lines(0).pop().map_or_else(|| "nothing".to_owned(), |line| line.text);
            let how = if running { "" } else { ", it has ended" };
            return Err(format!("no {what}{how}; its last word: {last}"));
        }
        thread::sleep(POLL);
    }
}

/// Polls until `check` holds.
pub(super) fn until(what: &str, mut check: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        if Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", PATIENCE.as_secs()));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Runs a command to its end.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(format!(
        "{}: {words}",
        command.get_args().skip(2).map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
    ))
}
