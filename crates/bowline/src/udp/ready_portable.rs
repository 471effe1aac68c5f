//! When a socket can be read, and when it has room: as the runtime tells.

use std::{io, net, time::Instant};

use tokio::{io::Interest, net::UdpSocket};

#[derive(Debug)]
pub(super) struct Ready(UdpSocket);

impl Ready {
    pub(super) fn new(socket: net::UdpSocket) -> io::Result<Self> {
        UdpSocket::from_std(socket).map(Self)
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.0
    }

    /// Waits until something may have come. An error shows at the next receive.
    pub(super) async fn readable(&self) {
        let _ = self.0.readable().await;
    }

    /// Receives if something may have come; with `WouldBlock` from it, nothing is there any more.
    pub(super) fn try_receive<R>(&self, receive: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.0.try_io(Interest::READABLE, receive)
    }

    #[allow(clippy::unused_self, reason = "other systems need it")]
    pub(super) fn note_received(&self, _chunks: usize, _now: Instant) {}

    /// Waits until there may be room. An error shows at the next send.
    pub(super) async fn writable(&self) {
        let _ = self.0.writable().await;
    }

    /// Sends; with `WouldBlock` from it, there is no room until [`Self::writable`].
    pub(super) fn try_send(&self, send: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, send)
    }
}
