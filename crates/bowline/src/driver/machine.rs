//! The lock around the host machine, and every call into it.
//!
//! Held for one call each time, never while waiting. Callers of `send` ask for a route here from their own task, unless a
//! lane tells them the way ([`super::lanes`]); what the machine wants done in consequence is the driver's work, so it is woken
//! when there is something, and only then. Every call is preceded by a report of what went over the lanes, and followed by
//! a look at which of them are no longer as they were.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId,
    host::{
        ConnId, Delivery, Hop, Host, Network, Output, Path, PeerStatus, Route, SendError, SocketId, Status,
    },
};
use bytes::Bytes;
use tokio::sync::Notify;

use super::lanes::Lanes;
use crate::{Ecn, queue::Run, udp::Chunk};

#[derive(Debug)]
pub(crate) struct Machine {
    /// What may be done without the lock.
    pub(crate) lanes: Lanes,
    state: Mutex<State>,
    wake: Notify,
}

/// Messages that a datagram brought.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) from: DeviceId,
    /// Where in the chunk they lie.
    pub(super) at: Range<usize>,
    /// The length of each but the last.
    pub(super) stride: usize,
    pub(super) path: Path,
}

/// Where the messages of a batch go.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Of each, up to the first that cannot go anywhere.
    pub(crate) routes: Vec<Route>,
    /// How long a datagram of joined messages may be that goes over UDP through the base, if it may.
    pub(crate) joined: Option<usize>,
    /// Why that one cannot.
    pub(crate) failed: Option<SendError>,
}

#[derive(Debug)]
struct State {
    host: Host,
    /// An output that was taken to see whether there is one.
    ahead: Option<Output>,
    /// When the driver is going to look by itself.
    armed: Option<Instant>,
}

impl Machine {
    pub(crate) fn new(host: Host) -> Self {
        let state = Mutex::new(State { host, ahead: None, armed: None });
        Self { lanes: Lanes::new(Instant::now()), state, wake: Notify::new() }
    }

    /// Waits until a caller has left work for the driver.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// For callers other than the driver: one call, after which the driver is woken if there is work for it.
    pub(crate) fn call<R>(&self, call: impl FnOnce(&mut Host, Instant) -> R) -> R {
        let mut state = self.lock();
        let now = Instant::now();
        let result = self.within(&mut state.host, |host| call(host, now));
        if state.look_ahead(now) {
            drop(state);
            self.wake.notify_one();
        }
        result
    }

    /// For the driver, which looks for outputs after every call by itself.
    pub(super) fn drive<R>(&self, call: impl FnOnce(&mut Host, Instant) -> R) -> R {
        self.within(&mut self.lock().host, |host| call(host, Instant::now()))
    }

    /// One call, with what has to come before and after it.
    fn within<R>(&self, host: &mut Host, call: impl FnOnce(&mut Host) -> R) -> R {
        self.report(host);
        let result = call(host);
        while let Some(peer) = host.poll_revoked() {
            if self.lanes.update(peer, host.lease(peer)) {
                self.report(host);
            }
        }
        result
    }

    fn report(&self, host: &mut Host) {
        for (peer, traffic) in self.lanes.take_notes() {
            host.handle_traffic(peer, &traffic);
        }
    }

    /// The machine hears of what went over the lanes.
    pub(crate) fn settle(&self) {
        self.call(|_, _| ());
    }

