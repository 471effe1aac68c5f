//! The endpoint: a bowline endpoint that carries QUIC and nothing else.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool, atomic::Ordering::SeqCst},
    time::Duration,
};

use bowline::{DeviceId, SecretKey};
use quinn::{
    ClientConfig, Connection, ConnectionError, EndpointConfig, MtuDiscoveryConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::sign::CertifiedKey;
use tokio::time::{Instant, timeout_at};

use crate::{
    ConnectError, Listen, Listener, SetupError, address,
    config::{
        ACCEPTED_LOOK, CLOSE, CONNECTION_WINDOW, FAREWELLS, HANDSHAKE, IDLE, INITIAL_RTT, KEEP_ALIVE,
        LARGEST_MTU, MTU_INTERVAL, SMALLEST_MTU, STREAM_WINDOW, STREAMS,
    },
    congestion::Factory,
    error::explain,
    gone, listener,
    paths::{self, InUse, Paths},
    socket::Socket,
    tls,
};

/// Encrypted connections to and from devices, by their ID. Clones are the same endpoint.
///
/// Dropping the last clone, its [`Listener`] and all connections closes the bowline endpoint in the background; [`Endpoint::close`]
/// does so, tells the other ends, and waits.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bowline: bowline::Endpoint,
    quinn: quinn::Endpoint,
    socket: Arc<Socket>,
    key: Arc<CertifiedKey>,
    /// The device whose key that is.
    identity: DeviceId,
    paths: Arc<Paths>,
    /// Held by the listener, while there is one.
    listens: Arc<AtomicBool>,
    /// Whether there ever was a connection, or could have been, that somebody may have to be told the end of.
    connected: AtomicBool,
    in_use: InUse,
}

impl Endpoint {
    /// Takes a bowline endpoint for QUIC: all that it receives from now on is, or is passed over.
    ///
    /// `key` proves who this device is. Mostly it is the endpoint's own; a program that only dials may run under an ID that
    /// nobody knows and still prove to be a device whose key it has.
    ///
    /// # Errors
    /// When there is no Tokio runtime, or TLS does not take the key.
    pub fn new(bowline: bowline::Endpoint, key: &SecretKey) -> Result<Self, SetupError> {
        refuse_without_runtime()?;
        let certified = tls::certified(key)?;
        let socket = Arc::new(Socket::new(bowline.clone()));
        let (reset, ids) = keys_of_before(key);
        let mut config = EndpointConfig::new(Arc::new(reset));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
        config
            .max_udp_payload_size(LARGEST_MTU)
            .map_err(|error| SetupError::Runtime(std::io::Error::other(error)))?;
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config,
            None,
            Arc::clone(&socket) as _,
            Arc::new(TokioRuntime),
        )
        .map_err(SetupError::Runtime)?;
        let paths = Arc::new(Paths::default());
        let in_use = InUse::default();
        let unused = in_use.subscribe();
        tokio::spawn(paths::watch(
            bowline.events(),
            Arc::clone(&paths),
            quinn.clone(),
            Arc::clone(&socket),
            unused,
        ));
        let inner = Inner {
            bowline,
            quinn,
            socket,
            key: certified,
            identity: key.device_id(),
            paths,
            listens: Arc::default(),
            connected: AtomicBool::new(false),
            in_use,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The device that others dial to reach this endpoint.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.inner.bowline.id()
    }

    /// The device that this endpoint proves to be.
    #[must_use]
    pub fn identity(&self) -> DeviceId {
        self.inner.identity
    }

    /// What is below: for its events, its status, its switches. Its messages are not for others.
    #[must_use]
    pub fn bowline(&self) -> &bowline::Endpoint {
        &self.inner.bowline
    }

    /// Connects to a device, for one of its services (an ALPN identifier). When this returns, the other end has proven to have the
    /// key that was dialled; whether it takes *this* device's key shows with the first answer on a stream ([`explain`] says so).
    ///
    /// Waits 15 seconds at most for a way and an answer.
    ///
    /// # Errors
    /// When nothing answers, when what answers is not that device, when it refuses; each says which and why.
    pub async fn connect(&self, device: DeviceId, service: &[u8]) -> Result<Connection, ConnectError> {
        self.connect_within(HANDSHAKE, device, service).await
    }

