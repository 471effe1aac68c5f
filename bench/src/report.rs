//! What a benchmark found: rows, each a figure, its reference of the same run, their ratio and its goal.
//!
//! Figures of one machine vary by a fifth between runs and by half between hours, so nothing is compared across runs: ours and the reference
//! alternate (A B A B), each pair gives one ratio, and a row shows the median of the ratios with the least and the largest.

use std::{fs, path::PathBuf};

use serde::Serialize;

use crate::say;

/// How a benchmark is to be run.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) json: bool,
    /// End within 50 seconds.
    pub(crate) quick: bool,
    /// A folder of this run's own.
    pub(crate) folder: PathBuf,
}

/// What a row's ratio (or, without a reference, its figure) should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Shown for what it tells; nothing is asked of it.
    None,
}

impl Goal {
    fn value(self) -> Option<f64> {
        match self {
            Self::AtLeast(x) | Self::AtMost(x) => Some(x),
            Self::None => None,
        }
    }

    fn met(self, x: f64) -> Option<bool> {
        match self {
            Self::AtLeast(goal) => Some(x >= goal),
            Self::AtMost(goal) => Some(x <= goal),
            Self::None => None,
        }
    }

    /// How far a value is on the good side of the goal; under 1 it is missed.
    fn margin(self, x: f64) -> f64 {
        match self {
            Self::AtLeast(goal) => x / goal,
            Self::AtMost(goal) => goal / x,
            Self::None => f64::INFINITY,
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    case: String,
    figure: Option<f64>,
    unit: String,
    reference: Option<f64>,
    ratio: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    goal: Option<f64>,
    met: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip)]
    margin: f64,
}

/// All rows of a benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    machine: String,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, machine: machine(), rows: Vec::new() }
    }

    /// A row of pairs (ours, reference) that were measured in turn. The figures are the medians.
    pub(crate) fn pairs(&mut self, case: &str, unit: &str, pairs: &[(f64, f64)], goal: Goal) {
        let ratios: Vec<f64> = pairs.iter().map(|(ours, reference)| ours / reference).collect();
        let (min, ratio, max) = spread(&ratios);
        self.rows.push(Row {
            case: case.to_owned(),
            figure: Some(spread(&pairs.iter().map(|p| p.0).collect::<Vec<_>>()).1),
            unit: unit.to_owned(),
            reference: Some(spread(&pairs.iter().map(|p| p.1).collect::<Vec<_>>()).1),
            ratio: Some(ratio),
            min: Some(min),
            max: Some(max),
            goal: goal.value(),
            met: goal.met(ratio),
            why: None,
            margin: goal.margin(ratio),
        });
    }

    /// A row without a reference: the goal speaks of the figure itself.
    pub(crate) fn figures(&mut self, case: &str, unit: &str, figures: &[f64], goal: Goal) {
        let (min, figure, max) = spread(figures);
        self.rows.push(Row {
            case: case.to_owned(),
            figure: Some(figure),
            unit: unit.to_owned(),
            reference: None,
            ratio: None,
            min: Some(min),
            max: Some(max),
            goal: goal.value(),
            met: goal.met(figure),
            why: None,
            margin: goal.margin(figure),
        });
    }

    /// A row that could not be measured.
    pub(crate) fn missing(&mut self, case: &str, unit: &str, goal: Goal, why: &str) {
        self.rows.push(Row {
            case: case.to_owned(),
            figure: None,
            unit: unit.to_owned(),
            reference: None,
            ratio: None,
            min: None,
            max: None,
            goal: goal.value(),
            met: None,
            why: Some(why.to_owned()),
            margin: f64::INFINITY,
        });
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            say(&serde_json::to_string(self).expect("rows are plain values"));
            return;
        }
        say(&format!("{} on {}", self.name, self.machine));
        say(&format!(
            "{:44} {:>10} {:>10} {:>7} {:>7} {:>7} {:>6}  {}",
            "case", "figure", "reference", "ratio", "min", "max", "goal", "unit"
        ));
        for row in &self.rows {
            let met = match (row.met, &row.why) {
                (Some(true), _) => "met".to_owned(),
                (Some(false), _) => "MISSED".to_owned(),
                (None, Some(why)) => format!("not measured: {why}"),
                (None, None) => String::new(),
            };
            say(&format!(
                "{:44} {:>10} {:>10} {:>7} {:>7} {:>7} {:>6}  {} {met}",
                row.case,
                short(row.figure),
                short(row.reference),
                short(row.ratio),
                short(row.min),
                short(row.max),
                short(row.goal),
                row.unit
            ));
        }
        let worst = self.rows.iter().filter(|row| row.met.is_some());
        match worst.min_by(|a, b| a.margin.total_cmp(&b.margin)) {
            Some(row) => say(&format!(
                "ratio: {} (min {} max {}) goal {}",
                short(row.ratio.or(row.figure)),
                short(row.min),
                short(row.max),
                short(row.goal)
            )),
            None => say("ratio: - (min - max -) goal -"),
        }
    }
}

/// Measures ours and the reference in turn.
pub(crate) fn in_turn<T>(
    rounds: usize,
    mut ours: impl FnMut() -> T,
    mut reference: impl FnMut() -> T,
) -> Vec<(T, T)> {
    (0..rounds).map(|_| (ours(), reference())).collect()
}

/// Least, median, largest.
pub(crate) fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted[..] {
        [] => (f64::NAN, f64::NAN, f64::NAN),
        [first, .., last] => {
            // Of an even number there are two in the middle.
            let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
            (first, f64::midpoint(low, high), last)
        }
        [only] => (only, only, only),
    }
}

fn short(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(x) if x.abs() >= 1_000.0 => format!("{x:.0}"),
        Some(x) if x.abs() >= 100.0 => format!("{x:.1}"),
        Some(x) => format!("{x:.3}"),
    }
}

/// What it runs on, in words.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    // What TCP does depends on it: some pace what they send by timers.
    let congestion = read("/proc/sys/net/ipv4/tcp_congestion_control");
    let model = model.unwrap_or("?").trim();
    format!("{model} ({cores} cores), Linux {}, TCP {}", kernel.trim(), congestion.trim())
}