    /// For the driver: all that is to be done, in order, and when to look again.
    pub(super) fn outputs(&self, into: &mut Vec<Output>) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        into.extend(state.ahead.take());
        loop {
            match state.host.poll_output(now) {
                Output::Timeout(deadline) => {
                    state.armed = deadline;
                    return deadline;
                }
                output => into.push(output),
            }
        }
    }

    /// Where a message goes.
    pub(crate) fn route(&self, to: DeviceId, length: usize) -> Result<Route, SendError> {
        self.call(|host, now| {
            let route = host.route(to, length, now);
            self.open_lane(host, to, route.as_ref().ok());
            route
        })
    }

    /// Where the messages of a batch go, up to the first that cannot go anywhere.
    pub(crate) fn route_all(&self, to: DeviceId, lengths: impl ExactSizeIterator<Item = usize>) -> Routes {
        self.call(|host, now| {
            let mut routes = Vec::with_capacity(lengths.len());
            let mut failed = None;
            for length in lengths {
                match host.route(to, length, now) {
                    Ok(route) => routes.push(route),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            self.open_lane(host, to, routes.last());
            Routes { routes, joined: host.joined_relay(to, now), failed }
        })
    }

    /// The next message to this device need not ask, if this one goes directly.
    fn open_lane(&self, host: &mut Host, to: DeviceId, route: Option<&Route>) {
        if let Some(Route::Direct(_)) = route {
            let _ = self.lanes.update(to, host.lease(to));
        }
    }

    pub(crate) fn want(&self, peer: DeviceId) -> Result<(), SendError> {
        self.call(|host, now| host.want(peer, now))
    }

    pub(super) fn parting(&self) -> Duration {
        self.call(|host, now| host.parting(now))
    }

    pub(crate) fn set_direct(&self, on: bool) {
        self.call(|host, now| host.set_direct(on, now));
    }

    pub(crate) fn set_relay_udp(&self, on: bool) {
        self.call(|host, now| host.set_relay_udp(on, now));
    }

    pub(crate) fn send_error(&self, hop: Hop, error: &std::io::Error) {
        self.call(|host, now| host.handle_send_error(hop, error, now));
    }

    pub(crate) fn relay_overflow(&self, peer: DeviceId) {
        self.call(|host, now| host.handle_relay_overflow(peer, now));
    }

    pub(crate) fn status(&self) -> Status {
        self.call(|host, now| host.status(now))
    }

    pub(crate) fn peer_status(&self, peer: DeviceId) -> Option<PeerStatus> {
        self.call(|host, now| host.peer_status(peer, now))
    }

    pub(crate) fn max_datagram(&self, peer: DeviceId) -> usize {
        self.lock().host.max_datagram(peer)
    }

    pub(crate) fn max_direct(&self, peer: DeviceId) -> Option<usize> {
        self.lock().host.max_direct(peer)
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.lock().host.is_registered()
    }

    pub(crate) fn remembered_bases(&self) -> Vec<(String, DeviceId)> {
        self.lock().host.remembered_bases()
    }

    pub(super) fn network(&self, network: Network) {
        self.drive(|host, now| host.handle_network(network, now));
    }

    /// Datagrams that came in, and where in the chunk is what they bring for the user.
    pub(super) fn datagrams(&self, socket: SocketId, chunk: &Chunk<'_>) -> Vec<Found> {
        self.drive(|host, now| {
            let mut found = Vec::new();
            for datagram in chunk.datagrams() {
                if let Some(delivery) =
                    host.handle_datagram_on(socket, chunk.local, chunk.from, datagram, now)
                {
                    let at = chunk.position(delivery.data);
                    let Delivery { from, segment: stride, path, .. } = delivery;
                    found.push(Found { from, at, stride, path });
                }
            }
            // The next chunk from there need not come here.
            if let Some(&Found { from, path: Path::Direct(_), .. }) = found.last() {
                let _ = self.lanes.update(from, host.lease(from));
            }
            found
        })
    }

    /// A frame that came in, and the messages it brings. They are copied: it is a part of a larger read.
    pub(super) fn frame(&self, conn: ConnId, frame: &[u8]) -> Option<Run> {
        self.drive(|host, now| {
            host.handle_frame(conn, frame, now).map(|delivery| Run {
                from: delivery.from,
                bytes: Bytes::copy_from_slice(delivery.data),
                stride: delivery.segment,
                path: delivery.path,
                ecn: Ecn::NotEct,
            })
        })
    }

    pub(super) fn announcement(&self, from: SocketAddr, hop_limit: u8, payload: &[u8]) {
        self.drive(|host, now| host.handle_announcement(from, hop_limit, payload, now));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the machine is a bug that has been reported where it happened. Refusing every later call would
        // turn one lost message into a dead program.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is work for the driver that it does not know of yet.
    fn look_ahead(&mut self, now: Instant) -> bool {
        if self.ahead.is_some() {
            return false; // It has been woken for that one.
        }
        match self.host.poll_output(now) {
            Output::Timeout(None) => false,
            Output::Timeout(Some(deadline)) => {
                let earlier = self.armed.is_none_or(|armed| deadline < armed);
                if earlier {
                    self.armed = Some(deadline);
                }
                earlier
            }
            output => {
                self.ahead = Some(output);
                true
            }
        }
    }
}
