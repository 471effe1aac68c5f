//! The connection to NATS: kept up by its client, watched here. Each time it stands, the store is opened, the leases are read, and only
//! then the machine hears that the bus is up.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{Client, ClientError, Event, Subscriber, jetstream, jetstream::kv::Operation};
use bowline_proto::{
    DeviceId,
    base::{BusOutput, CameOver, Over},
    wire::cluster::BASE_DATA,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    Data, Heard,
    config::{ClusterConfig, ConfigError, REQUEST_TIMEOUT, Tried},
    store::{Failure, Store},
};

/// A server that has just started may not have its store ready.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// What opening the store may take. A server whose store is just choosing a leader may leave a question without an answer.
const OPENING: Duration = Duration::from_secs(5);
/// Of so many attempts to connect in a row that fail one is logged: a line a minute.
const FAILURES_A_LINE: u32 = 60;
/// After so many tries somebody is told.
const LOUD: u32 = 8;
/// Requests to the store under way at one time; the machine asks for as many.
const REQUESTS: usize = 512;
/// Leases that are read at one time when the link stands.
const READ_AT_ONCE: usize = 32;
/// How long what was said last may take to leave.
const FLUSH: Duration = Duration::from_millis(500);

/// Starts to connect.
pub(crate) async fn start(
    config: &ClusterConfig,
    base: DeviceId,
    commands: mpsc::Receiver<BusOutput>,
    data_out: mpsc::Receiver<(Over, Bytes)>,
    heard: mpsc::Sender<Heard>,
    data_in: mpsc::Sender<Data>,
) -> Result<JoinHandle<()>, ConfigError> {
    let name = config.checked_name()?.to_owned();
    let servers = config.addresses()?;
    let (connected_in, connected) = watch::channel((false, 0));
    let list = servers.iter().map(|server| format!("{}:{}", server.host(), server.port()));
    let failures = Failures {
        servers: list.collect::<Vec<_>>().join(", "),
        others_there: (servers.len() as u32).clamp(1, FAILURES_A_LINE) - 1,
        ..Failures::default()
    };
    let identity = config.identity();
    let tried = Arc::<Tried>::default();
    let options = config.options(format!("bowline base {base}"), &tried)?.event_callback(move |event| {
        match &event {
            Event::Connected => {
                tried.forget();
                failures.end();
                connected_in.send_modify(|state| *state = (true, state.1 + 1));
            }
            Event::Disconnected | Event::Closed => connected_in.send_modify(|state| state.0 = false),
            Event::SlowConsumer(_) => {
                tracing::warn!("more comes from the cluster's bus than this base takes");
            }
            Event::ServerError(error) => tracing::warn!(%error, "the NATS server says"),
            Event::ClientError(error) => failures.tell(error, &identity),
            _ => {}
        }
        async {}
    });
    let client = options.connect(servers).await.map_err(|e| ConfigError::Client(e.to_string()))?;
    let link = Link {
        base,
        prefix: format!("bowline.{name}"),
        name,
        replicas: config.replicas.max(1),
        client,
        heard,
        data_in,
        store: None,
        shards: HashMap::new(),
        requests: JoinSet::new(),
        listening: JoinSet::new(),
    };
    Ok(tokio::spawn(link.run(commands, data_out, connected)))
}

/// Attempts to connect that failed in a row: of each kind one in [`FAILURES_A_LINE`] is told.
#[derive(Debug, Default)]
struct Failures {
    /// Where it tries, without passwords.
    servers: String,
    /// That one server does not answer is nothing, as long as another one does.
    others_there: u32,
    refused: AtomicU32,
    others: AtomicU32,
}

impl Failures {
    fn tell(&self, error: &ClientError, identity: &str) {
        // The client says it in words alone. Of credentials that cannot be used somebody was told.
        let text = error.to_string();
        let (refused, unusable) = (text.contains("authorization violation"), text.contains("signing"));
        let (count, first) = if refused { (&self.refused, 0) } else { (&self.others, self.others_there) };
        if unusable || count.fetch_add(1, Relaxed) % FAILURES_A_LINE != first {
            tracing::debug!(%error, "NATS");
        } else if refused {
            tracing::warn!(%error, "the cluster's NATS server refuses this base, which has {identity}; trying on");
        } else {
            let servers = &self.servers;
            tracing::warn!(
                servers, %error,
                "cannot connect to the cluster's NATS servers (a wrong address, or TLS at one end only?); trying on"
            );
        }
    }

