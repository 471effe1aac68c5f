//! Messages sent one by one, brought together where nobody waits for it.
//!
//! A lone message leaves at once. Those that follow it while its sender goes on without waiting for anything are gathered,
//! and leave in one system call (segmented by the kernel) when no more fit, or as soon as the sender's task waits or yields:
//! that is when [`run`], a task of its own, gets its turn. So a message waits for its sender, never for a timer.
//!
//! One run is gathered per lane; while one is handed to the system, the next one fills. Order is kept. What the system
//! refuses goes through the machine again, message by message. None of them carries a mark of congestion: those that do come in batches.

use std::{
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::{
    Ecn,
    config::{MAX_SEGMENTED_BYTES, SEND_PATIENCE},
    driver::{Lane, Shared},
    packing::{Packing, Way},
    send::{resend, try_send_run},
};

/// What waits on a lane.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    filling: Run,
    /// A run that the socket had no room for.
    stuck: Option<Run>,
    /// Whether a run is being handed to the system at this moment.
    sending: bool,
    /// Whether a turn of [`run`] is to come for this lane: only then may messages wait.
    expected: bool,
}

/// Messages of one size, one after the other; the last may be shorter.
#[derive(Debug, Default)]
struct Run {
    bytes: Vec<u8>,
    count: usize,
    /// Made for the size of the first.
    packing: Packing,
}

/// The lanes that have a turn to come.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lanes: Mutex<Vec<Arc<Lane>>>,
    bell: Notify,
}

/// What became of a message, or of those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has left, or waits for its turn.
    Taken,
    /// The socket is full.
    Full,
    /// Others are being sent at this moment, and those that wait leave no room.
    Busy,
    /// It has to go by itself, now.
    Alone,
}

impl Run {
    fn takes(&self, length: usize) -> bool {
        let size = self.packing.size();
        let ended = self.bytes.len() < self.count * size;
        self.count == 0 || (!ended && !self.is_full() && length <= size)
    }

    /// `packing` is asked for the first message only.
    fn push(&mut self, data: &[u8], packing: impl FnOnce() -> Packing) {
        if self.count == 0 {
            self.packing = packing();
            self.bytes.reserve(MAX_SEGMENTED_BYTES);
        }
        self.bytes.extend_from_slice(data);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count >= self.packing.most()
    }
}

/// Takes a message for a lane: it waits if a turn is to come, else it is to be sent alone.
pub(crate) fn offer(shared: &Shared, lane: &Arc<Lane>, data: &[u8]) -> Outcome {
    // Never joined: what a program sends by itself is on the wire as it is.
    let packing = || Packing::new(Way::Direct, data.len(), shared.udp.max_segments(lane.hop), None);
    let mut waiting = locked(lane);
    // Where others wait, it does not overtake them.
    if waiting.is_empty() && packing().most() == 1 {
        return Outcome::Alone;
    }
    if !waiting.expected {
        waiting.expected = true;
        return Outcome::Alone;
    }
    if !waiting.filling.takes(data.len()) {
        drop(waiting);
        match flush(shared, lane) {
            Outcome::Taken => {}
            other => return other,
        }
        waiting = locked(lane);
        if !waiting.filling.takes(data.len()) {
            // Another task was faster.
            return Outcome::Busy;
        }
    }
    waiting.filling.push(data, packing);
    let full = waiting.filling.is_full();
    drop(waiting);
    if full {
        // If the socket is full, it is the next message that has to wait.
        let _ = flush(shared, lane);
    }
    Outcome::Taken
}

/// A message went alone: those that follow it may wait until the sender's task does.
pub(crate) fn expect_more(shared: &Shared, lane: &Arc<Lane>) {
    shared.turns.add(Arc::clone(lane));
    shared.turns.bell.notify_one();
}

/// Sends what waits on a lane, so that what follows by another way does not overtake it.
pub(crate) fn flush(shared: &Shared, lane: &Arc<Lane>) -> Outcome {
    loop {
        let mut waiting = locked(lane);
        if waiting.sending {
            return Outcome::Busy;
        }
        let run = match waiting.stuck.take() {
            Some(run) => run,
            None if waiting.filling.count == 0 => return Outcome::Taken,
            None => std::mem::take(&mut waiting.filling),
        };
        waiting.sending = true;
        drop(waiting);
        let result = hand_over(shared, lane, &run);
        let mut waiting = locked(lane);
        waiting.sending = false;
        match result {
            Ok(()) => waiting.reuse(run),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                waiting.stuck = Some(run);
                return Outcome::Full;
            }
            Err(error) => {
                drop(waiting);
                tracing::debug!("messages go one by one: {error}");
                run.bytes.chunks(run.packing.size()).for_each(|data| resend(shared, lane.peer, data));
            }
        }
    }
}

