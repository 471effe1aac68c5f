//! Leases: what a shell may do by itself on a standing direct path, and what it owes the machine for that.
//!
//! Asking the machine about every message would cost more than sending it. So a shell may ask once for a [`Lease`]
//! ([`super::Host::lease`]), use its hop until [`super::Host::poll_revoked`] names the peer, and count meanwhile. What it
//! counted ([`Traffic`]) it reports with [`super::Host::handle_traffic`] *before every other call* into the machine, which
//! therefore decides with what is true at that moment: reports may be late, decisions never are. One thing cannot wait:
//! while a lease is not `watched`, the first message out has to be reported at once, since it starts a timer
//! (protocol section 8).
//!
//! A lease is never given for a path that is in doubt: then each message is routed by the machine again.

use std::time::Instant;

use super::Hop;

/// A direct way that stands above suspicion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Where messages go, and where from.
    pub hop: Hop,
    /// The largest message that this way is known to carry.
    pub limit: usize,
    /// How long a datagram of joined messages may be ([`crate::wire::peer::joined_header`]), if the peer takes them.
    pub joined: Option<usize>,
    /// Whether messages may be sent by it: the peer is wanted. One that only asked for us may be received from.
    pub wanted: bool,
    /// Whether the machine looks at this path by itself before silence can mean anything. If not, the first
    /// message out is to be reported at once.
    pub watched: bool,
    /// Data from the hop's remote address is this peer's until then.
    pub source_until: Option<Instant>,
}

/// What went over a lease since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// The lease's hop.
    pub hop: Hop,
    /// Messages sent.
    pub sent: u64,
    /// Messages that came in from the hop's remote address.
    pub received: u64,
    /// The last message, either way.
    pub last: Instant,
    /// The last that came in on the very hop ([`Hop::leads_back`]).
    pub heard: Option<Instant>,
    /// The first that was sent after that, if one was.
    pub unanswered: Option<Instant>,
}
