//! Listening: connections from other devices, under limits that strangers cannot get around.
//!
//! A stranger costs this device one handshake at most: its key is compared with the allow list as soon as it is shown, within the
//! handshake, and it opens no stream before. Handshakes are bounded in number; beyond a part of them a device first has to show that
//! it hears what is sent to it (QUIC's Retry, which costs no state), and beyond the bound the one that has taken longest ends: who means it needs
//! a round trip or two. One address (a bowline ID, which a base vouches for) has few at a time.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bowline::{Allow, DeviceId};
use quinn::{Connection, Incoming, ServerConfig, VarInt, crypto::rustls::HandshakeData};
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    SetupError, address,
    config::{
        BACKLOG, CONNECTIONS, CONNECTIONS_PER_ADDRESS, HANDSHAKE, HANDSHAKES, HANDSHAKES_PER_ADDRESS,
        HANDSHAKES_UNPROVEN,
    },
    endpoint::transport,
    paths::Paths,
    tls,
};

/// What to listen for.
#[derive(Debug, Clone)]
pub struct Listen {
    services: Vec<Vec<u8>>,
    allow: Allow,
    under_own_id: bool,
    refused: Option<mpsc::Sender<DeviceId>>,
}

impl Listen {
    /// For these services (ALPN identifiers), from nobody yet.
    pub fn new<S: AsRef<[u8]>>(services: impl IntoIterator<Item = S>) -> Self {
        let services = services.into_iter().map(|service| service.as_ref().to_vec()).collect();
        Self { services, allow: Allow::Only([].into()), under_own_id: false, refused: None }
    }

    /// The devices that may connect.
    #[must_use]
    pub fn allow(mut self, allow: Allow) -> Self {
        self.allow = allow;
        self
    }

    /// Whether devices have to dial under their own ID. Strangers are then refused before they cost a handshake; programs that
    /// prove to be a device while they run under another ID are, too.
    #[must_use]
    pub fn under_own_id(mut self, yes: bool) -> Self {
        self.under_own_id = yes;
        self
    }

    /// Where to tell of devices that were refused because they are not among those that may connect; what does not fit there is dropped.
    /// At that moment they have shown their key, and not yet proven to have it: good for a line that helps somebody to complete a list, and not for
    /// more.
    #[must_use]
    pub fn refused(mut self, to: mpsc::Sender<DeviceId>) -> Self {
        self.refused = Some(to);
        self
    }
}

/// A connection that stands. It counts against the bounds for as long as this lives: keep it with the connection.
#[derive(Debug)]
pub struct Accepted {
    /// The device that it is from: it has proven to have its key, and is allowed.
    pub device: DeviceId,
    /// The service that it asked for.
    pub service: Vec<u8>,
    /// quinn's own.
    pub connection: Connection,
    _places: Places,
}

/// Where connections come in. Dropping it refuses new ones; those that stand go on.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Accepted>,
    quinn: quinn::Endpoint,
}

impl Listener {
    /// The next connection; `None` once the endpoint is closed. Cancel safe.
    pub async fn accept(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.quinn.set_server_config(None);
    }
}

pub(crate) fn start(
    listen: Listen,
    quinn: quinn::Endpoint,
    key: &Arc<CertifiedKey>,
    paths: Arc<Paths>,
) -> Result<Listener, SetupError> {
    let Listen { services, allow, under_own_id, refused } = listen;
    let tls = tls::server(Arc::clone(key), allow.clone(), refused.clone(), services)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .max_incoming(HANDSHAKES)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(4 * 1024 * 1024);
    // A device has one address for ever.
    config.migration(false);
    quinn.set_server_config(Some(config.clone()));
    let (sender, accepted) = mpsc::channel(BACKLOG);
    let door = Door {
        config,
        early: under_own_id.then_some(allow),
        refused,
        paths,
        handshakes: Arc::default(),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
        by_address: Arc::default(),
        accepted: sender,
    };
    tokio::spawn(door.keep(quinn.clone()));
    Ok(Listener { accepted, quinn })
}

struct Door {
    config: ServerConfig,
    /// Who may even begin a handshake.
    early: Option<Allow>,
    refused: Option<mpsc::Sender<DeviceId>>,
    paths: Arc<Paths>,
    handshakes: Arc<Mutex<Handshakes>>,
    connections: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<DeviceId, usize>>>,
    accepted: mpsc::Sender<Accepted>,
}

