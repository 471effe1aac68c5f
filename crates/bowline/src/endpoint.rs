//! The endpoint: what a program holds.

use bowline_proto::{
    DeviceId, SecretKey,
    host::{Path, PeerStatus, SendError, Status},
};
use bytes::Bytes;

use crate::{Builder, ClosedError, Events, RecvError, TrySendError};

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The sender.
    pub from: DeviceId,
    /// Its bytes.
    pub data: Bytes,
    /// The way it came.
    pub path: Path,
}

/// This device on the network. Clones are the same endpoint; all methods may be used from several tasks at once.
#[derive(Debug, Clone)]
pub struct Endpoint {}

impl Endpoint {
    /// Starts to set one up.
    pub fn builder(key: SecretKey) -> Builder {
        Builder::new(key)
    }

    /// This device's ID.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        todo!()
    }

    /// Sends a message over the best way there is at this moment; waits while sockets and queues are full.
    ///
    /// # Errors
    /// When there is no way, or none for a message so large.
    pub async fn send(&self, to: DeviceId, data: &[u8]) -> Result<(), SendError> {
        let _ = (to, data);
        todo!()
    }

    /// As [`Endpoint::send`], without waiting.
    ///
    /// # Errors
    /// As [`Endpoint::send`], and [`TrySendError::Full`] where that would wait.
    pub fn try_send(&self, to: DeviceId, data: &[u8]) -> Result<(), TrySendError> {
        let _ = (to, data);
        todo!()
    }

    /// Sends several messages to one device; returns how many of them were taken, in order.
    ///
    /// # Errors
    /// As [`Endpoint::send`], when the first one cannot be sent.
    pub async fn send_batch(&self, to: DeviceId, batch: &[Bytes]) -> Result<usize, SendError> {
        let _ = (to, batch);
        todo!()
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// When the endpoint is closed.
    pub async fn recv(&self) -> Result<(DeviceId, Bytes), RecvError> {
        todo!()
    }

    /// As [`Endpoint::recv`], with the way it came.
    ///
    /// # Errors
    /// When the endpoint is closed.
    pub async fn recv_datagram(&self) -> Result<Datagram, RecvError> {
        todo!()
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// When the endpoint is closed.
    pub fn try_recv(&self) -> Result<Option<Datagram>, RecvError> {
        todo!()
    }

    /// Waits until there is a message, then appends all that are there, `max` at most; returns their number.
    ///
    /// # Errors
    /// When the endpoint is closed.
    pub async fn recv_batch(&self, into: &mut Vec<Datagram>, max: usize) -> Result<usize, RecvError> {
        let _ = (into, max);
        todo!()
    }

    /// What happens from now on; every call gives a stream of its own.
    #[must_use]
    pub fn events(&self) -> Events {
        todo!()
    }

    /// Everything that is known at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        todo!()
    }

    /// What is known of one peer.
    #[must_use]
    pub fn peer(&self, id: DeviceId) -> Option<PeerStatus> {
        let _ = id;
        todo!()
    }

    /// The largest message, in bytes, that the present way to a device is known to carry.
    #[must_use]
    pub fn max_datagram(&self, to: DeviceId) -> usize {
        let _ = to;
        todo!()
    }

    /// The IDs of bases by `host:port`, to be handed to [`Builder::remembered_bases`] in the next run.
    #[must_use]
    pub fn remembered_bases(&self) -> Vec<(String, DeviceId)> {
        todo!()
    }

    /// Starts a direct path to a peer without sending it anything.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    pub fn want(&self, peer: DeviceId) -> Result<(), SendError> {
        let _ = peer;
        todo!()
    }

    /// Waits until this device is registered at a base (at once, if it is already).
    ///
    /// # Errors
    /// When the endpoint is closed.
    pub async fn online(&self) -> Result<(), ClosedError> {
        todo!()
    }

    /// Leaves the base and stops. Messages that came before can still be received. Dropping the last clone does
    /// the same in the background.
    pub async fn close(&self) {
        todo!()
    }
}
