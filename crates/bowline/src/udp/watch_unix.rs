//! When a socket can be read: as the runtime tells.

use std::{io, net::UdpSocket, sync::Arc, time::Instant};

use tokio::io::{Interest, unix::AsyncFd};

use super::watched;

#[derive(Debug)]
pub(super) struct Watch(AsyncFd<Arc<UdpSocket>>);

impl Watch {
    pub(super) fn new(socket: Arc<UdpSocket>) -> io::Result<Self> {
        watched(socket, Interest::READABLE).map(Self)
    }

    /// Waits until something may have come. An error shows at the next receive.
    pub(super) async fn readable(&self) {
        let _ = self.0.readable().await;
    }

    /// Receives if something may have come; with `WouldBlock` from it, nothing is there any more.
    pub(super) fn try_receive<R>(&self, receive: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.0.try_io(Interest::READABLE, |_| receive())
    }

    #[allow(clippy::unused_self, reason = "other systems need it")]
    pub(super) fn note_received(&self, _chunks: usize, _now: Instant) {}
}
