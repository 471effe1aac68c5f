//! The list of mutants, and how all of them are put into one copy of the machines.
//!
//! Every mutant stands in the source behind a switch (`if crate::mutant("name") { to } else { from }`), so that one build
//! serves them all; which one is on is said by an environment variable when a check runs. That asks of `from` and `to` to
//! be expressions or whole statements of the same type. Nothing is run here.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

/// The environment variable that names the mutant that is on.
pub(crate) const VARIABLE: &str = "BOWLINE_MUTANT";
/// Where the machines are, from the workspace.
pub(crate) const SOURCE: &str = "crates/proto/src";

/// What is added to the crate of the machines.
const SWITCH: &str = r#"
/// Whether this mutant is on.
pub fn mutant(name: &str) -> bool {
    static ON: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("BOWLINE_MUTANT").ok());
    ON.as_deref() == Some(name)
}
"#;

/// One way to break the machines.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// Its name, a few words with dashes.
    pub(crate) name: String,
    /// Sections of the protocol, and the promise that it breaks.
    pub(crate) breaks: String,
    /// The file, from [`SOURCE`].
    pub(crate) file: String,
    /// What is there: occurs once.
    pub(crate) from: String,
    /// What stands there instead.
    pub(crate) to: String,
    /// The test that was written because nothing noticed.
    pub(crate) closed_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// The committed list.
pub(crate) fn list() -> anyhow::Result<Vec<Mutant>> {
    let list: List = toml::from_str(include_str!("../mutants.toml")).context("mutants.toml")?;
    Ok(list.mutant)
}

/// Puts every mutant into the copy of the workspace at `root`, each behind its switch.
pub(crate) fn plant(mutants: &[Mutant], root: &Path) -> anyhow::Result<()> {
    let source = root.join(SOURCE);
    let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        files.entry(&mutant.file).or_default().push(mutant);
    }
    for (file, mutants) in files {
        let path = source.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        write_changed(&path, &switched(&text, &mutants)?)?;
    }
    let lib = source.join("lib.rs");
    let text = fs::read_to_string(&lib).with_context(|| lib.display().to_string())?;
    // Code behind a switch is odd code: of no interest here.
    write_changed(&lib, &format!("#![allow(warnings)]\n{text}{SWITCH}"))
}

fn write_changed(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// A file with its mutants in it.
fn switched(text: &str, mutants: &[&Mutant]) -> anyhow::Result<String> {
    let mut places = Vec::new();
    for mutant in mutants {
        let found: Vec<usize> = text.match_indices(&mutant.from).map(|(at, _)| at).collect();
        let [at] = found[..] else {
            bail!("{}: `from` occurs {} times in {}, not once", mutant.name, found.len(), mutant.file);
        };
        places.push((at, mutant));
    }
    places.sort_by_key(|place| place.0);
    let (mut out, mut end) = (String::new(), 0);
    for (at, mutant) in places {
        ensure!(at >= end, "{} overlaps another mutant in {}", mutant.name, mutant.file);
        out.push_str(&text[end..at]);
        out.push_str(&switch(mutant));
        end = at + mutant.from.len();
    }
    out.push_str(&text[end..]);
    Ok(out)
}

fn switch(Mutant { name, from, to, .. }: &Mutant) -> String {
    let choice = format!("if crate::mutant({name:?}) {{ {to} }} else {{ {from} }}");
    // Statements (and blocks that may stand for one) take no parentheses; an expression may have neighbours.
    if from.contains(';') || from.ends_with('}') { choice } else { format!("({choice})") }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::PathBuf};

    use super::*;

    fn workspace() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn every_mutant_still_has_its_one_place_in_the_source() {
        let mutants = list().unwrap();
        let files: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.file.as_str()).collect();
        for file in files {
            let text = fs::read_to_string(workspace().join(SOURCE).join(file)).unwrap();
            let here: Vec<&Mutant> = mutants.iter().filter(|mutant| mutant.file == file).collect();
            switched(&text, &here).unwrap();
        }
    }

    #[test]
    fn names_are_used_once_and_tests_that_close_holes_exist() {
        let mutants = list().unwrap();
        let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
        assert_eq!(names.len(), mutants.len());
        for test in mutants.iter().filter_map(|mutant| mutant.closed_by.as_deref()) {
            let (file, test) = test.split_once(": ").expect("FILE: TEST");
            let text = fs::read_to_string(workspace().join("crates").join(file)).unwrap();
            assert!(text.contains(&format!("fn {test}(")), "{test} is not in {file}");
        }
    }

    #[test]
    fn a_mutant_stands_behind_its_switch() {
        let mutant = |from: &str, to: &str| Mutant {
            name: "m".to_owned(),
            breaks: String::new(),
            file: "f".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            closed_by: None,
        };
        let text = "if a && b { c(); }";
        let (condition, call) = (mutant("a && b", "a"), mutant("c();", ""));
        let want = r#"if (if crate::mutant("m") { a } else { a && b }) { if crate::mutant("m") {  } else { c(); } }"#;
        assert_eq!(switched(text, &[&call, &condition]).unwrap(), want);
        assert!(switched(text, &[&mutant(" ", "")]).is_err(), "twice in the text");
        assert!(switched(text, &[&condition, &mutant("b {", "")]).is_err(), "overlapping");
    }
}
