//! Running with encrypted streams: who dials, and who listens.
//!
//! Who dials proves to be this device by its key file, but runs under an ID of its own for as long as the command lasts: so any number of
//! them run beside each other, and beside `bowline serve`. With `--key` it runs under the ID of that key, which a device whose
//! configuration has an `allow` list asks for. Who listens always runs as the device that others dial.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use bowline::{Allow, DeviceId};
use bowline_quic::{
    Accepted, Endpoint, Listen, Listener, printable,
    quinn::{Connection, ConnectionError, ReadError, ReadExactError, VarInt, WriteError},
};
use tokio::sync::mpsc;

use crate::{
    args::HostArgs,
    config::Config,
    host::{Host, Identity, device_key_path, open_key},
    names::name_of,
    notes::{Teller, note},
    output::{STRONG, paint},
    silence,
};

/// Whoever waits for a device longer than this hears why.
const PATIENT: Duration = Duration::from_secs(2);

/// A refused device is told of once in this time …
const REFUSAL_AGAIN: Duration = Duration::from_secs(60);
/// … and so many devices.
const REFUSALS: usize = 20;

/// An endpoint for streams, and the device it runs on.
pub(crate) struct Streams {
    pub(crate) endpoint: Endpoint,
    host: Host,
}

/// A failed stream, in words that name the device.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl Streams {
    /// For a command that dials.
    pub(crate) async fn dial(args: &HostArgs, config: &Config) -> anyhow::Result<Self> {
        let file = open_key(args, device_key_path(args.key.as_ref(), config)?)?;
        let host = Host::start(args, config, Identity::Fresh).await?;
        let endpoint = Endpoint::new(host.endpoint.clone(), file.key())?;
        tell(&host, Teller::terse());
        Ok(Self { endpoint, host })
    }

    /// For a command that listens, for one service.
    pub(crate) async fn listen(
        args: &HostArgs,
        config: &Config,
        service: &str,
        allow: Allow,
    ) -> anyhow::Result<(Self, Listener, Refusals)> {
        let file = open_key(args, device_key_path(args.key.as_ref(), config)?)?;
        let host = Host::start(args, config, Identity::Device).await?;
        let endpoint = Endpoint::new(host.endpoint.clone(), file.key())?;
        let (refused, refusals) = mpsc::channel(REFUSALS);
        let listener = endpoint.listen(Listen::new([service]).allow(allow).refused(refused))?;
        if host.bases.is_empty() {
            note("no base is configured (--base): only devices on the same link can reach this one");
        }
        note(&format!("listening as {}", paint(STRONG, host.endpoint.id())));
        tell(&host, Teller::chatty());
        Ok((Self { endpoint, host }, listener, Refusals { refusals, told: HashMap::new() }))
    }

    /// Connects, with patience for a way there.
    pub(crate) async fn connect(
        &self,
        patience: Duration,
        device: DeviceId,
        service: &str,
    ) -> anyhow::Result<Connection> {
        let connecting = self.endpoint.connect_within(patience, device, service.as_bytes());
        tokio::pin!(connecting);
        let connected = tokio::select! {
            connected = &mut connecting => connected,
            () = tokio::time::sleep(PATIENT) => {
                if patience > PATIENT {
                    let (name, why) = (name_of(device), self.endpoint.why(device));
                    note(&format!("waiting for {name}, up to {} s: {why}", patience.as_secs_f64()));
                }
                connecting.await
            }
        };
        let connection = connected.map_err(|error| self.host.advise(error.into()))?;
        silence::watch(name_of(device), &connection);
        // Held until it ends: what is dropped meanwhile is not what closes it, but `leave`, which sees to it that the other end hears of it.
        let held = connection.clone();
        tokio::spawn(async move { held.closed().await });
        Ok(connection)
    }

    /// Ends a connection, with [`ConnectionError::LocallyClosed`], when its other end is known to be gone: for what goes on later without loss.
    pub(crate) fn end_when_gone(&self, connection: &Connection) {
        let (endpoint, connection) = (self.endpoint.clone(), connection.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = connection.closed() => {}
                () = endpoint.gone(&connection) => connection.close(VarInt::from_u32(0), b""),
            }
        });
    }

    /// What an error on a connection to a device means.
    pub(crate) fn explain(&self, device: DeviceId, error: &StreamError) -> Failed {
        let named = name_of(device);
        Failed(match error {
            StreamError::Lost(ConnectionError::LocallyClosed) => {
                format!("{named} is gone: its base says so, and nothing comes from it")
            }
            StreamError::Lost(error) => self.endpoint.explain(device, error),
            StreamError::Reset => format!("{named} broke off"),
            StreamError::Stopped => format!("{named} takes no more"),
            StreamError::Local(error) => error.clone(),
        })
    }

    /// The way to a device that was dialled, at present.
    pub(crate) fn path(&self, device: DeviceId) -> bowline::Path {
        self.host.endpoint.peer(device).map_or(bowline::Path::None, |peer| peer.path)
    }

    /// Ends all connections and leaves the base.
    pub(crate) async fn leave(self) {
        self.endpoint.close().await;
        self.host.leave().await;
    }
}

/// The devices that are refused.
pub(crate) struct Refusals {
    refusals: mpsc::Receiver<DeviceId>,
    /// When each was told of last.
    told: HashMap<DeviceId, Instant>,
}

impl Refusals {
    /// Tells of the next one that is worth a line, and gives its ID. Cancel safe.
    pub(crate) async fn tell(&mut self, option: &str) -> DeviceId {
        loop {
            let Some(device) = self.refusals.recv().await else { return std::future::pending().await };
            let now = Instant::now();
            self.told.retain(|_, at| now.duration_since(*at) < REFUSAL_AGAIN);
            // Keys are free: who makes many of them must not fill the page.
            if self.told.len() < REFUSALS && !self.told.contains_key(&device) {
                self.told.insert(device, now);
                note(&format!(
                    "refused {}: it may not come in ({option} {device} allows it)",
                    name_of(device)
                ));
                return device;
            }
        }
    }
}

/// Tells what a person should know of the base, for as long as the endpoint lives.
fn tell(host: &Host, mut teller: Teller) {
    let mut events = host.endpoint.events();
    if let Some(base) = host.endpoint.status().base {
        teller.tell_registered(&base);
    }
    tokio::spawn(async move {
        while let Some(item) = events.next().await {
            teller.tell(&item);
        }
    });
}

/// Who may connect, as `--from` says: whoever is named there, or everyone where nobody is.
pub(crate) fn allow_from(from: &[DeviceId]) -> Allow {
    if from.is_empty() { Allow::Everyone } else { Allow::Only(from.iter().copied().collect::<HashSet<_>>()) }
}

/// Waits for the next connection.
pub(crate) async fn accept(listener: &mut Listener) -> anyhow::Result<Accepted> {
    listener.accept().await.ok_or_else(|| anyhow::anyhow!("the endpoint is closed"))
}

/// Why a stream did not go on.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// The connection is gone.
    Lost(ConnectionError),
    /// The other end broke off what it sent.
    Reset,
    /// The other end wants no more.
    Stopped,
    /// This end.
    Local(String),
}

impl StreamError {
    pub(crate) fn local(what: &str, error: &dyn fmt::Display) -> Self {
        Self::Local(format!("{what}: {}", printable(&error.to_string())))
    }
}

impl From<ConnectionError> for StreamError {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error)
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::Stopped(_) => Self::Stopped,
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::Reset(_) => Self::Reset,
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<ReadExactError> for StreamError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::Reset,
            ReadExactError::ReadError(error) => error.into(),
        }
    }
}
