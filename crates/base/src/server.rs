//! The loop: one task owns the machine, waits for one thing, applies it, and flushes.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_cluster::{Bus, Heard, Next};
use bowline_fastpath::{FastPath, Setup};
use bowline_proto::{
    DeviceId, SecretKey,
    base::{Base, ClusterConfig, ConnId, Forward, Output, Over, SocketId, Ticket, ToBase, UdpAddress},
    wire::{Malformed, cluster::BASE_DATA, frame::LENGTH_LEN},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant as TokioInstant, MissedTickBehavior, sleep_until},
};

use crate::{
    accept::accept,
    admin, allow,
    blocks::Block,
    cluster,
    config::Config,
    conn::{self, CLOSE_PATIENCE, Conn, FRAMES_AT_ONCE},
    control::{CONTROL, Control, Handle},
    forward::{Plane, Rows, frames_of},
    frames,
    goodbye::Goodbyes,
    hook::Hook,
    inspect::Inspector,
    listen::{self, BindError, LANES, udp_addresses},
    outbox::{End, Outbox, Total},
    resources,
    udp::{
        Lanes, Port, kernel,
        outgoing::Sender,
        worker::{Datagrams, FromWorkers, Note, Workers},
    },
};

/// Events on their way to the owner; a connection whose event does not fit stops reading. Each may be 64 KiB of frames, and
/// what has been read ahead only fills queues before anybody has had a turn to empty them.
const EVENTS: usize = 32;
/// Bytes of frames that the owner deals with before others get their turn: half of what a connection's data queue takes by default.
const TURN: usize = 128 << 10;
/// Bytes that a frame counts for in a turn, however small it is.
const LEAST: usize = TURN / FRAMES_AT_ONCE;
/// Events taken at one wake-up; what they come to bounds the time until the other kinds of work get their turn ([`TURN`]).
const EVENTS_AT_ONCE: usize = 64;
/// The same of batches of datagrams, each of which may be of a hundred.
const BATCHES_AT_ONCE: usize = 4;
/// Connections that are being closed beside those that the machine counts; more are not accepted.
const CLOSING_CONNECTIONS: usize = 1_024;
/// Those of them that still have time to take their last words and close their side; one more ends the first at once. The others are on
/// their way out.
const GOODBYES: usize = CLOSING_CONNECTIONS / 2;
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
    ports: Vec<Vec<Lanes>>,
    /// File descriptors that this process may have.
    descriptors: u64,
    /// Messages between devices on UDP that never come to a worker.
    fast_path: Option<Arc<FastPath>>,
    handle: Handle,
    admin: Option<TcpListener>,
    control: mpsc::Receiver<Control>,
    hook: Option<Hook>,
    /// The file with the list as it was when it was read, and how many devices it had.
    listed: Option<(allow::Mark, usize)>,
}

