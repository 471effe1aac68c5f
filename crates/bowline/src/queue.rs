//! The receive queue: what came in and waits for `recv`.
//!
//! Bounded by messages, the pieces they came in, and bytes ([`INBOX_MESSAGES`], [`INBOX_PIECES`], [`INBOX_BYTES`]); at
//! the bound the newest message is dropped and counted, so that what is already waiting keeps its order. After the end of
//! the endpoint the rest can still be
//! taken. It knows nothing of where messages come from. Messages that came together wait together, as one run, and part
//! when they are taken.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{sync::Notify, task::coop::consume_budget};

use crate::{
    Datagram, DeviceId, Ecn, Path, RecvError, Segments,
    config::{INBOX_BYTES, INBOX_LOW, INBOX_MESSAGES, INBOX_PIECES},
};

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    /// Rung when there is room again after [`Inbox::is_crowded`] was true.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    runs: VecDeque<Run>,
    messages: usize,
    bytes: usize,
    dropped: u64,
    closed: bool,
    /// Whether somebody waits for room.
    awaited: bool,
}

/// Messages of one sender that came together.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) from: DeviceId,
    pub(crate) path: Path,
    /// The mark of each.
    pub(crate) ecn: Ecn,
    /// One after the other.
    pub(crate) bytes: Bytes,
    /// The length of each but the last.
    pub(crate) stride: usize,
}

impl Run {
    /// A single message.
    pub(crate) fn one(from: DeviceId, data: Bytes, path: Path, ecn: Ecn) -> Self {
        Self { from, path, ecn, stride: data.len().max(1), bytes: data }
    }

    /// How many messages it has: an empty one is one, too.
    pub(crate) fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.stride).max(1)
    }

    /// Takes the first message out; `true`: it was the last.
    fn split(&mut self) -> (Datagram, bool) {
        let data = self.bytes.split_to(self.stride.min(self.bytes.len()));
        (Datagram { from: self.from, data, path: self.path, ecn: self.ecn }, self.bytes.is_empty())
    }
}

impl From<Run> for Segments {
    fn from(run: Run) -> Self {
        let Run { from, path, ecn, bytes, stride } = run;
        Self { from, data: bytes, segment: stride, path, ecn }
    }
}

impl Inbox {
    pub(crate) fn push(&self, datagram: Datagram) {
        let Datagram { from, data, path, ecn } = datagram;
        self.push_all([Run::one(from, data, path, ecn)]);
    }

    pub(crate) fn push_all(&self, runs: impl IntoIterator<Item = Run>) {
        let mut state = self.lock();
        runs.into_iter().for_each(|run| state.push(run));
        let any = state.messages > 0;
        drop(state);
        if any {
            // One receiver: if it leaves something, it wakes the next.
            self.arrived.notify_one();
        }
    }

    /// The next message, if one is there.
    pub(crate) fn try_pop(&self) -> Result<Option<Datagram>, RecvError> {
        let mut state = self.lock();
        let popped = state.pop();
        self.pass_on(state);
        popped
    }

    pub(crate) async fn pop(&self) -> Result<Datagram, RecvError> {
        // A receiver that always finds something would never let the driver have its turn.
        consume_budget().await;
        loop {
            let arrived = self.arrived.notified();
            if let Some(datagram) = self.try_pop()? {
                return Ok(datagram);
            }
            arrived.await;
        }
    }

    /// Waits for messages, and takes those that came together.
    pub(crate) async fn pop_run(&self) -> Result<Segments, RecvError> {
        consume_budget().await;
        loop {
            let arrived = self.arrived.notified();
            if let Some(run) = self.try_pop_run()? {
                return Ok(run.into());
            }
            arrived.await;
        }
    }

    /// The next messages that came together, if any are there.
    pub(crate) fn try_pop_run(&self) -> Result<Option<Run>, RecvError> {
        let mut state = self.lock();
        let popped = state.pop_run();
        self.pass_on(state);
        popped
    }

