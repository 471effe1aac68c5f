//! Sending messages: from the caller's own task, by the way the machine names, without a queue between.
//!
//! A direct path that stands is a lane (`driver/lanes.rs`): messages take it without asking the machine, batches in one
//! system call. Everything else is routed by the machine message by message. Direct and over UDP, a
//! message goes to the socket; over TCP, into the bounded queue of the base's connection. When that way is full, `send` waits up
//! to [`SEND_PATIENCE`] and then drops the message as a network would. When the system refuses a datagram (its source address
//! has gone, it is too large for the link), the machine hears of it and is asked for another way, once. On the way to a socket, messages
//! are copied where they leave together and were sent one by one (`coalesce.rs`) or lie in many pieces (`udp/transmit_linux.rs`).

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bowline_proto::{
    DeviceId,
    host::{ConnId, Hop, Path, Relay, Route, SendError, is_too_large, too_large},
    wire::{
        peer::{escape_prefix, needs_escape},
        relay::{SEND_DATA, header},
    },
};
use bytes::Bytes;
use tokio::{
    task::{coop::consume_budget, yield_now},
    time::{Instant, timeout_at},
};

use crate::{
    Datagram, Ecn, TrySendError,
    batch::Batch,
    coalesce,
    coalesce::{empty, expect_more, flush, offer},
    config::{BATCH, SEND_PATIENCE},
    driver::{Lane, Routes, Shared},
    packing::{Packed, Packing, Way},
    tcp::{Outbox, Refused},
};

/// What became of a message.
pub(crate) enum Outcome {
    /// It was taken.
    Sent,
    /// There is no room at this moment.
    Full(Room),
    /// The way does not exist any more.
    Refused,
}

/// Where room is needed.
pub(crate) enum Room {
    Socket(Hop),
    Queue(Arc<Outbox>),
    /// Another task is sending by this way.
    Turn,
}

// --- One message -----------------------------------------------------------------------------------------------------

pub(crate) async fn send(shared: &Shared, to: DeviceId, data: &[u8]) -> Result<(), SendError> {
    // Those who only ever send would otherwise never let the driver have its turn.
    consume_budget().await;
    let mut give_up = None;
    while let Some(lane) = lane(shared, to, data) {
        let room = match by_lane(shared, &lane, data) {
            Outcome::Sent => return Ok(()),
            Outcome::Full(room) => room,
            Outcome::Refused => break,
        };
        let give_up = *give_up.get_or_insert_with(|| Instant::now() + SEND_PATIENCE);
        if timeout_at(give_up, room.wait(shared, data.len())).await.is_err() {
            room.report(shared, to);
            return Ok(());
        }
    }
    let_those_before_leave(shared, to).await;
    send_by(shared, shared.machine.route(to, data.len())?, to, data, Ecn::NotEct).await
}

/// What waits on the lane to this device leaves before something that goes by itself.
async fn let_those_before_leave(shared: &Shared, to: DeviceId) {
    if let Some(lane) = shared.machine.lanes.to(to, 0) {
        empty(shared, &lane).await;
    }
}

pub(crate) fn try_send(shared: &Shared, to: DeviceId, data: &[u8], ecn: Ecn) -> Result<(), TrySendError> {
    if let Some(lane) = lane(shared, to, data) {
        if flush(shared, &lane) != coalesce::Outcome::Taken {
            return Err(TrySendError::Full);
        }
        note_sent(shared, &lane, 1);
        match datagram(shared, lane.hop, &[IoSlice::new(data)], ecn) {
            Outcome::Sent => return Ok(()),
            Outcome::Full(_) => return Err(TrySendError::Full),
            Outcome::Refused => {}
        }
    }
    if let Some(lane) = shared.machine.lanes.to(to, 0)
        && flush(shared, &lane) != coalesce::Outcome::Taken
    {
        return Err(TrySendError::Full);
    }
    let route = shared.machine.route(to, data.len())?;
    let outcome = match dispatch(shared, route, to, data, ecn) {
        Outcome::Refused => dispatch(shared, shared.machine.route(to, data.len())?, to, data, ecn),
        outcome => outcome,
    };
    if let Outcome::Full(_) = outcome { Err(TrySendError::Full) } else { Ok(()) }
}

