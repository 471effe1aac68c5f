//! A base server of the world: the real machine, and the thinnest shell around it.
//!
//! Two UDP sockets a family and one TCP listener, as a base has them. It performs outputs and forwards, with the bounded
//! queues that a shell has; everything else is the machine's.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use bowline_proto::{
    DeviceId,
    base::{
        Base, BaseConfig, ClusterConfig, ConnId, Forward, Output, Over, SocketId, Speaker, Step, Ticket,
        ToBase, UdpAddress, Via,
    },
    wire::{
        cluster::{BASE_DATA, BASE_PING, BASE_PONG},
        frame::Frames,
        tcp::BaseFrame,
    },
};
use bytes::Bytes;
use rand::RngExt;

use crate::{
    bus::{Heard, Said},
    checks::{BaseWatch, MAX_IMMEDIATE_TIMEOUTS, MAX_OUTPUTS},
    fabric::is_link_local,
    host_node::split_frames,
    packet::{NodeId, Time},
    stack::{Env, SockId, Stack},
    tcp::TcpEvent,
};

/// Where bases listen (protocol section 3): TCP and UDP, and a second UDP port.
pub const PORT: u16 = 4477;
/// The second UDP port.
pub const SECOND_PORT: u16 = 4479;
/// Bytes of relayed messages that may wait for one connection; messages beyond are dropped.
const DATA_QUEUE: usize = 64 * 1024;
/// Bytes of all kinds that may wait for one connection; it is closed beyond.
const CONTROL_QUEUE: usize = 512 * 1024;

#[derive(Debug)]
struct Conn {
    sock: SockId,
    frames: Frames,
    /// Every other connection is read by somebody who does what he can without the machine, as in a server.
    speaker: Option<Arc<Speaker>>,
}

/// A base.
#[derive(Debug)]
pub struct BaseNode {
    /// Its number.
    pub node: NodeId,
    /// Its ID.
    pub id: DeviceId,
    /// Its network stack.
    pub stack: Stack,
    /// Its limits, at the next start, too.
    pub config: BaseConfig,
    /// Its UDP sockets, by number: address and port.
    pub sockets: Vec<SocketAddr>,
    /// The process is stopped: the system still accepts and acknowledges, nobody answers.
    pub frozen: bool,
    /// What addresses gave and got.
    pub watch: BaseWatch,
    /// The cluster that it is a part of, and whether data between its bases may take UDP.
    pub cluster: Option<(DeviceId, bool)>,
    /// The most outputs that one input caused.
    pub most_outputs: usize,
    machine: Option<Base>,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    deadline: Option<Instant>,
    waiting: Vec<(SockId, TcpEvent)>,
    waiting_on_bus: Vec<Heard>,
    said: Vec<Said>,
    violations: Vec<String>,
}