    /// Waits for one message, then takes all that are there, `max` at most.
    pub(crate) async fn pop_batch(&self, into: &mut Vec<Datagram>, max: usize) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        consume_budget().await;
        loop {
            let arrived = self.arrived.notified();
            match self.try_pop_batch(into, max)? {
                0 => arrived.await,
                taken => return Ok(taken),
            }
        }
    }

    /// Takes what is there, `max` messages at most; their number.
    fn try_pop_batch(&self, into: &mut Vec<Datagram>, max: usize) -> Result<usize, RecvError> {
        let mut state = self.lock();
        let taken = state.pop_batch(into, max);
        self.pass_on(state);
        taken
    }

    /// After something was taken: the next receiver has its turn if there is more; who waits for room, if there is some.
    fn pass_on(&self, mut state: MutexGuard<'_, State>) {
        let more = state.messages > 0;
        let room = state.awaited && !state.is_crowded();
        state.awaited &= !room;
        drop(state);
        if more {
            self.arrived.notify_one();
        }
        if room {
            self.room.notify_one();
        }
    }

    /// Whether so much waits that it is better to leave the rest where it is for now.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().is_crowded()
    }

    /// Waits until it is no longer crowded.
    pub(crate) async fn roomy(&self) {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if !state.is_crowded() {
                    return;
                }
                state.awaited = true;
            }
            room.await;
        }
    }

    /// Messages dropped since the start because nobody fetched those before them.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Nothing comes any more; receivers get the rest, then [`RecvError::Closed`].
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_waiters();
        self.room.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock; if it did, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, mut run: Run) {
        let count = run.count();
        let fits = if self.closed || self.runs.len() >= INBOX_PIECES {
            0
        } else if self.bytes + run.bytes.len() <= INBOX_BYTES {
            count.min(INBOX_MESSAGES - self.messages)
        } else {
            ((INBOX_BYTES - self.bytes) / run.stride).min(count).min(INBOX_MESSAGES - self.messages)
        };
        self.dropped += (count - fits) as u64;
        if fits == 0 {
            return;
        }
        if fits < count {
            run.bytes.truncate(fits * run.stride);
        }
        self.messages += fits;
        self.bytes += run.bytes.len();
        self.runs.push_back(run);
    }

    fn pop(&mut self) -> Result<Option<Datagram>, RecvError> {
        let Some(run) = self.runs.front_mut() else {
            return if self.closed { Err(RecvError::Closed) } else { Ok(None) };
        };
        let (datagram, last) = run.split();
        if last {
            self.runs.pop_front();
        }
        self.messages -= 1;
        self.bytes -= datagram.data.len();
        Ok(Some(datagram))
    }

    /// The number of messages taken, `max` at most: 0 if none are there.
    fn pop_batch(&mut self, into: &mut Vec<Datagram>, max: usize) -> Result<usize, RecvError> {
        if self.runs.is_empty() && self.closed {
            return Err(RecvError::Closed);
        }
        let count = self.messages.min(max);
        into.reserve(count);
        let mut left = count;
        while left > 0
            && let Some(run) = self.runs.front_mut()
        {
            let messages = run.count().min(left);
            let Run { from, path, ecn, stride, .. } = *run;
            let bytes = run.bytes.split_to((messages * stride).min(run.bytes.len()));
            if run.bytes.is_empty() {
                self.runs.pop_front();
            }
            self.bytes -= bytes.len();
            left -= messages;
            // Not split off one by one: each would have to wait for what was written of the rest.
            into.extend((0..messages).map(|at| {
                let data = bytes.slice(at * stride..((at + 1) * stride).min(bytes.len()));
                Datagram { from, data, path, ecn }
            }));
        }
        self.messages -= count;
        Ok(count)
    }

    fn pop_run(&mut self) -> Result<Option<Run>, RecvError> {
        let Some(run) = self.runs.pop_front() else {
            return if self.closed { Err(RecvError::Closed) } else { Ok(None) };
        };
        self.messages -= run.count();
        self.bytes -= run.bytes.len();
        Ok(Some(run))
    }

    fn is_crowded(&self) -> bool {
        let crowded = self.messages > INBOX_MESSAGES / INBOX_LOW
            || self.runs.len() > INBOX_PIECES / INBOX_LOW
            || self.bytes > INBOX_BYTES / INBOX_LOW;
        crowded && !self.closed
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
        Datagram {
            from: DeviceId::from_bytes([1; 14]),
            data: Bytes::from(data),
            path: Path::Local,
            ecn: Ecn::NotEct,
        }
    }

    /// So many bytes of messages that came together.
    fn run(length: usize, stride: usize) -> Run {
        let bytes = Bytes::from(vec![7; length]);
        Run { from: DeviceId::from_bytes([1; 14]), path: Path::Local, ecn: Ecn::NotEct, bytes, stride }
    }

    fn drain(inbox: &Inbox) -> Vec<Datagram> {
        std::iter::from_fn(|| inbox.try_pop().ok().flatten()).collect()
    }

    #[test]
    fn over_the_count_the_newest_are_dropped_and_counted() {
        let inbox = Inbox::default();
        for number in 0..INBOX_PIECES + 10 {
            inbox.push(datagram(number, 8));
        }
        let got = drain(&inbox);
        assert_eq!(got.len(), INBOX_PIECES);
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

    #[test]
    fn messages_that_came_together_part_when_they_are_taken_and_count_one_by_one() {
        let inbox = Inbox::default();
        inbox.push_all([run(0, 10), run(25, 10)]);
        let lengths: Vec<_> = drain(&inbox).iter().map(|got| got.data.len()).collect();
        assert_eq!(lengths, [0, 10, 10, 5]);
        // A run that fits in part is taken in part.
        let runs = INBOX_MESSAGES / 100 + 1;
        inbox.push_all((0..runs).map(|_| run(1000, 10)));
        assert_eq!(drain(&inbox).len(), INBOX_MESSAGES);
        assert_eq!(inbox.dropped(), (runs * 100 - INBOX_MESSAGES) as u64);
    }

    #[test]
    fn of_messages_that_came_together_as_many_are_kept_as_there_is_room_for_by_bytes_and_by_count() {
        let inbox = Inbox::default();
        let whole = INBOX_BYTES / 64_000;
        inbox.push_all((0..=whole).map(|_| run(64_000, 1_000)));
        let rest = (INBOX_BYTES - whole * 64_000) / 1_000;
        assert!((1..64).contains(&rest));
        assert_eq!(inbox.dropped(), (64 - rest) as u64);
        assert_eq!(drain(&inbox).len(), whole * 64 + rest);

        // What fits by its bytes may be too many.
        let inbox = Inbox::default();
        inbox.push_all([run(INBOX_MESSAGES - 100, 1)]);
        inbox.push_all((0..(INBOX_BYTES - INBOX_MESSAGES) / 160_000).map(|_| run(160_000, 16_000)));
        inbox.push_all([run(INBOX_BYTES, 1_000)]);
        assert_eq!(drain(&inbox).len(), INBOX_MESSAGES);
    }

    #[test]
    fn what_is_taken_together_leaves_as_much_room_as_it_took() {
        let inbox = Inbox::default();
        for _ in 0..3 {
            inbox.push_all((0..INBOX_MESSAGES / 64).map(|_| run(64 * 100, 100)));
            while inbox.try_pop_run().unwrap().is_some() {}
        }
        assert_eq!(inbox.dropped(), 0);
    }

    #[test]
    fn half_full_of_messages_pieces_or_bytes_it_is_crowded_until_one_is_taken() {
        type Fill = fn(&Inbox);
        let fills: [Fill; 3] = [
            |inbox| inbox.push_all([run(INBOX_MESSAGES / INBOX_LOW, 1)]),
            |inbox| (0..INBOX_PIECES / INBOX_LOW).for_each(|n| inbox.push(datagram(n, 8))),
            |inbox| inbox.push_all([run(INBOX_BYTES / INBOX_LOW, 1_024)]),
        ];
        for (at, fill) in fills.iter().enumerate() {
            let inbox = Inbox::default();
            fill(&inbox);
            assert!(!inbox.is_crowded(), "{at}");
            inbox.push(datagram(0, 8));
            assert!(inbox.is_crowded(), "{at}");
            inbox.try_pop().unwrap();
            assert!(!inbox.is_crowded(), "{at}");
        }
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

    #[tokio::test]
    async fn a_batch_goes_across_messages_that_came_together_and_leaves_the_rest_of_them() {
        let inbox = Inbox::default();
        inbox.push_all([run(25, 10), run(0, 10), run(40, 10), run(7, 10)]);
        let mut got = Vec::new();
        assert_eq!(inbox.pop_batch(&mut got, 6).await, Ok(6));
        assert_eq!(inbox.pop_batch(&mut got, 100).await, Ok(3));
        let lengths: Vec<_> = got.iter().map(|got| got.data.len()).collect();
        assert_eq!(lengths, [10, 10, 5, 0, 10, 10, 10, 10, 7]);
        // All of their room is there again.
        inbox.push_all([run(INBOX_BYTES, 1_000)]);
        assert_eq!(inbox.dropped(), 0);
        inbox.close();
        assert_eq!(inbox.pop_batch(&mut got, usize::MAX).await, Ok(INBOX_BYTES.div_ceil(1_000)));
        assert_eq!(inbox.pop_batch(&mut got, 1).await, Err(RecvError::Closed));
    }
}
