//! The machine and all that it acts on: what each event does, and what the machine wants done.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_cluster::{Heard, Next};
use bowline_proto::{
    base::{Base, ConnId, Forward, Output, Over, Ticket, ToBase, UdpAddress},
    wire::{Malformed, cluster::BASE_DATA, frame::LENGTH_LEN},
};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

use crate::{
    blocks::Block,
    cluster,
    config::Config,
    conn::{self, CLOSE_PATIENCE, Conn, FRAMES_AT_ONCE},
    forward::{Plane, Rows, frames_of},
    frames,
    goodbye::Goodbyes,
    hook::Hook,
    inspect::Inspector,
    outbox::{End, Outbox, Total},
    udp::{
        lanes::Lanes,
        outgoing::Sender,
        worker::{Datagrams, FromWorkers, Note},
    },
};

/// Bytes of frames that the owner deals with before others get their turn: half of what a connection's data queue takes by default.
const TURN: usize = 128 << 10;
/// Bytes that a frame counts for in a turn, however small it is.
const LEAST: usize = TURN / FRAMES_AT_ONCE;
/// Events taken at one wake-up; what they come to bounds the time until the other kinds of work get their turn ([`TURN`]).
pub(crate) const EVENTS_AT_ONCE: usize = 64;
/// The same of batches of datagrams, each of which may be of a hundred.
const BATCHES_AT_ONCE: usize = 4;
/// Connections that are being closed beside those that the machine counts; more are not accepted.
const CLOSING_CONNECTIONS: usize = 1_024;
/// Those of them that still have time to take their last words and close their side; one more ends the first at once. The others are on
/// their way out.
pub(crate) const GOODBYES: usize = CLOSING_CONNECTIONS / 2;

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

/// What the workers have for the owner, the most urgent first.
pub(crate) enum FromUdp {
    Datagrams(Datagrams),
    Notes(Vec<Note>),
}

pub(crate) async fn next_datagrams(from: &mut FromWorkers) -> FromUdp {
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
    pub(crate) ports: Vec<Arc<Lanes>>,
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
    pub(crate) tasks: JoinSet<()>,
    accepting: usize,
    pub(crate) max_conns: usize,
    pub(crate) goodbyes: Goodbyes,
    control_queue: usize,
    data_queue: usize,
    pub(crate) all_queues: Arc<Total>,
    pub(crate) hook: Option<Hook>,
    pub(crate) inspector: Inspector,
    /// Once draining: the end of all patience.
    pub(crate) stops_at: Option<Instant>,
}

impl Owner {
    pub(crate) fn new(
        config: &Config,
        base: Base,
        ports: Vec<Arc<Lanes>>,
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
    pub(crate) fn turn(&mut self, events: &mut VecDeque<Event>) {
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
    pub(crate) fn receive(&mut self, first: FromUdp, from: &mut FromWorkers) {
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
    pub(crate) fn hear(&mut self, first: Next) {
        let now = Instant::now();
        let mut next = Some(first);
        for _ in 0..EVENTS_AT_ONCE {
            match next {
                Some(Next::Heard(heard)) => {
                    if let Heard::Up { seen } = heard {
                        self.cluster.set_seen(seen);
                        self.base.set_cluster_udp(self.cluster.udp_addresses(), now);
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

    pub(crate) fn wake(&mut self) {
        self.base.handle_timeout(Instant::now());
    }

    pub(crate) fn drain(&mut self, seconds: u16) {
        tracing::info!(seconds, "draining");
        let now = Instant::now();
        self.base.drain(seconds, now);
        self.stops_at = Some(now + Duration::from_secs(seconds.into()) + CLOSE_PATIENCE);
    }

    /// Draining, and every connection is gone, or the time is over.
    pub(crate) fn is_done(&self) -> bool {
        self.stops_at.is_some_and(|at| self.tasks.len() <= self.accepting || Instant::now() >= at)
    }

    /// Does all that the machine wants done; gives the next moment to wake.
    pub(crate) fn flush(&mut self) -> Option<Instant> {
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
    ports: &[Arc<Lanes>],
    cluster: &mut cluster::Cluster,
) {
    match over {
        Over::Udp { via, to } => sender.push(ports, via, to, &[&prefix[..], message].concat()),
        Over::Bus(_) | Over::All => cluster.send(over, &prefix, message),
    }
}
