//! The base server: sockets around [`bowline_proto::base::Base`].
//!
//! [`Server::bind`] opens the sockets, [`Server::run`] serves until it is told to stop. One task owns the machine,
//! all UDP sockets and the table of connections; each TCP connection has a task that only moves bytes, and two
//! bounded queues towards its host: control, which is never dropped, and data, which is.
//!
//! - [`config`]: what an operator sets; [`listen`]: sockets, and why one cannot be opened
//! - `server`: the loop; `accept`, `conn`, `outbox`, `frames`: TCP; `udp`: batches in, batches out
//!
//! Not here: the key file, the command line, the protocol.

mod accept;
mod conn;
mod frames;
mod outbox;
mod server;
mod udp;

pub mod config;
pub mod listen;

pub use config::Config;
pub use listen::BindError;
pub use server::{Server, Shutdown};
