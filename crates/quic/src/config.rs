//! Every bound and number of this crate: name, unit, reason.

use std::time::Duration;

/// The port of every synthetic address: it tells nothing.
pub(crate) const PORT: u16 = 4477;

/// The datagram size that every path must carry (RFC 9000, section 14), in bytes; bowline's ways all do.
pub(crate) const SMALLEST_MTU: u16 = 1200;
/// The largest datagram that is tried: what bowline carries directly over Ethernet and IPv4, where it keeps room for an escape. A search that
/// began higher would end lower: it halves what is left, and does not go on for less than 20 bytes.
pub(crate) const LARGEST_MTU: u16 = 1500 - 20 - 8 - 9;
/// Between two searches for the size: what the path carries grows and shrinks with the path, and asking it costs a few packets.
pub(crate) const MTU_INTERVAL: Duration = Duration::from_secs(3);
/// Datagrams that one receive may hold: what the system merges at most.
pub(crate) const RECEIVE_SEGMENTS: usize = 44;

/// The round trip that is assumed until one is measured: through a base on another continent.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(200);
/// Silence after which a connection is given up: long enough to change networks, to lose a base, to be suspended for a while.
pub const IDLE: Duration = Duration::from_secs(180);
/// An idle connection says so often that it lives, so that the silence of a dead one is noticed.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a handshake may take, the search for a way included.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(15);

/// Between two looks at whether the other end has confirmed the handshake: nothing else tells of it.
pub(crate) const ACCEPTED_LOOK: Duration = Duration::from_millis(10);

/// Bytes that one stream may have in flight: 1 Gbit/s over 130 ms.
pub(crate) const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
/// Bytes that all streams of a connection may have in flight: what its other end can make this device hold.
pub(crate) const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
/// Of a connection that came in and is one of very many: 10 MB/s over 50 ms. None has more before its key was looked at.
pub(crate) const LEAST_WINDOW: u32 = 512 * 1024;
/// What all connections that came in may hold together, but for the least of each: of what is left, each new one gets a part.
pub(crate) const WINDOWS: Windows = Windows { bytes: 1024 * 1024 * 1024, part: 16 };
/// The same of those of one address.
pub(crate) const WINDOWS_OF_ADDRESS: Windows = Windows { bytes: 128 * 1024 * 1024, part: 4 };
/// Streams that the other end may have open at a time, each way.
pub(crate) const STREAMS: u32 = 256;

/// Handshakes at a time. One more ends the one that has taken longest.
pub(crate) const HANDSHAKES: usize = 64;
/// Of them, of one address: a device needs one or two.
pub(crate) const HANDSHAKES_PER_ADDRESS: usize = 8;
/// From so many on, a device first has to show that it hears what is sent to it.
pub(crate) const HANDSHAKES_UNPROVEN: usize = 16;
/// Handshakes and connections of one address at a time.
pub(crate) const CONNECTIONS_PER_ADDRESS: usize = 64;
/// Connections at a time.
pub(crate) const CONNECTIONS: usize = 1024;
/// Connections that stand and wait for `accept`.
pub(crate) const BACKLOG: usize = 64;

/// Between two wake-ups of all connections after changes of path …
pub(crate) const NUDGE: Duration = Duration::from_millis(100);
/// … and no less than this for each of them: a wake-up costs both ends of a connection 240 bytes.
pub(crate) const NUDGE_EACH: Duration = Duration::from_millis(10);
/// Between two looks at whether there are still connections once nobody can make others.
pub(crate) const UNUSED_LOOK: Duration = Duration::from_secs(1);
/// How long closing waits for the other ends to hear of it.
pub(crate) const CLOSE: Duration = Duration::from_secs(2);
/// Between a farewell that nothing answers and the next: the first often meets queues that the data before it has filled.
pub(crate) const FAREWELLS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Absence of a device, by all that bowline knows, after which it is gone. A base that was restarted has its devices back sooner.
pub(crate) const GONE: Duration = Duration::from_secs(10);
/// Between two looks at whether a device is there.
pub(crate) const GONE_LOOK: Duration = Duration::from_secs(1);

/// Memory that connections share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) bytes: u64,
    /// One more connection gets one in so many of the bytes that are left.
    pub(crate) part: u64,
}
