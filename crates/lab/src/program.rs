//! The bowline program.
use std::path::PathBuf;
pub(crate) const VARIABLE: &str = "BOWLINE_BIN";
pub(crate) fn build() -> PathBuf { PathBuf::new() }
