//! What came in over UDP, sorted: data of a peer on its lane goes straight to the caller, all else through the machine.
//!
//! Data is what does not begin with the magic, from an address that stands for a peer (a lane's), or joined messages from there.
//! Messages of equal size that came one after the other on a lane, with the same mark, become one run, whether the kernel merged
//! their datagrams, the sender joined them, or neither.

use std::{sync::Arc, time::Instant};

use bowline_proto::{
    host::{Hop, Path, SocketId},
    wire::peer::needs_escape,
};
use bytes::Bytes;

use super::{Lane, Machine, machine::Found};
use crate::{
    Ecn,
    config::{BYTES_PER_ROUND, KEEP_PART, MESSAGES_PER_ROUND, PIECES_PER_ROUND, RECEIVE_BUFFER},
    queue::Run,
    udp::Receiver,
};

/// Sorts the receives of one turn of the driver.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    /// The lane that something last came by.
    last: Option<Arc<Lane>>,
    open: Option<Open>,
    runs: Vec<Run>,
    messages: usize,
    bytes: usize,
    /// Whether the machine was asked: it may have something to say.
    asked: bool,
}

/// Messages that are being copied together.
#[derive(Debug)]
struct Open {
    lane: Arc<Lane>,
    /// Whether they came back on the way that messages to there take.
    on_its_way: bool,
    stride: usize,
    ecn: Ecn,
    count: usize,
    bytes: usize,
}

impl Open {
    /// Whether what comes next makes one run with these.
    fn takes(&self, more: &Self) -> bool {
        let fits = if more.count == 1 { more.bytes <= self.stride } else { more.stride == self.stride };
        let ended = self.bytes < self.count * self.stride;
        // Who keeps one message keeps no more than a receive buffer's worth of others.
        let has_room = self.bytes + more.bytes <= RECEIVE_BUFFER;
        let alike = |one: &Self| (Arc::as_ptr(&one.lane), one.on_its_way, one.ecn);
        fits && !ended && has_room && alike(self) == alike(more)
    }
}

impl Sorter {
    /// Sorts what the last receive brought.
    pub(super) fn sort(
        &mut self,
        receiver: &mut Receiver,
        filled: usize,
        socket: SocketId,
        machine: &Machine,
    ) {
        let now = Instant::now();
        for at in 0..filled {
            let chunk = receiver.chunk(at);
            let lane = machine.lanes.from(chunk.from, &mut self.last, now);
            let is_plain = chunk.datagrams().all(|datagram| !needs_escape(datagram));
            let came_by = Hop { socket, source: chunk.local.map(|ip| ip.to_canonical()), to: chunk.from };
            match lane {
                Some(lane) if is_plain => self.by_lane(receiver, at, (lane, came_by), machine, now),
                Some(lane) => match chunk.joined() {
                    Some((stride, bytes)) => {
                        let (ecn, count) = (chunk.ecn, bytes.div_ceil(stride));
                        let on_its_way = lane.hop.leads_back(&came_by);
                        let more = Open { lane, on_its_way, stride, ecn, count, bytes };
                        self.gather(receiver, more, machine, now);
                        receiver.copy_joined(at);
                    }
                    None => self.by_machine(receiver, at, socket, machine, now),
                },
                None => self.by_machine(receiver, at, socket, machine, now),
            }
        }
        self.close(receiver, machine, now);
    }

    fn by_lane(
        &mut self,
        receiver: &mut Receiver,
        at: usize,
        (lane, came_by): (Arc<Lane>, Hop),
        machine: &Machine,
        now: Instant,
    ) {
        let chunk = receiver.chunk(at);
        let (length, stride, count, ecn) = (chunk.len(), chunk.stride, chunk.count(), chunk.ecn);
        let on_its_way = lane.hop.leads_back(&came_by);
        if !receiver.is_small(at) {
            self.close(receiver, machine, now);
            machine.lanes.note_received(&lane, count, on_its_way, now);
            self.push_direct(&lane, receiver.take(at), stride, ecn);
            return;
        }
        let stride = if count == 1 { length } else { stride };
        let more = Open { lane, on_its_way, stride, ecn, count, bytes: length };
        self.gather(receiver, more, machine, now);
        receiver.copy(at);
    }

    /// Messages are about to be copied: behind those before them if they make one run with them.
    fn gather(&mut self, receiver: &mut Receiver, more: Open, machine: &Machine, now: Instant) {
        let open = self.open.take_if(|open| open.takes(&more));
        if let Some(open) = open {
            self.open = Some(Open { count: open.count + more.count, bytes: open.bytes + more.bytes, ..open });
        } else {
            self.close(receiver, machine, now);
            self.open = Some(more);
        }
    }

