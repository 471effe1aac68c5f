//! A node's network stack: interfaces, routes, the choice of a source address, UDP ports, TCP sockets.
//!
//! It turns what a shell wants to send into packets on a net, and packets into what a shell hears. It is the kernel
//! of a simulated machine: it lives on when the program on it crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{
    fabric::{NetId, is_link_local, scoped},
    packet::{Body, NodeId, Packet, Time},
    tcp::{Kind, Segment, Socket, TcpEvent},
    trace::Trace,
};

/// An interface of a node.
#[derive(Debug, Clone)]
pub struct Iface {
    /// Its number, the scope of its link-local addresses.
    pub index: u32,
    /// The net it is on.
    pub net: NetId,
    /// Its addresses with the length of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether it multicasts.
    pub multicast: bool,
}

/// A TCP socket of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SockId(pub u64);

/// Packets to be put on nets.
pub type Emitted = Vec<(NetId, Packet)>;

/// What a node's shell and stack need of the world.
pub struct Env<'a> {
    /// The moment.
    pub now: Time,
    /// The machines' idea of the moment at which the world began.
    pub origin: Instant,
    /// The node's randomness.
    pub rng: &'a mut ChaCha8Rng,
    /// The diagram.
    pub trace: &'a mut Trace,
    /// Packets to send.
    pub emitted: &'a mut Emitted,
}

impl Env<'_> {
    /// The moment as machines want it.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.origin + self.now
    }
}

/// A network stack.
#[derive(Debug)]
pub struct Stack {
    node: NodeId,
    /// Its interfaces; the first one that can leads everywhere.
    pub ifaces: Vec<Iface>,
    /// TCP ports that accept.
    pub listening: BTreeSet<u16>,
    sockets: BTreeMap<SockId, Socket>,
    next_socket: u64,
    next_port: u16,
}

/// The range of ports for outgoing TCP connections (Linux's default).
const FIRST_EPHEMERAL_PORT: u16 = 32_768;
const LAST_EPHEMERAL_PORT: u16 = 60_999;

