//! Replays one simulated world, or hunts through many.
//!
//! Exit code 0 when everything held; the last line is exactly `N worlds, M violations`.

use std::{
    io::{IsTerminal, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use bowline_sim::{
    plan::Plan,
    scenario::{Outcome, Recovery},
};
use clap::Parser;

/// Runs simulated worlds in which the real host and base machines meet.
#[derive(Debug, Parser)]
#[command(name = "bowline-sim", version)]
struct Args {
    /// Replay this world with its packet diagram.
    #[arg(long, conflicts_with = "runs")]
    seed: Option<u64>,
    /// Replay the world of a file that `--save` wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "runs"])]
    plan: Option<PathBuf>,
    /// Run as many worlds, each of its own seed.
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// The first seed of a hunt.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Hunt through seeds that nobody has seen: the first one follows from the time of day, and is printed.
    #[arg(long, conflicts_with = "from")]
    fresh: bool,
    /// Begin no more worlds after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
    /// Worlds at a time. Default: one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// In a replay: show the diagram from this second on only.
    #[arg(long, default_value_t = 0.0)]
    since: f64,
    /// In a replay: show the diagram up to this second only.
    #[arg(long)]
    until: Option<f64>,
    /// In a replay: leave out what the failure does not need.
    #[arg(long)]
    shrink: bool,
    /// In a replay: write the plan to this file, as data.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// How much of the diagram around the first violation a hunt shows.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(1);
/// How often a hunt says how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let plan = match (&args.plan, args.seed) {
        (Some(file), _) => Some(read(file)?),
        (None, Some(seed)) => Some(Plan::new(seed)),
        (None, None) => None,
    };
    let (worlds, violations) = match plan {
        Some(plan) => (1, replay(plan, &args)?),
        None => hunt(&args),
    };
    println!("{worlds} worlds, {violations} violations");
    Ok(if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(file: &Path) -> anyhow::Result<Plan> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} holds no plan", file.display()))
}

fn replay(plan: Plan, args: &Args) -> anyhow::Result<u64> {
    let plan = if args.shrink { plan.shrunk() } else { plan };
    if let Some(file) = &args.save {
        let text = serde_json::to_string_pretty(&plan)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let outcome = plan.run();
    let until = args.until.map_or(Duration::MAX, Duration::from_secs_f64);
    print!("{}{}", plan.describe(), outcome.world.trace.diagram(Duration::from_secs_f64(args.since), until));
    print!("{}", violations(&outcome));
    println!("after the last fault: {}", outcome.recovery);
    Ok(outcome.world.violations.len() as u64)
}

fn violations(outcome: &Outcome) -> String {
    let violations = outcome.world.violations.iter();
    violations.map(|v| format!("violation at {:.6}: {:?} {}\n", v.at.as_secs_f64(), v.node, v.what)).collect()
}

/// What a hunt has seen so far.
#[derive(Default)]
struct Seen {
    worlds: u64,
    violations: u64,
    failed: Vec<u64>,
    slowest: Recovery,
    shown: Option<Instant>,
}

/// Runs many worlds; how many, and how many violations there were.
fn hunt(args: &Args) -> (u64, u64) {
    let from = if args.fresh { fresh() } else { args.from };
    println!("seeds from {from} on");
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let seen = Mutex::new(Seen::default());
    let jobs = args.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let in_time = || args.within.is_none_or(|seconds| began.elapsed() < Duration::from_secs(seconds));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while in_time() {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= args.runs {
                        break;
                    }
                    one(from.wrapping_add(number), args.runs, began, &seen);
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !seen.failed.is_empty() {
        println!("failed seeds: {:?}", seen.failed);
    }
    println!("slowest after the last fault: {}", seen.slowest);
    (seen.worlds, seen.violations)
}

/// Runs a world; a failure is shown as small as it gets.
fn one(seed: u64, runs: u64, began: Instant, seen: &Mutex<Seen>) {
    let outcome = Plan::new(seed).run();
    let report = if outcome.held() { String::new() } else { failure(seed) };
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.worlds += 1;
    seen.slowest = seen.slowest.max(outcome.recovery);
    if !outcome.held() {
        seen.violations += outcome.world.violations.len() as u64;
        seen.failed.push(seed);
        print!("{report}");
    }
    progress(runs, began, &mut seen);
}

fn failure(seed: u64) -> String {
    let plan = Plan::new(seed).shrunk();
    let outcome = plan.run();
    let first = outcome.world.violations.first().map_or(Duration::ZERO, |violation| violation.at);
    let diagram = outcome.world.trace.diagram(first.saturating_sub(BEFORE), first + AFTER);
    format!("{}{diagram}{}seed {seed} fails\n\n", plan.describe(), violations(&outcome))
}

/// How far a hunt is, where somebody looks.
fn progress(runs: u64, began: Instant, seen: &mut Seen) {
    let mut err = std::io::stderr();
    let due = seen.shown.is_none_or(|at| at.elapsed() >= PROGRESS);
    if !err.is_terminal() || !(due || seen.worlds == runs) {
        return;
    }
    seen.shown = Some(Instant::now());
    let end = if seen.worlds == runs { "\n" } else { "" };
    let (worlds, failed, time) = (seen.worlds, seen.failed.len(), began.elapsed().as_secs());
    // Nobody is to be told when standard error is gone.
    let _ = write!(err, "\r{worlds} of {runs} worlds, {failed} failed, {time} s {end}");
    let _ = err.flush();
}

fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Hunts that begin within a second of each other do not share seeds, nor do longer ones on the next day.
    since.as_micros() as u64
}
