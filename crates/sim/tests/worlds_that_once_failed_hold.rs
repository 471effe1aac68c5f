//! Random worlds that found a fault once: what was found stays found. `docs/testing.md` says how to hunt for more.
//!
//! They are kept as plans, not as seeds: what a seed stands for changes when worlds learn something new.

use std::{fs, path::Path, time::Duration};

use bowline_sim::plan::Plan;

/// File in `regressions/`, and what the world found.
const FOUND: [(&str, &str); 14] = [
    ("66", "a session that nobody answers stayed registered"),
    ("1007", "a host with both families learned its reflexive address in one of them only"),
    ("1040", "the same"),
    ("5133", "a host took its own newer session for another process; probes were not paid for"),
    (
        "1795565422267269",
        "an attacker's copies of replies made a path seem long, and a host patient with its silence",
    ),
    ("1795570731550657", "the check did not know that a HELLO which a host has forgotten counts once more"),
    ("140326292424450", "nor that it does so from whatever address the first copy came"),
    (
        "1796063789304635",
        "a host took what came to another of its sockets for a sign that the way from the first was open",
    ),
    (
        "1796065133821956",
        "a router kept a device's port towards everybody but the base, and the peer tried no other than the base's",
    ),
    (
        "1631",
        "bases went on under revisions of a store that had begun anew, and took what was newer for older",
    ),
    ("1490", "a socket was closed at which a peer's HELLO had just been answered: its path led there"),
    ("1315", "the check did not know that a bus which overtakes leaves an interest until it lapses"),
    ("261385699271647", "the check counted what a program had sent before it was started again"),
    (
        "192678820572599",
        "an address that no HELLO could reach while UDP was blocked rested for ten minutes afterwards",
    ),
];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

#[test]
fn every_one_of_them() {
    for (name, found) in FOUND {
        let file = folder().join(name).with_extension("json");
        let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let plan: Plan = serde_json::from_slice(&text).unwrap();
        let world = plan.run().world;
        let Some(first) = world.violations.first() else { continue };
        let since = first.at.saturating_sub(Duration::from_secs(2));
        panic!("{name} ({found}): {}\n{}", first.what, world.trace.diagram(since, first.at));
    }
}

#[test]
fn every_file_is_named_here() {
    let files =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for file in files {
        assert!(FOUND.iter().any(|(name, _)| file == format!("{name}.json")), "{file} is not in the list");
    }
}
