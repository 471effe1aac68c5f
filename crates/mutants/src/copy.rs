//! The private copy of the workspace under `target/mutants`, and its build.
//!
//! Tracked files only; those that did not change keep their time stamp, so that cargo builds anew no more than it has to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::mutant::{self, Mutant};

/// How the copy is built: optimised, since worlds are long, but with overflow checks and assertions.
const PROFILE: &str = "
[profile.mutants]
inherits = \"dev\"
opt-level = 2
debug = false
incremental = true
";
/// The crates that the checks need.
const PACKAGES: [&str; 4] = ["bowline-proto", "bowline-sim", "bowline-fuzzing", "bowline-model"];

/// A program of the copy that a check runs.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The package it belongs to.
    pub(crate) package: String,
    /// The target: a file in `tests`, the library's own tests, or an example.
    pub(crate) target: String,
    /// Whether it is an example.
    pub(crate) example: bool,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Where it expects to be run.
    pub(crate) folder: PathBuf,
}

/// Copies the workspace, plants the mutants, and builds the checks.
pub(crate) fn build(workspace: &Path, mutants: &[Mutant]) -> anyhow::Result<Vec<Program>> {
    let folder = workspace.join("target/mutants");
    let fresh = folder.join("fresh");
    let copy = folder.join("workspace");
    let _ = fs::remove_dir_all(&fresh);
    copy_tracked(workspace, &fresh)?;
    let manifest = fresh.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    fs::write(&manifest, text + PROFILE)?;
    mutant::plant(mutants, &fresh)?;
    update(&fresh, &copy)?;
    compile(&copy, &folder.join("target"))
}

fn copy_tracked(workspace: &Path, to: &Path) -> anyhow::Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace)
        .output()
        .context("git ls-files")?;
    ensure!(listed.status.success(), "git ls-files failed");
    for file in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (from, to) = (workspace.join(file), to.join(file));
        if !from.is_file() {
            continue; // Deleted, not yet committed.
        }
        fs::create_dir_all(to.parent().context("a file without a folder")?)?;
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

/// Makes `to` what `from` is, and leaves files alone that are so already.
fn update(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let gone = !from.join(entry.file_name()).exists();
        if gone && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if gone && entry.file_name() != "Cargo.lock" {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(from)? {
        let (from, to) = (entry?.path(), to.to_owned());
        let to = to.join(from.file_name().context("a file without a name")?);
        if from.is_dir() {
            update(&from, &to)?;
        } else if fs::read(&from)? != fs::read(&to).unwrap_or_default() || !to.exists() {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

fn compile(copy: &Path, target: &Path) -> anyhow::Result<Vec<Program>> {
    let here = |package: &&str| copy.join("crates").join(package.trim_start_matches("bowline-")).is_dir();
    let mut tests = vec!["test", "--no-run", "--lib", "--tests"];
    tests.extend(PACKAGES.iter().copied().filter(here).flat_map(|package| ["-p", package]));
    // By `build`, not by `test`: that would make a program of tests of it, which has none, and passes.
    let worlds = ["build", "-p", "bowline-sim", "--example", "first_violation"];
    let mut programs = cargo(copy, target, &tests)?;
    programs.extend(cargo(copy, target, &worlds)?);
    programs.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(programs)
}

fn cargo(copy: &Path, target: &Path, arguments: &[&str]) -> anyhow::Result<Vec<Program>> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .args(["--profile", "mutants", "--message-format", "json-render-diagnostics"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo")?;
    ensure!(built.status.success(), "some mutant does not build: the compiler names it above");
    let messages = String::from_utf8(built.stdout)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages.filter_map(|message| program(&message)).collect())
}

fn program(message: &Value) -> Option<Program> {
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let example = message["target"]["kind"][0] == "example";
    // The programs of a crate are built along with its tests, and are none.
    (example || message["profile"]["test"] == true).then_some(())?;
    Some(Program {
        package: folder.file_name()?.to_str()?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        example,
        path: message["executable"].as_str()?.into(),
        folder,
    })
}
