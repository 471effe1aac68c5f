//! What a base counts, and how much it holds.

use std::time::Duration;

use super::BaseConfig;
use crate::wire::MAX_BASE_ADDRESSES;

/// What was counted since the start; each name says what it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub connections_accepted: u64,
    pub connections_refused: u64,
    pub registered: u64,
    pub re_registered: u64,
    pub replaced: u64,
    pub cloned: u64,
    pub lost: u64,
    pub register_bad_signature: u64,
    pub register_over_rate: u64,
    pub register_not_allowed: u64,
    pub register_asked: u64,
    pub registers_verified: u64,
    pub frames_over_rate: u64,
    pub malformed_frames: u64,
    pub malformed_datagrams: u64,
    pub unknown_frames: u64,
    pub nat_init_verified: u64,
    pub nat_init_unverified: u64,
    pub nat_init_replayed: u64,
    pub nat_init_bad_signature: u64,
    pub nat_init_over_rate: u64,
    pub nat_confirmed: u64,
    pub nat_confirm_refused: u64,
    pub map_checks: u64,
    pub map_check_refused: u64,
    pub unknown_source: u64,
    pub nat_unknown_sent: u64,
    pub forwarded_udp: u64,
    pub forwarded_udp_bytes: u64,
    /// By a follower of the routes ([`super::Follower`]).
    pub forwarded_kernel: u64,
    pub forwarded_kernel_bytes: u64,
    /// What the follower left to the workers because the system had no way for it.
    pub fast_path_no_way: u64,
    pub forwarded_tcp: u64,
    pub forwarded_tcp_bytes: u64,
    pub dropped_not_here: u64,
    pub dropped_no_way: u64,
    pub dropped_queue_full: u64,
    pub dropped_over_rate: u64,
    pub dropped_too_large: u64,
    pub dropped_busy: u64,
    pub dropped_not_sent: u64,
    pub unreachable_sent: u64,
    pub wanted_sent: u64,
    pub wanted_dropped: u64,
    pub addresses_sent: u64,
    pub interests_refused: u64,
    pub notices_sent: u64,
    pub forwarded_base: u64,
    pub forwarded_base_bytes: u64,
    pub from_bases: u64,
    pub from_bases_bytes: u64,
    pub moved_away: u64,
    pub claims_stored: u64,
    pub store_failures: u64,
    pub remotes_refused: u64,
    pub bases_lost: u64,
    pub not_a_member: u64,
    pub malformed_bus: u64,
    /// How long a change of a device had waited when those who want it were told.
    pub push_delay: Delays,
}

/// How often something took how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delays {
    /// How many took at most as long as each of [`Delays::BOUNDS`] and longer than the one before; the last are all others.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Delays {
    /// The upper bounds of [`Delays::counts`] but the last.
    pub const BOUNDS: [Duration; 8] = {
        let ms = Duration::from_millis;
        [ms(1), ms(5), ms(25), ms(100), ms(250), ms(1_000), ms(2_500), ms(10_000)]
    };

    /// Counts one.
    pub fn add(&mut self, delay: Duration) {
        let at = Self::BOUNDS.iter().position(|&bound| delay <= bound).unwrap_or(Self::BOUNDS.len());
        self.counts[at] += 1;
        self.sum += delay;
    }
}

/// How many of each thing the machine holds at this moment; each is bounded by [`super::BaseConfig`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Sizes {
    pub connections: usize,
    pub unfinished: usize,
    /// Of these, those about which the shell is asked.
    pub asked: usize,
    pub devices: usize,
    pub cookies: usize,
    pub bound_addresses: usize,
    /// Devices that are reached over UDP.
    pub on_udp: usize,
    pub interests: usize,
    pub absent_interests: usize,
    pub replaced_boots: usize,
    pub sources: usize,
    pub deadlines: usize,
    pub outputs: usize,
    pub remote_devices: usize,
    pub remote_interests: usize,
    pub lingering: usize,
}

impl Sizes {
    /// What is over its bound, if anything is.
    #[must_use]
    pub fn over(&self, config: &BaseConfig) -> Option<String> {
        // Bindings of a session and of the one before it; a device, a connection, an interest is due once each.
        let bindings = 2 * MAX_BASE_ADDRESSES * (self.devices + self.lingering);
        // Those elsewhere are due, too, and so are sessions that linger, the cluster, and its store.
        let elsewhere = self.remote_devices + self.devices + self.lingering + 2;
        let due = self.devices + self.unfinished + self.interests + 2 + elsewhere;
        let bounds = [
            ("devices", self.devices, config.max_devices),
            ("unfinished connections", self.unfinished, config.max_unfinished),
            ("connections asked about", self.asked, self.unfinished),
            ("connections", self.connections, self.devices + self.unfinished + self.lingering),
            ("cookies", self.cookies, self.devices),
            ("devices on UDP", self.on_udp, self.devices),
            ("bound addresses", self.bound_addresses, bindings),
            ("interests", self.interests, config.max_interests_in_all),
            ("interests of the absent", self.absent_interests, config.max_absent_interests),
            ("replaced boots", self.replaced_boots, config.max_replaced_boots),
            ("sources", self.sources, 3 * config.max_sources),
            ("devices elsewhere", self.remote_devices, config.max_remote_devices),
            ("deadlines", self.deadlines, due),
        ];
        let (name, size, bound) = bounds.into_iter().find(|&(_, size, bound)| size > bound)?;
        Some(format!("{size} {name}, {bound} at most"))
    }
}
