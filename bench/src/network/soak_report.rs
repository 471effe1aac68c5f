//! What `bench/run soak` prints.

use std::time::Duration;

use bowline_lab::Refusal;
use serde_json::Value;

use super::{
    crew::{self, Job},
    table::{Row, Table},
};
use crate::say;

/// What is asked for where nobody says otherwise.
const MINUTES: f64 = 30.0;
/// Building the world, and looking at what was found.
const MARGIN: Duration = Duration::from_secs(120);

/// `soak [--minutes N] [--seed N] [--json]`; `None` for wrong words.
pub(crate) fn run(options: &[&str]) -> Option<Result<(), Refusal>> {
    let value = |name: &str| {
        let at = options.iter().position(|option| *option == name)?;
        options.get(at + 1)
    };
    let minutes = value("--minutes").map_or(Some(MINUTES), |text| text.parse().ok())?;
    let fresh = || u64::from(getrandom::u32().unwrap_or(1)) | 1;
    let seed = value("--seed").map_or_else(|| Some(fresh()), |text| text.parse().ok())?;
    let words = ["soak".to_owned(), minutes.to_string(), seed.to_string()];
    let mut found = None;
    let within = Duration::from_secs_f64(minutes * 60.0) + MARGIN;
    let done = crew::run(vec![Job { of: (), words: words.to_vec() }], 1, within, |(), line| {
        found = Some(line.clone());
    });
    Some(done.and_then(|()| {
        let found = found.ok_or_else(|| Refusal("the world did not come to its end".to_owned()))?;
        if options.contains(&"--json") {
            json(&found);
        } else {
            print(&found, seed);
        }
        Ok(())
    }))
}

fn print(found: &Value, seed: u64) {
    say(&format!(
        "{} s, {} messages received, seed {seed}; most peers and pairs that a device held state for: {}",
        found["seconds"], found["received"], found["most_peers_and_pairs"]
    ));
    say(&format!(
        "the machine itself stood still for {:.1} s in all, which explains {} gaps",
        found["machine_stood_still_s"].as_f64().unwrap_or_default(),
        found["gaps_by_the_machine"]
    ));
    for fault in found["faults"].as_array().into_iter().flatten() {
        say(&format!(
            "{:32} {:>4} times, {:>4} gaps over 500 ms, the longest {:>8.0} ms",
            fault["fault"].as_str().unwrap_or_default(),
            fault["count"],
            fault["gaps"],
            fault["longest_ms"].as_f64().unwrap_or_default()
        ));
    }
    for size in found["sizes"].as_array().into_iter().flatten() {
        say(&format!(
            "{:24} KiB and descriptors: at first {}, warm {}, at the end {}",
            size["process"].as_str().unwrap_or_default(),
            size["first"],
            size["warm"],
            size["last"]
        ));
    }
    for (name, what) in ISSUES {
        let all = found[name].as_array().map_or(&[][..], Vec::as_slice);
        say(&format!("{what}: {}", all.len()));
        all.iter().for_each(|one| say(&format!("  {one}")));
    }
    let bad: usize = ISSUES.iter().map(|(name, _)| count(found, name)).sum();
    say(&format!(
        "ratio: {bad} (min {bad} max {bad}) goal 0   gaps without a cause, processes that grew, complaints"
    ));
}

/// What must not be found.
const ISSUES: [(&str, &str); 3] = [
    ("unexplained", "gaps without a cause"),
    ("grown", "processes that grew"),
    ("complaints", "panics and errors logged"),
];

fn count(found: &Value, name: &str) -> usize {
    found[name].as_array().map_or(0, Vec::len)
}

fn json(found: &Value) {
    let mut table = Table::new("soak");
    for (name, what) in ISSUES {
        let figure = count(found, name);
        let mut more = serde_json::Map::new();
        more.insert("seconds".into(), found["seconds"].clone());
        more.insert("found".into(), found[name].clone());
        table.add(Row {
            case: what.to_owned(),
            unit: "times",
            figure: Some(figure as f64),
            goal: Some(0.0),
            met: Some(figure == 0),
            more,
            ..Row::default()
        });
    }
    table.print_json();
}
