//! The loop: one task owns the machine, waits for one thing, applies it, and flushes.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_cluster::Bus;
use bowline_fastpath::{FastPath, Setup};
use bowline_proto::{
    DeviceId, SecretKey,
    base::{Base, ClusterConfig, SocketId},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant as TokioInstant, MissedTickBehavior, sleep_until},
};

use crate::{
    accept::accept,
    admin, allow, cluster,
    config::Config,
    control::{CONTROL, Control, Handle},
    goodbye::Goodbyes,
    hook::Hook,
    listen::{self, BindError, LANES, lanes_within, public_address, udp_addresses},
    owner::{EVENTS_AT_ONCE, GOODBYES, Owner, max_connections, next_datagrams},
    resources,
    udp::{Port, kernel, lanes::Lanes, worker::Workers},
};

/// Events on their way to the owner; a connection whose event does not fit stops reading. Each may be 64 KiB of frames, and
/// what has been read ahead only fills queues before anybody has had a turn to empty them.
const EVENTS: usize = 32;
/// Of all connections that the system gives descriptors for, such may be one in so many.
const GOODBYES_SHARE: usize = 8;
/// With nothing to wake for, the owner wakes anyway.
const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);

/// How often it is looked at whether there is memory, and who is to be asked about again.
const TICK: Duration = Duration::from_secs(1);

/// How a base stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Hosts are told to leave within so many seconds (GOAWAY); those still here then get ERROR 7. With 0: at once.
    Drain(u16),
}

/// A base server whose sockets are open.
#[derive(Debug)]
pub struct Server {
    id: DeviceId,
    config: Config,
    base: Base,
    /// The link to the other bases of the cluster.
    bus: Option<Bus>,
    listeners: Vec<TcpListener>,
    local_addrs: Vec<SocketAddr>,
    /// What hosts that come to each listener are told.
    udp: Vec<[(SocketId, SocketAddr); 2]>,
    /// For each worker, its sockets by number.
    ports: Vec<Vec<Arc<Lanes>>>,
    /// File descriptors that this process may have.
    descriptors: u64,
    /// Sockets of each worker on each port.
    lanes: usize,
    /// Messages between devices on UDP that never come to a worker.
    fast_path: Option<Arc<FastPath>>,
    handle: Handle,
    admin: Option<TcpListener>,
    control: mpsc::Receiver<Control>,
    hook: Option<Hook>,
    /// The file with the list as it was when it was read, and how many devices it had.
    listed: Option<(allow::Mark, usize)>,
}

