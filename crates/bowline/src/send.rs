//! Sending messages: from the caller's own task, by the way the machine names, without a queue between.
//!
//! Direct and over UDP, a message goes to the socket; over TCP, into the bounded queue of the base's connection. When
//! that way is full, `send` waits up to [`SEND_PATIENCE`] and then drops the message as a network would. When the system refuses
//! a datagram (its source address has gone, it is too large for the link), the machine hears of it and is asked for another way, once.
//! Nothing is copied on the way to a socket: headers and messages are gathered by the system.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    sync::Arc,
};

use bowline_proto::{
    DeviceId,
    host::{ConnId, Hop, Path, Relay, Route, SendError},
    wire::{
        peer::{escape_prefix, needs_escape},
        relay::{SEND_DATA, header},
    },
};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::{
    Datagram, TrySendError,
    config::{BATCH, MAX_SEGMENTED_BYTES, SEND_PATIENCE},
    driver::Shared,
    tcp::{Outbox, Refused},
};

/// What became of a message.
enum Outcome {
    /// It was taken.
    Sent,
    /// There is no room at this moment.
    Full(Room),
    /// The way does not exist any more.
    Refused,
}

/// Where room is needed.
enum Room {
    Socket(SocketAddr),
    Queue(Arc<Outbox>),
}

pub(crate) async fn send(shared: &Shared, to: DeviceId, data: &[u8]) -> Result<(), SendError> {
    let route = shared.machine.route(to, data.len())?;
    send_by(shared, route, to, data).await
}

pub(crate) fn try_send(shared: &Shared, to: DeviceId, data: &[u8]) -> Result<(), TrySendError> {
    let route = shared.machine.route(to, data.len())?;
    let outcome = match dispatch(shared, route, to, data) {
        Outcome::Refused => dispatch(shared, shared.machine.route(to, data.len())?, to, data),
        outcome => outcome,
    };
    if let Outcome::Full(_) = outcome { Err(TrySendError::Full) } else { Ok(()) }
}

pub(crate) async fn send_batch(shared: &Shared, to: DeviceId, batch: &[Bytes]) -> Result<usize, SendError> {
    let mut taken = 0;
    for part in batch.chunks(BATCH) {
        let (routes, unroutable) = shared.machine.route_all(to, part);
        let failed = match send_part(shared, &routes, to, &part[..routes.len()]).await {
            Ok(sent) => {
                taken += sent;
                if sent < routes.len() { return Ok(taken) } else { unroutable }
            }
            Err(error) => Some(error),
        };
        match failed {
            None => {}
            Some(error) if taken == 0 => return Err(error),
            Some(_) => return Ok(taken),
        }
    }
    Ok(taken)
}

