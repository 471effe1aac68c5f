//! bowline as the socket of a QUIC implementation.
//!
//! Datagrams leave as quinn hands them over, up to ten of one size with a call, and come in as the system merged them. Two things
//! are not as with a UDP socket:
//!
//! - What the direct path to a device does not carry would go through the base's TCP connection. That would be right for a message and
//!   wrong here: QUIC would take the detour for the path. So larger datagrams than the present way is known to carry are dropped,
//!   and QUIC's own search for the size finds what bowline's has found.
//! - A way may be full for one device and free for another. quinn asks whether it may write right after a send was refused, from
//!   the same poll of the same task; what is to be waited for is handed from the one to the other in a cell of the thread.
//!
//! Marks of congestion (ECN) go and come on direct paths. Through a base none do, and yet they are said to have come as they were sent:
//! a base is a tunnel in compatibility mode (RFC 6040), out of which everything comes with the mark that it went in with. QUIC sends
//! everything with ECT(0) until it finds that marks do not arrive, and then never again on the same path, of which there is one for
//! ever here: a connection that begins through a base, as most do, or goes by it for a while, would be without ECN for good. Who has stopped
//! to mark does not look at what is said of marks. So nothing is hidden: routers on the way of a base drop what they would mark.
//!
//! Sends fail for one reason only: no room. Everything else is what a network does with a datagram, and QUIC repeats it.

use std::{
    cell::Cell,
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bowline::{Ecn, Path, RecvError, Room, Segments, SendSegmentsError};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};

use crate::{
    address,
    config::{RECEIVE_SEGMENTS, SMALLEST_MTU},
    farewell::Farewells,
};

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

thread_local! {
    /// What the send that was just refused waits for.
    static MISSING: Cell<Option<Room>> = const { Cell::new(None) };
}

pub(crate) struct Socket {
    endpoint: bowline::Endpoint,
    incoming: Mutex<Incoming>,
    /// Whether the end of the bowline endpoint is no error.
    ending: AtomicBool,
    /// From then on.
    farewells: Mutex<Farewells>,
}

#[derive(Default)]
struct Incoming {
    /// What did not fit into the last receive.
    rest: Option<Segments>,
    waiting: Option<Waiting<Result<Segments, RecvError>>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("id", &self.endpoint.id()).finish_non_exhaustive()
    }
}

impl Socket {
    pub(crate) fn new(endpoint: bowline::Endpoint) -> Self {
        endpoint.read_ecn(true);
        Self {
            endpoint,
            incoming: Mutex::default(),
            ending: AtomicBool::new(false),
            farewells: Mutex::default(),
        }
    }

    /// Everything is about to be closed.
    pub(crate) fn expect_end(&self) {
        self.ending.store(true, Relaxed);
    }

    /// Says again what ends connections, where nothing has come back; `true`: nowhere.
    pub(crate) fn repeat_farewells(&self) -> bool {
        let farewells = self.farewells();
        let mut unheard = farewells.unheard().peekable();
        let all_heard = unheard.peek().is_none();
        for (device, datagram) in unheard {
            // Where there is no room, there may be with the next.
            let _ = self.endpoint.try_send(device, datagram);
        }
        all_heard
    }

