//! Peers that are gone: what bowline knows and QUIC does not.
//!
//! QUIC knows silence only, and silence may be a device that is asleep or changes networks; it is borne for three minutes. A base
//! knows more: a device that has left says so, one whose process died is missed within 35 seconds, one that has been silent for a minute
//! is dropped. Where the base says that a device is not there, no direct path to it answers, and nothing comes from it, it is gone. It may
//! still come back with its connection whole: so nothing here ends a connection, and who can go on later without loss (files do) need not
//! wait.

use bowline::{DeviceId, Path};
use quinn::Connection;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    address,
    config::{GONE, GONE_LOOK},
};

/// What can be said of a device at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Nothing speaks against it.
    Likely,
    /// The base says that it is not there, but a direct path stands: it has not been asked.
    Doubtful,
    /// Neither base nor path has it.
    Absent,
}

/// Waits until the other end has been absent for long enough. `ask` has something sent to it.
pub(crate) async fn wait(bowline: &bowline::Endpoint, connection: &Connection, ask: impl Fn()) {
    let Some(device) = address::device(connection.remote_address()) else {
        return std::future::pending().await;
    };
    let heard = || connection.stats().udp_rx.datagrams;
    let mut looks = interval(GONE_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut absence = Absence::default();
    loop {
        looks.tick().await;
        let (presence, now) = (presence(bowline, device), Instant::now());
        if absence.look(presence, heard(), now) {
            return;
        }
        if absence.asks(presence, now) {
            ask();
        }
    }
}

fn presence(bowline: &bowline::Endpoint, device: DeviceId) -> Presence {
    match bowline.peer(device) {
        Some(peer) if peer.online == Some(false) => match peer.path {
            Path::Direct(_) | Path::Local => Presence::Doubtful,
            // What the base said counts for as long as there is one.
            _ if bowline.status().base.is_some() => Presence::Absent,
            _ => Presence::Likely,
        },
        _ => Presence::Likely,
    }
}

/// How long a device has been absent without a break.
#[derive(Debug, Default)]
struct Absence {
    /// Since when, and what had been heard by then.
    since: Option<(Instant, u64)>,
    asked: Option<Instant>,
}

impl Absence {
    /// Whether it has lasted long enough.
    fn look(&mut self, presence: Presence, heard: u64, now: Instant) -> bool {
        if presence != Presence::Absent || self.since.is_some_and(|(_, before)| heard != before) {
            self.since = None;
        }
        if presence == Presence::Absent {
            let (since, _) = *self.since.get_or_insert((now, heard));
            return now.duration_since(since) >= GONE;
        }
        false
    }

    /// Whether to send something by a path that may lead nowhere: once, and again after a while.
    fn asks(&mut self, presence: Presence, now: Instant) -> bool {
        let due =
            presence == Presence::Doubtful && self.asked.is_none_or(|at| now.duration_since(at) >= GONE);
        if due {
            self.asked = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absence_without_a_break_is_one() {
        let (start, mut absence) = (Instant::now(), Absence::default());
        let after = |share: f64| start + GONE.mul_f64(share);
        assert!(!absence.look(Presence::Absent, 7, start));
        assert!(!absence.look(Presence::Absent, 7, after(0.9)));
        assert!(absence.look(Presence::Absent, 7, after(1.0)));
        // Something came …
        assert!(!absence.look(Presence::Absent, 8, after(1.1)));
        assert!(!absence.look(Presence::Absent, 8, after(2.0)));
        // … the base has it again …
        assert!(!absence.look(Presence::Likely, 8, after(2.05)));
        assert!(!absence.look(Presence::Absent, 8, after(2.2)));
        assert!(absence.look(Presence::Absent, 8, after(3.2)));
    }

    #[test]
    fn a_standing_path_is_asked_once_in_a_while() {
        let (start, mut absence) = (Instant::now(), Absence::default());
        assert!(!absence.asks(Presence::Likely, start));
        assert!(absence.asks(Presence::Doubtful, start));
        assert!(!absence.asks(Presence::Doubtful, start + GONE_LOOK));
        assert!(absence.asks(Presence::Doubtful, start + GONE));
    }
}
