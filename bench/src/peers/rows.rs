//! Turns of ours and of a peer, and the rows that they make: throughput, and what it cost.

use std::time::Duration;

use super::load::Turn;
use crate::report::{Goal, Report, spread};

const FIRST: Goal = Goal::AtLeast(1.0);

/// How long a turn is, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) time: Duration,
    pub(super) rounds: usize,
}

/// One turn: size of datagrams, and for how long.
pub(super) type Work<'a> = Box<dyn FnMut(usize, Duration) -> Result<Turn, String> + 'a>;

/// Starts what then does turns.
pub(super) type Begin<'a> = Box<dyn FnOnce() -> Result<Work<'a>, String> + 'a>;

/// A way of ours to do the work, and the sizes of datagrams that it is compared with.
pub(super) struct Ours<'a> {
    pub(super) name: &'static str,
    pub(super) work: Work<'a>,
    pub(super) sizes: &'static [usize],
}

/// What is compared with: its name, its version, what it does more than ours or less, and how it starts.
pub(super) struct Peer<'a> {
    pub(super) name: &'static str,
    pub(super) version: Result<String, String>,
    pub(super) more: &'static str,
    pub(super) start: Begin<'a>,
}

/// Two rows for each way of ours and each size.
pub(super) fn compare(
    kind: &str,
    mut ours: Vec<Ours<'_>>,
    peer: Peer<'_>,
    effort: Effort,
    report: &mut Report,
) {
    let case = |name: &str, size: usize| format!("{kind} {size} B, {name} : {}", peer.name);
    let missing = |report: &mut Report, name: &str, size: usize, why: &str| {
        report.missing(&case(name, size), "kpps", FIRST, why);
        report.missing(&format!("{}, cost", case(name, size)), "Mpkt per CPU-s", FIRST, why);
    };
    let started = peer.version.and_then(|version| Ok((version, (peer.start)()?)));
    let (version, mut theirs) = match started {
        Ok(started) => started,
        Err(why) => {
            for (size, way) in ours.iter().flat_map(|way| way.sizes.iter().map(move |size| (*size, way))) {
                missing(report, way.name, size, &why);
            }
            return;
        }
    };
    let mut sizes: Vec<usize> = ours.iter().flat_map(|way| way.sizes).copied().collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.dedup();
    for size in sizes {
        let mut ways: Vec<_> = ours.iter_mut().filter(|way| way.sizes.contains(&size)).collect();
        match turns(&mut ways, &mut theirs, size, effort) {
            Ok(pairs) => {
                let peer = format!("{version}: {}", peer.more);
                for (way, pairs) in ways.iter().zip(&pairs) {
                    rows(&case(way.name, size), &peer, size, pairs, report);
                }
            }
            Err(why) => ways.iter().for_each(|way| missing(report, way.name, size, &why)),
        }
    }
}

/// For each way of ours its turns, each beside the peer's turn of the same round.
fn turns(
    ours: &mut [&mut Ours<'_>],
    theirs: &mut Work<'_>,
    size: usize,
    effort: Effort,
) -> Result<Vec<Vec<(Turn, Turn)>>, String> {
    let mut pairs = vec![vec![]; ours.len()];
    for _ in 0..effort.rounds {
        let of_ours: Vec<Turn> = ours
            .iter_mut()
            .map(|way| (way.work)(size, effort.time).map_err(|why| format!("{}: {why}", way.name)))
            .collect::<Result<_, _>>()?;
        let of_theirs = theirs(size, effort.time)?;
        for (pairs, turn) in pairs.iter_mut().zip(of_ours) {
            pairs.push((turn, of_theirs));
        }
    }
    Ok(pairs)
}

/// Throughput, and cost.
fn rows(case: &str, peer: &str, size: usize, pairs: &[(Turn, Turn)], report: &mut Report) {
    let medians = |of: fn(&Turn) -> f64| {
        let all = |side: fn(&(Turn, Turn)) -> &Turn| {
            spread(&pairs.iter().map(|pair| of(side(pair))).collect::<Vec<_>>()).1
        };
        (all(|pair| &pair.0), all(|pair| &pair.1))
    };
    let rates: Vec<_> = pairs.iter().map(|(a, b)| (a.rate / 1e3, b.rate / 1e3)).collect();
    let (rate, lost) = (medians(|turn| turn.rate), medians(|turn| turn.lost));
    let gbit = |rate: f64| rate * size as f64 * 8.0 / 1e9;
    let unit = format!(
        "kpps ({:.2} and {:.2} Gbit/s; lost {:.1} and {:.1} %; {peer})",
        gbit(rate.0),
        gbit(rate.1),
        lost.0 * 100.0,
        lost.1 * 100.0
    );
    report.pairs(case, &unit, &rates, FIRST);
    // Less is better: turned round, so that the goal reads the same.
    let costs: Vec<_> = pairs.iter().map(|(a, b)| (1.0 / a.cost, 1.0 / b.cost)).collect();
    let (cost, busy) = (medians(|turn| turn.cost), medians(|turn| turn.busy));
    let unit = format!(
        "Mpkt per CPU-s ({:.2} and {:.2} CPU-s per Mpkt; {:.0} and {:.0} % of a core)",
        cost.0,
        cost.1,
        busy.0 * 100.0,
        busy.1 * 100.0
    );
    report.pairs(&format!("{case}, cost"), &unit, &costs, FIRST);
}
