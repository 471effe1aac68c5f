//! The numbers of a base server: what an operator may change ([`BaseConfig`]) and what the protocol fixes.
//!
//! Each limit says what happens when it is reached. Nothing here has behaviour.

use std::{collections::HashSet, time::Duration};

use crate::{bucket::Rate, id::DeviceId};

/// Limits and timers of a base. The defaults serve a small server; an operator changes them in the config file.
#[derive(Debug, Clone)]
pub struct BaseConfig {
    /// Seconds between a host's refreshes, told in REGISTERED; held within 10 to 25 (protocol section 4).
    pub keepalive: u16,
    /// Devices that may register here; `None`: all. Others get ERROR 4 before their signature is looked at.
    pub allow: Option<HashSet<DeviceId>>,
    /// Whether the shell is asked about devices that are not on the list ([`super::Output::Ask`]).
    pub ask: bool,
    /// Registered devices. One more gets ERROR 6; those registered stay, and can be replaced by themselves.
    pub max_devices: usize,
    /// Connections that have not registered, in all. One more ends the oldest of them with ERROR 6, so that a
    /// flood of silent ones cannot keep out hosts that finish within a round trip.
    pub max_unfinished: usize,
    /// Connections that have not registered, of one IPv4 address or IPv6 /64 (four times as many of a /48). One
    /// more ends the oldest of them with ERROR 5: idle ones keep nobody out who shares their address.
    pub max_unfinished_per_source: usize,
    /// Devices that one device may want to talk with. A REQUEST-INFO over it is ignored and gets NOTICE 2.
    pub max_interests: usize,
    /// The same summed over all devices; it bounds this machine's largest table. At it: NOTICE 2.
    pub max_interests_in_all: usize,
    /// Wanted IDs remembered of devices that left, for UNREACHABLE 1. Over it the device that left first is
    /// forgotten: senders to it then hear nothing, as of a stranger.
    pub max_absent_interests: usize,
    /// Replaced boots remembered for the detection of cloned identities. Over it the oldest is forgotten: a clone
    /// that comes back then replaces once more.
    pub max_replaced_boots: usize,
    /// Source addresses whose rates are remembered, a table each for registrations and NAT-UNKNOWN. Over it the
    /// oldest is forgotten and starts with a full burst; the rates over all sources hold nevertheless.
    pub max_sources: usize,
    /// REGISTERs whose signature is looked at, of one IPv4 address or IPv6 /64. Over it: ERROR 5.
    pub register_rate: Rate,
    /// The same of one IPv6 /48.
    pub register_rate_wide: Rate,
    /// The same of all sources together that are over their own rate, while no more than half of the devices are here that may be: a site
    /// that comes back after a power cut need not wait for its turns, and a flood from one address is no more than this to the others.
    pub register_spare: Rate,
    /// The same of all together. Over it: ERROR 6.
    pub verify_rate: Rate,
    /// Devices at other bases of a cluster that are remembered: those that a device here wants or sent to lately, and those that
    /// want one here. One more takes the place of the one that has been looked for in vain the longest; where all were found, it is not
    /// looked for: messages to it are dropped.
    pub max_remote_devices: usize,
    /// Bytes a second that one device may have relayed, with a second's worth at once; `None`: no limit. Over
    /// it messages are dropped with UNREACHABLE 3.
    pub relay_rate: Option<u32>,
    /// Messages a second that one device may have relayed, with a second's worth at once; `None`: no limit. Over
    /// it they are dropped with UNREACHABLE 3.
    pub relay_messages: Option<u32>,
    /// Frames of one registered device that are no messages to relay. Over it they are dropped, with NOTICE 2; the
    /// burst lets a host with as many peers as there may be ask for all of them at once.
    pub frame_rate: Rate,
    /// Without GET-COOKIE, and then without REGISTER, for as long: ERROR 10.
    pub setup_timeout: Duration,
    /// A registered host without INFO for as long is dropped (ERROR 10).
    pub info_timeout: Duration,
    /// What ERROR 6 tells a host: seconds to stay away.
    pub busy_retry_after: u16,
    /// What ERROR 7 tells a host: seconds to stay away.
    pub draining_retry_after: u16,
}

impl Default for BaseConfig {
    fn default() -> Self {
        Self {
            keepalive: 25,
            allow: None,
            ask: false,
            max_devices: 65_536,
            max_unfinished: 4_096,
            max_unfinished_per_source: 256,
            max_interests: 1_024,
            max_interests_in_all: 1 << 20,
            max_absent_interests: 1 << 18,
            max_replaced_boots: 65_536,
            max_sources: 65_536,
            register_rate: Rate { burst: 64, every: Duration::from_millis(100) },
            register_rate_wide: Rate { burst: 256, every: Duration::from_millis(25) },
            register_spare: Rate { burst: 500, every: Duration::from_millis(4) },
            // A third of what one core verifies in a second.
            verify_rate: Rate::per_second(2_000),
            max_remote_devices: 1 << 18,
            relay_rate: None,
            relay_messages: None,
            frame_rate: Rate { burst: 4_096, every: Duration::from_millis(2) },
            setup_timeout: Duration::from_secs(10),
            info_timeout: Duration::from_secs(60),
            busy_retry_after: 10,
            draining_retry_after: 60,
        }
    }
}

