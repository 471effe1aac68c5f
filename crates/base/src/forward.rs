//! What the tasks of connections share, and what they do with frames by themselves: most never see the owner of the machine.
//!
//! A block of frames is walked over in place by the routes ([`Talk`]): messages to one connection in a row are one [`Row`], and a row that
//! is all there is goes into the socket of its destination from where it was read, if nothing waits there; what the socket does not take, and rows of
//! many destinations, join their queues. Messages that go over UDP leave as runs. INFOs in which nothing is new get their PONG.
//! From the first frame on that is none of these, all is the owner's, and so is what comes after it until the owner has dealt with
//! it: nothing overtakes anything ([`Conn::owes`]).
//!
//! Not here: reading and the writer's task (`conn`), what the machine decides.

use std::{
    ops::Range,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bowline_proto::{
    base::{ConnId, Counters, Forward, Over, Routes, Step, Talk, Ticket, ToBase},
    wire::{frame::LENGTH_LEN, relay::HEADER_LEN, tcp::BaseFrame},
};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    blocks::{Block, Pool},
    conn::Conn,
    frames,
    outbox::{Frames, Full, Joined, Waiting},
    owner::Event,
    udp::{lanes::Lanes, outgoing::Sender},
};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Plane {
    routes: Arc<Routes>,
    /// Those of the first worker, to send from.
    ports: Vec<Arc<Lanes>>,
    /// Those that the machine knows. Each belongs to its task: what is taken out here may be remembered for a while.
    conns: papaya::HashMap<ConnId, Weak<Conn>>,
    pub(crate) blocks: Arc<Pool>,
    pub(crate) events: mpsc::Sender<Event>,
    counts: Counts,
}

/// What the tasks have counted; each adds once a block.
#[derive(Debug, Default)]
struct Counts {
    tcp: [AtomicU64; 2],
    udp: [AtomicU64; 2],
    bases: [AtomicU64; 2],
    over_rate: AtomicU64,
    queue_full: AtomicU64,
    not_sent: AtomicU64,
}

/// Frames one after the other in a block that go to the same connection.
#[derive(Debug)]
pub(crate) struct Row {
    conn: ConnId,
    pub(crate) ticket: Ticket,
    bytes: Range<usize>,
}

/// The rows of a block.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<Row>);

impl Row {
    fn of(&self, block: &Frames) -> Frames {
        Frames { bytes: block.bytes.slice(self.bytes.clone()), block: block.block }
    }
}

/// What was read into a block.
pub(crate) fn frames_of(block: Block) -> Frames {
    let size = block.size();
    Frames { bytes: Bytes::from_owner(block), block: size }
}

impl Rows {
    /// A frame, with its length, that goes to this connection.
    pub(crate) fn put(&mut self, conn: ConnId, ticket: Ticket, bytes: Range<usize>) {
        match self.0.last_mut() {
            Some(row) if row.conn == conn && row.ticket == ticket && row.bytes.end == bytes.start => {
                row.bytes.end = bytes.end;
            }
            _ => self.0.push(Row { conn, ticket, bytes }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Row> + '_ {
        self.0.drain(..)
    }
}

/// What is left of a block that was dealt with.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// What came after its whole frames.
    pub(crate) rest: Option<Block>,
    /// The frames that are the owner's.
    pub(crate) owners: Option<Block>,
    /// Some of it went into a queue that has to move before more does.
    pub(crate) crowded: Option<Crowded>,
}

/// A queue that a bulk sender waits for.
#[derive(Debug)]
pub(crate) struct Crowded {
    to: Arc<Conn>,
    ticket: Ticket,
    /// What had no room there yet. It counts among all that waits.
    rest: Waiting,
}

/// How far a block was walked over, and what is to be done with that part of it.
#[derive(Debug, Default)]
struct Walk {
    /// What comes after so many bytes is the owner's.
    end: usize,
    rows: Rows,
    pongs: Vec<u8>,
    /// Messages and bytes of data: over TCP, over UDP, to other bases.
    tcp: [u64; 2],
    udp: [u64; 2],
    bases: [u64; 2],
    over_rate: u64,
    over_rate_of: Option<Ticket>,
    not_sent: u64,
}

impl Plane {
    pub(crate) fn new(routes: Arc<Routes>, ports: Vec<Arc<Lanes>>, events: mpsc::Sender<Event>) -> Self {
        let (conns, blocks, counts) = (papaya::HashMap::new(), Arc::default(), Counts::default());
        Self { routes, ports, conns, blocks, events, counts }
    }

