//! A stream joined with something local: a socket, or standard input and output. Each direction ends by itself.

use std::io::IoSlice;

use bowline_quic::quinn::{RecvStream, SendStream, StoppedError, VarInt};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::streams::StreamError;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Pieces of a stream, each of one packet, that are written at once.
const PIECES: usize = 64;
/// The code of a direction that ends because its local end failed.
const BROKEN: VarInt = VarInt::from_u32(1);

/// What one direction has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    /// Whether that was all; else whoever took it had enough before.
    pub(crate) whole: bool,
}

/// Carries everything from here to the other end; the bytes that were taken. A local error breaks the direction off, so that the other
/// end does not take a part for the whole.
pub(crate) async fn up(
    from: &mut (impl AsyncRead + Unpin),
    send: &mut SendStream,
) -> Result<Carried, StreamError> {
    let mut bytes = 0;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read,
            // Who takes no more need not be read for.
            stopped = send.stopped() => return match stopped {
                Ok(_) => Ok(Carried { bytes, whole: false }),
                Err(StoppedError::ConnectionLost(error)) => Err(StreamError::Lost(error)),
                Err(error) => Err(StreamError::local("the stream ended", &error)),
            },
        };
        match read {
            Ok(0) => {
                // It fails where the other end has stopped it.
                let whole = send.finish().is_ok();
                return Ok(Carried { bytes, whole });
            }
            Ok(read) => bytes += read as u64,
            Err(error) => {
                let _ = send.reset(BROKEN);
                return Err(StreamError::local("cannot read", &error));
            }
        }
        match send.write_chunk(buffer.split().freeze()).await.map_err(StreamError::from) {
            Ok(()) => {}
            Err(StreamError::Stopped) => return Ok(Carried { bytes, whole: false }),
            Err(error) => return Err(error),
        }
    }
}

/// Carries everything from the other end to here; the bytes that came. Where nobody takes them any more, the other end is told.
pub(crate) async fn down(
    receive: &mut RecvStream,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<Carried, StreamError> {
    let mut bytes = 0;
    let mut pieces: [Bytes; PIECES] = std::array::from_fn(|_| Bytes::new());
    let mut gathered = Vec::new();
    while let Some(count) = receive.read_chunks(&mut pieces).await? {
        if let Err(error) = write(to, &pieces[..count], &mut gathered).await {
            let _ = receive.stop(BROKEN);
            return if error.kind() == std::io::ErrorKind::BrokenPipe {
                Ok(Carried { bytes, whole: false })
            } else {
                Err(StreamError::local("cannot write", &error))
            };
        }
        bytes += pieces[..count].iter().map(|piece| piece.len() as u64).sum::<u64>();
    }
    // The other end of a socket may have gone already; it has all that there was.
    let _ = to.shutdown().await;
    Ok(Carried { bytes, whole: true })
}

/// Writes pieces in one call: where several cannot be given at once (standard output, to which each call is a change of threads), they
/// are gathered first.
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    pieces: &[Bytes],
    gathered: &mut Vec<u8>,
) -> std::io::Result<()> {
    if let [piece] = pieces {
        to.write_all(piece).await?;
    } else if to.is_write_vectored() {
        let mut slices: Vec<IoSlice<'_>> =
            pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match to.write_vectored(left).await? {
                0 => return Err(std::io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
    } else {
        gathered.clear();
        pieces.iter().for_each(|piece| gathered.extend_from_slice(piece));
        to.write_all(gathered).await?;
    }
    to.flush().await
}

/// Both directions, until both have ended: the bytes of each, or the first error.
pub(crate) async fn both(
    (send, receive): (&mut SendStream, &mut RecvStream),
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(u64, u64), StreamError> {
    let (up, down) = tokio::try_join!(up(from, send), down(receive, to))?;
    Ok((up.bytes, down.bytes))
}
