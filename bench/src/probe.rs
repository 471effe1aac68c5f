//! A small flow that measures what others do to it: one datagram a millisecond, each with the time it left at.

use std::{
    io::IoSliceMut,
    net::SocketAddrV4,
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use bowline_proto::wire::relay::HEADER_LEN;
use quinn_udp::RecvMeta;

use crate::{
    gear::{Priority, Running},
    host::Wire,
};

const EVERY: Duration = Duration::from_millis(1);
/// Data of a datagram: the time it left at, and what a voice packet has.
pub(crate) const DATA: usize = 160;
/// After the last datagram, how long it may still be on its way.
const TAIL: Duration = Duration::from_millis(200);

/// What a probe found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) sent: u64,
    /// Seconds, sorted.
    latencies: Vec<f64>,
}

impl Found {
    pub(crate) fn lost(&self) -> f64 {
        1.0 - self.latencies.len() as f64 / self.sent as f64
    }

    /// The latency that this share stayed under, in microseconds.
    pub(crate) fn micros(&self, share: f64) -> f64 {
        let place = (self.latencies.len() as f64 * share) as usize;
        let found = self.latencies.get(place.min(self.latencies.len().saturating_sub(1)));
        found.map_or(f64::NAN, |seconds| seconds * 1e6)
    }
}

/// Sends `datagram` (its data begins after the header) from `left` and takes it on `right`, while `body` runs.
pub(crate) fn during(
    left: &Arc<Wire>,
    to: SocketAddrV4,
    datagram: &[u8],
    right: &Arc<Wire>,
    body: impl FnOnce(),
) -> Found {
    let epoch = Instant::now();
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let receiver = {
        let (right, latencies) = (Arc::clone(right), Arc::clone(&latencies));
        Running::start(Priority::First, move |stop| {
            let mut buffer = vec![0; 1 << 16];
            let mut metas = [RecvMeta::default()];
            while !stop.load(Ordering::Relaxed) {
                if right.receive(&mut [IoSliceMut::new(&mut buffer)], &mut metas) == 0 {
                    right.wait(Duration::from_millis(20));
                    continue;
                }
                let now = epoch.elapsed().as_nanos() as u64;
                for datagram in buffer[..metas[0].len].chunks(metas[0].stride.max(1)) {
                    if let Some(time) = datagram.get(HEADER_LEN..).and_then(|data| data.first_chunk::<8>()) {
                        let latency = now.saturating_sub(u64::from_be_bytes(*time)) as f64 / 1e9;
                        latencies.lock().expect("nobody panics with it").push(latency);
                    }
                }
            }
            0
        })
    };
    let sender = {
        let (left, mut datagram) = (Arc::clone(left), datagram.to_vec());
        Running::start(Priority::First, move |stop| {
            let mut sent = 0u64;
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let time = epoch.elapsed().as_nanos() as u64;
                datagram[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&time.to_be_bytes());
                if left.send(None, to, &datagram, None).is_ok() {
                    sent += 1;
                }
                let due = start + EVERY * sent as u32;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            sent
        })
    };
    body();
    let sent = sender.stop();
    thread::sleep(TAIL);
    receiver.stop();
    let mut latencies = std::mem::take(&mut *latencies.lock().expect("nobody panics with it"));
    latencies.sort_by(f64::total_cmp);
    Found { sent, latencies }
}
