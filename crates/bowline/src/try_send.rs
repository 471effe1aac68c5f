//! Sending several messages without waiting, and waiting for room apart from that: for callers that are polled, as
//! sockets of other protocols are.
//!
//! It takes the ways of `send.rs`, with its bounds. What differs: a run is taken whole wherever that can be known before, so that
//! its caller may come again with the same bytes; and where there is no room the caller gets it in hand, to be waited for.

use std::{fmt, io, sync::Arc};

use bowline_proto::{
    DeviceId,
    host::{Relay, Route},
    wire::relay::HEADER_LEN,
};

use crate::{
    Ecn, TrySendError,
    batch::{Batch, Segments},
    coalesce,
    coalesce::flush,
    config::{BATCH, SEND_PATIENCE},
    driver::{Routes, Shared},
    error::SendSegmentsError,
    packing::{Packing, Way},
    send::{self, Outcome, dispatch, try_send_run},
};

/// Room that was missing for messages to a device.
pub struct Room {
    shared: Arc<Shared>,
    room: send::Room,
    /// Bytes that are to fit.
    length: usize,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Room {
    /// Waits until there may be room, for one second at most: by then another way may be the better one.
    pub async fn wait(self) {
        let _ = tokio::time::timeout(SEND_PATIENCE, self.room.wait(&self.shared, self.length)).await;
    }
}

/// Takes all messages, or none for want of room. What the network would drop counts as taken.
pub(crate) fn try_send_segments(
    shared: &Arc<Shared>,
    to: DeviceId,
    data: &[u8],
    segment: usize,
    ecn: Ecn,
) -> Result<(), SendSegmentsError> {
    let batch = Segments::new(data, segment, ecn);
    let mut at = 0;
    while at < batch.count() {
        match next_run(shared, to, &batch, at) {
            Ok(run) => at += run,
            // Those before have left: to come again with all of them would double them.
            Err(_) if at > 0 => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends as many as go together; their number.
fn next_run(
    shared: &Arc<Shared>,
    to: DeviceId,
    batch: &Segments<'_>,
    at: usize,
) -> Result<usize, SendSegmentsError> {
    if let Some(lane) = send::lane(shared, to, batch.message(at)) {
        if flush(shared, &lane) != coalesce::Outcome::Taken {
            return Err(full(shared, send::Room::Socket(lane.hop), 0));
        }
        let packed = send::packing(shared, &lane, batch.message(at).len()).pack(batch, at, |_| true);
        send::note_sent(shared, &lane, packed.count);
        let parts = packed.parts(batch, at);
        match try_send_run(shared, lane.hop, &parts, packed.segment(), batch.ecn(at)) {
            Ok(()) => return Ok(packed.count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(full(shared, send::Room::Socket(lane.hop), 0));
            }
            // Perhaps one of them is the reason: it shows one by one.
            Err(error) => send::note_refused(shared, lane.hop, &packed, &error),
        }
    }
    routed(shared, to, batch, at)
}

/// As the machine says; the number of those that have left, of which the first did.
fn routed(
    shared: &Arc<Shared>,
    to: DeviceId,
    batch: &Segments<'_>,
    begin: usize,
) -> Result<usize, SendSegmentsError> {
    let rest = begin..batch.count().min(begin + BATCH);
    let lengths = rest.clone().map(|at| batch.message(at).len());
    let Routes { routes, joined, failed } = shared.machine.route_all(to, lengths);
    if let (true, Some(error)) = (routes.is_empty(), failed) {
        return Err(error.into());
    }
    if let Some(Route::RelayTcp(conn) | Route::Both(_, Relay::Tcp(conn))) = routes.first() {
        // All of them fit, or none is taken.
        let length = (begin..batch.count()).map(|at| HEADER_LEN + 2 + batch.message(at).len()).sum();
        if let Some(outbox) = shared.outbox(*conn)
            && !outbox.has_room(length)
        {
            return Err(full(shared, send::Room::Queue(outbox), length));
        }
    }
    let mut done = 0;
    while let Some(&route) = routes.get(done) {
        let together = |other: usize| routes.get(other - begin) == Some(&route);
        match send_routed(shared, (to, route), batch, begin + done, joined, together) {
            Ok(run) => done += run,
            Err(error) if done == 0 => return Err(error),
            // It shows again with the next.
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Sends those that go `together` with the one there, by its route; their number.
fn send_routed(
    shared: &Arc<Shared>,
    (to, route): (DeviceId, Route),
    batch: &Segments<'_>,
    at: usize,
    joined: Option<usize>,
    together: impl Fn(usize) -> bool,
) -> Result<usize, SendSegmentsError> {
    if let Route::RelayUdp(hop) = route {
        let (size, segments) = (batch.message(at).len(), shared.udp.max_segments(hop));
        let packed = Packing::new(Way::Relayed(to), size, segments, joined).pack(batch, at, together);
        match try_send_run(shared, hop, &packed.parts(batch, at), packed.segment(), Ecn::NotEct) {
            Ok(()) => return Ok(packed.count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(full(shared, send::Room::Socket(hop), 0));
            }
            Err(error) => send::note_refused(shared, hop, &packed, &error),
        }
    }
    match dispatch(shared, route, to, batch.message(at), batch.ecn(at)) {
        Outcome::Full(room) => Err(full(shared, room, batch.message(at).len())),
        Outcome::Sent => Ok(1),
        Outcome::Refused => match send::try_send(shared, to, batch.message(at), batch.ecn(at)) {
            Ok(()) | Err(TrySendError::Full) => Ok(1),
            Err(TrySendError::Send(why)) => Err(why.into()),
        },
    }
}

fn full(shared: &Arc<Shared>, room: send::Room, length: usize) -> SendSegmentsError {
    SendSegmentsError::Full(Room { shared: Arc::clone(shared), room, length })
}
