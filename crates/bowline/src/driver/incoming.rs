//! What came in over UDP, sorted: data of a peer on its lane goes straight to the caller, all else through the machine.
//!
//! Data is what does not begin with the magic, from an address that stands for a peer (a lane's). Datagrams of equal size that
//! came one after the other on a lane, with the same mark, become one run, whether the kernel merged them or not.

use std::{sync::Arc, time::Instant};

use bowline_proto::{
    host::{Path, SocketId},
    wire::peer::needs_escape,
};
use bytes::Bytes;

use super::{Lane, Machine};
use crate::{Ecn, queue::Run, udp::Receiver};

/// Sorts the receives of one turn of the driver.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    /// The lane that something last came by.
    last: Option<Arc<Lane>>,
    open: Option<Open>,
    pub(super) runs: Vec<Run>,
    pub(super) messages: usize,
}

/// Small datagrams that are being copied together.
#[derive(Debug)]
struct Open {
    lane: Arc<Lane>,
    stride: usize,
    ecn: Ecn,
    count: usize,
    bytes: usize,
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
            match lane.filter(|_| chunk.datagrams().all(|datagram| !needs_escape(datagram))) {
                Some(lane) => self.by_lane(receiver, at, lane, machine, now),
                None => self.by_machine(receiver, at, socket, machine, now),
            }
        }
        self.close(receiver, machine, now);
    }

    fn by_lane(
        &mut self,
        receiver: &mut Receiver,
        at: usize,
        lane: Arc<Lane>,
        machine: &Machine,
        now: Instant,
    ) {
        let chunk = receiver.chunk(at);
        let (length, stride, count, ecn) = (chunk.len(), chunk.stride, chunk.count(), chunk.ecn);
        if !receiver.is_small(at) {
            self.close(receiver, machine, now);
            machine.lanes.note_received(&lane, count, now);
            self.push(&lane, receiver.take(at), stride, ecn);
            return;
        }
        let follows = self.open.as_ref().is_some_and(|open| {
            Arc::ptr_eq(&open.lane, &lane)
                && open.ecn == ecn
                && open.bytes == open.count * open.stride
                && (if count == 1 { length <= open.stride } else { stride == open.stride })
        });
        if !follows {
            self.close(receiver, machine, now);
            let stride = if count == 1 { length } else { stride };
            self.open = Some(Open { lane, stride, ecn, count: 0, bytes: 0 });
        }
        receiver.copy(at);
        if let Some(open) = &mut self.open {
            open.count += count;
            open.bytes += length;
        }
    }

    /// Ends the run that is being copied together.
    fn close(&mut self, receiver: &mut Receiver, machine: &Machine, now: Instant) {
        if let Some(Open { lane, stride, ecn, count, .. }) = self.open.take() {
            machine.lanes.note_received(&lane, count, now);
            self.push(&lane, receiver.take_copied(), stride, ecn);
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
        let found = machine.datagrams(socket, &chunk);
        if found.is_empty() {
            // Control, or a flood of what looks like it: the run goes on.
            return;
        }
        // On what a base forwards there may be a mark of the way from the base, which says nothing of the whole.
        let mark = chunk.ecn;
        let ecn = |path: &Path| if let Path::Direct(_) = path { mark } else { Ecn::NotEct };
        self.close(receiver, machine, now);
        self.messages += found.len();
        let bytes = receiver.take(at);
        let runs = found.into_iter();
        self.runs.extend(runs.map(|(from, at, path)| Run::one(from, bytes.slice(at), path, ecn(&path))));
    }

    fn push(&mut self, lane: &Lane, bytes: Bytes, stride: usize, ecn: Ecn) {
        let run = Run { from: lane.peer, path: Path::Direct(lane.hop.to), ecn, bytes, stride };
        self.messages += run.count();
        self.runs.push(run);
    }
}
