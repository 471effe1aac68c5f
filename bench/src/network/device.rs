//! `bowline-bench device`: a device under measurement. It sends 50 messages a second to its peer and says on standard output what
//! came when; whoever measures does so from outside, from these lines alone.
//!
//! ```text
//! boot T BOOT          it starts; BOOT tells this start from others
//! online T             registered at a base
//! path T NAME          messages to the peer take this way from now on: direct, relay-udp, relay-tcp, none
//! s T NUMBER           a message was handed over
//! r T BOOT NUMBER WAY  a message came: of this start of the peer, by this way (d direct, u relay over UDP, t over TCP)
//! m T PEERS PAIRS      state held for so many peers and address pairs, every ten seconds
//! ```
//! T is nanoseconds of the machine's monotonic clock, the same for all its processes. `go` on standard input starts the sending;
//! the end of standard input ends the device at once. `bench/iroh` is the same for an iroh endpoint.

use std::{process::ExitCode, time::Duration};

use bowline::{BaseName, DeviceId, Endpoint, Event, EventItem, Path, SecretKey};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, stdin},
    time::{MissedTickBehavior, interval},
};

use crate::say;

/// Between two messages: 50 a second.
pub(crate) const INTERVAL: Duration = Duration::from_millis(20);
/// Between two words on the state that is held.
const LOOK: Duration = Duration::from_secs(10);
/// Bytes of a message: what a voice call sends.
const LENGTH: usize = 160;

/// A device's key, from a number that tells it from all others of a run.
pub(crate) fn key(number: u64) -> SecretKey {
    let mut seed = [0x62; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(&seed)
}

/// Nanoseconds of the machine's monotonic clock.
pub(crate) fn clock() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}

/// `device OWN-NUMBER PEER-NUMBER BASE...`
pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse().ok());
    let (Some(own), Some(peer)) = (number(0), number(1)) else { return ExitCode::from(2) };
    let bases: Result<Vec<BaseName>, _> = arguments[2..].iter().map(|base| base.parse()).collect();
    let Ok(bases) = bases else { return ExitCode::from(2) };
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(key(own), key(peer).device_id(), bases))
}

async fn run(key: SecretKey, peer: DeviceId, bases: Vec<BaseName>) -> ExitCode {
    let endpoint = match Endpoint::builder(key).bases(bases).bind().await {
        Ok(endpoint) => endpoint,
        Err(error) => {
            eprintln!("bowline: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut events = endpoint.events();
    let mut orders = BufReader::new(stdin()).lines();
    let boot = getrandom::u32().expect("the system has random numbers");
    say(&format!("boot {} {boot}", clock()));
    let mut number = 0;
    let mut sending = false;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            order = orders.next_line() => match order {
                Ok(Some(order)) => {
                    sending = order == "go";
                    ticks.reset_immediately();
                }
                _ => return ExitCode::SUCCESS,
            },
            _ = ticks.tick(), if sending => {
                say(&format!("s {} {number}", clock()));
                // What cannot leave is lost, and is counted so by whoever waits for it.
                let _ = endpoint.try_send(peer, &message(boot, number));
                number += 1;
            }
            _ = looks.tick() => {
                let peers = endpoint.status().peers;
                let pairs: usize = peers.iter().map(|peer| peer.pairs.len()).sum();
                say(&format!("m {} {} {pairs}", clock(), peers.len()));
            }
            Ok(datagram) = endpoint.recv_datagram() => {
                if let Some((boot, number)) = parse(&datagram.data).filter(|_| datagram.from == peer) {
                    say(&format!("r {} {boot} {number} {}", clock(), letter(datagram.path)));
                }
            }
            Some(item) = events.next() => match item {
                EventItem::Event(Event::Registered { .. }) => say(&format!("online {}", clock())),
                EventItem::Event(Event::PathChanged { to, .. }) => say(&format!("path {} {}", clock(), name(to))),
                _ => {}
            },
        }
    }
}

fn message(boot: u32, number: u64) -> [u8; LENGTH] {
    let mut message = [b'm'; LENGTH];
    message[..4].copy_from_slice(&boot.to_be_bytes());
    message[4..12].copy_from_slice(&number.to_be_bytes());
    message
}

fn parse(message: &[u8]) -> Option<(u32, u64)> {
    let (boot, rest) = message.split_first_chunk()?;
    Some((u32::from_be_bytes(*boot), u64::from_be_bytes(*rest.first_chunk()?)))
}

fn name(path: Path) -> &'static str {
    match path {
        Path::Direct(_) => "direct",
        Path::RelayUdp => "relay-udp",
        Path::RelayTcp => "relay-tcp",
        Path::None | Path::Local => "none",
    }
}

fn letter(path: Path) -> char {
    match path {
        Path::Direct(_) => 'd',
        Path::RelayUdp => 'u',
        Path::RelayTcp => 't',
        Path::None | Path::Local => '-',
    }
}
