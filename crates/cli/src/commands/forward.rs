//! `bowline forward`: ports and Unix sockets, here and there, as `ssh -L` and `ssh -R` have them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bowline::DeviceId;
use bowline_quic::quinn::{Connection, RecvStream, SendStream, VarInt};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    WrongUse,
    args::{HostArgs, seconds},
    config::Config,
    forwarding::{
        link::{Held, Link},
        socket::{Listener, Socket},
        spec::{Forward, Place},
        wire::{self, Answer, Request},
    },
    names::{device, name_of},
    notes::note,
    output::{Output, STRONG, paint},
    signals::Stop,
    streams::{Failed, StreamError, Streams},
};

/// Sockets that are forwarded at a time, from all listeners. More wait to be accepted.
const SOCKETS: usize = 1024;
/// Between two attempts to reach a device that was lost.
const AGAIN: Duration = Duration::from_secs(1);

/// Forward TCP ports and Unix sockets to a device that runs `bowline serve`, or from it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Goes on until Ctrl-C; a device that was lost is dialled again. What the device allows is said there, by `bowline serve`. \
Without a bind address, listeners are on the loopback. Where another `forward` of this device has it listen there already (-R), the \
newest one takes over.

Examples:
  bowline forward -L 8080:localhost:80 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline forward -L /tmp/docker.sock:/var/run/docker.sock 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline forward -R 8080:localhost:3000 93kz-a462-42sk-d06c-7gh2-3ksw")]
pub(crate) struct Args {
    /// Listen here, connect there: [bind:]port:host:port; either half may be the path of a Unix socket; may be repeated
    #[arg(short = 'L', value_name = "FORWARD")]
    local: Vec<Forward>,
    /// Listen there, connect here, in the same form; may be repeated
    #[arg(short = 'R', value_name = "FORWARD")]
    remote: Vec<Forward>,
    /// The device, by its ID or its name
    #[arg(value_parser = device)]
    device: DeviceId,
    /// How long to wait for the device
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    timeout: Duration,
    /// Print one JSON object per listener (`listening`, `to`) and per socket that ended (`to`, `sent`, `received`, `error`)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Listening { listening: String, to: String },
    Ended { to: String, sent: u64, received: u64, error: Option<String> },
}

/// Each is a place at which the device listens for as long as its task lives; it ends with that place where the device no longer does, and
/// with none where the connection has ended.
type Asked = JoinSet<Option<Place>>;

/// What all forwards of a command share.
struct Session {
    link: Link,
    sockets: Arc<Semaphore>,
    /// What `-R` connects to, by the number that it was asked for with.
    remote: HashMap<u32, Place>,
    lines: mpsc::Sender<Line>,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    if args.local.is_empty() && args.remote.is_empty() {
        return Err(WrongUse("nothing to forward: say what with -L or -R".to_owned()).into());
    }
    let mut stop = Stop::new()?;
    let (lines, mut printed) = mpsc::channel(SOCKETS);
    let session = Arc::new(Session {
        link: Link::new(Streams::dial(&args.host, config).await?, args.device, args.timeout),
        sockets: Arc::new(Semaphore::new(SOCKETS)),
        remote: (0..).zip(args.remote.iter().map(|forward| forward.connect.clone())).collect(),
        lines,
    });
    let mut output = Output::new();
    let mut listeners = JoinSet::new();
    let mut forwarding = Box::pin(forward(&session, &args, &mut listeners));
    let done = loop {
        tokio::select! {
            done = &mut forwarding => break done,
            Some(line) = printed.recv() => if let Err(error) = print(&mut output, &line, args.json).await {
                break Err(error);
            },
            () = stop.wait() => break Ok(()),
        }
    };
    drop(forwarding);
    // The files of Unix sockets go with them.
    listeners.shutdown().await;
    session.link.streams.endpoint.close().await;
    done
}

async fn print(output: &mut Output, line: &Line, json: bool) -> anyhow::Result<()> {
    if json {
        return output.json(line).await;
    }
    match line {
        Line::Listening { listening, to } => {
            output.line(&format!("{} to {to}", paint(STRONG, listening))).await
        }
        Line::Ended { to, error: Some(error), .. } => {
            note(&format!("{to}: {error}"));
            Ok(())
        }
        Line::Ended { .. } => Ok(()),
    }
}

/// Ends only with an error: the listeners go on.
async fn forward(session: &Arc<Session>, args: &Args, accepting: &mut JoinSet<()>) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for Forward { listen, connect } in &args.local {
        let listener = Listener::bind(listen).await;
        let listener = listener.map_err(|error| anyhow::anyhow!("cannot listen at {listen}: {error}"))?;
        listeners.push((listener, listen, connect));
    }
    // What is wrong shows now, and not with the first socket.
    let first = session.link.connection().await?;
    let name = name_of(session.link.device);
    for (listener, listen, connect) in listeners {
        let to = format!("{name} {connect}");
        session.tell(Line::Listening { listening: listener.address(listen), to }).await;
        accepting.spawn(Arc::clone(session).accept(listener, connect.clone()));
    }
    if args.remote.is_empty() {
        drop(first);
        return std::future::pending().await;
    }
    let mut held = first;
    // What the device refuses shows now, too.
    let mut asked = session.ask_to_listen(&held.0, &args.remote, true).await?;
    loop {
        let lost = session.take_arrivals(&held.0, &mut asked).await?;
        note(&session.explain(&lost).to_string());
        asked.shutdown().await;
        (held, asked) = session.ask_again(&args.remote).await;
        note(&format!("{name} listens again"));
    }
}

impl Session {
    /// What an error on a stream to the device means.
    fn explain(&self, error: &StreamError) -> Failed {
        self.link.streams.explain(self.link.device, error)
    }

