//! When a socket can be read, and when it has room.
//!
//! The runtime watches for reading alone (`watch_linux.rs`, `watch_unix.rs`). It would be told of each datagram that has left if it watched for room as well, and
//! that is a tenth of what sending costs; so room is watched for only while somebody waits for it, by one further descriptor
//! that all who wait share.

#[cfg(target_os = "linux")]
#[path = "watch_linux.rs"]
mod watch;
#[cfg(not(target_os = "linux"))]
#[path = "watch_unix.rs"]
mod watch;

use std::{
    io,
    net::UdpSocket,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    time::sleep,
};
use watch::Watch;

/// Room is looked for again after so long where it cannot be watched for: the process has no descriptor to spare.
const UNWATCHED: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Ready {
    socket: Arc<UdpSocket>,
    watch: Watch,
    room: Mutex<Weak<AsyncFd<UdpSocket>>>,
    /// Who waits for room may do so in another runtime, which need not have what is needed for that.
    runtime: Handle,
}

impl Ready {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let watch = Watch::new(Arc::clone(&socket))?;
        Ok(Self { socket, watch, room: Mutex::default(), runtime: Handle::current() })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Waits until something may have come. An error shows at the next receive.
    pub(super) async fn readable(&self) {
        self.watch.readable().await;
    }

    /// Receives if something may have come; with `WouldBlock` from it, nothing is there any more.
    pub(super) fn try_receive<R>(&self, receive: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.watch.try_receive(receive)
    }

    /// So many chunks were received, by now all that had come.
    pub(super) fn note_received(&self, chunks: usize, now: Instant) {
        self.watch.note_received(chunks, now);
    }

    /// Waits until there may be room. An error shows at the next send.
    pub(super) async fn writable(&self) {
        match self.room() {
            Ok(room) => {
                if let Ok(mut ready) = room.writable().await {
                    // Whoever finds it full again waits for more than this.
                    ready.clear_ready();
                }
            }
            Err(error) => {
                tracing::debug!("room to send is not watched for: {error}");
                sleep(UNWATCHED).await;
            }
        }
    }

    fn room(&self) -> io::Result<Arc<AsyncFd<UdpSocket>>> {
        // Nothing panics while it holds this lock.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = room.upgrade() {
            return Ok(watched);
        }
        let _within = self.runtime.enter();
        let watched = Arc::new(watched(self.socket().try_clone()?, Interest::WRITABLE)?);
        *room = Arc::downgrade(&watched);
        Ok(watched)
    }

    /// Sends. Nothing is known of room beforehand: the system says.
    #[allow(clippy::unused_self, reason = "other systems need it")]
    pub(super) fn try_send(&self, send: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        send()
    }
}

#[allow(
    deprecated,
    reason = "its replacement is unsafe for types that may not own their descriptor; a socket does"
)]
fn watched<S: AsRawFd>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    AsyncFd::with_interest(socket, interest)
}
