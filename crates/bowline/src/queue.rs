//! The receive queue: what came in and waits for `recv`.
//!
//! Bounded by messages and by bytes ([`INBOX_MESSAGES`], [`INBOX_BYTES`]); at the bound the newest message is dropped
//! and counted, so that what is already waiting keeps its order. After the end of the endpoint the rest can still be
//! taken. It knows nothing of where messages come from.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    Datagram, RecvError,
    config::{INBOX_BYTES, INBOX_MESSAGES},
};

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Datagram>,
    bytes: usize,
    dropped: u64,
    closed: bool,
}

impl Inbox {
    pub(crate) fn push(&self, datagram: Datagram) {
        self.push_all([datagram]);
    }

    pub(crate) fn push_all(&self, datagrams: impl IntoIterator<Item = Datagram>) {
        let mut state = self.lock();
        let taken = datagrams.into_iter().map(|datagram| usize::from(state.push(datagram))).sum::<usize>();
        drop(state);
        // One receiver for each message: those that find none left wait again.
        (0..taken).for_each(|_| self.arrived.notify_one());
    }

    /// The next message, if one is there.
    pub(crate) fn try_pop(&self) -> Result<Option<Datagram>, RecvError> {
        self.lock().pop()
    }

    pub(crate) async fn pop(&self) -> Result<Datagram, RecvError> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(datagram) = self.lock().pop()? {
                return Ok(datagram);
            }
            arrived.await;
        }
    }

    /// Waits for one message, then takes all that are there, `max` at most.
    pub(crate) async fn pop_batch(&self, into: &mut Vec<Datagram>, max: usize) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        into.push(self.pop().await?);
        let mut state = self.lock();
        let mut taken = 1;
        while taken < max
            && let Ok(Some(datagram)) = state.pop()
        {
            into.push(datagram);
            taken += 1;
        }
        Ok(taken)
    }

    /// Messages dropped since the start because nobody fetched those before them.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Nothing comes any more; receivers get the rest, then [`RecvError::Closed`].
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock; if it did, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, datagram: Datagram) -> bool {
        let full = self.messages.len() >= INBOX_MESSAGES || self.bytes + datagram.data.len() > INBOX_BYTES;
        if full || self.closed {
            self.dropped += 1;
            return false;
        }
        self.bytes += datagram.data.len();
        self.messages.push_back(datagram);
        true
    }

    fn pop(&mut self) -> Result<Option<Datagram>, RecvError> {
        match self.messages.pop_front() {
            Some(datagram) => {
                self.bytes -= datagram.data.len();
                Ok(Some(datagram))
            }
            None if self.closed => Err(RecvError::Closed),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{DeviceId, Path};

    fn datagram(number: usize, length: usize) -> Datagram {
        let mut data = vec![0; length.max(8)];
        data[..8].copy_from_slice(&number.to_be_bytes());
        Datagram { from: DeviceId::from_bytes([1; 14]), data: Bytes::from(data), path: Path::Local }
    }

    fn drain(inbox: &Inbox) -> Vec<Datagram> {
        std::iter::from_fn(|| inbox.try_pop().ok().flatten()).collect()
    }

    #[test]
    fn over_the_count_the_newest_are_dropped_and_counted() {
        let inbox = Inbox::default();
        for number in 0..INBOX_MESSAGES + 10 {
            inbox.push(datagram(number, 8));
        }
        let got = drain(&inbox);
        assert_eq!(got.len(), INBOX_MESSAGES);
        assert_eq!(got[0], datagram(0, 8));
        assert_eq!(inbox.dropped(), 10);
    }

    #[test]
    fn over_the_bytes_the_newest_are_dropped_and_room_comes_back() {
        let inbox = Inbox::default();
        let size = 16_000;
        let fit = INBOX_BYTES / size;
        for number in 0..fit + 5 {
            inbox.push(datagram(number, size));
        }
        assert_eq!(inbox.dropped(), 5);
        assert_eq!(drain(&inbox).len(), fit);
        inbox.push(datagram(0, size));
        assert_eq!(drain(&inbox).len(), 1);
    }

    #[tokio::test]
    async fn several_receivers_share_all_messages() {
        let inbox = Arc::new(Inbox::default());
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let inbox = Arc::clone(&inbox);
                tokio::spawn(async move {
                    let mut count = 0;
                    while inbox.pop().await.is_ok() {
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for number in 0..1000 {
            inbox.push(datagram(number, 8));
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        inbox.close();
        let mut total = 0;
        for receiver in receivers {
            total += receiver.await.unwrap();
        }
        assert_eq!(total, 1000);
    }

    #[tokio::test]
    async fn after_closing_the_rest_can_be_taken() {
        let inbox = Inbox::default();
        inbox.push(datagram(1, 8));
        inbox.push(datagram(2, 8));
        inbox.close();
        inbox.push(datagram(3, 8));
        let mut got = Vec::new();
        assert_eq!(inbox.pop_batch(&mut got, 10).await, Ok(2));
        assert_eq!(inbox.pop().await, Err(RecvError::Closed));
    }

    #[tokio::test]
    async fn a_batch_takes_no_more_than_it_was_asked_for() {
        let inbox = Inbox::default();
        (0..5).for_each(|number| inbox.push(datagram(number, 8)));
        let mut got = Vec::new();
        assert_eq!(inbox.pop_batch(&mut got, 3).await, Ok(3));
        assert_eq!(inbox.pop_batch(&mut got, 3).await, Ok(2));
        assert_eq!(inbox.pop_batch(&mut got, 0).await, Ok(0));
        assert_eq!(got.len(), 5);
    }
}
