//! One TCP connection: reads blocks of frames, which [`Plane`] sends on or leaves to the owner of the machine, and writes what waits in the
//! [`Outbox`].
//!
//! Reading stops while the owner is busy, so a host that floods is slowed down by TCP. Writing takes all that waits
//! into one write. An idle connection holds no buffers, and its task is kept small: there are as many as devices.

use std::{
    future::poll_fn,
    io::{self, ErrorKind, IoSlice, Read as _},
    net::Shutdown,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicU32, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Poll, ready},
    time::{Duration, Instant},
};

use bowline_proto::{
    base::{ConnId, Speaker},
    wire::frame::{LENGTH_LEN, MAX_FRAME},
};
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::mpsc::error::TrySendError,
    task::yield_now,
    time::{sleep, timeout},
};

use crate::{
    blocks::{BLOCK, Block, LARGE, SMALL},
    forward::Plane,
    frames,
    outbox::{BULK, Batch, End, Full, Outbox},
    owner::Event,
};

/// Who has read so much lets others have their turn. A full block is more, however much of it was there before: of those who bring
/// much, each has one block at a time, some third of a millisecond's work if its frames are long.
const TURN: usize = 256 << 10;
const _: () = assert!(TURN + LENGTH_LEN + MAX_FRAME <= LARGE);
/// Frames that the owner is given at once: as many as a host has peers to ask for. A block of the smallest would be twenty times as many, and
/// all others wait while they are looked at.
pub(crate) const FRAMES_AT_ONCE: usize = 1_024;
/// What follows a full measure of them comes so much later, and not before they have been dealt with: who floods is read no faster than
/// this, and others find the owner's queue empty of him.
const PAUSE: Duration = Duration::from_millis(1);
/// Patience with a host that reads slowly: whoever sends to it is read no faster meanwhile, and nothing is dropped. Longer than a host that
/// is only busy needs, short enough for those to whom the same sender sends.
const ROOM_PATIENCE: Duration = Duration::from_millis(10);
/// Patience with a host that reads nothing of what waits for it, while much waits for all hosts together: who does not read holds memory
/// that others need.
const STALLED: Duration = Duration::from_secs(2);
/// Pieces of a queue that one write call takes.
const PIECES_AT_ONCE: usize = 16;
/// Patience with a host that does not take its last words, or does not close its side.
pub(crate) const CLOSE_PATIENCE: Duration = Duration::from_secs(3);
/// Sent and not acknowledged for as long: the host is gone. It falls in the time in which UDP may vouch for it.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// What the system holds of data not yet sent, until it is known how fast the host is. More would only wait there, out
/// of reach of the queue's bound, and what is urgent behind it.
const UNSENT: u32 = 128 << 10;
/// So often is that doubled for a host that is fast enough.
const DOUBLINGS: u32 = 5;
/// After so many bytes it is looked how long they took: as many as may ever be unsent.
const PACE_BYTES: u32 = UNSENT << DOUBLINGS;
/// More than this is held for [`MOST_WIDE`] connections at a time, since it is memory that no bound of ours counts.
const UNSENT_MANY: u32 = 1 << 20;
/// That many have up to [`PACE_BYTES`]: who begins fast and then reads nothing makes the system hold no more than this for all.
const MOST_WIDE: u32 = 16;
/// How many do. Of the process, as the memory is.
static WIDE: AtomicU32 = AtomicU32::new(0);
/// A host has unsent what it takes in so much time: whole blocks are written at once, and who writes seldom has to be
/// woken for the rest.
const UNSENT_TIME: Duration = Duration::from_millis(8);

/// A connection, for all who may write to it. It closes when its task ends.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    stream: TcpStream,
    pub(crate) outbox: Outbox,
    pub(crate) speaker: Arc<Speaker>,
    /// Blocks that the owner has been given and has not dealt with.
    owed: AtomicU32,
    /// Of one that takes much.
    pace: OnceLock<Box<Mutex<Pace>>>,
}

/// How fast the host takes what is written.
#[derive(Debug, Default)]
struct Pace {
    since: Option<Instant>,
    bytes: u32,
    doublings: u32,
    /// Whether it is one of [`WIDE`].
    wide: bool,
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.widen(false);
    }
}

impl Pace {
    /// Takes one of the places for more than [`UNSENT_MANY`], or gives it back; whether it has one.
    fn widen(&mut self, wide: bool) -> bool {
        match (self.wide, wide) {
            (false, true) => {
                let more = |wide| (wide < MOST_WIDE).then_some(wide + 1);
                self.wide = WIDE.fetch_update(Relaxed, Relaxed, more).is_ok();
            }
            (true, false) => {
                WIDE.fetch_sub(1, Relaxed);
                self.wide = false;
            }
            _ => {}
        }
        self.wide
    }

