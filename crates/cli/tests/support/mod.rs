//! Running the real program in tests: every run has a home of its own, every wait a deadline, and nothing outlives
//! its test.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod cluster;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds, looking again and again; fails when it takes too long.
#[track_caller]
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come to hold");
        thread::yield_now();
    }
}

/// Whether a program that a test needs is there. Where it is not, the test says so and passes, but for where everything has to run.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{program} is missing: ./test installs it"
        );
        eprintln!("SKIPPED: {program} is missing; ./test installs it");
    }
    found
}

/// A device ID that nobody here has.
pub(crate) const NOBODY: &str = "93kz-a462-42sk-d06c-7gh2-3ksw";

/// A user's home: configuration, keys and state of one device (or base).
#[derive(Clone)]
pub(crate) struct Home(Arc<TempDir>);

impl Home {
    /// A home whose device keeps to the loopback.
    pub(crate) fn new() -> Self {
        let home = Self(Arc::new(TempDir::new().unwrap()));
        home.configure("link_local = false\n");
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.path().join("config/bowline/key")
    }

    /// Replaces the configuration file.
    pub(crate) fn configure(&self, text: &str) {
        let folder = self.path().join("config/bowline");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.toml"), text).unwrap();
    }

    /// The program with these arguments (separated by spaces) in this home.
    pub(crate) fn bowline(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(args.split_whitespace());
        for variable in ["BOWLINE_BASE", "RUST_LOG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        command
            .env("HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .current_dir(self.path());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &str) -> Ended {
        self.start(args).end()
    }

    /// Starts it.
    pub(crate) fn start(&self, args: &str) -> Running {
        Running { home: Some(self.clone()), ..Running::start(&mut self.bowline(args)) }
    }

    /// This home's device.
    pub(crate) fn id(&self) -> String {
        let shown = self.run("id --json");
        shown.json()[0]["id"].as_str().unwrap().to_owned()
    }
}

/// A base server on the loopback.
pub(crate) struct Base {
    pub(crate) home: Home,
    pub(crate) running: Running,
    /// As devices are given it: `<base ID>@127.0.0.1:<port>`.
    pub(crate) name: String,
}

impl Base {
    pub(crate) fn start() -> Self {
        let home = Home::new();
        let mut running = home.start("base --listen 127.0.0.1:0 --state state --drain 0");
        let name = running.stdout.line_with("base ")["base ".len()..].to_owned();
        Self { home, running, name }
    }

    /// A device that listens here, with more arguments; its home, the process, and its ID.
    pub(crate) fn listener(&self, args: &str) -> (Home, Running, String) {
        let home = Home::new();
        let mut running = home.start(&format!("listen --base {} {args}", self.name));
        running.stderr.line_with("registered at");
        let id = home.id();
        (home, running, id)
    }
}

/// A process of the program.
pub(crate) struct Running {
    child: Process,
    /// Lives as long as the process may look into it.
    home: Option<Home>,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { child: Process(child), home: None, stdin, stdout, stderr }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Closes its input and waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        self.stdin = None;
        let stdout = self.stdout.rest();
        let stderr = self.stderr.rest();
        // Both outputs have ended, so the process has, or is about to.
        let code = self.child.0.wait().unwrap().code();
        Ended { code, stdout, stderr }
    }

    pub(crate) fn end_by(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.end()
    }
}

/// A child that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process wrote, line by line, as it comes.
pub(crate) struct Lines {
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { incoming, seen: Vec::new() }
    }

    /// The next line that contains this, without its line feed.
    #[track_caller]
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        let found = self.line_with_within(part, PATIENCE);
        found.unwrap_or_else(|| panic!("no line with {part:?} in {:?}", self.seen))
    }

    /// The same, if it comes in time.
    pub(crate) fn line_with_within(&mut self, part: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        loop {
            let line = self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            self.seen.push(line.clone());
            if line.contains(part) {
                return Some(line.trim_end_matches('\n').to_owned());
            }
        }
    }

    /// What came so far.
    pub(crate) fn so_far(&mut self) -> String {
        self.seen.extend(self.incoming.try_iter());
        self.seen.concat()
    }

    /// Everything up to the end, lines seen before included.
    fn rest(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.seen.concat(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; so far: {:?}", self.seen),
            }
        }
    }
}

/// What remains of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// It worked.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It did not: the one sentence on standard error, the last line there, without the program's name.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        let sentence = last.strip_prefix("bowline: ");
        sentence.unwrap_or_else(|| panic!("no reason on standard error: {self:?}")).to_owned()
    }

    /// Every line of standard output as a JSON object.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let objects = self.stdout.lines().map(|line| match serde_json::from_str(line) {
            Ok(Value::Object(object)) => Value::Object(object),
            other => panic!("not a JSON object: {line:?} ({other:?}) in {self:?}"),
        });
        objects.collect()
    }
}

impl Ended {
    /// The lines of standard error that are JSON objects.
    #[track_caller]
    pub(crate) fn reports(&self) -> Vec<Value> {
        let lines = self.stderr.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }
}

/// The names of an object's members, in the order of the alphabet.
pub(crate) fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The status and the content of an answer over HTTP.
pub(crate) fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), content.to_owned())
}
