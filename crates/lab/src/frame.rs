//! The frame of every network test: run this very test again inside namespaces that belong to it alone.
//!
//! ```text
//! cargo test ── in_network ── unshare ── sh (tmpfs on /run, lo up) ── exec: the same test binary, the same test ── body
//! ```
//! As root with plain namespaces, otherwise with a user namespace around them. The process namespace sees to it that no
//! process of a test outlives it. Where the system forbids namespaces (or a tool is missing), the test says SKIPPED and why, past the
//! harness's output capture; in CI (`CI=true`) it fails instead: there, a test that does not run is a lie.

use std::{
    any::type_name,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::{node::Node, program};

/// Set inside the namespaces: the test's own temporary folder.
const FOLDER: &str = "BOWLINE_LAB_FOLDER";
/// Written into the folder when the body has come to its end, so that a test filter that matched nothing cannot pass.
const FINISHED: &str = "finished";
/// A test that takes longer hangs. The longest takes about 30 s on two busy cores.
const TEST_LIMIT: Duration = Duration::from_secs(150);
/// Another limit in seconds, for tests that are asked for more than they do by themselves.
const LIMIT: &str = "BOWLINE_LAB_SECONDS";
/// Lines of a test that are shown even when it passes begin so.
const MEASURED: &str = "measured: ";
/// What every test network is built with; the `./test` script installs them.
const TOOLS: &str = "ip nft iptables-nft conntrack sysctl mount unshare";

/// A network of its own, at first without any machine.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
}

impl Lab {
    /// The network of a program that was started by [`again`]; `None` outside.
    #[must_use]
    pub fn inside() -> Option<Self> {
        env::var_os(FOLDER).map(|folder| Self { folder: folder.into() })
    }

