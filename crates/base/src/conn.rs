//! One TCP connection: moves bytes between the socket, the owner of the machine and the [`Outbox`].
//!
//! Reading stops while the owner is busy, so a host that floods is slowed down by TCP. Writing takes all that waits
//! into one write. An idle connection holds no buffers.

use std::{io, sync::Arc, time::Duration};

use bowline_proto::base::ConnId;
use bytes::{Buf, BytesMut};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
    time::sleep,
};

use crate::{
    frames,
    outbox::{Batch, End, Outbox},
    server::Event,
};

/// What a read asks for at first; it grows while reads fill it.
const FIRST_READ: usize = 4 << 10;
const LARGEST_READ: usize = 64 << 10;
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
) {
    set_options(&stream);
    let (read_half, write_half) = stream.split();
    tokio::select! {
        () = read(read_half, id, &events) => {}
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
async fn read(half: ReadHalf<'_>, id: ConnId, events: &mpsc::Sender<Event>) {
    let mut buffer = BytesMut::new();
    let mut size = FIRST_READ;
    while half.readable().await.is_ok() {
        // Its own memory again, if the owner is done with what was read before.
        buffer.reserve(size);
        match half.try_read_buf(&mut buffer) {
            Ok(0) => return,
            Ok(n) if n >= size => size = (size * 2).min(LARGEST_READ),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if buffer.is_empty() {
                    // Nothing comes for now: an idle connection holds no buffer.
                    buffer = BytesMut::new();
                }
                continue;
            }
            Err(error) => {
                tracing::debug!(?id, %error, "read");
                return;
            }
        }
        let event = match frames::whole(&buffer) {
            Ok(0) => None,
            Ok(length) => Some(Event::Frames(id, buffer.split_to(length))),
            Err(why) => {
                // The machine ends the connection; what still comes is read away, or the host would get a reset
                // in place of the reason.
                buffer.clear();
                Some(Event::Malformed(id, why))
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// Writes what waits until it cannot, or all is written and the connection is to end. Then it waits for the host to
/// close its side, in [`read`].
async fn write(mut half: WriteHalf<'_>, outbox: &Outbox) -> io::Error {
    let mut batch = Batch::default();
    loop {
        batch = outbox.next(batch).await;
        let mut bytes = Buf::chain(&batch.control[..], &batch.data[..]);
        if let Err(error) = half.write_all_buf(&mut bytes).await {
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

async fn run_out_of_patience(outbox: &Outbox) {
    if outbox.ended().await == End::Flushed {
        sleep(CLOSE_PATIENCE).await;
    }
}
