//! Errors, one type an operation. Those of sending are the machine's own ([`crate::SendError`]).

use std::{io, net::SocketAddr};

use bowline_proto::host::SendError;

use crate::Room;

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The UDP port is taken by another program.
    #[error("UDP port {port} is in use by another program; choose another one, or 0 for any")]
    PortInUse {
        /// The port that was asked for.
        port: u16,
    },
    /// The system refused a socket.
    #[error("cannot open a UDP socket on {address}: {error}")]
    Socket {
        /// Where it was to be bound.
        address: SocketAddr,
        /// The system's words.
        #[source]
        error: io::Error,
    },
    /// The system has neither IPv4 nor IPv6.
    #[error("the system has neither IPv4 nor IPv6: no UDP socket can be opened")]
    NoUdp,
    /// The system does not tell which network interfaces there are.
    #[error("cannot read the network interfaces: {0}")]
    Network(#[source] io::Error),
    /// The system's random source failed.
    #[error("no random numbers from the system: {0}")]
    Random(String),
    /// There is no Tokio runtime here, or it is ending.
    #[error("the Tokio runtime does not work here: {0}")]
    Runtime(String),
}

/// Why [`crate::Endpoint::try_send`] did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The socket's (or the connection's) queue is full at this moment; [`crate::Endpoint::send`] would wait.
    #[error("the way to this device is full at this moment")]
    Full,
    /// It cannot be sent at all.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Why [`crate::Endpoint::try_send_segments`] took nothing.
#[derive(Debug, thiserror::Error)]
pub enum SendSegmentsError {
    /// There is no room at this moment: [`Room::wait`] waits for it.
    #[error("the way to this device is full at this moment")]
    Full(Room),
    /// They cannot be sent at all.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Why nothing can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// The endpoint has been closed, and all that had come before has been taken.
    #[error("the endpoint is closed")]
    Closed,
}

/// The endpoint has been closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint is closed")]
pub struct ClosedError;
