//! The host's numbers: each with its unit and its reason. Policy that is data stands here, not where it is used.

use std::time::Duration;

use crate::bucket::Rate;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

// --- Bases ---------------------------------------------------------------------------------------------------

/// The port of a base where none is written.
pub const BASE_PORT: u16 = 4477;
/// Where a base at [`BASE_PORT`] is tried as well, last: some networks let nothing out but the web.
pub const WEB_PORT: u16 = 443;
/// Between two connection attempts to addresses of one base (RFC 8305, section 5).
pub const CONNECT_STAGGER: Duration = ms(250);
/// Addresses of one base that a race tries: a name may resolve to more.
pub const MAX_BASE_CONNECTS: usize = 8;
/// Attempts to reach one base by ways out that the system does not prefer, once those by its choice have begun in vain: a Wi-Fi that leads
/// nowhere may be preferred for as long as it is there.
pub const MAX_FURTHER_CONNECTS: usize = 4;
/// How long the bases not in use wait when a change of network starts a race: the present one keeps our state.
pub const HEAD_START: Duration = ms(250);
/// A connection that is not established, or on which no BASE-HELLO comes, for so long has failed.
pub const CONNECT_TIMEOUT: Duration = secs(10);
/// The winner has so long to answer REGISTER before it is the next one's turn; where no other has answered, as long as for
/// everything else ([`CONNECT_TIMEOUT`]): it may just be far away.
pub const REGISTER_TIMEOUT: Duration = secs(2);
/// A name that takes longer to be looked up: its base is tried where it was before, too.
pub const RESOLVE_PATIENCE: Duration = secs(1);
/// Addresses remembered of a base: of each family, before and after it moved.
pub const MAX_KNOWN_ADDRESSES: usize = 4;
/// The longest that an ERROR keeps a host away from a base, whatever it says: nothing in it shows that it is the base's.
pub const RETRY_AFTER_MAX: Duration = secs(600);
/// First and last back-off after a lost race (full jitter, doubling).
pub const RACE_BACKOFF: (Duration, Duration) = (secs(1), secs(60));
/// … and below this while messages wait for a base.
pub const RACE_WANTED: Duration = secs(5);
/// A race in which no base has said anything for so long is begun anew when something comes over UDP.
pub const RACE_STUCK: Duration = secs(1);
/// A race is begun anew for that reason so often at most.
pub const RACE_AGAIN: Rate = Rate { burst: 1, every: secs(5) };
/// A session that lived at least so long starts its successor's race without back-off.
pub const STABLE_SESSION: Duration = secs(10);
/// After ERROR 8 without a newer session of one's own.
pub const REPLACED_WAIT: Duration = secs(60);
/// After ERROR 9, doubling: two devices with one key must not fight.
pub const CLONED_BACKOFF: (Duration, Duration) = (secs(60), secs(3600));
/// A base that sent GOAWAY is left alone for its seconds and so much more.
pub const GOAWAY_REST: Duration = secs(60);
/// What still comes from an old session is accepted for so long after its successor stands.
pub const OLD_SESSION: Duration = secs(35);
/// Old sessions remembered at once.
pub const MAX_OLD_SESSIONS: usize = 2;
/// Bounds of the keepalive that a base may ask for; also the value without a base.
pub const KEEPALIVE: (Duration, Duration) = (secs(10), secs(25));

/// LEAVE follows the last message relayed over UDP by the round trip to the base, within these: it must not overtake it.
pub const PARTING: (Duration, Duration) = (ms(50), secs(1));

// --- Liveness of a session -------------------------------------------------------------------------------------

