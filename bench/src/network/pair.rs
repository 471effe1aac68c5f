//! Two devices and the processes on them, of bowline or of what it is compared with.

use std::{path::PathBuf, time::Duration};

use bowline_lab::{Delay, Node, Process, eventually, program};

use super::{device, log::Log};

/// Between any two hosts of the internet, one way.
pub(crate) const ONE_WAY: Duration = Duration::from_millis(20);
/// Starting a process on a busy machine.
const START: Duration = Duration::from_secs(20);

/// Whose devices and base are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    Bowline,
    /// An iroh endpoint and relay, from `bench/iroh`.
    Iroh,
}

/// Where the iroh device is, once built.
pub(crate) const IROH_BIN: &str = "BENCH_IROH_BIN";

impl Stack {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "bowline" => Some(Self::Bowline),
            "iroh" => Some(Self::Iroh),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bowline => "bowline",
            Self::Iroh => "iroh",
        }
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Bowline => std::env::current_exe().expect("a program knows its place"),
            Self::Iroh => std::env::var_os(IROH_BIN).map(PathBuf::from).expect("it was built before"),
        }
    }
}

/// A base, or a relay.
#[derive(Debug)]
pub(crate) enum Base {
    Bowline(program::Base),
    Iroh { process: Process, url: String },
}

impl Base {
    /// Starts one on a machine with a public address; `listen` are the addresses of a bowline base.
    pub(crate) fn start(stack: Stack, node: &Node, listen: &[&str]) -> Self {
        match stack {
            Stack::Bowline => Self::Bowline(program::Base::start(node, listen)),
            Stack::Iroh => {
                let address = node.ipv4("wan").expect("a server has an address").to_string();
                let process = node.spawn(stack.program(), &["relay", &address]);
                let url = process.wait("line with the relay's URL", START, 0, |line| {
                    line.text.strip_prefix("relay ").filter(|_| !line.error).map(str::to_owned)
                });
                Self::Iroh { process, url }
            }
        }
    }

    /// As devices are told of it.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Bowline(base) => base.names().into_iter().map(str::to_owned).collect(),
            Self::Iroh { url, .. } => vec![url.clone()],
        }
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        match self {
            Self::Bowline(base) => &mut base.process,
            Self::Iroh { process, .. } => process,
        }
    }
}

/// Lines that a device writes in some four seconds.
const RECENT: usize = 400;

/// Two devices that send to each other: left and right.
#[derive(Debug)]
pub(crate) struct Pair {
    stack: Stack,
    numbers: [u64; 2],
    nodes: [Node; 2],
    bases: Vec<String>,
    processes: [Process; 2],
    /// What runs that have ended wrote.
    ended: [Vec<Log>; 2],
}

/// Which of the two.
pub(crate) const LEFT: usize = 0;
pub(crate) const RIGHT: usize = 1;

impl Pair {
    /// Starts both; `run` tells them from the devices of all other runs at the same base.
    pub(crate) fn start(stack: Stack, nodes: [&Node; 2], bases: &[String], run: u64) -> Self {
        let numbers = [2 * run, 2 * run + 1];
        let nodes = nodes.map(Node::clone);
        let start = |side: usize| spawn(stack, &nodes[side], numbers[side], numbers[1 - side], bases);
        let processes = [start(LEFT), start(RIGHT)];
        Self { stack, numbers, nodes, bases: bases.to_vec(), processes, ended: [Vec::new(), Vec::new()] }
    }

    /// Waits until both have a base.
    pub(crate) fn online(&self) {
        self.processes.iter().for_each(online);
    }

    /// Lets a side send from now on.
    pub(crate) fn go(&mut self, side: usize) {
        self.processes[side].write(b"go\n");
    }

    pub(crate) fn process(&self, side: usize) -> &Process {
        &self.processes[side]
    }

    pub(crate) fn log(&self, side: usize) -> Log {
        Log::read(&self.processes[side].lines(0))
    }

    /// All runs of the device on this side.
    pub(crate) fn logs(&self, side: usize) -> Vec<Log> {
        let mut logs = self.ended[side].clone();
        logs.push(self.log(side));
        logs
    }

    /// The end of its present log: enough to see how things are.
    fn recent(&self, side: usize) -> Log {
        let process = &self.processes[side];
        Log::read(&process.lines(process.mark().saturating_sub(RECENT)))
    }

    /// Waits until messages to these sides have come one way and no other for a while; `false` if they do not.
    pub(crate) fn settle(&self, sides: &[usize], way: char, for_so_long: Duration, within: Duration) -> bool {
        let deadline = std::time::Instant::now() + within;
        loop {
            if sides.iter().all(|&side| self.recent(side).settled(way, for_so_long)) {
                return true;
            }
            if std::time::Instant::now() > deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Kills the process on this side and starts it again, with its key and another port.
    pub(crate) fn restart(&mut self, side: usize) {
        self.processes[side].kill();
        let log = self.log(side);
        self.ended[side].push(log);
        self.processes[side] =
            spawn(self.stack, &self.nodes[side], self.numbers[side], self.numbers[1 - side], &self.bases);
        self.go(side);
    }

    /// What they told on standard error, and the changes of path: why a run went as it did.
    pub(crate) fn story(&self, since: u64) -> String {
        let mut story = Vec::new();
        for side in [LEFT, RIGHT] {
            for line in self.processes[side].lines(0) {
                let at = line.text.split(' ').nth(1).and_then(|at| at.parse::<u64>().ok());
                let told = line.text.starts_with("path ") || line.text.starts_with("online ");
                if line.error || told {
                    let at = at.map_or(0.0, |at| (at as f64 - since as f64) / 1e6);
                    story.push(format!("{} {at:9.1} {}", ["left ", "right"][side], line.text));
                }
            }
        }
        story.join("\n")
    }
}

/// Waits until a device has a base.
pub(crate) fn online(process: &Process) {
    process.wait("registration", START, 0, |line| line.text.starts_with("online ").then_some(()));
}

pub(crate) fn spawn(stack: Stack, node: &Node, own: u64, peer: u64, bases: &[String]) -> Process {
    let words = ["device".to_owned(), own.to_string(), peer.to_string()];
    node.spawn(stack.program(), &[&words, bases].concat())
}

/// 20 ms from any of these machines' public side to any other, each way.
pub(crate) fn delays<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<Delay> {
    nodes.into_iter().map(|node| Delay::on(node, "wan", ONE_WAY)).collect()
}

/// Passes time while everything goes on.
pub(crate) fn pass(time: Duration) {
    let end = device::clock() + time.as_nanos() as u64;
    eventually("time passes", time + START, || (device::clock() >= end).then_some(()));
}
