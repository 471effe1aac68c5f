//! One TCP connection: moves bytes between the socket, the owner of the machine and the [`Outbox`].
//!
//! Reading stops while the owner is busy, so a host that floods is slowed down by TCP. Writing takes all that waits
//! into one write. An idle connection holds no buffers.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bowline_proto::base::ConnId;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
    task::coop,
    time::sleep,
};

use crate::{
    blocks::{BLOCK, Pool, SMALL},
    frames,
    outbox::{Batch, End, Outbox},
    server::Event,
};

/// Pieces of a queue that one write call takes.
const PIECES_AT_ONCE: usize = 16;
/// Patience with a host that does not take its last words, or does not close its side.
pub(crate) const CLOSE_PATIENCE: Duration = Duration::from_secs(3);
/// Sent and not acknowledged for as long: the host is gone. It falls in the time in which UDP may vouch for it.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// What the system holds of data not yet sent; more would only wait there, out of reach of the queue's bound.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// Serves a connection until either side ends it.
pub(crate) async fn serve(
    mut stream: TcpStream,
    id: ConnId,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<Event>,
    blocks: Arc<Pool>,
) {
    set_options(&stream);
    let (read_half, write_half) = stream.split();
    tokio::select! {
        ended = read(read_half, id, &events, &blocks) => if let Err(error) = ended {
            tracing::debug!(?id, %error, "read");
        },
        error = write(write_half, &outbox) => tracing::debug!(?id, %error, "write"),
        () = run_out_of_patience(&outbox) => {}
    }
    // The owner may be gone: then nobody needs to know.
    let _ = events.send(Event::Ended(id)).await;
}

fn set_options(stream: &TcpStream) {
    let set = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        {
            let socket = socket2::SockRef::from(stream);
            socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
            socket.set_tcp_notsent_lowat(UNSENT)?;
        }
        Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "socket options");
    }
}

/// Hands whole frames to the owner until the host closes its side.
async fn read(
    mut half: ReadHalf<'_>,
    id: ConnId,
    events: &mpsc::Sender<Event>,
    blocks: &Arc<Pool>,
) -> io::Result<()> {
    let mut block = None;
    let mut size = 0;
    loop {
        if block.is_none() {
            // Nothing comes for now: an idle connection holds no memory.
            half.readable().await?;
        }
        let mut filling = block.take().unwrap_or_else(|| blocks.take(size));
        let Some(read) = read_now(&mut half, filling.room()).await? else {
            if filling.len() > 0 {
                // The rest of a frame is on its way.
                half.readable().await?;
                block = Some(filling);
            }
            continue;
        };
        if read == 0 {
            return Ok(());
        }
        filling.fill(read);
        if filling.is_full() {
            size = BLOCK;
        } else if filling.len() <= SMALL {
            // Not more than this at a time: the rest of a frame that is slow to come holds no large block.
            size = 0;
        }
        let event = match frames::whole(filling.as_ref()) {
            Ok(whole) => {
                block = filling.split_rest(whole, blocks, size);
                (whole > 0).then_some(Event::Frames(id, filling))
            }
            Err(why) => {
                // The machine ends the connection; what still comes is read away, or the host would get a reset
                // in place of the reason.
                filling.clear();
                Some(Event::Malformed(id, why))
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return Ok(());
        }
    }
}

/// Reads what is there; `None` if that is nothing. A read that leaves room has taken all of it, and the next waits without asking.
async fn read_now(half: &mut ReadHalf<'_>, room: &mut [u8]) -> io::Result<Option<usize>> {
    let mut buffer = ReadBuf::new(room);
    poll_fn(|task| match Pin::new(&mut *half).poll_read(task, &mut buffer) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(Some(buffer.filled().len()))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        // It has worked for long enough; it goes on after the others.
        Poll::Pending if !coop::has_budget_remaining() => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(None)),
    })
    .await
}

/// Writes what waits until it cannot, or all is written and the connection is to end. Then it waits for the host to
/// close its side, in [`read`].
async fn write(mut half: WriteHalf<'_>, outbox: &Outbox) -> io::Error {
    let mut batch = Batch::default();
    loop {
        batch = outbox.next(batch).await;
        if let Err(error) = write_batch(&mut half, &batch).await {
            return error;
        }
        if batch.end != End::No {
            return match half.shutdown().await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            };
        }
    }
}

/// Writes all of a batch, as much as possible at once.
async fn write_batch(half: &mut WriteHalf<'_>, batch: &Batch) -> io::Result<()> {
    let mut pieces = std::iter::once(&batch.control[..]).chain(batch.data.iter()).filter(|p| !p.is_empty());
    loop {
        let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&mut pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let mut left = &mut slices[..count];
        if left.is_empty() {
            return Ok(());
        }
        while !left.is_empty() {
            match half.write_vectored(left).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
    }
}

async fn run_out_of_patience(outbox: &Outbox) {
    if outbox.ended().await == End::Flushed {
        sleep(CLOSE_PATIENCE).await;
    }
}
