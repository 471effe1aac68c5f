//! UDP in batches: many datagrams a receive call, and runs of one destination and size as one send call.
//!
//! Packets cost, not bytes: most of a datagram's price is its trip through the kernel. What the system merged on
//! receipt (GRO) is split, and what goes to one destination is put together again (GSO), a copy being cheaper than
//! a call. When a socket's buffer is full the datagram is dropped, as the network would.

use std::{
    array, io,
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    task::{Context, Poll},
};

use bowline_proto::base::{SocketId, Via};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;

/// Room for all that one receive may bring: the largest datagram, or what the system merged.
const BUFFER: usize = 1 << 16;
/// The most that one send call takes, with IP and UDP headers under 64 KiB.
const LARGEST_RUN: usize = 65_000;
/// Runs collected side by side: flows that alternate still form runs.
const OPEN_RUNS: usize = 8;

/// One of the base's UDP sockets.
#[derive(Debug)]
pub(crate) struct Port {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl Port {
    /// Puts a socket into the runtime.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket: tokio::net::UdpSocket::from_std(socket)?, state })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows at the receive call that follows.
        self.socket.poll_recv_ready(cx).map(|_| ())
    }

    fn send(&self, via: Via, to: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: via.ip };
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), &transmit))
    }
}

/// The buffers that datagrams are received into, shared by all sockets.
#[derive(Debug)]
pub(crate) struct Receiver {
    buffer: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER * BATCH_SIZE], metas: [RecvMeta::default(); BATCH_SIZE] }
    }

    /// Receives once from a socket and hands over each datagram; `false` when there was nothing.
    pub(crate) fn receive(
        &mut self,
        id: SocketId,
        port: &Port,
        mut each: impl FnMut(Via, SocketAddr, &mut [u8]),
    ) -> bool {
        let mut chunks = self.buffer.chunks_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = port.socket.try_io(Interest::READABLE, || {
            port.state.recv((&port.socket).into(), &mut slices, &mut self.metas)
        });
        let count = match received {
            Ok(count) => count,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "UDP receive");
                }
                return false;
            }
        };
        for (slice, meta) in slices.iter_mut().zip(&self.metas).take(count) {
            let via = Via { socket: id, ip: meta.dst_ip };
            let length = meta.len.min(slice.len());
            if length == 0 {
                each(via, meta.addr, &mut []);
            }
            for datagram in slice[..length].chunks_mut(meta.stride.max(1)) {
                each(via, meta.addr, datagram);
            }
        }
        count > 0
    }
}

/// Datagrams on their way out, as runs.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    runs: Vec<Run>,
    /// Buffers of runs that were sent.
    spare: Vec<Vec<u8>>,
    dropped: u64,
}

/// Datagrams to one destination, all of one size but for a shorter last one.
#[derive(Debug)]
struct Run {
    via: Via,
    to: SocketAddr,
    size: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl Run {
    fn takes(&self, datagram: &[u8], most: usize) -> bool {
        let all_full = self.bytes.len() == self.size * self.count;
        let fits = self.count < most && self.bytes.len() + datagram.len() <= LARGEST_RUN;
        all_full && fits && (1..=self.size).contains(&datagram.len())
    }

    fn put(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
    }
}

impl Sender {
    /// Takes a datagram; it leaves at the next [`Sender::flush`] at the latest. Those to one destination keep their
    /// order.
    pub(crate) fn push(&mut self, ports: &[Port], via: Via, to: SocketAddr, datagram: &[u8]) {
        let Some(port) = ports.get(usize::from(via.socket.0)) else { return };
        let place = self.runs.iter().position(|run| run.to == to && run.via == via);
        if let Some(place) = place {
            if self.runs[place].takes(datagram, port.state.max_gso_segments()) {
                self.runs[place].put(datagram);
                return;
            }
            let run = self.runs.remove(place);
            self.send(ports, run);
        } else if self.runs.len() >= OPEN_RUNS {
            let oldest = self.runs.remove(0);
            self.send(ports, oldest);
        }
        let bytes = self.spare.pop().unwrap_or_default();
        let mut run = Run { via, to, size: datagram.len(), count: 0, bytes };
        run.put(datagram);
        self.runs.push(run);
    }

    /// Sends all runs.
    pub(crate) fn flush(&mut self, ports: &[Port]) {
        for run in std::mem::take(&mut self.runs) {
            self.send(ports, run);
        }
    }

    /// Datagrams that the system did not take.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn send(&mut self, ports: &[Port], mut run: Run) {
        let Some(port) = ports.get(usize::from(run.via.socket.0)) else { return };
        let segment_size = (run.count > 1).then_some(run.size);
        match port.send(run.via, run.to, &run.bytes, segment_size) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || run.count == 1 => {
                self.dropped += run.count as u64;
                tracing::debug!(to = %run.to, count = run.count, %error, "UDP send");
            }
            // Not every device takes runs: the same one by one.
            Err(_) => {
                for datagram in run.bytes.chunks(run.size) {
                    if port.send(run.via, run.to, datagram, None).is_err() {
                        self.dropped += 1;
                    }
                }
            }
        }
        run.bytes.clear();
        self.spare.push(run.bytes);
    }
}
