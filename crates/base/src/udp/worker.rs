//! A worker of the data plane: a thread that receives, asks the routes, and sends on.
//!
//! Each worker has sockets of its own on every UDP address of the base (SO_REUSEPORT), so the system spreads the senders over the workers and
//! no two of them touch one socket. They are several, *lanes*: a sender always comes by the same one, and the worker takes from
//! them by turns, so that a flood fills one lane and delays the others by one turn.
//!
//! Who fills a lane all the same is policed there (`police`).
//!
//! While there is always more to read, the lanes that a worker sends by are not watched: each datagram that has left would look
//! whether somebody waits there for room. They are asked each round.
//!
//! A round: receive from a few lanes, judge each datagram by the routes as they are at that moment, send the runs. It allocates
//! nothing for a datagram that goes on, takes no lock for it, and counts in numbers of its own.
//!
//! Keepalives in which nothing is new are answered here, too, among what is sent on; each takes the lock of its own session for a moment.
//!
//! What is neither that nor data to a device that is reached over UDP goes to the owner of the machine, by three queues, each
//! bounded by itself, so that a flood of one kind costs the others nothing: other handshakes under living cookies; messages that
//! go over TCP; notes about strangers and spent budgets, of which the machine answers few. What does not fit is dropped and counted.
//!
//! Not here: any state of the protocol.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use bowline_proto::{
    DeviceId,
    base::{Counters, Routes, Verdict, Via},
    bucket::{Bucket, Rate},
    wire::relay::HEADER_LEN,
};
use tokio::sync::{mpsc, watch};

use crate::control::Queues;

use super::{
    batch::{Batch, Onward},
    egress::Egress,
    lanes::Lanes,
    police::LOOK,
    turns::{Lane, Turns, receive},
};

/// Batches of a kind on their way to the owner; each is of one round of a worker.
const HANDSHAKES: usize = 256;
const DATA: usize = 64;
const NOTES: usize = 16;
/// After so many rounds that left something to read, what is sent by is no longer watched.
const BUSY_ROUNDS: u32 = 16;
/// Strangers that one worker tells of: as many as the machine answers in all.
const STRANGERS: Rate = Rate::per_second(10_000);

/// Datagrams for the owner of the machine, as they came.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    /// When the first of them was received.
    since: Option<Instant>,
    bytes: Vec<u8>,
    list: Vec<(Via, SocketAddr, usize)>,
}

impl Datagrams {
    fn put(&mut self, via: Via, from: SocketAddr, datagram: &[u8], now: Instant) {
        self.since.get_or_insert(now);
        self.bytes.extend_from_slice(datagram);
        self.list.push((via, from, datagram.len()));
    }

    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Hands over each of them.
    pub(crate) fn each(mut self, mut each: impl FnMut(Via, SocketAddr, &mut [u8])) {
        let mut rest = &mut self.bytes[..];
        for (via, from, length) in self.list {
            let (datagram, tail) = rest.split_at_mut(length);
            each(via, from, datagram);
            rest = tail;
        }
    }
}

/// What the owner may want to tell somebody, now and then.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Note {
    /// Nobody is known at this address.
    Stranger(Via, SocketAddr),
    /// A device has had relayed what it may.
    OverRate {
        /// The sender.
        from: DeviceId,
        /// For whom a message of his was.
        to: DeviceId,
    },
}

/// The worker's ends of the queues to the owner.
#[derive(Debug, Clone)]
struct ToOwner {
    handshakes: mpsc::Sender<Datagrams>,
    data: mpsc::Sender<Datagrams>,
    notes: mpsc::Sender<Vec<Note>>,
}

/// The owner's ends.
#[derive(Debug)]
pub(crate) struct FromWorkers {
    pub(crate) handshakes: mpsc::Receiver<Datagrams>,
    pub(crate) data: mpsc::Receiver<Datagrams>,
    pub(crate) notes: mpsc::Receiver<Vec<Note>>,
}

