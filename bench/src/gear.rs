//! What sends load and what takes it: threads on the gear's core, with as few calls as the system allows.

use std::{
    io::{ErrorKind, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use quinn_udp::{BATCH_SIZE, RecvMeta};

use crate::{cpu, host::Wire};

/// The most bytes of one send call, under 64 KiB with the headers.
const LARGEST_RUN: usize = 65_000;
/// The most segments of one send call.
const MOST_SEGMENTS: usize = 64;
const LARGEST: usize = 1 << 16;

/// Who goes first on the gear's core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Load that fills what is left.
    Load,
    Normal,
    /// What measures time: it waits for nobody (SCHED_FIFO, where that is allowed).
    First,
}

impl Priority {
    fn apply(self) {
        let thread = nix::unistd::gettid().to_string();
        let _ = match self {
            Self::Normal => return,
            Self::Load => Command::new("renice").args(["-n", "10", "-p", &thread]).output(),
            Self::First => Command::new("chrt").args(["-f", "-p", "10", &thread]).output(),
        };
    }
}

/// A thread that works until it is stopped.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Running {
    pub(crate) fn start(priority: Priority, work: impl FnOnce(&AtomicBool) -> u64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            cpu::pin(cpu::GEAR_CORE);
            priority.apply();
            work(&told)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops it; how many datagrams it has handled.
    pub(crate) fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Takes nine tenths of every millisecond of the base's core: the base then has a tenth of what it could do, so that one core of gear can
/// offer it ten times too much.
pub(crate) fn occupy_base() -> Running {
    const PERIOD: Duration = Duration::from_millis(1);
    const TAKEN: Duration = Duration::from_micros(900);
    Running::start(Priority::First, move |stop| {
        cpu::pin(cpu::BASE_CORE);
        let start = Instant::now();
        let mut periods = 0;
        while !stop.load(Ordering::Relaxed) {
            let began = start + PERIOD * periods;
            while began.elapsed() < TAKEN {
                std::hint::spin_loop();
            }
            periods = (start.elapsed().as_nanos() / PERIOD.as_nanos()) as u32 + 1;
            thread::sleep((start + PERIOD * periods).saturating_duration_since(Instant::now()));
        }
        0
    })
}

/// Sends copies of one datagram as fast as the system takes them, in runs.
pub(crate) fn flood(wire: &Arc<Wire>, from: Option<Ipv4Addr>, to: SocketAddrV4, datagram: &[u8]) -> Running {
    flood_in_turn(wire, from, &[(to, datagram.to_vec())])
}

/// The same with several, a run of each in turn.
pub(crate) fn flood_many(wire: &Arc<Wire>, flows: &[(SocketAddrV4, Vec<u8>)]) -> Running {
    flood_in_turn(wire, None, flows)
}

fn flood_in_turn(wire: &Arc<Wire>, from: Option<Ipv4Addr>, flows: &[(SocketAddrV4, Vec<u8>)]) -> Running {
    let wire = Arc::clone(wire);
    let run = |(to, datagram): &(SocketAddrV4, Vec<u8>)| {
        let count = (LARGEST_RUN / datagram.len()).min(MOST_SEGMENTS);
        (*to, datagram.len(), count as u64, datagram.repeat(count))
    };
    let runs: Vec<_> = flows.iter().map(run).collect();
    Running::start(Priority::Normal, move |stop| {
        let mut sent = 0;
        for (to, size, count, run) in runs.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match wire.send(from, *to, run, Some(*size)) {
                Ok(()) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        sent
    })
}

/// Takes all that comes, as the system merged it, and counts datagrams.
pub(crate) fn sink(wire: &Arc<Wire>) -> Running {
    let wire = Arc::clone(wire);
    Running::start(Priority::Normal, move |stop| {
        let mut buffer = vec![0; LARGEST * BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut chunks = buffer.chunks_mut(LARGEST);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let received = wire.receive(&mut slices, &mut metas);
            if received == 0 {
                wire.wait(Duration::from_millis(20));
            }
            for meta in &metas[..received] {
                count += meta.len.div_ceil(meta.stride.max(1)) as u64;
            }
        }
        count
    })
}
