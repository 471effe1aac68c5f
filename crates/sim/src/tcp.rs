//! TCP, as far as a base connection shows it: an ordered byte pipe that loses nothing, can stall for minutes,
//! can be half-open, is reset by those who do not know it, and is refused.
//!
//! Segments travel as packets through the same links and NATs as everything else. There is a handshake, cumulative
//! acknowledgement, retransmission with back-off (RFC 6298) and fast retransmit, and an orderly end. There is no
//! congestion control and no flow control: the window is fixed.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;

use crate::packet::Time;

/// Bytes of a segment at most; with its headers it passes any MTU of the world.
const SEGMENT: usize = 1_200;
/// Bytes under way at most.
const WINDOW: u64 = 256 * 1024;
/// Retransmission timer: before a first sample, at least, at most (RFC 6298, Linux's floor).
const RTO_FIRST: Duration = Duration::from_secs(1);
const RTO_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(120);
/// Unanswered SYNs, and unanswered retransmissions, before giving up (Linux's defaults: 127 s and about 15 min).
const SYN_TRIES: u32 = 7;
const DATA_TRIES: u32 = 15;

/// A segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Which of all connections between two addresses it belongs to (what initial sequence numbers do in TCP).
    pub conn: u64,
    /// Its kind.
    pub kind: Kind,
    /// The position of its first byte in the stream.
    pub seq: u64,
    /// The position of the next byte that its sender waits for.
    pub ack: u64,
    /// Its bytes.
    pub data: Bytes,
}

/// The kinds of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a connection.
    Syn,
    /// Accepts it.
    SynAck,
    /// Bytes, or an acknowledgement.
    Data,
    /// The last byte has been sent.
    Fin,
    /// There is no such connection.
    Rst,
}

