//! Every bound and number of this crate: name, unit, reason. Those of the protocol live in `bowline_proto`.

use std::time::Duration;

/// Messages that wait for `recv`. More are dropped, the newest first, and counted.
pub(crate) const INBOX_MESSAGES: usize = 65_536;
/// Pieces in which they wait: a message that came by itself, or those that came together. Each costs memory beside its bytes.
pub(crate) const INBOX_PIECES: usize = 4096;
/// Bytes of messages that wait for `recv`: half a second at 128 Mbit/s.
pub(crate) const INBOX_BYTES: usize = 8 * 1024 * 1024;
/// Events that wait for one subscriber. Of more, the oldest are lost and counted.
pub(crate) const EVENTS: usize = 1024;

/// The inbox is crowded from this part of its bounds on: what comes then stays in the socket's buffer for a while, since the
/// system drops what does not fit there at far less cost than this crate could.
pub(crate) const INBOX_LOW: usize = 2;
/// How long the sockets are left alone while the inbox is crowded: control datagrams wait there, too.
pub(crate) const CROWDED_LOOK: Duration = Duration::from_millis(5);

/// Buffers for one `recvmmsg`: what `quinn-udp` takes at most. Single datagrams then cost a 32nd of a system call each.
pub(crate) const RECEIVE_BUFFERS: usize = 32;
/// Bytes in each: what GRO merges at most.
pub(crate) const RECEIVE_BUFFER: usize = 65_536;
/// A received chunk smaller than this part of its buffer is copied out of it, so that a short message that
/// nobody fetches does not pin 64 KiB.
pub(crate) const COPY_BELOW: usize = RECEIVE_BUFFER / 4;
/// Messages that are less than this part of what they came in are copied out of it, too.
pub(crate) const KEEP_PART: usize = 4;
/// Spare buffers kept: what callers have in hand at a time while they keep up.
pub(crate) const SPARE_BUFFERS: usize = 64;
/// Blocks of as many bytes kept to copy single datagrams into: what is received before the receiver has its turn, some times over.
pub(crate) const SPARE_BLOCKS: usize = 16;
/// Receives from one socket before what came is handed on …
pub(crate) const RECEIVES_PER_ROUND: usize = 4;
/// … unless so many messages have come, in so many pieces or of so many bytes.
pub(crate) const MESSAGES_PER_ROUND: usize = INBOX_MESSAGES / 4;
pub(crate) const PIECES_PER_ROUND: usize = INBOX_PIECES / 4;
pub(crate) const BYTES_PER_ROUND: usize = INBOX_BYTES / 4;
/// Such rounds before the driver looks at anything else …
pub(crate) const ROUNDS_PER_WAKE: usize = 8;
/// … unless they have taken so long: then the program has other work, too.
pub(crate) const ROUNDS_TIME: Duration = Duration::from_millis(1);
/// A socket is not watched any more, but looked at each so often …
#[cfg(target_os = "linux")]
pub(crate) const REST: Duration = Duration::from_micros(100);
/// … once as many chunks as this have come in each such time …
#[cfg(target_os = "linux")]
pub(crate) const BUSY_CHUNKS: u32 = 8;
/// … for so long, …
#[cfg(target_os = "linux")]
pub(crate) const BUSY_AFTER: Duration = Duration::from_micros(500);
/// … until a look finds fewer than so many.
#[cfg(target_os = "linux")]
pub(crate) const STILL_BUSY_CHUNKS: u32 = 4;
/// The receive buffer, as the system counts it, from which on it rests so long; less with less. What a system grants that is not asked to
/// grant more (425,984) is full after 185 single datagrams.
#[cfg(target_os = "linux")]
pub(crate) const REST_BUFFER: usize = 1024 * 1024;
/// Destinations remembered for which the system does not segment; with more, it is not asked to for any.
#[cfg(target_os = "linux")]
pub(crate) const UNSEGMENTED: usize = 64;
/// Socket buffers asked for, each way; the system may give less.
pub(crate) const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Datagrams in one send with segmentation offload: what all kernels that know it take.
pub(crate) const MAX_SEGMENTS: usize = 64;
/// Bytes in one send with segmentation offload: the 16-bit length of an IPv4 packet less its headers.
pub(crate) const MAX_SEGMENTED_BYTES: usize = 65_535 - 20 - 8;
/// Pieces of memory in one send: what the system gathers at most (`UIO_MAXIOV`).
pub(crate) const MAX_PARTS: usize = 1024;
/// So many parts of a send, or more, are copied together first …
#[cfg(target_os = "linux")]
pub(crate) const COPY_PARTS: usize = 4;
/// … if they are shorter than this on average: with each of them the system takes longer than copying it does.
#[cfg(target_os = "linux")]
pub(crate) const COPY_PARTS_BELOW: usize = 2048;
/// Messages of a batch that are routed at once, under the machine's lock.
pub(crate) const BATCH: usize = 256;
/// Control datagrams that wait for the socket to become writable. More are dropped: the machine repeats all of them.
pub(crate) const DEFERRED_DATAGRAMS: usize = 256;
/// How long a message waits in `send` while the socket or the base's queue is full; then it is dropped, as a network would.
pub(crate) const SEND_PATIENCE: Duration = Duration::from_secs(1);
/// Rounds of answering the machine's outputs before the driver yields.
pub(crate) const OUTPUT_ROUNDS: usize = 64;

