//! `bowline serve`: lets listed devices reach listed targets from here. Nothing else, and nothing by default.

use std::{collections::HashSet, future::pending, sync::Arc};

use bowline::{Allow, DeviceId};
use bowline_quic::{
    Accepted,
    quinn::{Connection, RecvStream, SendStream},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    WrongUse,
    args::HostArgs,
    config::Config,
    forwarding::{
        SERVICE,
        guard::{Guard, Listening, Target},
        holds::Holds,
        socket::{Listener, Socket},
        spec::Place,
        wire::{self, Answer, Request},
    },
    names::{device, name_of},
    notes::note,
    output::Output,
    signals::Stop,
    streams::{StreamError, Streams, accept},
};

/// Lines that wait to be printed.
const LINES: usize = 1024;

/// Let listed devices reach listed targets from this device: for `bowline forward` and `bowline ssh-proxy`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is allowed but what is listed here or under [serve] in the configuration file. Targets are compared as they are written: \
localhost:22 allows localhost:22, and not 127.0.0.1:22. Ends with Ctrl-C.

With --json, a line when a device comes or goes: device, connected; when one is refused (once a minute): device, refused; when it has this one listen: device, listening; and for each \
socket that was refused or has ended: device, to, sent, received, error. `to` is what it was connected to or, for one that came in here, where \
this device listens; `sent` counts the bytes that went to the device.

Examples:
  bowline serve --allow 93kz-a462-42sk-d06c-7gh2-3ksw --target localhost:22
  bowline serve --allow 93kz-a462-42sk-d06c-7gh2-3ksw --target localhost:* --target /run/app.sock
  bowline serve --allow 93kz-a462-42sk-d06c-7gh2-3ksw --listen 8080")]
pub(crate) struct Args {
    /// A device that may come in, by its ID or its name; may be repeated
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    allow: Vec<DeviceId>,
    /// What it may reach: host:port, host:* or the path of a Unix socket; may be repeated
    #[arg(long, value_name = "TARGET")]
    target: Vec<Target>,
    /// Where it may have this device listen (`forward -R`): [bind:]port or the path of a Unix socket; may be repeated
    #[arg(long, value_name = "PLACE")]
    listen: Vec<Listening>,
    /// Print one JSON object per device that comes or goes, per listener, and per socket that ended
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// `[serve]` in the configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Lists {
    /// Devices that may come in, by ID or name.
    allow: Vec<String>,
    /// What they may reach.
    targets: Vec<Target>,
    /// Where they may have this device listen.
    listen: Vec<Listening>,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let listed: Result<Vec<DeviceId>, _> = config.serve.allow.iter().map(|text| device(text)).collect();
    let listed = listed.map_err(|error| WrongUse(format!("[serve] allow: {error}")))?;
    let devices: HashSet<_> = args.allow.iter().copied().chain(listed).collect();
    let guard = Guard {
        targets: args.target.iter().chain(&config.serve.targets).cloned().collect(),
        listens: args.listen.iter().chain(&config.serve.listen).cloned().collect(),
    };
    if devices.is_empty() || guard.targets.is_empty() && guard.listens.is_empty() {
        let what = "nothing would be allowed: say who may come in (--allow DEVICE) and what they may reach (--target \
                    HOST:PORT), or list both under [serve] in the configuration file";
        return Err(WrongUse(what.to_owned()).into());
    }
    let (streams, mut listener, mut refusals) =
        Streams::listen(&args.host, config, SERVICE, Allow::Only(devices)).await?;
    let (guard, holds) = (Arc::new(guard), Holds::default());
    let (lines, mut printed) = mpsc::channel(LINES);
    let mut output = Output::new();
    let done = loop {
        tokio::select! {
            accepted = accept(&mut listener) => match accepted {
                Ok(accepted) => {
                    tokio::spawn(serve(accepted, Arc::clone(&guard), holds.clone(), lines.clone()));
                }
                Err(error) => break Err(error),
            },
            device = refusals.tell("--allow") => if args.json {
                let line = Line::Refused { device: device.to_string(), refused: true };
                if let Err(error) = output.json(&line).await {
                    break Err(error);
                }
            },
            Some(line) = printed.recv() => if args.json && let Err(error) = output.json(&line).await {
                break Err(error);
            },
            () = stop.wait() => break Ok(()),
        }
    };
    streams.leave().await;
    done
}

/// What is told of, with `--json`; notes tell people of the same.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Visit { device: String, connected: bool },
    Refused { device: String, refused: bool },
    Listening { device: String, listening: String },
    Ended { device: String, to: String, sent: u64, received: u64, error: Option<String> },
}

/// A device that is connected.
#[derive(Clone)]
struct Visitor {
    connection: Connection,
    device: DeviceId,
    name: String,
    guard: Arc<Guard>,
    holds: Holds,
    lines: mpsc::Sender<Line>,
}

