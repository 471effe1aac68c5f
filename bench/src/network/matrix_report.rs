//! What `bench/run nat-matrix` prints: the matrix for people, or a row a pair.

use std::time::Duration;

use bowline_lab::Refusal;
use serde_json::{Map, Value};

use super::{
    crew::{self, Job},
    kinds::{Expected, GUESSED_SHARE, GUESSED_WITHIN, KINDS, Kind, expected},
    matrix::pairs,
    table::{Row, Table, percentile, shown},
};
use crate::say;

/// How much is done.
struct Effort {
    /// Times that each pair is measured.
    rounds: usize,
    /// How long a pair is watched that does not become direct, s: HELLOs come at most 25 s apart for a while.
    watch: u64,
    /// Pairs at once, in one world.
    at_once: usize,
    /// Pairs that are not measured by then are missing.
    within: Duration,
}

const QUICK: Effort = Effort { rounds: 1, watch: 4, at_once: 16, within: Duration::from_secs(47) };
const FULL: Effort = Effort { rounds: 3, watch: 30, at_once: 16, within: Duration::from_secs(1200) };

/// What was measured of a pair.
#[derive(Debug, Default)]
struct Seen {
    runs: usize,
    at_once: usize,
    direct: usize,
    first: Vec<f64>,
    until_direct: Vec<f64>,
    relay: Option<String>,
}

pub(crate) fn run(json: bool, quick: bool) -> Result<(), Refusal> {
    let effort = if quick { QUICK } else { FULL };
    let words = [
        "nat-matrix".to_owned(),
        effort.rounds.to_string(),
        effort.watch.to_string(),
        effort.at_once.to_string(),
    ];
    let mut seen: Vec<((Kind, Kind), Seen)> =
        pairs().into_iter().map(|pair| (pair, Seen::default())).collect();
    let job = Job { of: (), words: words.to_vec() };
    crew::run(vec![job], 1, effort.within, |(), line| {
        let names = |kind: Kind, at: usize| line["pair"][at] == kind.name();
        if let Some((_, seen)) = seen.iter_mut().find(|((one, other), _)| names(*one, 0) && names(*other, 1))
        {
            seen.add(line);
        }
    })?;
    if json {
        let mut table = Table::new("nat-matrix");
        seen.iter().for_each(|(pair, seen)| table.add(row(*pair, seen)));
        table.add(guessed_row(&seen));
        table.print_json();
    } else {
        print(&seen);
    }
    Ok(())
}

impl Seen {
    fn add(&mut self, line: &Value) {
        self.runs += 1;
        self.at_once += usize::from(line["at_once"] == true);
        self.direct += usize::from(line["direct"] == true);
        self.first.extend(line["first_ms"].as_f64());
        self.until_direct.extend(line["direct_ms"].as_f64());
        self.relay = line["relay"].as_str().map(str::to_owned);
    }

    /// Whether it was as the oracle says, every time; `None` if it was not measured.
    fn met(&self, expected: Expected) -> Option<bool> {
        let as_expected = expected.met(self.direct, self.runs);
        (self.runs > 0).then_some(as_expected && self.at_once == self.runs)
    }

    fn middle(values: &[f64]) -> Option<f64> {
        Some(percentile(values, 50.0)).filter(|value| value.is_finite())
    }
}

fn row((one, other): (Kind, Kind), seen: &Seen) -> Row {
    let expected = expected(one, other);
    let direct = Seen::middle(&seen.until_direct);
    let mut more = Map::new();
    more.insert("expected".into(), expected.word().into());
    more.insert("because".into(), expected.why().into());
    more.insert("direct".into(), (seen.direct > 0).into());
    more.insert("at_once".into(), (seen.runs > 0 && seen.at_once == seen.runs).into());
    more.insert("first_message_ms".into(), Seen::middle(&seen.first).into());
    more.insert("relay".into(), seen.relay.clone().into());
    more.insert("runs".into(), seen.runs.into());
    Row {
        case: format!("{} × {}", one.name(), other.name()),
        unit: "ms until direct",
        figure: direct,
        min: seen.until_direct.iter().copied().reduce(f64::min),
        max: seen.until_direct.iter().copied().reduce(f64::max),
        met: seen.met(expected),
        why: (seen.runs == 0).then(|| "it was not its turn before the time was over".to_owned()),
        more,
        ..Row::default()
    }
}

