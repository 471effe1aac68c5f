//! Noticing that the device was asleep, or that its clock was set.
//!
//! After a sleep nothing is as it was: bindings have lapsed, addresses have changed, the base has forgotten this
//! device. The machine's own clock stands still meanwhile and cannot tell. So the wall clock is compared with it; on
//! Linux the kernel wakes us at once when the wall clock jumps (a timer that is cancelled by it), elsewhere the
//! comparison is made every few seconds. A clock that somebody sets looks the same and costs a few datagrams.

use std::time::{Instant, SystemTime};

use crate::config::{CLOCK_CHECK, CLOCK_JUMP};

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: SystemTime,
    monotonic: Instant,
}

impl Reading {
    fn now() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }

    /// Whether the wall clock went another way than the monotonic one since `earlier`.
    fn jumped_since(&self, earlier: &Self) -> bool {
        let monotonic = self.monotonic.duration_since(earlier.monotonic);
        match self.wall.duration_since(earlier.wall) {
            Ok(wall) => wall.abs_diff(monotonic) > CLOCK_JUMP,
            Err(backwards) => backwards.duration() + monotonic > CLOCK_JUMP,
        }
    }
}

/// Watches the clocks.
#[derive(Debug)]
pub(crate) struct Clock {
    last: Reading,
    #[cfg(target_os = "linux")]
    alarm: Option<alarm::Alarm>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            last: Reading::now(),
            #[cfg(target_os = "linux")]
            alarm: alarm::Alarm::new()
                .inspect_err(|error| tracing::debug!("the kernel does not tell of a resume: {error}"))
                .ok(),
        }
    }

    /// Waits until the clocks should be compared.
    pub(crate) async fn suspect(&self) {
        #[cfg(target_os = "linux")]
        if let Some(alarm) = &self.alarm {
            return alarm.rung().await;
        }
        tokio::time::sleep_until((self.last.monotonic + CLOCK_CHECK).into()).await;
    }

    /// Whether the clocks have parted since the last call.
    pub(crate) fn has_jumped(&mut self) -> bool {
        let now = Reading::now();
        let jumped = now.jumped_since(&self.last);
        self.last = now;
        jumped
    }
}

#[cfg(target_os = "linux")]
mod alarm {
    use std::io;

    use nix::{
        errno::Errno,
        sys::{
            time::TimeSpec,
            timerfd::{ClockId, Expiration, TimerFd, TimerSetTimeFlags},
        },
        unistd::read,
    };
    use tokio::io::unix::AsyncFd;

    use crate::timer_fd::Timer;

    /// A timer in the far future whose only purpose is to be cancelled when the wall clock jumps (`timerfd_create(2)`,
    /// `TFD_TIMER_CANCEL_ON_SET`); the kernel counts a resume as such.
    #[derive(Debug)]
    pub(super) struct Alarm(AsyncFd<Timer>);

    fn set(timer: &TimerFd) -> nix::Result<()> {
        /// Seconds since 1970: the year 2106, which 32-bit kernels know, too.
        const FAR: i64 = u32::MAX as i64;
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        timer.set(Expiration::OneShot(TimeSpec::new(FAR, 0)), flags)
    }

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            let timer = Timer::watched(ClockId::CLOCK_REALTIME)?;
            set(&timer.get_ref().0)?;
            Ok(Self(timer))
        }

        /// Waits until the wall clock has jumped.
        pub(super) async fn rung(&self) {
            loop {
                let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
                let outcome = ready.try_io(|timer| Ok(read(&timer.get_ref().0, &mut [0; 8])?));
                match outcome {
                    Ok(Err(error)) if error.raw_os_error() == Some(Errno::ECANCELED as i32) => {
                        if set(&self.0.get_ref().0).is_ok() {
                            return;
                        }
                        return std::future::pending().await;
                    }
                    Ok(_) => return std::future::pending().await,
                    Err(_would_block) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clocks_that_part_in_either_direction_are_a_jump_and_drift_is_none() {
        let earlier = Reading::now();
        let after = |wall: i64, monotonic: u64| Reading {
            wall: if wall < 0 {
                earlier.wall - Duration::from_millis(wall.unsigned_abs())
            } else {
                earlier.wall + Duration::from_millis(wall.unsigned_abs())
            },
            monotonic: earlier.monotonic + Duration::from_millis(monotonic),
        };
        assert!(after(3_600_000, 10).jumped_since(&earlier), "an hour asleep");
        assert!(after(-5_000, 10).jumped_since(&earlier), "set back");
        assert!(!after(60_500, 60_000).jumped_since(&earlier), "drift");
        assert!(!after(-100, 200).jumped_since(&earlier), "a small correction");
    }

    #[tokio::test]
    async fn an_undisturbed_clock_does_not_ring() {
        let mut clock = Clock::new();
        let rung = tokio::time::timeout(Duration::from_millis(50), clock.suspect()).await;
        assert!(rung.is_err());
        assert!(!clock.has_jumped());
    }
}
