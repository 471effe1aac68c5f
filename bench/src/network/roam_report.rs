//! What `bench/run roam` prints: a line a case for people, or a row for every figure.

use std::time::Duration;

use bowline_lab::Refusal;
use serde_json::{Map, Value};

use super::{
    crew::{self, Job},
    pair::{IROH_BIN, Stack},
    roam::{CASES, Case, Event},
    table::{Row, Table, percentile, shown},
};
use crate::say;

/// How much is done.
struct Effort {
    /// Runs of a case, and in how many worlds they are shared out: bowline's, and iroh's.
    runs: [(u64, u64); 2],
    /// The same for cases that need long: sessions must be old, devices sleep.
    long_runs: [(u64, u64); 2],
    /// How long a device sleeps, s.
    suspended: u64,
    at_once: usize,
    within: Duration,
}

const QUICK: Effort = Effort {
    runs: [(8, 2), (4, 1)],
    long_runs: [(2, 1), (1, 1)],
    suspended: 20,
    at_once: 40,
    within: Duration::from_secs(46),
};
const FULL: Effort = Effort {
    runs: [(100, 5), (40, 4)],
    long_runs: [(100, 10), (40, 8)],
    suspended: 60,
    at_once: 24,
    within: Duration::from_secs(5400),
};
/// What the case asks for.
const SUSPENDED: u64 = 60;

/// All runs of a case with one stack.
#[derive(Debug, Default)]
struct Runs {
    gaps: Vec<f64>,
    lost: Vec<f64>,
    doubled: Vec<f64>,
    /// Runs in which messages did not come back before the watch was over.
    not_back: usize,
    /// Runs that could not be made, and why.
    unmade: Vec<String>,
}

pub(crate) fn run(json: bool, quick: bool) -> Result<(), Refusal> {
    let effort = if quick { QUICK } else { FULL };
    let mut all: Vec<[Runs; 2]> = CASES.iter().map(|_| Default::default()).collect();
    crew::run(jobs(&effort), effort.at_once, effort.within, |&(case, stack), line| {
        all[case][stack as usize].add(line);
    })?;
    if json {
        let mut table = Table::new("roam");
        for (case, runs) in CASES.iter().zip(&all) {
            rows(case, runs, &effort).into_iter().for_each(|row| table.add(row));
        }
        table.print_json();
    } else {
        print(&all, &effort);
    }
    Ok(())
}

/// The worlds, those that take longest first.
fn jobs(effort: &Effort) -> Vec<Job<(usize, Stack)>> {
    let only = std::env::var("BENCH_ONLY").ok(); // for whoever looks into one case
    let mut jobs = Vec::new();
    for (at, case) in CASES.iter().enumerate().rev() {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|key| key == case.key)) {
            continue;
        }
        for stack in [Stack::Bowline, Stack::Iroh] {
            if stack == Stack::Iroh && std::env::var_os(IROH_BIN).is_none() {
                continue;
            }
            let long = matches!(case.event, Event::BaseKilled | Event::BaseStops | Event::Suspended);
            let (runs, worlds) = if long { effort.long_runs } else { effort.runs }[stack as usize];
            for world in 0..worlds {
                let (first, next) = (runs * world / worlds, runs * (world + 1) / worlds);
                let numbers = [next - first, first, effort.suspended].map(|number| number.to_string());
                let names = ["roam", case.key, stack.name()].map(str::to_owned);
                jobs.push(Job { of: (at, stack), words: [&names[..], &numbers[..]].concat() });
            }
        }
    }
    jobs
}

impl Runs {
    fn add(&mut self, line: &Value) {
        if let Some(why) = line["why"].as_str() {
            return self.unmade.push(why.to_owned());
        }
        self.gaps.extend(line["gap_ms"].as_f64());
        self.lost.extend(line["lost"].as_f64());
        self.doubled.extend(line["doubled"].as_f64());
        self.not_back += usize::from(line["back"] == false);
    }

    fn percentile(&self, percent: f64) -> Option<f64> {
        Some(percentile(&self.gaps, percent)).filter(|value| value.is_finite())
    }