impl Door {
    async fn keep(self, quinn: quinn::Endpoint) {
        loop {
            tokio::select! {
                incoming = quinn.accept() => match incoming {
                    Some(incoming) => self.judge(incoming),
                    None => return,
                },
                () = self.accepted.closed() => return,
            }
        }
    }

    fn judge(&self, incoming: Incoming) {
        let Some(from) = address::device(incoming.remote_address()) else { return incoming.ignore() };
        if self.early.as_ref().is_some_and(|allow| !tls::allows(allow, from)) {
            tracing::debug!(%from, "refused before the handshake: not in the allow list");
            tls::tell(self.refused.as_ref(), from);
            return incoming.refuse();
        }
        let mut handshakes = locked(&self.handshakes);
        let crowded = handshakes.running.len() >= HANDSHAKES_UNPROVEN;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                error.into_incoming().ignore();
            }
            return;
        }
        let of_it = handshakes.running.iter().filter(|running| running.from == from).count();
        let (true, Ok(connection), Some(place)) = (
            of_it < HANDSHAKES_PER_ADDRESS,
            Arc::clone(&self.connections).try_acquire_owned(),
            Place::take(&self.by_address, from),
        ) else {
            tracing::debug!(%from, "not answered: too many connections");
            return incoming.ignore();
        };
        if handshakes.running.len() >= HANDSHAKES
            && let Some(oldest) = handshakes.running.pop_front()
        {
            tracing::debug!(from = %oldest.from, "a handshake that took long has made room for another");
            oldest.task.abort();
        }
        let mut config = self.config.clone();
        config.transport_config(Arc::new(transport(&self.paths, from)));
        let accepted = self.accepted.clone();
        handshakes.last += 1;
        let number = handshakes.last;
        let handshake = Handshake { all: Arc::clone(&self.handshakes), number };
        let task = tokio::spawn(async move {
            let Ok(connecting) = incoming.accept_with(Arc::new(config)) else { return };
            match timeout(HANDSHAKE, connecting).await {
                Ok(Ok(standing)) => {
                    drop(handshake);
                    hand_on(standing, &accepted, Places { _connection: connection, _address: place });
                }
                Ok(Err(error)) => tracing::debug!(%from, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%from, "a handshake took too long"),
            }
        });
        // It may have ended: then it waits for the lock, to say so.
        handshakes.running.push_back(Running { number, from, task: task.abort_handle() });
    }
}

/// Handshakes that are under way, the oldest first.
#[derive(Debug, Default)]
struct Handshakes {
    running: VecDeque<Running>,
    last: u64,
}

#[derive(Debug)]
struct Running {
    number: u64,
    from: DeviceId,
    task: AbortHandle,
}

/// A handshake's place among them, for as long as it lives.
struct Handshake {
    all: Arc<Mutex<Handshakes>>,
    number: u64,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        locked(&self.all).running.retain(|running| running.number != self.number);
    }
}

fn locked(handshakes: &Mutex<Handshakes>) -> MutexGuard<'_, Handshakes> {
    // Nothing panics while it holds this lock.
    handshakes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands a connection on, to whoever calls `accept`.
fn hand_on(connection: Connection, accepted: &mpsc::Sender<Accepted>, places: Places) {
    let (Some(device), Some(service)) = (shown_by(&connection), service_of(&connection)) else { return };
    if accepted
        .try_send(Accepted { device, service, connection: connection.clone(), _places: places })
        .is_err()
    {
        connection.close(VarInt::from_u32(1), b"too many connections wait there: try again later");
    }
}

/// The device whose key the other end has proven to have.
fn shown_by(connection: &Connection) -> Option<DeviceId> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::device_of(identity.first()?)
}

fn service_of(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// What a connection occupies.
#[derive(Debug)]
struct Places {
    _connection: OwnedSemaphorePermit,
    _address: Place,
}

/// One of the connections of an address.
#[derive(Debug)]
struct Place {
    by_address: Arc<Mutex<HashMap<DeviceId, usize>>>,
    address: DeviceId,
}

impl Place {
    fn take(by_address: &Arc<Mutex<HashMap<DeviceId, usize>>>, address: DeviceId) -> Option<Self> {
        let mut counts = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self { by_address: Arc::clone(by_address), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
