//! Sequences of inputs on the host's machine: bases that answer or lie, peers, strangers, networks that change.
//!
//! A run plays the bases and three peers with real keys, so that sessions stand and paths are found, and anybody
//! who sends anything. After each step all output is drained and what the host promises is checked: what it sends
//! is well-formed and goes nowhere it must not, what it delivers are bytes that came in, its tables stay within
//! their limits, and a timeout always brings progress.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId, SecretKey,
    host::{
        Allow, CloseReason, ConnId, Host, HostConfig, Interface, Nat64, Network, Output, Route, SendError,
        SocketId,
    },
    wire::{
        ANY_PATH_DATA, Cookie, MAX_DATA, Malformed, Token,
        frame::{Frames, LENGTH_LEN},
        peer::{self, Hello, HelloReply, IntroductionKey, PeerDatagram},
        relay,
        tcp::{
            BaseFrame, BaseHello, DeviceAddresses, Error, ErrorCode, HostFrame, Notice, NoticeCode,
            Registered, UnreachableReason,
        },
        udp::{self, NatOk, UnverifiedNatInit},
    },
};

use crate::input::Input;

const PEERS: u8 = 3;
const MAX_STEPS: usize = 300;
/// Outputs that one input may cause: ladders to all pairs of all peers, with room.
const MAX_OUTPUTS: usize = 2_000;
/// Wakes within ten simulated minutes at the end of a run, when nothing answers any more.
const MAX_WAKES: usize = 20_000;

/// The bases of a host that has any.
const BASES: [&str; 2] = ["192.0.2.1:4477", "base.example"];

/// Sequences of inputs on [`Host`].
pub fn host_ops(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        let _ = world.host.status(world.now);
    }
    world.run_for(Duration::from_secs(600));
    world.host.close(world.now);
    world.drain_output();
    let refused = world.host.route(world.peers[0].device_id(), 1, world.now);
    assert_eq!(refused, Err(SendError::Closed));
}

struct World {
    host: Host,
    id: DeviceId,
    now: Instant,
    peers: Vec<SecretKey>,
    conns: BTreeMap<ConnId, Conn>,
    sockets: BTreeSet<SocketId>,
    /// The last HELLO tokens and where they were sent.
    tokens: Vec<(DeviceId, Token, SocketAddr)>,
    /// The last NAT-INIT or NAT-CONFIRM: cookie, seq and where it was sent.
    last_nat: Option<(Cookie, u64, SocketAddr)>,
    last_info: u64,
    next_timeout: Option<Instant>,
}