/// A message that could not leave with others tries once more by itself, without anyone waiting for it.
pub(crate) fn resend(shared: &Shared, to: DeviceId, data: &[u8]) {
    let mut tries = 0..2;
    while tries.next().is_some()
        && let Ok(route) = shared.machine.route(to, data.len())
        && let Outcome::Refused = dispatch(shared, route, to, data, Ecn::NotEct)
    {}
}

/// The lane that this message may take.
pub(crate) fn lane(shared: &Shared, to: DeviceId, data: &[u8]) -> Option<Arc<Lane>> {
    if needs_escape(data) { None } else { shared.machine.lanes.to(to, data.len()) }
}

/// Tells the machine, sooner or later: at once where it has to start a timer.
pub(crate) fn note_sent(shared: &Shared, lane: &Arc<Lane>, count: usize) {
    if shared.machine.lanes.note_sent(lane, count) {
        shared.machine.settle();
    }
}

fn by_lane(shared: &Shared, lane: &Arc<Lane>, data: &[u8]) -> Outcome {
    match offer(shared, lane, data) {
        coalesce::Outcome::Taken => {
            note_sent(shared, lane, 1);
            Outcome::Sent
        }
        coalesce::Outcome::Alone => {
            note_sent(shared, lane, 1);
            let outcome = datagram(shared, lane.hop, &[IoSlice::new(data)], Ecn::NotEct);
            expect_more(shared, lane);
            outcome
        }
        coalesce::Outcome::Full => Outcome::Full(Room::Socket(lane.hop)),
        coalesce::Outcome::Busy => Outcome::Full(Room::Turn),
    }
}

async fn send_by(
    shared: &Shared,
    mut route: Route,
    to: DeviceId,
    data: &[u8],
    ecn: Ecn,
) -> Result<(), SendError> {
    let mut rerouted = false;
    let mut give_up = None;
    loop {
        match dispatch(shared, route, to, data, ecn) {
            Outcome::Sent => return Ok(()),
            Outcome::Full(room) => {
                let give_up = *give_up.get_or_insert_with(|| Instant::now() + SEND_PATIENCE);
                if timeout_at(give_up, room.wait(shared, data.len())).await.is_err() {
                    room.report(shared, to);
                    return Ok(());
                }
            }
            Outcome::Refused if rerouted => return Ok(()),
            Outcome::Refused => {
                rerouted = true;
                route = shared.machine.route(to, data.len())?;
            }
        }
    }
}

impl Room {
    pub(crate) async fn wait(&self, shared: &Shared, length: usize) {
        match self {
            Self::Socket(hop) => shared.udp.writable(*hop).await,
            Self::Queue(outbox) => outbox.room(length).await,
            Self::Turn => yield_now().await,
        }
    }

    /// A message was dropped because there was none.
    fn report(&self, shared: &Shared, to: DeviceId) {
        match self {
            Self::Socket(_) | Self::Turn => tracing::debug!("a message was dropped: the socket is full"),
            Self::Queue(_) => shared.machine.relay_overflow(to),
        }
    }
}

/// The mark goes along where the way is a direct one.
pub(crate) fn dispatch(shared: &Shared, route: Route, to: DeviceId, data: &[u8], ecn: Ecn) -> Outcome {
    match route {
        Route::Direct(hop) => direct(shared, hop, data, ecn),
        Route::RelayUdp(hop) => relay_udp(shared, hop, to, data),
        Route::RelayTcp(conn) => relay_tcp(shared, conn, to, data),
        Route::Both(hop, relay) => {
            let relayed = match relay {
                Relay::Udp(hop) => relay_udp(shared, hop, to, data),
                Relay::Tcp(conn) => relay_tcp(shared, conn, to, data),
            };
            match (direct(shared, hop, data, ecn), relayed) {
                (Outcome::Sent, _) | (_, Outcome::Sent) => Outcome::Sent,
                (Outcome::Full(room), _) | (_, Outcome::Full(room)) => Outcome::Full(room),
                (Outcome::Refused, Outcome::Refused) => Outcome::Refused,
            }
        }
        Route::Local => {
            let data = Bytes::copy_from_slice(data);
            shared.inbox.push(Datagram { from: to, data, path: Path::Local, ecn });
            Outcome::Sent
        }
    }
}

