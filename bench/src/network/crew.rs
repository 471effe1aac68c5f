//! Worlds at once: each is this program again in a network of its own, which prints a line of JSON for every run.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bowline_lab::{Refusal, again};
use serde_json::Value;

/// A world that is to be run, and what its lines belong to.
#[derive(Debug, Clone)]
pub(crate) struct Job<T> {
    pub(crate) of: T,
    /// After `inside`.
    pub(crate) words: Vec<String>,
}

/// Runs all jobs, so many at once, in their order; the lines of each as they come. Worlds that are not done when `within` is over are
/// ended, and their missing lines are missing.
///
/// # Errors
/// When there can be no networks here.
pub(crate) fn run<T: Clone + Send>(
    jobs: Vec<Job<T>>,
    at_once: usize,
    within: Duration,
    mut line: impl FnMut(&T, &Value),
) -> Result<(), Refusal> {
    let deadline = Instant::now() + within;
    let (sender, lines) = mpsc::channel();
    let mut waiting = jobs.into_iter();
    thread::scope(|scope| {
        let mut running = 0;
        let mut folders = Vec::new(); // they go when everything is over
        loop {
            while running < at_once
                && Instant::now() < deadline
                && let Some(job) = waiting.next()
            {
                let folder = tempfile::Builder::new().prefix("bowline-bench-").tempdir();
                let folder = folder.map_err(|error| Refusal(format!("no temporary folder: {error}")))?;
                let words: Vec<&str> =
                    ["inside"].into_iter().chain(job.words.iter().map(String::as_str)).collect();
                let mut command = again(&words, folder.path())?;
                let child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn();
                let child = child.map_err(|error| Refusal(error.to_string()))?;
                folders.push(folder);
                let sender = sender.clone();
                scope.spawn(move || read(child, &job.of, deadline, &sender));
                running += 1;
            }
            if running == 0 {
                return Ok(());
            }
            match lines.recv() {
                Ok((of, Some(value))) => line(&of, &value),
                Ok((_, None)) => running -= 1,
                Err(_) => return Ok(()),
            }
        }
    })
}

/// Passes a world's lines on until it ends, or its time is over.
fn read<T: Clone>(mut child: Child, of: &T, deadline: Instant, to: &mpsc::Sender<(T, Option<Value>)>) {
    let output = child.stdout.take().expect("its output was asked for");
    thread::scope(|scope| {
        let child = &mut child;
        let (done, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            if wait.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = child.kill(); // its namespaces go with it
            }
            let _ = child.wait();
        });
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            if let Ok(value) = serde_json::from_str(&text) {
                let _ = to.send((of.clone(), Some(value))); // whoever asked is still there
            }
        }
        drop(done);
    });
    let _ = to.send((of.clone(), None));
}
