//! The endpoint: what a program holds.
//!
//! A thin handle. Sending is in `send.rs`, what came in waits in `queue.rs`, and everything else is the driver's.

use std::sync::Arc;

use bowline_proto::{
    DeviceId, SecretKey,
    host::{Path, PeerStatus, SendError, Status},
};
use bytes::Bytes;

use crate::{
    Builder, ClosedError, Ecn, Events, RecvError, SendSegmentsError, TrySendError, batch, driver::Shared,
    send, try_send,
};

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The sender.
    pub from: DeviceId,
    /// Its bytes.
    pub data: Bytes,
    /// The way it came.
    pub path: Path,
    /// Its mark of congestion; not known unless it is asked for ([`Endpoint::read_ecn`]).
    pub ecn: Ecn,
}

/// Messages of one sender that came together, one after the other in one buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// The sender.
    pub from: DeviceId,
    /// All their bytes.
    pub data: Bytes,
    /// The length of each message but the last, which may be shorter; one at least.
    pub segment: usize,
    /// The way they came.
    pub path: Path,
    /// The mark of congestion that each of them has; not known unless it is asked for ([`Endpoint::read_ecn`]).
    pub ecn: Ecn,
}

impl Segments {
    /// How many messages they are; an empty one is one, too.
    #[must_use]
    pub fn count(&self) -> usize {
        self.data.len().div_ceil(self.segment).max(1)
    }

    /// Each message.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let empty = self.data.is_empty().then_some(&self.data[..]);
        empty.into_iter().chain(self.data.chunks(self.segment))
    }
}

/// This device on the network: datagrams to and from other devices, by their ID.
///
/// Clones are the same endpoint; all methods may be used from several tasks at once. A message may be lost, reordered
/// or duplicated, as any datagram; it is never altered in size, split or merged.
///
/// Dropping the last clone closes the endpoint in the background; [`Endpoint::close`] does so and waits.
#[derive(Debug, Clone)]
pub struct Endpoint {
    id: DeviceId,
    handle: Arc<Handle>,
}

/// Closes the endpoint when its last clone is dropped: the driver holds [`Shared`], but none of these.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close.notify_one();
    }
}

impl Endpoint {
    /// Starts to set one up.
    pub fn builder(key: SecretKey) -> Builder {
        Builder::new(key)
    }

    pub(crate) fn new(id: DeviceId, shared: Arc<Shared>) -> Self {
        Self { id, handle: Arc::new(Handle(shared)) }
    }

    /// This device's ID.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The own UDP ports, for IPv4 and for IPv6; `None` where the system lacks the family. They are the same unless
    /// another program had one of them.
    #[must_use]
    pub fn ports(&self) -> (Option<u16>, Option<u16>) {
        let udp = &self.shared().udp;
        (udp.v4.as_ref().map(|socket| socket.port), udp.v6.as_ref().map(|socket| socket.port))
    }

    /// Sends a message over the best way there is at this moment. It leaves at once, be it through the base; a direct
    /// path is sought meanwhile for those that follow.
    ///
    /// Messages that are sent one after the other, without their sender waiting for anything else in between, may leave together,
    /// with one system call: at the latest when the sender's task waits or yields. The first one never waits.
    ///
    /// Waits while the socket, or the queue of the base's connection (128 KiB), is full, for one second at most; after that the
    /// message is dropped, as a network would. Cancel safe: a message is taken whole or not at all.
    ///
    /// # Errors
    /// When there is no way, or none for a message so large; the error names the limit that was exceeded.
    pub async fn send(&self, to: DeviceId, data: &[u8]) -> Result<(), SendError> {
        send::send(self.shared(), to, data).await
    }

    /// As [`Endpoint::send`], without waiting.
    ///
    /// # Errors
    /// As [`Endpoint::send`], and [`TrySendError::Full`] where that would wait.
    pub fn try_send(&self, to: DeviceId, data: &[u8]) -> Result<(), TrySendError> {
        send::try_send(self.shared(), to, data, Ecn::NotEct)
    }

