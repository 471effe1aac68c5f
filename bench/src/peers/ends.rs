//! Flows whose ends are processes: of bowline, through its library, and of iroh. Each says "ready" once data can flow, and answers every
//! line on its standard input with how many datagrams it has handled.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bowline_lab::{Node, Process};

use super::{
    load::Turn,
    tools::{self},
};
use crate::cpu;

/// A sender and a receiver at work.
pub(super) struct Ends {
    sender: Process,
    receiver: Process,
}

impl Ends {
    /// Starts the receiver, then the sender, each kept on its core.
    pub(super) fn start(
        program: &Path,
        [from, into]: [&Node; 2],
        cores: [usize; 2],
        words: impl Fn(&str) -> Vec<String>,
    ) -> Result<Self, String> {
        let start = |node: &Node, core: usize, role: &str| {
            let program = program.display().to_string();
            let fixed = ["-c".to_owned(), core.to_string(), program];
            let mut process = node.spawn("taskset", &[&fixed[..], &words(role)].concat());
            tools::wait(&mut process, "line that says it is ready", 0, |line| {
                (line.text == "ready" || line.text.starts_with("ready ")).then_some(())
            })?;
            Ok::<_, String>(process)
        };
        let receiver = start(into, cores[1], "receiver")?;
        Ok(Self { sender: start(from, cores[0], "sender")?, receiver })
    }

    /// Measures for a while, after `warm_up`, what arrives; billed is a relay, or both ends.
    pub(super) fn turn(
        &mut self,
        relay: Option<u32>,
        warm_up: Duration,
        time: Duration,
    ) -> Result<Turn, String> {
        thread::sleep(warm_up);
        let before = self.mark(relay)?;
        thread::sleep(time);
        let after = self.mark(relay)?;
        let (seconds, used) = ((after.at - before.at).as_secs_f64(), after.cpu - before.cpu);
        let (sent, received) = (after.sent - before.sent, after.received - before.received);
        Ok(Turn {
            rate: received / seconds,
            cost: used / received * 1e6,
            busy: used / seconds,
            lost: (1.0 - received / sent).max(0.0),
        })
    }

    fn mark(&mut self, relay: Option<u32>) -> Result<Mark, String> {
        let [sent, received] = [&mut self.sender, &mut self.receiver].map(count);
        let pids = relay.map_or_else(|| vec![self.sender.pid(), self.receiver.pid()], |pid| vec![pid]);
        let cpu = pids.into_iter().map(cpu::seconds).sum();
        Ok(Mark { at: Instant::now(), cpu, sent: sent?, received: received? })
    }
}

struct Mark {
    at: Instant,
    cpu: f64,
    sent: f64,
    received: f64,
}

fn count(process: &mut Process) -> Result<f64, String> {
    let mark = process.mark();
    if !process.is_running() {
        return Err("it has ended".to_owned());
    }
    process.write(b"\n");
    tools::wait(process, "count", mark, |line| line.text.parse().ok())
}
