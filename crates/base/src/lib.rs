//! The base server: sockets around [`bowline_proto::base::Base`].
//!
//! [`Server::bind`] opens the sockets, [`Server::run`] serves until it is told to stop. Control and data are apart: one task owns
//! the machine and the table of connections; a thread for each core forwards what goes from UDP to UDP by the
//! routes that the machine publishes, and hands the owner the rest. Each TCP connection has a task that does the same with what it
//! reads, and two bounded queues towards its host: control, which is never dropped, and data, which is.
//!
//! - [`config`]: what an operator sets; [`listen`]: sockets, and why one cannot be opened
//! - `server`: the owner's loop; `accept`, `conn`, `forward`, `outbox`, `frames`: TCP; `udp`: the workers, batches in, runs out
//!
//! Not here: the key file, the command line, the protocol.

mod accept;
mod admin;
mod blocks;
mod cluster;
mod conn;
mod control;
mod forward;
mod frames;
mod goodbye;
mod inspect;
mod outbox;
mod owner;
mod resources;
mod server;
mod udp;

pub mod allow;
pub mod config;
#[cfg_attr(not(target_os = "linux"), path = "hook_elsewhere.rs")]
pub mod hook;
pub mod listen;

pub use config::Config;
pub use control::{Handle, Queues, Snapshot};
pub use listen::BindError;
pub use server::{Server, Shutdown};