impl FromWorkers {
    /// How much waits for the owner, beside so many reads of connections.
    pub(crate) fn depths(&self, frames: usize) -> Queues {
        let (handshakes, data, notes) = (self.handshakes.len(), self.data.len(), self.notes.len());
        Queues { frames, handshakes, data, notes, outgoing_bytes: 0 }
    }
}

/// What one worker has counted. It alone writes, so that no core waits for another; far enough apart from its neighbour's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counts {
    forwarded: AtomicU64,
    forwarded_bytes: AtomicU64,
    to_bases: AtomicU64,
    to_bases_bytes: AtomicU64,
    from_bases: AtomicU64,
    from_bases_bytes: AtomicU64,
    malformed: AtomicU64,
    confirms_refused: AtomicU64,
    over_rate: AtomicU64,
    strangers_untold: AtomicU64,
    handshakes_dropped: AtomicU64,
    data_dropped: AtomicU64,
    not_sent: AtomicU64,
    renewed: AtomicU64,
}

impl Counts {
    /// Adds what this worker has counted to what the machine has.
    pub(crate) fn add_to(&self, counters: &mut Counters) {
        counters.forwarded_udp += self.forwarded.load(Relaxed);
        counters.forwarded_udp_bytes += self.forwarded_bytes.load(Relaxed);
        counters.forwarded_base += self.to_bases.load(Relaxed);
        counters.forwarded_base_bytes += self.to_bases_bytes.load(Relaxed);
        counters.from_bases += self.from_bases.load(Relaxed);
        counters.from_bases_bytes += self.from_bases_bytes.load(Relaxed);
        counters.malformed_datagrams += self.malformed.load(Relaxed);
        counters.nat_confirm_refused += self.confirms_refused.load(Relaxed);
        counters.dropped_over_rate += self.over_rate.load(Relaxed);
        counters.unknown_source += self.strangers_untold.load(Relaxed);
        counters.dropped_busy += self.handshakes_dropped.load(Relaxed) + self.data_dropped.load(Relaxed);
        counters.dropped_not_sent += self.not_sent.load(Relaxed);
        counters.nat_init_unverified += self.renewed.load(Relaxed);
    }

    /// Adds a round. A plain store: nobody else writes.
    fn add(&self, round: &Round) {
        let add = |to: &AtomicU64, n: u64| {
            if n > 0 {
                to.store(to.load(Relaxed) + n, Relaxed);
            }
        };
        add(&self.forwarded, round.forwarded);
        add(&self.forwarded_bytes, round.forwarded_bytes);
        add(&self.to_bases, round.to_bases);
        add(&self.to_bases_bytes, round.to_bases_bytes);
        add(&self.from_bases, round.from_bases);
        add(&self.from_bases_bytes, round.from_bases_bytes);
        add(&self.malformed, round.malformed);
        add(&self.confirms_refused, round.confirms_refused);
        add(&self.over_rate, round.over_rate);
        add(&self.strangers_untold, round.strangers_untold);
        add(&self.handshakes_dropped, round.handshakes_dropped);
        add(&self.data_dropped, round.data_dropped);
        add(&self.not_sent, round.not_sent);
        add(&self.renewed, round.renewed);
    }
}

/// What one round counted, and what it has for the owner.
#[derive(Debug, Default)]
struct Round {
    forwarded: u64,
    forwarded_bytes: u64,
    to_bases: u64,
    to_bases_bytes: u64,
    from_bases: u64,
    from_bases_bytes: u64,
    malformed: u64,
    confirms_refused: u64,
    over_rate: u64,
    strangers_untold: u64,
    handshakes_dropped: u64,
    data_dropped: u64,
    not_sent: u64,
    renewed: u64,
    handshakes: Datagrams,
    data: Datagrams,
    notes: Vec<Note>,
}

