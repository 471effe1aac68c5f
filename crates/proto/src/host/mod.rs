//! The host's state machine: what runs on every device.
//!
//! A shell owns the sockets, the clock and this machine. After every call it drains [`Host::poll_output`] until that
//! answers with a timeout. A message's bytes are never held here: [`Host::route`] says where they go, and received
//! ones are handed back as slices of what the shell handed in.
//!
//! Inside, two halves meet here and nowhere else: `bases` (the race, the session, NAT-INIT) and `peers` (HELLO, pairs,
//! direct paths, the local link). Both borrow the `context` that they share.

mod base_name;
mod bases;
mod boundary;
mod bounds;
mod candidate;
pub mod config;
mod context;
mod early;
pub mod event;
mod lease;
mod link;
mod locals;
mod looking;
mod mapping;
mod master_key;
mod nat;
mod nat64;
mod pair;
mod path;
mod peer;
mod peers;
mod race;
mod refresh;
mod replay;
mod session;
mod size;
mod sources;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

pub use base_name::{BaseName, ParseBaseError};
use bases::{Bases, FromBase};
pub use boundary::{
    Allow, CloseReason, ConnId, Delivery, Hop, HostConfig, Interface, Network, Output, Relay, Route,
    SendError, SocketId,
};
pub use bounds::Sizes;
use context::{Context, earlier};
pub use event::{
    BaseStatus, BindingStatus, CandidateSource, Counters, Event, PairStatus, Path, PeerStatus, Status,
};
pub use lease::{Lease, Traffic};
use locals::{Change, Locals};
pub use nat64::Nat64;
use peers::{Peers, RelayView};
pub use peers::{is_too_large, too_large};
use refresh::Refresh;

use crate::{
    id::DeviceId,
    identity::SecretKey,
    wire::{
        ANY_PATH_DATA, MAX_DATA, addr::canonical, peer::PeerDatagram, relay::HEADER_LEN, udp::read_map_ok,
    },
};

/// A host.
#[derive(Debug)]
pub struct Host {
    ctx: Context,
    bases: Bases,
    peers: Peers,
    closed: bool,
    /// When the last message went to the base over UDP.
    relayed_over_udp: Option<Instant>,
    /// The relay's way as last told to peers.
    relay_path: Path,
}

impl Host {
    /// A host with this key. `seed` is the source of all its randomness.
    #[must_use]
    pub fn new(config: HostConfig, key: SecretKey, seed: [u8; 32], now: Instant) -> Self {
        let mut ctx = Context::new(config.clone(), key, seed);
        let bases = Bases::new(&config, &mut ctx, now);
        Self {
            ctx,
            bases,
            peers: Peers::default(),
            closed: false,
            relayed_over_udp: None,
            relay_path: Path::None,
        }
    }

    // --- What happened -----------------------------------------------------------------------------------------------

    /// The network is (or has become) like this. To be called at the start and whenever the system reports a change,
    /// at once, without waiting for more changes.
    pub fn handle_network(&mut self, network: Network, now: Instant) {
        if self.closed || *self.ctx.locals.network() == network {
            return;
        }
        let told = self.own_addresses();
        let nat64 = self.ctx.locals.nat64();
        let before = std::mem::replace(&mut self.ctx.locals, Locals::new(network, nat64));
        let change = if before.exits() != self.ctx.locals.exits() {
            Change::Moved
        } else if self.ctx.locals.judges_as(&before) {
            Change::Links
        } else {
            Change::Near
        };
        self.changed(change, told != self.own_addresses(), now);
    }

    /// The device was asleep (the clock jumped): everything is treated as changed.
    pub fn handle_resume(&mut self, now: Instant) {
        if !self.closed {
            self.changed(Change::Moved, true, now);
        }
    }

    fn changed(&mut self, change: Change, addresses: bool, now: Instant) {
        self.peers.link.restart(change, &self.ctx, now);
        if change == Change::Moved {
            self.ctx.refresh = Refresh::default();
            self.bases.handle_moved(&mut self.ctx, now);
        } else if addresses {
            self.bases.handle_addresses_changed(now);
        }
        let relay = RelayView::of(&self.bases, now);
        self.peers.handle_network(change, &relay, &mut self.ctx, now);
        self.tick(now);
    }

