//! What sends load and what takes it: threads on the gear's core, with as few calls as the system allows.

use std::{
    io::{ErrorKind, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use quinn_udp::{BATCH_SIZE, RecvMeta};

use crate::{cpu, host::Wire};

/// The most bytes of one send call, under 64 KiB with the headers.
const LARGEST_RUN: usize = 65_000;
/// The most segments of one send call.
const MOST_SEGMENTS: usize = 64;
const LARGEST: usize = 1 << 16;

/// A thread that works until it is stopped.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Running {
    fn start(work: impl FnOnce(&AtomicBool) -> u64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            cpu::pin(cpu::GEAR_CORE);
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

/// Sends copies of one datagram as fast as the system takes them, in runs.
pub(crate) fn flood(wire: &Arc<Wire>, from: Option<Ipv4Addr>, to: SocketAddrV4, datagram: &[u8]) -> Running {
    let wire = Arc::clone(wire);
    let size = datagram.len();
    let count = (LARGEST_RUN / size).min(MOST_SEGMENTS);
    let run = datagram.repeat(count);
    Running::start(move |stop| {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            match wire.send(from, to, &run, Some(size)) {
                Ok(()) => sent += count as u64,
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
    Running::start(move |stop| {
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
