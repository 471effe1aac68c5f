//! The committed corpora of `fuzz/corpus` run through their targets: what was found once stays found, on stable Rust.

use std::{fs, path::PathBuf};

use bowline_fuzzing::TARGETS;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn replay(name: &str) {
    let (_, run) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of this name");
    let corpus = folder().join("corpus").join(name);
    let files: Vec<PathBuf> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        // The name of the file is on the screen when it panics.
        println!("{}", file.display());
        run(&bytes);
    }
}

macro_rules! replays {
    ($($name:ident),*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed_and_has_its_file() {
            let mut replayed = [$(stringify!($name)),*];
            let mut targets = TARGETS.map(|(name, _)| name);
            replayed.sort_unstable();
            targets.sort_unstable();
            assert_eq!(replayed, targets);
            for name in targets {
                assert!(folder().join(format!("fuzz_targets/{name}.rs")).exists(), "{name}");
            }
        }
    };
}

replays!(tcp_from_host, tcp_from_base, udp, peer, announce, texts, stream, base_ops, host_ops, worlds);
