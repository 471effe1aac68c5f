//! Runs one target on one file: `cargo run -p bowline-fuzzing --example run -- TARGET FILE`, to look at what it does.

use std::{env, fs, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [target, file] = args.as_slice() else {
        eprintln!("usage: run TARGET FILE");
        return ExitCode::from(2);
    };
    let Some((_, run)) = bowline_fuzzing::TARGETS.iter().find(|(name, _)| name == target) else {
        eprintln!("no target {target}");
        return ExitCode::from(2);
    };
    match fs::read(file) {
        Ok(bytes) => run(&bytes),
        Err(error) => {
            eprintln!("{file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
