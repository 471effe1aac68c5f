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
    config::SEND_PATIENCE,
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
    let full = |room| SendSegmentsError::Full(Room { shared: Arc::clone(shared), room, length: 0 });
    if let Some(lane) = send::lane(shared, to, batch.message(at)) {
        if flush(shared, &lane) != coalesce::Outcome::Taken {
            return Err(full(send::Room::Socket(lane.hop)));
        }
        let packed = send::packing(shared, &lane, batch.message(at).len()).pack(batch, at, |_| true);
        send::note_sent(shared, &lane, packed.count);
        let parts = packed.parts(batch, at);
        match try_send_run(shared, lane.hop, &parts, packed.segment(), batch.ecn(at)) {
            Ok(()) => return Ok(packed.count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(full(send::Room::Socket(lane.hop)));
            }
            // Perhaps one of them is the reason: it shows one by one.
            Err(error) => send::note_refused(shared, lane.hop, &packed, &error),
        }
    }
    routed(shared, to, batch, at)
}

/// As the machine says.
fn routed(
    shared: &Arc<Shared>,
    to: DeviceId,
    batch: &Segments<'_>,
    at: usize,
) -> Result<usize, SendSegmentsError> {
    let full = |room, length| SendSegmentsError::Full(Room { shared: Arc::clone(shared), room, length });
    let rest = at..batch.count();
    let lengths = rest.clone().map(|at| batch.message(at).len());
    let Routes { routes, joined, failed } = shared.machine.route_all(to, lengths);
    let Some(&route) = routes.first() else { return failed.map_or(Ok(rest.len()), |why| Err(why.into())) };
    let alike = |other: usize| routes.get(other - at) == Some(&route);
    match route {
        Route::RelayUdp(hop) => {
            let (size, segments) = (batch.message(at).len(), shared.udp.max_segments(hop));
            let packed = Packing::new(Way::Relayed(to), size, segments, joined).pack(batch, at, alike);
            match try_send_run(shared, hop, &packed.parts(batch, at), packed.segment(), Ecn::NotEct) {
                Ok(()) => return Ok(packed.count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(full(send::Room::Socket(hop), 0));
                }
                Err(error) => send::note_refused(shared, hop, &packed, &error),
            }
        }
        Route::RelayTcp(conn) | Route::Both(_, Relay::Tcp(conn)) => {
            let length = rest.clone().map(|at| HEADER_LEN + 2 + batch.message(at).len()).sum();
            if let Some(outbox) = shared.outbox(conn)
                && !outbox.has_room(length)
            {
                return Err(full(send::Room::Queue(outbox), length));
            }
        }
        _ => {}
    }
    match dispatch(shared, route, to, batch.message(at), batch.ecn(at)) {
        Outcome::Full(room) => Err(full(room, batch.message(at).len())),
        Outcome::Sent => Ok(1),
        Outcome::Refused => match send::try_send(shared, to, batch.message(at), batch.ecn(at)) {
            Ok(()) | Err(TrySendError::Full) => Ok(1),
            Err(TrySendError::Send(why)) => Err(why.into()),
        },
    }
}