/// One connection, until it ends.
async fn serve(accepted: Accepted, guard: Arc<Guard>, holds: Holds, lines: mpsc::Sender<Line>) {
    let (connection, device) = (accepted.connection.clone(), accepted.device);
    let visitor = Visitor { connection, device, name: name_of(device), guard, holds, lines };
    note(&format!("{} is connected", visitor.name));
    visitor.tell(Line::Visit { device: device.to_string(), connected: true }).await;
    while let Ok((send, receive)) = visitor.connection.accept_bi().await {
        let visitor = visitor.clone();
        tokio::spawn(async move {
            if let Err(error) = visitor.answer(send, receive).await {
                tracing::debug!(device = visitor.name, ?error, "a stream ended early");
            }
        });
    }
    note(&format!("{} is gone", visitor.name));
    visitor.tell(Line::Visit { device: device.to_string(), connected: false }).await;
}

impl Visitor {
    async fn tell(&self, line: Line) {
        let _ = self.lines.send(line).await;
    }

    /// A socket has ended, or was never made.
    async fn ended(&self, to: String, carried: Result<(u64, u64), String>) {
        let device = self.device.to_string();
        self.tell(match carried {
            Ok((sent, received)) => Line::Ended { device, to, sent, received, error: None },
            Err(error) => Line::Ended { device, to, sent: 0, received: 0, error: Some(error) },
        })
        .await;
    }

    async fn answer(&self, mut send: SendStream, mut receive: RecvStream) -> Result<(), StreamError> {
        let request: Request = wire::read(&mut receive).await?;
        let (place, refused) = match &request {
            Request::Connect(place) => (place.to_string(), self.guard.connect(place)),
            Request::Listen { at, .. } => (at.to_string(), self.guard.listen(at)),
            Request::Arrived(_) => {
                let why = "this end did not ask anybody to listen".to_owned();
                ("-".to_owned(), Err(Answer::Refused(why)))
            }
        };
        if let Err(answer) = refused {
            if let Answer::Refused(why) = &answer {
                note(&format!("{}: {why}", self.name));
                self.ended(place, Err(why.clone())).await;
            }
            return decline(&mut send, &answer).await;
        }
        match request {
            Request::Connect(place) => self.connect(&place, &mut send, &mut receive).await,
            Request::Listen { at, id } => self.listen(&at, id, &mut send, &mut receive).await,
            Request::Arrived(_) => Ok(()),
        }
    }

    async fn connect(
        &self,
        place: &Place,
        send: &mut SendStream,
        receive: &mut RecvStream,
    ) -> Result<(), StreamError> {
        match Socket::connect(place).await {
            Ok(socket) => {
                wire::write(send, &Answer::Ok(place.to_string())).await?;
                let carried = socket.join(send, receive).await;
                self.ended(place.to_string(), carried.map_err(|error| in_words(&error))).await;
                Ok(())
            }
            Err(error) => {
                let why = format!("could not connect to {place}: {error}");
                self.ended(place.to_string(), Err(why.clone())).await;
                decline(send, &Answer::Failed(why)).await
            }
        }
    }

    /// Listens for as long as the other end keeps its stream open, or until the same device wants the place by another connection.
    async fn listen(
        &self,
        at: &Place,
        id: u32,
        send: &mut SendStream,
        receive: &mut RecvStream,
    ) -> Result<(), StreamError> {
        let mut hold = match at.is_one() {
            true => self.holds.take(self.device, at, self.connection.stable_id()).await,
            false => None,
        };
        let taken_over = async {
            match &mut hold {
                Some(hold) => hold.is_wanted().await,
                None => pending().await,
            }
        };
        tokio::pin!(taken_over);
        let listener = match Listener::bind(at).await {
            Ok(listener) => listener,
            Err(error) => {
                let why = format!("could not listen at {at}: {error}");
                self.ended(at.to_string(), Err(why.clone())).await;
                return decline(send, &Answer::Failed(why)).await;
            }
        };
        let address = listener.address(at);
        note(&format!("listening at {address} for {}", self.name));
        self.tell(Line::Listening { device: self.device.to_string(), listening: address.clone() }).await;
        wire::write(send, &Answer::Ok(address.clone())).await?;
        loop {
            tokio::select! {
                socket = listener.accept() => match socket {
                    Ok(socket) => {
                        // Who opens more than the other end takes waits here, and what comes in waits in the system.
                        let (send, receive) = self.connection.open_bi().await?;
                        tokio::spawn(self.clone().arrived(socket, id, address.clone(), send, receive));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                },
                _ = receive.read_chunk(1, true) => return Ok(()),
                () = &mut taken_over => {
                    note(&format!("{} has another connection listen at {address}", self.name));
                    return Ok(());
                }
            }
        }
    }

    /// A socket that came in here.
    async fn arrived(
        self,
        socket: Socket,
        id: u32,
        at: String,
        mut send: SendStream,
        mut receive: RecvStream,
    ) {
        let carried = async {
            wire::write(&mut send, &Request::Arrived(id)).await?;
            socket.join(&mut send, &mut receive).await
        };
        let carried = carried.await;
        self.ended(at, carried.map_err(|error| in_words(&error))).await;
    }
}

async fn decline(send: &mut SendStream, answer: &Answer) -> Result<(), StreamError> {
    wire::write(send, answer).await?;
    let _ = send.finish();
    let _ = send.stopped().await;
    Ok(())
}

fn in_words(error: &StreamError) -> String {
    match error {
        StreamError::Lost(error) => error.to_string(),
        StreamError::Reset => "the device broke off".to_owned(),
        StreamError::Stopped => "the device takes no more".to_owned(),
        StreamError::Local(why) => why.clone(),
    }
}