    /// As [`Endpoint::connect`], with another patience.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_within(
        &self,
        patience: Duration,
        device: DeviceId,
        service: &[u8],
    ) -> Result<Connection, ConnectError> {
        let inner = &*self.inner;
        if device == self.id() || device == inner.identity {
            return Err(ConnectError::Oneself(device));
        }
        let deadline = Instant::now() + patience;
        let no_answer = |why| ConnectError::NoAnswer { device, seconds: patience.as_secs(), why };
        if timeout_at(deadline, self.way(device)).await.is_err() {
            return Err(no_answer(self.why_no_base()));
        }
        let stranger = Arc::new(OnceLock::new());
        let local = |error: &dyn std::fmt::Display| ConnectError::Local(error.to_string());
        let tls = tls::client(Arc::clone(&inner.key), device, service, Arc::clone(&stranger))
            .map_err(|e| local(&e))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport(&inner.paths, device)));
        config.token_store(Arc::new(quinn::NoneTokenStore));
        let connecting =
            inner.quinn.connect_with(config, address::of(device), "bowline").map_err(|e| local(&e))?;
        match timeout_at(deadline, connecting).await {
            Ok(Ok(connection)) => {
                inner.connected.store(true, SeqCst);
                Ok(connection)
            }
            Ok(Err(error)) => match stranger.get() {
                Some(&shown) => Err(ConnectError::OtherKey { device, shown }),
                None if error == ConnectionError::TimedOut => Err(no_answer(self.why(device))),
                None => Err(ConnectError::Ended(self.explain(device, &error))),
            },
            Err(_) => Err(no_answer(self.why(device))),
        }
    }

    /// Waits until the other end of a connection that was dialled has taken this device's key: a refusal comes a round trip after the
    /// connection stands. Cancel safe.
    ///
    /// # Errors
    /// When it did not, or the connection was lost; [`Endpoint::explain`] has the words.
    pub async fn accepted(&self, connection: &Connection) -> Result<(), ConnectionError> {
        let mut looks = tokio::time::interval(ACCEPTED_LOOK);
        loop {
            tokio::select! {
                error = connection.closed() => return Err(error),
                // Who listens confirms the handshake with this once it has seen the key.
                _ = looks.tick() => if connection.stats().frame_rx.handshake_done > 0 {
                    return Ok(());
                },
            }
        }
    }

    /// Waits until there is any way to that device.
    async fn way(&self, device: DeviceId) {
        let mut events = self.inner.bowline.events();
        // Wanted, it is sought directly, too: on a local link there is no other way.
        while self.inner.bowline.want(device).is_err() || self.inner.bowline.max_datagram(device) == 0 {
            if events.next().await.is_none() {
                return;
            }
        }
    }

    fn why_no_base(&self) -> String {
        let why = self.inner.bowline.status().why_no_base;
        why.unwrap_or_else(|| "there is no base, and the device is not on a local link".to_owned())
    }

    /// What is known of the way to a device that does not answer, in words.
    #[must_use]
    pub fn why(&self, device: DeviceId) -> String {
        if self.inner.bowline.status().base.is_none() && self.inner.bowline.max_direct(device).is_none() {
            return self.why_no_base();
        }
        match self.inner.bowline.peer(device) {
            Some(peer) if peer.online == Some(false) => {
                "the base does not know it: it is not running, or at another base".to_owned()
            }
            Some(peer) => format!("{} ({}); is it listening?", peer.path, peer.why),
            None => self.why_no_base(),
        }
    }

    /// The way to the other end of a connection at present. That end may prove to be a device and run under another ID, which is the
    /// one that bowline knows.
    #[must_use]
    pub fn path(&self, connection: &Connection) -> bowline::Path {
        let device = address::device(connection.remote_address());
        let peer = device.and_then(|device| self.inner.bowline.peer(device));
        peer.map_or(bowline::Path::None, |peer| peer.path)
    }

    /// What the end of a connection to a device means.
    #[must_use]
    pub fn explain(&self, device: DeviceId, error: &ConnectionError) -> String {
        explain(device, self.inner.identity, error)
    }

    /// Begins to listen. Once the listener is dropped, it may listen again, for other services or devices.
    ///
    /// # Errors
    /// When it does already, or runs with another device's key than the one others dial; when there is no Tokio runtime here.
    pub fn listen(&self, listen: Listen) -> Result<Listener, SetupError> {
        let inner = &*self.inner;
        if inner.identity != self.id() {
            return Err(SetupError::OtherKey { key: inner.identity, endpoint: self.id() });
        }
        refuse_without_runtime()?;
        let claim = listener::Claim::take(&inner.listens).ok_or(SetupError::ListensAlready)?;
        inner.connected.store(true, SeqCst);
        listener::start(
            listen,
            claim,
            inner.quinn.clone(),
            &inner.key,
            Arc::clone(&inner.paths),
            inner.in_use.clone(),
        )
    }

    /// Waits until the other end of a connection is known to be gone: for 10 seconds its base has said that it is not there, no direct
    /// path to it has answered, and nothing has come from it. That is so soon after it has left, 45 seconds after its process
    /// was killed, 70 after it went silent; never where there is no base to say so. A connection without this is given up after 180 seconds
    /// of silence, and until then goes on where its other end comes back: who can go on later anyway need not wait as long. Cancel safe.
    pub async fn gone(&self, connection: &Connection) {
        gone::wait(&self.inner.bowline, connection, || self.inner.paths.ask()).await;
    }

    /// Ends all connections, tells the other ends, and closes the bowline endpoint. Takes two seconds at most for it, mostly far less.
    ///
    /// Connections that still stand are told of it again and again until the other end answers. One that was closed before, or whose
    /// handles were all dropped, is told once, as QUIC does it: a program that ends had better leave that to this call. Where nobody ever
    /// answered nobody is waited for.
    pub async fn close(&self) {
        let Inner { quinn, socket, bowline, .. } = &*self.inner;
        let anybody = self.inner.connected.load(SeqCst);
        socket.expect_end();
        quinn.close(VarInt::from_u32(0), b"");
        let farewell = async {
            for gap in FAREWELLS {
                tokio::time::sleep(gap).await;
                let told = socket.repeat_farewells();
                if told && quinn.open_connections() == 0 {
                    break;
                }
            }
        };
        if anybody {
            let _ = tokio::time::timeout(CLOSE, async { tokio::join!(quinn.wait_idle(), farewell) }).await;
        }
        bowline.close().await;
    }
}

