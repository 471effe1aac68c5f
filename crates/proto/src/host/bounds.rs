//! How much a host holds, and the bound of each thing: what tests, fuzzers and the simulated world hold it to.

use super::config::{
    HEARD_TOKENS, MAX_ANNOUNCEMENTS, MAX_ASKING_PEERS, MAX_BASE_CONNECTS, MAX_CLAIMS, MAX_FURTHER_CONNECTS,
    MAX_IP_BUDGETS, MAX_OLD_SESSIONS, MAX_PAIRS, MAX_PEERS, MAX_PROVEN, MAX_SOCKETS, MAX_STRANGER_SOURCES,
    MAX_TOKENS,
};

/// Ports of a base that are tried: its own, and the web's.
const PORTS: usize = 2;

/// How many of each thing a host holds at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Sizes {
    pub peers: usize,
    pub asking_peers: usize,
    /// Address pairs of all peers, and of the peer that has most.
    pub pairs: usize,
    pub most_pairs: usize,
    /// HELLOs whose reply is awaited, of the peer that has most.
    pub most_tokens: usize,
    /// Tokens of HELLOs that came, of the peer that has most.
    pub most_heard: usize,
    /// Source addresses that stand for a peer.
    pub sources: usize,
    pub announcements: usize,
    /// Sockets beyond the main ones.
    pub sockets: usize,
    pub ip_budgets: usize,
    pub stranger_sources: usize,
    pub unknown_sources: usize,
    /// Sessions that have a successor.
    pub old_sessions: usize,
    /// Connections of a race, the session and sessions before it.
    pub connections: usize,
    /// Outputs that nobody has fetched.
    pub outputs: usize,
}

/// To one base in a race: where it was before, what its name stands for, and both by other ways.
const MOST_CONNECTS: usize = PORTS * MAX_BASE_CONNECTS + 2 * MAX_FURTHER_CONNECTS;

impl Sizes {
    /// What is over its bound, if anything is; `bases` is the number of bases configured.
    #[must_use]
    pub fn over(&self, bases: usize) -> Option<String> {
        let bounds = [
            ("peers", self.peers, MAX_PEERS),
            ("asking peers", self.asking_peers, MAX_ASKING_PEERS),
            ("pairs of a peer", self.most_pairs, MAX_PAIRS),
            ("HELLOs awaited of a peer", self.most_tokens, MAX_TOKENS),
            ("HELLOs heard of a peer", self.most_heard, HEARD_TOKENS),
            ("source addresses", self.sources, self.peers * (MAX_CLAIMS + MAX_PROVEN)),
            ("further sockets", self.sockets, MAX_SOCKETS),
            ("announcements", self.announcements, MAX_ANNOUNCEMENTS),
            ("budgets of addresses", self.ip_budgets, MAX_IP_BUDGETS),
            ("budgets of strangers", self.stranger_sources, MAX_STRANGER_SOURCES),
            ("budgets of unknown sources", self.unknown_sources, MAX_STRANGER_SOURCES),
            ("old sessions", self.old_sessions, MAX_OLD_SESSIONS),
            ("connections", self.connections, bases * MOST_CONNECTS + 1 + MAX_OLD_SESSIONS),
        ];
        let (name, size, bound) = bounds.into_iter().find(|&(_, size, bound)| size > bound)?;
        Some(format!("{size} {name}, {bound} at most"))
    }
}
