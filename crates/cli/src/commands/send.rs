//! `bowline send`: datagrams to a device, from the command line or from standard input.

use std::time::Duration;

use bowline::{DeviceId, Endpoint, SendError};
use bowline_proto::wire::MAX_DATA;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::{
    args::{HostArgs, seconds},
    config::Config,
    host::{Host, Identity},
    names::device,
    notes::Teller,
    signals::Stop,
};

/// Send datagrams to a device: the message, or each line of standard input
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 says that everything was sent, not that it arrived: datagrams may be lost. `bowline ping` asks whether the \
device is there.

Examples:
  bowline send 93kz-a462-42sk-d06c-7gh2-3ksw hello there
  tail -f app.log | bowline send 93kz-a462-42sk-d06c-7gh2-3ksw
  arecord | bowline send 93kz-a462-42sk-d06c-7gh2-3ksw --raw")]
pub(crate) struct Args {
    /// The device, by its ID or its name
    #[arg(value_parser = device)]
    device: DeviceId,
    /// The message; its words are joined by spaces into one datagram. Without it, each line of standard input is one
    message: Vec<String>,
    /// Send standard input as it is, in datagrams as large as the way carries
    #[arg(long, conflicts_with = "message")]
    raw: bool,
    /// How long to wait for a way to the device
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    host: HostArgs,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let host = Host::start(&args.host, config, Identity::Fresh).await?;
    host.refuse_oneself(args.device)?;
    let mut events = host.endpoint.events();
    let mut teller = Teller::terse();
    let done = {
        let sending = send_all(&host, &args);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                result = &mut sending => break result,
                Some(item) = events.next() => teller.tell(&item),
                () = stop.wait() => break Err(anyhow::anyhow!("interrupted")),
            }
        }
    };
    host.leave().await;
    done
}

async fn send_all(host: &Host, args: &Args) -> anyhow::Result<()> {
    if !args.message.is_empty() {
        return send_one(host, args, args.message.join(" ").as_bytes()).await;
    }
    let input = BufReader::with_capacity(MAX_DATA, tokio::io::stdin());
    if args.raw { send_raw(host, args, input).await } else { send_lines(host, args, input).await }
}

async fn send_lines(host: &Host, args: &Args, mut input: impl AsyncBufRead + Unpin) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        if !read_line(&mut input, &mut line).await.map_err(unreadable)? {
            break;
        }
        if line.len() > MAX_DATA {
            anyhow::bail!("line {number} is longer than {MAX_DATA} bytes, the most that a datagram carries");
        }
        let sent = send_one(host, args, &line).await;
        sent.map_err(|error| anyhow::anyhow!("line {number} could not be sent: {error}"))?;
    }
    Ok(())
}

async fn send_raw(host: &Host, args: &Args, mut input: impl AsyncRead + Unpin) -> anyhow::Result<()> {
    let mut chunk = vec![0; MAX_DATA];
    loop {
        // The way may carry less from one chunk to the next, and more again later.
        let limit = host.patiently(args.timeout, async |endpoint| room(endpoint, args.device)).await?;
        let length = input.read(&mut chunk[..limit]).await.map_err(unreadable)?;
        if length == 0 {
            return Ok(());
        }
        send_in_pieces(host, args, &chunk[..length]).await?;
    }
}

fn unreadable(error: std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("standard input cannot be read: {error}")
}

/// What the present way carries.
fn room(endpoint: &Endpoint, device: DeviceId) -> Result<usize, SendError> {
    endpoint.want(device)?;
    match endpoint.max_datagram(device) {
        0 => Err(SendError::NoBase),
        limit => Ok(limit.min(MAX_DATA)),
    }
}

/// Sends bytes whose division into datagrams does not matter.
async fn send_in_pieces(host: &Host, args: &Args, mut bytes: &[u8]) -> anyhow::Result<()> {
    let mut piece = bytes.len();
    while !bytes.is_empty() {
        let now = &bytes[..piece.min(bytes.len())];
        match send_one(host, args, now).await {
            Ok(()) => bytes = &bytes[now.len()..],
            Err(error) => match error.downcast_ref() {
                // The way became narrower since the chunk was read.
                Some(&SendError::TooLarge { limit, .. }) if (1..now.len()).contains(&limit) => piece = limit,
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

async fn send_one(host: &Host, args: &Args, data: &[u8]) -> anyhow::Result<()> {
    if data.len() > MAX_DATA {
        // No way will ever carry it: not worth waiting for one.
        return Err(SendError::TooLarge { length: data.len(), limit: MAX_DATA }.into());
    }
    host.patiently(args.timeout, async |endpoint| endpoint.send(args.device, data).await).await
}

/// Reads a line without its line feed; `false` at the end of the input. A line too long to be sent is cut off one byte
/// beyond the limit, which is enough to refuse it.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let length = input.take(MAX_DATA as u64 + 1).read_until(b'\n', line).await?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(mut input: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while lines.len() < 10 && read_line(&mut input, &mut line).await.unwrap() {
            lines.push(line.clone());
        }
        lines
    }

    #[tokio::test]
    async fn every_line_is_a_datagram_even_an_empty_one_and_one_without_an_end() {
        assert_eq!(lines(b"one\n\nthree").await, [&b"one"[..], b"", b"three"]);
        assert_eq!(lines(b"").await, Vec::<Vec<u8>>::new());
        assert_eq!(lines(b"\n").await, [b""]);
    }

    #[tokio::test]
    async fn a_line_without_end_does_not_fill_the_memory() {
        assert_eq!(lines(&vec![b'x'; 100_000]).await[0].len(), MAX_DATA + 1);
        let fits = [vec![b'x'; MAX_DATA], b"\nnext".to_vec()].concat();
        assert_eq!(lines(&fits).await.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_DATA, 4]);
    }
}
