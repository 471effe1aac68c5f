//! The bowline protocol without any I/O: identity, wire format, and the two state machines.
//!
//! Nothing in this crate reads a clock, opens a socket, starts a thread or asks the system for random numbers: time,
//! seeds and the network are arguments. That is what lets a simulated world run the very code that runs on devices.
//! The shells are the crates `bowline` (hosts) and `bowline-base` (base servers).
//!
//! Both machines have the same boundary: call one command or one `handle_…`, then drain `poll_output` until it answers
//! with a timeout. Payloads are never queued here: a machine answers *where* a message goes and the shell sends the
//! bytes it holds.

pub mod base;
pub mod bucket;
pub mod host;
pub mod id;
pub mod identity;
pub mod wire;

pub use id::DeviceId;
pub use identity::{PublicKey, SecretKey};