impl Stack {
    /// A stack without interfaces.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            ifaces: Vec::new(),
            listening: BTreeSet::new(),
            sockets: BTreeMap::new(),
            next_socket: 0,
            next_port: FIRST_EPHEMERAL_PORT + node.0 as u16 * 100,
        }
    }

    /// Whether one of its interfaces has this address.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.ifaces.iter().any(|iface| iface.addresses.iter().any(|a| a.0 == ip))
    }

    /// The interface and source address for a destination.
    fn route(&self, source: Option<IpAddr>, to: SocketAddr) -> io::Result<(&Iface, IpAddr)> {
        if let Some(source) = source {
            let iface = self.ifaces.iter().find(|i| i.addresses.iter().any(|a| a.0 == source));
            return match iface {
                Some(iface) if source.is_ipv4() == to.is_ipv4() => Ok((iface, source)),
                _ => Err(io::ErrorKind::AddrNotAvailable.into()),
            };
        }
        let scope = if let SocketAddr::V6(v6) = to { v6.scope_id() } else { 0 };
        let link_local = is_link_local(to.ip());
        self.ifaces
            .iter()
            .filter(|iface| !link_local || iface.index == scope)
            .find_map(|iface| {
                let fits = |ip: IpAddr| ip.is_ipv4() == to.is_ipv4() && is_link_local(ip) == link_local;
                let source = iface.addresses.iter().map(|a| a.0).find(|&ip| fits(ip))?;
                Some((iface, source))
            })
            .ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    /// Sends a datagram from a port.
    ///
    /// # Errors
    /// As a system would: no route, no such source address, too large for the interface.
    pub fn send_udp(
        &self,
        source: Option<IpAddr>,
        port: u16,
        to: SocketAddr,
        payload: Bytes,
        env: &mut Env<'_>,
    ) -> io::Result<()> {
        let (iface, source) = self.route(source, to)?;
        let src = SocketAddr::new(source, port);
        let mut packet =
            Packet { src, dst: to, body: Body::Udp(payload.clone()), origin: Some(self.node), line: 0 };
        // Ethernet, or what passes for it: its own MTU is the only one a system knows beforehand.
        const INTERFACE_MTU: usize = 1_500;
        if packet.length() > INTERFACE_MTU {
            return Err(io::Error::other("message too long"));
        }
        packet.line = env.trace.datagram(env.now, Some(self.node), src, to, &payload);
        packet.dst = SocketAddr::new(to.ip(), to.port());
        env.emitted.push((iface.net, packet));
        Ok(())
    }

    /// Begins a TCP connection.
    ///
    /// # Errors
    /// When there is no route.
    pub fn connect(
        &mut self,
        source: Option<IpAddr>,
        to: SocketAddr,
        env: &mut Env<'_>,
    ) -> io::Result<SockId> {
        let (_, source) = self.route(source, to)?;
        let local = SocketAddr::new(source, self.next_port);
        self.next_port =
            if self.next_port >= LAST_EPHEMERAL_PORT { FIRST_EPHEMERAL_PORT } else { self.next_port + 1 };
        let mut out = Vec::new();
        let socket = Socket::connect(local, to, env.rng.random(), env.now, &mut out);
        let id = self.insert(socket);
        self.emit(local, to, out, env);
        Ok(id)
    }

    fn insert(&mut self, socket: Socket) -> SockId {
        let id = SockId(self.next_socket);
        self.next_socket += 1;
        self.sockets.insert(id, socket);
        id
    }

    /// The two ends of a socket, the own one first.
    #[must_use]
    pub fn ends(&self, id: SockId) -> Option<(SocketAddr, SocketAddr)> {
        self.sockets.get(&id).map(|socket| (socket.local, socket.remote))
    }

    /// Bytes that a socket has not yet got across.
    #[must_use]
    pub fn backlog(&self, id: SockId) -> usize {
        self.sockets.get(&id).map_or(0, Socket::backlog)
    }

    /// The streams it has, to any address.
    pub fn streams(&self) -> impl Iterator<Item = (SockId, u64)> {
        self.sockets.iter().map(|(&id, socket)| (id, socket.conn()))
    }

    /// Sockets whose program has not let go of them.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.sockets.values().filter(|s| !s.is_orphan()).count()
    }

    /// Appends bytes to a stream.
    pub fn write(&mut self, id: SockId, bytes: &[u8], env: &mut Env<'_>) {
        self.with(id, env, |socket, now, out| socket.write(bytes, now, out));
    }

    /// Closes a stream once everything has been sent.
    pub fn close(&mut self, id: SockId, env: &mut Env<'_>) {
        self.with(id, env, Socket::close);
    }

    /// Resets a stream.
    pub fn reset(&mut self, id: SockId, env: &mut Env<'_>) {
        self.with(id, env, |socket, _, out| socket.reset(out));
    }

    /// Resets all streams, as when a program dies with unread data; with `silently` nobody is told (the power went).
    pub fn reset_all(&mut self, silently: bool, env: &mut Env<'_>) {
        if !silently {
            for id in self.sockets.keys().copied().collect::<Vec<_>>() {
                self.reset(id, env);
            }
        }
        self.sockets.clear();
    }

    fn with(&mut self, id: SockId, env: &mut Env<'_>, f: impl FnOnce(&mut Socket, Time, &mut Vec<Segment>)) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let mut out = Vec::new();
        f(socket, env.now, &mut out);
        let (local, remote, done) = (socket.local, socket.remote, socket.is_done());
        if done {
            self.sockets.remove(&id);
        }
        self.emit(local, remote, out, env);
    }

    /// A segment came in.
    pub fn on_segment(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        segment: &Segment,
        env: &mut Env<'_>,
    ) -> Vec<(SockId, TcpEvent)> {
        let known = self
            .sockets
            .iter_mut()
            .find(|(_, s)| s.local == local && s.remote == remote && s.conn() == segment.conn);
        let mut out = Vec::new();
        let mut events = Vec::new();
        let mut told = Vec::new();
        match known {
            Some((&id, socket)) => {
                socket.on_segment(segment, env.now, &mut out, &mut events);
                if socket.is_done() {
                    self.sockets.remove(&id);
                }
                told = events.into_iter().map(|event| (id, event)).collect();
            }
            None if segment.kind == Kind::Syn && self.listening.contains(&local.port()) => {
                let socket = Socket::accept(local, remote, segment.conn, env.now, &mut out);
                self.insert(socket);
            }
            None if segment.kind == Kind::Rst => {}
            None => out.push(Segment {
                conn: segment.conn,
                kind: Kind::Rst,
                seq: segment.ack,
                ack: segment.seq,
                data: Bytes::new(),
            }),
        }
        self.emit(local, remote, out, env);
        told
    }

    /// The earliest moment at which [`Self::on_timer`] has work.
    #[must_use]
    pub fn timer(&self) -> Option<Time> {
        self.sockets.values().filter_map(Socket::timer).min()
    }

    /// Runs the timers that are due.
    pub fn on_timer(&mut self, env: &mut Env<'_>) -> Vec<(SockId, TcpEvent)> {
        let due: Vec<SockId> = self
            .sockets
            .iter()
            .filter(|(_, s)| s.timer().is_some_and(|at| at <= env.now))
            .map(|(&id, _)| id)
            .collect();
        let mut told = Vec::new();
        for id in due {
            let mut events = Vec::new();
            self.with(id, env, |socket, now, out| socket.on_timer(now, out, &mut events));
            told.extend(events.into_iter().map(|event| (id, event)));
        }
        told
    }

    /// Segments of a socket whose address is gone (the host roamed) go nowhere, as on a real system.
    fn emit(&self, local: SocketAddr, remote: SocketAddr, segments: Vec<Segment>, env: &mut Env<'_>) {
        let Some(iface) = self.ifaces.iter().find(|i| i.addresses.iter().any(|a| a.0 == local.ip())) else {
            return;
        };
        for segment in segments {
            let packet = Packet {
                src: local,
                dst: remote,
                body: Body::Tcp(segment),
                origin: Some(self.node),
                line: Trace::NO_LINE,
            };
            env.emitted.push((iface.net, packet));
        }
    }

    /// A received packet's source with the scope of the interface it came in by.
    #[must_use]
    pub fn scoped_source(&self, interface: u32, src: SocketAddr) -> SocketAddr {
        scoped(src.ip(), src.port(), interface)
    }
}