/// Bytes of relayed messages that wait for one TCP connection. More are dropped and reported. It bounds delay, not
/// throughput: the kernel holds its own buffer behind it.
pub(crate) const TCP_DATA_QUEUE: usize = 128 * 1024;
/// Bytes of control frames that wait for one TCP connection. The machine writes a few hundred bytes at a time; a
/// connection that lets this much pile up is dead and is given up.
pub(crate) const TCP_CONTROL_QUEUE: usize = 1024 * 1024;
/// Bytes the kernel may hold of a TCP connection beyond what is in flight, so that control frames do not queue
/// behind seconds of data.
pub(crate) const TCP_UNSENT: u32 = 128 * 1024;
/// The longest TCP segment, both ways: what every path carries (1,280 bytes with the headers of IPv6). Where a path carries less than its ends
/// are told and nothing says so, longer ones vanish for ever: Linux looks for a way out by itself only where it is told to (tcp_mtu_probing).
#[cfg(target_os = "linux")]
pub(crate) const TCP_SEGMENT: u32 = 1220;
/// Bytes read from a TCP connection at once.
pub(crate) const TCP_READ: usize = 32 * 1024;
/// A TCP connection that does not stand after this is reported as refused.
pub(crate) const TCP_CONNECT: Duration = Duration::from_secs(10);
/// How long a closed connection waits, once what was written before has been sent, for the base to close its side.
pub(crate) const TCP_LINGER: Duration = Duration::from_millis(500);
/// What connection and resolver tasks have ready for the driver; they wait when it is full.
pub(crate) const INPUTS: usize = 256;
/// Of those, how many the driver takes at once.
pub(crate) const INPUTS_PER_WAKE: usize = 64;

/// How long a name may take to resolve.
pub(crate) const RESOLVE: Duration = Duration::from_secs(10);
/// Names that are looked up at a time by all endpoints of a process; those whose servers do not answer, for half a minute each.
pub(crate) const LOOKUPS: usize = 256;
/// How long it may take to find out about a NAT64, where there is no way to IPv4 otherwise.
pub(crate) const NAT64: Duration = Duration::from_secs(3);
/// Before it is looked for again, where name servers do not answer: a router's uplink may come up long after its network …
pub(crate) const NAT64_RETRY: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// … and then again and again so long after.
pub(crate) const NAT64_AGAIN: Duration = Duration::from_secs(60);
/// A name that has IPv4 addresses alone (RFC 7050).
pub(crate) const NAT64_NAME: &str = "ipv4only.arpa";
/// Addresses of one name that are used.
pub(crate) const RESOLVED_ADDRESSES: usize = 16;

/// Between two looks at the network, while events keep coming; the last one again and again. A change is rarely a single
/// event: where a look falls between the old address and the new one, the next must not be far.
#[cfg(target_os = "linux")]
pub(crate) const NETWORK_LOOKS: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(20),
];
/// How often the interfaces are looked at on systems whose notifications this crate does not know, or may not have.
pub(crate) const NETWORK_POLL: Duration = Duration::from_secs(3);
/// A clock that is off by this much from the monotonic one was set, or the device slept.
pub(crate) const CLOCK_JUMP: Duration = Duration::from_secs(2);
/// How often the clocks are compared at least, on systems that do not tell of a resume.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(5);

/// Before a router that gave no port, or one that does not lead here, is asked again: at first, and in the end; doubling.
#[cfg(feature = "port-mapping")]
pub(crate) const MAPPING_RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// How long `close` waits for a mapped port to be given back …
#[cfg(feature = "port-mapping")]
pub(crate) const MAPPING_RELEASE: Duration = Duration::from_secs(1);
/// … and how much of that after the mapping counts as gone: the message to the router leaves then.
#[cfg(feature = "port-mapping")]
pub(crate) const MAPPING_GRACE: Duration = Duration::from_millis(200);

/// How long `close` waits for what was sent before to leave, and a closed connection for what was written before.
pub(crate) const CLOSE_FLUSH: Duration = Duration::from_secs(1);