    /// So much has been written. Tells what the system may hold unsent from now on, where that changes.
    fn wrote(&mut self, bytes: u32, now: impl FnOnce() -> Instant) -> Option<u32> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes < PACE_BYTES {
            return None;
        }
        let now = now();
        let in_time = |since, halvings| now - since <= UNSENT_TIME * (1u32 << halvings);
        let halvings = self.since.and_then(|since| (0..DOUBLINGS).find(|&halvings| in_time(since, halvings)));
        let mut doublings = halvings.map_or(0, |halvings| DOUBLINGS - halvings);
        if !self.widen(UNSENT << doublings > UNSENT_MANY) {
            doublings = doublings.min((UNSENT_MANY / UNSENT).ilog2());
        }
        (self.since, self.bytes) = (Some(now), 0);
        let before = std::mem::replace(&mut self.doublings, doublings);
        (doublings != before).then_some(UNSENT << doublings)
    }
}

impl Conn {
    pub(crate) fn new(id: ConnId, stream: TcpStream, outbox: Outbox, speaker: Arc<Speaker>) -> Arc<Self> {
        Arc::new(Self { id, stream, outbox, speaker, owed: AtomicU32::new(0), pace: OnceLock::new() })
    }

    /// Whether the owner still has frames that came over it: what comes now comes after them.
    pub(crate) fn owes(&self) -> bool {
        self.owed.load(Acquire) > 0
    }

    /// The owner has dealt with a block, and what came of it is on its way.
    pub(crate) fn settle(&self) {
        self.owed.fetch_sub(1, Release);
    }

    /// Writes as much as the system takes now, which may be nothing. An error shows where the connection is served.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> usize {
        let written = self.stream.try_write(bytes).unwrap_or(0);
        self.wrote(written);
        written
    }

    /// So much has been written: the system may hold more of it for a host that is fast, as long as it is.
    fn wrote(&self, bytes: usize) {
        if bytes < BULK {
            return;
        }
        let mut pace = self.pace.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unsent) = pace.wrote(bytes.try_into().unwrap_or(u32::MAX), Instant::now) {
            hold_unsent(&self.stream, unsent);
        }
    }

    /// Writes control frames at once, if nothing waits before them.
    pub(crate) fn control_now(&self, frames: &[u8]) -> Result<(), Full> {
        let Some(turn) = self.outbox.turn() else { return self.outbox.control(frames) };
        let written = self.write_now(frames);
        if written < frames.len() {
            turn.end_control(frames, written);
        }
        Ok(())
    }
}

/// Serves a connection until either side ends it.
pub(crate) async fn serve(conn: Arc<Conn>, plane: Arc<Plane>) {
    set_options(&conn.stream);
    tokio::select! {
        biased;
        ended = read(&conn, &plane) => if let Err(error) = ended {
            tracing::debug!(id = ?conn.id, %error, "read");
        },
        error = write(&conn) => tracing::debug!(id = ?conn.id, %error, "write"),
    }
    // The owner may be gone: then nobody needs to know.
    if let Err(TrySendError::Full(ended)) = plane.events.try_send(Event::Ended(conn.id)) {
        let _ = Box::pin(plane.events.send(ended)).await;
    }
}

fn set_options(stream: &TcpStream) {
    let set = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(stream);
            socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        }
        Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "socket options");
    }
    hold_unsent(stream, UNSENT);
}

/// Has the system hold no more data than this that it has not sent.
fn hold_unsent(stream: &TcpStream, bytes: u32) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(bytes) {
        tracing::debug!(%error, "socket options");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, bytes);
}

