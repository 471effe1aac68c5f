//! Load for what others have built: one flow of datagrams from a socket of ours to another, with a window.
//!
//! The two ends are threads of this process, so the sender knows what has arrived without a word on the wire. It keeps at most a window of
//! datagrams under way; what has not come after a while is written off as lost. Every product has a window of its own at which
//! it carries most: a few are tried, the best is used from then on ([`Tuned`]). So none is judged by how it behaves when it is drowned,
//! and none by how it waits for its next packet.

use std::{
    fs,
    io::{ErrorKind, IoSliceMut},
    net::SocketAddrV4,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use quinn_udp::{BATCH_SIZE, RecvMeta};

use crate::{cpu, host::Wire};

/// The most bytes of one send call, under 64 KiB with the headers.
const LARGEST_RUN: usize = 60_000;
const MOST_SEGMENTS: usize = 32;
const LARGEST: usize = 1 << 16;
/// What has not come by then is lost; far longer than any queue here.
const LOST_AFTER: Duration = Duration::from_millis(10);
/// A sender that may not send sleeps for so long, and lets the others on its core work.
const PAUSE: Duration = Duration::from_micros(50);
/// How long one window is tried.
const TRIAL: Duration = Duration::from_millis(400);
/// The windows that are tried: the last is as good as none.
const WINDOWS: [u64; 4] = [64, 256, 1_024, 16_384];

/// What one turn measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Datagrams that arrived, a second.
    pub(crate) rate: f64,
    /// CPU seconds of those who are billed, for a million datagrams that arrived.
    pub(crate) cost: f64,
    /// The share of a core that they used.
    pub(crate) busy: f64,
    /// The share of what was sent that did not arrive.
    pub(crate) lost: f64,
}

impl Turn {
    /// The same counted in messages, of which each datagram had so many.
    pub(crate) fn of_messages(self, each: usize) -> Self {
        Self { rate: self.rate * each as f64, cost: self.cost / each as f64, ..self }
    }
}

/// Whose CPU time counts.
#[derive(Debug, Clone)]
pub(crate) enum Billed {
    /// A relay's process; what sends and receives is gear.
    Relay(u32),
    /// Both ends: these processes, and the threads here that send and receive.
    Ends(Vec<u32>),
}

/// A way for datagrams.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) from: Arc<Wire>,
    pub(crate) to: SocketAddrV4,
    pub(crate) into: Arc<Wire>,
    /// The sender's core and the receiver's.
    pub(crate) cores: [usize; 2],
    pub(crate) billed: Billed,
}

impl Way {
    /// Sends one now and then until one arrives.
    pub(crate) fn open(&self, datagram: &[u8], within: Duration) -> Result<(), String> {
        const AGAIN: Duration = Duration::from_millis(50);
        self.into.drain();
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            let _ = self.from.send(None, self.to, datagram, None); // there may be no route yet
            if self.into.wait(AGAIN) {
                self.into.drain();
                return Ok(());
            }
        }
        Err(format!("nothing came through within {} s", within.as_secs()))
    }

    /// Sends copies of this datagram for a while, with this window.
    pub(crate) fn turn(&self, datagram: &[u8], window: u64, time: Duration) -> Turn {
        self.into.drain();
        let flow = Arc::new(Counts::default());
        let stop = Arc::new(AtomicBool::new(false));
        let sink = self.start(&flow, &stop, 1, receive);
        let (wire, to, run) = (Arc::clone(&self.from), self.to, datagram.to_vec());
        let source = self.start(&flow, &stop, 0, move |_, flow, stop| {
            send(&wire, to, &run, window, flow, stop);
        });
        thread::sleep(time / 5);
        let before = self.mark(&flow);
        thread::sleep(time);
        let after = self.mark(&flow);
        stop.store(true, Relaxed);
        let _ = (source.join(), sink.join());
        let (seconds, used) = ((after.at - before.at).as_secs_f64(), after.cpu - before.cpu);
        let (sent, received) = (after.sent - before.sent, after.received - before.received);
        Turn {
            rate: received / seconds,
            cost: used / received * 1e6,
            busy: used / seconds,
            lost: (1.0 - received / sent).max(0.0),
        }
    }

    fn start(
        &self,
        flow: &Arc<Counts>,
        stop: &Arc<AtomicBool>,
        end: usize,
        work: impl FnOnce(&Wire, &Counts, &AtomicBool) + Send + 'static,
    ) -> JoinHandle<()> {
        let (flow, stop) = (Arc::clone(flow), Arc::clone(stop));
        let (core, wire) = (self.cores[end], Arc::clone(&self.into));
        thread::spawn(move || {
            cpu::pin(core);
            flow.threads[end].store(nix::unistd::gettid().as_raw(), Relaxed);
            work(&wire, &flow, &stop);
        })
    }

    fn mark(&self, flow: &Counts) -> Mark {
        let cpu = match &self.billed {
            Billed::Relay(pid) => cpu::seconds(*pid),
            Billed::Ends(pids) => {
                let threads = flow.threads.iter().map(|thread| thread_seconds(thread.load(Relaxed)));
                pids.iter().map(|pid| cpu::seconds(*pid)).chain(threads).sum()
            }
        };
        let [sent, received] = [&flow.sent, &flow.received].map(|count| count.load(Relaxed) as f64);
        Mark { at: Instant::now(), cpu, sent, received }
    }
}

