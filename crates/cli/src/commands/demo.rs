//! `bowline demo`: the whole layer on this machine, in a second or two.
//!
//! A base server and two devices run in this process and talk over the loopback, through real sockets. On the
//! loopback all paths would stand within a millisecond, too fast to be seen: so the devices begin with the base's TCP
//! alone and are given UDP, then direct paths, each once messages have been answered over what came before. Nothing
//! else is staged: the path shown is the one that an answer came by.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bowline::{BaseName, Datagram, DeviceId, Endpoint, Path};
use bowline_base::{Server, Shutdown, config::Limits};
use serde::Serialize;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    output::{self, Output, STRONG, json_millis, millis, paint},
    signals::Stop,
};

/// Run a base server and two devices on this machine, and watch their messages go from relay to direct
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 only if messages were answered over TCP through the base, over UDP through the base and directly, and no \
message was answered wrongly.

Examples:
  bowline demo
  bowline demo --json | jq .steps")]
pub(crate) struct Args {
    /// Print one JSON object: `steps` (each with `path` and `at_ms`), `sent`, `received`
    #[arg(long)]
    json: bool,
}

/// Answers over one path before the next one is allowed.
const ANSWERS_PER_STEP: u32 = 5;
/// How long the whole may take; on an idle machine it takes well under a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a single answer is waited for before the message is sent anew, as a datagram may be lost.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// Messages whose late or repeated answers are known as such.
const MEMORY: usize = 64;
/// How long the base and the devices may take to end.
const END_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let mut story = Story { began: Instant::now(), output: Output::new(), json: args.json };
    let played = tokio::select! {
        played = timeout(PATIENCE, play(&mut story)) => played,
        () = stop.wait() => anyhow::bail!("interrupted"),
    };
    let Ok(report) = played else { anyhow::bail!("not all paths were seen within {} s", PATIENCE.as_secs()) };
    let report = report?;
    if args.json {
        story.output.json(&report).await?;
    } else {
        story.line(&report.text()).await?;
    }
    report.verdict()
}

async fn play(story: &mut Story) -> anyhow::Result<Report> {
    let base = Base::start().await?;
    story.line(&format!("base server  {} at {}", paint(STRONG, base.id), base.address)).await?;
    let (alice, bob) = (device(&base.name).await?, device(&base.name).await?);
    for (name, device) in [("alice", &alice), ("bob", &bob)] {
        device.online().await?;
        story.line(&format!("device       {} is {name}", paint(STRONG, device.id()))).await?;
    }
    let answering = tokio::spawn(answer_everything(bob.clone()));

    let mut talk = Talk { alice: alice.clone(), bob: bob.id(), report: Report::default() };
    for step in Step::ALL {
        for device in [&alice, &bob] {
            step.allow(device);
        }
        let path = talk.until_answered_over(step).await?;
        talk.report
            .steps
            .push(Seen { path: output::path_name(path), at_ms: json_millis(story.began.elapsed()) });
        let what = step.words();
        story
            .line(&format!("{:>9} ms  {}  {what}", millis(story.began.elapsed()), output::path(path)))
            .await?;
        for _ in 1..ANSWERS_PER_STEP {
            talk.exchange().await?;
        }
    }

    answering.abort();
    for device in [alice, bob] {
        let _ = timeout(END_PATIENCE, device.close()).await;
    }
    base.end().await;
    Ok(talk.report)
}

/// What is told as it happens, to people.
struct Story {
    began: Instant,
    output: Output,
    json: bool,
}

impl Story {
    async fn line(&mut self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { self.output.line(text).await }
    }
}

/// The three ways, worst first, each allowed on top of those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    RelayTcp,
    RelayUdp,
    Direct,
}

impl Step {
    const ALL: [Self; 3] = [Self::RelayTcp, Self::RelayUdp, Self::Direct];

    fn allow(self, device: &Endpoint) {
        match self {
            Self::RelayTcp => {}
            Self::RelayUdp => device.set_relay_udp(true),
            Self::Direct => device.set_direct(true),
        }
    }

    const fn is(self, path: Path) -> bool {
        matches!(
            (self, path),
            (Self::RelayTcp, Path::RelayTcp)
                | (Self::RelayUdp, Path::RelayUdp)
                | (Self::Direct, Path::Direct(_))
        )
    }

    const fn words(self) -> &'static str {
        match self {
            Self::RelayTcp => "alice and bob talk at once, over the base's TCP",
            Self::RelayUdp => "the base confirmed their UDP: messages leave the TCP connection",
            Self::Direct => "they found each other: the base carries nothing any more",
        }
    }
}

