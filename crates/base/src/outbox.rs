//! What waits to be written to one host: control frames, which are never dropped, and data, which is when the host
//! is too slow. Both are bounded; what does not fit is the caller's to deal with.

use std::{
    io::IoSlice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

use crate::frames::{first, whole};

/// Rows of at least so many bytes are a bulk sender's.
pub(crate) const BULK: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
    /// Something was written.
    moved: Notify,
    ended: Notify,
    control_limit: usize,
    data_limit: usize,
    all: Arc<Total>,
}

#[derive(Debug, Default)]
struct Queue {
    control: Vec<u8>,
    data: Pieces,
    end: End,
    /// Bytes in the batch that is being written.
    writing: usize,
    /// Somebody has the [`Turn`].
    taken: bool,
    /// Somebody has waited for room in vain, and nothing was written since.
    stuck: bool,
}

/// Whole frames (lengths included), where they were read.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    pub(crate) bytes: Bytes,
    /// Bytes of the block that they lie in, all of which they hold.
    pub(crate) block: usize,
}

impl Frames {
    /// Those that come after so many bytes.
    pub(crate) fn after(&self, bytes: usize) -> Self {
        Self { bytes: self.bytes.slice(bytes..), block: self.block }
    }

    /// Whether they are worth that they hold their block: half of it or more.
    fn fill_block(&self) -> bool {
        self.bytes.len() >= self.block / 2
    }

    /// The same, no longer in their block if they are not worth it.
    fn compact(self) -> Self {
        if self.fill_block() {
            return self;
        }
        Self { block: self.bytes.len(), bytes: Bytes::copy_from_slice(&self.bytes) }
    }
}

/// Frames that wait beside a queue until it has room. They count among all that waits, and hold no more than twice what they count.
#[derive(Debug)]
pub(crate) struct Waiting {
    frames: Frames,
    all: Arc<Total>,
}

impl Waiting {
    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    /// As many as fit join the queue that they wait for; whether any did.
    pub(crate) fn join(&mut self, queue: &Outbox) -> bool {
        self.all.bytes.fetch_sub(self.frames.bytes.len(), Relaxed);
        let joined = queue.data_frames(&self.frames).bytes;
        self.frames = self.frames.after(joined).compact();
        self.all.bytes.fetch_add(self.frames.bytes.len(), Relaxed);
        joined > 0
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.frames.bytes.len(), Relaxed);
    }
}

/// What became of frames that were to join a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Bytes of those that have been written or wait.
    pub(crate) bytes: usize,
    /// They are many, and something waits: whoever brings more does well to wait ([`Outbox::room`]), also for those that found no room.
    pub(crate) crowded: bool,
}

/// What waits in all outboxes together.
#[derive(Debug)]
pub(crate) struct Total {
    bytes: AtomicUsize,
    limit: usize,
}

impl Total {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), limit })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    fn room(&self) -> usize {
        self.limit.saturating_sub(self.bytes())
    }

    /// Half of what may wait does.
    fn is_tight(&self) -> bool {
        self.bytes() > self.limit / 2
    }
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum End {
    #[default]
    No,
    /// When all has been written.
    Flushed,
    /// At once.
    Now,
}

/// What is to be written next, and what then.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) control: Vec<u8>,
    pub(crate) data: Pieces,
    pub(crate) end: End,
}

/// Data frames: long runs of them in the blocks that they were read into, short ones copied together.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    list: Vec<Bytes>,
    /// After all in the list.
    copied: Vec<u8>,
    bytes: usize,
}

impl Pieces {
    fn len(&self) -> usize {
        self.bytes
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn share(&mut self, bytes: Bytes) {
        if !self.copied.is_empty() {
            self.list.push(std::mem::take(&mut self.copied).into());
        }
        self.bytes += bytes.len();
        self.list.push(bytes);
    }

    fn clear(&mut self) {
        self.list.clear();
        self.copied.clear();
        self.bytes = 0;
    }

    /// The bytes in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(|piece| &piece[..]).chain([&self.copied[..]])
    }
}

