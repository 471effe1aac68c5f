//! The mutation check: breaks the machines on purpose, one way at a time, and tells which checks notice.
//!
//! What nothing notices is a hole in the tests. `mutant` holds the list and puts all of it into one private copy of the
//! workspace, `copy` makes and builds that, `check` runs the checks; here is what is asked for and the table. Results are
//! kept under `target/mutants` so that a run can be interrupted, or made of several.

mod check;
mod copy;
mod mutant;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use check::{Check, Checker};
use clap::{Parser, ValueEnum};
use mutant::Mutant;

/// Between these lines of the page the table stands.
const BEGIN: &str = "<!-- mutants: begin -->";
const END: &str = "<!-- mutants: end -->";
/// The longest remark in a cell of the table.
const CELL: usize = 110;

/// Breaks the machines on purpose and tells which checks notice.
#[derive(Debug, Parser)]
#[command(name = "bowline-mutants", version)]
struct Args {
    /// Only these mutants.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Only these checks.
    #[arg(long, value_enum, num_args = 1.., value_delimiter = ',')]
    checks: Vec<Check>,
    /// Random worlds for a mutant that nothing else has noticed.
    #[arg(long, default_value_t = 150)]
    worlds: u64,
    /// Random worlds for a mutant that something else has noticed.
    #[arg(long, default_value_t = 12)]
    worlds_if_caught: u64,
    /// Forget what earlier runs found; otherwise their results stand beside the new ones, and count.
    #[arg(long)]
    fresh: bool,
    /// Ask again what an earlier run has asked already.
    #[arg(long)]
    again: bool,
    /// Run nothing: show what earlier runs found.
    #[arg(long, conflicts_with_all = ["fresh", "again", "checks"])]
    table: bool,
    /// Put the table into docs/testing.md.
    #[arg(long)]
    write: bool,
}

/// What the checks said of a mutant, by the name of the check; `None`: it did not notice.
type Said = BTreeMap<String, Option<String>>;
/// By the mutant, with its text: another text is another mutant.
type Results = BTreeMap<String, Said>;

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let all = mutant::list()?;
    for name in &args.only {
        ensure!(all.iter().any(|mutant| mutant.name == *name), "there is no mutant {name:?}");
    }
    let asked = |mutant: &&Mutant| args.only.is_empty() || args.only.contains(&mutant.name);
    let mutants: Vec<&Mutant> = all.iter().filter(asked).collect();

    let mut store = Store::open(&workspace, args.fresh)?;
    if !args.table {
        run(&workspace, &all, &mutants, &args, &mut store)?;
    }

    let table = table(&all, &store.results, &args);
    print!("{table}");
    if args.write {
        write(&workspace.join("docs/testing.md"), &table)?;
    }
    let missed: Vec<&str> = mutants.iter().filter(|m| !store.is_caught(m)).map(|m| m.name.as_str()).collect();
    if missed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("nothing notices: {}", missed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn run(
    workspace: &Path,
    all: &[Mutant],
    mutants: &[&Mutant],
    args: &Args,
    store: &mut Store,
) -> anyhow::Result<()> {
    eprintln!("building one copy with {} mutants", all.len());
    let programs = copy::build(workspace, all)?;
    let checks = if args.checks.is_empty() { Check::value_variants() } else { &args.checks[..] };
    for &check in checks {
        if let Some(checker) = Checker::new(check, &programs, &workspace.join("target/mutants"))? {
            run_all(&checker, mutants, args, store)?;
        }
    }
    Ok(())
}

fn run_all(checker: &Checker<'_>, mutants: &[&Mutant], args: &Args, store: &mut Store) -> anyhow::Result<()> {
    let check = checker.check.name();
    for (i, mutant) in mutants.iter().enumerate() {
        if !args.again && store.said(mutant).contains_key(check) {
            continue;
        }
        let worlds = if store.is_caught(mutant) { args.worlds_if_caught } else { args.worlds };
        let began = Instant::now();
        let what = checker.notices(&mutant.name, if checker.check == Check::Random { worlds } else { 0 })?;
        let shown = what.as_deref().unwrap_or("–");
        let (of, time) = (mutants.len(), began.elapsed().as_secs());
        eprintln!("{check} {}/{of} {} ({time} s): {shown}", i + 1, mutant.name);
        store.keep(mutant, check, what)?;
    }
    Ok(())
}

/// What was found, on disk.
struct Store {
    file: PathBuf,
    results: Results,
}

impl Store {
    fn open(workspace: &Path, fresh: bool) -> anyhow::Result<Self> {
        let file = workspace.join("target/mutants/results.json");
        fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        let results = match fs::read(&file) {
            Ok(text) if !fresh => serde_json::from_slice(&text).context("results.json")?,
            _ => Results::new(),
        };
        Ok(Self { file, results })
    }

    fn said(&mut self, mutant: &Mutant) -> &mut Said {
        self.results.entry(key(mutant)).or_default()
    }

    fn is_caught(&self, mutant: &Mutant) -> bool {
        self.results.get(&key(mutant)).is_some_and(|said| said.values().any(Option::is_some))
    }

    fn keep(&mut self, mutant: &Mutant, check: &str, what: Option<String>) -> anyhow::Result<()> {
        self.said(mutant).insert(check.to_owned(), what);
        fs::write(&self.file, serde_json::to_vec_pretty(&self.results)?).context("results.json")
    }
}

fn key(mutant: &Mutant) -> String {
    format!("{}: {} => {}", mutant.name, mutant.from, mutant.to)
}

fn table(mutants: &[Mutant], results: &Results, args: &Args) -> String {
    let (few, many) = (args.worlds_if_caught, args.worlds);
    let mut table = format!(
        "| mutant | promise that it breaks (section: words) | caught by, each with the first test that fails or the first violation; `random`: {few} worlds, {many} where nothing else noticed |\n|---|---|---|\n"
    );
    let nothing = Said::new();
    let said_of = |mutant: &Mutant| results.get(&key(mutant)).unwrap_or(&nothing);
    let names = Check::value_variants().iter().map(|check| check.name());
    let asked_at_all: Vec<&str> =
        names.filter(|name| mutants.iter().any(|mutant| said_of(mutant).contains_key(*name))).collect();
    for mutant in mutants {
        let said = said_of(mutant);
        let caught: Vec<String> = Check::value_variants()
            .iter()
            .filter_map(|check| Some((check.name(), said.get(check.name())?.as_deref()?)))
            .map(|(check, what)| format!("**{check}** {}", cell(what)))
            .collect();
        let closed =
            mutant.closed_by.iter().map(|test| format!("no test noticed before: closed by `{test}`"));
        let mut cells: Vec<String> = caught.into_iter().chain(closed).collect();
        if cells.is_empty() {
            cells.push("**nothing**".to_owned());
        }
        let not_asked: Vec<&str> =
            asked_at_all.iter().copied().filter(|name| !said.contains_key(*name)).collect();
        if !not_asked.is_empty() {
            cells.push(format!("not asked: {}", not_asked.join(", ")));
        }
        table += &format!("| `{}` | {} | {} |\n", mutant.name, mutant.breaks, cells.join("<br>"));
    }
    table
}

/// Short enough for a table, and no table of its own.
fn cell(what: &str) -> String {
    let short: String = what.chars().take(CELL).collect();
    let more = if short.len() < what.len() { "…" } else { "" };
    format!("{}{more}", short.replace('|', "/"))
}

fn write(page: &Path, table: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(page)?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{BEGIN} is missing"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{END} is missing"))?;
    fs::write(page, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}