/// Tasks are needed, and begin where there is a runtime alone.
fn refuse_without_runtime() -> Result<(), SetupError> {
    let here = tokio::runtime::Handle::try_current();
    here.map(drop).map_err(|error| SetupError::Runtime(std::io::Error::other(error)))
}

/// What proves, to those who were connected before a restart, that this is the same device and knows nothing of them any more (so that
/// they need not wait until its silence has lasted long enough); and how their connection IDs are recognised.
fn keys_of_before(key: &SecretKey) -> (hmac::Key, u64) {
    let from_seed = hmac::Key::new(hmac::HMAC_SHA256, &key.seed());
    let reset = hmac::sign(&from_seed, b"bowline quic stateless reset v1");
    let ids = hmac::sign(&from_seed, b"bowline quic connection ids v1");
    let ids = ids.as_ref().iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte));
    (hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref()), ids)
}

/// How connections by the way to that device are carried.
pub(crate) fn transport(paths: &Paths, device: DeviceId) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.interval(MTU_INTERVAL).black_hole_cooldown(MTU_INTERVAL).upper_bound(LARGEST_MTU);
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(Arc::new(Factory { generation: paths.of(device) }))
        .initial_mtu(SMALLEST_MTU)
        .min_mtu(SMALLEST_MTU)
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(VarInt::from_u32(u32::try_from(IDLE.as_millis()).unwrap_or(u32::MAX)).into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(STREAMS.into())
        .datagram_receive_buffer_size(None);
    config
}