fn hand_over(shared: &Shared, lane: &Lane, run: &Run) -> io::Result<()> {
    let segment = (run.count > 1).then_some(run.packing.size());
    try_send_run(shared, lane.hop, &[IoSlice::new(&run.bytes)], segment, Ecn::NotEct)
}

impl Waiting {
    /// Whether nothing is there to be sent before something else.
    pub(crate) fn is_empty(&self) -> bool {
        self.filling.count == 0 && self.stuck.is_none() && !self.sending
    }

    /// Keeps the buffer of a run that was sent, for the next one.
    fn reuse(&mut self, mut run: Run) {
        if self.filling.count == 0 && self.filling.bytes.capacity() == 0 {
            run.bytes.clear();
            self.filling = Run { bytes: run.bytes, ..Run::default() };
        }
    }

    /// Nothing waits any more: no memory is kept, and the next message goes alone.
    fn rest(&mut self) {
        *self = Self::default();
    }
}

impl Turns {
    fn add(&self, lane: Arc<Lane>) {
        self.lock().push(lane);
    }

    fn take(&self) -> Vec<Arc<Lane>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each lane its turn, until the endpoint ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ended = shared.ended.subscribe();
    loop {
        tokio::select! {
            () = shared.turns.bell.notified() => {}
            // It fails when the sender is gone, and then it has ended, too.
            _ = ended.wait_for(|&ended| ended) => return,
        }
        loop {
            let lanes = shared.turns.take();
            if lanes.is_empty() {
                break;
            }
            for lane in lanes {
                turn(&shared, lane).await;
            }
            yield_now().await;
        }
    }
}

/// Sends what waits on a lane. If there was something, there may soon be more: another turn is to come.
async fn turn(shared: &Shared, lane: Arc<Lane>) {
    {
        let mut waiting = locked(&lane);
        if waiting.is_empty() {
            waiting.rest();
            return;
        }
    }
    empty(shared, &lane).await;
    shared.turns.add(lane);
}

/// Sends all that waits on a lane; what the socket does not take for too long is dropped, as a network would.
pub(crate) async fn empty(shared: &Shared, lane: &Arc<Lane>) {
    let give_up = Instant::now() + SEND_PATIENCE;
    loop {
        match flush(shared, lane) {
            Outcome::Taken | Outcome::Alone => return,
            Outcome::Busy => yield_now().await,
            Outcome::Full => {
                if timeout_at(give_up, shared.udp.writable(lane.hop)).await.is_err() {
                    tracing::debug!("messages were dropped: the socket is full");
                    let mut waiting = locked(lane);
                    waiting.stuck = None;
                    waiting.filling = Run::default();
                    return;
                }
            }
        }
    }
}

/// All lanes on which something waits or may wait, at the end of the endpoint.
pub(crate) async fn empty_all(shared: &Shared) {
    for lane in shared.turns.take() {
        empty(shared, &lane).await;
    }
}

fn locked(lane: &Lane) -> MutexGuard<'_, Waiting> {
    // Nothing panics while it holds this lock.
    lane.waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lengths: &[usize], segments: usize) -> usize {
        let mut run = Run::default();
        for &length in lengths {
            if !run.takes(length) {
                break;
            }
            run.push(&vec![1; length], || Packing::new(Way::Direct, length, segments, None));
        }
        run.count
    }

    #[test]
    fn a_run_is_of_one_size_and_a_shorter_message_ends_it() {
        assert_eq!(run(&[1200; 5], 64), 5);
        assert_eq!(run(&[1200, 1200, 300, 300], 64), 3);
        assert_eq!(run(&[300, 1200], 64), 1);
    }

    #[test]
    fn a_run_is_no_longer_than_the_kernel_takes() {
        assert_eq!(run(&[100; 70], 64), 64);
        assert_eq!(run(&[1200; 70], 64), 54);
    }
}