async fn send_by(shared: &Shared, mut route: Route, to: DeviceId, data: &[u8]) -> Result<(), SendError> {
    let mut rerouted = false;
    let mut give_up = None;
    loop {
        match dispatch(shared, route, to, data) {
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
    async fn wait(&self, shared: &Shared, length: usize) {
        match self {
            Self::Socket(to) => shared.udp.writable(*to).await,
            Self::Queue(outbox) => outbox.room(length).await,
        }
    }

    /// A message was dropped because there was none.
    fn report(&self, shared: &Shared, to: DeviceId) {
        match self {
            Self::Socket(_) => tracing::debug!("a message was dropped: the socket is full"),
            Self::Queue(_) => shared.machine.relay_overflow(to),
        }
    }
}

fn dispatch(shared: &Shared, route: Route, to: DeviceId, data: &[u8]) -> Outcome {
    match route {
        Route::Direct(hop) => direct(shared, hop, data),
        Route::RelayUdp(hop) => relay_udp(shared, hop, to, data),
        Route::RelayTcp(conn) => relay_tcp(shared, conn, to, data),
        Route::Both(hop, relay) => {
            let relayed = match relay {
                Relay::Udp(hop) => relay_udp(shared, hop, to, data),
                Relay::Tcp(conn) => relay_tcp(shared, conn, to, data),
            };
            match (direct(shared, hop, data), relayed) {
                (Outcome::Sent, _) | (_, Outcome::Sent) => Outcome::Sent,
                (Outcome::Full(room), _) | (_, Outcome::Full(room)) => Outcome::Full(room),
                (Outcome::Refused, Outcome::Refused) => Outcome::Refused,
            }
        }
        Route::Local => {
            let data = Bytes::copy_from_slice(data);
            shared.inbox.push(Datagram { from: to, data, path: Path::Local });
            Outcome::Sent
        }
    }
}

fn direct(shared: &Shared, hop: Hop, data: &[u8]) -> Outcome {
    if needs_escape(data) {
        datagram(shared, hop, &[IoSlice::new(&escape_prefix()), IoSlice::new(data)])
    } else {
        datagram(shared, hop, &[IoSlice::new(data)])
    }
}

fn relay_udp(shared: &Shared, hop: Hop, to: DeviceId, data: &[u8]) -> Outcome {
    datagram(shared, hop, &[IoSlice::new(&header(SEND_DATA, to)), IoSlice::new(data)])
}

fn datagram(shared: &Shared, hop: Hop, parts: &[IoSlice<'_>]) -> Outcome {
    match shared.udp.try_send(hop, parts, None) {
        Ok(()) => Outcome::Sent,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Full(Room::Socket(hop.to)),
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

/// Sends messages whose ways are known, in runs where one system call can take several. The number of those taken, or
/// the error of the first.
async fn send_part(
    shared: &Shared,
    routes: &[Route],
    to: DeviceId,
    part: &[Bytes],
) -> Result<usize, SendError> {
    let mut at = 0;
    while at < part.len() {
        let run = match routes[at] {
            Route::Direct(hop) => run_length(&routes[at..], &part[at..], shared.udp.max_segments(hop.to)),
            _ => 1,
        };
        let whole = match routes[at] {
            Route::Direct(hop) if run > 1 => send_run(shared, hop, &part[at..at + run]).await,
            _ => false,
        };
        if !whole {
            for i in at..at + run {
                match send_by(shared, routes[i], to, &part[i]).await {
                    Ok(()) => {}
                    Err(error) if i == 0 => return Err(error),
                    Err(_) => return Ok(i),
                }
            }
        }
        at += run;
    }
    Ok(at)
}

/// How many messages from the first on can share a send: the same direct way, equal size (the last may be shorter).
fn run_length(routes: &[Route], part: &[Bytes], max: usize) -> usize {
    let size = part[0].len();
    if needs_escape(&part[0]) {
        return 1;
    }
    let mut bytes = size;
    let mut run = 1;
    while run < part.len().min(max) && routes[run] == routes[0] {
        let message = &part[run];
        if needs_escape(message) || message.len() > size || bytes + message.len() > MAX_SEGMENTED_BYTES {
            break;
        }
        bytes += message.len();
        run += 1;
        if message.len() < size {
            break;
        }
    }
    run
}

/// Sends several messages with one system call; `false` if they have to go one by one.
async fn send_run(shared: &Shared, hop: Hop, run: &[Bytes]) -> bool {
    let give_up = Instant::now() + SEND_PATIENCE;
    loop {
        match try_send_run(shared, hop, run) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if timeout_at(give_up, shared.udp.writable(hop.to)).await.is_err() {
                    tracing::debug!("messages were dropped: the socket is full");
                    return true;
                }
            }
            // Perhaps one of them is the reason, perhaps a device that does not segment: it shows one by one.
            Err(_) => return false,
        }
    }
}

fn try_send_run(shared: &Shared, hop: Hop, run: &[Bytes]) -> io::Result<()> {
    let parts: Vec<_> = run.iter().map(|message| IoSlice::new(message)).collect();
    let segment = u16::try_from(run[0].len()).map_err(io::Error::other)?;
    shared.udp.try_send(hop, &parts, Some(segment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_SEGMENTS;

    fn hop(port: u16) -> Route {
        Route::Direct(Hop { source: None, to: ([192, 0, 2, 1], port).into() })
    }

    fn runs(routes: &[Route], lengths: &[usize]) -> Vec<usize> {
        let part: Vec<_> = lengths.iter().map(|&length| Bytes::from(vec![1; length])).collect();
        let mut runs = Vec::new();
        let mut at = 0;
        while at < part.len() {
            let run = run_length(&routes[at..], &part[at..], MAX_SEGMENTS);
            runs.push(run);
            at += run;
        }
        runs
    }

    #[test]
    fn messages_of_equal_size_on_the_same_way_share_a_send_and_a_shorter_one_ends_it() {
        assert_eq!(runs(&[hop(1); 5], &[1200; 5]), [5]);
        assert_eq!(runs(&[hop(1); 5], &[1200, 1200, 300, 1200, 1200]), [3, 2]);
        assert_eq!(runs(&[hop(1); 3], &[300, 1200, 1200]), [1, 2]);
        assert_eq!(runs(&[hop(1), hop(1), hop(2), hop(2)], &[1200; 4]), [2, 2]);
    }

    #[test]
    fn a_send_takes_no_more_than_the_kernel_does() {
        assert_eq!(runs(&[hop(1); 130], &[100; 130]), [64, 64, 2]);
        assert_eq!(runs(&[hop(1); 8], &[16_000; 8]), [4, 4]);
    }

    #[test]
    fn messages_that_need_an_escape_go_alone() {
        let magic = Bytes::from_static(b"\x0bbowline!");
        let part = [Bytes::from_static(b"123456789"), magic.clone(), magic, Bytes::from_static(b"123456789")];
        assert_eq!(run_length(&[hop(1); 4], &part, 64), 1);
        assert_eq!(run_length(&[hop(1); 3], &part[1..], 64), 1);
        assert_eq!(run_length(&[hop(1); 2], &[Bytes::from_static(b"1"), Bytes::new()], 64), 1);
    }
}
