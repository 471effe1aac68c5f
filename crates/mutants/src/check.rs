//! The checks: programs of the copy, run with one mutant on, and what they say.
//!
//! A program that does not end in its time has noticed, too: a machine that spins is a failure.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::{copy::Program, mutant::VARIABLE};

/// The least time a program gets, and how many times what it takes when nothing is broken: other work may share the machine.
const PATIENCE: (Duration, u32) = (Duration::from_secs(60), 8);
/// Random worlds that are run with nothing broken.
const TRIAL_WORLDS: u64 = 3;
/// How often it is looked whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What might notice a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Check {
    /// The tests of the machines, byte by byte (`crates/proto`).
    Machines,
    /// Directed worlds, and those that once failed (`crates/sim/tests`).
    Worlds,
    /// The committed inputs of the fuzzers.
    Fuzz,
    /// The machines against a model of them (`crates/model`), where it is there.
    Model,
    /// Random worlds.
    Random,
}

impl Check {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Machines => "machines",
            Self::Worlds => "worlds",
            Self::Fuzz => "fuzz",
            Self::Model => "model",
            Self::Random => "random",
        }
    }

    fn has(self, program: &Program) -> bool {
        let package = match self {
            Self::Machines => "proto",
            Self::Worlds | Self::Random => "sim",
            Self::Fuzz => "fuzzing",
            Self::Model => "model",
        };
        program.package == package && program.example == (self == Self::Random)
    }
}

/// A check's programs, and how long they may take.
#[derive(Debug)]
pub(crate) struct Checker<'a> {
    /// Which.
    pub(crate) check: Check,
    programs: Vec<(&'a Program, Duration)>,
    log: std::path::PathBuf,
}

impl<'a> Checker<'a> {
    /// Runs the check with nothing broken: it has to pass, and says how long it takes. `None` where there is no such check.
    ///
    /// # Errors
    /// When it does not pass.
    pub(crate) fn new(check: Check, programs: &'a [Program], folder: &Path) -> anyhow::Result<Option<Self>> {
        let programs: Vec<&Program> = programs.iter().filter(|program| check.has(program)).collect();
        let log = folder.join("output.txt");
        let mut timed = Vec::new();
        for program in programs {
            let began = Instant::now();
            let worlds = if check == Check::Random { TRIAL_WORLDS } else { 0 };
            if let Some(what) = run(program, None, worlds, Duration::from_secs(600), &log)? {
                anyhow::bail!("{} fails with nothing broken: {what}", check.name());
            }
            timed.push((program, PATIENCE.0.max(began.elapsed() * PATIENCE.1)));
        }
        Ok((!timed.is_empty()).then_some(Self { check, programs: timed, log }))
    }

    /// What the check says first with this mutant on, if it notices.
    ///
    /// # Errors
    /// When a program cannot be run.
    pub(crate) fn notices(&self, mutant: &str, worlds: u64) -> anyhow::Result<Option<String>> {
        for &(program, limit) in &self.programs {
            let limit = limit.max(limit / TRIAL_WORLDS as u32 * worlds as u32);
            if let Some(what) = run(program, Some(mutant), worlds, limit, &self.log)? {
                return Ok(Some(what));
            }
        }
        Ok(None)
    }
}

fn run(
    program: &Program,
    mutant: Option<&str>,
    worlds: u64,
    limit: Duration,
    log: &Path,
) -> anyhow::Result<Option<String>> {
    let output = File::create(log)?;
    let mut command = Command::new(&program.path);
    command.current_dir(&program.folder).env_remove(VARIABLE);
    command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
    // Generated tests give no seeds away to the folder of sources.
    command.env("PROPTEST_FAILURE_PERSISTENCE", "off");
    if let Some(mutant) = mutant {
        command.env(VARIABLE, mutant);
    }
    if program.example {
        command.arg(worlds.to_string());
    }
    let mut child = command.spawn().with_context(|| program.path.display().to_string())?;
    let until = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(Some(format!("{} does not end", program.target)));
        }
        thread::sleep(LOOK_EVERY);
    };
    let said = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    if status.success() {
        // A program that does nothing passes, too.
        let proof = if program.example { " worlds held" } else { "test result: ok" };
        anyhow::ensure!(said.contains(proof), "{} has run nothing", program.path.display());
        return Ok(None);
    }
    Ok(Some(first_failure(program, &said)))
}

/// The first test that failed, or the sentence of a violation.
fn first_failure(program: &Program, said: &str) -> String {
    if program.example {
        let word = |word: &str| said.lines().find(|line| line.contains(word)).map(str::to_owned);
        return word("seed ")
            .or_else(|| word("panicked"))
            .unwrap_or_else(|| "it ends without a word".to_owned());
    }
    let failed =
        said.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).next();
    match failed {
        Some(test) => format!("{}: {}", program.target, test.rsplit("::").next().unwrap_or(test)),
        None => format!("{} does not run to its end", program.target),
    }
}