/// Data went out over TCP and nothing came in for so long: INFO.
pub const TCP_QUIET: Duration = secs(1);
/// An INFO unanswered for so long (or three round trips) while data waits: a new race.
pub const PONG_TIMEOUT: Duration = secs(2);
/// The same when no data waits.
pub const PONG_TIMEOUT_IDLE: Duration = secs(10);
/// Data went out over UDP and nothing came in for so long: NAT-INIT.
pub const UDP_QUIET: Duration = secs(1);
/// … and INFO, so that a base that is gone altogether is noticed in time.
pub const UDP_QUIET_INFO: Duration = ms(1250);
/// … and data over TCP.
pub const UDP_SILENT: Duration = ms(1750);
/// While data would go over UDP that is silent: a NAT-INIT so often, for as long as the base may still know the binding.
pub const UDP_SILENT_ASK: Duration = secs(1);

/// A session that nothing came from over TCP for so long is over, whatever the system says: the base has dropped it, too.
pub const SESSION_DEAD: Duration = secs(60);

// --- NAT-INIT --------------------------------------------------------------------------------------------------

/// Gaps between an unanswered NAT-INIT and the next.
pub const NAT_INIT_GAPS: [Duration; 4] = [ms(250), ms(500), ms(1000), ms(2000)];
/// The rungs of a NAT-INIT ladder that are padded.
pub const NAT_INIT_PADDED: [usize; 2] = [0, 2];
/// A NAT-CONFIRM without its NAT-OK is sent again after these.
pub const NAT_CONFIRM_GAPS: [Duration; 2] = [ms(100), ms(300)];
/// Where a NAT has been seen to lose mappings between two refreshes, they come more often, but never more often than this.
pub const REFRESH_MIN: Duration = secs(8);
/// A binding that is seen from elsewhere at so many refreshes in a row shows such a NAT: once only, a router may have restarted.
pub const REFRESH_LOST: u32 = 2;
/// NAT-OK allows sending over UDP for so long.
pub const NAT_OK_LIFE: Duration = secs(35);
/// A binding that shows the same address of ours as one that is kept alive is asked for again after so long.
pub const BINDING_REST: Duration = secs(600);
/// Unanswered NAT-INITs on the binding in use before another is chosen.
pub const BINDING_FAILED: u32 = 4;
/// NAT-INITs remembered per binding, for round trips and stray answers.
pub const NAT_OUTSTANDING: usize = 8;
/// NAT-UNKNOWN causes one NAT-INIT and one INFO so often at most.
pub const NAT_UNKNOWN_REACTION: Rate = Rate { burst: 1, every: secs(1) };

// --- Port mappings -------------------------------------------------------------------------------------------------

/// Between a MAP-CHECK that is not answered and the next; after the last, the mapping does not lead here.
pub const MAP_CHECK_GAPS: [Duration; 4] = [ms(250), ms(500), ms(1000), ms(2000)];
/// A mapping that leads here is asked for again after so long: a router that restarted has forgotten it.
pub const MAP_CHECK_EVERY: Duration = secs(100);

// --- Sizes -----------------------------------------------------------------------------------------------------

/// What a path carries before 1,200 bytes are proven: with headers well under the 576 bytes that IPv4 asks of
/// every link.
pub const SMALL_DATA: usize = 500;

/// A message larger than this shows that its sender would use more than 1,200 bytes: only then is more looked for.
pub const SIZE_WANTED: usize = 1000;
/// MTUs that are tried on a direct path: the least of IPv6, tunnels, PPPoE, Ethernet, jumbo frames, and the largest message.
pub const PATH_MTUS: [usize; 9] = [1280, 1400, 1420, 1440, 1480, 1492, 1500, 9000, 16_057];
/// What counts as large: the MTU of Ethernet, which is tried before all smaller ones, and confirmed more often than larger ones.
pub const SIZE_LARGE: usize = 1500;
/// A padded HELLO that looks for more is sent again after the first two; after all three the size does not pass.
pub const SIZE_TRIES: [Duration; 3] = [ms(250), ms(1000), ms(1000)];
/// One that is larger than [`SIZE_LARGE`] is sent so often in all: it costs a good part of a minute's bytes.
pub const SIZE_TRIES_LARGE: usize = 2;
/// A proven size over 1,200 is asked for again so often …
pub const SIZE_CONFIRM: Duration = secs(25);
/// … a large one so often, …
pub const SIZE_CONFIRM_LARGE: Duration = secs(100);
/// … and, if a message was followed by nothing, no sooner than this after the last answer.
pub const SIZE_CONFIRM_MIN: Duration = secs(5);
/// So long after a search has ended, larger sizes are tried again (RFC 8899, section 5.1.1).
pub const SIZE_RAISE: Duration = secs(600);
/// Bytes of HELLOs that look for sizes, a peer: half of all its HELLO bytes.
pub const SIZE_BYTES: Rate = Rate { burst: 20_480, every: Duration::from_nanos(60_000_000_000 / 20_480) };