    fn end(&self) {
        self.refused.store(0, Relaxed);
        self.others.store(0, Relaxed);
    }
}

struct Link {
    base: DeviceId,
    prefix: String,
    name: String,
    replicas: usize,
    client: Client,
    heard: mpsc::Sender<Heard>,
    data_in: mpsc::Sender<Data>,
    /// While the bus is up.
    store: Option<Store>,
    /// The shards that are listened to; dropping the handle ends that.
    shards: HashMap<u8, tokio::task::AbortHandle>,
    requests: JoinSet<()>,
    /// To leases and to the base's own subjects, as long as this connection stands.
    listening: JoinSet<()>,
}

impl Link {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<BusOutput>,
        mut data_out: mpsc::Receiver<(Over, Bytes)>,
        mut connected: watch::Receiver<(bool, u64)>,
    ) {
        let mut session = 0;
        let mut tries = 0;
        loop {
            let (up, number) = *connected.borrow_and_update();
            if !up || number != session {
                self.down().await;
            }
            if up && self.store.is_none() {
                session = number;
                let opened = timeout(OPENING, self.up()).await;
                if let Err(error) = opened.unwrap_or_else(|_| Err("it does not answer".into())) {
                    tries += 1;
                    if tries == LOUD {
                        tracing::warn!(
                            %error,
                            "connected to NATS, whose store is not ready (JetStream has to be on: nats-server -js); trying on"
                        );
                    }
                    tracing::debug!(%error, "the cluster's store is not ready");
                    self.listening.abort_all();
                    tokio::select! {
                        () = sleep(TRY_AGAIN) => {}
                        _ = connected.changed() => {}
                        // Nothing can be done for the machine meanwhile; it knows that.
                        Some(_) = commands.recv() => {}
                        () = self.heard.closed() => return,
                    }
                    continue;
                }
                tries = 0;
            }
            tokio::select! {
                biased;
                changed = connected.changed() => if changed.is_err() { return },
                Some(_) = self.requests.join_next() => {}
                // Before data, of which there may always be more: without leases this base would be dead to the others.
                command = commands.recv(), if self.requests.len() < REQUESTS => match command {
                    Some(command) => self.say(command).await,
                    None => break,
                },
                Some((over, bytes)) = data_out.recv() => self.send(over, bytes).await,
            }
        }
        let end = async {
            while self.requests.join_next().await.is_some() {}
            let _ = self.client.flush().await;
        };
        let _ = timeout(FLUSH, end).await; // the lease ends by itself, too
    }

    /// The connection stands: opens the store, listens, reads the leases that stand, in this order.
    async fn up(&mut self) -> Result<(), Failure> {
        let mut context = jetstream::new(self.client.clone());
        // That the store does not answer is to be known before the leases that are in it lapse.
        context.set_timeout(REQUEST_TIMEOUT);
        let store = Store::open(&context, &self.name, self.replicas).await?;
        let mut leases = store.leases.watch_all().await?;
        let own = self.client.subscribe(format!("{}.base.{}", self.prefix, self.base)).await?;
        let data = self.client.subscribe(format!("{}.data.{}", self.prefix, self.base)).await?;
        let to_all = self.client.subscribe(self.all()).await?;
        self.client.flush().await?;
        self.hear_leases(&store).await?;
        let seen = self.client.server_info().client_ip.parse().ok();
        self.hear(Heard::Up { seen }).await;
        self.listening = JoinSet::new();
        let heard = self.heard.clone();
        self.listening.spawn(async move {
            while let Some(entry) = leases.next().await {
                let Ok(entry) = entry else { continue };
                let said = match (entry.operation, entry.key.parse()) {
                    (Operation::Put, _) => Heard::Lease(entry.value),
                    (_, Ok(base)) => Heard::LeaseEnded(base),
                    (_, Err(_)) => continue,
                };
                if heard.send(said).await.is_err() {
                    return;
                }
            }
        });
        self.listening.spawn(listen(own, CameOver::Bus, self.heard.clone(), self.data_in.clone()));
        self.listening.spawn(listen(data, CameOver::Bus, self.heard.clone(), self.data_in.clone()));
        self.listening.spawn(listen(to_all, CameOver::All, self.heard.clone(), self.data_in.clone()));
        self.store = Some(store);
        Ok(())
    }

    /// The leases that stand. Not one after the other: where the store is far away, it would take longer than they live.
    async fn hear_leases(&self, store: &Store) -> Result<(), Failure> {
        let own = self.base.to_string();
        let others = store.leases.keys().await?.try_filter(|base| std::future::ready(*base != own));
        let read = others.err_into::<Failure>().map_ok(async |base| Ok(store.leases.get(base).await?));
        let mut read = std::pin::pin!(read.try_buffer_unordered(READ_AT_ONCE));
        while let Some(lease) = read.try_next().await? {
            if let Some(lease) = lease {
                self.hear(Heard::Lease(lease)).await;
            }
        }
        Ok(())
    }

    async fn down(&mut self) {
        self.listening.abort_all();
        for (_, shard) in self.shards.drain() {
            shard.abort();
        }
        self.requests.abort_all();
        while self.requests.join_next().await.is_some() {}
        if self.store.take().is_some() {
            self.hear(Heard::Down).await;
        }
    }

    async fn hear(&self, heard: Heard) {
        let _ = self.heard.send(heard).await; // the base is ending
    }

    async fn say(&mut self, output: BusOutput) {
        let Some(store) = self.store.clone() else { return };
        let (base, heard) = (self.base, self.heard.clone());
        match output {
            BusOutput::Lease(lease) => {
                self.requests
                    .spawn(async move { drop(heard.send(store.put_lease(base, lease.into()).await).await) });
            }
            BusOutput::EndLease => {
                self.requests.spawn(async move { store.end_lease(base).await });
            }
            BusOutput::Find(device) => {
                self.requests.spawn(async move { drop(heard.send(store.find(device).await).await) });
            }
            BusOutput::Store { device, record, over } => {
                self.requests.spawn(async move {
                    drop(heard.send(store.store(device, record.into(), over).await).await);
                });
            }
            BusOutput::Erase { device, revision } => {
                self.requests.spawn(async move { store.erase(device, revision).await });
            }
            BusOutput::Watch(shard) => self.watch(shard).await,
            BusOutput::Unwatch(shard) => {
                if let Some(shard) = self.shards.remove(&shard) {
                    shard.abort();
                }
            }
            BusOutput::Publish { shard, message } => self.publish(self.shard(shard), message.into()).await,
            BusOutput::Send { to, message } => {
                self.publish(format!("{}.base.{to}", self.prefix), message.into()).await;
            }
        }
    }

    async fn watch(&mut self, shard: u8) {
        if self.shards.contains_key(&shard) {
            return;
        }
        match self.client.subscribe(self.shard(shard)).await {
            Ok(subscriber) => {
                let hear = listen(subscriber, CameOver::Bus, self.heard.clone(), self.data_in.clone());
                self.shards.insert(shard, self.listening.spawn(hear));
            }
            Err(error) => tracing::debug!(shard, %error, "cannot listen to a shard of the cluster"),
        }
    }

    async fn send(&mut self, over: Over, bytes: Bytes) {
        match over {
            Over::Bus(base) => self.publish(format!("{}.data.{base}", self.prefix), bytes).await,
            Over::All => self.publish(self.all(), bytes).await,
            Over::Udp { .. } => {}
        }
    }

    async fn publish(&self, subject: String, bytes: Bytes) {
        if self.store.is_some()
            && let Err(error) = self.client.publish(subject, bytes).await
        {
            tracing::debug!(%error, "cannot say something on the cluster's bus");
        }
    }

    fn all(&self) -> String {
        format!("{}.data", self.prefix)
    }

    fn shard(&self, shard: u8) -> String {
        format!("{}.shard.{shard}", self.prefix)
    }
}

/// Hands on what comes on a subject. Control waits for the machine; a device's message that it has no time for is dropped.
async fn listen(
    mut subscriber: Subscriber,
    came: CameOver,
    heard: mpsc::Sender<Heard>,
    data: mpsc::Sender<Data>,
) {
    while let Some(message) = subscriber.next().await {
        if message.payload.first() == Some(&BASE_DATA) {
            let _ = data.try_send(Data { came, bytes: message.payload });
        } else if heard.send(Heard::Message(message.payload)).await.is_err() {
            return;
        }
    }
}
