//! `bowline receive`: files from other devices, into one folder.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use bowline::DeviceId;
use bowline_quic::Accepted;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    WrongUse,
    args::HostArgs,
    config::Config,
    files::{
        SERVICE,
        incoming::{self, Received},
        store::Store,
        turns::Turns,
    },
    names::{device, name_of},
    notes::note,
    output::{self, Output},
    progress::bytes_text,
    signals::Stop,
    silence,
    streams::{Streams, accept, allow_from},
};

/// Files that were received and wait to be told of.
const LINES: usize = 64;

/// Receive files into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file appears under its name once it is whole and its hash was compared; until then it is .NAME.….part beside it, from which an \
interrupted transfer goes on. A sender that says nothing more is given up after three minutes, or as soon as its base says that it is \
gone; until then it may come back, and sending the same file again takes over from it. Nothing is replaced unless --replace says so, and no name leads out of the folder. Ends with Ctrl-C.

With --json, a line per file: file, from, bytes, resumed_from, blake3.

Examples:
  bowline receive . --from 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline receive incoming --once --json")]
pub(crate) struct Args {
    /// The folder; it is made where only the one above it is there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A device that may send, by its ID or its name; may be repeated [default: whoever knows this device's ID]
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    from: Vec<DeviceId>,
    /// Replace files of the same name
    #[arg(long)]
    replace: bool,
    /// End when the first device that sent something has finished; one that was interrupted may go on
    #[arg(long)]
    once: bool,
    /// Print one JSON object per file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Serialize)]
struct Line {
    file: String,
    from: String,
    bytes: u64,
    resumed_from: u64,
    blake3: String,
}

enum Told {
    Received(DeviceId, Received),
    /// A connection to a device has ended.
    Left {
        device: DeviceId,
        /// Which one.
        number: u64,
        /// Whether anything was sent by it, and nothing half.
        finished: bool,
    },
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let store = Store::new(&args.folder, args.replace).map_err(WrongUse)?;
    let (streams, mut listener, mut refusals) =
        Streams::listen(&args.host, config, SERVICE, allow_from(&args.from)).await?;
    let store = if args.from.is_empty() {
        note("whoever knows this device's ID may send files, but no hidden ones (--from limits it)");
        store.without_hidden()
    } else {
        store
    };
    let streams = Arc::new(streams);
    let into = (store, Turns::default());
    let (told, mut tell) = mpsc::channel(LINES);
    let mut output = Output::new();
    // The newest connection of each device: one before it may end long after its device was restarted.
    let mut newest = HashMap::new();
    let mut numbers = 0..;
    let done = loop {
        tokio::select! {
            accepted = accept(&mut listener) => match accepted {
                Ok(accepted) => {
                    let number = numbers.next().unwrap_or_default();
                    newest.insert(accepted.device, number);
                    tokio::spawn(receive(accepted, number, Arc::clone(&streams), into.clone(), told.clone()));
                }
                Err(error) => break Err(error),
            },
            _ = refusals.tell("--from") => {}
            Some(told) = tell.recv() => match told {
                Told::Received(from, received) => if let Err(error) = print(&mut output, from, received, args.json).await {
                    break Err(error);
                },
                Told::Left { device, number, finished } => if newest.get(&device) == Some(&number) {
                    newest.remove(&device);
                    if finished && args.once {
                        break Ok(());
                    }
                },
            },
            () = stop.wait() => break if args.once { Err(anyhow::anyhow!("interrupted")) } else { Ok(()) },
        }
    };
    streams.endpoint.close().await;
    done
}

async fn print(output: &mut Output, from: DeviceId, received: Received, json: bool) -> anyhow::Result<()> {
    let Received { name, length, resumed_from, hash } = received;
    if json {
        let line = Line { file: name, from: from.to_string(), bytes: length, resumed_from, blake3: hash };
        return output.json(&line).await;
    }
    output.line(&format!("{name}  {}  from {}", bytes_text(length), name_of(from))).await
}

/// One device's files, one after the other.
async fn receive(
    accepted: Accepted,
    number: u64,
    streams: Arc<Streams>,
    (store, turns): (Store, Turns),
    told: mpsc::Sender<Told>,
) {
    let Accepted { device, connection, .. } = &accepted;
    streams.end_when_gone(connection);
    silence::watch(name_of(*device), connection);
    let mut finished = false;
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let way = || output::path(streams.endpoint.path(connection));
        match incoming::receive(&mut send, &mut receive, (&store, &turns), *device, way).await {
            Ok(Ok(received)) => {
                finished = true;
                let _ = told.send(Told::Received(*device, received)).await;
            }
            Ok(Err(why)) => note(&format!("{}: this device {why}", name_of(*device))),
            Err(error) => {
                // The rest of it may come yet, by another connection.
                finished = false;
                note(&format!("a file was not received: {}", streams.explain(*device, &error)));
            }
        }
    }
    let _ = told.send(Told::Left { device: *device, number, finished }).await;
}