// --- Peers -----------------------------------------------------------------------------------------------------

/// Peers with state: the interests that a base takes.
pub const MAX_PEERS: usize = 1024;
/// A peer that was last used as long ago gives its place to one that is used now. Strangers that a device answers would otherwise keep
/// all others out.
pub const PEER_HELD: Duration = secs(10);
/// Of these, peers that only asked for us; the one idle longest goes first, and none that is at work.
pub const MAX_ASKING_PEERS: usize = 768;
/// WANTED of devices that are not active, taken: a base sends 50 a second at most, after 64 at once.
pub const WANTED_TAKEN: Rate = Rate { burst: 256, every: ms(10) };
/// While all peers are in use, room for one more is looked for so often: messages to it take the relay.
pub const ROOM_LOOK: Duration = ms(100);
/// A peer without traffic for so long is idle: its interest is released, its path is a candidate again.
pub const IDLE: Duration = secs(120);
/// An idle peer is forgotten after so much more.
pub const FORGET: Duration = secs(600);
/// Candidates a peer.
pub const MAX_CANDIDATES: usize = 16;
/// Address pairs a peer.
pub const MAX_PAIRS: usize = 32;
/// Addresses given by the user a peer.
pub const MAX_GIVEN: usize = 4;
/// Proven addresses remembered a peer.
pub const MAX_PROVEN: usize = 8;
/// Link-local candidates per interface and peer.
pub const MAX_LINK_PER_INTERFACE: usize = 2;

// --- HELLO -----------------------------------------------------------------------------------------------------

/// When the HELLOs of a ladder leave, from its start.
pub const LADDER: [Duration; 5] = [ms(0), ms(100), ms(300), ms(700), ms(1500)];
/// Pairs due within so much of each other share one signature.
pub const GATHER: Duration = ms(2);
/// Between rounds of a pair that answers.
pub const ROUND: Duration = secs(25);
/// Jitter goes downwards only, by a tenth of the round at most.
pub const ROUND_JITTER: f64 = 0.1;
/// Between rounds of a pair that never answers, in the end.
pub const ROUND_MAX: Duration = secs(200);
/// HELLOs to each address of a peer that only asked for us.
pub const ASKING_HELLOS: u64 = 5;
/// A reply counts for so long after its HELLO.
pub const TOKEN_LIFE: Duration = secs(5);
/// HELLOs remembered a peer.
pub const MAX_TOKENS: usize = 32;
/// Tokens of HELLOs that came from a peer and held: one that comes again after [`TOKEN_LIFE`] is somebody's replay. At
/// one a round that is the last half-hour, at one a second the last minute.
pub const HEARD_TOKENS: usize = 64;
/// A source that has only sent a HELLO is taken for so long.
pub const CLAIM_LIFE: Duration = secs(5);
/// A proven source is taken for so long after its last HELLO or reply.
pub const PROOF_LIFE: Duration = secs(75);
/// Claimed (unproven) source addresses a peer.
pub const MAX_CLAIMS: usize = 5;
/// One HELLO to an unproven source that sent one.
pub const DRAWN: Rate = Rate { burst: 1, every: secs(1) };
/// … and in all for one peer: behind a NAT with a new port for every destination each drawn HELLO comes from a new
/// source and would draw the next, for ever.
pub const DRAWN_PEER: Rate = Rate { burst: 8, every: secs(5) };

