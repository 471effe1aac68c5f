//! Sending one file.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use bowline_quic::{
    printable,
    quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt},
};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{CHUNK, Offer, Reply, Resume, Whole};
use crate::{forwarding::wire, progress::Progress, streams::StreamError};

/// Chunks that are read ahead.
const AHEAD: usize = 8;

/// A file to be sent.
pub(crate) struct Outgoing {
    /// Its name alone, without folders.
    pub(crate) name: String,
    pub(crate) length: u64,
    modified: Option<SystemTime>,
    file: Arc<File>,
}

/// Why it was not sent; trying again would not help.
pub(crate) enum Unsent {
    /// What the other end says, of itself.
    There(String),
    /// What is wrong here.
    Here(String),
}

/// What became of it.
pub(crate) struct Sent {
    /// What was there from an earlier attempt.
    pub(crate) resumed_from: u64,
    /// BLAKE3, hexadecimal.
    pub(crate) hash: String,
}

impl Outgoing {
    /// Opens it; what is wrong is told in a sentence.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let unreadable = |error| format!("{shown} cannot be read: {error}");
        // Looked at before it is opened: a named pipe opens when somebody writes to it, which may be never.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(format!("{shown} is not a file (for a folder: tar c {shown} | bowline pipe …)"));
        }
        let file = File::open(path).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        if found.len() == 0 && (&file).read(&mut [0]).map_err(unreadable)? > 0 {
            return Err(format!("{shown} does not say how long it is (bowline pipe … < {shown})"));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| format!("the name of {shown} is not UTF-8"))?.to_owned();
        let modified = found.modified().ok();
        Ok(Self { name, length: found.len(), modified, file: Arc::new(file) })
    }

    /// Whether somebody has written to it since it was opened.
    pub(crate) fn has_changed(&self) -> bool {
        let same = |now: fs::Metadata| now.len() == self.length && now.modified().ok() == self.modified;
        !self.file.metadata().is_ok_and(same)
    }
}

/// Sends it.
pub(crate) async fn send(
    connection: &Connection,
    file: &Outgoing,
    progress: &Progress,
    way: impl Fn() -> String,
) -> Result<Result<Sent, Unsent>, StreamError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    wire::write(&mut send, &Offer { name: file.name.clone(), length: file.length }).await?;
    let (have, theirs) = match wire::read(&mut receive).await? {
        Reply::Have { bytes, blake3 } => (bytes, blake3),
        Reply::Refused(why) | Reply::Stored(why) => return Ok(Err(Unsent::There(printable(&why)))),
    };
    let (mut chunks, hashing) = read(file, have, theirs);
    let Some(Chunk::From(from)) = chunks.recv().await else {
        return Ok(Err(Unsent::Here(hashing_failed(hashing).await)));
    };
    progress.begin(from);
    // Where the other end gives up, it says why on its own direction.
    let carried = async {
        wire::write(&mut send, &Resume { from }).await?;
        while let Some(chunk) = chunks.recv().await {
            if let Chunk::Bytes(bytes) = chunk {
                progress.advance(bytes.len() as u64, &way);
                send.write_chunk(bytes).await?;
            }
        }
        Ok(())
    };
    match carried.await {
        Ok(()) => {}
        Err(StreamError::Stopped) => {
            return verdict(&mut receive).await.map(|verdict| verdict.and(Err(gave_up())));
        }
        Err(error) => return Err(error),
    }
    let hash = match hashing.await {
        Ok(Ok(hash)) => hash,
        Ok(Err(why)) => {
            let _ = send.reset(VarInt::from_u32(1));
            return Ok(Err(Unsent::Here(why)));
        }
        Err(error) => return Ok(Err(Unsent::Here(error.to_string()))),
    };
    end(&mut send, &hash).await?;
    Ok(verdict(&mut receive).await?.map(|_| Sent { resumed_from: from, hash }))
}

async fn end(send: &mut SendStream, hash: &str) -> Result<(), StreamError> {
    match wire::write(send, &Whole { blake3: hash.to_owned() }).await {
        Ok(()) | Err(StreamError::Stopped) => {}
        Err(error) => return Err(error),
    }
    let _ = send.finish();
    Ok(())
}

fn gave_up() -> Unsent {
    Unsent::There("gave up without a reason".to_owned())
}

async fn verdict(receive: &mut RecvStream) -> Result<Result<String, Unsent>, StreamError> {
    Ok(match wire::read(receive).await? {
        Reply::Stored(name) => Ok(printable(&name)),
        Reply::Refused(why) => Err(Unsent::There(printable(&why))),
        Reply::Have { .. } => Err(Unsent::There("speaks another protocol".to_owned())),
    })
}

/// Whether the loss of a connection is of the kind that passes: the network's, not somebody's decision. This end closes those alone whose
/// other end is gone.
pub(crate) fn may_come_back(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::TimedOut | ConnectionError::Reset | ConnectionError::LocallyClosed)
        || matches!(error, ConnectionError::ApplicationClosed(close) if close.reason.is_empty())
}

enum Chunk {
    /// Where the bytes begin.
    From(u64),
    Bytes(Bytes),
}

type Hashing = tokio::task::JoinHandle<Result<String, String>>;

async fn hashing_failed(hashing: Hashing) -> String {
    match hashing.await {
        Ok(Err(why)) => why,
        _ => "the file cannot be read".to_owned(),
    }
}

/// Reads and hashes a file away from the runtime's threads. What is there already is hashed first, and counts if it is the same.
fn read(file: &Outgoing, have: u64, theirs: String) -> (mpsc::Receiver<Chunk>, Hashing) {
    let (sender, chunks) = mpsc::channel(AHEAD);
    let (file, length) = (Arc::clone(&file.file), file.length);
    let hashing = tokio::task::spawn_blocking(move || {
        let mut file = &*file;
        let mut hasher = blake3::Hasher::new();
        let failed = |error| format!("cannot be read: {error}");
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut from = 0;
        if (1..=length).contains(&have) {
            hasher.update_reader(file.take(have)).map_err(failed)?;
            from = have;
            if hasher.finalize().to_hex().as_str() != theirs {
                hasher.reset();
                file.seek(SeekFrom::Start(0)).map_err(failed)?;
                from = 0;
            }
        }
        // Whoever takes them is gone when the stream is.
        let _ = sender.blocking_send(Chunk::From(from));
        let mut left = length - from;
        while left > 0 {
            let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            let read = file.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                return Err("became shorter while it was sent".to_owned());
            }
            chunk.truncate(read);
            hasher.update(&chunk);
            left -= read as u64;
            if sender.blocking_send(Chunk::Bytes(chunk.into())).is_err() {
                break;
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    });
    (chunks, hashing)
}
