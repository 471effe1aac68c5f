//! What a base counts, and how much it holds.

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
    pub unknown_source: u64,
    pub nat_unknown_sent: u64,
    pub forwarded_udp: u64,
    pub forwarded_udp_bytes: u64,
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
}

/// How many of each thing the machine holds at this moment; each is bounded by [`super::BaseConfig`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Sizes {
    pub connections: usize,
    pub unfinished: usize,
    pub devices: usize,
    pub cookies: usize,
    pub bound_addresses: usize,
    pub interests: usize,
    pub absent_interests: usize,
    pub replaced_boots: usize,
    pub sources: usize,
    pub deadlines: usize,
    pub outputs: usize,
}

impl Sizes {
    /// What is over its bound, if anything is.
    #[must_use]
    pub fn over(&self, config: &BaseConfig) -> Option<String> {
        // Bindings of a session and of the one before it; a device, a connection, an interest is due once each.
        let bindings = 2 * MAX_BASE_ADDRESSES * self.devices;
        let due = self.devices + self.unfinished + self.interests + 2;
        let bounds = [
            ("devices", self.devices, config.max_devices),
            ("unfinished connections", self.unfinished, config.max_unfinished),
            ("connections", self.connections, self.devices + self.unfinished),
            ("cookies", self.cookies, self.devices),
            ("bound addresses", self.bound_addresses, bindings),
            ("interests", self.interests, config.max_interests_in_all),
            ("interests of the absent", self.absent_interests, config.max_absent_interests),
            ("replaced boots", self.replaced_boots, config.max_replaced_boots),
            ("sources", self.sources, 3 * config.max_sources),
            ("deadlines", self.deadlines, due),
        ];
        let (name, size, bound) = bounds.into_iter().find(|&(_, size, bound)| size > bound)?;
        Some(format!("{size} {name}, {bound} at most"))
    }
}