    fn own_addresses(&self) -> Vec<SocketAddr> {
        let loopback = self.bases.session().is_some_and(|s| s.remote.ip().is_loopback());
        self.ctx.own_addresses(loopback)
    }

    /// The answer to [`Output::Resolve`], or the reason why there is none.
    pub fn handle_resolved(&mut self, base: usize, result: Result<Vec<SocketAddr>, String>, now: Instant) {
        let result = result.map(|addresses| addresses.into_iter().map(canonical).collect());
        self.bases.handle_resolved(base, result, &mut self.ctx, now);
        self.tick(now);
    }

    /// A connection stands.
    pub fn handle_connected(&mut self, conn: ConnId, now: Instant) {
        self.bases.handle_connected(conn, &mut self.ctx, now);
        self.tick(now);
    }

    /// A connection ended or was never established.
    pub fn handle_closed(&mut self, conn: ConnId, why: CloseReason, now: Instant) {
        self.bases.handle_closed(conn, &why, &mut self.ctx, now);
        self.tick(now);
    }

    /// A whole frame (type and body) came from a base.
    pub fn handle_frame<'a>(&mut self, conn: ConnId, frame: &'a [u8], now: Instant) -> Option<Delivery<'a>> {
        let message = self.bases.handle_frame(conn, frame, &mut self.ctx, now);
        self.handle_from_base(message, now)
    }

    /// A datagram came in by the main socket, sent to `local` if the system says so.
    pub fn handle_datagram<'a>(
        &mut self,
        local: Option<IpAddr>,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<Delivery<'a>> {
        self.handle_datagram_on(SocketId::MAIN, local, from, datagram, now)
    }

    /// A datagram came in by this socket.
    pub fn handle_datagram_on<'a>(
        &mut self,
        socket: SocketId,
        local: Option<IpAddr>,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<Delivery<'a>> {
        if self.closed {
            return None;
        }
        let from = canonical(from);
        if !candidate::names_a_place(from) {
            self.ctx.counters.malformed += 1;
            return None;
        }
        if let Ok(nonce) = read_map_ok(datagram)
            && self.bases.handle_map_ok(nonce, &mut self.ctx, now)
        {
            self.tick(now);
            return None;
        }
        if socket == SocketId::MAIN && self.bases.is_base(from) {
            let message = self.bases.handle_datagram(from, datagram, &mut self.ctx, now);
            return self.handle_from_base(message, now);
        }
        let Ok(message) = PeerDatagram::decode(datagram) else {
            self.ctx.counters.malformed += 1;
            return None;
        };
        let hop = Hop { socket, source: local.map(|ip| ip.to_canonical()), to: from };
        match message {
            PeerDatagram::Data(data) => {
                return self.deliver_direct(hop, datagram, data, data.len().max(1), now);
            }
            PeerDatagram::Joined { size, data } => {
                return self.deliver_direct(hop, datagram, data, size, now);
            }
            PeerDatagram::Hello(hello) => {
                let relay = RelayView::of(&self.bases, now);
                self.peers.handle_hello(hello, hop, &self.bases, &relay, &mut self.ctx, now);
            }
            PeerDatagram::HelloReply(reply) => {
                let relay = RelayView::of(&self.bases, now);
                self.peers.handle_reply(reply, hop, &relay, &mut self.ctx, now);
            }
            PeerDatagram::UnknownSource => self.peers.handle_unknown_source(from, &mut self.ctx, now),
            PeerDatagram::Knock => self.peers.handle_knock(hop, &mut self.ctx, now),
        }
        self.tick(now);
        None
    }

    fn deliver_direct<'a>(
        &mut self,
        hop: Hop,
        datagram: &[u8],
        data: &'a [u8],
        segment: usize,
        now: Instant,
    ) -> Option<Delivery<'a>> {
        let id = self.peers.handle_data(hop, datagram.len(), &mut self.ctx, now)?;
        let delivery = Delivery { from: id, data, segment, path: Path::Direct(hop.to) };
        self.ctx.counters.data_received_direct += delivery.messages().count() as u64;
        Some(delivery)
    }

    fn handle_from_base<'a>(&mut self, message: FromBase<'a>, now: Instant) -> Option<Delivery<'a>> {
        if let FromBase::Data(delivery) = message {
            return self.deliver_relayed(delivery, now);
        }
        let relay = RelayView::of(&self.bases, now);
        match message {
            FromBase::Nothing | FromBase::Data(_) => {}
            FromBase::Registered => self.peers.handle_registered(&relay, &mut self.ctx, now),
            FromBase::Addresses(told) => self.peers.handle_addresses(told, &relay, &mut self.ctx, now),
            FromBase::Wanted(id) => self.peers.handle_wanted(id, &relay, &mut self.ctx, now),
            FromBase::Unreachable(id, reason) => self.peers.unreachable(id, reason, &mut self.ctx),
        }
        self.tick(now);
        None
    }

    fn deliver_relayed<'a>(&mut self, delivery: Delivery<'a>, now: Instant) -> Option<Delivery<'a>> {
        let from = delivery.from;
        if from == self.ctx.id || !self.ctx.allows(from) {
            self.ctx.counters.not_allowed += 1;
            return None;
        }
        self.peers.note_relayed(from, &self.ctx, now);
        if self.bases.has_come_back() {
            self.tick(now);
        }
        let counter = if delivery.path == Path::RelayUdp {
            &mut self.ctx.counters.data_received_relay_udp
        } else {
            &mut self.ctx.counters.data_received_relay_tcp
        };
        *counter += delivery.messages().count() as u64;
        Some(delivery)
    }

    /// Something came to the multicast group. Source, hop limit and length are checked here.
    pub fn handle_announcement(&mut self, from: SocketAddr, hop_limit: u8, payload: &[u8], now: Instant) {
        if self.closed {
            return;
        }
        if let Some(id) = self.peers.link.handle(canonical(from), hop_limit, payload, &mut self.ctx, now) {
            let relay = RelayView::of(&self.bases, now);
            self.peers.handle_announced(id, &relay, &mut self.ctx, now);
        }
        self.tick(now);
    }

    /// The system refused to send a datagram (unreachable, too large, address gone).
    pub fn handle_send_error(&mut self, hop: Hop, error: &std::io::Error, now: Instant) {
        let too_large = is_too_large(error);
        if self.bases.is_base(hop.to) {
            self.bases.handle_send_error(hop.to, too_large);
        } else {
            let relay = RelayView::of(&self.bases, now);
            self.peers.handle_send_error(hop, &error.to_string(), too_large, &relay, &mut self.ctx, now);
        }
        self.tick(now);
    }

    /// The router has mapped this port outside to the main socket, or does so no longer. It is told to others once the base has
    /// shown that it leads here.
    pub fn handle_port_mapping(&mut self, outside: Option<SocketAddr>, now: Instant) {
        if !self.closed {
            let outside = outside.map(canonical).filter(|&address| candidate::names_a_place(address));
            self.bases.handle_port_mapping(outside, &mut self.ctx, now);
            self.tick(now);
        }
    }

    /// The network has this NAT64, or none. It counts while no interface has a default route for IPv4.
    pub fn handle_nat64(&mut self, nat64: Option<Nat64>, now: Instant) {
        if self.closed || self.ctx.locals.nat64() == nat64 {
            return;
        }
        let network = self.ctx.locals.network().clone();
        self.ctx.locals = Locals::new(network, nat64);
        self.bases.handle_ways_changed(&self.ctx, now);
        let relay = RelayView::of(&self.bases, now);
        self.peers.handle_network(Change::Near, &relay, &mut self.ctx, now);
        self.tick(now);
    }

    /// A socket that was to be opened cannot be had.
    pub fn handle_socket_failed(&mut self, socket: SocketId, now: Instant) {
        self.peers.handle_socket_failed(socket, &mut self.ctx);
        self.tick(now);
    }

    /// A message was dropped because the data queue towards the base was full.
    pub fn handle_relay_overflow(&mut self, peer: DeviceId, _now: Instant) {
        self.ctx.counters.output_dropped += 1;
        self.peers.unreachable(peer, crate::wire::tcp::UnreachableReason::QueueFull, &mut self.ctx);
    }

    /// The moment of the last [`Output::Timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
    }

    fn tick(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        self.bases.tick(&mut self.ctx, now);
        if self.bases.take_came_back(&mut self.ctx, now) {
            self.peers.handle_came_back(now);
        }
        let relay = RelayView::of(&self.bases, now);
        if relay.path != self.relay_path {
            self.relay_path = relay.path;
            self.peers.report_all(&relay, "the relay has changed", &mut self.ctx, now);
        }
        if self.peers.tick(&relay, &mut self.ctx, now) {
            self.bases.handle_path_silent(now);
        }
    }

    // --- What the user wants -----------------------------------------------------------------------------------------

    /// Where a message of `length` bytes to `peer` goes, now. It counts as sent: paths are watched and direct ones
    /// attempted accordingly.
    ///
    /// # Errors
    /// When there is no way; the error names the limit that was exceeded. A direct path is attempted nevertheless.
    pub fn route(&mut self, peer: DeviceId, length: usize, now: Instant) -> Result<Route, SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        if length > MAX_DATA {
            return Err(SendError::TooLarge { length, limit: MAX_DATA });
        }
        if peer == self.ctx.id {
            return Ok(Route::Local);
        }
        let relay = RelayView::of(&self.bases, now);
        // A peer too many is not looked for; the relay carries what goes to it.
        let (direct, too_many) = match self.peers.direct_route(peer, length, &relay, &mut self.ctx, now) {
            Ok(direct) => (direct, None),
            Err(too_many) => (None, Some(too_many)),
        };
        let route = match direct {
            Some((hop, false)) => Route::Direct(hop),
            Some((hop, true)) => match self.relay_route(length, now) {
                Some(relay) => Route::Both(self.peers.early(peer, length, now).unwrap_or(hop), relay),
                None => Route::Direct(hop),
            },
            None => match self.relay_route(length, now) {
                Some(Relay::Udp(hop)) => Route::RelayUdp(hop),
                Some(Relay::Tcp(conn)) => Route::RelayTcp(conn),
                // The relay is there, but not for a message of this size: a size that any path should carry is tried.
                None => match self.peers.direct_alone(peer, length, now) {
                    Some(hop) => Route::Direct(hop),
                    None => return Err(too_many.unwrap_or_else(|| self.no_way(peer, length))),
                },
            },
        };
        self.note_sent(&route, now);
        Ok(route)
    }

    fn relay_route(&mut self, length: usize, now: Instant) -> Option<Relay> {
        if let Some(session) = self.bases.lingering_mut() {
            return session.bindings.route(length, now).map(Relay::Udp);
        }
        if self.bases.session().is_none() {
            self.bases.note_wanted(&mut self.ctx, now);
        }
        let session = self.bases.session_mut()?;
        if let Some(hop) = session.bindings.route(length, now) {
            return Some(Relay::Udp(hop));
        }
        session.note_tcp_data(now);
        Some(Relay::Tcp(session.conn))
    }

    fn no_way(&self, peer: DeviceId, length: usize) -> SendError {
        if let Some(limit) = self.max_direct(peer) {
            SendError::TooLarge { length, limit: limit.max(ANY_PATH_DATA) }
        } else if self.bases.any_configured() || self.peers.get(peer).is_some_and(|p| p.pair_count() > 0) {
            SendError::NoBase
        } else {
            SendError::UnknownDevice
        }
    }

    fn note_sent(&mut self, route: &Route, now: Instant) {
        if matches!(route, Route::RelayUdp(_) | Route::Both(_, Relay::Udp(_))) {
            self.relayed_over_udp = Some(now);
        }
        let counters = &mut self.ctx.counters;
        match route {
            Route::Direct(_) => counters.data_sent_direct += 1,
            Route::RelayUdp(_) => counters.data_sent_relay_udp += 1,
            Route::RelayTcp(_) => counters.data_sent_relay_tcp += 1,
            Route::Both(_, Relay::Udp(_)) => {
                counters.data_sent_direct += 1;
                counters.data_sent_relay_udp += 1;
            }
            Route::Both(_, Relay::Tcp(_)) => {
                counters.data_sent_direct += 1;
                counters.data_sent_relay_tcp += 1;
            }
            Route::Local => {}
        }
    }

    /// How long a datagram of joined messages to a peer may be that goes over UDP through the base
    /// ([`crate::wire::relay::joined_header`]), if both take them.
    #[must_use]
    pub fn joined_relay(&self, peer: DeviceId, now: Instant) -> Option<usize> {
        // Over one that lingers a base could not say that the peer no longer takes them.
        let session = self.bases.session()?;
        let limit = session.bindings.limit(now).filter(|_| session.hello.takes_joined())?;
        self.peers.get(peer)?.takes_joined_relayed.then_some(HEADER_LEN + limit)
    }

    /// The direct path to a peer as something to be used without asking again, if one stands that is above suspicion.
    /// From now on [`Host::poll_revoked`] tells once when it is no longer like this.
    pub fn lease(&mut self, peer: DeviceId) -> Option<Lease> {
        self.peers.lease(peer)
    }

    /// A peer whose lease is no longer as it was given out. To be asked after every call, until it has no more.
    pub fn poll_revoked(&mut self) -> Option<DeviceId> {
        self.peers.pop_revoked()
    }

    /// What a shell sent and received by a peer's lease. To be reported before any other call.
    pub fn handle_traffic(&mut self, peer: DeviceId, traffic: &Traffic) {
        self.ctx.counters.data_sent_direct += traffic.sent;
        self.ctx.counters.data_received_direct += traffic.received;
        self.peers.handle_traffic(peer, traffic);
    }

    /// Starts a direct path to a peer without sending it anything.
    ///
    /// # Errors
    /// When the host is closed, or has as many peers as fit.
    pub fn want(&mut self, peer: DeviceId, now: Instant) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        if peer != self.ctx.id {
            let relay = RelayView::of(&self.bases, now);
            self.peers.want(peer, &relay, &mut self.ctx, now)?;
            self.tick(now);
        }
        Ok(())
    }

    /// Allows direct paths, or forbids them, from now on. Allowed, they are sought at once to every peer in use;
    /// forbidden, standing ones are dropped and the base carries everything.
    pub fn set_direct(&mut self, on: bool, now: Instant) {
        if !self.closed && self.ctx.config.direct != on {
            self.ctx.config.direct = on;
            let relay = RelayView::of(&self.bases, now);
            self.peers.handle_direct_switched(&relay, &mut self.ctx, now);
            self.tick(now);
        }
    }

    /// Allows guessing the ports of symmetric NATs, or forbids it, from now on.
    pub fn set_guess_ports(&mut self, on: bool, now: Instant) {
        self.ctx.config.guess_ports = on;
        self.tick(now);
    }

    /// Allows UDP to the base, or forbids it, from now on. Allowed, NAT-INIT leaves at once; forbidden, the base's TCP
    /// carries everything that is relayed.
    pub fn set_relay_udp(&mut self, on: bool, now: Instant) {
        if !self.closed && self.ctx.config.relay_udp != on {
            self.ctx.config.relay_udp = on;
            if let Some(session) = self.bases.session_mut() {
                session.bindings.switch(on, now);
            }
            self.tick(now);
        }
    }

    /// How long to wait before [`Host::close`], so that LEAVE (over TCP) does not overtake the last message relayed over
    /// UDP: the base forgets this device at once, and drops what comes from it after that.
    #[must_use]
    pub fn parting(&self, now: Instant) -> Duration {
        let (Some(sent), Some(session)) = (self.relayed_over_udp, self.bases.session()) else {
            return Duration::ZERO;
        };
        let status = session.status();
        let round_trips = status.udp.iter().map(|binding| binding.rtt).chain([status.rtt]);
        let slowest = round_trips.flatten().max().unwrap_or_default();
        (sent + slowest.clamp(config::PARTING.0, config::PARTING.1)).saturating_duration_since(now)
    }

    /// Leaves: the base forgets this device at once. Everything after this is refused.
    pub fn close(&mut self, _now: Instant) {
        if !self.closed {
            self.closed = true;
            self.bases.close(&mut self.ctx);
            self.peers.clear();
        }
    }

    // --- What is to be done ------------------------------------------------------------------------------------------

    /// What the shell has to do next.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        if let Some(output) = self.ctx.pop() {
            return output;
        }
        let deadline = earlier(self.bases.deadline(now), self.peers.deadline());
        Output::Timeout(deadline.filter(|_| !self.closed))
    }
}
