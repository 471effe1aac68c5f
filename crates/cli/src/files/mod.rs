//! Files over streams: one stream a file, what `send-file` and `receive` share.
//!
//! ```text
//! who sends                              who receives
//! {"name":…,"length":…}            ──▶
//!                                  ◀──   {"have":{"bytes":…,"blake3":…}}   what an earlier attempt left, and its hash; or {"refused":…}
//! {"from":…}                       ──▶                            where it goes on: there, or at the beginning
//! the bytes from there on          ──▶
//! {"blake3":…}                     ──▶                            of the whole file
//!                                  ◀──   {"stored":…}             it is there, under that name; or {"refused":…} at any time
//! ```
//! Each message is JSON behind a length of two bytes, big-endian.

pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod store;
pub(crate) mod stored;
pub(crate) mod turns;

use serde::{Deserialize, Serialize};

/// The service's name to TLS.
pub(crate) const SERVICE: &str = "bowline-files/1";
/// Bytes read, hashed and written at once.
pub(crate) const CHUNK: usize = 256 * 1024;

/// How a file begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) name: String,
    pub(crate) length: u64,
}

/// Where it goes on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Resume {
    pub(crate) from: u64,
}

/// How it ends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Whole {
    pub(crate) blake3: String,
}

/// What the receiver says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    /// So many bytes are there already, with this hash.
    Have { bytes: u64, blake3: String },
    /// It is there, under this name.
    Stored(String),
    /// It is not, for this reason.
    Refused(String),
}