    /// Sends several messages to one device; returns how many of them were taken, the first ones. Messages of equal size
    /// that go directly share a system call, so that a batch is much cheaper than its messages one by one.
    ///
    /// # Errors
    /// As [`Endpoint::send`], when the first one cannot be sent.
    pub async fn send_batch(&self, to: DeviceId, batch: &[Bytes]) -> Result<usize, SendError> {
        send::send_batch(self.shared(), to, batch).await
    }

    /// As [`Endpoint::send_batch`], each message with a mark of congestion of its own (ECN, RFC 3168). Direct paths carry it; through a
    /// base a message goes without. Neighbours with the same mark share a system call.
    ///
    /// # Errors
    /// As [`Endpoint::send`], when the first one cannot be sent.
    pub async fn send_batch_marked(&self, to: DeviceId, batch: &[(Bytes, Ecn)]) -> Result<usize, SendError> {
        send::send_batch(self.shared(), to, batch).await
    }

    /// As [`Endpoint::send_batch`], with the messages one after the other in one buffer: each is `segment` bytes long, the last
    /// may be shorter. This is the cheapest way to send: on a direct path the buffer goes to the kernel as it is, 64 messages
    /// (or 64 KB) with each system call. Short ones share datagrams, too, with a peer that takes them so: they are lost together, and
    /// arrive as the messages that they were. `segment` is one at least.
    ///
    /// # Errors
    /// As [`Endpoint::send`], when the first one cannot be sent.
    pub async fn send_segments(&self, to: DeviceId, data: &[u8], segment: usize) -> Result<usize, SendError> {
        send::send_batch(self.shared(), to, &batch::Segments::new(data, segment, Ecn::NotEct)).await
    }

    /// As [`Endpoint::send_segments`], without waiting: takes all messages or, where there is no room, none; for callers that are
    /// polled. Waiting is apart: [`crate::Room::wait`].
    ///
    /// # Errors
    /// As [`Endpoint::send`], when the first one cannot be sent, and [`SendSegmentsError::Full`] where that would wait.
    pub fn try_send_segments(
        &self,
        to: DeviceId,
        data: &[u8],
        segment: usize,
    ) -> Result<(), SendSegmentsError> {
        self.try_send_segments_marked(to, data, segment, Ecn::NotEct)
    }

    /// As [`Endpoint::try_send_segments`], each message with that mark of congestion (ECN, RFC 3168), where it goes directly.
    ///
    /// # Errors
    /// As [`Endpoint::try_send_segments`].
    pub fn try_send_segments_marked(
        &self,
        to: DeviceId,
        data: &[u8],
        segment: usize,
        ecn: Ecn,
    ) -> Result<(), SendSegmentsError> {
        try_send::try_send_segments(&self.handle.0, to, data, segment, ecn)
    }

    /// Waits for the next message. Several tasks may wait; each message goes to one of them. Cancel safe.
    ///
    /// Up to 65,536 messages, in 4,096 pieces that came together, and 8 MiB wait to be received; beyond that the newest
    /// are dropped, and counted ([`Endpoint::dropped`]). Messages that came together share a buffer of 64 KiB at most,
    /// which lives as long as any of them.
    ///
    /// # Errors
    /// When the endpoint is closed and all that had come before has been received.
    pub async fn recv(&self) -> Result<(DeviceId, Bytes), RecvError> {
        let Datagram { from, data, .. } = self.recv_datagram().await?;
        Ok((from, data))
    }

    /// As [`Endpoint::recv`], with the way it came.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub async fn recv_datagram(&self) -> Result<Datagram, RecvError> {
        self.shared().inbox.pop().await
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub fn try_recv(&self) -> Result<Option<Datagram>, RecvError> {
        self.shared().inbox.try_pop()
    }