/// All pairs that are direct by guessing, together: how many runs, and how many of them were in time.
fn guessed(all: &[((Kind, Kind), Seen)]) -> (usize, usize) {
    let pairs = all.iter().filter(|((one, other), _)| matches!(expected(*one, *other), Expected::Guessed(_)));
    let limit = GUESSED_WITHIN.as_secs_f64() * 1e3;
    pairs.fold((0, 0), |(runs, in_time), (_, seen)| {
        (runs + seen.runs, in_time + seen.until_direct.iter().filter(|&&ms| ms <= limit).count())
    })
}

fn guessed_row(all: &[((Kind, Kind), Seen)]) -> Row {
    let (runs, in_time) = guessed(all);
    let share = (runs > 0).then(|| in_time as f64 * 100.0 / runs as f64);
    let mut more = Map::new();
    more.insert("runs".into(), runs.into());
    Row {
        case: format!("ports guessed within {} s", GUESSED_WITHIN.as_secs()),
        unit: "%",
        figure: share,
        goal: Some(GUESSED_SHARE),
        met: share.map(|share| share >= GUESSED_SHARE),
        why: share.is_none().then(|| "none of them was measured".to_owned()),
        more,
        ..Row::default()
    }
}

/// A cell: until direct, or the relay.
fn cell(pair: (Kind, Kind), seen: &Seen) -> String {
    let expected = expected(pair.0, pair.1);
    let text = match (seen.runs, seen.direct) {
        (0, _) => "?".to_owned(),
        (_, 0) if seen.relay.as_deref() == Some("relay-tcp") => "tcp".to_owned(),
        (_, 0) => "udp".to_owned(),
        _ => shown(Seen::middle(&seen.until_direct)),
    };
    if seen.met(expected) == Some(false) { format!("!{text}") } else { text }
}

fn print(all: &[((Kind, Kind), Seen)]) {
    say(
        "Until direct, ms from the first message, both ways; or what the relay goes by: udp, tcp (udp on the side that has it).",
    );
    say("! not as the oracle says   ? not measured   20 ms one way between hosts");
    say("");
    say(&format!("{:22} {}", "", KINDS.map(|kind| format!("{:>6}", kind.short())).concat()));
    for one in KINDS {
        let cells = KINDS.map(|other| {
            let found = all.iter().find(|(pair, _)| *pair == (one, other) || *pair == (other, one));
            found.map_or_else(String::new, |(pair, seen)| format!("{:>6}", cell(*pair, seen)))
        });
        say(&format!("{:22} {}", one.name(), cells.concat()));
    }
    say("");
    let firsts: Vec<f64> = all.iter().flat_map(|(_, seen)| seen.first.iter().copied()).collect();
    say(&format!(
        "first message, ms: p50 {} p99 {} max {}",
        shown(Some(percentile(&firsts, 50.0))),
        shown(Some(percentile(&firsts, 99.0))),
        shown(Some(percentile(&firsts, 100.0)))
    ));
    let wrong: Vec<_> =
        all.iter().filter(|((one, other), seen)| seen.met(expected(*one, *other)) == Some(false)).collect();
    for ((one, other), seen) in &wrong {
        let expected = expected(*one, *other);
        say(&format!(
            "! {} × {}: {} expected ({}); direct {} of {}, first message at once {} of {}",
            one.name(),
            other.name(),
            expected.word(),
            expected.why(),
            seen.direct,
            seen.runs,
            seen.at_once,
            seen.runs
        ));
    }
    let (runs, in_time) = guessed(all);
    let limit = GUESSED_WITHIN.as_secs();
    say(&format!("ports guessed within {limit} s: {in_time} of {runs} runs, goal {GUESSED_SHARE} %"));
    let measured = all.iter().filter(|(_, seen)| seen.runs > 0).count();
    let right = (measured - wrong.len()) as f64 / measured.max(1) as f64;
    say(&format!(
        "ratio: {right:.3} (min {right:.3} max {right:.3}) goal 1   pairs as they can be, of {measured}"
    ));
}