    pub(crate) fn add(&self, conn: &Arc<Conn>) {
        self.conns.pin().insert(conn.id, Arc::downgrade(conn));
    }

    pub(crate) fn conn(&self, id: ConnId) -> Option<Arc<Conn>> {
        self.conns.pin().get(&id)?.upgrade()
    }

    /// Forgets a connection; whether it was known.
    pub(crate) fn remove(&self, id: ConnId) -> bool {
        self.conns.pin().remove(&id).is_some()
    }

    /// Adds what was counted here to what the machine has.
    pub(crate) fn add_to(&self, counters: &mut Counters) {
        let counts = &self.counts;
        let pairs = [
            (&counts.tcp, &mut counters.forwarded_tcp, &mut counters.forwarded_tcp_bytes),
            (&counts.udp, &mut counters.forwarded_udp, &mut counters.forwarded_udp_bytes),
            (&counts.bases, &mut counters.forwarded_base, &mut counters.forwarded_base_bytes),
        ];
        for ([count, bytes], to, to_bytes) in pairs {
            *to += count.load(Relaxed);
            *to_bytes += bytes.load(Relaxed);
        }
        counters.dropped_over_rate += counts.over_rate.load(Relaxed);
        counters.dropped_queue_full += counts.queue_full.load(Relaxed);
        counters.dropped_not_sent += counts.not_sent.load(Relaxed);
    }

    /// Deals with the whole frames at the front of a block, so many bytes. What comes after them is given back in a block with room for more
    /// (of `least` bytes, if it has to be another one).
    ///
    /// # Errors
    /// When the host does not read what it is told.
    pub(crate) fn forward(
        &self,
        from: &Conn,
        mut block: Block,
        whole: usize,
        least: usize,
    ) -> Result<Forwarded, Full> {
        let now = Instant::now();
        let talk = if from.owes() { None } else { self.routes.talk(&from.speaker, now) };
        let Some(talk) = talk else {
            let rest = block.split_rest(whole, &self.blocks, least);
            return Ok(Forwarded { rest, owners: (whole > 0).then_some(block), crowded: None });
        };
        let walk = self.walk(talk, &mut block.as_mut()[..whole]);
        self.counts.add(&walk);
        if let Some(ticket) = walk.over_rate_of {
            self.tell(Event::OverRate(ticket));
        }
        if !walk.pongs.is_empty() {
            from.control_now(&walk.pongs)?;
        }
        let owners = (walk.end < whole).then(|| self.blocks.copy(&block.as_ref()[walk.end..whole]));
        let (rest, crowded) = self.send(walk.rows, block, whole, least);
        Ok(Forwarded { rest, owners, crowded })
    }

    /// Judges frame by frame; what goes over UDP is sent.
    fn walk(&self, mut talk: Talk<'_>, frames: &mut [u8]) -> Walk {
        let (mut walk, mut sender) = (Walk::default(), Sender::default());
        let mut start = 0;
        while let Some((frame, _)) = frames::split(&mut frames[start..]) {
            let (end, data) = (start + frame.len(), (frame.len() - LENGTH_LEN).saturating_sub(HEADER_LEN));
            match talk.judge(&mut frame[LENGTH_LEN..]) {
                Step::Forward(Forward::Tcp { conn, ticket }) => {
                    walk.tcp.count(data);
                    walk.rows.put(conn, ticket, start..end);
                }
                Step::Forward(Forward::Udp { via, to }) => {
                    walk.udp.count(data);
                    sender.push(&self.ports, via, to, &frame[LENGTH_LEN..]);
                }
                Step::Forward(Forward::Base(ToBase { prefix, over: Over::Udp { via, to } })) => {
                    walk.bases.count(data);
                    sender.push(&self.ports, via, to, &[&prefix[..], &frame[LENGTH_LEN..]].concat());
                }
                Step::Forward(Forward::Nowhere | Forward::Base(_)) | Step::Machine => break,
                Step::OverRate(ticket) => {
                    walk.over_rate += 1;
                    walk.over_rate_of = Some(ticket);
                }
                Step::Pong(number) => BaseFrame::Pong(number).write(&mut walk.pongs),
            }
            start = end;
        }
        walk.end = start;
        sender.flush(&self.ports);
        walk.not_sent = sender.dropped();
        walk
    }