impl BaseNode {
    /// A base that does not run yet.
    #[must_use]
    pub fn new(node: NodeId, id: DeviceId, stack: Stack) -> Self {
        let ips = stack.ifaces.iter().flat_map(|iface| iface.addresses.iter().map(|a| a.0));
        let sockets = ips
            .filter(|ip| !is_link_local(*ip))
            .flat_map(|ip| [PORT, SECOND_PORT].map(|port| SocketAddr::new(ip, port)))
            .collect();
        Self {
            node,
            id,
            stack,
            config: BaseConfig::default(),
            sockets,
            frozen: false,
            watch: BaseWatch::default(),
            cluster: None,
            most_outputs: 0,
            machine: None,
            conns: BTreeMap::new(),
            next_conn: 0,
            deadline: None,
            waiting: Vec::new(),
            waiting_on_bus: Vec::new(),
            said: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// The program starts.
    pub fn start(&mut self, env: &mut Env<'_>) {
        let seed: [u8; 32] = env.rng.random();
        let mut machine = Base::new(self.config.clone(), self.id, seed, env.instant());
        if let Some((cluster, over_udp)) = self.cluster {
            let udp = if over_udp { self.udp_addresses() } else { Vec::new() };
            machine.join(ClusterConfig { cluster, udp }, env.instant());
        }
        self.machine = Some(machine);
        self.stack.listening.insert(PORT);
        self.watch = BaseWatch::default();
        self.drain(env);
    }

    /// The program dies (or with `silently`, its whole machine does).
    pub fn crash(&mut self, silently: bool, env: &mut Env<'_>) {
        self.machine = None;
        self.deadline = None;
        self.conns.clear();
        self.waiting.clear();
        self.waiting_on_bus.clear();
        self.said.clear();
        self.stack.listening.clear();
        self.stack.reset_all(silently, env);
    }

    fn udp_addresses(&self) -> Vec<UdpAddress> {
        let sockets = (0..).zip(&self.sockets);
        let sockets = sockets.map(|(socket, &address)| UdpAddress { address, socket: SocketId(socket) });
        sockets.filter(|udp| udp.address.port() == PORT).collect()
    }

    /// What it has said on the bus.
    pub fn take_said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// Something came from store or bus.
    pub fn on_bus(&mut self, heard: Heard, env: &mut Env<'_>) {
        if self.frozen {
            self.waiting_on_bus.push(heard);
            return;
        }
        let Some(machine) = self.machine.as_mut() else { return };
        match (heard.input(), &heard) {
            (Some(input), _) => machine.handle_bus(input, env.instant()),
            (None, Heard::Data(came, bytes)) => {
                let forward = machine.handle_base_data(*came, bytes, env.instant());
                self.forward(forward, Base::message_of(bytes).to_vec(), env);
            }
            (None, _) => {}
        }
        self.drain(env);
    }

    /// The machine, while the program runs.
    #[must_use]
    pub fn machine(&self) -> Option<&Base> {
        self.machine.as_ref()
    }

    /// Whether the program runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.machine.is_some()
    }

    /// TCP connections that stand.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// The process runs on; what came meanwhile is read now.
    pub fn thaw(&mut self, env: &mut Env<'_>) {
        self.frozen = false;
        let waiting = std::mem::take(&mut self.waiting);
        self.on_tcp(waiting, env);
        for heard in std::mem::take(&mut self.waiting_on_bus) {
            self.on_bus(heard, env);
        }
        self.on_wake(env);
    }

    /// Does something with the machine, then performs what it asks for.
    pub fn with<T>(&mut self, env: &mut Env<'_>, f: impl FnOnce(&mut Base, Instant) -> T) -> Option<T> {
        let result = f(self.machine.as_mut()?, env.instant());
        self.drain(env);
        Some(result)
    }

    /// What must not happen and did.
    pub fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// When it has to be woken.
    #[must_use]
    pub fn wake_at(&self, origin: Instant) -> Option<Time> {
        let machine = self.deadline.filter(|_| !self.frozen).map(|at| at.saturating_duration_since(origin));
        [machine, self.stack.timer()].into_iter().flatten().min()
    }

    /// A datagram came in.
    pub fn on_datagram(&mut self, dst: SocketAddr, src: SocketAddr, payload: &[u8], env: &mut Env<'_>) {
        let Some(socket) = self.sockets.iter().position(|&address| address == dst) else { return };
        if self.frozen {
            return;
        }
        let Some(machine) = self.machine.as_mut() else { return };
        self.watch.incoming(src, payload, env.now);
        let via = Via { socket: SocketId(socket as u16), ip: Some(dst.ip()) };
        let mut datagram = payload.to_vec();
        let forward = machine.handle_datagram(via, src, &mut datagram, env.instant());
        if payload.first() == Some(&BASE_DATA) {
            datagram = Base::message_of(&datagram).to_vec();
        }
        self.forward(forward, datagram, env);
        self.drain(env);
    }

    /// The stack has news of TCP connections.
    pub fn on_tcp(&mut self, events: Vec<(SockId, TcpEvent)>, env: &mut Env<'_>) {
        if self.frozen {
            self.waiting.extend(events);
            return;
        }
        for (sock, event) in events {
            let known = self.conns.iter().find(|(_, c)| c.sock == sock).map(|(&id, _)| id);
            let Some(machine) = self.machine.as_mut() else { return };
            match (event, known) {
                (TcpEvent::Accepted, _) => {
                    let Some((_, remote)) = self.stack.ends(sock) else { continue };
                    let conn = ConnId(self.next_conn);
                    self.next_conn += 1;
                    // Both families: a host with both gets reflexive addresses in both.
                    let udp: Vec<UdpAddress> = (0..)
                        .zip(&self.sockets)
                        .map(|(socket, &address)| UdpAddress { address, socket: SocketId(socket) })
                        .collect();
                    let speaker = machine.handle_accepted(conn, remote, &udp, env.instant());
                    let speaker = Some(speaker).filter(|_| conn.0.is_multiple_of(2));
                    self.conns.insert(conn, Conn { sock, frames: Frames::default(), speaker });
                }
                (TcpEvent::Data(bytes), Some(conn)) => self.on_stream(conn, &bytes, env),
                (TcpEvent::Closed(_), Some(conn)) => {
                    self.conns.remove(&conn);
                    machine.handle_closed(conn, env.instant());
                }
                _ => {}
            }
            self.drain(env);
        }
    }

    fn on_stream(&mut self, conn: ConnId, bytes: &[u8], env: &mut Env<'_>) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.frames.buffer().extend_from_slice(bytes);
        }
        while let Some(c) = self.conns.get_mut(&conn) {
            let Some(machine) = self.machine.as_mut() else { return };
            match c.frames.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    let mut frame = frame.to_vec();
                    let step = c.speaker.as_ref().and_then(|speaker| {
                        let routes = machine.routes();
                        routes.talk(speaker, env.instant()).map(|mut talk| talk.judge(&mut frame))
                    });
                    let forward = match step {
                        None | Some(Step::Machine) => machine.handle_frame(conn, &mut frame, env.instant()),
                        Some(Step::Forward(forward)) => forward,
                        Some(Step::OverRate(Ticket { from, to })) => {
                            machine.handle_over_rate(from, to, 1, env.instant());
                            Forward::Nowhere
                        }
                        Some(Step::Pong(number)) => {
                            let (sock, mut pong) = (c.sock, Vec::new());
                            BaseFrame::Pong(number).write(&mut pong);
                            self.write(sock, &pong, env);
                            Forward::Nowhere
                        }
                    };
                    self.forward(forward, frame, env);
                    self.drain(env);
                }
                Err(why) => {
                    machine.handle_malformed(conn, why, env.instant());
                    self.drain(env);
                    return;
                }
            }
        }
    }

    fn forward(&mut self, forward: Forward, message: Vec<u8>, env: &mut Env<'_>) {
        match forward {
            Forward::Nowhere => {}
            Forward::Udp { via, to } => self.transmit(via, to, message.into(), env),
            Forward::Base(ToBase { prefix, over }) => {
                let message = [&prefix[..], &message].concat();
                match over {
                    Over::Udp { via, to } => self.transmit(via, to, message.into(), env),
                    Over::Bus(base) => self.said.push(Said::ToBase(base, message)),
                    Over::All => self.said.push(Said::ToAll(message)),
                }
            }
            Forward::Tcp { conn, ticket } => {
                let Some(sock) = self.conns.get(&conn).map(|c| c.sock) else {
                    self.violations.push(format!("a message is forwarded to {conn:?}, which is closed"));
                    return;
                };
                if self.stack.backlog(sock) > DATA_QUEUE {
                    self.machine.as_mut().map(|m| m.handle_overflow(ticket, 1, env.instant()));
                    return;
                }
                let mut framed = (message.len() as u16).to_be_bytes().to_vec();
                framed.extend_from_slice(&message);
                self.write(sock, &framed, env);
            }
        }
    }

    fn transmit(&mut self, via: Via, to: SocketAddr, payload: Bytes, env: &mut Env<'_>) {
        // What goes to another base is not drawn by what comes from there.
        let to_base = matches!(payload.first(), Some(&(BASE_DATA | BASE_PING | BASE_PONG)));
        if !to_base && let Err(what) = self.watch.outgoing(to, &payload, env.now) {
            self.violations.push(what);
        }
        let Some(port) = self.sockets.get(usize::from(via.socket.0)).map(SocketAddr::port) else {
            self.violations.push(format!("a datagram leaves from {via:?}, which does not exist"));
            return;
        };
        // A base that lost its address (a fault of the world) sends nothing; nobody is to be told.
        let _ = self.stack.send_udp(via.ip, port, to, payload, env);
    }

    fn write(&mut self, sock: SockId, bytes: &[u8], env: &mut Env<'_>) {
        if let Some((_, remote)) = self.stack.ends(sock) {
            for frame in split_frames(bytes) {
                env.trace.frame(env.now, self.node, remote, true, frame);
            }
        }
        self.stack.write(sock, bytes, env);
    }

    /// A moment that it asked for has come.
    pub fn on_wake(&mut self, env: &mut Env<'_>) {
        let events = self.stack.on_timer(env);
        self.on_tcp(events, env);
        if !self.frozen && self.deadline.is_some_and(|at| at <= env.instant()) {
            self.with(env, Base::handle_timeout);
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
                        let what = "the base's timer asks for the present moment again and again";
                        self.violations.push(what.to_owned());
                        self.deadline = Some(env.instant() + Time::from_millis(1));
                        break;
                    }
                    machine.handle_timeout(env.instant());
                }
                Output::Bus(output) => self.said.push(Said::Output(output)),
                Output::Transmit { via, to, payload } => self.transmit(via, to, payload.into(), env),
                Output::Write { conn, frames } => match self.conns.get(&conn).map(|c| c.sock) {
                    Some(sock) => {
                        self.write(sock, &frames, env);
                        if self.stack.backlog(sock) > CONTROL_QUEUE {
                            self.conns.remove(&conn);
                            self.stack.reset(sock, env);
                            self.machine.as_mut().map(|m| m.handle_closed(conn, env.instant()));
                        }
                    }
                    None => self.violations.push(format!("a write to {conn:?}, which is closed")),
                },
                Output::Close { conn } => {
                    if let Some(conn) = self.conns.remove(&conn) {
                        self.stack.close(conn.sock, env);
                    }
                }
                Output::Ask { .. } => {
                    self.violations.push("a base without a list asks about a device".into());
                }
            }
            outputs += 1;
            if outputs > MAX_OUTPUTS {
                self.violations.push(format!("more than {MAX_OUTPUTS} outputs for one input"));
                break;
            }
        }
        self.most_outputs = self.most_outputs.max(outputs);
    }
}
