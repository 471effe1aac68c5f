//! The congestion controller, told when the path changes.
//!
//! To QUIC a bowline path is one address for ever; what stands behind it changes. What was learnt of one path says nothing of
//! another (RFC 9000, section 9.4), so that with every change the controller starts anew: slow start from the initial window. What is
//! in flight on the way before neither fills the new window nor teaches it anything: its acknowledgements and losses are passed
//! over.
//!
//! The round trip cannot be told: quinn measures it, and its average follows the new path within some ten answers.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Counts the changes of the path to one device.
pub(crate) type Generation = Arc<AtomicU64>;

/// Makes controllers for the connections to one device.
pub(crate) struct Factory {
    pub(crate) generation: Generation,
}

impl Factory {
    fn fresh(now: Instant, mtu: u16) -> Box<dyn Controller> {
        Arc::new(CubicConfig::default()).build(now, mtu)
    }
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(PathAware {
            seen: self.generation.load(Relaxed),
            generation: Arc::clone(&self.generation),
            inner: Self::fresh(now, mtu),
            since: None,
            mtu,
            in_flight: 0,
            elsewhere: 0,
        })
    }
}

struct PathAware {
    generation: Generation,
    /// The path that `inner` is about.
    seen: u64,
    inner: Box<dyn Controller>,
    /// When the path changed last; what was sent before went by another.
    since: Option<Instant>,
    mtu: u16,
    /// Bytes in flight at the last acknowledgement, or sent since, as far as they can be told.
    in_flight: u64,
    /// Bytes in flight on ways before the present one.
    elsewhere: u64,
}

impl PathAware {
    fn is_stale(&self) -> bool {
        self.generation.load(Relaxed) != self.seen
    }

    fn follow(&mut self, now: Instant) {
        if self.is_stale() {
            self.seen = self.generation.load(Relaxed);
            self.elsewhere = self.in_flight;
            self.since = Some(now);
            self.inner = Factory::fresh(now, self.mtu);
        }
    }

    /// Whether something sent then went by another way.
    fn was_elsewhere(&self, sent: Instant) -> bool {
        self.since.is_some_and(|since| sent < since)
    }
}

impl Controller for PathAware {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.follow(now);
        // A batch counts its bytes several times over; what is in flight is never more than the window.
        self.in_flight = (self.in_flight + bytes).min(self.window());
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.follow(now);
        if self.was_elsewhere(sent) {
            self.elsewhere = self.elsewhere.saturating_sub(bytes);
        } else {
            self.inner.on_ack(now, sent, bytes, app_limited, rtt);
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.in_flight = in_flight;
        self.elsewhere = self.elsewhere.min(in_flight);
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.follow(now);
        if self.was_elsewhere(sent) {
            self.elsewhere = self.elsewhere.saturating_sub(lost);
        } else {
            self.inner.on_congestion_event(now, sent, persistent, lost);
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.inner.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        if self.is_stale() {
            // Nothing was sent by the new path yet.
            return self.in_flight + self.inner.initial_window();
        }
        self.inner.window() + self.elsewhere
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { generation: Arc::clone(&self.generation), inner: self.inner.clone_box(), ..*self })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PACKET: u64 = 1200;

    fn controller() -> (Generation, Box<dyn Controller>, Instant) {
        let generation = Generation::default();
        let now = Instant::now();
        let factory = Arc::new(Factory { generation: Arc::clone(&generation) });
        (generation, factory.build(now, 1200), now)
    }

    #[test]
    fn losses_on_the_path_before_are_no_reason_to_slow_down() {
        let (generation, mut controller, start) = controller();
        let initial = controller.window();
        controller.on_sent(start, PACKET, 1);
        generation.fetch_add(1, Relaxed);
        let later = start + Duration::from_secs(1);
        controller.on_sent(later, PACKET, 2);
        controller.on_congestion_event(later, start, false, PACKET);
        assert_eq!(controller.window(), initial);
        // On the path in use they are.
        controller.on_congestion_event(later, later, false, PACKET);
        assert!(controller.window() < initial);
    }

    #[test]
    fn a_new_path_begins_with_the_initial_window_whatever_is_in_flight_on_the_old_one() {
        let (generation, mut controller, start) = controller();
        let initial = controller.window();
        // Slow start would be over here: the window was halved again and again.
        for round in 1..20 {
            controller.on_congestion_event(
                start + Duration::from_secs(round),
                start + Duration::from_secs(round),
                false,
                PACKET,
            );
        }
        assert!(controller.window() < initial);
        let now = start + Duration::from_secs(30);
        controller.on_sent(now, PACKET, 1);
        controller.on_end_acks(now, PACKET, false, None);
        generation.fetch_add(1, Relaxed);
        assert_eq!(controller.window(), initial + PACKET, "before anything is sent by it");
        let now = now + Duration::from_secs(1);
        controller.on_sent(now, PACKET, 2);
        assert_eq!(controller.window(), initial + PACKET);
        // What was in flight before is gone: the window is that of the new path.
        controller.on_end_acks(now, 0, false, None);
        assert_eq!(controller.window(), initial);
    }
}
