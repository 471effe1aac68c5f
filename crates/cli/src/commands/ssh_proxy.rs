//! `bowline ssh-proxy`: for OpenSSH's `ProxyCommand`.

use std::time::Duration;

use bowline::DeviceId;

use crate::{
    args::{HostArgs, seconds},
    config::Config,
    forwarding::{
        SERVICE,
        spec::Place,
        wire::{self, Answer, Request},
    },
    join::{self, Carried},
    names::{device, name_of},
    report::{Counted, Report},
    signals::Stop,
    streams::{StreamError, Streams},
};

/// How long the last bytes may take to arrive.
const PARTING: Duration = Duration::from_secs(1);

/// Carry standard input and output to the SSH server of a device: for ProxyCommand
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The device runs `bowline serve --allow <this device> --target localhost:22`. In ~/.ssh/config, with names in peers.toml:

  Host robot laptop
      ProxyCommand bowline ssh-proxy %n

With --json, lines that begin with { on standard error, for standard output has the data: device, path, address once it is connected; at the \
end device, sent, received (bytes), seconds, path, address.

Examples:
  bowline ssh-proxy 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline ssh-proxy 93kz-a462-42sk-d06c-7gh2-3ksw --target localhost:2222")]
pub(crate) struct Args {
    /// The device, by its ID or its name
    #[arg(value_parser = device)]
    device: DeviceId,
    /// Where its SSH server listens, as it is written in the device's allow list
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:22")]
    target: Place,
    /// How long to wait for the device
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    timeout: Duration,
    /// Print JSON objects on standard error: when it is connected, and when it has ended
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let streams = Streams::dial(&args.host, config).await?;
    let done = tokio::select! {
        done = proxy(&streams, &args) => done,
        () = stop.wait() => Ok(()),
    };
    streams.leave().await;
    done
}

async fn proxy(streams: &Streams, args: &Args) -> anyhow::Result<()> {
    let connection = streams.connect(args.timeout, args.device, SERVICE).await?;
    let carried = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        wire::write(&mut send, &Request::Connect(args.target.clone())).await?;
        if let Err(why) = wire::read::<Answer>(&mut receive).await?.into_result() {
            return Ok(Err(why));
        }
        let report = Report::begin(streams, &connection, args.device, args.json);
        let (input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
        let mut input = Counted { inner: input, read: 0 };
        // Once the server has said everything, nobody needs what is still typed.
        let received = tokio::select! {
            down = join::down(&mut receive, &mut output) => down?,
            up = async {
                join::up(&mut input, &mut send).await?;
                std::future::pending::<Result<Carried, StreamError>>().await
            } => up?,
        };
        let _ = send.finish();
        let _ = tokio::time::timeout(PARTING, send.stopped()).await;
        report.end((input.read, received.bytes));
        Ok(Ok(()))
    };
    match carried.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => anyhow::bail!("{} {why}", name_of(args.device)),
        Err(error) => Err(streams.explain(args.device, &error).into()),
    }
}