    fn farewells(&self) -> MutexGuard<'_, Farewells> {
        // Nothing panics while it holds this lock.
        self.farewells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the present way is known to carry datagrams of this size.
    fn carries(&self, device: bowline::DeviceId, length: usize) -> bool {
        length <= usize::from(SMALLEST_MTU)
            || self.endpoint.max_direct(device).is_some_and(|limit| length <= limit)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(Mutex::new(None)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(device) = address::device(transmit.destination) else { return Ok(()) };
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        if !self.carries(device, segment.min(transmit.contents.len())) {
            return Ok(());
        }
        if self.ending.load(Relaxed) && segment >= transmit.contents.len() {
            self.farewells().note_sent(device, transmit.contents);
        }
        let ecn = match transmit.ecn {
            None => Ecn::NotEct,
            Some(EcnCodepoint::Ect1) => Ecn::Ect1,
            Some(EcnCodepoint::Ect0) => Ecn::Ect0,
            Some(EcnCodepoint::Ce) => Ecn::Ce,
        };
        match self.endpoint.try_send_segments_marked(device, transmit.contents, segment, ecn) {
            Ok(()) => Ok(()),
            Err(SendSegmentsError::Full(room)) => {
                MISSING.set(Some(room));
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => {
                tracing::trace!(%device, %error, "a datagram was dropped");
                Ok(())
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Nothing panics while it holds this lock.
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        while filled < bufs.len().min(meta.len()) {
            match incoming.next(&self.endpoint, filled > 0, cx) {
                Poll::Ready(Ok(segments)) => {
                    let (taken, rest) = fill(segments, &mut bufs[filled]);
                    incoming.rest = rest;
                    if let Some(taken) = taken {
                        if self.ending.load(Relaxed)
                            && let Some(device) = address::device(taken.addr)
                        {
                            self.farewells().note_received(device);
                        }
                        meta[filled] = taken;
                        filled += 1;
                    }
                }
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Ready(Err(_)) if self.ending.load(Relaxed) => return Poll::Pending,
                Poll::Ready(Err(_)) if filled == 0 => {
                    return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                }
                _ => break,
            }
        }
        Poll::Ready(Ok(filled))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address::of(self.endpoint.id()))
    }

    fn max_transmit_segments(&self) -> usize {
        // bowline cuts a batch itself where the system does not.
        64
    }

    fn max_receive_segments(&self) -> usize {
        RECEIVE_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Incoming {
    /// What came next. Once there is something, nothing more is waited for.
    fn next(
        &mut self,
        endpoint: &bowline::Endpoint,
        have_some: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Segments, RecvError>> {
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Ok(rest));
        }
        if self.waiting.is_none() {
            match endpoint.try_recv_segments() {
                Ok(Some(segments)) => return Poll::Ready(Ok(segments)),
                Ok(None) if have_some => return Poll::Pending,
                Ok(None) => {}
                Err(closed) => return Poll::Ready(Err(closed)),
            }
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let endpoint = endpoint.clone();
            Box::pin(async move { endpoint.recv_segments().await })
        });
        let received = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(received)
    }
}

/// Copies as many whole messages as fit; what they are, and the rest. A message that does not fit at all is none of QUIC's.
fn fill(mut segments: Segments, buf: &mut [u8]) -> (Option<RecvMeta>, Option<Segments>) {
    let stride = segments.segment.min(segments.data.len()).max(1);
    let fitting = buf.len() / stride * stride;
    if fitting == 0 || segments.data.is_empty() {
        return (None, None);
    }
    let data = segments.data.split_to(fitting.min(segments.data.len()));
    buf[..data.len()].copy_from_slice(&data);
    let ecn = mark(&segments);
    let meta = RecvMeta { addr: address::of(segments.from), len: data.len(), stride, ecn, dst_ip: None };
    (Some(meta), (!segments.data.is_empty()).then_some(segments))
}

/// The mark that messages came with; through a base, the one that they were sent with.
fn mark(segments: &Segments) -> Option<EcnCodepoint> {
    match (segments.path, segments.ecn) {
        (Path::RelayUdp | Path::RelayTcp, _) | (_, Ecn::Ect0) => Some(EcnCodepoint::Ect0),
        (_, Ecn::Ect1) => Some(EcnCodepoint::Ect1),
        (_, Ecn::Ce) => Some(EcnCodepoint::Ce),
        (_, Ecn::NotEct) => None,
    }
}

/// Waits for what the last refused send of its connection lacked.
struct Poller(Mutex<Option<Waiting<()>>>);

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poller")
    }
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = self.get_mut().0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = MISSING.take() {
            *waiting = Some(Box::pin(room.wait()));
        }
        if let Some(future) = waiting {
            ready!(future.as_mut().poll(cx));
            *waiting = None;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use bowline::DeviceId;
    use bytes::Bytes;

    use super::*;

    fn segments(length: usize, segment: usize) -> Segments {
        let from = DeviceId::of_public_key(&[1; 32]);
        Segments { from, data: Bytes::from(vec![7; length]), segment, path: Path::RelayUdp, ecn: Ecn::NotEct }
    }

    #[test]
    fn a_receive_takes_whole_messages_and_the_rest_comes_with_the_next() {
        let mut buf = [0; 2500];
        let (meta, rest) = fill(segments(5300, 1200), &mut buf);
        assert_eq!(meta.map(|m| (m.len, m.stride)), Some((2400, 1200)));
        let (meta, rest) = fill(rest.unwrap(), &mut buf);
        assert_eq!(meta.map(|m| m.len), Some(2400));
        let (meta, rest) = fill(rest.unwrap(), &mut buf);
        assert_eq!(meta.map(|m| (m.len, m.stride)), Some((500, 500)));
        assert!(rest.is_none());
    }

    #[test]
    fn messages_too_large_for_quic_and_empty_ones_are_passed_over() {
        let mut buf = [0; 1000];
        assert!(matches!(fill(segments(1001, 1001), &mut buf), (None, None)));
        assert!(matches!(fill(segments(0, 1), &mut buf), (None, None)));
    }
    #[test]
    fn marks_of_a_direct_path_are_handed_on_and_a_base_hides_none() {
        let direct = |ecn| Segments { path: Path::Direct(([192, 0, 2, 1], 1).into()), ecn, ..segments(1, 1) };
        assert_eq!(mark(&direct(Ecn::Ce)), Some(EcnCodepoint::Ce));
        assert_eq!(mark(&direct(Ecn::Ect0)), Some(EcnCodepoint::Ect0));
        assert_eq!(mark(&direct(Ecn::NotEct)), None, "the path took it off");
        assert_eq!(mark(&segments(1, 1)), Some(EcnCodepoint::Ect0));
    }
}
