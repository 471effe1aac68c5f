//! What the fuzz targets do with their bytes.
//!
//! Each function takes arbitrary bytes, feeds them to one decoder or machine, and panics when a promise is broken.
//! The targets in `fuzz/` call them under libFuzzer; the test `replay` of this crate runs the committed corpora
//! through the same functions on stable Rust, so that what was once found stays found.
//!
//! No function here touches a socket, a clock or a random number: the same bytes do the same thing.

mod base_ops;
mod decoders;
mod host_ops;
mod input;
mod worlds;

pub use base_ops::base_ops;
pub use decoders::{announce, peer, stream, tcp_from_base, tcp_from_host, texts, udp};
pub use host_ops::host_ops;
pub use worlds::worlds;

/// Every target by its name: the name of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
#[allow(clippy::type_complexity, reason = "a name and its function")]
pub const TARGETS: [(&str, fn(&[u8])); 10] = [
    ("tcp_from_host", tcp_from_host),
    ("tcp_from_base", tcp_from_base),
    ("udp", udp),
    ("peer", peer),
    ("announce", announce),
    ("texts", texts),
    ("stream", stream),
    ("base_ops", base_ops),
    ("host_ops", host_ops),
    ("worlds", worlds),
];