fn direct(shared: &Shared, hop: Hop, data: &[u8], ecn: Ecn) -> Outcome {
    if needs_escape(data) {
        datagram(shared, hop, &[IoSlice::new(&escape_prefix()), IoSlice::new(data)], ecn)
    } else {
        datagram(shared, hop, &[IoSlice::new(data)], ecn)
    }
}

fn relay_udp(shared: &Shared, hop: Hop, to: DeviceId, data: &[u8]) -> Outcome {
    datagram(shared, hop, &[IoSlice::new(&header(SEND_DATA, to)), IoSlice::new(data)], Ecn::NotEct)
}

fn datagram(shared: &Shared, hop: Hop, parts: &[IoSlice<'_>], ecn: Ecn) -> Outcome {
    match shared.udp.try_send(hop, parts, None, ecn) {
        Ok(()) => Outcome::Sent,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Full(Room::Socket(hop)),
        Err(error) => {
            shared.machine.send_error(hop, &error);
            Outcome::Refused
        }
    }
}

fn relay_tcp(shared: &Shared, conn: ConnId, to: DeviceId, data: &[u8]) -> Outcome {
    let Some(outbox) = shared.outbox(conn) else { return Outcome::Refused };
    match outbox.data(to, data) {
        Ok(()) => Outcome::Sent,
        Err(Refused::Full) => Outcome::Full(Room::Queue(outbox)),
        Err(Refused::Gone) => Outcome::Refused,
    }
}

// --- Several messages ------------------------------------------------------------------------------------------------

/// Sends a batch; the number of messages that were taken, the first ones, or the error of the very first.
pub(crate) async fn send_batch<B>(shared: &Shared, to: DeviceId, batch: &B) -> Result<usize, SendError>
where
    B: Batch + ?Sized,
{
    let mut taken = 0;
    while taken < batch.count() {
        consume_budget().await;
        let sent = match lane(shared, to, batch.message(taken)) {
            Some(lane) => send_by_lane(shared, &lane, batch, taken).await,
            None => {
                let_those_before_leave(shared, to).await;
                send_routed(shared, to, batch, taken).await
            }
        };
        match sent {
            Ok(0) => break,
            Ok(sent) => taken += sent,
            Err(error) if taken == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(taken)
}

/// Sends as many messages from `at` on as fit into one system call; their number.
async fn send_by_lane<B>(shared: &Shared, lane: &Arc<Lane>, batch: &B, at: usize) -> Result<usize, SendError>
where
    B: Batch + ?Sized,
{
    let packed = packing(shared, lane, batch.message(at).len()).pack(batch, at, |_| true);
    empty(shared, lane).await;
    note_sent(shared, lane, packed.count);
    let parts = packed.parts(batch, at);
    match send_run(shared, lane.hop, parts, packed.segment(), batch.ecn(at)).await {
        Ok(()) => Ok(packed.count),
        Err(error) => {
            note_refused(shared, lane.hop, &packed, &error);
            one_by_one(shared, lane.peer, batch, at, packed.count).await
        }
    }
}

/// How messages of a size leave by a lane.
pub(crate) fn packing(shared: &Shared, lane: &Lane, size: usize) -> Packing {
    Packing::new(Way::Direct, size, shared.udp.max_segments(lane.hop), lane.joined)
}

/// The system has refused messages that now go one by one. If they were joined, none of them shows by itself that it is the length of
/// all that does not pass.
pub(crate) fn note_refused(shared: &Shared, hop: Hop, packed: &Packed, error: &io::Error) {
    // Older kernels call segments that are too large for the link invalid. Of anything else that is, each message shows it, and to have
    // the size proven again costs a round trip.
    let may_be_size = is_too_large(error) || error.kind() == io::ErrorKind::InvalidInput;
    if packed.is_joined() && may_be_size {
        shared.machine.send_error(hop, &too_large());
    }
}

/// As the machine says for each of them.
async fn one_by_one<B>(
    shared: &Shared,
    to: DeviceId,
    batch: &B,
    at: usize,
    count: usize,
) -> Result<usize, SendError>
where
    B: Batch + ?Sized,
{
    for done in 0..count {
        let data = batch.message(at + done);
        match shared.machine.route(to, data.len()) {
            Ok(route) => send_by(shared, route, to, data, batch.ecn(at + done)).await?,
            Err(error) if done == 0 => return Err(error),
            Err(_) => return Ok(done),
        }
    }
    Ok(count)
}

/// Sends messages from `begin` on whose ways the machine names, in runs where one system call can take several.
async fn send_routed<B>(shared: &Shared, to: DeviceId, batch: &B, begin: usize) -> Result<usize, SendError>
where
    B: Batch + ?Sized,
{
    let count = (batch.count() - begin).min(BATCH);
    let lengths = (begin..begin + count).map(|at| batch.message(at).len());
    let Routes { routes, joined, failed } = shared.machine.route_all(to, lengths);
    if let (true, Some(error)) = (routes.is_empty(), failed) {
        return Err(error);
    }
    let mut done = 0;
    while done < routes.len() {
        let route = routes[done];
        let first = begin + done;
        let same = |at: usize| routes.get(at - begin) == Some(&route);
        let (run, whole) = match way(to, route, joined) {
            None => (1, false),
            Some((hop, way, joined)) => {
                let size = batch.message(first).len();
                let packing = Packing::new(way, size, shared.udp.max_segments(hop), joined);
                let packed = packing.pack(batch, first, same);
                let ecn = if way == Way::Direct { batch.ecn(first) } else { Ecn::NotEct };
                let whole = packed.count > 1
                    && send_packed(shared, hop, &packed, packed.parts(batch, first), ecn).await;
                (packed.count, whole)
            }
        };
        if !whole {
            for (route, at) in routes[done..done + run].iter().zip(first..) {
                match send_by(shared, *route, to, batch.message(at), batch.ecn(at)).await {
                    Ok(()) => {}
                    Err(error) if at == begin => return Err(error),
                    Err(_) => return Ok(at - begin),
                }
            }
        }
        done += run;
    }
    Ok(done)
}

/// By which way messages of a route go that may share a call, and how long a datagram of joined ones may be.
fn way(to: DeviceId, route: Route, joined: Option<usize>) -> Option<(Hop, Way, Option<usize>)> {
    match route {
        Route::Direct(hop) => Some((hop, Way::Direct, None)),
        Route::RelayUdp(hop) => Some((hop, Way::Relayed(to), joined)),
        _ => None,
    }
}

/// Whether they have left together: if not, they have to go one by one.
async fn send_packed(shared: &Shared, hop: Hop, packed: &Packed, parts: Vec<IoSlice<'_>>, ecn: Ecn) -> bool {
    let sent = send_run(shared, hop, parts, packed.segment(), ecn).await;
    if let Err(error) = &sent {
        note_refused(shared, hop, packed, error);
    }
    sent.is_ok()
}

/// Sends several messages with one system call, which the system cuts into datagrams of `segment` bytes.
pub(crate) fn try_send_run(
    shared: &Shared,
    hop: Hop,
    parts: &[IoSlice<'_>],
    segment: Option<usize>,
    ecn: Ecn,
) -> io::Result<()> {
    let segment = segment.map(u16::try_from).transpose().map_err(io::Error::other)?;
    shared.udp.try_send(hop, parts, segment, ecn)
}

/// The same, and waits for room. When the system refuses, they have to go one by one.
async fn send_run(
    shared: &Shared,
    hop: Hop,
    parts: Vec<IoSlice<'_>>,
    segment: Option<usize>,
    ecn: Ecn,
) -> io::Result<()> {
    let mut give_up = None;
    loop {
        match try_send_run(shared, hop, &parts, segment, ecn) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let give_up = *give_up.get_or_insert_with(|| Instant::now() + SEND_PATIENCE);
                if timeout_at(give_up, shared.udp.writable(hop)).await.is_err() {
                    tracing::debug!("messages were dropped: the socket is full");
                    return Ok(());
                }
            }
            // Perhaps one of them is the reason, perhaps a device that does not segment: it shows one by one.
            Err(error) => return Err(error),
        }
    }
}
