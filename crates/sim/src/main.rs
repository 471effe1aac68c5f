//! Replays one simulated world, or hunts through many.
//!
//! Exit code 0 when everything held; the last line is exactly `N worlds, M violations`.

use std::{process::ExitCode, time::Duration};

use bowline_sim::scenario::Plan;
use clap::Parser;

/// Runs simulated worlds in which the real host and base machines meet.
#[derive(Debug, Parser)]
#[command(name = "bowline-sim", version)]
struct Args {
    /// Replay this world with its packet diagram.
    #[arg(long, conflicts_with = "runs")]
    seed: Option<u64>,
    /// Run as many worlds.
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// The first seed of a hunt.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// In a replay: show the diagram from this second on only.
    #[arg(long, default_value_t = 0.0)]
    since: f64,
    /// In a replay: show the diagram up to this second only.
    #[arg(long)]
    until: Option<f64>,
    /// In a replay: leave out the faults that the failure does not need.
    #[arg(long)]
    shrink: bool,
}

/// How much of the diagram before a violation a hunt shows.
const BEFORE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args = Args::parse();
    let (worlds, failed) = match args.seed {
        Some(seed) => (1, replay(seed, &args)),
        None => (args.runs, (args.from..args.from.saturating_add(args.runs)).map(hunt).sum()),
    };
    println!("{worlds} worlds, {failed} violations");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64, args: &Args) -> u64 {
    let plan = Plan::new(seed);
    let plan = if args.shrink { plan.shrunk() } else { plan };
    print!("{}", plan.describe());
    let world = plan.run().world;
    let until = args.until.map_or(Duration::MAX, Duration::from_secs_f64);
    print!("{}", world.trace.diagram(Duration::from_secs_f64(args.since), until));
    for violation in &world.violations {
        println!("violation at {:.6}: {:?} {}", violation.at.as_secs_f64(), violation.node, violation.what);
    }
    world.violations.len() as u64
}

/// Runs a world; a failure is shown as small as it gets.
fn hunt(seed: u64) -> u64 {
    let plan = Plan::new(seed);
    let failed = plan.run().world.violations.len() as u64;
    if failed > 0 {
        let plan = plan.shrunk();
        let world = plan.run().world;
        print!("{}", plan.describe());
        if let Some(first) = world.violations.first() {
            print!("{}", world.trace.diagram(first.at.saturating_sub(BEFORE), first.at));
        }
        for violation in &world.violations {
            println!(
                "violation at {:.6}: {:?} {}",
                violation.at.as_secs_f64(),
                violation.node,
                violation.what
            );
        }
        println!("seed {seed} fails\n");
    }
    failed
}