    /// Ends the run that is being copied together.
    fn close(&mut self, receiver: &mut Receiver, machine: &Machine, now: Instant) {
        if let Some(Open { lane, on_its_way, stride, ecn, count, .. }) = self.open.take() {
            machine.lanes.note_received(&lane, count, on_its_way, now);
            self.push_direct(&lane, receiver.take_copied(), stride, ecn);
        }
    }

    fn by_machine(
        &mut self,
        receiver: &mut Receiver,
        at: usize,
        socket: SocketId,
        machine: &Machine,
        now: Instant,
    ) {
        let chunk = receiver.chunk(at);
        self.asked = true;
        let found = machine.datagrams(socket, &chunk);
        if found.is_empty() {
            // Control, or a flood of what looks like it: the run goes on.
            return;
        }
        // On what a base forwards there may be a mark of the way from the base, which says nothing of the whole.
        let mark = chunk.ecn;
        let ecn = |path: &Path| if let Path::Direct(_) = path { mark } else { Ecn::NotEct };
        self.close(receiver, machine, now);
        let length: usize = found.iter().map(|found| found.at.len()).sum();
        // Where little of it is messages, they do not hold all of it until somebody fetches them.
        let few = length < receiver.chunk(at).len() / KEEP_PART;
        let whole = if few { Bytes::new() } else { receiver.take(at) };
        for Found { from, at: part, stride, path } in found {
            let bytes =
                if few { Bytes::copy_from_slice(receiver.chunk(at).part(part)) } else { whole.slice(part) };
            self.push(Run { from, ecn: ecn(&path), path, bytes, stride });
        }
    }

    fn push_direct(&mut self, lane: &Lane, bytes: Bytes, stride: usize, ecn: Ecn) {
        self.push(Run { from: lane.peer, path: Path::Direct(lane.hop.to), ecn, bytes, stride });
    }

    fn push(&mut self, run: Run) {
        self.messages += run.count();
        self.bytes += run.bytes.len();
        self.runs.push(run);
    }

    /// Whether so much has come that who receives has to have his turn first.
    pub(super) fn is_enough(&self) -> bool {
        self.messages >= MESSAGES_PER_ROUND
            || self.runs.len() >= PIECES_PER_ROUND
            || self.bytes >= BYTES_PER_ROUND
    }

    /// Whether the machine was asked about any of it.
    pub(super) fn has_asked(&self) -> bool {
        self.asked
    }

    /// All that has come, in order.
    pub(super) fn take(&mut self) -> std::vec::Drain<'_, Run> {
        (self.messages, self.bytes, self.asked) = (0, 0, false);
        self.runs.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use bowline_proto::{DeviceId, host::Lease};

    use super::{super::lanes::Lanes, *};

    fn lane(n: u8) -> Arc<Lane> {
        let lanes = Lanes::new(Instant::now());
        let peer = DeviceId::from_bytes([n; 14]);
        let to = "192.0.2.1:4000".parse().unwrap();
        let hop = Hop { socket: SocketId::MAIN, source: None, to };
        let lease =
            Lease { hop, limit: 1_200, joined: None, wanted: true, watched: true, source_until: None };
        lanes.update(peer, Some(lease));
        lanes.to(peer, 0).expect("it was leased")
    }

    #[test]
    fn messages_make_one_run_where_all_but_the_last_have_one_size_one_mark_and_one_sender() {
        let (lane, another) = (lane(1), lane(2));
        let open = |count, bytes| Open {
            lane: Arc::clone(&lane),
            on_its_way: true,
            stride: 10,
            ecn: Ecn::NotEct,
            count,
            bytes,
        };
        assert!(open(3, 30).takes(&open(2, 20)));
        assert!(open(3, 30).takes(&open(1, 10)));
        assert!(open(3, 30).takes(&Open { stride: 4, ..open(1, 4) }), "a last one that is shorter");
        assert!(!open(3, 25).takes(&open(1, 10)), "it had its last one");
        assert!(!open(3, 30).takes(&Open { stride: 12, ..open(1, 12) }), "a longer one");
        assert!(!open(3, 30).takes(&Open { stride: 5, ..open(2, 10) }), "shorter ones");
        assert!(!open(3, 30).takes(&Open { ecn: Ecn::Ce, ..open(1, 10) }));
        assert!(!open(3, 30).takes(&Open { lane: another, ..open(1, 10) }));
        assert!(!open(3, 30).takes(&Open { on_its_way: false, ..open(1, 10) }));
        let full = RECEIVE_BUFFER / 10;
        assert!(open(full - 1, 10 * (full - 1)).takes(&open(1, 10)));
        assert!(!open(full, 10 * full).takes(&open(1, 10)), "as much as a receive buffer holds");
    }
}
