//! The base's UDP sockets: one of each address for every worker, and what is done to them.
//!
//! - [`Port`]: a socket, how it receives (batches, what the system merged), and what it may be asked to send
//! - [`worker`]: the data plane, a thread for each core
//! - [`batch`]: the datagrams of one round of a worker, and the runs that they leave as
//! - `egress_linux`, `egress_portable`: runs into as few calls as the system allows
//! - [`outgoing`]: what the owner of the machine sends
//!
//! Not here: where a datagram goes (`bowline_proto::base::Routes`), and everything that is not data.

pub(crate) mod batch;
#[cfg_attr(target_os = "linux", path = "egress_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "egress_portable.rs")]
mod egress;
pub(crate) mod kernel;
pub(crate) mod outgoing;
pub(crate) mod worker;

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
};

use bowline_proto::base::Via;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

/// The sockets of one worker on one port.
pub(crate) type Lanes = Vec<Arc<Port>>;

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
    pub(crate) fn readiness(&self) -> io::Result<tokio::net::UdpSocket> {
        tokio::net::UdpSocket::from_std(self.socket.try_clone()?)
    }

    /// Whether answers have to name the address that they leave from.
    #[cfg(target_os = "linux")]
    fn is_on_every_address(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    fn receive(&self, slices: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.state.recv((&self.socket).into(), slices, metas)
    }

    fn send(
        &self,
        src_ip: Option<IpAddr>,
        to: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip };
        self.state.try_send((&self.socket).into(), &transmit)
    }
}

/// The port of a route, among those of a worker or the owner.
fn port_of<'a>(ports: &'a [Arc<Port>], via: &Via) -> Option<&'a Port> {
    ports.get(usize::from(via.socket.0)).map(|port| &**port)
}