/// The workers of a base. Dropped, they end, and their sockets close.
#[derive(Debug)]
pub(crate) struct Workers {
    stop: watch::Sender<()>,
    threads: Vec<JoinHandle<()>>,
    counts: Vec<Arc<Counts>>,
}

impl Workers {
    /// Starts one worker for each set of ports.
    pub(crate) fn start(
        sets: Vec<Vec<Arc<Lanes>>>,
        routes: &Arc<Routes>,
    ) -> std::io::Result<(Self, FromWorkers)> {
        let (handshakes, handshakes_out) = mpsc::channel(HANDSHAKES);
        let (data, data_out) = mpsc::channel(DATA);
        let (notes, notes_out) = mpsc::channel(NOTES);
        let to_owner = ToOwner { handshakes, data, notes };
        let (stop, stopped) = watch::channel(());
        let mut workers = Self { stop, threads: Vec::new(), counts: Vec::new() };
        for (number, ports) in sets.into_iter().enumerate() {
            let counts = Arc::new(Counts::default());
            workers.counts.push(Arc::clone(&counts));
            let (routes, to_owner, stopped) = (Arc::clone(routes), to_owner.clone(), stopped.clone());
            let worker = Worker { ports, routes, to_owner, counts, strangers: Bucket::default() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = thread::Builder::new().name(format!("relay-{number}"));
            workers.threads.push(thread.spawn(move || runtime.block_on(worker.run(stopped)))?);
        }
        let from_workers = FromWorkers { handshakes: handshakes_out, data: data_out, notes: notes_out };
        Ok((workers, from_workers))
    }

    /// What all workers have counted.
    pub(crate) fn counts(&self) -> &[Arc<Counts>] {
        &self.counts
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let _ = self.stop.send(()); // a worker that is gone need not be told
        for thread in self.threads.drain(..) {
            // One round at most. A panic was shown already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    ports: Vec<Arc<Lanes>>,
    routes: Arc<Routes>,
    to_owner: ToOwner,
    counts: Arc<Counts>,
    strangers: Bucket,
}

impl Worker {
    async fn run(mut self, mut stopped: watch::Receiver<()>) {
        let mut lanes = match Lane::all(&self.ports) {
            Ok(lanes) => lanes,
            Err(error) => {
                tracing::error!(%error, "a worker cannot wait for its sockets");
                return;
            }
        };
        let mut batch = Batch::new();
        let mut egress = Egress::new(self.ports.clone());
        let mut turns = Turns::new(lanes.len());
        let mut busy = 0;
        let (mut looked, mut policing) = (Instant::now(), false);
        // The same one each time: to wait anew is to be put into a list anew, for every datagram of a quiet base.
        let mut stop = pin!(stopped.changed());
        loop {
            let more = tokio::select! {
                biased;
                _ = &mut stop => return,
                more = receive(&mut lanes, &mut turns, &mut batch) => more,
                // What is let in must grow again while nothing comes.
                () = tokio::time::sleep_until((looked + LOOK).into()), if policing => false,
            };
            let now = Instant::now();
            self.round(&mut batch, &mut egress, now);
            if now >= looked + LOOK {
                looked = now;
                policing = lanes.iter_mut().filter_map(|lane| lane.look(now).then_some(())).count() > 0;
            }
            busy = if more { busy + 1 } else { 0 };
            if busy == BUSY_ROUNDS {
                lanes.iter_mut().for_each(Lane::stop_watching);
            }
            if more {
                // There may always be something to read here: the runtime looks at the other sockets meanwhile.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Judges what came, and sends it on.
    fn round(&mut self, batch: &mut Batch, egress: &mut Egress, now: Instant) {
        let mut round = Round::default();
        let mut reader = self.routes.reader();
        let strangers = &mut self.strangers;
        batch.each(egress.most_segments(), |via, from, datagram| {
            match reader.judge(via, from, datagram, now) {
                Verdict::Forward { via, to } => {
                    round.forwarded += 1;
                    round.forwarded_bytes += (datagram.len() - HEADER_LEN) as u64;
                    Some(Onward { via, to, skip: 0, prefix: None })
                }
                Verdict::ToBase { via, to, prefix } => {
                    round.to_bases += 1;
                    round.to_bases_bytes += (datagram.len() - HEADER_LEN) as u64;
                    Some(Onward { via, to, skip: 0, prefix: Some(prefix) })
                }
                Verdict::Deliver { via, to, skip } => {
                    round.from_bases += 1;
                    round.from_bases_bytes += (datagram.len() - HEADER_LEN - skip) as u64;
                    Some(Onward { via, to, skip, prefix: None })
                }
                Verdict::Answer { skip } => {
                    round.renewed += 1;
                    Some(Onward { via, to: from, skip, prefix: None })
                }
                verdict => {
                    round.hand_over(verdict, via, from, datagram, strangers, now);
                    None
                }
            }
        });
        drop(reader);
        egress.send(batch);
        round.not_sent = egress.take_dropped();
        self.to_owner.send(&mut round);
        self.counts.add(&round);
    }
}

impl Round {
    fn hand_over(
        &mut self,
        verdict: Verdict,
        via: Via,
        from: SocketAddr,
        datagram: &[u8],
        strangers: &mut Bucket,
        now: Instant,
    ) {
        match verdict {
            Verdict::Forward { .. }
            | Verdict::ToBase { .. }
            | Verdict::Deliver { .. }
            | Verdict::Answer { .. } => {}
            Verdict::Handshake => self.handshakes.put(via, from, datagram, now),
            Verdict::Data => self.data.put(via, from, datagram, now),
            Verdict::OverRate { from, to } => {
                self.over_rate += 1;
                // Once for many: the machine tells it once a second at most.
                if !self.notes.iter().any(|note| matches!(note, Note::OverRate { from: f, .. } if *f == from))
                {
                    self.notes.push(Note::OverRate { from, to });
                }
            }
            Verdict::Stranger if strangers.take(STRANGERS, now) => self.notes.push(Note::Stranger(via, from)),
            Verdict::Stranger => self.strangers_untold += 1,
            Verdict::Refused => self.confirms_refused += 1,
            Verdict::Malformed => self.malformed += 1,
        }
    }
}

impl ToOwner {
    fn send(&self, round: &mut Round) {
        if !round.handshakes.list.is_empty() {
            let count = round.handshakes.list.len() as u64;
            if self.handshakes.try_send(std::mem::take(&mut round.handshakes)).is_err() {
                round.handshakes_dropped = count;
            }
        }
        if !round.data.list.is_empty() {
            let count = round.data.list.len() as u64;
            if self.data.try_send(std::mem::take(&mut round.data)).is_err() {
                round.data_dropped = count;
            }
        }
        if !round.notes.is_empty() {
            let strangers =
                round.notes.iter().filter(|note| matches!(note, Note::Stranger(..))).count() as u64;
            if self.notes.try_send(std::mem::take(&mut round.notes)).is_err() {
                round.strangers_untold += strangers;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_and_the_machine_counted_adds_up() {
        let workers = [Counts::default(), Counts::default()];
        let round = Round { forwarded: 3, forwarded_bytes: 30, data_dropped: 2, ..Round::default() };
        for counts in &workers {
            counts.add(&round);
            counts.add(&Round { handshakes_dropped: 1, not_sent: 5, ..Round::default() });
        }
        let mut counters = Counters { forwarded_udp: 10, forwarded_udp_bytes: 100, ..Counters::default() };
        workers.iter().for_each(|counts| counts.add_to(&mut counters));
        let sum = Counters {
            forwarded_udp: 16,
            forwarded_udp_bytes: 160,
            dropped_busy: 6,
            dropped_not_sent: 10,
            ..Counters::default()
        };
        assert_eq!(counters, sum);
    }
}
