//! What a base counts, and how much it holds.

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
