//! A host of the world: the real machine, and the thinnest shell around it.
//!
//! It performs outputs and hands in what arrives, as the shell on Tokio does; what it adds is watching. It decides
//! nothing: where a message goes is the machine's answer.

mod sending;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bowline_proto::{
    DeviceId, SecretKey,
    host::{CloseReason, ConnId, Event, Hop, Host, HostConfig, Interface, Network, Output, Path, SocketId},
    wire::frame::Frames,
};
use bytes::Bytes;
use rand::RngExt;

use crate::{
    checks::{HostWatch, MAX_IMMEDIATE_TIMEOUTS, MAX_OUTPUTS},
    fabric::{NetId, is_link_local, scoped},
    packet::{NodeId, Time},
    stack::{Env, Iface, SockId, Stack},
    tcp::TcpEvent,
};

/// Bytes of messages that may wait for one TCP connection.
const DATA_QUEUE: usize = 64 * 1024;
/// Datagrams that the system keeps for a process that is stopped; more are lost.
const SOCKET_BUFFER: usize = 128;
/// Ports of further sockets.
const FIRST_SOCKET_PORT: u16 = 50_000;
const SOCKET_PORTS: u32 = 15_000;
/// Events kept for tests to look at.
const MAX_LOG: usize = 10_000;

/// A message that a machine handed out.
#[derive(Debug, Clone)]
pub struct Received {
    /// Who it says sent it.
    pub from: DeviceId,
    /// Its bytes.
    pub data: Vec<u8>,
    /// The way it came.
    pub path: Path,
}

/// What a node asks of the world beyond packets.
#[derive(Debug)]
pub enum Effect {
    /// Look up a name.
    Resolve {
        /// The base's position.
        base: usize,
        /// The name.
        host: String,
        /// The port to put in.
        port: u16,
    },
    /// Tell a net's members.
    Announce {
        /// The net.
        net: NetId,
        /// The link-local source.
        from: SocketAddr,
        /// The content.
        payload: Bytes,
    },
    /// A message came out.
    Received(Received),
    /// Something must not happen.
    Violation(String),
}

/// What the system keeps for a process that is stopped.
#[derive(Debug)]
enum Waiting {
    Datagram { interface: u32, dst: SocketAddr, src: SocketAddr, payload: Bytes },
    Tcp(SockId, TcpEvent),
}

#[derive(Debug)]
struct Conn {
    sock: SockId,
    frames: Frames,
}

/// A host.
#[derive(Debug)]
pub struct HostNode {
    /// Its number.
    pub node: NodeId,
    /// Its ID.
    pub id: DeviceId,
    /// Its network stack.
    pub stack: Stack,
    /// How its machine is set up, at the next start, too.
    pub config: HostConfig,
    /// Its UDP port, both families.
    pub port: u16,
    /// What its machine told the user.
    pub log: Vec<(Time, Event)>,
    /// What it sends and gets directly.
    pub watch: HostWatch,
    /// Bases' addresses: what goes there is not between peers.
    pub base_ips: Vec<IpAddr>,
    /// The most outputs that one input caused.
    pub most_outputs: usize,
    /// Datagrams sent to bases.
    pub to_bases: u64,
    /// Whether the last message that could travel as joined ones do did so.
    joins: bool,
    /// Whether it sleeps: nothing runs, nothing is received.
    pub asleep: bool,
    /// Whether its process is stopped: the system goes on and keeps what comes, as far as its buffers reach.
    pub frozen: bool,
    waiting: Vec<Waiting>,
    key: SecretKey,
    machine: Option<Host>,
    conns: BTreeMap<ConnId, Conn>,
    deadline: Option<Instant>,
    effects: Vec<Effect>,
    /// Ports of the sockets that its machine had opened.
    sockets: BTreeMap<SocketId, u16>,
}

impl HostNode {
    /// A host that does not run yet.
    #[must_use]
    pub fn new(node: NodeId, key: SecretKey, config: HostConfig, port: u16, stack: Stack) -> Self {
        Self {
            node,
            id: key.device_id(),
            stack,
            config,
            port,
            log: Vec::new(),
            watch: HostWatch::default(),
            base_ips: Vec::new(),
            most_outputs: 0,
            to_bases: 0,
            joins: false,
            asleep: false,
            frozen: false,
            waiting: Vec::new(),
            key,
            machine: None,
            conns: BTreeMap::new(),
            deadline: None,
            effects: Vec::new(),
            sockets: BTreeMap::new(),
        }
    }

