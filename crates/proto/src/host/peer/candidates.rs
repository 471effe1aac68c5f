//! Where a peer may be, and the address pairs that follow from it.

use std::{net::SocketAddr, time::Instant};

use super::{Peer, Role};
use crate::host::{
    CandidateSource, Hop,
    candidate::{Judge, Rank},
    config::{FORGET, MAX_CANDIDATES, MAX_PAIRS},
    locals::{Locals, is_private},
    pair::Pair,
};

/// Where it might be, by who says so.
#[derive(Debug, Default)]
pub(in crate::host) struct Known {
    pub(in crate::host) given: Vec<SocketAddr>,
    pub(in crate::host) reflexive: Vec<SocketAddr>,
    pub(in crate::host) own: Vec<SocketAddr>,
    pub(in crate::host) link: Vec<SocketAddr>,
    pub(in crate::host) last_good: Option<SocketAddr>,
}

impl Known {
    /// Whether a base has told of the place that is to be had at this address from here.
    pub(in crate::host) fn has(&self, address: SocketAddr, locals: &Locals) -> bool {
        self.reflexive.iter().chain(&self.own).any(|&told| locals.reach(told) == address)
    }
}

impl Peer {
    /// Rebuilds the pairs from what is known. Pairs that stay keep their state; new ones start their ladder.
    pub(in crate::host) fn rebuild(&mut self, judge: &Judge<'_>, now: Instant) {
        let mut candidates: Vec<(Rank, SocketAddr, CandidateSource)> = Vec::new();
        for (address, source) in self.all_candidates(now) {
            let address = judge.locals.reach(address);
            let known = candidates.iter().any(|&(_, a, _)| a == address);
            if !known && judge.accepts(address, source) {
                candidates.push((
                    Rank::new(address, source, self.known.last_good, judge.locals),
                    address,
                    source,
                ));
            }
        }
        candidates.sort_by_key(|&(rank, ..)| rank);
        candidates.truncate(MAX_CANDIDATES);

        let mut old = std::mem::take(&mut self.pairs);
        for (_, to, candidate_source) in candidates {
            for source in judge.locals.sources_for(to) {
                if self.pairs.len() == MAX_PAIRS {
                    break;
                }
                let hop = Hop { source, ..Hop::anywhere(to) };
                let kept = old.iter().position(|p| p.hop == hop).map(|at| old.swap_remove(at));
                let mut pair = kept.unwrap_or_else(|| Pair::new(hop, candidate_source, now));
                pair.source = candidate_source;
                self.pairs.push(pair);
            }
        }
        // A standing path is judged by whether it answers, not by whether anyone still speaks of it.
        if let Some(hop) = self.direct.as_ref().map(|s| s.hop)
            && let Some(at) = old.iter().position(|p| p.hop == hop)
            && hop.source.is_none_or(|ip| judge.locals.has(ip))
        {
            self.pairs.truncate(MAX_PAIRS - 1);
            self.pairs.push(old.swap_remove(at));
        }
        for pair in old {
            if self.pairs.len() < MAX_PAIRS && self.punch.keeps(&pair) {
                self.pairs.push(pair);
            }
        }
    }

    fn all_candidates(&self, now: Instant) -> Vec<(SocketAddr, CandidateSource)> {
        let known = &self.known;
        let mut all: Vec<(SocketAddr, CandidateSource)> = Vec::new();
        let mut add = |addresses: &mut dyn Iterator<Item = SocketAddr>, source| {
            all.extend(addresses.map(|a| (a, source)));
        };
        add(&mut known.given.iter().copied(), CandidateSource::Given);
        let fresh = self.proofs.iter().rev().filter(|(_, at)| *at + FORGET > now);
        add(&mut fresh.map(|&(address, _)| address), CandidateSource::Proven);
        add(&mut known.reflexive.iter().copied(), CandidateSource::Reflexive);
        if self.role == Role::Wanted {
            add(&mut known.link.iter().copied(), CandidateSource::Link);
            add(&mut known.own.iter().copied(), CandidateSource::Own);
        }
        add(&mut self.kept_ports(), CandidateSource::KeptPort);
        all
    }

    /// Where a wanted peer is, if its router keeps its port towards us and could not towards the base.
    fn kept_ports(&self) -> impl Iterator<Item = SocketAddr> {
        let is_private = |own: &&SocketAddr| own.is_ipv4() && is_private(own.ip());
        let own = self.known.own.iter().find(is_private).filter(|_| self.role == Role::Wanted);
        let seen = self.known.reflexive.iter().filter(|seen| seen.is_ipv4());
        own.into_iter().flat_map(move |own| seen.clone().map(|seen| SocketAddr::new(seen.ip(), own.port())))
    }
}
