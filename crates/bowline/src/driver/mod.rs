//! The driver: the one task that feeds the host machine and does what it asks for.
//!
//! It waits for one thing (a datagram, a frame, a timer, a change of the network, a caller's wake-up), applies it to
//! the machine, then does all that the machine has to say, and waits again. It never waits for anything else: names
//! are looked up and connections served by tasks of their own, which report over one bounded channel. Messages do not
//! pass here on their way out; callers send them from their own tasks (`send.rs`).
//!
//! This folder is the only place that touches the machine: `machine.rs` has the lock around it, `lanes.rs` what may be done
//! without, `incoming.rs` sorts what comes over UDP, `outputs.rs` does what the machine asks for, `shared.rs` is what the driver
//! shares with the callers.

mod further;
mod incoming;
mod lanes;
mod machine;
mod nat64;
mod outputs;
mod shared;

use std::{
    collections::VecDeque,
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bowline_proto::host::{ConnId, Hop, Host, Interface, Nat64, Network, Output, SocketId};
use bytes::Bytes;
use further::Further;
use incoming::Sorter;
pub(crate) use lanes::Lane;
pub(crate) use machine::{Machine, Routes};
pub(crate) use shared::Shared;
use tokio::{
    sync::mpsc,
    task::{JoinSet, yield_now},
    time::{sleep_until, timeout},
};

use crate::{
    clock::Clock,
    coalesce,
    config::{
        CLOSE_FLUSH, CROWDED_LOOK, INPUTS, INPUTS_PER_WAKE, RECEIVE_BUFFERS, RECEIVES_PER_ROUND,
        ROUNDS_PER_WAKE, ROUNDS_TIME,
    },
    multicast::Multicast,
    network::{self, Watch},
    port_mapping::PortMapping,
    queue::Inbox,
    tcp::Report,
    udp::{Receiver, Socket, Udp},
};

/// What a task of the driver's reports.
#[derive(Debug)]
enum Input {
    Connection(ConnId, Report),
    Resolved { base: usize, result: Result<Vec<SocketAddr>, String> },
    Nat64(Option<Nat64>),
}

impl From<(ConnId, Report)> for Input {
    fn from((conn, report): (ConnId, Report)) -> Self {
        Self::Connection(conn, report)
    }
}

/// The one thing that was waited for.
enum Wake {
    DatagramsV4,
    DatagramsV6,
    /// By a further socket.
    Datagrams(SocketId),
    Announcements,
    Inputs,
    Timer,
    Network,
    Clock,
    /// The socket takes deferred datagrams again.
    Writable,
    /// A caller left work.
    Caller,
    Close,
}

/// What an endpoint is set up with, beyond the machine.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) network: Watch,
    pub(crate) multicast: Option<Multicast>,
    pub(crate) excluded: Vec<String>,
    pub(crate) mapping: Option<PortMapping>,
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    setup: Setup,
    receiver: Receiver,
    sorter: Sorter,
    /// While the inbox is crowded: when the sockets are looked at nevertheless.
    crowded: Option<Instant>,
    clock: Clock,
    deadline: Option<Instant>,
    /// Whether the machine still had something to say when its turn was over.
    unfinished: bool,
    deferred: VecDeque<(Hop, Bytes)>,
    connections: JoinSet<()>,
    lookups: JoinSet<()>,
    nat64: nat64::Search,
    further: Further,
    /// Where IPv4 leads out: another one may have another router.
    exits: Option<Vec<(u32, bool, IpAddr)>>,
    reports: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    batch: Vec<Input>,
    outputs: Vec<Output>,
    _ending: shared::Ending,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, setup: Setup) -> Self {
        let (reports, inputs) = mpsc::channel(INPUTS);
        let mut driver = Self {
            _ending: shared::Ending::new(Arc::clone(&shared)),
            shared,
            setup,
            receiver: Receiver::new(),
            sorter: Sorter::default(),
            crowded: None,
            clock: Clock::new(),
            deadline: None,
            unfinished: false,
            deferred: VecDeque::new(),
            connections: JoinSet::new(),
            lookups: JoinSet::new(),
            nat64: nat64::Search::default(),
            further: Further::default(),
            exits: None,
            reports,
            inputs,
            batch: Vec::new(),
            outputs: Vec::new(),
        };
        // Before anyone can ask the machine for anything, it knows the network.
        driver.network();
        driver
    }

    /// Runs until the endpoint is closed.
    pub(crate) async fn run(mut self) {
        self.answer();
        loop {
            match self.wait().await {
                Wake::DatagramsV4 => self.main_datagrams(|udp| udp.v4.as_ref()).await,
                Wake::DatagramsV6 => self.main_datagrams(|udp| udp.v6.as_ref()).await,
                Wake::Datagrams(id) => {
                    // It may have been closed since.
                    if let Some(socket) = self.shared.udp.further(id) {
                        self.datagrams(id, &socket).await;
                        self.further.watch(id, socket);
                    }
                }
                Wake::Announcements => self.announcements(),
                Wake::Inputs => self.take_inputs(),
                Wake::Timer => self.shared.machine.drive(Host::handle_timeout),
                Wake::Network => self.network(),
                Wake::Clock => {
                    if self.clock.has_jumped() {
                        tracing::info!("the clock jumped: the device was asleep, or its time was set");
                        self.shared.machine.drive(Host::handle_resume);
                    }
                }
                Wake::Writable => self.send_deferred(),
                Wake::Caller => {}
                Wake::Close => break,
            }
            self.answer();
        }
        self.end().await;
    }

    async fn wait(&mut self) -> Wake {
        // Those that have ended are let go of.
        while self.connections.try_join_next().is_some() || self.lookups.try_join_next().is_some() {}
        let Self {
            shared,
            setup,
            clock,
            deferred,
            inputs,
            batch,
            deadline,
            unfinished,
            crowded,
            further,
            ..
        } = self;
        let unfinished = *unfinished;
        let deadline = *deadline;
        let crowded = *crowded;
        tokio::select! {
            () = shared.close.notified() => Wake::Close,
            () = readable(shared.udp.v4.as_ref(), &shared.inbox, crowded) => Wake::DatagramsV4,
            () = readable(shared.udp.v6.as_ref(), &shared.inbox, crowded) => Wake::DatagramsV6,
            id = further.readable(&shared.inbox, crowded) => Wake::Datagrams(id),
            _ = inputs.recv_many(batch, INPUTS_PER_WAKE) => Wake::Inputs,
            () = shared.machine.woken() => Wake::Caller,
            () = async { if unfinished { yield_now().await } else { pending().await } } => Wake::Caller,
            () = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => pending().await,
                }
            } => Wake::Timer,
            () = async {
                if setup.network.interfaces.changed().await.is_err() {
                    // Nobody watches any more.
                    pending::<()>().await;
                }
            } => Wake::Network,
            () = async {
                match &setup.multicast {
                    Some(multicast) => multicast.readable().await,
                    None => pending().await,
                }
            } => Wake::Announcements,
            () = async {
                match deferred.front() {
                    Some((hop, _)) => shared.udp.writable(*hop).await,
                    None => pending().await,
                }
            } => Wake::Writable,
            () = clock.suspect() => Wake::Clock,
        }
    }

    async fn main_datagrams(&mut self, socket: impl FnOnce(&Udp) -> Option<&Socket>) {
        let shared = Arc::clone(&self.shared);
        if let Some(socket) = socket(&shared.udp) {
            self.datagrams(SocketId::MAIN, socket).await;
        }
    }

    async fn datagrams(&mut self, id: SocketId, socket: &Socket) {
        let mut chunks = 0;
        self.receive(id, socket, &mut chunks).await;
        socket.note_received(chunks, Instant::now());
    }

    async fn receive(&mut self, id: SocketId, socket: &Socket, chunks: &mut usize) {
        let Self { shared, receiver, sorter, .. } = self;
        self.crowded = None;
        let (mut is_drained, began) = (false, Instant::now());
        for _ in 0..ROUNDS_PER_WAKE {
            for _ in 0..RECEIVES_PER_ROUND {
                match receiver.receive(socket) {
                    Ok(filled) => {
                        *chunks += filled;
                        sorter.sort(receiver, filled, id, &shared.machine);
                        if filled < RECEIVE_BUFFERS {
                            // Perhaps that was all: the next round shows, once these have been taken.
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        is_drained = true;
                        break;
                    }
                    // Errors of earlier sends come up here on some systems. They say nothing about receiving.
                    Err(error) => tracing::debug!("cannot receive: {error}"),
                }
                if sorter.is_enough() {
                    break;
                }
            }
            let is_asked = sorter.has_asked();
            let runs = sorter.take();
            if runs.len() == 0 {
                return;
            }
            shared.inbox.push_all(runs);
            // What came is taken before more is read: otherwise a fast network would fill the inbox before anyone
            // has looked into it.
            yield_now().await;
            if shared.inbox.is_crowded() {
                self.crowded = Some(Instant::now() + CROWDED_LOOK);
                return;
            }
            // To wait costs more than to look once more, but the machine's turn comes first where it has something to say.
            let now = Instant::now();
            let is_due = self.deadline.is_some_and(|at| at <= now) || now - began >= ROUNDS_TIME;
            if is_drained || is_asked || is_due {
                return;
            }
        }
    }

    fn announcements(&mut self) {
        for announcement in self.setup.multicast.as_mut().map(Multicast::receive).unwrap_or_default() {
            self.shared.machine.announcement(
                announcement.from,
                announcement.hop_limit,
                &announcement.payload,
            );
        }
    }

    fn take_inputs(&mut self) {
        let machine = &self.shared.machine;
        for input in self.batch.drain(..) {
            match input {
                Input::Connection(conn, Report::Frame(frame)) => {
                    if let Some(run) = machine.frame(conn, &frame) {
                        self.shared.inbox.push_all([run]);
                    }
                }
                Input::Connection(conn, Report::Connected) => {
                    machine.drive(|host, now| host.handle_connected(conn, now));
                }
                Input::Connection(conn, Report::Closed(why)) => {
                    self.shared.outboxes().remove(&conn);
                    machine.drive(|host, now| host.handle_closed(conn, why, now));
                }
                Input::Resolved { base, result } => {
                    machine.drive(|host, now| host.handle_resolved(base, result, now));
                }
                Input::Nat64(found) => machine.drive(|host, now| host.handle_nat64(found, now)),
            }
        }
    }

    fn network(&mut self) {
        let interfaces = Arc::clone(&self.setup.network.interfaces.borrow_and_update());
        self.shared.udp.set_interfaces(Arc::clone(&interfaces));
        let included = network::included(&interfaces, &self.setup.excluded);
        let exits = exits_v4(&included);
        let before = self.exits.replace(exits.clone());
        if let (Some(before), Some(mapping)) = (before, &self.setup.mapping)
            && before != exits
        {
            mapping.moved();
        }
        self.nat64.look_at(&included, &self.reports);
        if let Some(multicast) = &mut self.setup.multicast {
            multicast.set_interfaces(&included);
        }
        self.shared.machine.network(Network {
            interfaces: included,
            port_v4: self.shared.udp.v4.as_ref().map(|socket| socket.port),
            port_v6: self.shared.udp.v6.as_ref().map(|socket| socket.port),
        });
    }

    /// Lets what was sent before leave, says goodbye, and waits for the connections to end.
    async fn end(&mut self) {
        let mapping = self.setup.mapping.take().map(|mapping| tokio::spawn(mapping.release()));
        let _ = timeout(CLOSE_FLUSH, coalesce::empty_all(&self.shared)).await;
        let outboxes: Vec<_> = self.shared.outboxes().values().cloned().collect();
        let _ = timeout(CLOSE_FLUSH, async {
            for outbox in outboxes {
                outbox.flushed().await;
            }
        })
        .await;
        tokio::time::sleep(self.shared.machine.parting()).await;
        self.shared.machine.drive(Host::close);
        self.answer();
        for (_, outbox) in self.shared.outboxes().drain() {
            outbox.close();
        }
        // Reports of connections that end are no longer wanted, and must not hold them up.
        self.inputs.close();
        let _ = timeout(CLOSE_FLUSH, async { while self.connections.join_next().await.is_some() {} }).await;
        if let Some(mapping) = mapping {
            let _ = mapping.await;
        }
        // Dropping the tasks ends those that have not ended by themselves.
    }
}

/// The interfaces with a default route for IPv4, which of them is preferred, and their addresses.
fn exits_v4(interfaces: &[Interface]) -> Vec<(u32, bool, IpAddr)> {
    let exits = interfaces.iter().filter(|interface| interface.default_v4);
    let addresses =
        exits.flat_map(|i| i.addresses.iter().map(move |&(address, _)| (i.index, i.preferred, address)));
    addresses.filter(|(.., address)| address.is_ipv4()).collect()
}

async fn readable(socket: Option<&Socket>, inbox: &Inbox, crowded: Option<Instant>) {
    let Some(socket) = socket else { return pending().await };
    if let Some(look) = crowded {
        tokio::select! {
            () = inbox.roomy() => {}
            () = sleep_until(look.into()) => {}
        }
    }
    socket.readable().await;
}
