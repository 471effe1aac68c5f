//! The base's UDP sockets: one of each address for every worker, and what is done to them.
//!
//! - [`Port`]: a socket, how it receives (batches, what the system merged), and what it may be asked to send
//! - [`lanes`]: those of a worker on one port, and which of them is sent by
//! - [`worker`]: the data plane, a thread for each core
//! - `police`: who fills a socket's queue is kept from crowding others out, by a filter of the system (`filter_linux`)
//! - `turns`: which of its sockets a worker reads next, and which wake it
//! - [`batch`]: the datagrams of one round of a worker, and the runs that they leave as
//! - `egress_linux`, `egress_portable`: runs into as few calls as the system allows
//! - [`outgoing`]: what the owner of the machine sends
//!
//! Not here: where a datagram goes (`bowline_proto::base::Routes`), and everything that is not data.

pub(crate) mod batch;
#[cfg_attr(target_os = "linux", path = "egress_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "egress_portable.rs")]
mod egress;
#[cfg_attr(target_os = "linux", path = "filter_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "filter_none.rs")]
mod filter;
pub(crate) mod kernel;
pub(crate) mod lanes;
pub(crate) mod outgoing;
mod police;
mod turns;
pub(crate) mod worker;

#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};
use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    task::{Context, Poll},
};

use bowline_proto::base::Via;
#[cfg(not(target_os = "linux"))]
use quinn_udp::Transmit;
use quinn_udp::{RecvMeta, UdpSocketState};
use tokio::io::Interest;
#[cfg(unix)]
use tokio::io::unix::AsyncFd;

use lanes::Lanes;

/// One of the base's UDP sockets. It never blocks.
#[derive(Debug)]
pub(crate) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Port {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        kernel::spare_timestamps(&socket);
        Ok(Arc::new(Self { local: socket.local_addr()?, socket, state }))
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The same socket for a runtime, which knows when it can be read.
    #[cfg_attr(
        unix,
        allow(
            deprecated,
            reason = "its replacement is unsafe for types that may not own their descriptor; a socket does"
        )
    )]
    fn readiness(self: &Arc<Self>) -> io::Result<Readiness> {
        #[cfg(unix)]
        let readiness = AsyncFd::with_interest(Arc::clone(self), Interest::READABLE)?;
        #[cfg(not(unix))]
        let readiness = tokio::net::UdpSocket::from_std(self.socket.try_clone()?)?;
        Ok(Readiness(readiness))
    }

    /// Whether answers have to name the address that they leave from.
    #[cfg(target_os = "linux")]
    fn is_on_every_address(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    fn receive(&self, slices: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.state.recv((&self.socket).into(), slices, metas)
    }

    fn queue(&self) -> police::Queue {
        filter::queue(&self.socket)
    }

    /// Asks the system to let in what this order says.
    fn police(&self, order: police::Order<'_>) -> io::Result<()> {
        match order {
            police::Order::Police(senders, share) => filter::police(&self.socket, senders, share),
            police::Order::Release => filter::release(&self.socket),
        }
    }

    fn send(
        &self,
        src_ip: Option<IpAddr>,
        to: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return egress::send_one(self, src_ip, to, contents, segment_size);
        #[cfg(not(target_os = "linux"))]
        {
            let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip };
            self.state.try_send((&self.socket).into(), &transmit)
        }
    }
}

#[cfg(unix)]
impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Whether a socket can be read, and nothing else: a runtime that watches for room to send as well is woken again by each datagram
/// that has left.
#[derive(Debug)]
struct Readiness(#[cfg(unix)] AsyncFd<Arc<Port>>, #[cfg(not(unix))] tokio::net::UdpSocket);

impl Readiness {
    /// An error shows at the receive call.
    fn poll(&self, task: &mut Context<'_>) -> Poll<()> {
        #[cfg(unix)]
        return self.0.poll_read_ready(task).map(|_| ());
        #[cfg(not(unix))]
        return self.0.poll_recv_ready(task).map(|_| ());
    }

    /// Does this if it can be read; with `WouldBlock` from it, it cannot any more.
    fn try_io(&self, mut receive: impl FnMut() -> io::Result<()>) {
        #[cfg(unix)]
        let _ = self.0.try_io(Interest::READABLE, |_| receive());
        #[cfg(not(unix))]
        let _ = self.0.try_io(Interest::READABLE, || receive());
    }
}

/// The sockets of a route, among those of a worker or the owner.
fn lanes_of<'a>(ports: &'a [Arc<Lanes>], via: &Via) -> Option<&'a Lanes> {
    ports.get(usize::from(via.socket.0)).map(|lanes| &**lanes)
}