    /// Waits until there is a message, then appends all that are there, `max` at most; returns their number. Cancel
    /// safe.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub async fn recv_batch(&self, into: &mut Vec<Datagram>, max: usize) -> Result<usize, RecvError> {
        self.shared().inbox.pop_batch(into, max).await
    }

    /// Waits for the next messages as they came: those of one sender that the system or this crate brought together stay in one
    /// buffer, where [`Endpoint::recv`] and [`Endpoint::recv_batch`] make a part of it of each. This is the cheapest way to
    /// receive. Cancel safe.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub async fn recv_segments(&self) -> Result<Segments, RecvError> {
        self.shared().inbox.pop_run().await
    }

    /// As [`Endpoint::recv_segments`], if something is there.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub fn try_recv_segments(&self) -> Result<Option<Segments>, RecvError> {
        Ok(self.shared().inbox.try_pop_run()?.map(Segments::from))
    }

    /// Messages that came and were dropped since the start because too many waited to be received.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared().inbox.dropped()
    }

    /// What happens; every call gives a stream of its own. The first one begins with the endpoint, the others with the call.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared().events.subscribe()
    }

    /// Everything that is known at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.shared().machine.status();
        status.counters.inbox_dropped = self.dropped();
        status.counters.socket_overflow = self.shared().udp.overflow();
        status
    }

    /// What is known of one peer; `None` when there is no state for it.
    #[must_use]
    pub fn peer(&self, id: DeviceId) -> Option<PeerStatus> {
        self.shared().machine.peer_status(id)
    }

    /// The largest message, in bytes, that the present way to a device is known to carry.
    #[must_use]
    pub fn max_datagram(&self, to: DeviceId) -> usize {
        self.shared().machine.max_datagram(to)
    }

    /// The largest message, in bytes, that goes to a device directly: larger ones take the base's TCP connection. `None` while
    /// there is no direct path. It begins with 500 or 1,200 and grows once messages of more than 1,000 bytes are sent
    /// there, to what the links on the way carry; [`crate::Event::DirectSize`] tells of every change.
    #[must_use]
    pub fn max_direct(&self, to: DeviceId) -> Option<usize> {
        self.shared().machine.max_direct(to)
    }

    /// The IDs of bases by `host:port`, to be handed to [`Builder::remembered_bases`] in the next run.
    #[must_use]
    pub fn remembered_bases(&self) -> Vec<(String, DeviceId)> {
        self.shared().machine.remembered_bases()
    }

    /// Starts a direct path to a peer without sending it anything.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    pub fn want(&self, peer: DeviceId) -> Result<(), SendError> {
        self.shared().machine.want(peer)
    }

    /// Allows direct paths, or forbids them, from now on; [`Builder::direct`] says how it begins. Allowed, they are
    /// sought at once to every device in use; forbidden, standing ones are dropped and the base carries everything.
    pub fn set_direct(&self, on: bool) {
        self.shared().machine.set_direct(on);
    }

    /// Allows UDP to the base, or forbids it, from now on; [`Builder::relay_udp`] says how it begins. Forbidden, what
    /// is relayed goes over the base's TCP connection.
    pub fn set_relay_udp(&self, on: bool) {
        self.shared().machine.set_relay_udp(on);
    }

    /// Has the marks of congestion (ECN, RFC 3168) of what comes directly read from now on, or no longer (as it begins): they stand in
    /// [`Segments`] and [`Datagram`]. It costs a little with every receive. Marks are sent whether or not they are read.
    pub fn read_ecn(&self, on: bool) {
        self.shared().udp.read_marks(on);
    }

    /// Waits until this device is registered at a base; returns at once if it is already.
    ///
    /// # Errors
    /// When the endpoint is closed.
    pub async fn online(&self) -> Result<(), ClosedError> {
        let mut events = self.shared().events.subscribe_from_now();
        loop {
            if *self.shared().ended.borrow() {
                return Err(ClosedError);
            }
            if self.shared().machine.is_registered() {
                return Ok(());
            }
            if events.next().await.is_none() {
                return Err(ClosedError);
            }
        }
    }

    /// Leaves the base and stops: what was sent before is flushed, the base forgets this device at once, and all tasks
    /// and sockets are gone when this returns, after two seconds at most. Messages that came before can still be received.
    /// Calling it again, or from several tasks, does no harm.
    pub async fn close(&self) {
        self.shared().close.notify_one();
        // It fails when the sender is gone, which it cannot be: this handle holds it.
        let _ = self.shared().ended.subscribe().wait_for(|&ended| ended).await;
    }

    fn shared(&self) -> &Shared {
        &self.handle.0
    }
}