/// What connections tell the owner.
#[derive(Debug)]
pub(crate) enum Event {
    Accepted {
        stream: TcpStream,
        remote: SocketAddr,
        listening: usize,
    },
    /// Whole frames, lengths included. It is owed until what came of them is on its way.
    Frames(Arc<Conn>, Block),
    /// Messages were dropped because the queue of their destination was full; whoever says so has counted them.
    Overflow(Ticket),
    /// Or because their sender has had relayed what he may.
    OverRate(Ticket),
    Malformed(ConnId, Malformed),
    Ended(ConnId),
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
            fast_path: None,
            handle: Handle { control, reload: Arc::default() },
            admin: None,
            control: for_owner,
            hook,
            listed,
            config,
        };
        server.raise_descriptors();
        if let Some(address) = server.config.admin {
            let opened = admin::listen(address);
            server.admin = Some(opened.map_err(|error| BindError::Admin { address, error })?);
        }
        for listening in listen::open_all(&server.config)? {
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
        let sockets: Vec<SocketAddr> = first.filter_map(|lanes| Some(lanes.first()?.local_addr())).collect();
        let (devices, limits) = (self.config.limits.devices, self.base.relay_limits());
        let fast_path = FastPath::start(Setup { interfaces, sockets: &sockets, devices, limits })?;
        let followed = self.base.have_followed(Arc::clone(&fast_path) as _);
        debug_assert!(followed, "nobody has the routes yet");
        self.fast_path = Some(fast_path);
        Ok(())
    }

    /// Asks the system for the descriptors that the limits come to, and says what is missing.
    fn raise_descriptors(&mut self) {
        let needed = resources::descriptors_for(max_connections(&self.config), self.config.sockets());
        self.descriptors = resources::raise_descriptors(needed);
        if self.descriptors < needed {
            let room = resources::connections_within(self.descriptors, self.config.sockets());
            tracing::warn!(
                "the system gives this process {} file descriptors, which is enough for {room} connections; the limits in the \
                 configuration come to {needed}. Raise it (LimitNOFILE= in a systemd unit, `ulimit -Hn` in a shell), or lower `devices`",
                self.descriptors,
            );
        }
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
                let lanes: Lanes =
                    sockets.by_ref().take(LANES).map(Port::new).collect::<std::io::Result<_>>()?;
                if let Some(first) = lanes.first() {
                    *slot = (SocketId(ports.len() as u16), first.local_addr());
                }
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
        let udp_list = |at| udp_addresses(at, &self.local_addrs, &self.udp, advertise);
        let udp_lists = (0..self.udp.len()).map(udp_list).collect();
        let first = self.ports.first().into_iter().flatten();
        let ports: Vec<Arc<Port>> = first.filter_map(|lanes| lanes.first().cloned()).collect();
        let (workers, mut from_workers) = match Workers::start(self.ports, &self.base.routes()) {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(%error, "the system gives no threads");
                return;
            }
        };
        let connections = resources::connections_within(self.descriptors, self.config.sockets());
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
        let locals: Vec<SocketAddr> = owner.ports.iter().map(|port| port.local_addr()).collect();
        tracing::info!(?counters, not_received = kernel::dropped(&locals), "stopped");
    }
}

/// What the workers have for the owner, the most urgent first.
enum FromUdp {
    Datagrams(Datagrams),
    Notes(Vec<Note>),
}

async fn next_datagrams(from: &mut FromWorkers) -> FromUdp {
    tokio::select! {
        biased;
        Some(handshakes) = from.handshakes.recv() => FromUdp::Datagrams(handshakes),
        Some(data) = from.data.recv() => FromUdp::Datagrams(data),
        Some(notes) = from.notes.recv() => FromUdp::Notes(notes),
        // No workers: the base is ending.
        else => std::future::pending().await,
    }
}

/// The machine and all that it acts on.
pub(crate) struct Owner {
    pub(crate) base: Base,
    /// Those of the first worker, to send from.
    pub(crate) ports: Vec<Arc<Port>>,
    udp_lists: Vec<Vec<UdpAddress>>,
    pub(crate) sender: Sender,
    pub(crate) cluster: cluster::Cluster,
    pub(crate) plane: Arc<Plane>,
    /// Used by [`Owner::frames`], empty in between.
    rows: Rows,
    /// Whose blocks have been dealt with; what came of them leaves with the next flush.
    settled: Vec<Arc<Conn>>,
    next_conn: u64,
    /// Accepting, and every connection.
    tasks: JoinSet<()>,
    accepting: usize,
    max_conns: usize,
    goodbyes: Goodbyes,
    control_queue: usize,
    data_queue: usize,
    pub(crate) all_queues: Arc<Total>,
    pub(crate) hook: Option<Hook>,
    pub(crate) inspector: Inspector,
    /// Once draining: the end of all patience.
    stops_at: Option<Instant>,
}

impl Owner {
    fn new(
        config: &Config,
        base: Base,
        ports: Vec<Arc<Port>>,
        udp_lists: Vec<Vec<UdpAddress>>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let limits = &config.limits;
        let plane = Arc::new(Plane::new(base.routes(), ports.clone(), events));
        Self {
            base,
            ports,
            accepting: udp_lists.len(),
            udp_lists,
            sender: Sender::default(),
            cluster: cluster::Cluster::default(),
            plane,
            rows: Rows::default(),
            settled: Vec::new(),
            next_conn: 0,
            tasks: JoinSet::new(),
            max_conns: max_connections(config),
            goodbyes: Goodbyes::new(GOODBYES),
            control_queue: limits.control_queue_bytes,
            data_queue: limits.data_queue_bytes,
            all_queues: Total::new(limits.queues_bytes),
            hook: None,
            inspector: Inspector::new(config),
            stops_at: None,
        }
    }

    /// Deals with the first of these events; the others come after whatever else there is to do.
    fn turn(&mut self, events: &mut VecDeque<Event>) {
        let mut bytes = 0;
        while bytes < TURN
            && let Some(event) = events.pop_front()
        {
            bytes += self.handle(event);
        }
    }

