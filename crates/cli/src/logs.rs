//! Logs: on standard error, for whoever wants to see inside. Without `-v` and `RUST_LOG` only warnings appear.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// From here on, what the crates log is shown; `verbose` counts the `-v`s, `RUST_LOG` has precedence.
pub(crate) fn start(verbose: u8) {
    let by_count = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(by_count));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
}
