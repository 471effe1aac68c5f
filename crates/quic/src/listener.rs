//! Listening: connections from other devices, under limits that strangers cannot get around.
//!
//! A stranger costs this device one handshake at most: its key is compared with the allow list as soon as it is shown, within the
//! handshake, and it opens no stream before. Handshakes are bounded in number; beyond a part of them a device first has to show that
//! it hears what is sent to it (QUIC's Retry, which costs no state), and beyond the bound the one that has taken longest ends: who means it
//! needs a round trip or two. One address (a bowline ID, which a base vouches for) has few at a time.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
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
        BACKLOG, CONNECTION_WINDOW, CONNECTIONS, CONNECTIONS_PER_ADDRESS, HANDSHAKE, HANDSHAKES,
        HANDSHAKES_PER_ADDRESS, HANDSHAKES_UNPROVEN, LEAST_WINDOW, WINDOWS, WINDOWS_OF_ADDRESS,
    },
    endpoint::transport,
    paths::{InUse, Paths},
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
    /// At that moment they have shown their key, and not yet proven to have it: good for a line that helps somebody to complete a list, and
    /// not for more.
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
    _claim: Claim,
    _in_use: InUse,
}

/// That an endpoint listens, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// `None` while there is one already.
    pub(crate) fn take(listens: &Arc<AtomicBool>) -> Option<Self> {
        (!listens.swap(true, SeqCst)).then(|| Self(Arc::clone(listens)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
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
    claim: Claim,
    quinn: quinn::Endpoint,
    key: &Arc<CertifiedKey>,
    paths: Arc<Paths>,
    in_use: InUse,
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
        held: Arc::default(),
        accepted: sender,
    };
    tokio::spawn(door.keep(quinn.clone()));
    Ok(Listener { accepted, quinn, _claim: claim, _in_use: in_use })
}

struct Door {
    config: ServerConfig,
    /// Who may even begin a handshake.
    early: Option<Allow>,
    refused: Option<mpsc::Sender<DeviceId>>,
    paths: Arc<Paths>,
    handshakes: Arc<Mutex<Handshakes>>,
    connections: Arc<Semaphore>,
    held: Arc<Mutex<Held>>,
    accepted: mpsc::Sender<Accepted>,
}

impl Door {
    async fn keep(self, quinn: quinn::Endpoint) {
        loop {
            tokio::select! {
                // What comes from now on is for the next listener.
                biased;
                () = self.accepted.closed() => return,
                incoming = quinn.accept() => match incoming {
                    Some(incoming) => self.judge(incoming),
                    None => return,
                },
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
            Place::take(&self.held, from),
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
        let mut carried = transport(&self.paths, from);
        carried.receive_window(LEAST_WINDOW.into());
        config.transport_config(Arc::new(carried));
        let accepted = self.accepted.clone();
        handshakes.last += 1;
        let number = handshakes.last;
        let handshake = Handshake { all: Arc::clone(&self.handshakes), number };
        let task = tokio::spawn(async move {
            let Ok(connecting) = incoming.accept_with(Arc::new(config)) else { return };
            match timeout(HANDSHAKE, connecting).await {
                Ok(Ok(standing)) => {
                    drop(handshake);
                    hand_on(standing, &accepted, Places { _connection: connection, address: place });
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
fn hand_on(connection: Connection, accepted: &mpsc::Sender<Accepted>, mut places: Places) {
    let (Some(device), Some(service)) = (shown_by(&connection), service_of(&connection)) else { return };
    connection.set_receive_window(VarInt::from_u32(places.address.widen()));
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
    address: Place,
}

/// What connections hold, by address and in all.
#[derive(Debug, Default)]
struct Held {
    by_address: HashMap<DeviceId, Share>,
    windows: u64,
}

#[derive(Debug, Default)]
struct Share {
    connections: usize,
    windows: u64,
}

/// One of the connections of an address.
#[derive(Debug)]
struct Place {
    held: Arc<Mutex<Held>>,
    address: DeviceId,
    /// Bytes that it may hold.
    window: u32,
}

impl Place {
    fn take(held: &Arc<Mutex<Held>>, address: DeviceId) -> Option<Self> {
        let mut all = held.lock().unwrap_or_else(PoisonError::into_inner);
        let share = all.by_address.entry(address).or_default();
        if share.connections >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        share.connections += 1;
        Some(Self { held: Arc::clone(held), address, window: 0 })
    }

    /// The window of a connection that stands. The first of an address have all that a fast way needs; whoever opens ever more of them, and
    /// whoever comes when many are there, gets less with each: what nobody reads has to lie somewhere.
    fn widen(&mut self) -> u32 {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all = WINDOWS.bytes.saturating_sub(all.windows) / WINDOWS.part;
        let Some(share) = all.by_address.get_mut(&self.address) else { return LEAST_WINDOW };
        let of_its = WINDOWS_OF_ADDRESS.bytes.saturating_sub(share.windows) / WINDOWS_OF_ADDRESS.part;
        let window = u32::try_from(of_all.min(of_its)).unwrap_or(u32::MAX);
        self.window = window.clamp(LEAST_WINDOW, CONNECTION_WINDOW);
        share.windows += u64::from(self.window);
        all.windows += u64::from(self.window);
        self.window
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let window = u64::from(self.window);
        all.windows -= window;
        if let Some(share) = all.by_address.get_mut(&self.address) {
            share.connections -= 1;
            share.windows -= window;
            if share.connections == 0 {
                all.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn windows_shrink_with_each_connection_and_what_all_may_hold_is_bounded() {
        let held = Arc::<Mutex<Held>>::default();
        let mut places = Vec::new();
        for address in 0..16 {
            let windows: Vec<u32> = (0..CONNECTIONS_PER_ADDRESS)
                .map(|_| {
                    let mut place = Place::take(&held, DeviceId::from_bytes([address; 14])).unwrap();
                    let window = place.widen();
                    places.push(place);
                    window
                })
                .collect();
            assert!(windows.is_sorted_by(|a, b| a >= b), "{windows:?}");
            assert_eq!(windows[0] == CONNECTION_WINDOW, address < 4, "{windows:?}");
            let all: u64 = windows.into_iter().map(u64::from).sum();
            assert!(all <= 160 * MIB, "{all}");
        }
        let all: u64 = places.iter().map(|place| u64::from(place.window)).sum();
        assert!(all <= 1536 * MIB, "{all}");
        drop(places);
        let held = held.lock().unwrap();
        assert_eq!((held.windows, held.by_address.len()), (0, 0));
    }
}
