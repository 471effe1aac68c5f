//! A stream joined with something local: a socket, or standard input and output. Each direction ends by itself.

use bowline_quic::quinn::{RecvStream, SendStream, StoppedError, VarInt};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::streams::StreamError;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// The code of a direction that ends because its local end failed.
const BROKEN: VarInt = VarInt::from_u32(1);

/// Carries everything from here to the other end; the bytes that were taken. A local error breaks the direction off, so that the other
/// end does not take a part for the whole.
pub(crate) async fn up(
    from: &mut (impl AsyncRead + Unpin),
    send: &mut SendStream,
) -> Result<u64, StreamError> {
    let mut carried = 0;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read,
            // Who takes no more need not be read for.
            stopped = send.stopped() => return match stopped {
                Ok(_) => Ok(carried),
                Err(StoppedError::ConnectionLost(error)) => Err(StreamError::Lost(error)),
                Err(error) => Err(StreamError::local("the stream ended", &error)),
            },
        };
        match read {
            Ok(0) => {
                // It fails where the other end has stopped it, which is an end, too.
                let _ = send.finish();
                return Ok(carried);
            }
            Ok(read) => carried += read as u64,
            Err(error) => {
                let _ = send.reset(BROKEN);
                return Err(StreamError::local("cannot read", &error));
            }
        }
        match send.write_chunk(buffer.split().freeze()).await.map_err(StreamError::from) {
            Ok(()) => {}
            Err(StreamError::Stopped) => return Ok(carried),
            Err(error) => return Err(error),
        }
    }
}

/// Carries everything from the other end to here; the bytes that came. Where nobody takes them any more, the other end is told.
pub(crate) async fn down(
    receive: &mut RecvStream,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, StreamError> {
    let mut carried = 0;
    loop {
        let Some(chunk) = receive.read_chunk(CHUNK, true).await? else { break };
        if let Err(error) = write(to, &chunk.bytes).await {
            let _ = receive.stop(BROKEN);
            return if error.kind() == std::io::ErrorKind::BrokenPipe {
                Ok(carried)
            } else {
                Err(StreamError::local("cannot write", &error))
            };
        }
        carried += chunk.bytes.len() as u64;
    }
    // The other end of a socket may have gone already; it has all that there was.
    let _ = to.shutdown().await;
    Ok(carried)
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Both directions, until both have ended: the bytes of each, or the first error.
pub(crate) async fn both(
    (send, receive): (&mut SendStream, &mut RecvStream),
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(u64, u64), StreamError> {
    tokio::try_join!(up(from, send), down(receive, to))
}