/// A base server in this process.
struct Base {
    id: DeviceId,
    name: BaseName,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Base {
    async fn start() -> anyhow::Result<Self> {
        // For two devices: it need not ask the system for what a base for all the world takes.
        let limits = Limits { devices: 8, unfinished: 64, ..Limits::default() };
        let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        let config = bowline_base::Config { listen, limits, ..Default::default() };
        let server = Server::bind(config, bowline_key::generate()).await?;
        let address = server.local_addrs().into_iter().next();
        let address = address.ok_or_else(|| anyhow::anyhow!("the base server listens nowhere"))?;
        let id = server.id();
        let name = BaseName { id: Some(id), host: address.ip().to_string(), port: address.port() };
        let (end, ended) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = ended.await;
            Shutdown::Drain(0)
        }));
        Ok(Self { id, name, address, end, running })
    }

    async fn end(self) {
        let _ = self.end.send(());
        let _ = timeout(END_PATIENCE, self.running).await;
    }
}

/// A device with a fresh key, held to the base's TCP for the time being.
async fn device(base: &BaseName) -> anyhow::Result<Endpoint> {
    let builder = Endpoint::builder(bowline_key::generate()).base(base.clone());
    Ok(builder.link_local(false).relay_udp(false).direct(false).bind().await?)
}

/// What bob says to a message: its words in reverse order, so that an echo on the way would be noticed.
fn answer_to(message: &[u8]) -> Vec<u8> {
    let mut words: Vec<&[u8]> = message.split(|&byte| byte == b' ').collect();
    words.reverse();
    words.join(&b' ')
}

async fn answer_everything(bob: Endpoint) {
    while let Ok(datagram) = bob.recv_datagram().await {
        // What cannot be sent is a lost answer, and alice asks again.
        let _ = bob.send(datagram.from, &answer_to(&datagram.data)).await;
    }
}

/// Alice's side of the conversation.
struct Talk {
    alice: Endpoint,
    bob: DeviceId,
    report: Report,
}

impl Talk {
    /// Talks until an answer comes by this path; that path.
    async fn until_answered_over(&mut self, step: Step) -> anyhow::Result<Path> {
        loop {
            let path = self.exchange().await?;
            if path.is_some_and(|path| step.is(path)) {
                return Ok(path.unwrap_or(Path::None));
            }
        }
    }

    /// One message and its answer: the path it came by, or `None` if it was lost.
    async fn exchange(&mut self) -> anyhow::Result<Option<Path>> {
        self.report.sent += 1;
        let message = self.message(self.report.sent);
        self.alice.send(self.bob, message.as_bytes()).await?;
        let answer = answer_to(message.as_bytes());
        let Ok(path) = timeout(ANSWER_PATIENCE, self.receive(&answer)).await else { return Ok(None) };
        self.report.received += 1;
        path.map(Some)
    }

    /// Waits for this answer; counts what is neither it nor a repetition.
    async fn receive(&mut self, answer: &[u8]) -> anyhow::Result<Path> {
        loop {
            let datagram = self.alice.recv_datagram().await?;
            if datagram.from == self.bob && datagram.data == answer {
                return Ok(datagram.path);
            }
            if !self.is_late(&datagram) {
                self.report.wrong += 1;
            }
        }
    }

    /// Whether this answers an earlier message, rightly: a repetition, or given up before it came.
    fn is_late(&self, datagram: &Datagram) -> bool {
        let mut earlier = (1..self.report.sent).rev().take(MEMORY);
        datagram.from == self.bob
            && earlier.any(|number| datagram.data == answer_to(self.message(number).as_bytes()))
    }

    fn message(&self, number: u32) -> String {
        format!("message {number} from {}", self.alice.id())
    }
}

/// What happened, for the summary.
#[derive(Debug, Default, Serialize)]
struct Report {
    steps: Vec<Seen>,
    sent: u32,
    received: u32,
    wrong: u32,
}

/// The first answer over a path.
#[derive(Debug, Serialize)]
struct Seen {
    path: &'static str,
    at_ms: f64,
}

impl Report {
    fn text(&self) -> String {
        format!("{} messages sent, {} answered, {} wrongly", self.sent, self.received, self.wrong)
    }

    /// By now every path was seen; what remains is whether the answers were right.
    fn verdict(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.wrong == 0, "{} messages were answered wrongly", self.wrong);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_echo() {
        assert_eq!(answer_to(b"message 1 from me"), b"me from 1 message");
    }

    #[test]
    fn a_wrong_answer_fails_the_demo() {
        assert!(Report { sent: 2, received: 1, ..Report::default() }.verdict().is_ok());
        assert!(Report { sent: 2, received: 2, wrong: 1, ..Report::default() }.verdict().is_err());
    }
}