    fn mean(values: &[f64]) -> Option<f64> {
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// What else is to be said.
    fn remark(&self, case: &Case, effort: &Effort) -> Option<String> {
        let mut remarks = Vec::new();
        if case.event == Event::Suspended && effort.suspended != SUSPENDED {
            remarks.push(format!("suspended for {} s", effort.suspended));
        }
        if self.not_back > 0 {
            remarks.push(format!("not back while watched in {} of {}", self.not_back, self.gaps.len()));
        }
        if let Some(why) = self.unmade.first() {
            remarks.push(format!("{} runs could not be made: {why}", self.unmade.len()));
        }
        if self.gaps.is_empty() {
            remarks.push("no run was done before the time was over".to_owned());
        }
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }
}

fn rows(case: &Case, [ours, theirs]: &[Runs; 2], effort: &Effort) -> Vec<Row> {
    let min = ours.gaps.iter().copied().reduce(f64::min);
    let max = ours.gaps.iter().copied().reduce(f64::max);
    let mut more = Map::new();
    more.insert("runs".into(), ours.gaps.len().into());
    more.insert("reference_runs".into(), theirs.gaps.len().into());
    more.insert("reference_not_back".into(), theirs.not_back.into());
    let mut rows = Vec::new();
    for (name, percent, goal) in [("p50", 50.0, case.goals.0), ("p99", 99.0, case.goals.1)] {
        let figure = ours.percentile(percent);
        rows.push(Row {
            case: format!("{}, {name}", case.name),
            unit: "ms without a message",
            figure,
            reference: theirs.percentile(percent),
            min,
            max,
            goal: Some(goal),
            met: figure.map(|figure| figure <= goal && ours.not_back == 0),
            why: ours.remark(case, effort),
            more: more.clone(),
        });
    }
    for (name, of) in [("lost", [&ours.lost, &theirs.lost]), ("doubled", [&ours.doubled, &theirs.doubled])] {
        rows.push(Row {
            case: format!("{}, {name}", case.name),
            unit: "messages a run",
            figure: Runs::mean(of[0]),
            reference: Runs::mean(of[1]),
            min: of[0].iter().copied().reduce(f64::min),
            max: of[0].iter().copied().reduce(f64::max),
            why: ours.gaps.is_empty().then(|| "no run was done before the time was over".to_owned()),
            more: more.clone(),
            ..Row::default()
        });
    }
    rows
}

fn print(all: &[[Runs; 2]], effort: &Effort) {
    say(
        "Longest time without a message, ms; 50 messages a second each way, 20 ms one way between hosts, NATs between.",
    );
    say("");
    say(&format!(
        "{:46} {:>4} {:>6} {:>6} {:>6} {:>11} {:>6} {:>6} {:>4} {:>6} {:>6} {:>6} {:>6} {:>6}",
        "case",
        "runs",
        "p50",
        "p99",
        "max",
        "goal",
        "lost",
        "twice",
        "iroh",
        "p50",
        "p99",
        "max",
        "lost",
        "twice"
    ));
    let mut worst: Option<(f64, &Case, &Runs)> = None;
    for (case, [ours, theirs]) in CASES.iter().zip(all) {
        let figures = |runs: &Runs| {
            [50.0, 99.0, 100.0].map(|percent| format!("{:>6}", shown(runs.percentile(percent)))).join(" ")
        };
        let means = |runs: &Runs| {
            [&runs.lost, &runs.doubled].map(|values| format!("{:>6}", shown(Runs::mean(values)))).join(" ")
        };
        let (half, most) = case.goals;
        let met = match ours.percentile(50.0).zip(ours.percentile(99.0)) {
            None => "",
            Some((p50, p99)) if p50 <= half && p99 <= most && ours.not_back == 0 => "met",
            Some(_) => "MISSED",
        };
        say(&format!(
            "{:46} {:>4} {} {:>11} {} {:>4} {} {}  {met}",
            case.name,
            ours.gaps.len(),
            figures(ours),
            format!("{half:.0}/{most:.0}"),
            means(ours),
            theirs.gaps.len(),
            figures(theirs),
            means(theirs),
        ));
        for (runs, who) in [(ours, ""), (theirs, "iroh: ")] {
            if let Some(remark) = runs.remark(case, effort) {
                say(&format!("{:46}      {who}{remark}", ""));
            }
        }
        if let Some(p50) = ours.percentile(50.0) {
            let share = p50 / half;
            if worst.is_none_or(|(known, ..)| share > known) {
                worst = Some((share, case, ours));
            }
        }
    }
    match worst {
        None => say("ratio: - (min - max -) goal -"),
        Some((_, case, runs)) => say(&format!(
            "ratio: {} (min {} max {}) goal {}   ms, the case nearest to its goal: {}",
            shown(runs.percentile(50.0)),
            shown(runs.gaps.iter().copied().reduce(f64::min)),
            shown(runs.percentile(100.0)),
            case.goals.0,
            case.name
        )),
    }
}