#[derive(Default)]
struct Conn {
    to: Option<SocketAddr>,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let key = SecretKey::from_seed(&[9; 32]);
        let peers: Vec<SecretKey> = (0..PEERS).map(|n| SecretKey::from_seed(&[n + 1; 32])).collect();
        let choice = input.u8();
        let mut config = HostConfig::default();
        for (bit, name) in BASES.into_iter().enumerate() {
            if choice >> bit & 1 == 0 {
                config.bases.push(name.parse().expect("a name"));
            }
        }
        if choice & 4 != 0 {
            config.allow = Allow::Only([peers[0].device_id()].into());
        }
        config.direct = choice & 8 == 0;
        config.relay_udp = choice & 16 == 0;
        config.link_local = choice & 32 == 0;
        if choice & 64 != 0 {
            config.given.push((peers[1].device_id(), input.addr()));
        }
        let now = Instant::now();
        let id = key.device_id();
        let host = Host::new(config, key, [3; 32], now);
        let mut world = Self {
            host,
            id,
            now,
            peers,
            conns: BTreeMap::new(),
            sockets: BTreeSet::new(),
            tokens: Vec::new(),
            last_nat: None,
            last_info: 0,
            next_timeout: None,
        };
        world.drain_output();
        world.network(input);
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 24 {
            0 => self.network(input),
            1 => self.resolved(input),
            2 | 3 => self.connection(input),
            4..=8 => self.base_frame(input),
            9 => {
                let body = input.bytes().to_vec();
                if let Some(conn) = self.some_conn(input) {
                    self.frame(conn, &body);
                }
            }
            10 | 11 => self.nat_ok(input),
            12 | 13 => self.hello(input),
            14 | 15 => self.hello_reply(input),
            16 => {
                let datagram = input.bytes().to_vec();
                let from = self.some_source(input);
                self.datagram(from, &datagram);
            }
            17 => self.relayed(input),
            18 => self.announcement(input),
            19 | 20 => self.route(input),
            21 | 22 => self.pass_time(input),
            _ => self.rare(input),
        }
    }

    fn some_conn(&self, input: &mut Input<'_>) -> Option<ConnId> {
        let at = input.below(self.conns.len());
        self.conns.keys().nth(at).copied()
    }

    /// A peer, the host itself, or a stranger.
    fn some_id(&self, input: &mut Input<'_>) -> DeviceId {
        match input.u8() % (PEERS + 2) {
            n if n < PEERS => self.peers[usize::from(n)].device_id(),
            n if n == PEERS => self.id,
            _ => DeviceId::from_bytes([input.u8(); 14]),
        }
    }

    /// An address that the host has sent something to, or any.
    fn some_source(&self, input: &mut Input<'_>) -> SocketAddr {
        match input.u8() % 4 {
            0 => self.tokens.last().map_or_else(|| input.unicast(), |token| token.2),
            1 => self.last_nat.map_or_else(|| input.unicast(), |nat| nat.2),
            _ => input.unicast(),
        }
    }

    fn network(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        let mut interfaces = vec![];
        for index in 1..=(choice & 3) {
            let mut addresses: Vec<(IpAddr, u8)> = input.addrs(4).into_iter().map(|a| (a.ip(), 24)).collect();
            addresses.dedup();
            interfaces.push(Interface {
                index: index.into(),
                name: format!("eth{index}"),
                loopback: choice & 64 != 0,
                multicast: choice & 4 == 0,
                default_v4: choice & 8 == 0,
                default_v6: choice & 16 == 0,
                preferred: false,
                addresses,
                routes: vec![],
            });
        }
        let port_v4 = (choice & 32 == 0).then_some(4000);
        let network = Network { interfaces, port_v4, port_v6: (choice & 128 == 0).then_some(4001) };
        self.host.handle_network(network, self.now);
        let nat64 = "64:ff9b::192.0.0.170".parse().ok().and_then(Nat64::of);
        self.host.handle_nat64(nat64.filter(|_| choice & 8 != 0), self.now);
        self.drain_output();
    }

    fn resolved(&mut self, input: &mut Input<'_>) {
        let base = input.below(3);
        let failed = input.u8().is_multiple_of(4);
        // A resolver puts the port in that it was asked for.
        let addresses = (0..input.below(11)).map(|_| SocketAddr::new(input.unicast().ip(), 4477)).collect();
        let result = if failed { Err("no such name".to_owned()) } else { Ok(addresses) };
        self.host.handle_resolved(base, result, self.now);
        self.drain_output();
    }

    fn connection(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.some_conn(input) else { return };
        match input.u8() % 8 {
            0 => self.closed(conn, CloseReason::Refused("refused".to_owned())),
            1 => self.closed(conn, CloseReason::Lost("reset".to_owned())),
            2 => self.closed(conn, CloseReason::Malformed(Malformed::TooLong)),
            _ => self.host.handle_connected(conn, self.now),
        }
        self.drain_output();
    }

    fn closed(&mut self, conn: ConnId, why: CloseReason) {
        self.conns.remove(&conn);
        self.host.handle_closed(conn, why, self.now);
    }

    /// Something that a base might say, at the right moment or not.
    fn base_frame(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.some_conn(input) else { return };
        let base_id = DeviceId::from_bytes([0xb0 + (input.u8() & 1); 14]);
        let device = self.some_id(input);
        let choice = input.u8();
        let frame = match choice % 14 {
            0..=2 => BaseFrame::BaseHello(BaseHello {
                version: if choice < 250 { 1 } else { 2 },
                cookie: [conn.0 as u8; 8],
                base: base_id,
                cluster: base_id,
                capabilities: u32::from(choice),
            }),
            3..=5 => BaseFrame::Registered(Registered {
                seen: input.addr(),
                keepalive: u16::from(input.u8()),
                udp: input.addrs(4),
            }),
            6 => BaseFrame::Pong(self.last_info),
            7 | 8 => BaseFrame::DeviceAddresses(DeviceAddresses {
                device,
                online: choice & 128 == 0,
                joined: choice & 64 == 0,
                introduction: IntroductionKey([choice; 16]),
                reflexive: input.addrs(4),
                own: input.addrs(12),
            }),
            9 => BaseFrame::Wanted(device),
            10 => BaseFrame::Unreachable(device, UnreachableReason::from_u8(input.u8() % 6)),
            11 => BaseFrame::GoAway(u16::from(input.u8())),
            12 => BaseFrame::Notice(Notice {
                code: NoticeCode::from_u8(choice >> 4),
                text: "notice".to_owned(),
            }),
            _ => BaseFrame::Error(Error {
                code: ErrorCode::from_u8(input.u8() % 12),
                retry_after: u16::from(input.u8()),
                text: "error".to_owned(),
            }),
        };
        let mut out = Vec::new();
        frame.write(&mut out);
        self.frame(conn, &out[LENGTH_LEN..]);
    }

    fn frame(&mut self, conn: ConnId, frame: &[u8]) {
        if let Some(delivery) = self.host.handle_frame(conn, frame, self.now) {
            assert_eq!(delivery.data, &frame[relay::HEADER_LEN..]);
        }
        self.drain_output();
    }

    fn datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(delivery) = self.host.handle_datagram(None, from, datagram, self.now) {
            assert!(datagram.ends_with(delivery.data), "delivers what did not come");
            assert_ne!(delivery.from, self.id, "from oneself over the network");
        }
        self.drain_output();
    }

    fn nat_ok(&mut self, input: &mut Input<'_>) {
        let Some((cookie, seq, to)) = self.last_nat else { return };
        let choice = input.u8();
        let ok =
            NatOk { cookie, seq, challenge: [choice & 1; 8], confirmed: choice & 2 != 0, seen: input.addr() };
        let padded = if choice & 4 != 0 { udp::PADDED_LEN } else { 0 };
        match choice >> 3 & 3 {
            3 => self.datagram(to, &[udp::NAT_UNKNOWN]),
            _ => self.datagram(to, &ok.encode(padded)),
        }
    }

    fn hello(&mut self, input: &mut Input<'_>) {
        let peer = input.below(self.peers.len());
        let choice = input.u8();
        let responder = if choice & 7 == 7 { self.some_id(input) } else { self.id };
        let padded = if choice & 8 != 0 { peer::PADDED_HELLO_LEN } else { 0 };
        let introduction = IntroductionKey([choice >> 6; 16]);
        let key = &self.peers[peer];
        let mut datagram = Hello::encode(responder, [choice; 16], &introduction, key, choice, padded);
        if choice >> 4 & 3 == 3 {
            let at = input.below(datagram.len().min(200));
            datagram[at] ^= 1;
        }
        let from = self.some_source(input);
        self.datagram(from, &datagram);
    }

    /// A reply to a HELLO that the host did send, by whom it was for (or by another), from there (or elsewhere).
    fn hello_reply(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.tokens.len());
        let Some(&(responder, token, to)) = self.tokens.get(at) else { return };
        let choice = input.u8();
        let key = match self.peers.iter().find(|key| key.device_id() == responder) {
            Some(key) if choice & 7 != 7 => key,
            _ => &self.peers[input.below(self.peers.len())],
        };
        let datagram = HelloReply::encode(self.id, token, key);
        let from = if choice & 0x38 == 0x38 { input.unicast() } else { to };
        self.datagram(from, &datagram);
    }

    fn relayed(&mut self, input: &mut Input<'_>) {
        let kind = if input.bool() { relay::RECV_DATA } else { relay::RECV_JOINED };
        let mut message = relay::header(kind, self.some_id(input)).to_vec();
        message.extend_from_slice(input.bytes());
        if input.bool() {
            let from = self.some_source(input);
            self.datagram(from, &message);
        } else if let Some(conn) = self.some_conn(input) {
            self.frame(conn, &message);
        }
    }

    fn announcement(&mut self, input: &mut Input<'_>) {
        let id = self.some_id(input);
        let mut from = input.unicast();
        if let SocketAddr::V6(v6) = &mut from {
            v6.set_scope_id(u32::from(input.u8() & 3));
        }
        let hop_limit = if input.u8() == 9 { 64 } else { 255 };
        let length = if input.u8() == 9 { 13 } else { 14 };
        self.host.handle_announcement(from, hop_limit, &id.as_bytes()[..length], self.now);
        self.drain_output();
    }

    fn route(&mut self, input: &mut Input<'_>) {
        let peer = self.some_id(input);
        let length = input.pick(&[0, 1, 500, 501, 1_200, 1_201, 16_000, 16_001]);
        match self.host.route(peer, length, self.now) {
            Ok(route) => {
                assert!(length <= MAX_DATA, "{length} bytes go {route:?}");
                self.check_route(route);
                assert!(length <= self.host.max_datagram(peer).max(length), "a limit is known");
                let joined = self.host.joined_relay(peer, self.now);
                assert!(joined.is_none_or(|length| length <= relay::HEADER_LEN + ANY_PATH_DATA));
            }
            Err(SendError::TooLarge { length: told, limit }) => assert!(told == length && length > limit),
            Err(_) => {}
        }
        self.drain_output();
    }

    fn check_route(&self, route: Route) {
        let (hop, conn) = match route {
            Route::Direct(hop) | Route::RelayUdp(hop) => (Some(hop), None),
            Route::RelayTcp(conn) => (None, Some(conn)),
            Route::Both(hop, bowline_proto::host::Relay::Udp(_)) => (Some(hop), None),
            Route::Both(hop, bowline_proto::host::Relay::Tcp(conn)) => (Some(hop), Some(conn)),
            Route::Local => (None, None),
        };
        if let Some(hop) = hop {
            Self::check_target(hop.to);
        }
        if let Some(conn) = conn {
            assert!(self.conns.contains_key(&conn), "data to a connection that is gone");
        }
    }

    fn rare(&mut self, input: &mut Input<'_>) {
        match input.u8() % 7 {
            0 => self.host.handle_resume(self.now),
            1 => self.host.handle_relay_overflow(self.some_id(input), self.now),
            2 => {
                let to = self.some_source(input);
                let error = std::io::Error::from(input.pick(&[
                    std::io::ErrorKind::NetworkUnreachable,
                    std::io::ErrorKind::PermissionDenied,
                    std::io::ErrorKind::AddrNotAvailable,
                ]));
                self.host.handle_send_error(bowline_proto::host::Hop::anywhere(to), &error, self.now);
            }
            3 => {
                let _ = self.host.want(self.some_id(input), self.now);
            }
            4 => self.datagram(self.some_source(input), &peer::unknown_source()),
            5 => self.datagram(self.some_source(input), &peer::knock()),
            _ => {
                let peer = self.some_id(input);
                let _ = (self.host.peer_status(peer, self.now), self.host.max_datagram(peer));
                let _ = (self.host.remembered_bases(), self.host.is_registered());
            }
        }
        self.drain_output();
    }

    fn pass_time(&mut self, input: &mut Input<'_>) {
        let passed = input.pick(&[0, 1, 100, 251, 1_000, 2_000, 5_001, 25_000, 35_001, 125_000, 700_000]);
        self.run_for(Duration::from_millis(passed));
    }

    /// Lets time pass, stopping wherever the machine asked for it.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let (mut wakes, mut wakes_at_once) = (0, 0);
        while let Some(due) = self.next_timeout.filter(|&due| due <= end) {
            wakes += 1;
            wakes_at_once = if due <= self.now { wakes_at_once + 1 } else { 0 };
            assert!(wakes_at_once < 50, "a timeout without progress");
            assert!(wakes < MAX_WAKES, "wakes all the time");
            self.now = self.now.max(due);
            self.host.handle_timeout(self.now);
            self.drain_output();
        }
        self.now = end;
    }

    /// Nothing is ever sent there.
    fn check_target(to: SocketAddr) {
        assert_ne!(to.port(), 0, "sends to port 0");
        let fine = match to.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && ip.segments()[0] != 0xfdb0,
        };
        assert!(fine, "sends to {to}");
    }

    fn drain_output(&mut self) {
        for _ in 0..MAX_OUTPUTS {
            match self.host.poll_output(self.now) {
                Output::Transmit { socket, to, payload, .. } => {
                    assert!(
                        socket == SocketId::MAIN || self.sockets.contains(&socket),
                        "{socket:?} is not open"
                    );
                    self.sent(to, &payload);
                }
                Output::OpenSocket(socket) => {
                    assert!(self.sockets.insert(socket), "opened twice: {socket:?}");
                }
                Output::CloseSocket(socket) => {
                    assert!(self.sockets.remove(&socket), "closed twice: {socket:?}");
                }
                Output::Announce { payload, .. } => assert_eq!(payload, self.id.as_bytes()[..]),
                Output::Connect { conn, to, .. } => {
                    assert_ne!(to.port(), 0);
                    let before = self.conns.insert(conn, Conn { to: Some(to) });
                    assert!(before.is_none(), "a connection's name is used twice");
                }
                Output::Write { conn, frames } => self.read_frames(conn, &frames),
                Output::Close { conn } => {
                    assert!(self.conns.remove(&conn).is_some(), "closed twice: {conn:?}");
                }
                Output::Resolve { .. } | Output::RenewMapping | Output::Event(_) => {}
                Output::Timeout(at) => {
                    self.next_timeout = at;
                    assert_eq!(self.host.sizes().over(BASES.len()), None);
                    return;
                }
            }
        }
        panic!("endless output");
    }

    fn sent(&mut self, to: SocketAddr, payload: &[u8]) {
        Self::check_target(to);
        if let Ok(PeerDatagram::Hello(hello)) = PeerDatagram::decode(payload) {
            assert_eq!(hello.claim().initiator, self.id);
            self.tokens.push((hello.claim().responder, hello.claim().token, to));
            if self.tokens.len() > 8 {
                self.tokens.remove(0);
            }
        } else if let Ok(init) = UnverifiedNatInit::decode(payload) {
            self.last_nat = Some((init.claim().cookie, init.claim().seq, to));
        } else if let Ok(confirm) = udp::NatConfirm::decode(payload) {
            self.last_nat = Some((confirm.cookie, confirm.seq, to));
        } else {
            let known = matches!(
                PeerDatagram::decode(payload),
                Ok(PeerDatagram::HelloReply(_) | PeerDatagram::UnknownSource | PeerDatagram::Knock)
            );
            assert!(known, "sends {payload:02x?}");
        }
    }

    fn read_frames(&mut self, conn: ConnId, bytes: &[u8]) {
        let state = self.conns.get(&conn).expect("writes go to open connections");
        assert!(state.to.is_some());
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(bytes);
        while let Some(frame) = frames.next_frame().expect("the host frames what it sends") {
            match HostFrame::decode(&frame).expect("the host sends what is well-formed") {
                HostFrame::Info(info) => self.last_info = info.number,
                HostFrame::SendData(..) | HostFrame::Unknown(_) => panic!("not a control frame"),
                HostFrame::Register(register) => assert_eq!(register.claim().device, self.id),
                _ => {}
            }
        }
        assert!(frames.buffer().is_empty(), "a frame was cut off");
    }
}
