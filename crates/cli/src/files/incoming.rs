//! Receiving one file.

use std::{
    io::{self, Write},
    time::Duration,
};

use bowline::DeviceId;
use bowline_quic::quinn::{RecvStream, SendStream, VarInt};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    CHUNK, Offer, Reply, Resume, Whole,
    store::{Part, Store, taken},
    turns::{Turn, Turns},
};
use crate::{forwarding::wire, progress::Progress, streams::StreamError};

/// Chunks that wait to be written.
const BEHIND: usize = 8;
/// How long the last word may take to arrive: who does not hear it asks again.
const PARTING: Duration = Duration::from_secs(3);

/// A file that is there.
pub(crate) struct Received {
    pub(crate) name: String,
    pub(crate) length: u64,
    pub(crate) resumed_from: u64,
    /// BLAKE3, hexadecimal.
    pub(crate) hash: String,
}

/// Receives it. The inner error is what was refused, and was told to the other end.
pub(crate) async fn receive(
    send: &mut SendStream,
    receive: &mut RecvStream,
    (store, turns): (&Store, &Turns),
    from: DeviceId,
    way: impl Fn() -> String,
) -> Result<Result<Received, String>, StreamError> {
    let offer: Offer = wire::read(receive).await?;
    let result = match turns.take(from, &offer.name).await {
        Some(turn) => match store.hash_of(&offer.name, offer.length, from) {
            Some(hash) => take_again(send, receive, &offer, hash).await?,
            None => take(send, receive, store, from, (&offer, &turn), way).await?,
        },
        None => Err(format!("is receiving '{}' already", offer.name)),
    };
    let reply = match &result {
        Ok(received) => Reply::Stored(received.name.clone()),
        Err(why) => {
            // What is still on its way is not waited for.
            let _ = receive.stop(VarInt::from_u32(1));
            Reply::Refused(why.clone())
        }
    };
    wire::write(send, &reply).await?;
    let _ = send.finish();
    let _ = tokio::time::timeout(PARTING, send.stopped()).await;
    Ok(result)
}

/// Of a file that came from that device before: it need only be the same.
async fn take_again(
    send: &mut SendStream,
    receive: &mut RecvStream,
    offer: &Offer,
    hash: String,
) -> Result<Result<Received, String>, StreamError> {
    wire::write(send, &Reply::Have { bytes: offer.length, blake3: hash.clone() }).await?;
    let Resume { from } = wire::read(receive).await?;
    if from != offer.length {
        return Ok(Err(taken(&offer.name)));
    }
    let Whole { blake3 } = wire::read(receive).await?;
    if blake3 != hash {
        return Ok(Err(taken(&offer.name)));
    }
    Ok(Ok(Received { name: offer.name.clone(), length: offer.length, resumed_from: from, hash }))
}

async fn take(
    send: &mut SendStream,
    receive: &mut RecvStream,
    store: &Store,
    from: DeviceId,
    (offer, turn): (&Offer, &Turn),
    way: impl Fn() -> String,
) -> Result<Result<Received, String>, StreamError> {
    let (folder, name, length) = (store.clone(), offer.name.clone(), offer.length);
    let begun = blocking(move || {
        let mut part = folder.begin(&name, length, from)?;
        let hasher = part.hash().map_err(|error| failed(&error))?;
        Ok((part, hasher))
    });
    let (mut part, mut hasher) = match begun.await {
        Ok(begun) => begun,
        Err(why) => return Ok(Err(why)),
    };
    let blake3 = hasher.finalize().to_hex().to_string();
    wire::write(send, &Reply::Have { bytes: part.have, blake3 }).await?;
    let Resume { from: resumed_from } = wire::read(receive).await?;
    if resumed_from != part.have {
        if resumed_from != 0 {
            return Ok(Err("was told to go on where it never was".to_owned()));
        }
        hasher.reset();
    }
    if let Err(error) = part.go_on(resumed_from) {
        return Ok(Err(failed(&error)));
    }
    let progress = Progress::new(&offer.name, length);
    progress.begin(resumed_from);
    let (chunks, writing) = write(part, hasher);
    let carried = tokio::select! {
        carried = carry(receive, length - resumed_from, &chunks, turn, &progress, &way) => Ok(carried),
        () = turn.is_wanted() => Err("has given it up: it was sent anew while this stood still".to_owned()),
    };
    drop(chunks);
    progress.clear();
    let (part, hash) = match writing.await {
        Ok(Ok(written)) => written,
        Ok(Err(why)) => return Ok(Err(why)),
        Err(error) => return Ok(Err(error.to_string())),
    };
    // What came so far stays, for another attempt.
    match carried {
        Ok(carried) => carried?,
        Err(why) => return Ok(Err(why)),
    }
    let Whole { blake3 } = wire::read(receive).await?;
    if blake3 != hash {
        part.discard();
        return Ok(Err(format!(
            "got other bytes of '{}' than were sent: all of it is thrown away",
            offer.name
        )));
    }
    let name = offer.name.clone();
    let finished = blocking(move || {
        part.finish().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(&name),
            _ => failed(&error),
        })
    });
    if let Err(why) = finished.await {
        return Ok(Err(why));
    }
    store.note(&offer.name, from, &hash);
    Ok(Ok(Received { name: offer.name.clone(), length, resumed_from, hash }))
}

/// Takes the bytes of a file from a stream.
async fn carry(
    receive: &mut RecvStream,
    mut left: u64,
    chunks: &mpsc::Sender<Bytes>,
    turn: &Turn,
    progress: &Progress,
    way: &impl Fn() -> String,
) -> Result<(), StreamError> {
    while left > 0 {
        let most = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let chunk = tokio::select! {
            chunk = receive.read_chunk(most, true) => chunk?.ok_or(StreamError::Reset)?,
            // The writer has given up, and says why.
            () = chunks.closed() => return Ok(()),
        };
        left -= chunk.bytes.len() as u64;
        turn.goes_on();
        progress.advance(chunk.bytes.len() as u64, way);
        if chunks.send(chunk.bytes).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

type Writing = tokio::task::JoinHandle<Result<(Part, String), String>>;

/// Writes and hashes away from the runtime's threads.
fn write(mut part: Part, mut hasher: blake3::Hasher) -> (mpsc::Sender<Bytes>, Writing) {
    let (sender, mut chunks) = mpsc::channel::<Bytes>(BEHIND);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            part.file.write_all(&chunk).map_err(|error| failed(&error))?;
            hasher.update(&chunk);
        }
        Ok((part, hasher.finalize().to_hex().to_string()))
    });
    (sender, writing)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn failed(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("has no room left on its disk ({error}); what came so far stays there")
        }
        _ => format!("cannot write: {error}"),
    }
}
