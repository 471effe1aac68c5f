//! `bowline pipe`: standard input and output across, encrypted, in netcat's manner.

use std::time::Duration;

use bowline::DeviceId;
use bowline_quic::quinn::{Connection, RecvStream, SendStream};

use crate::{
    args::{HostArgs, seconds},
    config::Config,
    join::{self, Carried},
    names::{device, name_of},
    notes::note,
    report::Report,
    signals::Stop,
    silence,
    streams::{StreamError, Streams, accept, allow_from},
};

const SERVICE: &str = "bowline-pipe/1";
/// A stream is seen by the other end with its first byte: this one, which says nothing.
const HELLO: u8 = 1;
/// The last word of an end that could not write all that came, in the place of that byte: nobody took it any more.
const ENOUGH: u8 = 2;
/// How long the listening end waits for the other one to end the connection, and the other one for its last word to arrive.
const PARTING: Duration = Duration::from_secs(3);

/// Carry standard input to another device and its input here, encrypted
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One end listens, for one connection; the other names it. Each direction ends with its input; the command ends with both. \
Exit code 0 says that everything arrived at the other end; where that takes no more before the input has ended, it is 1.

With --json, lines that begin with { on standard error, for standard output has the data: device, path, address once it is connected; at the \
end device, sent, received (bytes), seconds, path, address.

Examples:
  bowline pipe --listen > backup.tar
  tar c folder | bowline pipe 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline pipe --listen --from 93kz-a462-42sk-d06c-7gh2-3ksw | tar x
  tar c folder | bowline pipe 93kz-a462-42sk-d06c-7gh2-3ksw --json 2> report.jsonl")]
pub(crate) struct Args {
    /// The device, by its ID or its name
    #[arg(value_parser = device, required_unless_present = "listen")]
    device: Option<DeviceId>,
    /// Listen for one connection
    #[arg(long, conflicts_with = "device")]
    listen: bool,
    /// With --listen: the device that may connect; may be repeated [default: whoever comes first]
    #[arg(long, value_name = "DEVICE", value_parser = device, requires = "listen")]
    from: Vec<DeviceId>,
    /// How long to wait for the device
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds, conflicts_with = "listen")]
    timeout: Duration,
    /// Print JSON objects on standard error: when it is connected, and when it has ended
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    match args.device {
        Some(device) => {
            let streams = Streams::dial(&args.host, config).await?;
            let done = tokio::select! {
                done = dial(&streams, device, args.timeout, args.json) => done,
                () = stop.wait() => Err(anyhow::anyhow!("interrupted")),
            };
            streams.leave().await;
            done
        }
        None => {
            let (streams, mut listener, mut refusals) =
                Streams::listen(&args.host, config, SERVICE, allow_from(&args.from)).await?;
            let done = tokio::select! {
                done = async {
                    let accepted = loop {
                        tokio::select! {
                            accepted = accept(&mut listener) => break accepted?,
                            _ = refusals.tell("--from") => {}
                        }
                    };
                    // One is enough.
                    drop(listener);
                    let report = Report::begin(&streams, &accepted.connection, accepted.device, args.json);
                    silence::watch(name_of(accepted.device), &accepted.connection);
                    note(&format!("connected from {}", name_of(accepted.device)));
                    let carried = answer(&accepted.connection, accepted.device).await;
                    conclude(&streams, accepted.device, report, carried)
                } => done,
                () = stop.wait() => Err(anyhow::anyhow!("interrupted")),
            };
            streams.leave().await;
            done
        }
    }
}

async fn dial(streams: &Streams, device: DeviceId, patience: Duration, json: bool) -> anyhow::Result<()> {
    let connection = streams.connect(patience, device, SERVICE).await?;
    let report = Report::begin(streams, &connection, device, json);
    conclude(streams, device, report, carry(&connection, device).await)
}

/// Reports what was carried; an error where the other end did not take all of it.
fn conclude(
    streams: &Streams,
    device: DeviceId,
    report: Report<'_>,
    carried: Result<(Carried, Carried), StreamError>,
) -> anyhow::Result<()> {
    let (sent, received) = carried.map_err(|error| streams.explain(device, &error))?;
    report.end((sent.bytes, received.bytes));
    if sent.whole {
        return Ok(());
    }
    Err(anyhow::anyhow!("not everything arrived: {}", streams.explain(device, &StreamError::Stopped)))
}

/// Both directions; what each has carried, to the other end and from there.
async fn carry(connection: &Connection, device: DeviceId) -> Result<(Carried, Carried), StreamError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&[HELLO]).await?;
    let (mut sent, received) = both(&mut send, &mut receive, device).await?;
    // The other end says when it has written everything: to end the connection before would take it away.
    let mut last = [HELLO];
    connection.accept_uni().await?.read_exact(&mut last).await?;
    sent.whole &= last != [ENOUGH];
    if !received.whole {
        let done = last_word(connection, ENOUGH).await?;
        let _ = tokio::time::timeout(PARTING, done.stopped()).await;
    }
    Ok((sent, received))
}

async fn answer(connection: &Connection, device: DeviceId) -> Result<(Carried, Carried), StreamError> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    receive.read_exact(&mut [0]).await?;
    let (mut sent, received) = both(&mut send, &mut receive, device).await?;
    let _done = last_word(connection, if received.whole { HELLO } else { ENOUGH }).await?;
    // Who dialled ends the connection; before, he has a word alone where he could not write everything.
    if let Ok(Ok(_)) = tokio::time::timeout(PARTING, connection.accept_uni()).await {
        sent.whole = false;
    }
    Ok((sent, received))
}

/// Standard input and output, each until it has ended.
async fn both(
    send: &mut SendStream,
    receive: &mut RecvStream,
    device: DeviceId,
) -> Result<(Carried, Carried), StreamError> {
    let (mut input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
    let up = async {
        let sent = join::up(&mut input, send).await?;
        if !sent.whole {
            note(&format!("{} takes no more; what it sends is still taken", name_of(device)));
        }
        Ok(sent)
    };
    tokio::try_join!(up, join::down(receive, &mut output))
}

async fn last_word(connection: &Connection, word: u8) -> Result<SendStream, StreamError> {
    let mut done = connection.open_uni().await?;
    done.write_all(&[word]).await?;
    let _ = done.finish();
    Ok(done)
}