    /// Deals with an event; gives back how many bytes of frames it was, where each frame counts for so many at least.
    fn handle(&mut self, event: Event) -> usize {
        let now = Instant::now();
        match event {
            Event::Accepted { stream, remote, listening } => self.accepted(stream, remote, listening, now),
            Event::Frames(conn, block) => {
                let bytes = block.len();
                let frames = self.frames(conn.id, block, now);
                self.settled.push(conn);
                return bytes.max(frames * LEAST);
            }
            Event::Overflow(ticket) => self.base.handle_overflow(ticket, 0, now),
            Event::OverRate(Ticket { from, to }) => self.base.handle_over_rate(from, to, 0, now),
            Event::Malformed(conn, why) => self.base.handle_malformed(conn, why, now),
            Event::Ended(conn) => {
                if self.plane.remove(conn) {
                    self.base.handle_closed(conn, now);
                }
            }
        }
        0
    }

    /// Whole frames of a connection; gives back how many. Those in a row that go on to one connection join its queue together.
    fn frames(&mut self, conn: ConnId, mut block: Block, now: Instant) -> usize {
        let mut rows = std::mem::take(&mut self.rows);
        let mut walk = self.base.frames(conn, now);
        let frames = block.as_mut();
        let (mut start, mut count) = (0, 0);
        while let Some((frame, _)) = frames::split(&mut frames[start..]) {
            let end = start + frame.len();
            count += 1;
            match walk.handle(&mut frame[LENGTH_LEN..]) {
                Forward::Tcp { conn, ticket } => rows.put(conn, ticket, start..end),
                Forward::Udp { via, to } => {
                    self.sender.push(&self.ports, via, to, &frames[start + LENGTH_LEN..end]);
                }
                Forward::Base(way) => {
                    let message = &frames[start + LENGTH_LEN..end];
                    to_base(way, message, &mut self.sender, &self.ports, &mut self.cluster);
                }
                Forward::Nowhere => {}
            }
            start = end;
        }
        if !rows.is_empty() {
            let block = frames_of(block);
            for row in rows.drain() {
                let dropped = self.plane.queue(&row, &block);
                if dropped > 0 {
                    self.base.handle_overflow(row.ticket, dropped, now);
                }
            }
        }
        self.rows = rows;
        count
    }

    fn accepted(&mut self, stream: TcpStream, remote: SocketAddr, listening: usize, now: Instant) {
        let is_full = |tasks: &JoinSet<()>| tasks.len() - self.accepting >= self.max_conns;
        // Those that have ended count until they are looked at.
        while is_full(&self.tasks) && self.tasks.try_join_next().is_some() {}
        if is_full(&self.tasks) {
            tracing::debug!(%remote, "not accepted: too many connections");
            return;
        }
        self.next_conn += 1;
        let id = ConnId(self.next_conn);
        let speaker = self.base.handle_accepted(id, remote, &self.udp_lists[listening], now);
        let outbox = Outbox::new(self.control_queue, self.data_queue, Arc::clone(&self.all_queues));
        let conn = Conn::new(id, stream, outbox, speaker);
        self.plane.add(&conn);
        self.tasks.spawn(conn::serve(conn, Arc::clone(&self.plane)));
    }

    /// Takes what workers handed on, a few batches at most: the others wait.
    fn receive(&mut self, first: FromUdp, from: &mut FromWorkers) {
        let now = Instant::now();
        self.take(first, now);
        for _ in 1..BATCHES_AT_ONCE {
            let more = from.handshakes.try_recv().or_else(|_| from.data.try_recv());
            let Ok(datagrams) = more else { break };
            self.take(FromUdp::Datagrams(datagrams), now);
        }
    }

    fn take(&mut self, what: FromUdp, now: Instant) {
        match what {
            FromUdp::Datagrams(datagrams) => {
                self.inspector.waited(datagrams.since(), now);
                datagrams.each(|via, from, datagram| {
                    let forward = self.base.handle_datagram(via, from, datagram, now);
                    if datagram.first() == Some(&BASE_DATA) {
                        self.forward(forward, Base::message_of(datagram), now);
                    } else {
                        self.forward(forward, datagram, now);
                    }
                });
            }
            FromUdp::Notes(notes) => {
                for note in notes {
                    match note {
                        Note::Stranger(via, from) => self.base.handle_stranger(via, from, now),
                        // The worker has counted what it dropped.
                        Note::OverRate { from, to } => self.base.handle_over_rate(from, to, 0, now),
                    }
                }
            }
        }
    }