/// The right to write past the queue, which is empty: until it is given back the writer waits, and what comes joins the queue.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Outbox);

impl Turn<'_> {
    /// So many bytes of these whole data frames have been written. Of the rest, what was begun goes before all else, and as many frames as fit
    /// join the queue.
    pub(crate) fn end(self, row: &Frames, written: usize) -> Joined {
        let begun = end_of_frame(&row.bytes, written);
        self.0.first(&row.bytes[written..begun]);
        let joined = self.0.data_frames(&row.after(begun));
        Joined { bytes: begun + joined.bytes, ..joined }
    }

    /// The same of control frames, which all wait.
    pub(crate) fn end_control(self, frames: &[u8], written: usize) {
        self.0.first(&frames[written..]);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.taken = false;
        if !queue.is_empty() {
            drop(queue);
            self.0.changed.notify_one();
        }
    }
}

/// Where the frame ends in which this place is; the place itself if it is between two.
fn end_of_frame(frames: &[u8], place: usize) -> usize {
    let mut end = 0;
    while end < place
        && let Ok(Some(frame)) = first(&frames[end..])
    {
        end += frame;
    }
    end
}

impl Queue {
    fn is_crowded(&self) -> bool {
        self.data.len() + self.writing > 0 && !self.stuck && self.end == End::No
    }

    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.len() == 0 && self.end == End::No
    }
}

/// The queue has no room.
#[derive(Debug)]
pub(crate) struct Full;

