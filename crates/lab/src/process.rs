//! A program that runs in the background: its lines as they come, with the time of each, and its end.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A line of output.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// Whether it came on standard error.
    pub error: bool,
    /// Its text, without the end of line.
    pub text: String,
}

/// A running program; killed when dropped. If the test has failed by then, its whole output is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    ended_streams: usize,
}

/// Standard output and standard error.
const STREAMS: usize = 2;

impl Process {
    #[track_caller]
    pub(crate) fn start(node: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let words: Vec<_> = command.get_args().skip(3).map(|word| word.to_string_lossy()).collect();
        let output = Arc::new(Output::default());
        read(&output, child.stdout.take().expect("standard output was asked for"), false);
        read(&output, child.stderr.take().expect("standard error was asked for"), true);
        Self { name: format!("{node}# {}", words.join(" ")), child, output }
    }

    /// Writes to its standard input.
    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("standard input is still open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// How many lines there are by now: a place to wait from.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.output.lock().lines.len()
    }

    /// All lines since a mark (0: all).
    #[must_use]
    pub fn lines(&self, mark: usize) -> Vec<Line> {
        self.output.lock().lines[mark..].to_vec()
    }

    /// Waits until `find` finds something in a line after `mark`.
    #[track_caller]
    pub fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mark: usize,
        mut find: impl FnMut(&Line) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        let mut state = self.output.lock();
        let mut next = mark;
        loop {
            while let Some(line) = state.lines.get(next) {
                if let Some(found) = find(line) {
                    return found;
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended_streams == STREAMS {
                let ended = if left.is_zero() { "" } else { ", and it has ended" };
                drop(state);
                panic!("{}: no {what} within {within:?}{ended}", self.name);
            }
            state = self.output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_end(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        let mut state = self.output.lock();
        while state.ended_streams < STREAMS {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}: still running after {within:?}", self.name);
            state = self.output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.child.wait().expect("a child can be waited for")
    }

    /// Its number in the system.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        // The child has not been waited for, so the number is still its own.
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .unwrap_or_else(|error| panic!("{}: {signal}: {error}", self.name));
    }

    /// Ends it at once, without a farewell, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let state = self.output.lock();
            let first = state.lines.first().map_or_else(Instant::now, |line| line.at);
            eprintln!("--- {}", self.name);
            for line in &state.lines {
                let stream = if line.error { '!' } else { ' ' };
                eprintln!("{:9.3}{stream} {}", (line.at - first).as_secs_f64(), line.text);
            }
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(output: &Arc<Output>, stream: impl Read + Send + 'static, error: bool) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Some(Ok(bytes)) = lines.next() {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            output.lock().lines.push(Line { at: Instant::now(), error, text });
            output.changed.notify_all();
        }
        output.lock().ended_streams += 1;
        output.changed.notify_all();
    });
}

/// Polls until `check` finds something, for what has no line to wait for.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    const POLL: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::park_timeout(POLL);
    }
}
