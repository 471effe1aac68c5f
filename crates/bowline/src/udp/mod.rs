//! The UDP sockets: one for IPv4, one for IPv6, both on wildcard addresses and the same port where that can be had; and further ones
//! for IPv4 while ports are guessed, of which the one that finds a path stays (`further.rs`).
//!
//! Every datagram goes out with "don't fragment" set, from the address and, where it matters, the interface that a
//! [`Hop`] asks for; every datagram that comes in is told with the address it was sent to. Nothing is queued here: a
//! full socket answers `WouldBlock`, and the caller knows what to do.

mod copied;
mod further;
#[cfg(target_os = "linux")]
#[path = "overflow_linux.rs"]
mod overflow;
#[cfg(not(target_os = "linux"))]
#[path = "overflow_none.rs"]
mod overflow;
mod pool;
#[cfg(unix)]
#[path = "ready_unix.rs"]
mod ready;
#[cfg(not(unix))]
#[path = "ready_portable.rs"]
mod ready;
mod receive;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(target_os = "linux")]
#[path = "transmit_linux.rs"]
mod transmit;
#[cfg(not(target_os = "linux"))]
#[path = "transmit_portable.rs"]
mod transmit;

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Instant,
};

use bowline_proto::{
    host::{Hop, SocketId},
    wire::announce,
};
use further::Further;
use quinn_udp::UdpSocketState;
use ready::Ready;
pub(crate) use receive::{Chunk, Receiver};
use socket2::{Domain, Protocol, SockRef, Type};

use crate::{
    BindError, Ecn,
    config::{MAX_SEGMENTS, SOCKET_BUFFER},
    network::{self, Interfaces},
};

#[derive(Debug)]
pub(crate) struct Udp {
    pub(crate) v4: Option<Socket>,
    pub(crate) v6: Option<Socket>,
    further: Further,
    /// Whether the marks of what comes in are asked for.
    marks: AtomicBool,
    interfaces: RwLock<Interfaces>,
}

#[derive(Debug)]
pub(crate) struct Socket {
    ready: Ready,
    state: UdpSocketState,
    segments: transmit::Segments,
    v4: bool,
    pub(crate) port: u16,
}

impl Udp {
    /// Opens both sockets; one is enough where the other's family is missing. With port 0 the system chooses one, and
    /// the two share it if it is free in both families.
    pub(crate) async fn bind(port: u16, interfaces: Interfaces) -> Result<Self, BindError> {
        let v4 = open((Ipv4Addr::UNSPECIFIED, port).into())?;
        let v6 = match &v4 {
            Some(v4) if port == 0 => match open((Ipv6Addr::UNSPECIFIED, v4.port).into()) {
                Err(BindError::PortInUse { .. }) => open((Ipv6Addr::UNSPECIFIED, 0).into())?,
                other => other?,
            },
            _ => open((Ipv6Addr::UNSPECIFIED, port).into())?,
        };
        if v4.is_none() && v6.is_none() {
            return Err(BindError::NoUdp);
        }
        for socket in v4.iter().chain(&v6) {
            tell_buffers(SockRef::from(socket.ready.socket()))
                .map_err(|error| BindError::Runtime(error.to_string()))?;
            // The runtime watches for room here, and learns of it with its first event only: without this, the first `try_send`
            // would find a fresh socket full.
            #[cfg(not(unix))]
            socket.ready.writable().await;
        }
        let (further, marks) = (Further::default(), AtomicBool::new(false));
        Ok(Self { v4, v6, further, marks, interfaces: RwLock::new(interfaces) })
    }

    /// What datagrams may leave by, from now on.
    pub(crate) fn set_interfaces(&self, interfaces: Interfaces) {
        // The value is replaced as a whole: a panic elsewhere cannot leave half of it.
        *self.interfaces.write().unwrap_or_else(PoisonError::into_inner) = interfaces;
    }

    /// Whether the marks of what comes in are read, from now on.
    pub(crate) fn read_marks(&self, on: bool) {
        self.marks.store(on, SeqCst);
        self.v4.iter().chain(&self.v6).for_each(|socket| socket.read_marks(on));
        self.further.for_each(|socket| socket.read_marks(on));
    }

    /// How many datagrams to that address one send may carry: 1 where the system does not segment.
    pub(crate) fn max_segments(&self, hop: Hop) -> usize {
        self.with(hop, |socket| socket.segments.max(&socket.state, hop.to.ip()).min(MAX_SEGMENTS))
            .unwrap_or(1)
    }

    /// Opens one more socket for IPv4.
    pub(crate) fn open_further(&self, id: SocketId) -> io::Result<Arc<Socket>> {
        let socket = open((Ipv4Addr::UNSPECIFIED, 0).into()).map_err(io::Error::other)?;
        let socket = Arc::new(socket.ok_or(io::ErrorKind::Unsupported)?);
        self.further.insert(id, Arc::clone(&socket));
        // From the line above on, a change reaches this one, too.
        if self.marks.load(SeqCst) {
            socket.read_marks(true);
        }
        Ok(socket)
    }

    /// A further socket, while it is open.
    pub(crate) fn further(&self, id: SocketId) -> Option<Arc<Socket>> {
        self.further.get(id)
    }

    /// Closes it, as soon as nobody holds it any more.
    pub(crate) fn close_further(&self, id: SocketId) {
        self.further.remove(id);
    }