// --- Guessing ports ---------------------------------------------------------------------------------------------

/// Data comes over the relay, and no direct path stands so long after: ports are guessed, where that can help.
pub const PUNCH_AFTER: Duration = secs(1);
/// Ordinary HELLOs that have gone to the peer's address before.
pub const PUNCH_TRIED: u64 = 3;
/// Ports that differ by no more than this come from a NAT that counts.
pub const PUNCH_NEAR: u16 = 32;
/// Of such a NAT, so many ports are tried that follow the highest seen …
pub const PUNCH_SEQUENCE: u16 = 128;
/// … before the side behind it opens further sockets.
pub const PUNCH_SEQUENCE_FIRST: Duration = secs(3);
/// How long an attempt lasts: 12 s from the first message, with what comes before.
pub const PUNCH_FOR: Duration = secs(12);
/// KNOCKs of an attempt, from the side whose port is known: with their headers 28 KB.
pub const PUNCH_DATAGRAMS: u32 = 768;
/// Sockets that the other side opens. Each of them and each of the KNOCKs are a chance of 1 in 64,512: 3.8 hits are
/// to be expected of an attempt, none of 1 in 45.
pub const PUNCH_SOCKETS: usize = 320;
/// Between two bursts of what the budget of new flows has earned.
pub const PUNCH_EVERY: Duration = ms(50);
/// New flows that guessing leaves to first HELLOs.
pub const PUNCH_RESERVE: u32 = 8;
/// Hits of an attempt that are followed up.
pub const PUNCH_HITS: usize = 4;
/// The first rest after an attempt that failed, and the longest; doubling.
pub const PUNCH_REST: (Duration, Duration) = (secs(60), secs(3600));
/// Attempts with a peer, whatever happens in between.
pub const PUNCH_ATTEMPTS: Rate = Rate { burst: 3, every: secs(60) };
/// Further sockets open at once, over all peers.
pub const MAX_SOCKETS: usize = 512;

// --- Budgets of what we send -------------------------------------------------------------------------------------

/// First HELLOs on a pair that are not answered, in all.
pub const NEW_FLOWS: Rate = Rate::per_second(64);
/// HELLO bytes a peer: 40 KiB a minute.
pub const PEER_BYTES: Rate = Rate { burst: 40_960, every: Duration::from_nanos(60_000_000_000 / 40_960) };
/// HELLOs a remote IP that are not answered: 16 a second, a few less at once, since those that are drawn do not wait for it. A peer that has
/// answered at the very address is not counted: else a few dozen devices behind one NAT would keep all others there from being found.
pub const IP_HELLOS: Rate = Rate { burst: 12, every: ms(63) };
/// Unanswered HELLOs to one IP of a peer before it rests …
pub const REST_AFTER: u32 = 32;
/// … for so long.
pub const REST: Duration = secs(600);
/// Remote IPs with a budget of their own; beyond, all share one.
pub const MAX_IP_BUDGETS: usize = 1024;

// --- Budgets of what we check ------------------------------------------------------------------------------------

