//! Runs random worlds one after the other until something happens that must not, and says what: `first_violation WORLDS`.
//!
//! No diagram and nothing made smaller: `bowline-sim --seed` does that. For checks that ask only whether something is
//! noticed (the mutation check). A world that does not end has been noticed, too.

use std::{
    process::{self, ExitCode},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use bowline_sim::plan::Plan;

/// A world takes a second or two; on a busy machine ten.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let worlds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    let (began, begins) = channel();
    thread::spawn(move || watch(&begins));
    for seed in 0..worlds {
        // The watch ends with the program only.
        let _ = began.send(seed);
        if let Some(violation) = Plan::new(seed).run().world.violations.first() {
            println!("seed {seed}: {}", violation.what);
            return ExitCode::FAILURE;
        }
    }
    println!("{worlds} worlds held");
    ExitCode::SUCCESS
}

fn watch(begins: &Receiver<u64>) {
    let mut seed = 0;
    loop {
        match begins.recv_timeout(PATIENCE) {
            Ok(next) => seed = next,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                println!("seed {seed}: the world does not end");
                process::exit(1);
            }
        }
    }
}
