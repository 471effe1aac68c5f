//! One TCP connection: moves bytes between the socket, the owner of the machine and the [`Outbox`].
//!
//! Reading stops while the owner is busy, so a host that floods is slowed down by TCP. Writing takes all that waits
//! into one write. An idle connection holds no buffers, and its task is kept small: there are as many as devices.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use bowline_proto::base::ConnId;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc::{self, error::TrySendError},
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
    tell(&events, Event::Ended(id)).await;
}

/// Tells the owner, who may be gone: then `false`. What waits for room lies elsewhere, since most connections wait for nothing.
fn tell(events: &mpsc::Sender<Event>, event: Event) -> impl Future<Output = bool> {
    let told = match events.try_send(event) {
        Ok(()) => Ok(true),
        Err(TrySendError::Closed(_)) => Ok(false),
        Err(TrySendError::Full(event)) => Err(Box::pin(events.send(event))),
    };
    async move {
        match told {
            Ok(told) => told,
            Err(room) => room.await.is_ok(),
        }
    }
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
            && !tell(events, event).await
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
        outbox.next(&mut batch).await;
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
    let all = batch.len();
    let mut written = 0;
    // The list of pieces is made anew for each call: it is large, and a connection with nothing to write has none.
    poll_fn(|task| {
        while written < all {
            let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
            let count = batch.pieces_after(written, &mut slices);
            match ready!(Pin::new(&mut *half).poll_write_vectored(task, &slices[..count])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

async fn run_out_of_patience(outbox: &Outbox) {
    if outbox.ended().await == End::Flushed {
        Box::pin(sleep(CLOSE_PATIENCE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection's task holds of its own while nothing happens, bytes.
    const TASK: usize = 896;

    fn size_of_task<F: Future>(
        _: impl FnOnce(TcpStream, ConnId, Arc<Outbox>, mpsc::Sender<Event>, Arc<Pool>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        let size = size_of_task(serve);
        assert!(size <= TASK, "{size} bytes");
    }
}