/// Has whole frames dealt with until the host closes its side.
async fn read(conn: &Arc<Conn>, plane: &Plane) -> io::Result<()> {
    let mut block: Option<Block> = None;
    let (mut size, mut turn) = (0, 0);
    loop {
        if block.is_none() {
            // Nothing comes for now: an idle connection holds no memory.
            readable(&conn.stream).await?;
        }
        let mut filling = match block.take() {
            None => plane.blocks.take(size),
            Some(begun) => begun.resized(&plane.blocks, size),
        };
        let Some(read) = read_now(&conn.stream, filling.room())? else {
            if filling.len() > 0 {
                // The rest of a frame is on its way. It may be slow to come, and holds no more than it has to meanwhile.
                block = Some(filling.resized(&plane.blocks, 0));
                readable(&conn.stream).await?;
            }
            continue;
        };
        if read == 0 {
            return Ok(());
        }
        filling.fill(read);
        size = match filling.len() {
            _ if filling.is_full() => (filling.size() + 1).min(LARGE),
            little if little <= SMALL => 0,
            some => size.min(if some <= BLOCK { BLOCK } else { LARGE }),
        };
        let mut crowded = None;
        let event = match frames::whole(filling.as_ref()) {
            Ok(whole) => {
                let done = plane.forward(conn, filling, whole, size);
                let done = done.map_err(|Full| io::Error::other("it does not read what it is told"))?;
                (block, crowded) = (done.rest, done.crowded);
                if done.owners.is_some() {
                    // The owner gets his work in pieces that others can bear to wait for.
                    size = size.min(BLOCK);
                    block = block.map(|begun| begun.resized(&plane.blocks, size));
                }
                done.owners.map(|block| owe(conn, block))
            }
            Err(why) => {
                // The machine ends the connection; what still comes is read away, or the host would get a reset
                // in place of the reason.
                filling.clear();
                Some(Event::Malformed(conn.id, why))
            }
        };
        let waited = crowded.is_some();
        // What is to be waited for lies elsewhere, since most connections wait for nothing.
        let later: Option<Pin<Box<dyn Future<Output = bool> + Send>>> = match (crowded, event) {
            (None, None) => None,
            (None, Some(event)) if !is_long(&event) => match plane.events.try_send(event) {
                Ok(()) => None,
                Err(TrySendError::Closed(_)) => return Ok(()),
                Err(TrySendError::Full(event)) => {
                    Some(Box::pin(async { plane.events.send(event).await.is_ok() }))
                }
            },
            (crowded, event) => {
                block = block.map(|begun| begun.resized(&plane.blocks, 0));
                Some(Box::pin(async {
                    if let Some(crowded) = crowded {
                        plane.room(crowded, ROOM_PATIENCE).await;
                    }
                    match event {
                        Some(Event::Frames(_, many)) => hand_on(conn, plane, many).await,
                        Some(event) => plane.events.send(event).await.is_ok(),
                        None => true,
                    }
                }))
            }
        };
        if let Some(later) = later
            && !later.await
        {
            return Ok(());
        }
        turn += read;
        if waited {
            turn = 0;
        } else if turn >= TURN {
            turn = 0;
            // Whoever is next reads into the same block, which is in the cache.
            block = block.map(|begun| begun.resized(&plane.blocks, 0));
            yield_now().await;
        }
    }
}

/// Frames for the owner, who owes them from now on.
fn owe(conn: &Arc<Conn>, block: Block) -> Event {
    conn.owed.fetch_add(1, Relaxed);
    Event::Frames(Arc::clone(conn), block)
}

/// Whether these are more frames than the owner is given at once.
fn is_long(event: &Event) -> bool {
    match event {
        Event::Frames(_, block) => frames::front(block.as_ref(), FRAMES_AT_ONCE) < block.len(),
        _ => false,
    }
}

/// Gives the owner many small frames, so many at once, each time after those before have been dealt with. They are owed already.
async fn hand_on(conn: &Arc<Conn>, plane: &Plane, many: Block) -> bool {
    let mut next = Some(many);
    while let Some(mut front) = next.take() {
        next = front.split_rest(frames::front(front.as_ref(), FRAMES_AT_ONCE), &plane.blocks, 0);
        conn.owed.fetch_add(u32::from(next.is_some()), Relaxed);
        if plane.events.send(Event::Frames(Arc::clone(conn), front)).await.is_err() {
            return false;
        }
        // What is left is owed, too.
        while next.is_some() && conn.owed.load(Acquire) > 1 {
            sleep(PAUSE).await;
        }
    }
    true
}

/// Waits until there may be something to read. Only the reader does, so the stream itself remembers whom to wake.
async fn readable(stream: &TcpStream) -> io::Result<()> {
    poll_fn(|task| stream.poll_read_ready(task)).await
}

