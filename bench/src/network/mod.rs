//! Benchmarks over real kernels with NATs between: `nat-matrix`, `meet`, `roam` and `soak`.
//!
//! What is measured runs as processes of its own ([`device`]), and is judged by what they say on standard output ([`log`]). Worlds that do
//! not disturb each other run at once: each is this program again in namespaces of its own ([`crew`]), which prints a line of JSON a run.

mod crew;
mod device;
mod kinds;
mod log;
mod matrix;
mod matrix_report;
mod meet;
mod meet_report;
mod pair;
mod roam;
mod roam_report;
mod soak;
mod soak_report;
mod table;
mod witness;

use std::{process::ExitCode, time::Duration};

use bowline_lab::{Lab, Refusal};

/// Their names, and what they measure.
pub(crate) const BENCHMARKS: [(&str, &str); 4] = [
    ("nat-matrix", "every pair of NATs: data at once, direct where it can be, how soon"),
    ("meet", "how soon two devices hear from each other, and how soon directly, beside iroh"),
    ("roam", "how long messages fail to come when networks change, beside iroh"),
    (
        "soak",
        "[--minutes N] [--seed N]: random roaming, reboots and restarts under load; nothing leaks, every gap has a cause",
    ),
];

/// Commands that belong here; `None` for others.
pub(crate) fn main(words: &[&str]) -> Option<ExitCode> {
    if let ["inside", "roam" | "nat-matrix" | "meet" | "soak", ..] = words {
        return Some(inside(words).map_or(ExitCode::from(2), |()| ExitCode::SUCCESS));
    }
    let (&name, options) = words.split_first()?;
    if name == "device" {
        return Some(device::main(options));
    }
    if name == "soak" {
        return soak_report::run(options).map(finish);
    }
    if !BENCHMARKS.iter().any(|(known, _)| *known == name)
        || !options.iter().all(|option| ["--json", "--quick"].contains(option))
    {
        return None;
    }
    let (json, quick) = (options.contains(&"--json"), options.contains(&"--quick"));
    let done = match name {
        "nat-matrix" => matrix_report::run(json, quick),
        "meet" => meet_report::run(json, quick),
        _ => roam_report::run(json, quick),
    };
    Some(finish(done))
}

fn finish(done: Result<(), Refusal>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// A world of [`crew`]'s.
fn inside(words: &[&str]) -> Option<()> {
    let lab = Lab::inside()?;
    match *words {
        [_, "roam", case, stack, runs, first, suspended] => {
            let case = roam::CASES.iter().find(|known| known.key == case)?;
            let suspended = Duration::from_secs(suspended.parse().ok()?);
            roam::inside(
                &lab,
                case,
                pair::Stack::parse(stack)?,
                runs.parse().ok()?,
                first.parse().ok()?,
                suspended,
            );
        }
        [_, "meet", case, stack, runs, first] => {
            let case = meet::CASES.iter().find(|known| known.key == case)?;
            meet::inside(&lab, case, pair::Stack::parse(stack)?, runs.parse().ok()?, first.parse().ok()?);
        }
        [_, "soak", minutes, seed] => soak::inside(&lab, minutes.parse().ok()?, seed.parse().ok()?),
        [_, "nat-matrix", rounds, watch, at_once] => {
            let watch = Duration::from_secs(watch.parse().ok()?);
            matrix::inside(&lab, rounds.parse().ok()?, watch, at_once.parse().ok()?);
        }
        _ => return None,
    }
    Some(())
}