/// What a socket tells its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpEvent {
    /// A new connection on a listening port.
    Accepted,
    /// The connection stands.
    Connected,
    /// Bytes came.
    Data(Vec<u8>),
    /// It could not be established.
    Refused(&'static str),
    /// It ended.
    Closed(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Established,
    /// Nothing more will happen; the stack removes it.
    Done,
}

/// One end of a connection.
#[derive(Debug, Clone)]
pub struct Socket {
    /// The own address.
    pub local: SocketAddr,
    /// The other end's.
    pub remote: SocketAddr,
    conn: u64,
    state: State,
    /// Bytes from `acked` on.
    queue: VecDeque<u8>,
    acked: u64,
    sent: u64,
    /// The program will write no more: FIN follows the queue.
    finishing: bool,
    fin_acked: bool,
    received: u64,
    early: BTreeMap<u64, Bytes>,
    fin_at: Option<u64>,
    /// The program has closed it and wants to hear nothing more.
    orphan: bool,
    timer: Option<Time>,
    rto: Duration,
    tries: u32,
    srtt: Option<(Duration, Duration)>,
    sample: Option<(u64, Time)>,
    same_acks: u32,
}

impl Socket {
    /// A socket that connects: its SYN goes to `out`.
    #[must_use]
    pub fn connect(
        local: SocketAddr,
        remote: SocketAddr,
        conn: u64,
        now: Time,
        out: &mut Vec<Segment>,
    ) -> Self {
        let mut socket = Self::new(local, remote, conn, State::SynSent);
        socket.handshake(Kind::Syn, now, out);
        socket
    }

    /// A socket that answers a SYN.
    #[must_use]
    pub fn accept(
        local: SocketAddr,
        remote: SocketAddr,
        conn: u64,
        now: Time,
        out: &mut Vec<Segment>,
    ) -> Self {
        let mut socket = Self::new(local, remote, conn, State::SynReceived);
        socket.handshake(Kind::SynAck, now, out);
        socket
    }

    fn new(local: SocketAddr, remote: SocketAddr, conn: u64, state: State) -> Self {
        Self {
            local,
            remote,
            conn,
            state,
            queue: VecDeque::new(),
            acked: 0,
            sent: 0,
            finishing: false,
            fin_acked: false,
            received: 0,
            early: BTreeMap::new(),
            fin_at: None,
            orphan: false,
            timer: None,
            rto: RTO_FIRST,
            tries: 0,
            srtt: None,
            sample: None,
            same_acks: 0,
        }
    }

    /// Which connection it is.
    #[must_use]
    pub fn conn(&self) -> u64 {
        self.conn
    }

    /// Whether it can be removed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether its program has let go of it.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.orphan
    }

    /// Bytes written and not yet acknowledged.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// When [`Self::on_timer`] has to be called.
    #[must_use]
    pub fn timer(&self) -> Option<Time> {
        self.timer
    }

    /// Appends bytes to the stream.
    pub fn write(&mut self, bytes: &[u8], now: Time, out: &mut Vec<Segment>) {
        if self.finishing || self.state == State::Done {
            return;
        }
        self.queue.extend(bytes);
        self.flush(now, out);
    }

    /// The program is done with it: what was written is still sent, then it ends.
    pub fn close(&mut self, now: Time, out: &mut Vec<Segment>) {
        self.orphan = true;
        if self.state == State::SynSent {
            self.state = State::Done;
            return;
        }
        self.finishing = true;
        self.flush(now, out);
        self.end_if_over();
    }

    /// Ends at once; the other side is told.
    pub fn reset(&mut self, out: &mut Vec<Segment>) {
        self.orphan = true;
        self.state = State::Done;
        self.timer = None;
        out.push(self.segment(Kind::Rst, self.sent, Bytes::new()));
    }

    /// A segment came in.
    pub fn on_segment(
        &mut self,
        segment: &Segment,
        now: Time,
        out: &mut Vec<Segment>,
        events: &mut Vec<TcpEvent>,
    ) {
        match (self.state, segment.kind) {
            (State::Done, _) => {}
            (State::SynSent, Kind::Rst) => self.end(TcpEvent::Refused("connection refused"), events),
            (_, Kind::Rst) => self.end(TcpEvent::Closed("connection reset"), events),
            (State::SynSent, Kind::SynAck) => {
                self.established(events);
                out.push(self.segment(Kind::Data, self.sent, Bytes::new()));
                self.flush(now, out);
            }
            (State::SynSent, _) => {}
            (State::SynReceived, Kind::Syn) => self.handshake(Kind::SynAck, now, out),
            (_, Kind::Syn | Kind::SynAck) => out.push(self.segment(Kind::Data, self.sent, Bytes::new())),
            (State::SynReceived, _) => {
                self.established(events);
                self.on_stream(segment, now, out, events);
            }
            (State::Established, _) => self.on_stream(segment, now, out, events),
        }
    }

    /// The moment of [`Self::timer`] has come: retransmit, or give up.
    pub fn on_timer(&mut self, now: Time, out: &mut Vec<Segment>, events: &mut Vec<TcpEvent>) {
        if self.timer.is_none_or(|at| at > now) {
            return;
        }
        self.tries += 1;
        self.rto = (self.rto * 2).min(RTO_MAX);
        self.sample = None;
        match self.state {
            State::Done => self.timer = None,
            State::SynSent if self.tries >= SYN_TRIES => {
                self.end(TcpEvent::Refused("connection timed out"), events);
            }
            State::SynSent => self.handshake(Kind::Syn, now, out),
            State::SynReceived if self.tries >= SYN_TRIES => self.state = State::Done,
            State::SynReceived => self.handshake(Kind::SynAck, now, out),
            State::Established if self.tries >= DATA_TRIES => {
                self.end(TcpEvent::Closed("connection timed out"), events);
            }
            State::Established => {
                self.timer = None;
                self.sent = self.acked;
                self.flush(now, out);
            }
        }
    }

    fn on_stream(
        &mut self,
        segment: &Segment,
        now: Time,
        out: &mut Vec<Segment>,
        events: &mut Vec<TcpEvent>,
    ) {
        self.on_ack(segment, now, out);
        let carries = !segment.data.is_empty() || segment.kind == Kind::Fin;
        if !segment.data.is_empty() && segment.seq + segment.data.len() as u64 > self.received {
            self.early.insert(segment.seq, segment.data.clone());
        }
        if segment.kind == Kind::Fin {
            self.fin_at = Some(segment.seq);
        }
        let mut bytes = Vec::new();
        while let Some((seq, data)) = self.early.pop_first() {
            if seq > self.received {
                self.early.insert(seq, data);
                break;
            }
            let skip = (self.received - seq) as usize;
            if skip < data.len() {
                bytes.extend_from_slice(&data[skip..]);
                self.received += (data.len() - skip) as u64;
            }
        }
        if !bytes.is_empty() && !self.orphan {
            events.push(TcpEvent::Data(bytes));
        }
        let was_orphan = self.orphan;
        if self.fin_at == Some(self.received) {
            // A FIN takes one position. The program here never writes on after it: both directions end.
            self.received += 1;
            self.finishing = true;
            if !was_orphan {
                events.push(TcpEvent::Closed("closed by the other side"));
                self.orphan = true;
            }
        }
        if carries {
            out.push(self.segment(Kind::Data, self.sent, Bytes::new()));
        }
        self.flush(now, out);
        self.end_if_over();
    }

    fn on_ack(&mut self, segment: &Segment, now: Time, out: &mut Vec<Segment>) {
        let end = self.acked + self.queue.len() as u64;
        if self.finishing && segment.ack > end {
            self.fin_acked = true;
        }
        let ack = segment.ack.min(end);
        if ack > self.acked {
            self.queue.drain(..(ack - self.acked) as usize);
            self.acked = ack;
            self.sent = self.sent.max(ack);
            self.tries = 0;
            self.same_acks = 0;
            if let Some((upto, at)) = self.sample
                && ack >= upto
            {
                self.sample = None;
                self.measured(now - at);
            }
            self.rto = self.computed_rto();
            self.timer = (self.sent > self.acked).then(|| now + self.rto);
        } else if self.sent > self.acked && segment.data.is_empty() && segment.kind == Kind::Data {
            self.same_acks += 1;
            if self.same_acks == 3 {
                let length = SEGMENT.min(self.queue.len());
                let data: Bytes = self.queue.iter().take(length).copied().collect();
                out.push(self.segment(Kind::Data, self.acked, data));
            }
        }
        if self.fin_acked {
            self.timer = None;
        }
    }

    fn measured(&mut self, rtt: Duration) {
        self.srtt = Some(match self.srtt {
            None => (rtt, rtt / 2),
            Some((srtt, var)) => ((srtt * 7 + rtt) / 8, (var * 3 + srtt.abs_diff(rtt)) / 4),
        });
    }

    fn computed_rto(&self) -> Duration {
        self.srtt.map_or(RTO_FIRST, |(srtt, var)| (srtt + 4 * var).max(RTO_MIN))
    }

    /// Sends what the window allows.
    fn flush(&mut self, now: Time, out: &mut Vec<Segment>) {
        if self.state != State::Established {
            return;
        }
        let end = self.acked + self.queue.len() as u64;
        while self.sent < end && self.sent - self.acked < WINDOW {
            let offset = (self.sent - self.acked) as usize;
            let length = SEGMENT.min(self.queue.len() - offset);
            let data: Bytes = self.queue.range(offset..offset + length).copied().collect();
            out.push(self.segment(Kind::Data, self.sent, data));
            self.sent += length as u64;
            self.sample.get_or_insert((self.sent, now));
            self.timer.get_or_insert(now + self.rto);
        }
        if self.finishing && !self.fin_acked && self.sent == end && self.timer.is_none() {
            out.push(self.segment(Kind::Fin, end, Bytes::new()));
            self.timer.get_or_insert(now + self.rto);
        }
    }

    fn handshake(&mut self, kind: Kind, now: Time, out: &mut Vec<Segment>) {
        out.push(self.segment(kind, 0, Bytes::new()));
        self.timer = Some(now + self.rto);
    }

    fn established(&mut self, events: &mut Vec<TcpEvent>) {
        let event = if self.state == State::SynSent { TcpEvent::Connected } else { TcpEvent::Accepted };
        self.state = State::Established;
        self.timer = None;
        self.tries = 0;
        self.rto = RTO_FIRST;
        events.push(event);
    }

    fn end(&mut self, event: TcpEvent, events: &mut Vec<TcpEvent>) {
        // A connection that was never announced to the program ends without a word.
        if !self.orphan && self.state != State::SynReceived {
            events.push(event);
        }
        self.orphan = true;
        self.state = State::Done;
        self.timer = None;
    }

    fn end_if_over(&mut self) {
        let heard_fin = self.fin_at.is_some_and(|at| self.received > at);
        if self.fin_acked && heard_fin {
            self.state = State::Done;
            self.timer = None;
        }
    }

    fn segment(&self, kind: Kind, seq: u64, data: Bytes) -> Segment {
        Segment { conn: self.conn, kind, seq, ack: self.received, data }
    }
}
