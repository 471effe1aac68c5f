//! `bowline send-file`: files to a device that runs `bowline receive`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bowline::DeviceId;
use bowline_quic::quinn::Connection;
use serde::Serialize;

use crate::{
    WrongUse,
    args::{HostArgs, seconds},
    config::Config,
    files::{
        SERVICE,
        outgoing::{self, Outgoing, Sent, Unsent},
    },
    names::{device, name_of},
    notes::note,
    output::{self, Output},
    progress::{Progress, bytes_text, rate_text},
    signals::Stop,
    streams::{StreamError, Streams},
};

/// Between two attempts to reach a device that was lost in the middle of a file.
const AGAIN: Duration = Duration::from_secs(1);

/// Send files to a device that runs `bowline receive`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What an earlier attempt left half-done is taken up where it ended; what it brought there whole is not sent again by the same device \
while the same `receive` runs, and is no error. A device that is lost meanwhile is dialled again: after three \
minutes of silence, or as soon as its base says that it is gone. Exit code 0 says that every file is there, whole and under its \
name: its BLAKE3 hash was compared. What one file meets keeps none of the others back.

With --json, a line per file: file, bytes, resumed_from, seconds, bytes_per_second, path, address, blake3.

Examples:
  bowline send-file photo.jpg 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline send-file *.log 93kz-a462-42sk-d06c-7gh2-3ksw --json")]
pub(crate) struct Args {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The device, by its ID or its name
    #[arg(value_parser = device)]
    device: DeviceId,
    /// How long to wait for the device, at first and when it is lost
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
    /// Print one JSON object per file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a Path,
    bytes: u64,
    resumed_from: u64,
    seconds: f64,
    bytes_per_second: f64,
    path: &'static str,
    address: Option<std::net::SocketAddr>,
    blake3: String,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    // What cannot be read shows before anything is sent. None stays open: there may be more of them than a process may have.
    for path in &args.files {
        Outgoing::open(path).map_err(WrongUse)?;
    }
    let streams = Streams::dial(&args.host, config).await?;
    let done = tokio::select! {
        done = send_all(&streams, &args) => done,
        () = stop.wait() => Err(anyhow::anyhow!("interrupted: send it again, and it goes on from there")),
    };
    streams.leave().await;
    done
}

async fn send_all(streams: &Streams, args: &Args) -> anyhow::Result<()> {
    let mut output = Output::new();
    let mut connection = connect(streams, args).await?;
    let mut unsent = 0;
    for path in &args.files {
        let began = Instant::now();
        let sent = match Outgoing::open(path) {
            Ok(file) => {
                let progress = Progress::new(&file.name, file.length);
                let sent = send_one(streams, args, &mut connection, &file, &progress).await;
                progress.clear();
                sent.map(|sent| sent.map(|sent| (file, sent)))
            }
            Err(why) => Ok(Err(why)),
        };
        let why = match sent.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))? {
            Ok((file, sent)) => {
                report(streams, args, &mut output, path, &file, &sent, began.elapsed()).await?;
                continue;
            }
            Err(why) => format!("{}: {why}", path.display()),
        };
        if args.files.len() == 1 {
            anyhow::bail!(why);
        }
        note(&why);
        unsent += 1;
    }
    match unsent {
        0 => Ok(()),
        _ => anyhow::bail!("{unsent} of {} files were not sent, for the reasons above", args.files.len()),
    }
}

async fn connect(streams: &Streams, args: &Args) -> anyhow::Result<Connection> {
    let connection = streams.connect(args.timeout, args.device, SERVICE).await?;
    streams.end_when_gone(&connection);
    Ok(connection)
}

/// Sends a file; a device that is lost meanwhile is dialled again, for as long as patience lasts. The inner error is of this file alone.
async fn send_one(
    streams: &Streams,
    args: &Args,
    connection: &mut Connection,
    file: &Outgoing,
    progress: &Progress,
) -> anyhow::Result<Result<Sent, String>> {
    loop {
        let way = || output::path(streams.path(args.device));
        let error = match outgoing::send(connection, file, progress, way).await {
            Ok(Ok(sent)) => return Ok(Ok(sent)),
            Ok(Err(Unsent::There(why))) => return Ok(Err(format!("{} {why}", name_of(args.device)))),
            Ok(Err(Unsent::Here(why))) => return Ok(Err(why)),
            Err(error) => error,
        };
        let lost = matches!(&error, StreamError::Lost(why) if outgoing::may_come_back(why));
        let explained = streams.explain(args.device, &error);
        if !lost {
            return Err(explained.into());
        }
        note(&format!("{explained}; trying again"));
        tokio::time::sleep(AGAIN).await;
        *connection = connect(streams, args).await?;
    }
}

async fn report(
    streams: &Streams,
    args: &Args,
    output: &mut Output,
    path: &Path,
    file: &Outgoing,
    sent: &Sent,
    took: Duration,
) -> anyhow::Result<()> {
    if file.has_changed() {
        note(&format!(
            "{} changed while it was sent: what is there may be part old, part new",
            path.display()
        ));
    }
    let way = streams.path(args.device);
    let carried = file.length - sent.resumed_from;
    let rate = carried as f64 / took.as_secs_f64();
    if args.json {
        let line = Line {
            file: path,
            bytes: file.length,
            resumed_from: sent.resumed_from,
            seconds: took.as_secs_f64(),
            bytes_per_second: rate,
            path: output::path_name(way),
            address: output::path_address(way),
            blake3: sent.hash.clone(),
        };
        return output.json(&line).await;
    }
    let resumed = match sent.resumed_from {
        0 => String::new(),
        from => format!(", {} of it before", bytes_text(from)),
    };
    note(&format!(
        "{} is there: {}{resumed} in {:.1} s, {}, {}",
        file.name,
        bytes_text(file.length),
        took.as_secs_f64(),
        rate_text(rate),
        output::path(way)
    ));
    Ok(())
}