    /// Sends the rows of a block on. Gives back what comes after its whole frames, and whose queue is crowded.
    fn send(
        &self,
        mut rows: Rows,
        mut block: Block,
        whole: usize,
        least: usize,
    ) -> (Option<Block>, Option<Crowded>) {
        let alone = match rows.0.as_slice() {
            [row] => self.conn(row.conn).map(|to| (to, row.bytes.clone())),
            _ => None,
        };
        let mut begun = None;
        if let Some((to, bytes)) = &alone
            && let Some(turn) = to.outbox.turn()
        {
            let written = to.write_now(&block.as_ref()[bytes.clone()]);
            if written == bytes.len() {
                rows.0.clear();
            } else {
                begun = Some((turn, written));
            }
        }
        if rows.is_empty() {
            return (block.into_rest(whole, &self.blocks, least), None);
        }
        let rest = block.split_rest(whole, &self.blocks, least);
        let block = frames_of(block);
        let mut crowded = None;
        for row in rows.drain() {
            let frames = row.of(&block);
            let to = self.conn(row.conn);
            let joined = match (begun.take(), &to) {
                (Some((turn, written)), _) => turn.end(&frames, written),
                (None, Some(to)) => to.outbox.data_frames(&frames),
                (None, None) => Joined { bytes: 0, crowded: false },
            };
            let left = frames.after(joined.bytes);
            // Of a block, the last row that a queue is crowded by is waited for.
            let (before, dropped) = match to {
                Some(to) if joined.crowded => {
                    let (rest, dropped) = to.outbox.keep(left);
                    (crowded.replace(Crowded { to, ticket: row.ticket, rest }), dropped)
                }
                _ => (None, Some(left)),
            };
            if let Some(before) = before {
                self.give_up(before.rest.frames(), before.ticket);
            }
            if let Some(dropped) = dropped {
                self.give_up(&dropped, row.ticket);
            }
        }
        (rest, crowded)
    }

    /// Waits until a crowded queue has moved, and what had no room there has joined it. After `patience` in vain it is dropped.
    pub(crate) async fn room(&self, crowded: Crowded, patience: Duration) {
        let Crowded { to, ticket, mut rest } = crowded;
        loop {
            let in_time = to.outbox.room(patience).await;
            if rest.frames().bytes.is_empty() {
                return;
            }
            if !in_time || !rest.join(&to.outbox) {
                return self.give_up(rest.frames(), ticket);
            }
        }
    }

    /// Counts frames that had no room, and has their sender told.
    fn give_up(&self, frames: &Frames, ticket: Ticket) {
        let dropped = count_frames(&frames.bytes);
        if dropped > 0 {
            self.counts.queue_full.fetch_add(dropped, Relaxed);
            self.tell(Event::Overflow(ticket));
        }
    }

    /// Puts a row into the queue of its connection. Gives back how many frames had no room there, or nobody to go to.
    pub(crate) fn queue(&self, row: &Row, block: &Frames) -> u64 {
        let frames = row.of(block);
        let taken = self.conn(row.conn).map_or(0, |to| to.outbox.data_frames(&frames).bytes);
        count_frames(&frames.bytes[taken..])
    }

    /// What the owner may want to tell somebody; it is told rarely, so nothing waits for it.
    fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

/// A message more, and its data.
trait Count {
    fn count(&mut self, data: usize);
}

impl Count for [u64; 2] {
    fn count(&mut self, data: usize) {
        self[0] += 1;
        self[1] += data as u64;
    }
}

impl Counts {
    fn add(&self, walk: &Walk) {
        let add = |to: &AtomicU64, n: u64| {
            if n > 0 {
                to.fetch_add(n, Relaxed);
            }
        };
        let pairs = [(&self.tcp, walk.tcp), (&self.udp, walk.udp), (&self.bases, walk.bases)];
        for ([count, bytes], [n, n_bytes]) in pairs {
            add(count, n);
            add(bytes, n_bytes);
        }
        add(&self.over_rate, walk.over_rate);
        add(&self.not_sent, walk.not_sent);
    }
}

fn count_frames(mut frames: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(frame) = frames::first(frames).ok().flatten() {
        frames = &frames[frame..];
        count += 1;
    }
    count
}