/// What two threads tell each other and the one that measures.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    /// Their numbers in the system.
    threads: [AtomicI32; 2],
}

struct Mark {
    at: Instant,
    cpu: f64,
    sent: f64,
    received: f64,
}

/// Seconds that a thread of this process has run.
fn thread_seconds(thread: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.map_or(f64::NAN, |nanos| nanos / 1e9)
}

/// Sends runs of a datagram, cut by the sender's kernel, as long as the window allows.
fn send(wire: &Wire, to: SocketAddrV4, datagram: &[u8], window: u64, flow: &Counts, stop: &AtomicBool) {
    let size = datagram.len();
    let most = (LARGEST_RUN / size).min(MOST_SEGMENTS).min(window as usize / 2).max(1);
    let run = datagram.repeat(most);
    let (mut sent, mut written_off) = (0_u64, 0_u64);
    let mut progress = (Instant::now(), 0_u64);
    while !stop.load(Relaxed) {
        let received = flow.received.load(Relaxed);
        if received != progress.1 {
            progress = (Instant::now(), received);
        }
        let under_way = sent.saturating_sub(received + written_off);
        if under_way + most as u64 > window {
            if progress.0.elapsed() > LOST_AFTER {
                written_off += under_way;
                progress.0 = Instant::now();
            } else {
                thread::sleep(PAUSE);
            }
            continue;
        }
        match wire.send(None, to, &run, (most > 1).then_some(size)) {
            Ok(()) => {
                sent += most as u64;
                flow.sent.store(sent, Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => thread::sleep(PAUSE * 20),
        }
    }
}

/// Takes all that comes, as the system merged it.
fn receive(wire: &Wire, flow: &Counts, stop: &AtomicBool) {
    let mut buffer = vec![0; LARGEST * BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    while !stop.load(Relaxed) {
        let mut chunks = buffer.chunks_mut(LARGEST);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let filled = wire.receive(&mut slices, &mut metas);
        if filled == 0 {
            wire.wait(Duration::from_millis(20));
        }
        let datagrams: u64 = metas[..filled].iter().map(|m| m.len.div_ceil(m.stride.max(1)) as u64).sum();
        flow.received.fetch_add(datagrams, Relaxed);
    }
}

/// The best of several ways to offer load, found once and used from then on.
#[derive(Debug, Default)]
pub(crate) struct Tuned {
    /// For each size of datagram.
    best: Vec<(usize, u64)>,
}

impl Tuned {
    /// The window for this size at which `turn` carries most.
    pub(crate) fn window(&mut self, size: usize, turn: impl Fn(u64, Duration) -> Turn) -> u64 {
        self.best_of(size, &WINDOWS, turn)
    }

    /// The same for another measure of load.
    pub(crate) fn best_of(
        &mut self,
        size: usize,
        offers: &[u64],
        turn: impl Fn(u64, Duration) -> Turn,
    ) -> u64 {
        if let Some((_, found)) = self.best.iter().find(|(known, _)| *known == size) {
            return *found;
        }
        let tried = offers.iter().map(|offer| (*offer, turn(*offer, TRIAL).rate));
        let best = tried.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(offers[0], |(offer, _)| offer);
        self.best.push((size, best));
        best
    }
}