impl Outbox {
    pub(crate) fn new(control_limit: usize, data_limit: usize, all: Arc<Total>) -> Self {
        Self {
            queue: Mutex::default(),
            changed: Notify::new(),
            moved: Notify::new(),
            ended: Notify::new(),
            control_limit,
            data_limit,
            all,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to write at once, if nothing waits or is being written, and the connection goes on.
    pub(crate) fn turn(&self) -> Option<Turn<'_>> {
        let mut queue = self.lock();
        if queue.taken || queue.writing > 0 || !queue.is_empty() {
            return None;
        }
        queue.taken = true;
        Some(Turn(self))
    }

    /// Bytes that go before all that waits, since what comes before them has been written.
    fn first(&self, bytes: &[u8]) {
        self.lock().control.splice(..0, bytes.iter().copied());
        self.all.bytes.fetch_add(bytes.len(), Relaxed);
    }

    /// Whether so much waits for all hosts together that each has to read.
    pub(crate) fn is_tight(&self) -> bool {
        self.all.is_tight()
    }

    /// Appends control frames.
    pub(crate) fn control(&self, frames: &[u8]) -> Result<(), Full> {
        let mut queue = self.lock();
        if queue.control.len() + frames.len() > self.control_limit {
            return Err(Full);
        }
        queue.control.extend_from_slice(frames);
        self.all.bytes.fetch_add(frames.len(), Relaxed);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// Appends one data frame, given in parts.
    pub(crate) fn data(&self, parts: [&[u8]; 2]) -> Result<(), Full> {
        let mut queue = self.lock();
        let length = parts[0].len() + parts[1].len();
        if queue.data.len() + length > self.data_limit || length > self.all.room() {
            return Err(Full);
        }
        for part in parts {
            queue.data.copy(part);
        }
        self.all.bytes.fetch_add(length, Relaxed);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// Appends as many of these frames as fit.
    pub(crate) fn data_frames(&self, row: &Frames) -> Joined {
        let (mut queue, frames) = (self.lock(), &row.bytes);
        let room = self.data_limit.saturating_sub(queue.data.len()).min(self.all.room());
        let fits = if frames.len() <= room { frames.len() } else { whole(&frames[..room]).unwrap_or(0) };
        // What waits where it was read holds a whole block, so no less than half of one is worth it.
        if fits > 0 && fits >= row.block / 2 {
            queue.data.share(frames.slice(..fits));
        } else {
            queue.data.copy(&frames[..fits]);
        }
        self.all.bytes.fetch_add(fits, Relaxed);
        // Who brings long rows is a bulk sender to this host alone, and gets no further than it reads: then his next row goes past the queue.
        // Whoever sends to many is not held up by one of them: what that one does not read in time is dropped.
        let crowded = frames.len() >= BULK && queue.is_crowded();
        drop(queue);
        if fits > 0 {
            self.changed.notify_one();
        }
        Joined { bytes: fits, crowded }
    }

    /// Keeps frames beside the queue until it has room. With much waiting already none are kept: they are given back.
    pub(crate) fn keep(&self, frames: Frames) -> (Waiting, Option<Frames>) {
        let all = Arc::clone(&self.all);
        if self.is_tight() {
            return (Waiting { frames: frames.after(frames.bytes.len()), all }, Some(frames));
        }
        all.bytes.fetch_add(frames.bytes.len(), Relaxed);
        (Waiting { frames: frames.compact(), all }, None)
    }

    /// Waits until no data waits, for so long at most, and tells whether it came to that. A host that reads slowly slows down by that who
    /// sends to it, but one that does not read stops nobody: once somebody has waited in vain, nobody does until something was written.
    pub(crate) async fn room(&self, patience: Duration) -> bool {
        let room = async {
            loop {
                let moved = self.moved.notified();
                if !self.lock().is_crowded() {
                    return;
                }
                moved.await;
            }
        };
        let in_time = timeout(patience, room).await.is_ok();
        if !in_time {
            self.lock().stuck = true;
        }
        in_time
    }

    /// Ends the connection.
    pub(crate) fn end(&self, end: End) {
        self.lock().end = end;
        self.changed.notify_one();
        self.moved.notify_waiters();
        self.ended.notify_one();
    }

    /// Whether the connection is to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.lock().end != End::No
    }

    /// Waits until the connection is to end in another way than this, and tells how.
    pub(crate) async fn ended(&self, but: End) -> End {
        loop {
            let ended = self.ended.notified();
            let end = self.lock().end;
            if end != but {
                return end;
            }
            ended.await;
        }
    }

    /// Everything that waits, for one write, in place of the batch before, whose buffers are used again while there is more to write. A
    /// connection with nothing to write holds none.
    pub(crate) async fn next(&self, batch: &mut Batch) {
        let gone = {
            let mut queue = self.lock();
            queue.stuck &= queue.writing == 0;
            std::mem::take(&mut queue.writing)
        };
        if gone > 0 {
            self.all.bytes.fetch_sub(gone, Relaxed);
            self.moved.notify_waiters();
        }
        batch.end = End::No;
        batch.control.clear();
        batch.data.clear();
        loop {
            // What comes after this look is remembered until it is waited for.
            {
                let mut queue = self.lock();
                if !queue.taken && !queue.is_empty() {
                    std::mem::swap(&mut queue.control, &mut batch.control);
                    std::mem::swap(&mut queue.data, &mut batch.data);
                    queue.writing = batch.control.len() + batch.data.len();
                    batch.end = queue.end;
                    return;
                }
                // If both are empty, what they had room for is given back.
                if queue.is_empty() {
                    (queue.control, queue.data) = (Vec::new(), Pieces::default());
                }
            }
            *batch = Batch::default();
            self.changed.notified().await;
        }
    }
}

impl Batch {
    /// Bytes to be written.
    pub(crate) fn len(&self) -> usize {
        self.control.len() + self.data.len()
    }

    /// Fills `slices` with what comes after so many bytes; gives back how many were filled.
    pub(crate) fn pieces_after<'a>(&'a self, skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut skip, mut count) = (skip, 0);
        for piece in std::iter::once(&self.control[..]).chain(self.data.iter()) {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let Some(slice) = slices.get_mut(count) else { break };
            *slice = IoSlice::new(&piece[skip..]);
            (skip, count) = (0, count + 1);
        }
        count
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let queue = self.queue.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.all.bytes.fetch_sub(queue.control.len() + queue.data.len() + queue.writing, Relaxed);
    }
}

#[cfg(test)]
mod tests;