/// How many times the unfinished connections of a /64 a whole /48 may have.
pub(super) const WIDE_SHARE: usize = 4;

/// A registration outlives its TCP connection for as long, while UDP is confirmed: a little more than a keepalive.
pub(super) const OUTLIVES_TCP: Duration = Duration::from_secs(35);
/// Bindings of the session before this one last as long without a NAT-CONFIRM under the new cookie.
pub(super) const INHERITED_LIFE: Duration = Duration::from_secs(35);
/// Interests of the session before this one that are not repeated within this time are released.
pub(super) const REPEAT_WITHIN: Duration = Duration::from_secs(5);
/// How long a replaced boot is remembered.
pub(super) const REPLACED_MEMORY: Duration = Duration::from_secs(600);
/// What ERROR 9 tells a cloned identity: seconds to stay away.
pub(super) const CLONE_RETRY_AFTER: u16 = 60;
/// How long a device that left is remembered by those it wanted.
pub(super) const ABSENT_MEMORY: Duration = Duration::from_secs(600);

/// A small message over TCP puts UDP in doubt when nothing but relayed data has come over UDP for as long.
pub(super) const TCP_SPEAKS: Duration = Duration::from_secs(1);

/// The base sends over UDP for as long after a NAT-CONFIRM, or a NAT-INIT from the confirmed address.
pub(super) const UDP_FRESH: Duration = Duration::from_secs(35);
/// A binding silent for as long is gone.
pub(super) const BINDING_LIFE: Duration = Duration::from_secs(60);
/// A NAT-INIT from the bound address with the list already known is not verified within so many of the highest number that the host has
/// signed or sent over TCP.
pub(super) const UNVERIFIED_SEQS: u64 = 16;
/// NAT-INITs whose signature is looked at, per cookie.
pub(super) const NAT_VERIFY_RATE: Rate = Rate { burst: 8, every: Duration::from_secs(1) };
/// NAT-CONFIRMs of one session that are looked at: its addresses of this base each need one now and then, and each is answered.
pub(super) const CONFIRM_RATE: Rate = Rate { burst: 32, every: Duration::from_millis(100) };
/// MAP-CHECKs that are answered, per device.
pub(super) const MAP_CHECK_RATE: Rate = Rate { burst: 4, every: Duration::from_secs(1) };
/// No MAP-OK goes to ports below: servers of others may be there, behind the same NAT.
pub(super) const MAP_CHECK_PORT_MIN: u16 = 1024;
/// Padded NAT-OKs per binding whose NAT-CONFIRM is awaited: two a ladder, and one ladder back.
pub(super) const PADDED_SEQS: usize = 4;
/// Addresses at which a device was never shown to receive, told to others: each may draw five HELLOs to somebody else. One more is told later.
/// A move of a device with thirty peers passes at once.
pub(super) const UNPROVEN_TOLD: Rate = Rate { burst: 64, every: Duration::from_millis(200) };
/// NAT-UNKNOWNs to one source.
pub(super) const NAT_UNKNOWN_RATE: Rate = Rate::per_second(1);
/// NAT-UNKNOWNs to all sources: a flood of forged sources gets no more.
pub(super) const NAT_UNKNOWN_RATE_IN_ALL: Rate = Rate::per_second(10_000);

/// Data that a confirmed UDP leg carries before any padded exchange has proven more: with its header and those of
/// IP and UDP it stays under the 576 bytes that every network passes.
pub(super) const SMALL_DATA: usize = 500;
/// UNREACHABLEs about one device to one host.
pub(super) const UNREACHABLE_PAIR: Duration = Duration::from_secs(1);
/// UNREACHABLEs to one host.
pub(super) const UNREACHABLE_RATE: Rate = Rate::per_second(10);
/// The unit in which relayed bytes are counted against [`BaseConfig::relay_rate`].
pub(super) const RELAY_UNIT: usize = 64;