/// HELLOs that carry an introduction, a device.
pub const INTRODUCED: Rate = Rate::per_second(10);
/// HELLOs without, an IPv4 address or IPv6 /64: 5 in 2 s.
pub const STRANGER_SOURCE: Rate = Rate { burst: 5, every: ms(400) };
/// HELLOs without, in all; on-link sources have a budget of the same size to themselves.
pub const STRANGERS: Rate = Rate::per_second(10);
/// Sources of strangers with a budget of their own; beyond, they are refused.
pub const MAX_STRANGER_SOURCES: usize = 1024;
/// UNKNOWN-SOURCE sent, a source …
pub const UNKNOWN_SOURCE: Rate = Rate { burst: 1, every: secs(1) };
/// … and in all.
pub const UNKNOWN_SOURCES: Rate = Rate::per_second(10);
/// Data shorter than this draws no UNKNOWN-SOURCE: the answer would be longer than its cause.
pub const UNKNOWN_SOURCE_MIN: usize = 9;
/// A HELLO caused by UNKNOWN-SOURCE, a path.
pub const UNKNOWN_SOURCE_REACTION: Rate = Rate { burst: 1, every: secs(1) };

// --- A standing path -----------------------------------------------------------------------------------------------

/// The shortest time in which silence means anything.
pub const SILENCE_MIN: Duration = ms(200);
/// The same where both sides talk: a few messages of a call in a row, and more than a queue on the way holds back as a rule.
pub const SILENCE_TALKING: Duration = ms(150);
/// Data that came in so lately before data went out means that both sides talk: silence then means more than where only one does.
pub const TALKING: Duration = secs(1);
/// A path that went silent in the middle of a talk causes one NAT-INIT and one INFO so often at most.
pub const PATH_SILENT_REACTION: Rate = Rate { burst: 1, every: secs(1) };
/// A peer of whom nothing came for so long, though messages went to it, has come back with the next message over the relay …
pub const CAME_BACK: Duration = secs(2);
/// … and so often at most, for each peer, a new ladder follows that, or that the base has come back.
pub const CAME_BACK_LADDER: Rate = Rate { burst: 1, every: secs(10) };
/// … and so many at most after a path went silent: pairs that never answered are not tried more often for it.
pub const CAME_BACK_LADDERS: u8 = 2;
/// HELLOs on a path that has gone silent, at most one in so long.
pub const PROBE_EVERY: Duration = secs(1);
/// A suspect path without a reply for so long (or three round trips) is dropped, if the base has answered since.
pub const SUSPECT_MIN: Duration = secs(1);
/// A pair must be faster by this share …
pub const FASTER_SHARE: f64 = 0.8;
/// … and by this much …
pub const FASTER_BY: Duration = ms(10);
/// … in so many rounds.
pub const FASTER_ROUNDS: u8 = 3;
/// A padded HELLO without an answer is sent again after these, then with every round.
pub const SIZE_GAPS: [Duration; 3] = [ms(250), ms(1000), ms(3000)];

// --- Early data ----------------------------------------------------------------------------------------------------

/// A peer whose router gave it another port gets messages there before it has answered, for so long after the HELLO: longer
/// than all but the worst round trips.
pub const EARLY_FOR: Duration = ms(500);
/// So many of them at most: a call's within 320 ms.
pub const EARLY_MESSAGES: u32 = 16;
/// Moves of a peer that are followed so.
pub const EARLY_MOVES: Rate = Rate { burst: 1, every: secs(5) };

// --- Local link ----------------------------------------------------------------------------------------------------

/// Between announcements without a change.
pub const ANNOUNCE: Duration = secs(25);
/// Announcements kept.
pub const MAX_ANNOUNCEMENTS: usize = 256;
/// … for so long.
pub const ANNOUNCEMENT_LIFE: Duration = secs(60);
/// One announcement in answer to others' on an interface per so long.
pub const ANNOUNCEMENT_REACTION: Duration = ms(2500);
/// Reactions to announcements of a peer: a peer that restarts at once is new twice.
pub const LINK_REACTIONS: Rate = Rate { burst: 4, every: ms(2500) };

// --- Keys -----------------------------------------------------------------------------------------------------------

/// The introduction master key is new at the start and after so long.
pub const MASTER_KEY_LIFE: Duration = secs(86_400);
/// The one before stays valid for so long.
pub const MASTER_KEY_GRACE: Duration = secs(3_600);