    fn forward(&mut self, forward: Forward, message: &[u8], now: Instant) {
        match forward {
            Forward::Nowhere => {}
            Forward::Udp { via, to } => self.sender.push(&self.ports, via, to, message),
            Forward::Base(way) => {
                to_base(way, message, &mut self.sender, &self.ports, &mut self.cluster);
            }
            Forward::Tcp { conn, ticket } => {
                // A message in a frame: the machine lets none pass that is too large for one.
                let length = (message.len() as u16).to_be_bytes();
                let to = self.plane.conn(conn);
                if to.is_none_or(|to| to.outbox.data([&length, message]).is_err()) {
                    self.base.handle_overflow(ticket, 1, now);
                }
            }
        }
    }

    /// Takes what came from the cluster, a few things at most: the others wait.
    fn hear(&mut self, first: Next) {
        let now = Instant::now();
        let mut next = Some(first);
        for _ in 0..EVENTS_AT_ONCE {
            match next {
                Some(Next::Heard(heard)) => {
                    if let Heard::Up { seen } = heard {
                        let udp = self.cluster.udp_addresses(seen);
                        self.base.set_cluster_udp(udp, now);
                    }
                    self.base.handle_bus(heard.input(), now);
                }
                Some(Next::Data(data)) => {
                    let forward = self.base.handle_base_data(data.came, &data.bytes, now);
                    self.forward(forward, Base::message_of(&data.bytes), now);
                }
                None => return,
            }
            next = self.cluster.more();
        }
        // What came out of turn is not lost.
        if let Some(next) = next {
            self.cluster.put_back(next);
        }
    }

    fn wake(&mut self) {
        self.base.handle_timeout(Instant::now());
    }

    fn drain(&mut self, seconds: u16) {
        tracing::info!(seconds, "draining");
        let now = Instant::now();
        self.base.drain(seconds, now);
        self.stops_at = Some(now + Duration::from_secs(seconds.into()) + CLOSE_PATIENCE);
    }

    /// Draining, and every connection is gone, or the time is over.
    fn is_done(&self) -> bool {
        self.stops_at.is_some_and(|at| self.tasks.len() <= self.accepting || Instant::now() >= at)
    }

    /// Does all that the machine wants done; gives the next moment to wake.
    fn flush(&mut self) -> Option<Instant> {
        let wake = loop {
            match self.base.poll_output(Instant::now()) {
                Output::Bus(output) => self.cluster.say(output),
                Output::Transmit { via, to, payload } => self.sender.push(&self.ports, via, to, &payload),
                Output::Write { conn, frames } => {
                    let Some(to) = self.plane.conn(conn) else { continue };
                    if to.outbox.control(&frames).is_err() {
                        tracing::info!(?conn, "cut off: it does not read what it is told");
                        to.outbox.end(End::Now);
                        self.plane.remove(conn);
                        self.base.handle_closed(conn, Instant::now());
                    }
                }
                Output::Close { conn } => {
                    if let Some(to) = self.plane.conn(conn) {
                        // Draining ends all at once, and has its own end of patience.
                        if self.stops_at.is_some() {
                            to.outbox.end(End::Flushed);
                        } else {
                            self.goodbyes.say(&to);
                        }
                        self.plane.remove(conn);
                    }
                }
                Output::Ask { conn, device } => self.ask(conn, device),
                Output::Timeout(at) => break at,
            }
        };
        self.sender.flush(&self.ports);
        self.settled.drain(..).for_each(|conn| conn.settle());
        match (wake, self.stops_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Connections that a base has at most.
pub(crate) fn max_connections(config: &Config) -> usize {
    let limits = &config.limits;
    limits.devices.saturating_add(limits.unfinished).saturating_add(CLOSING_CONNECTIONS)
}

/// A message for another base.
fn to_base(
    ToBase { prefix, over }: ToBase,
    message: &[u8],
    sender: &mut Sender,
    ports: &[Arc<Port>],
    cluster: &mut cluster::Cluster,
) {
    match over {
        Over::Udp { via, to } => sender.push(ports, via, to, &[&prefix[..], message].concat()),
        Over::Bus(_) | Over::All => cluster.send(over, &prefix, message),
    }
}
