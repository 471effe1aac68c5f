//! iroh: QUIC between endpoints known by their keys, and its relay. Both are crates, built beside (`bench/iroh`).
//!
//! Relay: `iroh-relay` over plain HTTP, the least that it can be asked to do (in the world it speaks TLS), and two of its own clients
//! without any QUIC above; they hand over datagrams one by one, or ten in a message, as its endpoints do; with a window and without; the
//! best counts. It is TCP, so what it does not take makes the sender wait; what the receiver's queue of 512 messages does not take is
//! dropped. What is TCP crosses a veth in pieces of 64 KiB, unless `tx-tcp-segmentation` is off, so there are rows of both.
//! Direct: datagrams of a QUIC connection, and a stream of one.

use std::{env, path::PathBuf, time::Duration};

use bowline_lab::Process;

use super::{
    ends::Ends,
    load::{Tuned, Turn},
    tools,
};
use crate::{
    cpu,
    direct::Cable,
    netns::{Net, Side},
};

/// Where its program is, once built.
const PROGRAM: &str = "BENCH_IROH_BIN";
const LOCK: &str = include_str!("../../iroh/Cargo.lock");
/// Datagrams that are handed over together, and how many may be under way.
const OFFERS: [(u64, u64); 4] = [(1, 1_024), (10, 1_024), (10, 4_096), (10, u64::MAX)];
/// Of these, those that are handed over one by one.
const SINGLY: usize = 1;

pub(crate) fn program() -> Result<PathBuf, String> {
    let named = env::var_os(PROGRAM).map(PathBuf::from);
    named.ok_or_else(|| "not built: see what bench/run said when it tried".to_owned())
}

/// Of one of its crates.
pub(crate) fn version(name: &str) -> Result<String, String> {
    program()?;
    let entry = LOCK.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{name}\"\n")));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    Ok(format!("{name} {}", version.unwrap_or("?")))
}

pub(super) struct Relay<'a> {
    net: &'a Net,
    server: Process,
    offers: usize,
    tuned: Tuned,
}

impl<'a> Relay<'a> {
    pub(super) fn start(net: &'a Net) -> Result<Self, String> {
        Self::with(net, OFFERS.len())
    }

    /// To which datagrams are handed one by one.
    pub(super) fn start_singly(net: &'a Net) -> Result<Self, String> {
        Self::with(net, SINGLY)
    }

    fn with(net: &'a Net, offers: usize) -> Result<Self, String> {
        let program = program()?.display().to_string();
        let core = cpu::BASE_CORE.to_string();
        let mut server = net.middle.spawn("taskset", &["-c", &core, &program, "relay-plain"]);
        tools::wait(&mut server, "line that says it is ready", 0, |line| {
            (line.text == "ready").then_some(())
        })?;
        Ok(Self { net, server, offers, tuned: Tuned::default() })
    }

    pub(super) fn turn(&mut self, size: usize, time: Duration) -> Result<Turn, String> {
        let program = program()?;
        let (net, relay) = (self.net, self.server.pid());
        let turn = |offer: u64, time: Duration| {
            let (batch, window) = OFFERS[offer as usize];
            let words = |role: &str| {
                let side = if role == "sender" { Side::Left } else { Side::Right };
                let url = format!("http://{}", Net::base(side).ip());
                let numbers = [size as u64, batch, window].map(|number| number.to_string());
                [vec!["relayed".to_owned(), role.to_owned(), url], numbers.to_vec()].concat()
            };
            let mut ends = Ends::start(&program, [&net.left, &net.right], [cpu::GEAR_CORE; 2], words)?;
            ends.turn(Some(relay), time / 5, time)
        };
        // What does not work at all is the worst.
        let nothing = Turn { rate: 0.0, cost: f64::NAN, busy: f64::NAN, lost: 1.0 };
        let all: Vec<u64> = (0..self.offers as u64).collect();
        let best = self.tuned.best_of(size, &all, |offer, time| turn(offer, time).unwrap_or(nothing));
        turn(best, time)
    }
}

/// One turn with fresh processes: `datagrams`, or a `stream`.
pub(crate) fn direct(
    cable: &Cable,
    how: &str,
    size: usize,
    warm_up: Duration,
    time: Duration,
) -> Result<Turn, String> {
    let words = |role: &str| [how, role, "10.9.0.2", &size.to_string()].map(str::to_owned).to_vec();
    let nodes = [&cable.sender, &cable.receiver];
    let mut ends = Ends::start(&program()?, nodes, [cpu::BASE_CORE, cpu::GEAR_CORE], words)?;
    ends.turn(None, warm_up, time)
}
