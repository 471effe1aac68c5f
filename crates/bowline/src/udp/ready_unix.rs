//! When a socket can be read, and when it has room.
//!
//! The runtime watches for reading alone. It would be told of each datagram that has left if it watched for room as well, and
//! that is more than a tenth of what sending costs; so room is watched for only while somebody waits for it.

use std::{io, net::UdpSocket};

use tokio::io::{Interest, unix::AsyncFd};

#[derive(Debug)]
pub(super) struct Ready(AsyncFd<UdpSocket>);

impl Ready {
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
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

    /// Waits until there may be room. An error shows at the next send.
    pub(super) async fn writable(&self) {
        if let Ok(room) = watched(self.0.get_ref(), Interest::WRITABLE) {
            let _ = room.writable().await;
        }
    }

    /// Sends, whether or not there is known to be room.
    pub(super) fn try_send(&self, send: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        send()
    }
}

#[allow(
    deprecated,
    reason = "its replacement is unsafe for types that may not own their descriptor; a socket does"
)]
fn watched(socket: &UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket.try_clone()?, interest)
}
