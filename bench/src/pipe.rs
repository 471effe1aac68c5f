//! Rows of `stream`: `bowline pipe` beside a pipe over iroh's endpoints, as dumbpipe is one (`bench/iroh`).
//!
//! Each end is a program on a core of its own, with all threads that it likes to have. `/dev/zero` goes in, `/dev/null` takes what comes
//! out; how much that is the system counts (`/proc/PID/io`), so that nothing else runs.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use bowline_lab::{Node, Process};

use crate::{
    cpu,
    direct::Cable,
    forward::{introduce, program, words_of},
    peers::iroh,
    report::{Goal, Report, in_turn},
    stream::{Turn, rows},
};

const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// Once so many bytes have come, it flows.
const FLOWS: f64 = 1e6;
/// With the program and its words behind it.
const IN: &str = r#"exec taskset -c 0 "$0" "$@" </dev/zero"#;
const OUT: &str = r#"exec taskset -c 1 "$0" "$@" >/dev/null"#;

pub(crate) fn run(cable: &Cable, rounds: usize, warm_up: Duration, turn: Duration, report: &mut Report) {
    const CASE: &str = "pipe, single, beside one over iroh";
    let theirs = match iroh::program() {
        Ok(theirs) => theirs.display().to_string(),
        Err(why) => return report.missing(CASE, "Gbit/s", Goal::AtLeast(1.0), &why),
    };
    let ids = introduce(cable);
    let ours = || {
        let listen =
            start(&cable.receiver, OUT, &program(), &words_of(&cable.receiver, &["pipe", "--listen"]));
        listen.wait("ID", PATIENCE, 0, |line| line.text.contains("listening as").then_some(()));
        let words = words_of(&cable.sender, &["pipe", &ids[1]]);
        measure([start(&cable.sender, IN, &program(), &words), listen], warm_up, turn)
    };
    let iroh = || {
        let words = |role: &str| ["pipe", role, "10.9.0.2"].map(str::to_owned);
        let listen = start(&cable.receiver, OUT, &theirs, &words("receiver"));
        listen.wait("line that says it is ready", PATIENCE, 0, |line| (line.text == "ready").then_some(()));
        measure([start(&cable.sender, IN, &theirs, &words("sender")), listen], warm_up, turn)
    };
    let pairs = in_turn(rounds, ours, iroh);
    let pairs: Vec<_> = pairs.iter().map(|(ours, theirs)| (ours, theirs)).collect();
    let reference = format!("as dumbpipe, {}", iroh::version("iroh").unwrap_or_default());
    rows(CASE, &reference, &pairs, Goal::AtLeast(1.0), report);
}

fn start(node: &Node, script: &str, program: &str, words: &[String]) -> Process {
    let own = ["-c", script, program].map(str::to_owned);
    node.spawn("sh", &[&own[..], words].concat())
}

fn measure(ends: [Process; 2], warm_up: Duration, turn: Duration) -> Turn {
    let deadline = Instant::now() + PATIENCE;
    while written(ends[1].pid()) < FLOWS {
        assert!(
            Instant::now() < deadline,
            "nothing came through the pipe: {:?}",
            ends.map(|end| end.lines(0))
        );
        thread::sleep(POLL);
    }
    thread::sleep(warm_up);
    let mark = || {
        (Instant::now(), written(ends[1].pid()), ends.iter().map(|end| cpu::seconds(end.pid())).sum::<f64>())
    };
    let before = mark();
    thread::sleep(turn);
    let after = mark();
    let gbit = (after.1 - before.1) * 8.0 / 1e9;
    Turn { rate: gbit / (after.0 - before.0).as_secs_f64(), cost: (after.2 - before.2) / gbit }
}

/// Bytes that a process has written: to files and pipes, that is; what it sends by sockets is not among them.
fn written(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0.0)
}
