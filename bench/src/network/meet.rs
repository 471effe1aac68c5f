//! `bench/run meet`: how soon two devices behind ordinary routers hear from each other, and how soon directly; 20 ms from any host to any
//! other. The same for an iroh endpoint beside it.
//!
//! Each run is a pair of fresh processes with keys of their own, which send each other 50 messages a second from the beginning. Time counts from
//! the first message, or from the start of a process; the direction that takes longer counts.

use std::time::Duration;

use bowline_lab::{Delay, Internet, Lab, Nat, Node, Process};
use serde_json::{Value, json};

use super::{
    device::clock,
    log::Log,
    pair::{Base, LEFT, RIGHT, Stack, delays, online, pass, spawn},
};
use crate::say;

/// What is there when time begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    /// Both have a base: the first message.
    Both,
    /// The right one has: the left one's process begins.
    One,
    /// Nobody: both processes begin.
    Nobody,
}

/// A row of the benchmark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) there: There,
    pub(crate) key: &'static str,
    pub(crate) name: &'static str,
}

pub(crate) const CASES: [Case; 3] = [
    Case { there: There::Both, key: "both", name: "both are online, from the first message" },
    Case { there: There::One, key: "one", name: "one is online, from the start of the other" },
    Case { there: There::Nobody, key: "nobody", name: "from the start of both" },
];

/// The time until both have a base.
pub(crate) const ONLINE: &str = "online_ms";

impl Case {
    /// Whether this figure of a run says anything.
    pub(crate) fn measures(&self, figure: &str) -> bool {
        self.there != There::Both || figure != ONLINE
    }
}

/// What is online has been for so long.
const RESTED: Duration = Duration::from_secs(2);
/// Once direct, it is to stay so for as long.
const STAYS: Duration = Duration::from_millis(500);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);
/// What is not direct by then is not direct.
pub(crate) const WATCH: Duration = Duration::from_secs(20);
/// Runs begin at any moment of what goes on once a second.
const PHASES: u64 = 1000;

/// Inside a network of its own: `runs` runs of a case, a line of JSON each.
pub(crate) fn inside(lab: &Lab, case: &Case, stack: Stack, runs: u64, first: u64) {
    let world = World::new(lab, stack);
    for run in first..first + runs {
        say(&world.run(case.there, run).to_string());
    }
}

struct World {
    stack: Stack,
    base: Base,
    devices: [Node; 2],
    _delays: Vec<Delay>,
}

impl World {
    fn new(lab: &Lab, stack: Stack) -> Self {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "base", 10);
        let homes = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let delays = delays(homes.iter().map(|home| &home.router).chain([&server]));
        let devices = [LEFT, RIGHT].map(|side| homes[side].device_v4(lab, ["left", "right"][side], 2));
        let base = Base::start(stack, &server, &["203.0.113.10:4477"]);
        Self { stack, base, devices, _delays: delays }
    }

    fn run(&self, there: There, run: u64) -> Value {
        let names = self.base.names();
        let numbers = [2 * run, 2 * run + 1];
        let begin =
            |side: usize| spawn(self.stack, &self.devices[side], numbers[side], numbers[1 - side], &names);
        let mut processes: [Option<Process>; 2] = match there {
            There::Both => [Some(begin(LEFT)), Some(begin(RIGHT))],
            There::One => [None, Some(begin(RIGHT))],
            There::Nobody => [None, None],
        };
        if there != There::Nobody {
            processes.iter().flatten().for_each(online);
            pass(RESTED);
        }
        // Spread evenly, and the same for everybody.
        pass(Duration::from_millis(run * 379 % PHASES));
        let began = clock();
        let [left, right] = &mut processes;
        let processes = [(LEFT, left), (RIGHT, right)]
            .map(|(side, process)| process.take().unwrap_or_else(|| begin(side)));
        let processes = processes.map(|mut process| {
            process.write(b"go\n");
            process
        });
        let deadline = began + WATCH.as_nanos() as u64;
        let logs = loop {
            let logs = [LEFT, RIGHT].map(|side| Log::read(&processes[side].lines(0)));
            if clock() > deadline || logs.iter().all(|log| log.settled('d', STAYS)) {
                break logs;
            }
            pass(POLL);
        };
        let slower = |of: &dyn Fn(&Log) -> Option<u64>| {
            let [left, right] = &logs;
            Some((of(left)?.max(of(right)?)).saturating_sub(began) as f64 / 1e6)
        };
        json!({
            ONLINE: slower(&|log| log.online),
            "first_ms": slower(&|log| log.received.first().map(|message| message.at)),
            "direct_ms": slower(&|log| log.received.iter().find(|message| message.way == 'd').map(|message| message.at)),
        })
    }
}
