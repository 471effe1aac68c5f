//! Encrypted streams to any of your devices by its ID: QUIC over bowline.
//!
//! An [`Endpoint`] takes a [`bowline::Endpoint`] for its socket and gives quinn's own connections. Both ends prove their device keys:
//! Ed25519 raw public keys (RFC 7250) in TLS 1.3, and the key must make the ID that was dialled. So a stream to an ID is private
//! and authentic, with no certificates, names or authorities, and whoever is in between (a base, a network) can at most keep the two from
//! talking.
//!
//! ```no_run
//! # async fn example(bowline: bowline::Endpoint, key: bowline::SecretKey, peer: bowline::DeviceId)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use bowline_quic::{Endpoint, Listen};
//!
//! let endpoint = Endpoint::new(bowline, &key)?;
//!
//! // One end …
//! let mut listener = endpoint.listen(Listen::new(["my-service/1"]).allow(bowline::Allow::Only([peer].into())))?;
//! if let Some(accepted) = listener.accept().await {
//!     println!("{} is connected", accepted.device);
//! }
//!
//! // … and the other.
//! let connection = endpoint.connect(peer, b"my-service/1").await?;
//! let (mut send, _receive) = connection.open_bi().await?;
//! send.write_all(b"hello").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # QUIC and plain messages
//!
//! They are not told apart: an endpoint that is taken for QUIC carries QUIC alone. What else comes in is passed over, as QUIC passes over
//! what it cannot decrypt; what else is sent by it confuses nobody, and is lost. A program that wants both has two endpoints, with
//! two keys.
//!
//! # Changes of path
//!
//! A connection outlives them: its two ends are devices, not addresses. The congestion controller starts anew with every change, without
//! holding against the new path what was lost on the old one; all connections send at once when there is a way again, instead of waiting for
//! QUIC's own, ever rarer attempts; the round trip follows what is measured. Packets are as large as the direct path is known
//! to carry ([`bowline::Endpoint::max_direct`]), and 1,200 bytes through a base.
//!
//! Packets that go directly are marked as ECN-capable (RFC 3168): routers that are congested may mark them instead of dropping them, and
//! the sender slows down without having lost anything. Through a base there are no marks; that a connection has gone by it takes
//! nothing away from its direct paths. Where one takes marks off, the connection goes on without them.
//!
//! # Bounds
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | handshakes at a time | 64; from 16 on, after a Retry only | not answered; the other end repeats |
//! | connections at a time | 1,024; 64 from one address | not answered |
//! | connections that wait for [`Listener::accept`] | 64 | closed, with the reason |
//! | streams that the other end has open | 256 each way and connection | it waits |
//! | bytes that were received and nobody has read | 16 MiB a stream, 32 MiB a connection; of those that came in, each gets a quarter of what is left of 128 MiB for its address and a sixteenth of what is left of 1 GiB for all, 512 KiB at least: 160 MiB and 1.5 GiB at most | the sender waits |
//! | silence | 180 s | the connection is lost; [`Endpoint::gone`] knows earlier where a base says that the other end is not there |
//! | handshake | 15 s | [`ConnectError::NoAnswer`] |
//!
//! There is no 0-RTT and no resumption: nothing that was recorded can be played again.

mod address;
mod config;
mod congestion;
mod endpoint;
mod error;
mod farewell;
mod gone;
mod listener;
mod paths;
mod socket;
mod tls;

pub use bowline;
pub use config::IDLE;
pub use endpoint::Endpoint;
pub use error::{ConnectError, SetupError, explain, printable};
pub use listener::{Accepted, Listen, Listener};
pub use quinn;
