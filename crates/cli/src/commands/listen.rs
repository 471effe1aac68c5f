//! `bowline listen`: receive datagrams as this device, in netcat's manner.

use bowline::Datagram;
use data_encoding::BASE64;
use serde::Serialize;

use crate::{
    args::HostArgs,
    config::Config,
    echo,
    host::{Host, Identity},
    notes::{Teller, note},
    output::{self, Output, STRONG, paint},
    signals::Stop,
};

/// Datagrams that are taken and written at once.
const BATCH: usize = 64;

/// Receive datagrams and print them as lines; answer pings
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs as this device: with its key file, which no other process may use meanwhile. Ends with Ctrl-C.

Examples:
  bowline listen --base base.example.net
  bowline listen --once > message.txt
  bowline listen --raw | aplay
  bowline listen --json | jq -r .data")]
pub(crate) struct Args {
    #[command(flatten)]
    host: HostArgs,
    /// Put the sender's ID and a space before each line
    #[arg(long, conflicts_with_all = ["raw", "json"])]
    from: bool,
    /// Write the bytes as they are, with nothing in between
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print one JSON object per datagram: `from`, `data` (or `data_base64` where it is no text), `path`, `address`
    #[arg(long)]
    json: bool,
    /// End after N datagrams
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after the first datagram
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Treat the requests of `bowline ping` as any other datagram: print them, do not answer
    #[arg(long)]
    no_echo: bool,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let host = Host::start(&args.host, config, Identity::Device).await?;
    let mut events = host.endpoint.events();
    note(&format!("listening as {}", paint(STRONG, host.endpoint.id())));
    if host.bases.is_empty() {
        note("no base is configured (--base): only devices on the same link can reach this one");
    }
    let mut printer = Printer::new(&args);
    let mut teller = Teller::chatty();
    if let Some(base) = host.endpoint.status().base {
        teller.tell_registered(&base);
    }
    let mut batch = Vec::with_capacity(BATCH);
    let done = loop {
        tokio::select! {
            received = host.endpoint.recv_batch(&mut batch, BATCH) => {
                received?;
                batch.retain(|datagram| args.no_echo || !answer_echo(&host, datagram));
                // Ctrl-C ends this even while the reader of the output is paused.
                let finished = tokio::select! {
                    finished = printer.print(&batch) => finished?,
                    () = stop.wait() => break printer.interrupted(),
                };
                if finished {
                    break Ok(());
                }
                batch.clear();
            }
            Some(item) = events.next() => teller.tell(&item),
            () = stop.wait() => break printer.interrupted(),
        }
    };
    host.leave().await;
    done
}

/// Answers a ping; `false` if it is something else.
fn answer_echo(host: &Host, datagram: &Datagram) -> bool {
    let Some(answer) = echo::answer(&datagram.data) else { return false };
    // Where the way back is full or gone the answer is lost, as any datagram may be.
    if let Err(error) = host.endpoint.try_send(datagram.from, &answer) {
        tracing::debug!(to = %datagram.from, %error, "an echo was not answered");
    }
    true
}

/// Writes datagrams in the form that was asked for.
struct Printer {
    output: Output,
    form: Form,
    limit: Option<u64>,
    printed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The data and a line feed; on a terminal without control characters.
    Lines {
        from: bool,
        shown: bool,
    },
    Raw,
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    path: &'static str,
    address: Option<std::net::SocketAddr>,
}

impl Printer {
    fn new(args: &Args) -> Self {
        let form = match (args.raw, args.json) {
            (true, _) => Form::Raw,
            (_, true) => Form::Json,
            _ => Form::Lines { from: args.from, shown: Output::is_terminal() },
        };
        let limit = if args.once { Some(1) } else { args.count };
        Self { output: Output::new(), form, limit, printed: 0 }
    }

    /// Writes them in one go; `true` once as many as were asked for are out.
    async fn print(&mut self, datagrams: &[Datagram]) -> anyhow::Result<bool> {
        let room = self.limit.map_or(usize::MAX, |limit| (limit - self.printed) as usize);
        let datagrams = &datagrams[..datagrams.len().min(room)];
        let mut bytes = Vec::new();
        for datagram in datagrams {
            self.form.write(datagram, &mut bytes)?;
        }
        self.output.bytes(&bytes).await?;
        self.printed += datagrams.len() as u64;
        Ok(self.limit == Some(self.printed))
    }

    /// Ctrl-C is how listening ends, unless a number of datagrams was asked for.
    fn interrupted(&self) -> anyhow::Result<()> {
        match self.limit {
            None => Ok(()),
            Some(limit) => anyhow::bail!("interrupted after {} of {limit} datagrams", self.printed),
        }
    }
}

impl Form {
    fn write(self, datagram: &Datagram, into: &mut Vec<u8>) -> anyhow::Result<()> {
        match self {
            Self::Raw => into.extend_from_slice(&datagram.data),
            Self::Json => {
                let text = str::from_utf8(&datagram.data).ok();
                let line = Line {
                    from: datagram.from.to_string(),
                    data: text,
                    data_base64: text.is_none().then(|| BASE64.encode(&datagram.data)),
                    path: output::path_name(datagram.path),
                    address: output::path_address(datagram.path),
                };
                serde_json::to_writer(&mut *into, &line)?;
                into.push(b'\n');
            }
            Self::Lines { from, shown } => {
                if from {
                    into.extend_from_slice(datagram.from.to_string().as_bytes());
                    into.push(b' ');
                }
                if shown {
                    into.extend_from_slice(harmless(&datagram.data).as_bytes());
                } else {
                    into.extend_from_slice(&datagram.data);
                }
                into.push(b'\n');
            }
        }
        Ok(())
    }
}

/// What a stranger sends must not steer the terminal.
fn harmless(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use bowline::{DeviceId, Path};
    use bytes::Bytes;

    use super::*;

    fn written(form: Form, data: &'static [u8], path: Path) -> String {
        let from = DeviceId::from_bytes([7; 14]);
        let mut bytes = Vec::new();
        form.write(
            &Datagram { from, data: Bytes::from_static(data), path, ecn: bowline::Ecn::NotEct },
            &mut bytes,
        )
        .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_terminal_is_not_steered_by_what_comes_in_and_a_pipe_gets_every_byte() {
        let data = b"\x1b[2Jhi\tthere\r";
        let shown = written(Form::Lines { from: false, shown: true }, data, Path::RelayTcp);
        assert_eq!(shown, "\\u{1b}[2Jhi\tthere\\r\n");
        let piped = written(Form::Lines { from: false, shown: false }, data, Path::RelayTcp);
        assert_eq!(piped.as_bytes(), b"\x1b[2Jhi\tthere\r\n");
    }

    #[test]
    fn json_says_whether_the_data_is_text() {
        let text = written(Form::Json, b"a \"line\"\n", Path::Direct(([192, 0, 2, 7], 5123).into()));
        let text: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text["data"], "a \"line\"\n");
        assert_eq!((&text["path"], &text["address"]), (&"direct".into(), &"192.0.2.7:5123".into()));
        assert!(text.get("data_base64").is_none());
        let bytes: serde_json::Value =
            serde_json::from_str(&written(Form::Json, b"\xff\x00", Path::RelayUdp)).unwrap();
        assert_eq!((&bytes["data_base64"], &bytes["path"]), (&"/wA=".into(), &"relay-udp".into()));
        assert!(bytes.get("data").is_none() && bytes["address"].is_null());
    }
}
