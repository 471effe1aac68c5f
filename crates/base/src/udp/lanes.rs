//! The sockets of a worker on one port, and which of them a datagram leaves by.
//!
//! All leave by the first, so that as many as can be share a call. What the system cannot send yet stays in the buffer of its socket, and
//! for an address on the base's own link that nobody answers for any more, that is as much as 213 kB, for seconds: a few devices that have
//! vanished, and the first socket takes nothing for anybody. From then on each IP address has one of the others, and whoever
//! vanishes is in the way of those few who share his. All are bound to one address and port: the other side sees no difference.
//!
//! ```text
//! together ──nothing was taken for REFUSING──▶ apart ──APART has passed, the first has drained──▶ together
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::Port;

/// A socket that takes nothing for so long is not merely busy: a link that moves at all makes room within a millisecond.
const REFUSING: Duration = Duration::from_millis(20);
/// Longer than a base takes a device that has vanished to be reached over UDP. Whoever else vanishes then costs everybody [`REFUSING`]
/// again.
const APART: Duration = Duration::from_secs(60);

/// The sockets of one worker on one port: at least one.
#[derive(Debug)]
pub(crate) struct Lanes {
    first: Arc<Port>,
    others: Vec<Arc<Port>>,
    began: Instant,
    /// Since when the first has taken nothing, in microseconds; 0: it takes what there is.
    refusing: AtomicU64,
    /// Until when datagrams leave apart from each other, in microseconds; 0: they leave together.
    apart: AtomicU64,
}

impl Lanes {
    pub(crate) fn new(first: Arc<Port>, others: Vec<Arc<Port>>) -> Arc<Self> {
        Arc::new(Self {
            first,
            others,
            began: Instant::now(),
            refusing: AtomicU64::new(0),
            apart: AtomicU64::new(0),
        })
    }

    /// All of them, to receive by: the first one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Port>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.first.local_addr()
    }

    /// The most datagrams that one call sends as a run.
    pub(super) fn max_gso_segments(&self) -> usize {
        self.first.state.max_gso_segments()
    }

    /// By which datagrams to this address leave.
    pub(super) fn to(&self, ip: IpAddr) -> &Arc<Port> {
        if self.are_apart() { self.of(ip) } else { &self.first }
    }

    /// How many of these destinations, from the front, are sent to by the socket of the first of them.
    pub(super) fn together(&self, to: impl ExactSizeIterator<Item = IpAddr>) -> usize {
        let count = to.len();
        if !self.are_apart() {
            return count;
        }
        let mut sockets = to.map(|ip| Arc::as_ptr(self.of(ip)));
        let first = sockets.next();
        first.map_or(0, |first| 1 + sockets.take_while(|&socket| socket == first).count())
    }

    /// The socket has taken something.
    pub(super) fn took(&self) {
        if self.refusing.load(Relaxed) != 0 {
            self.refusing.store(0, Relaxed);
        }
    }

    /// The socket had no room.
    pub(super) fn refused(&self) {
        if self.others.is_empty() || self.apart.load(Relaxed) != 0 {
            return;
        }
        let now = self.now();
        match self.refusing.load(Relaxed) {
            0 => self.refusing.store(now, Relaxed),
            since if now.saturating_sub(since) >= REFUSING.as_micros() as u64 => {
                tracing::info!(
                    address = %self.local_addr(),
                    "a UDP socket takes nothing more, as when devices on the base's own link have vanished: others are used"
                );
                self.refusing.store(0, Relaxed);
                self.apart.store(now + APART.as_micros() as u64, Relaxed);
            }
            _ => {}
        }
    }

    fn are_apart(&self) -> bool {
        let until = self.apart.load(Relaxed);
        if until != 0 && self.now() >= until {
            self.apart.store(0, Relaxed);
        }
        self.apart.load(Relaxed) != 0
    }

    fn of(&self, ip: IpAddr) -> &Arc<Port> {
        let bits = match ip {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 ^ ip.to_bits() as u64,
        };
        // The upper bits of the product depend on all of the address.
        let place = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        self.others.get(place % self.others.len().max(1)).unwrap_or(&self.first)
    }

    /// Never 0.
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64 + 1
    }
}