impl Server {
    /// Opens the sockets of a base whose ID is made from `key`. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on, or what the configuration names cannot be used; the error says which and what can be done.
    pub async fn bind(mut config: Config, key: SecretKey) -> Result<Self, BindError> {
        let (control, for_owner) = mpsc::channel(CONTROL);
        let mark = config.allow_file.as_deref().map(allow::Mark::of);
        let from_file = config.allow_file.as_deref().map(allow::read).transpose()?;
        let hook = config.hook.as_ref().map(|hook| Hook::new(hook, control.clone())).transpose()?;
        let written = config.allow.clone();
        if let Some(list) = &from_file {
            config.allow.get_or_insert_default().extend(list);
        }
        let listed = mark.zip(from_file.as_ref().map(HashSet::len));
        let base_config = config.base_config();
        config.allow = written;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| BindError::Random(e.to_string()))?;
        let id = key.device_id();
        let mut base = Base::new(base_config, id, seed, Instant::now());
        let mut bus = None;
        if config.cluster.is_on() {
            let cluster = DeviceId::of_cluster(&config.cluster.name);
            base.join(ClusterConfig { cluster, udp: Vec::new() }, Instant::now());
            bus = Some(Bus::start(&config.cluster, id).await?);
        }
        let mut server = Self {
            id,
            base,
            bus,
            listeners: Vec::new(),
            local_addrs: Vec::new(),
            udp: Vec::new(),
            ports: vec![Vec::new(); config.workers()],
            descriptors: u64::MAX,
            lanes: LANES,
            fast_path: None,
            handle: Handle { control, reload: Arc::default() },
            admin: None,
            control: for_owner,
            hook,
            listed,
            config,
        };
        server.raise_descriptors()?;
        if let Some(address) = server.config.admin {
            let opened = admin::listen(address);
            server.admin = Some(opened.map_err(|error| BindError::Admin { address, error })?);
        }
        for listening in listen::open_all(&server.config, server.lanes)? {
            let address = listening.tcp.local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
            server.add(listening).map_err(|error| BindError::System {
                transport: "TCP and UDP",
                address,
                error,
            })?;
        }
        server.start_fast_path()?;
        Ok(server)
    }

    fn start_fast_path(&mut self) -> Result<(), BindError> {
        let interfaces = &self.config.fast_path;
        if interfaces.is_empty() {
            return Ok(());
        }
        let first = self.ports.first().into_iter().flatten();
        let sockets: Vec<SocketAddr> = first.map(|lanes| lanes.local_addr()).collect();
        let (devices, limits) = (self.config.limits.devices, self.base.relay_limits());
        let fast_path = FastPath::start(Setup { interfaces, sockets: &sockets, devices, limits })?;
        let followed = self.base.have_followed(Arc::clone(&fast_path) as _);
        debug_assert!(followed, "nobody has the routes yet");
        self.fast_path = Some(fast_path);
        Ok(())
    }

    /// Asks the system for the descriptors that the limits come to, and says what is missing.
    fn raise_descriptors(&mut self) -> Result<(), BindError> {
        let needed = resources::descriptors_for(max_connections(&self.config), self.config.sockets(LANES));
        self.descriptors = resources::raise_descriptors(needed);
        self.lanes = lanes_within(self.descriptors, &self.config);
        if self.descriptors < needed {
            let room = resources::connections_within(self.descriptors, self.config.sockets(self.lanes));
            if room == 0 {
                return Err(BindError::Descriptors(self.descriptors));
            }
            tracing::warn!(
                "the system gives this process {} file descriptors, which is enough for {room} connections; the limits in the \
                 configuration come to {needed}. Raise it (LimitNOFILE= in a systemd unit, `ulimit -Hn` in a shell), or lower `devices`",
                self.descriptors,
            );
        }
        Ok(())
    }

    /// To ask the base things while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where metrics are served, if anywhere; the port resolved.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    fn add(&mut self, listening: listen::Listening) -> std::io::Result<()> {
        let listener = TcpListener::from_std(listening.tcp)?;
        let tcp = listener.local_addr()?;
        let mut sockets = [(SocketId(0), tcp); 2];
        for (slot, of_workers) in sockets.iter_mut().zip(listening.udp) {
            let mut sockets = of_workers.into_iter();
            for ports in &mut self.ports {
                let mut lanes = sockets.by_ref().take(self.lanes).map(Port::new);
                let Some(first) = lanes.next() else { continue };
                let lanes = Lanes::new(first?, lanes.collect::<std::io::Result<_>>()?);
                *slot = (SocketId(ports.len() as u16), lanes.local_addr());
                ports.push(lanes);
            }
        }
        self.udp.push(sockets);
        self.local_addrs.push(tcp);
        self.listeners.push(listener);
        Ok(())
    }

    /// This base's ID.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The TCP addresses that hosts connect to, ports resolved, in the order of the configuration.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.local_addrs.clone()
    }

    /// Serves until `shutdown` is ready, and then until its hosts have left. Dropped, it stops at once.
    pub async fn run(mut self, shutdown: impl Future<Output = Shutdown> + Send) {
        let (events_in, mut events) = mpsc::channel(EVENTS);
        let advertise = &self.config.advertise;
        let udp_list = |at| udp_addresses(at, &self.local_addrs, &self.udp, advertise, public_address);
        let udp_lists = (0..self.udp.len()).map(udp_list).collect();
        let ports = self.ports.first().cloned().unwrap_or_default();
        let (workers, mut from_workers) = match Workers::start(self.ports, &self.base.routes()) {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(%error, "the system gives no threads");
                return;
            }
        };
        let connections = resources::connections_within(self.descriptors, self.config.sockets(self.lanes));
        let mains = self.udp.iter().map(|[main, _]| *main).collect();
        let mut owner = Owner::new(&self.config, self.base, ports, udp_lists, events_in.clone());
        owner.max_conns = owner.max_conns.min(connections);
        owner.goodbyes = Goodbyes::new(GOODBYES.min(owner.max_conns / GOODBYES_SHARE));
        owner.inspector.descriptors.0 = self.descriptors;
        owner.inspector.fast_path = self.fast_path;
        owner.cluster = cluster::Cluster::new(self.bus, &self.config, mains);
        owner.hook = self.hook.take();
        if let Some(listener) = self.admin.take() {
            tokio::spawn(admin::serve(listener, self.handle.clone()));
        }
        if let (Some(path), Some((mark, devices))) = (self.config.allow_file.clone(), self.listed.take()) {
            owner.inspector.listed = Some((devices, 0));
            let (reload, control) = (Arc::clone(&self.handle.reload), self.handle.control.clone());
            tokio::spawn(allow::watch(path, mark, reload, control));
        }
        for (listening, listener) in self.listeners.into_iter().enumerate() {
            owner.tasks.spawn(accept(listener, listening, events_in.clone()));
        }
        drop(events_in);
        tokio::pin!(shutdown);
        let sleep = sleep_until(TokioInstant::now());
        tokio::pin!(sleep);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut waiting) = (Vec::with_capacity(EVENTS_AT_ONCE), VecDeque::new());
        while !owner.is_done() {
            let wake = owner.flush().unwrap_or_else(|| Instant::now() + LONGEST_SLEEP);
            if sleep.deadline() != TokioInstant::from_std(wake) {
                sleep.as_mut().reset(TokioInstant::from_std(wake));
            }
            tokio::select! {
                datagrams = next_datagrams(&mut from_workers) => owner.receive(datagrams, &mut from_workers),
                _ = events.recv_many(&mut batch, EVENTS_AT_ONCE), if waiting.is_empty() => {
                    waiting.extend(batch.drain(..));
                    owner.turn(&mut waiting);
                }
                () = std::future::ready(()), if !waiting.is_empty() => owner.turn(&mut waiting),
                next = owner.cluster.next() => owner.hear(next),
                () = &mut sleep => owner.wake(),
                Some(control) = self.control.recv() => {
                    let queues = from_workers.depths(events.len() + waiting.len());
                    owner.control(control, workers.counts(), queues);
                }
                _ = tick.tick() => owner.tick(),
                Shutdown::Drain(seconds) = &mut shutdown, if owner.stops_at.is_none() => owner.drain(seconds),
                Some(_) = owner.tasks.join_next() => {}
            }
            if !waiting.is_empty() {
                // What came of this turn leaves before the next.
                owner.flush();
                tokio::task::yield_now().await;
            }
        }
        // It may end before its time, since nobody is left: the other bases hear of that, too.
        owner.base.drain(0, Instant::now());
        owner.flush();
        owner.cluster.finish().await;
        let counters = owner.counters(workers.counts());
        let locals: Vec<SocketAddr> = owner.ports.iter().map(|lanes| lanes.local_addr()).collect();
        tracing::info!(?counters, not_received = kernel::dropped(&locals), "stopped");
    }
}
