//! What `bench/run meet` prints: a line a case for people, or a row for every figure.

use std::time::Duration;

use bowline_lab::Refusal;
use serde_json::{Map, Value};

use super::{
    crew::{self, Job},
    meet::{CASES, ONLINE, WATCH},
    pair::{IROH_BIN, Stack},
    table::{Row, Table, percentile, shown},
};
use crate::say;

/// How much is done.
struct Effort {
    /// Runs of a case, and in how many worlds they are shared out.
    runs: (u64, u64),
    at_once: usize,
    within: Duration,
}

const QUICK: Effort = Effort { runs: (6, 2), at_once: 4, within: Duration::from_secs(46) };
const FULL: Effort = Effort { runs: (50, 5), at_once: 4, within: Duration::from_secs(1800) };

/// What is measured, as lines of worlds and people have it.
const MEASURES: [(&str, &str); 3] =
    [(ONLINE, "both online"), ("first_ms", "first messages"), ("direct_ms", "first direct ones")];

/// All runs of a case with one stack: the figures of each measure, and how many runs have none.
#[derive(Debug, Default)]
struct Runs {
    count: usize,
    figures: [Vec<f64>; MEASURES.len()],
}

impl Runs {
    fn add(&mut self, line: &Value) {
        self.count += 1;
        for (figures, (key, _)) in self.figures.iter_mut().zip(MEASURES) {
            figures.extend(line[key].as_f64());
        }
    }

    fn percentile(&self, measure: usize, percent: f64) -> Option<f64> {
        Some(percentile(&self.figures[measure], percent)).filter(|value| value.is_finite())
    }

    fn remark(&self, measure: usize) -> Option<String> {
        let without = self.count - self.figures[measure].len();
        (without > 0).then(|| format!("not within {} s in {without} of {}", WATCH.as_secs(), self.count))
    }
}

pub(crate) fn run(json: bool, quick: bool) -> Result<(), Refusal> {
    let effort = if quick { QUICK } else { FULL };
    let mut all: Vec<[Runs; 2]> = CASES.iter().map(|_| Default::default()).collect();
    crew::run(jobs(&effort), effort.at_once, effort.within, |&(case, stack), line| {
        all[case][stack as usize].add(line);
    })?;
    if json {
        let mut table = Table::new("meet");
        for (case, runs) in CASES.iter().zip(&all) {
            let measured = (0..MEASURES.len()).filter(|&measure| case.measures(MEASURES[measure].0));
            measured.for_each(|measure| rows(case.name, measure, runs, &mut table));
        }
        table.print_json();
    } else {
        print(&all);
    }
    Ok(())
}

/// The worlds; both stacks have theirs by turns.
fn jobs(effort: &Effort) -> Vec<Job<(usize, Stack)>> {
    let (runs, worlds) = effort.runs;
    let mut jobs = Vec::new();
    for world in 0..worlds {
        let (first, next) = (runs * world / worlds, runs * (world + 1) / worlds);
        for (at, case) in CASES.iter().enumerate() {
            for stack in [Stack::Bowline, Stack::Iroh] {
                if stack == Stack::Iroh && std::env::var_os(IROH_BIN).is_none() {
                    continue;
                }
                let names = ["meet", case.key, stack.name()].map(str::to_owned);
                let numbers = [next - first, first].map(|number| number.to_string());
                jobs.push(Job { of: (at, stack), words: [&names[..], &numbers[..]].concat() });
            }
        }
    }
    jobs
}

fn rows(case: &str, measure: usize, [ours, theirs]: &[Runs; 2], table: &mut Table) {
    let mut more = Map::new();
    more.insert("runs".into(), ours.count.into());
    more.insert("reference_runs".into(), theirs.count.into());
    for (name, percent) in [("p50", 50.0), ("p99", 99.0)] {
        table.add(Row {
            case: format!("{case}: {}, {name}", MEASURES[measure].1),
            unit: "ms",
            figure: ours.percentile(measure, percent),
            reference: theirs.percentile(measure, percent),
            min: ours.percentile(measure, 0.0),
            max: ours.percentile(measure, 100.0),
            why: ours.remark(measure),
            more: more.clone(),
            ..Row::default()
        });
    }
}

fn print(all: &[[Runs; 2]]) {
    say(
        "Milliseconds until both have what is named; 50 messages a second each way, 20 ms one way between hosts, ordinary routers between.",
    );
    say("");
    say(&format!(
        "{:42} {:18} {:>5} {:>6} {:>6} {:>6} {:>5} {:>6} {:>6} {:>6}",
        "case", "until", "runs", "p50", "p99", "max", "iroh", "p50", "p99", "max"
    ));
    let mut worst: Option<(f64, String)> = None;
    for (case, [ours, theirs]) in CASES.iter().zip(all) {
        for (measure, (key, name)) in MEASURES.iter().enumerate() {
            if !case.measures(key) {
                continue;
            }
            let figures = |runs: &Runs| {
                let all = [50.0, 99.0, 100.0].map(|percent| runs.percentile(measure, percent));
                all.map(|figure| format!("{:>6}", shown(figure))).join(" ")
            };
            let (count, other) = (ours.count, theirs.count);
            say(&format!(
                "{:42} {name:18} {count:>5} {} {other:>5} {}",
                case.name,
                figures(ours),
                figures(theirs)
            ));
            for (runs, who) in [(ours, ""), (theirs, "iroh: ")] {
                if let Some(remark) = runs.remark(measure) {
                    say(&format!("{:42}   {who}{remark}", ""));
                }
            }
            if let Some((own, reference)) =
                ours.percentile(measure, 50.0).zip(theirs.percentile(measure, 50.0))
                && worst.as_ref().is_none_or(|(ratio, _)| own / reference > *ratio)
            {
                worst = Some((own / reference, format!("{}: {name}", case.name)));
            }
        }
    }
    match worst {
        None => say("ratio: - (min - max -) goal -"),
        Some((ratio, case)) => {
            say(&format!(
                "ratio: {ratio:.2} (min - max -) goal -   of iroh's median, the least good: {case}"
            ));
        }
    }
}
