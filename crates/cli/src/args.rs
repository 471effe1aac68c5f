//! The command line as a whole, and the parts that commands share. What is special to one command stands with it.

use std::{path::PathBuf, time::Duration};

use bowline::BaseName;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::{
    commands::{
        base, demo, forward, id, listen, ping, pipe, receive, send, send_file, serve, ssh_proxy, watch,
    },
    logs,
};

/// Datagrams to any of your devices by its ID, over the best path there is.
#[derive(Debug, Parser)]
#[command(
    name = "bowline",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "\
Begin with:
  bowline demo"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more of what happens, on standard error; repeat for still more (RUST_LOG is finer)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// How what is said on standard error with -v looks
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: logs::Format,
    /// The configuration file [default: bowline/config.toml in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Id(id::Args),
    Base(base::Args),
    Listen(listen::Args),
    Send(send::Args),
    Ping(ping::Args),
    Watch(watch::Args),
    Pipe(pipe::Args),
    Forward(forward::Args),
    Serve(serve::Args),
    SshProxy(ssh_proxy::Args),
    SendFile(send_file::Args),
    Receive(receive::Args),
    Demo(demo::Args),
}

/// Where a command that runs as a device gets its bases and its key from.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// A base server, as `[<base ID>@]host[:port]`; may be repeated: the first to answer is used
    /// (or BOWLINE_BASE, separated by spaces or commas; or `bases` in the configuration file)
    #[arg(long, value_name = "BASE")]
    pub(crate) base: Vec<BaseName>,
    /// The key file of the device to run as. What only reaches out runs under an ID of its own without it, which a base or a
    /// device that has a list of allowed devices does not know
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Do not guess the ports of symmetric NATs (or `guess_ports = false` in the configuration file)
    #[arg(long)]
    pub(crate) no_guess_ports: bool,
    /// Do not ask the router for a port (or `port_mapping = false` in the configuration file)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
}

/// The longest time that an option takes: long enough for any patience, short enough for any clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A time in seconds, with a fraction if need be, above zero.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && duration <= LONGEST => Ok(duration),
        _ => Err(format!("not a time between 0 and {} seconds", LONGEST.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The lines of a help page that a reader would copy.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines =
            help.lines().map(str::trim).skip_while(|line| !["Examples:", "Begin with:"].contains(line));
        let lines = lines.filter(|line| line.contains("bowline "));
        lines.map(ToOwned::to_owned).collect()
    }

    /// The part of a pipe that calls this program, in words.
    fn words(example: &str) -> Vec<String> {
        let example = example.replace(" 2> ", " > ");
        let call = example.split(['|', '<', '>']).find(|part| part.contains("bowline ")).unwrap();
        let call = &call[call.find("bowline ").unwrap()..];
        call.split_whitespace().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help_and_every_example_parses() {
        let all = Cli::command();
        for command in all.get_subcommands().chain([&all]) {
            let examples = examples(command);
            assert!(!examples.is_empty(), "{} has no example", command.get_name());
            for example in examples {
                if let Err(error) = Cli::try_parse_from(words(&example)) {
                    panic!("{example}: {error}");
                }
            }
        }
    }

    #[test]
    fn times_are_positive_finite_seconds() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["0", "-1", "inf", "nan", "1e300", "1s", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
