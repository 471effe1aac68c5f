//! Datagrams to any of your devices by its ID, over the best path there is.

mod builder;
mod endpoint;
mod error;
mod events;

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
