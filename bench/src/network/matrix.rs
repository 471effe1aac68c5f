//! `bench/run nat-matrix`: every pair of places that devices are in. Does data flow at once, does the path become direct exactly where
//! it can ([`kinds`](super::kinds)), how long until the first message and until direct. 20 ms from any host to any other.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bowline_lab::{Internet, Lab, Node};
use serde_json::{Value, json};

use super::{
    kinds::{Expected, GUESSED_WITHIN, KINDS, Kind, expected},
    log::Log,
    pair::{Base, LEFT, Pair, RIGHT, Stack, delays},
};
use crate::say;

/// The base's addresses; the web's port for those who may use no other.
const LISTEN: [&str; 4] =
    ["203.0.113.10:4477", "[2001:db8:113::10]:4477", "203.0.113.10:443", "[2001:db8:113::10]:443"];
/// What devices are told: a name, without a port.
const BASE: &str = "base.example.net";
const HOSTS: &str = "203.0.113.10 base.example.net\n2001:db8:113::10 base.example.net\n";
/// Once direct, it is to stay so for as long.
const STAYS: Duration = Duration::from_millis(500);
/// So many messages at the end came directly where a path is.
const LAST: usize = 10;
/// Between two looks at the time.
const POLL: Duration = Duration::from_millis(200);
/// The first home's number; two for each kind.
const FIRST_HOME: u8 = 20;

/// All pairs, each once.
pub(crate) fn pairs() -> Vec<(Kind, Kind)> {
    let pairs =
        KINDS.iter().enumerate().flat_map(|(at, &one)| KINDS[at..].iter().map(move |&other| (one, other)));
    let only = std::env::var("BENCH_ONLY").ok(); // for whoever looks into some cells: `symR-port,symS-port`
    let wanted = |&(one, other): &(Kind, Kind)| {
        let names = [(one, other), (other, one)].map(|(a, b)| format!("{}-{}", a.short(), b.short()));
        only.as_ref().is_none_or(|only| only.split(',').any(|name| names.iter().any(|known| known == name)))
    };
    pairs.filter(wanted).collect()
}

/// Inside a network of its own: every pair so many times, a line of JSON each; so many at once.
pub(crate) fn inside(lab: &Lab, rounds: usize, watch: Duration, at_once: usize) {
    lab.hosts(HOSTS);
    let internet = Internet::new(lab);
    let server = internet.server(lab, "base", 10);
    let places = Places::new(lab, &internet);
    let _delays = delays(places.edges.iter().chain([&server]));
    let base = Base::start(Stack::Bowline, &server, &LISTEN);

    let all: Vec<_> = (0..rounds).flat_map(|_| pairs()).collect();
    let next = AtomicUsize::new(0);
    let output = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(one, other)) = all.get(run) else { return };
                    let line = measure(&places, one, other, run as u64, watch);
                    let _one_at_a_time = output.lock().unwrap_or_else(PoisonError::into_inner);
                    say(&line.to_string());
                }
            });
        }
    });
    drop(base);
}

/// The devices of each kind, left and right.
struct Places {
    devices: Vec<[Node; 2]>,
    /// What stands at the edge of the internet, for the delay lines.
    edges: Vec<Node>,
}

impl Places {
    fn new(lab: &Lab, internet: &Internet) -> Self {
        let mut edges = Vec::new();
        let mut devices = Vec::new();
        for (at, kind) in KINDS.into_iter().enumerate() {
            let number = FIRST_HOME + 2 * at as u8;
            let name = |side: usize| format!("device{}", usize::from(number) + side);
            devices.push(match (kind, kind.nat()) {
                (_, None) => [LEFT, RIGHT].map(|side| {
                    let device = internet.server(lab, &name(side), number + side as u8);
                    edges.push(device.clone());
                    device
                }),
                // Two devices of one home that keeps them apart: only the hairpin joins them.
                (Kind::Hairpin, Some(nat)) => {
                    let home = internet.home(lab, number, nat);
                    edges.push(home.router.clone());
                    [LEFT, RIGHT].map(|side| {
                        let device = home.device_v4(lab, &name(side), 2 + side as u8);
                        home.isolate(&device, "eth0");
                        device
                    })
                }
                (_, Some(nat)) => [LEFT, RIGHT].map(|side| {
                    let number = number + side as u8;
                    let home = if kind == Kind::DoubleNat {
                        let (carrier, home) = internet.home_behind_carrier(lab, number, nat, nat);
                        edges.push(carrier);
                        home
                    } else {
                        let home = internet.home(lab, number, nat);
                        edges.push(home.router.clone());
                        home
                    };
                    match kind {
                        Kind::Ipv6Firewall => home.device(lab, &name(side), 2),
                        Kind::Ipv6Only => home.device_v6(lab, &name(side), 2),
                        _ => home.device_v4(lab, &name(side), 2),
                    }
                }),
            });
        }
        Self { devices, edges }
    }

    fn device(&self, kind: Kind, side: usize) -> &Node {
        let at = KINDS.iter().position(|&known| known == kind).expect("all kinds are there");
        &self.devices[at][side]
    }
}

fn measure(places: &Places, one: Kind, other: Kind, run: u64, watch: Duration) -> Value {
    let names = [BASE.to_owned()];
    let nodes = [places.device(one, LEFT), places.device(other, RIGHT)];
    let mut pair = Pair::start(Stack::Bowline, nodes, &names, run);
    pair.online();
    pair.go(LEFT);
    pair.go(RIGHT);
    let guessed = matches!(expected(one, other), Expected::Guessed(_));
    let deadline = Instant::now() + if guessed { watch.max(GUESSED_WITHIN) } else { watch };
    loop {
        let over = Instant::now() > deadline;
        if over || pair.settle(&[LEFT, RIGHT], 'd', STAYS, POLL) {
            return judge(one, other, &[LEFT, RIGHT].map(|side| pair.log(side)));
        }
    }
}

/// Both directions together: the slower one counts.
fn judge(one: Kind, other: Kind, both: &[Log; 2]) -> Value {
    let slower = |of: &dyn Fn(&Log, &Log) -> Option<u64>| {
        let [left, right] = both;
        Some(of(left, right)?.max(of(right, left)?) as f64 / 1e6)
    };
    let began = |sender: &Log| sender.sent.first().map(|&(at, _)| at);
    let first = slower(&|sender, receiver| Some(receiver.received.first()?.at - began(sender)?));
    let direct = slower(&|sender, receiver| {
        Some(receiver.received.iter().find(|message| message.way == 'd')?.at.saturating_sub(began(sender)?))
    });
    // The very first message is not lost, each way.
    let at_once =
        slower(&|_, receiver| receiver.received.iter().find(|m| m.number == 0).map(|_| 0)).is_some();
    // By number, not by time: on a busy machine what a device says is read late.
    let ends_direct = both.iter().all(|log| log.ends_with('d', LAST));
    let relay = if both.iter().flat_map(|log| &log.received).any(|m| m.way == 'u') {
        "relay-udp"
    } else {
        "relay-tcp"
    };
    json!({
        "pair": [one.name(), other.name()],
        "at_once": at_once,
        "first_ms": first,
        "direct_ms": direct,
        "direct": direct.is_some() && ends_direct,
        "relay": relay,
    })
}
