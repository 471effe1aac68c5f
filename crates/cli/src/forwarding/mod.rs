//! Forwarding of TCP and Unix sockets over streams: what `forward`, `ssh-proxy` and `serve` share.
//!
//! Every socket is a stream. It begins with a request of the one who opens it and an answer of the other end (`wire.rs`); behind these
//! are the socket's bytes. What may be reached is for `serve` to say (`guard.rs`); what is asked for is written as OpenSSH
//! writes it (`spec.rs`). All sockets of a `forward` share a connection (`link.rs`).

pub(crate) mod guard;
pub(crate) mod holds;
pub(crate) mod link;
pub(crate) mod socket;
pub(crate) mod spec;
pub(crate) mod wire;

/// The service's name to TLS.
pub(crate) const SERVICE: &str = "bowline-forward/1";
