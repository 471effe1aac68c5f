//! One file per command: its arguments, and what it does with them.

pub(crate) mod base;
pub(crate) mod demo;
pub(crate) mod forward;
pub(crate) mod id;
pub(crate) mod listen;
pub(crate) mod ping;
pub(crate) mod pipe;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod send_file;
pub(crate) mod serve;
pub(crate) mod ssh_proxy;
pub(crate) mod watch;

use crate::{
    args::{Cli, Command},
    config::Config,
};

/// Runs the command to its end.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = || Config::load(cli.config.as_deref());
    match cli.command {
        Command::Id(args) => id::run(args, &config()?).await,
        Command::Base(args) => base::run(args, config()?).await,
        Command::Listen(args) => listen::run(args, &config()?).await,
        Command::Send(args) => send::run(args, &config()?).await,
        Command::Ping(args) => ping::run(args, &config()?).await,
        Command::Watch(args) => watch::run(args, &config()?).await,
        Command::Pipe(args) => pipe::run(args, &config()?).await,
        Command::Forward(args) => forward::run(args, &config()?).await,
        Command::Serve(args) => serve::run(args, &config()?).await,
        Command::SshProxy(args) => ssh_proxy::run(args, &config()?).await,
        Command::SendFile(args) => send_file::run(args, &config()?).await,
        Command::Receive(args) => receive::run(args, &config()?).await,
        Command::Demo(args) => demo::run(args).await,
    }
}
