//! `bowline serve`: lets listed devices reach listed targets from here. Nothing else, and nothing by default.

use std::{collections::HashSet, sync::Arc};

use bowline::{Allow, DeviceId};
use bowline_quic::{
    Accepted,
    quinn::{Connection, RecvStream, SendStream},
};
use serde::Deserialize;

use crate::{
    WrongUse,
    args::HostArgs,
    config::Config,
    forwarding::{
        SERVICE,
        guard::{Guard, Listening, Target},
        socket::{Listener, Socket},
        spec::Place,
        wire::{self, Answer, Request},
    },
    names::{device, name_of},
    notes::note,
    signals::Stop,
    streams::{StreamError, Streams, accept},
};

/// Let listed devices reach listed targets from this device: for `bowline forward` and `bowline ssh-proxy`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is allowed but what is listed here or under [serve] in the configuration file. Targets are compared as they are written: \
localhost:22 allows localhost:22, and not 127.0.0.1:22. Ends with Ctrl-C.

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
    let (streams, mut listener) = Streams::listen(&args.host, config, SERVICE, Allow::Only(devices)).await?;
    let guard = Arc::new(guard);
    let done = loop {
        tokio::select! {
            accepted = accept(&mut listener) => match accepted {
                Ok(accepted) => {
                    tokio::spawn(serve(accepted, Arc::clone(&guard)));
                }
                Err(error) => break Err(error),
            },
            () = stop.wait() => break Ok(()),
        }
    };
    streams.leave().await;
    done
}

/// One connection, until it ends.
async fn serve(accepted: Accepted, guard: Arc<Guard>) {
    let name = name_of(accepted.device);
    note(&format!("{name} is connected"));
    let connection = &accepted.connection;
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (connection, guard, name) = (connection.clone(), Arc::clone(&guard), name.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(&connection, &guard, send, receive, &name).await {
                tracing::debug!(device = name, ?error, "a stream ended early");
            }
        });
    }
    note(&format!("{name} is gone"));
}

async fn answer(
    connection: &Connection,
    guard: &Guard,
    mut send: SendStream,
    mut receive: RecvStream,
    name: &str,
) -> Result<(), StreamError> {
    let request: Request = wire::read(&mut receive).await?;
    let refused = match &request {
        Request::Connect(place) => guard.connect(place),
        Request::Listen { at, .. } => guard.listen(at),
        Request::Arrived(_) => Err(Answer::Refused("this end did not ask anybody to listen".to_owned())),
    };
    if let Err(answer) = refused {
        if let Answer::Refused(why) = &answer {
            note(&format!("{name}: {why}"));
        }
        return decline(&mut send, &answer).await;
    }
    match request {
        Request::Connect(place) => connect(&place, &mut send, &mut receive).await,
        Request::Listen { at, id } => listen(connection, &at, id, &mut send, &mut receive, name).await,
        Request::Arrived(_) => Ok(()),
    }
}

async fn decline(send: &mut SendStream, answer: &Answer) -> Result<(), StreamError> {
    wire::write(send, answer).await?;
    let _ = send.finish();
    let _ = send.stopped().await;
    Ok(())
}

async fn connect(place: &Place, send: &mut SendStream, receive: &mut RecvStream) -> Result<(), StreamError> {
    match Socket::connect(place).await {
        Ok(socket) => {
            wire::write(send, &Answer::Ok(place.to_string())).await?;
            socket.join(send, receive).await?;
            Ok(())
        }
        Err(error) => decline(send, &Answer::Failed(format!("could not connect to {place}: {error}"))).await,
    }
}

/// Listens for as long as the other end keeps its stream open.
async fn listen(
    connection: &Connection,
    at: &Place,
    id: u32,
    send: &mut SendStream,
    receive: &mut RecvStream,
    name: &str,
) -> Result<(), StreamError> {
    let listener = match Listener::bind(at).await {
        Ok(listener) => listener,
        Err(error) => {
            return decline(send, &Answer::Failed(format!("could not listen at {at}: {error}"))).await;
        }
    };
    let address = listener.address(at);
    note(&format!("listening at {address} for {name}"));
    wire::write(send, &Answer::Ok(address)).await?;
    loop {
        tokio::select! {
            socket = listener.accept() => match socket {
                Ok(socket) => {
                    // Who opens more than the other end takes waits here, and what comes in waits in the system.
                    let (mut send, mut receive) = connection.open_bi().await?;
                    tokio::spawn(async move {
                        wire::write(&mut send, &Request::Arrived(id)).await?;
                        socket.join(&mut send, &mut receive).await
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            _ = receive.read_chunk(1, true) => return Ok(()),
        }
    }
}
