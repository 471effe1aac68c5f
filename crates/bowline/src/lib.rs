//! Datagrams to any of your devices by its ID, over the best path there is.
//!
//! An [`Endpoint`] is this device on the network. It sends to a [`DeviceId`], not to an address: the first message
//! leaves at once through a base server, a direct path is sought meanwhile and used as soon as it stands, and when an
//! address changes or a path fails, messages go on by another way. What it carries are datagrams: they may be lost,
//! reordered or duplicated, are never altered, split or merged, and are *not encrypted*; that is for the layer above.
//!
//! ```no_run
//! use bowline::{Endpoint, EventItem, SecretKey};
//!
//! # async fn example(seed: [u8; 32], peer: bowline::DeviceId) -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint::builder(SecretKey::from_seed(&seed))
//!     .base("base.example.org".parse()?)
//!     .bind()
//!     .await?;
//! println!("this device is {}", endpoint.id());
//!
//! let mut events = endpoint.events();
//! tokio::spawn(async move {
//!     while let Some(item) = events.next().await {
//!         match item {
//!             EventItem::Event(event) => println!("{event:?}"),
//!             EventItem::Lost(count) => println!("{count} events were missed"),
//!         }
//!     }
//! });
//!
//! endpoint.online().await?;
//! endpoint.send(peer, b"hello").await?;
//! let (from, data) = endpoint.recv().await?;
//! println!("{from} sent {} bytes", data.len());
//! endpoint.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Bounds
//!
//! Everything inside is bounded, so that neither the network nor a slow reader can fill the memory:
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | messages that wait for [`Endpoint::recv`] | 65,536 in 4,096 pieces (a piece is what came together), and 8 MiB | the newest are dropped and counted ([`Endpoint::dropped`]) |
//! | events that wait for one subscriber | 1,024 | the oldest are lost and counted ([`EventItem::Lost`]) |
//! | messages that wait for the base's TCP connection | 128 KiB | [`Endpoint::send`] waits, 1 s at most, then drops |
//! | control frames that wait for it | 1 MiB | the connection is given up |
//! | size of a message | 16,000 bytes while a base is connected; what is larger than the direct path carries ([`Endpoint::max_direct`]) goes by its TCP. Without a base 1,200, or what the direct path carries | [`SendError::TooLarge`] |
//! | buffers to receive into | 2 MiB an endpoint, touched as they are needed, and 4 MiB of spare ones | none: a chunk that fills a quarter of its buffer is handed on in it, a smaller one copied |
//! | buffers that waiting messages keep | four times their bytes: 32 MiB | as above, the newest messages are dropped |
//! | buffers that messages in the caller's hands keep | 64 KiB for each of them, at worst | the caller's: copy what is to be kept for long |
//! | messages of [`Endpoint::send`] that wait for company | 64, and 64 KiB, a device | they leave |
//! | datagrams in the sockets' buffers | 4 MiB each way and family, or what the system grants | the system drops and counts them (`socket_overflow` in [`Status`]) |
//! | peers with state | see [`SendError::TooManyPeers`] | the longest unused goes; if all were used within 10 s, messages to more go over the relay alone |
//!
//! # Systems
//!
//! Linux in full: changes of the network are noticed as the kernel tells of them, batches are segmented by the kernel. Where a process may
//! not ask for interfaces (no netlink), the addresses that lead out are looked at every three seconds, and devices on the link are not heard. On
//! macOS and Windows the crate compiles; there, interfaces are looked at every three seconds, devices on the local link
//! are not heard (they do hear this one), and batches are sent one by one. Marks of congestion ([`Ecn`]) are sent and read there as far
//! as `quinn-udp` knows how to; without that they are [`Ecn::NotEct`].
//!
//! The protocol is in `docs/protocol.md`; its pure state machine is [`bowline_proto::host`], which this crate drives.

mod batch;
mod builder;
mod clock;
mod coalesce;
mod config;
mod driver;
mod ecn;
mod endpoint;
mod error;
mod events;
#[cfg(target_os = "linux")]
mod multicast;
#[cfg(not(target_os = "linux"))]
#[path = "multicast_none.rs"]
mod multicast;
mod network;
mod packing;
#[cfg(feature = "port-mapping")]
mod port_mapping;
#[cfg(not(feature = "port-mapping"))]
#[path = "port_mapping_none.rs"]
mod port_mapping;
mod queue;
mod resolve;
mod send;
mod tcp;
#[cfg(all(test, target_os = "linux"))]
mod testns;
#[cfg(target_os = "linux")]
mod timer_fd;
mod try_send;
mod udp;

pub use bowline_proto::{
    DeviceId, PublicKey, SecretKey,
    host::{
        Allow, BaseName, BaseStatus, BindingStatus, CandidateSource, Counters, Event, PairStatus, Path,
        PeerStatus, SendError, Status,
    },
};
pub use builder::Builder;
pub use ecn::Ecn;
pub use endpoint::{Datagram, Endpoint, Segments};
pub use error::{BindError, ClosedError, RecvError, SendSegmentsError, TrySendError};
pub use events::{EventItem, Events};
pub use try_send::Room;
