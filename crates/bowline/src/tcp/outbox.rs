//! What waits to be written to one TCP connection: control frames and relayed messages, apart.
//!
//! Control frames are never dropped and go first; should more than [`TCP_CONTROL_QUEUE`] pile up, the connection is
//! dead and is given up. Relayed messages are bounded by [`TCP_DATA_QUEUE`]: at the bound the newest is refused, and the
//! caller waits for room, drops it or tells its own caller. Many tasks put in, one takes out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bowline_proto::{
    DeviceId,
    wire::{
        frame::{self, LENGTH_LEN},
        relay::{HEADER_LEN, SEND_DATA, header},
    },
};
use tokio::sync::Notify;

use crate::config::{TCP_CONTROL_QUEUE, TCP_DATA_QUEUE};

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full.
    Full,
    /// The connection has ended.
    Gone,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// For the one task that writes.
    work: Notify,
    /// For tasks that wait to put something in, or for the end.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    control: Vec<u8>,
    data: Vec<u8>,
    phase: Phase,
    /// Whether something that was taken has not been written yet.
    writing: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Closed by the machine: what is in it is still to be written.
    Closing,
    /// Nothing can be written any more.
    Dead,
}

impl Outbox {
    /// Appends control frames, lengths included.
    pub(crate) fn control(&self, frames: &[u8]) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(Refused::Gone);
        }
        if state.control.len() + frames.len() > TCP_CONTROL_QUEUE {
            return Err(Refused::Full);
        }
        state.control.extend_from_slice(frames);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Appends a message as a SEND-DATA frame.
    pub(crate) fn data(&self, to: DeviceId, data: &[u8]) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(Refused::Gone);
        }
        if state.data.len() + LENGTH_LEN + HEADER_LEN + data.len() > TCP_DATA_QUEUE {
            return Err(Refused::Full);
        }
        frame::write(&mut state.data, |out| {
            out.extend_from_slice(&header(SEND_DATA, to));
            out.extend_from_slice(data);
        });
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Whether so many bytes, lengths and headers included, fit now: more than ever fit do once it is empty.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        let state = self.lock();
        state.phase != Phase::Open || state.data.is_empty() || state.data.len() + length <= TCP_DATA_QUEUE
    }

    /// Waits until a message of `length` bytes fits, or the connection has ended.
    pub(crate) async fn room(&self, length: usize) {
        self.wait(|state| {
            state.phase != Phase::Open
                || state.data.is_empty()
                || state.data.len() + LENGTH_LEN + HEADER_LEN + length <= TCP_DATA_QUEUE
        })
        .await;
    }

    /// Waits until all has been handed to the system, or cannot be any more.
    pub(crate) async fn flushed(&self) {
        self.wait(|state| {
            state.phase == Phase::Dead || state.data.is_empty() && state.control.is_empty() && !state.writing
        })
        .await;
    }

    /// Waits until the machine has closed the connection.
    pub(crate) async fn closed(&self) {
        self.wait(|state| state.phase != Phase::Open).await;
    }

    /// Takes nothing more; what is in it is still written.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.work.notify_one();
        self.changed.notify_waiters();
    }

    /// For the writer: waits for something and takes all of it, control frames first, in place of what `into` held.
    /// `false` when it is closed and empty.
    pub(super) async fn take(&self, into: &mut Vec<u8>) -> bool {
        into.clear();
        loop {
            let work = self.work.notified();
            {
                let mut state = self.lock();
                if !state.control.is_empty() || !state.data.is_empty() {
                    state.take(into);
                    break;
                }
                if state.phase != Phase::Open {
                    return false;
                }
            }
            work.await;
        }
        self.changed.notify_waiters();
        true
    }

    /// For the writer: what was taken has been written.
    pub(super) fn written(&self) {
        self.lock().writing = false;
        self.changed.notify_waiters();
    }

    /// For the connection's task: it has ended.
    pub(super) fn die(&self) {
        let mut state = self.lock();
        *state = State { phase: Phase::Dead, ..State::default() };
        drop(state);
        self.changed.notify_waiters();
    }

    async fn wait(&self, done: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if done(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock but `frame::write`, before it changes anything visible.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, into: &mut Vec<u8>) {
        // The buffers change places, so that none is allocated anew while traffic flows.
        if self.control.is_empty() {
            std::mem::swap(into, &mut self.data);
        } else {
            std::mem::swap(into, &mut self.control);
            into.append(&mut self.data);
        }
        self.writing = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: DeviceId = DeviceId::from_bytes([3; 14]);

    #[tokio::test]
    async fn data_is_refused_at_the_bound_and_taken_again_after_a_write() {
        let outbox = Outbox::default();
        let mut taken = 0;
        while outbox.data(TO, &[0; 1200]) == Ok(()) {
            taken += 1;
        }
        assert_eq!(taken, TCP_DATA_QUEUE / (1200 + 17));
        assert_eq!(outbox.data(TO, &[0; 1200]), Err(Refused::Full));
        assert_eq!(outbox.control(&[0, 1, 0x19]), Ok(()), "control is not held up by data");
        let mut batch = Vec::new();
        assert!(outbox.take(&mut batch).await);
        assert_eq!(batch.len(), 3 + taken * 1217);
        assert_eq!(batch[..3], [0, 1, 0x19], "control goes first");
        outbox.room(1200).await;
        assert_eq!(outbox.data(TO, &[0; 1200]), Ok(()));
    }

    #[tokio::test]
    async fn a_connection_that_lets_control_frames_pile_up_is_given_up() {
        let outbox = Outbox::default();
        let frame = [0; 64 * 1024];
        for _ in 0..TCP_CONTROL_QUEUE / frame.len() {
            assert_eq!(outbox.control(&frame), Ok(()));
        }
        assert_eq!(outbox.control(&[1]), Err(Refused::Full));
    }

    #[tokio::test]
    async fn closing_hands_out_the_rest_and_then_ends() {
        let outbox = Outbox::default();
        outbox.control(&[1]).unwrap();
        outbox.close();
        assert_eq!(outbox.data(TO, b"late"), Err(Refused::Gone));
        let mut batch = Vec::new();
        assert!(outbox.take(&mut batch).await);
        assert!(!outbox.take(&mut batch).await);
    }
}