    /// The network of a program that has made its own network and mount namespaces, and keeps its files in `folder`.
    #[must_use]
    pub fn here(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A new machine: a network namespace with a loopback, without duplicate address detection (which costs a
    /// second), and with a home folder of its own.
    #[must_use]
    pub fn node(&self, name: &str) -> Node {
        Node::new(name, self.folder.join(name))
    }

    /// The test's temporary folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names for all machines of this test, in the format of hosts(5); they replace the system's.
    pub fn hosts(&self, text: &str) {
        let file = self.folder.join("hosts");
        fs::write(&file, text).expect("the test's folder can be written to");
        crate::node::run(Command::new("mount").arg("--bind").arg(&file).arg("/etc/hosts"));
    }

    /// Shows a measured figure, also when the test passes.
    pub fn measured(&self, what: &str) {
        println!("{MEASURED}{what}");
    }
}

/// Runs `body` in a network of its own. To be called as the only statement of a `#[test]` function, with a closure.
pub fn in_network<F: FnOnce(&Lab)>(body: F) {
    frame(body, Vec::new);
}

/// As [`in_network`], for tests that run the `bowline` program: it is built (or found) first.
pub fn with_bowline<F: FnOnce(&Lab)>(body: F) {
    frame(body, || vec![(program::VARIABLE, program::build())]);
}

/// As [`in_network`], for tests that load programs into the kernel, which a user's own namespaces do not allow.
pub fn in_network_as_root<F: FnOnce(&Lab)>(body: F) {
    as_root(body, Vec::new);
}

/// As [`with_bowline`], for tests that load programs into the kernel.
pub fn with_bowline_as_root<F: FnOnce(&Lab)>(body: F) {
    as_root(body, || vec![(program::VARIABLE, program::build())]);
}

fn as_root<F: FnOnce(&Lab)>(body: F, outside: impl FnOnce() -> Vec<(&'static str, PathBuf)>) {
    if may_load_programs() {
        return frame(body, outside);
    }
    let test = test_name(type_name::<F>());
    let why =
        "it takes root to load programs into the kernel (capability CAP_BPF, outside any user namespace)";
    assert!(!in_ci(), "{test} cannot run here, and in CI that is a failure: {why}");
    say(&format!("SKIPPED {test}: {why}"));
}

/// The capability, in the machine's own user namespace.
fn may_load_programs() -> bool {
    const CAP_BPF: u32 = 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    mask & (1 << CAP_BPF) != 0 && map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1")
}

/// Why there can be no network of one's own here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

/// For programs that are no tests: this very program once more, with these arguments, in a network of its own ([`Lab::inside`])
/// that keeps its files in `folder`. It ends when its parent does.
///
/// # Errors
/// When the system forbids namespaces or a tool is missing.
pub fn again(arguments: &[&str], folder: &Path) -> Result<Command, Refusal> {
    let flags = permission().map_err(|why| Refusal(why.to_owned()))?;
    let program = env::current_exe().map_err(|error| Refusal(error.to_string()))?;
    let program = program.to_string_lossy();
    let mut command = inside(flags, r#"exec "$@""#, &[&[&*program], arguments].concat());
    command.env(FOLDER, folder);
    Ok(command)
}

fn frame<F: FnOnce(&Lab)>(body: F, outside: impl FnOnce() -> Vec<(&'static str, PathBuf)>) {
    if let Some(folder) = env::var_os(FOLDER) {
        let lab = Lab { folder: folder.into() };
        body(&lab);
        fs::write(lab.folder.join(FINISHED), "").expect("the test's folder can be written to");
        return;
    }
    let test = test_name(type_name::<F>());
    match permission() {
        Ok(flags) => run_inside(flags, test, &outside()),
        Err(why) if in_ci() => {
            panic!("{test} cannot run here, and in CI that is a failure: {why}")
        }
        Err(why) => say(&format!("SKIPPED {test}: {why}")),
    }
}

/// The harness's name of the test whose closure has this type name: `binary::module::test::{{closure}}`.
fn test_name(closure: &'static str) -> &'static str {
    let path = closure.split_once("::").map_or(closure, |(_binary, path)| path);
    path.split("::{{closure}}").next().unwrap_or(path)
}

/// The flags of unshare(1) that work here, or why none do.
fn permission() -> Result<&'static [&'static str], &'static str> {
    const AS_ROOT: &[&str] = &["-nmp"];
    const AS_USER: &[&str] = &["-Urnmp"];
    static FOUND: OnceLock<Result<&[&str], String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            for tool in TOOLS.split(' ') {
                let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
                if !found.is_ok_and(|found| found.status.success()) {
                    return Err(format!("the program `{tool}` is missing (./test installs it)"));
                }
            }
            let mut why = String::new();
            for flags in [AS_ROOT, AS_USER] {
                match inside(flags, "ip netns add probe && ip netns exec probe nft list ruleset", &[])
                    .output()
                {
                    Ok(tried) if tried.status.success() => return Ok(flags),
                    Ok(tried) => why = String::from_utf8_lossy(&tried.stderr).trim().to_owned(),
                    Err(error) => why = error.to_string(),
                }
            }
            Err(format!("the system forbids namespaces (as root it may not): {why}"))
        })
        .as_ref()
        .copied()
        .map_err(String::as_str)
}

/// A shell script inside fresh namespaces; it dies with us, and all of its processes with it.
fn inside(flags: &[&str], script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(flags).args(["--fork", "--kill-child", "sh", "-c"]);
    // A /proc that knows the processes by their numbers in here; a container may forbid it, and only the soak needs it.
    let proc = "{ mount -t proc proc /proc 2>/dev/null || true; }";
    command.arg(format!("{proc} && mount -t tmpfs tmpfs /run && ip link set dev lo up && {script}"));
    command.arg("sh").args(arguments).stdin(Stdio::null());
    command
}

fn run_inside(flags: &[&str], test: &str, variables: &[(&str, PathBuf)]) {
    let folder = tempfile::Builder::new().prefix("bowline-lab-").tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let (out, err) = fs::File::create(&log)
        .and_then(|out| Ok((out.try_clone()?, out)))
        .expect("the test's folder can be written to");
    let binary = env::current_exe().expect("a test knows its own binary");
    let mut command =
        inside(flags, r#"exec "$@""#, &[&binary.to_string_lossy(), test, "--exact", "--nocapture"]);
    command.env(FOLDER, folder.path()).envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = command.stdout(out).stderr(err).spawn().expect("unshare has just worked");

    let pid = Pid::from_raw(child.id().cast_signed());
    let (done, wait) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait();
        let _ = done.send(()); // nobody listens any more once the time is up
        status
    });
    let limit = env::var(LIMIT).ok().map_or(TEST_LIMIT, |seconds| {
        Duration::from_secs(seconds.parse().unwrap_or_else(|_| panic!("{LIMIT}: not a number: {seconds}")))
    });
    let in_time = wait.recv_timeout(limit).is_ok();
    if !in_time {
        // Not reaped by anybody but the waiter, so the number is still the child's.
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    }
    let status = waiter.join().expect("the waiter does not panic").expect("a child can be waited for");

    let log = fs::read(&log).expect("the log was just written");
    let log = String::from_utf8_lossy(&log);
    log.lines().filter(|line| line.starts_with(MEASURED)).for_each(|line| say(&format!("{test}: {line}")));
    assert!(in_time, "{test} took longer than {limit:?}:\n{log}");
    assert!(status.success(), "{test} failed ({status}):\n{log}");
    assert!(folder.path().join(FINISHED).exists(), "{test} did not run to its end:\n{log}");
}

/// Prints past the output capture of the test harness.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}"); // with stderr closed there is nobody to tell
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_of_a_test_follows_from_the_type_of_its_closure() {
        assert_eq!(super::test_name("network::relay::udp_is_blocked::{{closure}}"), "relay::udp_is_blocked");
        assert_eq!(super::test_name("network::flat::{{closure}}::{{closure}}"), "flat");
    }
}