/// WANTED about one device to one host.
pub(super) const WANTED_PAIR: Duration = Duration::from_secs(10);
/// WANTEDs to one host: half of what a host takes, since it may have two sessions in a row.
pub(super) const WANTED_RATE: Rate = Rate { burst: 64, every: Duration::from_millis(20) };
/// WANTEDs that wait for one host, as many as a host has peers; one more drops the oldest. Nobody asks again for one that was dropped, so a host
/// that many talk to and that sends nothing would have no direct path to those, for ever.
pub(super) const WANTED_WAITING: usize = 1_024;
/// Room for as many stays when they have gone.
pub(super) const WANTED_KEPT: usize = 64;
/// NOTICEs of one kind to one host.
pub(super) const NOTICE_RATE: Rate = Rate { burst: 1, every: Duration::from_secs(10) };

/// Changes of addresses beyond the first that pass at once after a quiet time.
pub(super) const COALESCE_FREE: u8 = 3;
/// One more change within this time of the first waits until it has passed.
pub(super) const COALESCE_FIRST: Duration = Duration::from_millis(250);
/// It doubles up to this while changes go on.
pub(super) const COALESCE_MAX: Duration = Duration::from_secs(10);

/// Who is refused for the rate of its source is told to come back when it is its turn, after so long at the latest: who shares an address with a
/// flood is not kept out for longer than that by what the flood was told.
pub(super) const LATEST_TURN: Duration = Duration::from_secs(60);
/// How often tables of sources are swept, and how many entries at a time.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(10);
pub(super) const SWEEP_ENTRIES: usize = 1_024;

/// How often a base writes its lease in the store of its cluster.
pub(super) const LEASE_RENEW: Duration = Duration::from_secs(3);
/// Between a lease and the next that answers one of another process with this base's key.
pub(super) const RIVAL_ANSWER: Duration = Duration::from_secs(1);
/// A lease that is not written again is void after this time.
pub const LEASE_LIFE: Duration = Duration::from_secs(10);
/// While the bus is gone, what is known of other bases holds for as long.
pub(super) const BUS_GRACE: Duration = Duration::from_secs(60);
/// The cluster's clock: one of its 64 shards has its turn.
pub(super) const CLUSTER_TICK: Duration = Duration::from_millis(500);
/// How often the entry of a device in the store is written again.
pub(super) const RECORD_RENEW: Duration = Duration::from_secs(43_200);
/// An entry that is not written again is forgotten by the store after this time.
pub const RECORD_LIFE: Duration = Duration::from_secs(86_400);
/// Entries of the store that are read or written at one time.
pub(super) const MAX_FINDS: usize = 256;
/// A store that fails is left alone for as long (less up to a half), then twice as long, and so on.
pub(super) const STORE_REST_FIRST: Duration = Duration::from_millis(500);
pub(super) const STORE_REST_MAX: Duration = Duration::from_secs(30);
/// Other bases of a cluster.
pub(super) const MAX_MEMBERS: usize = 256;
/// Interests that another base does not state again within this time lapse; each is stated twice in it.
pub(super) const PAIR_LIFE: Duration = Duration::from_secs(90);
/// When a device has moved to another base, or its base is gone, those who know it are told "gone" if nothing is heard of it
/// within this time.
pub(super) const REMOTE_GRACE: Duration = Duration::from_secs(5);
/// A device elsewhere that nobody here is interested in is remembered for as long after a message to it.
pub(super) const REMOTE_MEMORY: Duration = Duration::from_secs(60);
/// Devices elsewhere that one device here may have looked for, because of a message or since it asks for them; one that is found costs
/// nothing. A host with as many peers as it may want has all of them looked for at once.
pub(super) const SEEK_RATE: Rate = Rate { burst: 1_024, every: Duration::from_millis(50) };
/// Messages to a device that is at no base, as far as is known, that go to all bases that may have it: it may have registered there a
/// moment ago, and its entry be on its way.
pub(super) const BLIND_MESSAGES: u8 = 16;
/// For as long after it was looked for first, or was lost; and while the store is being asked.
pub(super) const BLIND_TIME: Duration = Duration::from_secs(2);
/// The session of a device that has registered elsewhere stays open for as long: hosts close theirs after 35 s.
pub(super) const LINGER: Duration = Duration::from_secs(40);
/// BASE-PINGs while they are answered, and while they are not.
pub(super) const BASE_PING_EVERY: Duration = Duration::from_secs(2);
pub(super) const BASE_PING_UNANSWERED: Duration = Duration::from_millis(500);
/// Data goes to another base over UDP for as long after a BASE-PONG.
pub(super) const BASE_UDP_FRESH: Duration = Duration::from_secs(5);
/// Answers to another base that tell of nothing but its own messages.
pub(super) const BASE_REPLY_RATE: Rate = Rate { burst: 100, every: Duration::from_millis(10) };

/// Of the seconds of draining, the last of so many parts is not told to hosts, and at most so many seconds.
pub(super) const DRAIN_SHARE: u16 = 4;
pub(super) const DRAIN_MARGIN: u16 = 5;
