//! Datagrams to any of your devices by its ID, over the best path there is.

mod builder;
mod clock;
mod config;
mod driver;
mod endpoint;
mod error;
mod events;
#[cfg(target_os = "linux")]
mod multicast;
#[cfg(not(target_os = "linux"))]
#[path = "multicast_none.rs"]
mod multicast;
mod network;
mod queue;
mod resolve;
mod send;
mod tcp;
#[cfg(all(test, target_os = "linux"))]
mod testns;
mod udp;

pub use bowline_proto::{
    DeviceId, PublicKey, SecretKey,
    host::{
        Allow, BaseName, BaseStatus, BindingStatus, CandidateSource, Counters, Event, PairStatus, Path,
        PeerStatus, SendError, Status,
    },
};
pub use builder::Builder;
pub use endpoint::{Datagram, Endpoint};
pub use error::{BindError, ClosedError, RecvError, TrySendError};
pub use events::{EventItem, Events};