    /// Sends one datagram made of `parts`; or, with `segment`, one datagram for every so many bytes of them. Each has that mark.
    pub(crate) fn try_send(
        &self,
        hop: Hop,
        parts: &[IoSlice<'_>],
        segment: Option<u16>,
        ecn: Ecn,
    ) -> io::Result<()> {
        let interface = hop.source.and_then(|source| {
            let interfaces = self.interfaces.read().unwrap_or_else(PoisonError::into_inner);
            network::interface_for(&interfaces, source, hop.to)
        });
        self.with(hop, |socket| {
            socket.ready.try_send(|| transmit::send(socket, hop, interface, parts, segment, ecn))
        })?
    }

    /// Datagrams that the system dropped since the start because a socket's buffer was full, as far as it tells.
    pub(crate) fn overflow(&self) -> u64 {
        self.v4.iter().chain(&self.v6).map(|socket| overflow::drops(socket.ready.socket())).sum()
    }

    /// Sends an announcement to the local link's group, by that interface.
    pub(crate) fn announce(&self, interface: u32, payload: &[u8]) -> io::Result<()> {
        let to = std::net::SocketAddrV6::new(announce::GROUP, announce::PORT, 0, interface);
        self.try_send(Hop::anywhere(to.into()), &[IoSlice::new(payload)], None, Ecn::NotEct)
    }

    /// Waits until the socket that sends by this hop may take something.
    pub(crate) async fn writable(&self, hop: Hop) {
        if hop.socket != SocketId::MAIN {
            if let Some(socket) = self.further.get(hop.socket) {
                socket.ready.writable().await;
            }
        } else if let Ok(socket) = self.socket(hop.to) {
            socket.ready.writable().await;
        }
    }

    /// The socket that sends by this hop, for one use.
    fn with<R>(&self, hop: Hop, using: impl FnOnce(&Socket) -> R) -> io::Result<R> {
        if hop.socket == SocketId::MAIN {
            return self.socket(hop.to).map(using);
        }
        let socket = self.further.get(hop.socket).ok_or(io::ErrorKind::NotConnected)?;
        Ok(using(&socket))
    }

    fn socket(&self, to: SocketAddr) -> io::Result<&Socket> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NetworkUnreachable))
    }
}

impl Socket {
    /// Waits until something may have come.
    pub(crate) async fn readable(&self) {
        self.ready.readable().await;
    }

    /// So many chunks were received since it was last waited for: by now all that had come, or as much as may be at a time.
    pub(crate) fn note_received(&self, chunks: usize, now: Instant) {
        self.ready.note_received(chunks, now);
    }

    /// Has the system tell the mark of each datagram, which costs a little with every receive; or not.
    fn read_marks(&self, on: bool) {
        let io = SockRef::from(self.ready.socket());
        let done = if self.v4 { io.set_recv_tos_v4(on) } else { io.set_recv_tclass_v6(on) };
        if let (Err(error), true) = (done, on) {
            tracing::debug!("marks of congestion are not seen: {error}");
        }
    }
}

/// A socket on that address; `None` where the system does not have its family.
fn open(address: SocketAddr) -> Result<Option<Socket>, BindError> {
    let io = match bound(address) {
        Ok(io) => io,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Err(BindError::PortInUse { port: address.port() });
        }
        Err(error) if is_missing_family(&error) => return Ok(None),
        Err(error) => return Err(BindError::Socket { address, error }),
    };
    let finish = || {
        let io: UdpSocket = io.into();
        let state = UdpSocketState::new((&io).into())?;
        // `quinn-udp` asks for more than most want to know; each costs a little with every datagram.
        #[cfg(target_os = "linux")]
        let _ = nix::sys::socket::setsockopt(&io, nix::sys::socket::sockopt::ReceiveTimestampns, &false);
        let (port, segments) = (io.local_addr()?.port(), Default::default());
        let ready = Ready::new(io)?;
        let socket = Socket { ready, state, segments, v4: address.is_ipv4(), port };
        socket.read_marks(false);
        Ok(socket)
    };
    finish().map(Some).map_err(|error| BindError::Socket { address, error })
}

fn bound(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_multicast_hops_v6(u32::from(announce::HOP_LIMIT))?;
    }
    // The system may grant less, which costs speed under load and nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Says so if the system grants less than was asked for.
fn tell_buffers(socket: SockRef<'_>) -> io::Result<()> {
    for (way, granted) in [("receive", socket.recv_buffer_size()?), ("send", socket.send_buffer_size()?)] {
        // Linux adds as much again for its own book-keeping, and counts that in.
        let granted = if cfg!(target_os = "linux") { granted / 2 } else { granted };
        if granted < SOCKET_BUFFER {
            tracing::info!(
                "the system grants {granted} bytes of the {SOCKET_BUFFER} asked for to {way} into (Linux: net.core.rmem_max, \
                 net.core.wmem_max): under load, datagrams are lost sooner"
            );
        }
    }
    Ok(())
}

fn is_missing_family(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own on all systems; EADDRNOTAVAIL comes from `[::]` where IPv6 is switched off.
    error.kind() == io::ErrorKind::Unsupported
        || error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}

#[cfg(target_os = "linux")]
const EAFNOSUPPORT: i32 = nix::errno::Errno::EAFNOSUPPORT as i32;
#[cfg(windows)]
const EAFNOSUPPORT: i32 = 10_047;
#[cfg(not(any(target_os = "linux", windows)))]
const EAFNOSUPPORT: i32 = 47;