    /// The program starts.
    pub fn start(&mut self, env: &mut Env<'_>) {
        let seed: [u8; 32] = env.rng.random();
        self.watch.begin_anew();
        let mut machine = Host::new(self.config.clone(), self.key.clone(), seed, env.instant());
        machine.handle_network(self.network(), env.instant());
        self.machine = Some(machine);
        self.drain(env);
    }

    /// The program dies: its connections are closed by the system.
    pub fn crash(&mut self, env: &mut Env<'_>) {
        self.machine = None;
        self.deadline = None;
        self.conns.clear();
        self.sockets.clear();
        self.waiting.clear();
        self.stack.reset_all(false, env);
    }

    /// Whether its program can act.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        !self.asleep && !self.frozen
    }

    /// The process runs on: what came meanwhile is read now, and what changed is noticed.
    pub fn thaw(&mut self, env: &mut Env<'_>) {
        self.frozen = false;
        self.network_changed(env);
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Datagram { interface, dst, src, payload } => {
                    self.on_datagram(interface, dst, src, &payload, env);
                }
                Waiting::Tcp(sock, event) => self.on_tcp(vec![(sock, event)], env),
            }
        }
        self.on_wake(env);
    }

    /// Bytes leave on its connections to bases that its machine did not write.
    pub fn write_beside(&mut self, frames: &[u8], env: &mut Env<'_>) {
        let socks: Vec<SockId> = self.conns.values().map(|conn| conn.sock).collect();
        for sock in socks {
            if self.stack.backlog(sock) <= DATA_QUEUE {
                self.write(sock, frames, env);
            }
        }
    }

    /// All its connections are reset, by somebody in between: both ends hear of it.
    pub fn reset_connections(&mut self, env: &mut Env<'_>) {
        let socks: Vec<SockId> = self.conns.values().map(|conn| conn.sock).collect();
        for sock in socks {
            self.stack.reset(sock, env);
            self.on_tcp(vec![(sock, TcpEvent::Closed("reset"))], env);
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The machine, while the program runs.
    #[must_use]
    pub fn machine(&self) -> Option<&Host> {
        self.machine.as_ref()
    }

    /// Does something with the machine, then performs what it asks for.
    pub fn with<T>(&mut self, env: &mut Env<'_>, f: impl FnOnce(&mut Host, Instant) -> T) -> Option<T> {
        let result = f(self.machine.as_mut()?, env.instant());
        self.drain(env);
        Some(result)
    }

    /// What the world has to do for it.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When it has to be woken.
    #[must_use]
    pub fn wake_at(&self, origin: Instant) -> Option<Time> {
        let machine = self.deadline.filter(|_| !self.frozen).map(|at| at.saturating_duration_since(origin));
        [machine, self.stack.timer()].into_iter().flatten().min()
    }

    /// The network as the machine is to see it.
    #[must_use]
    pub fn network(&self) -> Network {
        let routable = |iface: &Iface, v4: bool| {
            iface.addresses.iter().any(|(ip, _)| ip.is_ipv4() == v4 && !is_link_local(*ip))
        };
        let is_first = |iface: &Iface, v4: bool| {
            self.stack.ifaces.iter().find(|i| routable(i, v4)).is_some_and(|first| first.index == iface.index)
        };
        let interfaces = self.stack.ifaces.iter().map(|iface| Interface {
            index: iface.index,
            name: format!("eth{}", iface.index),
            loopback: false,
            multicast: iface.multicast,
            default_v4: routable(iface, true),
            default_v6: routable(iface, false),
            preferred: is_first(iface, true) || is_first(iface, false),
            addresses: iface.addresses.clone(),
            routes: Vec::new(),
        });
        Network { interfaces: interfaces.collect(), port_v4: Some(self.port), port_v6: Some(self.port) }
    }

    /// The system reports that the network changed.
    pub fn network_changed(&mut self, env: &mut Env<'_>) {
        let network = self.network();
        self.with(env, |machine, now| machine.handle_network(network, now));
    }

    /// A datagram came in.
    pub fn on_datagram(
        &mut self,
        interface: u32,
        dst: SocketAddr,
        src: SocketAddr,
        payload: &[u8],
        env: &mut Env<'_>,
    ) {
        let Some(socket) = self.socket_at(dst.port()) else { return };
        if self.frozen {
            let kept = self.waiting.iter().filter(|w| matches!(w, Waiting::Datagram { .. })).count();
            if kept < SOCKET_BUFFER {
                let payload = Bytes::copy_from_slice(payload);
                self.waiting.push(Waiting::Datagram { interface, dst, src, payload });
            }
            return;
        }
        let src = scoped(src.ip(), src.port(), interface);
        if !self.base_ips.contains(&src.ip()) {
            self.watch.incoming(src, payload, env.now);
        }
        let Some(machine) = self.machine.as_mut() else { return };
        let delivery = machine.handle_datagram_on(socket, Some(dst.ip()), src, payload, env.instant());
        if let Some(d) = delivery {
            let received = |data: &[u8]| Received { from: d.from, data: data.to_vec(), path: d.path };
            self.effects.extend(d.messages().map(|data| Effect::Received(received(data))));
        }
        self.drain(env);
    }

    fn socket_at(&self, port: u16) -> Option<SocketId> {
        if port == self.port {
            return Some(SocketId::MAIN);
        }
        self.sockets.iter().find(|(_, open)| **open == port).map(|(&socket, _)| socket)
    }

    /// An announcement was heard.
    pub fn on_announcement(&mut self, from: SocketAddr, hop_limit: u8, payload: &[u8], env: &mut Env<'_>) {
        self.with(env, |machine, now| machine.handle_announcement(from, hop_limit, payload, now));
    }

    /// A name was looked up.
    pub fn on_resolved(&mut self, base: usize, result: Result<Vec<SocketAddr>, String>, env: &mut Env<'_>) {
        self.with(env, |machine, now| machine.handle_resolved(base, result, now));
    }

    /// The stack has news of TCP connections.
    pub fn on_tcp(&mut self, events: Vec<(SockId, TcpEvent)>, env: &mut Env<'_>) {
        if self.frozen {
            self.waiting.extend(events.into_iter().map(|(sock, event)| Waiting::Tcp(sock, event)));
            return;
        }
        for (sock, event) in events {
            let conn = self.conns.iter().find(|(_, c)| c.sock == sock).map(|(&id, _)| id);
            let (Some(conn), Some(machine)) = (conn, self.machine.as_mut()) else { continue };
            match event {
                TcpEvent::Accepted => {}
                TcpEvent::Connected => machine.handle_connected(conn, env.instant()),
                TcpEvent::Data(bytes) => self.on_stream(conn, &bytes, env),
                TcpEvent::Refused(why) => {
                    self.conns.remove(&conn);
                    machine.handle_closed(conn, CloseReason::Refused(why.to_owned()), env.instant());
                }
                TcpEvent::Closed(why) => {
                    self.conns.remove(&conn);
                    machine.handle_closed(conn, CloseReason::Lost(why.to_owned()), env.instant());
                }
            }
            self.drain(env);
        }
    }

    fn on_stream(&mut self, conn: ConnId, bytes: &[u8], env: &mut Env<'_>) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.frames.buffer().extend_from_slice(bytes);
        }
        // The machine may close the connection at any frame.
        while let Some(c) = self.conns.get_mut(&conn) {
            let Some(machine) = self.machine.as_mut() else { return };
            match c.frames.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    let delivery = machine.handle_frame(conn, &frame, env.instant());
                    if let Some(d) = delivery {
                        let received = Received { from: d.from, data: d.data.to_vec(), path: d.path };
                        self.effects.push(Effect::Received(received));
                    }
                    self.drain(env);
                }
                Err(why) => {
                    let sock = c.sock;
                    self.conns.remove(&conn);
                    self.stack.close(sock, env);
                    machine.handle_closed(conn, CloseReason::Malformed(why), env.instant());
                    self.drain(env);
                    return;
                }
            }
        }
    }

    /// A moment that it asked for has come.
    pub fn on_wake(&mut self, env: &mut Env<'_>) {
        let events = self.stack.on_timer(env);
        self.on_tcp(events, env);
        if !self.frozen && self.deadline.is_some_and(|at| at <= env.instant()) {
            self.with(env, Host::handle_timeout);
        }
    }

    fn drain(&mut self, env: &mut Env<'_>) {
        let mut outputs = 0;
        let mut immediate = 0;
        loop {
            let Some(machine) = self.machine.as_mut() else { return };
            match machine.poll_output(env.instant()) {
                Output::Timeout(at) => {
                    self.deadline = at;
                    if at.is_none_or(|at| at > env.instant()) {
                        break;
                    }
                    immediate += 1;
                    if immediate > MAX_IMMEDIATE_TIMEOUTS {
                        let what = "the host's timer asks for the present moment again and again";
                        self.effects.push(Effect::Violation(what.to_owned()));
                        self.deadline = Some(env.instant() + std::time::Duration::from_millis(1));
                        break;
                    }
                    machine.handle_timeout(env.instant());
                }
                output => {
                    outputs += 1;
                    self.perform(output, env);
                    if outputs > MAX_OUTPUTS {
                        let what = format!("more than {MAX_OUTPUTS} outputs for one input");
                        self.effects.push(Effect::Violation(what));
                        break;
                    }
                }
            }
        }
        self.most_outputs = self.most_outputs.max(outputs);
    }

    fn perform(&mut self, output: Output, env: &mut Env<'_>) {
        match output {
            Output::Transmit { socket, source, to, payload } => {
                self.transmit(Hop { socket, source, to }, payload, env);
            }
            Output::OpenSocket(socket) => {
                let port = FIRST_SOCKET_PORT + (socket.0 % SOCKET_PORTS) as u16;
                if self.sockets.insert(socket, port).is_some() || self.socket_at(port) != Some(socket) {
                    self.effects.push(Effect::Violation(format!("{socket:?} is opened twice")));
                }
            }
            Output::CloseSocket(socket) => {
                if self.sockets.remove(&socket).is_none() {
                    self.effects.push(Effect::Violation(format!("{socket:?} is closed, and is not open")));
                }
            }
            // There are no routers here that could be asked.
            Output::RenewMapping => {}
            Output::Announce { interface, payload } => self.announce(interface, payload),
            Output::Resolve { base, host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => {
                    let result = Ok(vec![SocketAddr::new(ip, port)]);
                    self.machine.as_mut().map(|m| m.handle_resolved(base, result, env.instant()));
                }
                Err(_) => self.effects.push(Effect::Resolve { base, host, port }),
            },
            Output::Connect { conn, source, to } => match self.stack.connect(source, to, env) {
                Ok(sock) => {
                    self.conns.insert(conn, Conn { sock, frames: Frames::default() });
                }
                Err(error) => {
                    let why = CloseReason::Refused(error.to_string());
                    self.machine.as_mut().map(|m| m.handle_closed(conn, why, env.instant()));
                }
            },
            Output::Write { conn, frames } => match self.conns.get(&conn).map(|c| c.sock) {
                Some(sock) => self.write(sock, &frames, env),
                None => {
                    self.effects.push(Effect::Violation(format!("a write to {conn:?}, which is closed")));
                }
            },
            Output::Close { conn } => {
                if let Some(conn) = self.conns.remove(&conn) {
                    self.stack.close(conn.sock, env);
                }
            }
            Output::Event(event) => {
                env.trace.note(env.now, Some(self.node), format!("{event:?}"));
                if self.log.len() < MAX_LOG {
                    self.log.push((env.now, event));
                }
            }
            Output::Timeout(_) => unreachable!("the caller has looked at it"),
        }
    }

    fn announce(&mut self, interface: u32, payload: Bytes) {
        let Some(iface) = self.stack.ifaces.iter().find(|i| i.index == interface && i.multicast) else {
            return;
        };
        let Some(ip) = iface.addresses.iter().map(|a| a.0).find(|ip| is_link_local(*ip)) else { return };
        self.effects.push(Effect::Announce { net: iface.net, from: SocketAddr::new(ip, self.port), payload });
    }
}

/// The frames of a buffer that holds whole ones, for the diagram.
pub(crate) fn split_frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (frame, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        bytes = rest;
        Some(frame)
    })
}
