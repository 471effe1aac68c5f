//! How often a mapping of a NAT is refreshed: as usual, and more often where mappings have been seen to live shorter.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::config::{PROOF_LIFE, REFRESH_MIN};

/// What has been learned of the life of mappings, in one network.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refresh {
    learned: Option<Duration>,
}

impl Refresh {
    /// The usual interval, or a shorter one.
    pub(super) fn within(self, usual: Duration) -> Duration {
        self.learned.map_or(usual, |learned| learned.min(usual))
    }

    /// A mapping was lost that had last been used so long ago: half of that is tried. What was lost sooner than any refresh comes was
    /// not lost for the want of one.
    pub(super) fn note_lost(&mut self, unused: Duration) {
        if unused >= REFRESH_MIN {
            self.learned = Some(self.within(unused / 2).max(REFRESH_MIN));
        }
    }
}

/// The same for the direct paths to a peer: a path that went silent after nothing had come by it for a while, and that leads there again
/// soon after, though this device has not moved, was closed by a NAT.
#[derive(Debug, Default)]
pub(super) struct PathRefresh {
    refresh: Refresh,
    /// Where the last path led that went silent, when that was, and how long nothing had come by it before.
    silent: Option<(IpAddr, Instant, Duration)>,
}

impl PathRefresh {
    pub(super) fn within(&self, usual: Duration) -> Duration {
        self.refresh.within(usual)
    }

    /// The path to there went silent.
    pub(super) fn note_silent(&mut self, ip: IpAddr, unused: Duration, now: Instant) {
        self.silent = Some((ip, now, unused));
    }

    /// The peer answers there.
    pub(super) fn note_answer(&mut self, ip: IpAddr, now: Instant) {
        if let Some((_, at, unused)) = self.silent.take_if(|silent| silent.0 == ip)
            && now < at + PROOF_LIFE
        {
            self.refresh.note_lost(unused);
        }
    }
}
