//! The `bowline` program: run a base server, reach a device by its ID, see the path.
//!
//! This file starts and ends the process: arguments, logs, the runtime, and the exit code (0: done; 1: it did not
//! work, the reason on standard error in one sentence; 2: wrong use). What a command does is in its file under
//! `commands`.

mod args;
mod commands;
mod config;
mod echo;
mod files;
mod forwarding;
mod host;
mod join;
mod logs;
mod names;
mod notes;
mod output;
mod places;
mod progress;
mod report;
mod signals;
mod silence;
mod stats;
mod streams;
mod view;

use std::process::ExitCode;

use clap::Parser;

/// The command line, the environment or the configuration file cannot mean anything: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

const FAILED: u8 = 1;
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    logs::start(cli.verbose, cli.log_format);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the system gives no threads: {error}"), FAILED),
    };
    let result = runtime.block_on(commands::run(cli));
    // Not waiting: a thread may still be reading from a terminal where nobody types.
    runtime.shutdown_background();
    logs::finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if error.is::<output::ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), if error.is::<WrongUse>() { WRONG_USE } else { FAILED }),
    }
}

fn fail(reason: &str, code: u8) -> ExitCode {
    notes::note(&reason.trim_end().replace('\n', " "));
    ExitCode::from(code)
}
