//! Timers of the system as descriptors: for what the runtime's own, which count milliseconds, cannot do.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A timer that the runtime can watch.
#[derive(Debug)]
pub(crate) struct Timer(pub(crate) TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    /// One that the runtime watches. It is not set.
    #[allow(
        deprecated,
        reason = "its replacement is unsafe for types that may not own their descriptor; a timer does"
    )]
    pub(crate) fn watched(clock: ClockId) -> io::Result<AsyncFd<Self>> {
        let timer = TimerFd::new(clock, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        AsyncFd::with_interest(Self(timer), Interest::READABLE)
    }

    /// Has it ring once, so much later. What it rang for before is forgotten.
    pub(crate) fn ring_in(&self, time: Duration) -> io::Result<()> {
        let at = Expiration::OneShot(TimeSpec::from_duration(time));
        Ok(self.0.set(at, TimerSetTimeFlags::empty())?)
    }
}