/// Reads what is there; `None` if that is nothing. A read that leaves room has taken all of it, and the next waits without asking.
fn read_now(stream: &TcpStream, room: &mut [u8]) -> io::Result<Option<usize>> {
    let mut read = None;
    let result = stream.try_io(Interest::READABLE, || {
        let count = (&*SockRef::from(stream)).read(room)?;
        read = Some(count);
        if (1..room.len()).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Err(error),
        _ => Ok(read),
    }
}

/// What waits for the end of a connection, from when it is told to end or has to wait for its host; most do neither.
type Patience<'a> = Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>;

/// Writes what waits until it cannot, or all is written and the connection is to end. Then it waits for the host to
/// close its side, in [`read`], as long as there is patience.
async fn write(conn: &Conn) -> io::Error {
    let mut batch = Batch::default();
    let mut patience: Patience<'_> = None;
    loop {
        conn.outbox.next(&mut batch).await;
        if batch.end == End::Now {
            return io::Error::other("it was to end at once");
        }
        let written = AtomicUsize::new(0);
        let result = tokio::select! {
            biased;
            result = write_batch(conn, &batch, &written) => result,
            error = hindered(&conn.outbox, &written, &mut patience) => Err(error),
        };
        if let Err(error) = result {
            return error;
        }
        if batch.end != End::No {
            if let Err(error) = SockRef::from(&conn.stream).shutdown(Shutdown::Write) {
                return error;
            }
            out_of_patience(&conn.outbox, &mut patience).await;
            return io::Error::other("it has not closed its side");
        }
        if patience.is_some() && !conn.outbox.is_ending() {
            // Its time has not begun, and a connection that is idle again holds nothing.
            patience = None;
        }
    }
}

/// Comes to an end when nothing is written for too long while memory is short, or when the connection is to end and
/// has had its time.
async fn hindered<'a>(outbox: &'a Outbox, written: &AtomicUsize, patience: &mut Patience<'a>) -> io::Error {
    let stalled = async {
        loop {
            let before = written.load(Relaxed);
            sleep(STALLED).await;
            if written.load(Relaxed) == before && outbox.is_tight() {
                return;
            }
        }
    };
    Box::pin(async {
        tokio::select! {
            () = stalled => io::Error::other("it reads nothing, and too much waits for all together"),
            () = out_of_patience(outbox, patience) => io::Error::other("it does not take its last words"),
        }
    })
    .await
}

/// Writes all of a batch, as much as possible at once. `so_far` says how much that is.
async fn write_batch(conn: &Conn, batch: &Batch, so_far: &AtomicUsize) -> io::Result<()> {
    let all = batch.len();
    let mut written = 0;
    // The list of pieces is made anew for each call: it is large, and a connection with nothing to write has none.
    poll_fn(|task| {
        while written < all {
            ready!(conn.stream.poll_write_ready(task))?;
            let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
            let count = batch.pieces_after(written, &mut slices);
            match conn.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(more) => {
                    written += more;
                    conn.wrote(more);
                    so_far.store(written, Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Comes to an end when the connection is to end at once, or has had its time since it was to end. The time goes on
/// from one call to the next.
async fn out_of_patience<'a>(outbox: &'a Outbox, patience: &mut Patience<'a>) {
    let run_out = async {
        if outbox.ended(End::No).await == End::Flushed {
            // It ends all the same, whether the patience does or somebody else needs the place.
            let _ = timeout(CLOSE_PATIENCE, outbox.ended(End::Flushed)).await;
        }
    };
    patience.get_or_insert_with(|| Box::pin(run_out)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection's task holds of its own while nothing happens, bytes.
    const TASK: usize = 600;

    fn size_of_task<F: Future>(_: impl FnOnce(Arc<Conn>, Arc<Plane>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_system_may_hold_what_the_host_takes_in_a_moment_and_much_for_few() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut after = |bytes, time| {
            now += time;
            pace.wrote(bytes, || now)
        };
        let (mib, time) = (1 << 20, Duration::from_millis);
        assert_eq!(after(4 * mib, time(0)), None, "nothing to compare with");
        assert_eq!(after(4 * mib - 1, time(8)), None);
        assert_eq!(after(1, time(0)), Some(4 * mib));
        assert_eq!(after(4 * mib, time(1)), None, "never more");
        assert_eq!(after(4 * mib, time(9)), Some(2 * mib));
        assert_eq!(after(4 * mib, time(32)), Some(mib));
        assert_eq!(after(4 * mib, time(30)), None, "as before");
        assert_eq!(after(4 * mib, time(128)), Some(mib / 4));
        assert_eq!(after(4 * mib, time(129)), Some(UNSENT));
        assert_eq!(after(4 * mib, time(5_000)), None, "never less");

        let start = Instant::now();
        let fast = |pace: &mut Pace| {
            let first = pace.wrote(PACE_BYTES, || start);
            first.or(pace.wrote(PACE_BYTES, || start))
        };
        let mut all: Vec<Pace> = (0..2 * MOST_WIDE).map(|_| Pace::default()).collect();
        let wide = |all: &[Pace]| all.iter().filter(|pace| UNSENT << pace.doublings > UNSENT_MANY).count();
        all.iter_mut().for_each(|pace| assert!(fast(pace) >= Some(UNSENT_MANY)));
        assert!(wide(&all) <= MOST_WIDE as usize);
        // One that slows down, or ends, makes room for another.
        let gone = all.iter().position(|pace| pace.wide).expect("some have");
        all.remove(gone);
        let before = wide(&all);
        let next = all.iter_mut().find(|pace| !pace.wide).expect("not all have");
        assert!(fast(next) > Some(UNSENT_MANY));
        assert_eq!(wide(&all), before + 1);
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        let size = size_of_task(serve);
        assert!(size <= TASK, "{size} bytes");
    }
}
