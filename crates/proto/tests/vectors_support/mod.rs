//! The test vectors of `docs/vectors`: how the files look, how they are made and how they are checked.
//!
//! Shared by the example `vectors`, which writes the files, and the test `vectors`, which reads them. Nothing here
//! decides what is right: the fields and the bytes meet in the files, and a script in another language
//! (`docs/vectors/check.py`) has the last word.

#![allow(dead_code, unused_imports, reason = "the example makes files, the tests read them")]

pub(crate) mod codec;
pub(crate) mod file;
pub(crate) mod make;
pub(crate) mod message;
mod torsion;

use std::path::PathBuf;

/// The folder of the files.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors")
}
