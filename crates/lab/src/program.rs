//! The bowline program on machines of a test network, driven and read as a script would: commands, `--json` lines, signals.
//!
//! A program that logs at level ERROR or panics fails the test when its handle is dropped, whatever the test asserts.

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    node::{Node, run},
    process::{Line, Process},
};

/// Where the program is; without it, it is built first.
pub(crate) const VARIABLE: &str = "BOWLINE_BIN";
/// Starting a program on a busy machine.
const START: Duration = Duration::from_secs(10);

/// Builds the program unless its place is given, and says where it is. Outside any namespace: a build may need the network.
pub(crate) fn build() -> PathBuf {
    if let Some(path) = env::var_os(VARIABLE) {
        return path.into();
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = run(Command::new(cargo).args(["build", "--package=bowline-cli", "--message-format=json"]));
    let executable =
        |line| serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from);
    built.lines().filter_map(executable).next_back().expect("the package has one binary")
}

fn bowline<S: AsRef<str>>(node: &Node, arguments: &[S]) -> Process {
    let path = env::var_os(VARIABLE).expect("tests that run the program begin with `with_bowline`");
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    node.spawn("env", &[&["RUST_LOG=info,bowline=debug", &path.to_string_lossy()], &arguments[..]].concat())
}

/// A command of the program that goes on: what it prints and how it ends is for the test to judge.
#[must_use]
pub fn start(node: &Node, arguments: &[&str]) -> Process {
    bowline(node, arguments)
}

/// What a command that has ended leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its lines on standard output.
    pub output: Vec<String>,
    /// What it told its user on standard error; logs are not among this.
    pub notes: Vec<String>,
}

/// Runs a command of the program to its end.
#[track_caller]
#[must_use]
pub fn run_to_end(node: &Node, arguments: &[&str], within: Duration) -> Ended {
    let mut process = bowline(node, arguments);
    let code = process.wait_end(within).code();
    check(&process);
    let (errors, lines): (Vec<_>, Vec<_>) = process.lines(0).into_iter().partition(|line| line.error);
    let notes =
        errors.into_iter().map(|line| line.text).filter(|text| text.starts_with("bowline: ")).collect();
    Ended { code, output: lines.into_iter().map(|line| line.text).collect(), notes }
}

/// Complains of lines that no run of the program may print.
fn check(process: &Process) {
    let bad =
        |line: &Line| line.error && (line.text.contains(" ERROR ") || line.text.contains("panicked at"));
    if !thread::panicking()
        && let Some(line) = process.lines(0).iter().find(|line| bad(line))
    {
        panic!("an error in the log: {}", line.text);
    }
}

/// A running `bowline base`.
#[derive(Debug)]
pub struct Base {
    /// The process.
    pub process: Process,
    names: Vec<String>,
}

impl Base {
    /// Starts a base that listens on these addresses, and waits until it is ready. Its key is kept in the machine's home.
    #[track_caller]
    #[must_use]
    pub fn start(node: &Node, listen: &[&str]) -> Self {
        Self::start_with(node, listen, &[])
    }

    /// The same, with more arguments.
    #[track_caller]
    #[must_use]
    pub fn start_with(node: &Node, listen: &[&str], more: &[&str]) -> Self {
        let state = node.home().join("base");
        let mut arguments = vec!["base".to_owned(), "--state".to_owned(), state.display().to_string()];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        for address in listen {
            arguments.extend(["--listen".to_owned(), (*address).to_owned()]);
        }
        let process = bowline(node, &arguments);
        let mut names = Vec::new();
        for _ in listen {
            names.push(process.wait("line with the base's name", START, names.len(), |line| {
                let name =
                    line.text.strip_prefix("base ").filter(|name| !names.iter().any(|known| known == name));
                name.filter(|_| !line.error).map(str::to_owned)
            }));
        }
        Self { process, names }
    }

    /// As `--base` takes it, for each listening address, with the base's ID.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// Its ID in text form.
    #[must_use]
    pub fn id(&self) -> &str {
        self.names[0].split('@').next().unwrap_or_default()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        check(&self.process);
    }
}

/// A running `bowline listen`: a device that can be reached and answers pings.
#[derive(Debug)]
pub struct Listener {
    /// The process.
    pub process: Process,
    /// Its device ID.
    pub id: String,
}

impl Listener {
    /// Starts a device that is known by its key file in the machine's home: the same name is the same device. Returns when it
    /// listens; it may need some milliseconds more to be registered.
    #[track_caller]
    #[must_use]
    pub fn start(node: &Node, name: &str, bases: &[&str]) -> Self {
        Self::start_with(node, name, bases, "")
    }

    /// As [`Listener::start`], with this configuration file.
    #[track_caller]
    #[must_use]
    pub fn start_with(node: &Node, name: &str, bases: &[&str], config: &str) -> Self {
        let path = env::var_os(VARIABLE).expect("tests that run the program begin with `with_bowline`");
        let key = node.home().join(format!("{name}.key")).display().to_string();
        let shown = run(node.command(path).args(["id", "--key", &key, "--json"]));
        let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        let id = shown["id"].as_str().unwrap_or_else(|| panic!("no `id` in {shown}")).to_owned();
        let file = node.home().join(format!("{name}.toml"));
        fs::write(&file, config).expect("the test's folder can be written to");
        let arguments = ["listen", "--key", &key, "--config", &file.to_string_lossy()];
        let process = bowline(node, &[&arguments, &with_bases(bases)[..]].concat());
        let ready = "listening as";
        process.wait(ready, START, 0, |line| line.text.contains(ready).then_some(()));
        Self { process, id }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        check(&self.process);
    }
}

