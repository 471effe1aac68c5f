//! When a socket can be read: the runtime watches it, or, while much comes, it is looked at again and again.
//!
//! To be watched costs with every datagram: the system finds a waiter and calls it, and wakes the driver's thread for the few that
//! have come since. Whoever sends to this device by a virtual link pays for that, too. So a socket by which much has come for a moment
//! is no longer watched; a timer looks instead, each [`REST`], as network cards do that moderate their interrupts. As soon as little
//! comes, it is watched again.

use std::{
    future::poll_fn,
    io,
    net::UdpSocket,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use nix::sys::timerfd::ClockId;
use socket2::SockRef;
use tokio::io::{Interest, unix::AsyncFd};

use super::watched;
use crate::{
    config::{BUSY_AFTER, BUSY_CHUNKS, REST, REST_BUFFER, STILL_BUSY_CHUNKS},
    timer_fd::Timer,
};

#[derive(Debug)]
pub(super) struct Watch {
    socket: Arc<UdpSocket>,
    state: Mutex<State>,
    /// How long it is left alone while it is not watched.
    rest: Duration,
}

#[derive(Debug)]
struct State {
    /// While the runtime watches it.
    watched: Option<AsyncFd<Arc<UdpSocket>>>,
    /// Rings when it is to be looked at; made when it is first needed.
    timer: Option<AsyncFd<Timer>>,
    /// Chunks that have come since then, while it was watched.
    came: u32,
    since: Instant,
}

impl Watch {
    pub(super) fn new(socket: Arc<UdpSocket>) -> io::Result<Self> {
        let rest = rest_for(SockRef::from(&*socket).recv_buffer_size()?);
        let watched = Some(watched(Arc::clone(&socket), Interest::READABLE)?);
        let state = State { watched, timer: None, came: 0, since: Instant::now() };
        Ok(Self { socket, state: Mutex::new(state), rest })
    }

    /// Waits until something may have come. An error shows at the next receive.
    pub(super) async fn readable(&self) {
        poll_fn(|cx| self.lock().poll(cx)).await;
    }

    /// Receives if something may have come; with `WouldBlock` from it, nothing is there any more.
    pub(super) fn try_receive<R>(&self, receive: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match &self.lock().watched {
            Some(watched) => watched.try_io(Interest::READABLE, |_| receive()),
            None => receive(),
        }
    }

    /// So many chunks were received, by now all that had come: decides how more is waited for.
    pub(super) fn note_received(&self, chunks: usize, now: Instant) {
        let mut state = self.lock();
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        if state.watched.is_some() {
            if state.is_busy(chunks, now) && state.rest(self.rest).is_ok() {
                state.watched = None;
            }
        } else if chunks < STILL_BUSY_CHUNKS
            && let Ok(watched) = watched(Arc::clone(&self.socket), Interest::READABLE)
        {
            state.watched = Some(watched);
            (state.came, state.since) = (0, now);
        } else if let Err(error) = state.rest(self.rest) {
            // It is looked at without a rest, which costs time and loses nothing.
            tracing::debug!("a timer cannot be set: {error}");
            state.timer = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(watched) = &self.watched {
            return watched.poll_read_ready(cx).map(drop);
        }
        let Some(timer) = &self.timer else { return Poll::Ready(()) };
        timer.poll_read_ready(cx).map(|ready| {
            if let Ok(mut ready) = ready {
                ready.clear_ready();
            }
        })
    }

    /// More has come, while it was watched: whether it has been much for long enough.
    fn is_busy(&mut self, chunks: u32, now: Instant) -> bool {
        self.came = self.came.saturating_add(chunks);
        let time = now.saturating_duration_since(self.since);
        if time < BUSY_AFTER {
            return false;
        }
        let is_busy = REST.saturating_mul(self.came) >= time.saturating_mul(BUSY_CHUNKS);
        (self.came, self.since) = (0, now);
        is_busy
    }

    fn rest(&mut self, time: Duration) -> io::Result<()> {
        if self.timer.is_none() {
            self.timer = Some(Timer::watched(ClockId::CLOCK_MONOTONIC)?);
        }
        self.timer.as_ref().map_or(Ok(()), |timer| timer.get_ref().ring_in(time))
    }
}

/// Of a small buffer no more fills meanwhile than of a large one.
fn rest_for(buffer: usize) -> Duration {
    REST.mul_f64((buffer as f64 / REST_BUFFER as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        watch: Watch,
        sender: UdpSocket,
    }

    impl World {
        fn new() -> Self {
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            receiver.set_nonblocking(true).unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.connect(receiver.local_addr().unwrap()).unwrap();
            Self { watch: Watch::new(Arc::new(receiver)).unwrap(), sender }
        }

        fn is_watched(&self) -> bool {
            self.watch.lock().watched.is_some()
        }

        fn try_receive(&self) -> io::Result<Vec<u8>> {
            let mut buffer = [0; 100];
            let length = self.watch.try_receive(|| self.watch.socket.recv(&mut buffer))?;
            Ok(buffer[..length].to_vec())
        }

        /// What comes next.
        async fn receive(&self) -> Vec<u8> {
            let next = async {
                loop {
                    self.watch.readable().await;
                    if let Ok(message) = self.try_receive() {
                        return message;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(5), next).await.expect("it was sent")
        }

        /// Much has come for long enough.
        fn be_busy(&self) {
            self.comes(BUSY_CHUNKS, BUSY_AFTER);
        }

        /// So many chunks have come in each rest of this time.
        fn comes(&self, chunks: u32, time: Duration) {
            let start = self.watch.lock().since;
            let rests = (time.as_micros() / REST.as_micros()) as u32;
            for rest in 1..=rests {
                self.watch.note_received(chunks as usize, start + REST * rest);
            }
        }
    }

    #[tokio::test]
    async fn a_socket_is_no_longer_watched_once_much_has_come_for_a_moment() {
        let world = World::new();
        world.comes(BUSY_CHUNKS - 1, BUSY_AFTER * 10);
        assert!(world.is_watched());
        world.comes(BUSY_CHUNKS * 2, BUSY_AFTER - REST);
        assert!(world.is_watched(), "not for long enough");
        // A burst after a long silence is no stream.
        world.watch.note_received(500, Instant::now() + Duration::from_secs(1));
        assert!(world.is_watched());
        world.be_busy();
        assert!(!world.is_watched());
        let now = Instant::now();
        world.watch.note_received(STILL_BUSY_CHUNKS as usize, now);
        assert!(!world.is_watched());
        world.watch.note_received(STILL_BUSY_CHUNKS as usize - 1, now);
        assert!(world.is_watched());
    }

    #[tokio::test]
    async fn what_comes_is_received_whether_it_is_watched_or_not() {
        let world = World::new();
        for round in 0..3 {
            world.sender.send(&[round, 1]).unwrap();
            assert_eq!(world.receive().await, [round, 1]);
            world.be_busy();
            // It has come before anybody waits, and while somebody does.
            world.sender.send(&[round, 2]).unwrap();
            assert_eq!(world.receive().await, [round, 2]);
            world.watch.note_received(STILL_BUSY_CHUNKS as usize, Instant::now());
            let (received, ()) = tokio::join!(world.receive(), async {
                tokio::task::yield_now().await;
                world.sender.send(&[round, 3]).unwrap();
            });
            assert_eq!(received, [round, 3]);
            // It comes before it is watched again.
            world.sender.send(&[round, 4]).unwrap();
            world.watch.note_received(0, Instant::now());
            assert!(world.is_watched());
            assert_eq!(world.receive().await, [round, 4]);
        }
    }

    #[tokio::test]
    async fn a_look_that_finds_nothing_ends_and_so_does_the_next() {
        let world = World::new();
        world.be_busy();
        for _ in 0..3 {
            let look = tokio::time::timeout(Duration::from_secs(5), world.watch.readable());
            look.await.expect("the timer rings");
            assert_eq!(world.try_receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            world.watch.note_received(STILL_BUSY_CHUNKS as usize, Instant::now());
        }
    }

    #[test]
    fn with_a_small_buffer_it_rests_for_a_shorter_time() {
        assert_eq!(rest_for(8 * 1024 * 1024), REST);
        assert_eq!(rest_for(REST_BUFFER / 4), REST / 4);
    }
}