    async fn tell(&self, line: Line) {
        let _ = self.lines.send(line).await;
    }

    /// Takes sockets in here and carries them there.
    async fn accept(self: Arc<Self>, listener: Listener, to: Place) {
        loop {
            let Ok(room) = Arc::clone(&self.sockets).acquire_owned().await else { return };
            match listener.accept().await {
                Ok(socket) => {
                    let (session, to) = (Arc::clone(&self), to.clone());
                    tokio::spawn(async move {
                        let carried = session.carry(socket, &to).await;
                        session.ended(&to, carried).await;
                        drop(room);
                    });
                }
                Err(error) => {
                    // Too many files are open, most likely: that passes.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn ended(&self, to: &Place, carried: anyhow::Result<(u64, u64)>) {
        let to = to.to_string();
        self.tell(match carried {
            Ok((sent, received)) => Line::Ended { to, sent, received, error: None },
            Err(error) => Line::Ended { to, sent: 0, received: 0, error: Some(error.to_string()) },
        })
        .await;
    }

    async fn carry(&self, socket: Socket, to: &Place) -> anyhow::Result<(u64, u64)> {
        let mut held = self.link.connection().await?;
        let mut tried = false;
        let (mut send, mut receive, answer) = loop {
            let asked = tokio::select! {
                asked = ask(&held.0, to) => asked,
                other = self.link.instead_of(&held), if !tried => {
                    (held, tried) = (other?, true);
                    continue;
                }
            };
            match asked {
                Ok(asked) => break asked,
                // That the device was restarted shows with the first that is sent to it, and nothing is lost yet.
                Err(StreamError::Lost(_)) if !tried => tried = true,
                Err(error) => return Err(self.explain(&error).into()),
            }
            held = self.link.connection().await?;
        };
        if let Err(why) = answer.into_result() {
            anyhow::bail!("{} {why}", name_of(self.link.device));
        }
        Ok(socket.join(&mut send, &mut receive).await.map_err(|error| self.explain(&error))?)
    }

    /// Has the device listen, for as long as what this gives lives.
    async fn ask_to_listen(
        &self,
        connection: &Connection,
        forwards: &[Forward],
        tell: bool,
    ) -> anyhow::Result<Asked> {
        let explain = |error: StreamError| self.explain(&error);
        let name = name_of(self.link.device);
        let mut asked = Asked::new();
        for (id, Forward { listen, connect }) in (0..).zip(forwards) {
            let (mut send, mut receive) =
                connection.open_bi().await.map_err(|error| explain(error.into()))?;
            wire::write(&mut send, &Request::Listen { at: listen.clone(), id }).await.map_err(explain)?;
            let answer: Answer = wire::read(&mut receive).await.map_err(explain)?;
            match answer.into_result() {
                Ok(listening) if tell => {
                    let listening = format!("{name} {listening}");
                    self.tell(Line::Listening { listening, to: connect.to_string() }).await;
                }
                Ok(_) => {}
                Err(why) => anyhow::bail!("{name} {why}"),
            }
            let place = listen.clone();
            asked.spawn(async move {
                // Its end would be the place's.
                let _send = send;
                matches!(receive.read_chunk(1, true).await, Ok(None)).then_some(place)
            });
        }
        Ok(asked)
    }

    /// Has a device that was lost listen again, as soon as it can be reached and does.
    async fn ask_again(&self, forwards: &[Forward]) -> (Arc<Held>, Asked) {
        let mut told = String::new();
        loop {
            tokio::time::sleep(AGAIN).await;
            let again = async {
                let held = self.link.connection().await?;
                let asked = self.ask_to_listen(&held.0, forwards, false).await?;
                anyhow::Ok((held, asked))
            };
            match again.await.map_err(|error| error.to_string()) {
                Ok(again) => return again,
                Err(why) if why == told => {}
                Err(why) => {
                    note(&why);
                    told = why;
                }
            }
        }
    }

    /// Carries what comes in there, until the connection ends; an error if another one took over from it.
    async fn take_arrivals(
        self: &Arc<Self>,
        connection: &Connection,
        asked: &mut Asked,
    ) -> anyhow::Result<StreamError> {
        loop {
            tokio::select! {
                arrived = connection.accept_bi() => match arrived {
                    Ok((send, receive)) => {
                        tokio::spawn(Arc::clone(self).arrived(send, receive));
                    }
                    Err(error) => return Ok(error.into()),
                },
                Some(Ok(Some(place))) = asked.join_next() => anyhow::bail!(
                    "{} listens at {place} for another command of this device now",
                    name_of(self.link.device)
                ),
            }
        }
    }

    /// A socket that came in there.
    async fn arrived(self: Arc<Self>, mut send: SendStream, mut receive: RecvStream) {
        let Ok(Request::Arrived(id)) = wire::read(&mut receive).await else { return };
        // The device may only name what was asked of it.
        let Some(to) = self.remote.get(&id) else { return };
        let carried = match Socket::connect(to).await {
            Ok(socket) => {
                let joined = socket.join(&mut send, &mut receive).await;
                joined.map_err(|error| self.explain(&error).into())
            }
            Err(error) => {
                let _ = send.reset(VarInt::from_u32(1));
                let _ = receive.stop(VarInt::from_u32(1));
                Err(anyhow::anyhow!("cannot be connected to: {error}"))
            }
        };
        self.ended(to, carried).await;
    }
}

/// Asks for a place there.
async fn ask(connection: &Connection, to: &Place) -> Result<(SendStream, RecvStream, Answer), StreamError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    wire::write(&mut send, &Request::Connect(to.clone())).await?;
    let answer = wire::read(&mut receive).await?;
    Ok((send, receive, answer))
}