/// A running `bowline send`, with a key of its own: a message a line.
#[derive(Debug)]
pub struct Sender {
    process: Process,
}

impl Sender {
    /// Starts it; its standard input stays open.
    #[track_caller]
    #[must_use]
    pub fn start(node: &Node, device: &str, bases: &[&str]) -> Self {
        Self { process: bowline(node, &[&["send", device], &with_bases(bases)[..]].concat()) }
    }

    /// Sends a line.
    #[track_caller]
    pub fn line(&mut self, text: &str) {
        self.process.write(format!("{text}\n").as_bytes());
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        check(&self.process);
    }
}

/// A running `bowline ping --json`, with a key of its own.
#[derive(Debug)]
pub struct Pinger {
    process: Process,
}

/// An answer to a ping.
#[derive(Debug, Clone)]
pub struct Answer {
    /// When it was read.
    pub at: Instant,
    /// Which ping it answers, from the program's own count.
    pub seq: u64,
    /// Round trip time, ms.
    pub rtt_ms: f64,
    /// `relay-tcp`, `relay-udp` or `direct`.
    pub path: String,
    /// The peer's address on a direct path.
    pub address: Option<SocketAddr>,
}

/// The last line of a ping.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Pings sent.
    pub sent: u64,
    /// Pings answered.
    pub received: u64,
    /// From the start to the first answer over a direct path, ms.
    pub first_direct_ms: Option<f64>,
}

impl Pinger {
    /// Pings a device until told to finish.
    #[track_caller]
    #[must_use]
    pub fn start(node: &Node, device: &str, interval: Duration, bases: &[&str]) -> Self {
        let interval = interval.as_secs_f64().to_string();
        let arguments = ["ping", device, "--json", "-i", &interval];
        Self { process: bowline(node, &[&arguments, &with_bases(bases)[..]].concat()) }
    }

    /// A place to wait from.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.process.mark()
    }

    /// All answers since a mark (0: all).
    #[must_use]
    pub fn answers(&self, mark: usize) -> Vec<Answer> {
        self.process.lines(mark).iter().filter_map(Answer::parse).collect()
    }

    /// Waits for an answer after `mark` by this path.
    #[track_caller]
    pub fn wait_path(&self, path: &str, within: Duration, mark: usize) -> Answer {
        self.process.wait(&format!("answer by {path}"), within, mark, |line| {
            Answer::parse(line).filter(|answer| answer.path == path)
        })
    }

    /// Waits for any answer after `mark`.
    #[track_caller]
    pub fn wait_answer(&self, within: Duration, mark: usize) -> Answer {
        self.process.wait("answer", within, mark, Answer::parse)
    }

    /// Waits for this many answers after `mark`, and returns them.
    #[track_caller]
    pub fn wait_answers(&self, count: usize, within: Duration, mark: usize) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.process.wait(&format!("{count} answers"), within, mark, |line| {
            answers.extend(Answer::parse(line));
            (answers.len() == count).then_some(())
        });
        answers
    }

    /// Waits for an answer to a ping that was sent after `moment`.
    #[track_caller]
    pub fn wait_answer_sent_after(&self, moment: Instant, within: Duration) -> Answer {
        self.process.wait("answer to a later ping", within, 0, |line| {
            Answer::parse(line).filter(|answer| answer.sent() > moment)
        })
    }

    /// The longest time between two answers after `mark`, and until now.
    #[must_use]
    pub fn longest_gap(&self, mark: usize) -> Duration {
        let answers = self.answers(mark.saturating_sub(1)); // with the last one before the mark
        answers.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
    }

    /// Ends it as Ctrl-C does, and returns its summary.
    #[track_caller]
    pub fn finish(mut self) -> Summary {
        self.process.signal(Signal::SIGINT);
        self.process.wait_end(START);
        let summary = self.process.lines(0).iter().rev().find_map(|line| json(line, "sent"));
        let summary = summary.unwrap_or_else(|| panic!("the last line of a ping is its summary"));
        Summary {
            sent: summary["sent"].as_u64().expect("a number"),
            received: summary["received"].as_u64().expect("a number"),
            first_direct_ms: summary["first_direct_ms"].as_f64(),
        }
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        check(&self.process);
    }
}

impl Answer {
    /// When its ping was sent, as far as the reading of lines tells.
    #[must_use]
    pub fn sent(&self) -> Instant {
        self.at.checked_sub(Duration::from_secs_f64(self.rtt_ms / 1000.0)).unwrap_or(self.at)
    }

    fn parse(line: &Line) -> Option<Self> {
        let value = json(line, "rtt_ms")?;
        Some(Self {
            at: line.at,
            seq: value["seq"].as_u64()?,
            rtt_ms: value["rtt_ms"].as_f64()?,
            path: value["path"].as_str()?.to_owned(),
            address: value["address"].as_str().and_then(|address| address.parse().ok()),
        })
    }
}

/// The object on a line of standard output, if it has this field.
fn json(line: &Line, field: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(&line.text).ok().filter(|_| !line.error)?;
    value.get(field).is_some().then_some(value)
}

fn with_bases<'a>(bases: &[&'a str]) -> Vec<&'a str> {
    bases.iter().flat_map(|base| ["--base", base]).collect()
}
