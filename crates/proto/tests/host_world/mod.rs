//! A host machine by itself, under a clock that the test moves: what it is handed, and everything it wants sent.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId, SecretKey,
    host::{CloseReason, ConnId, Event, Host, HostConfig, Interface, Network, Output, Route, SendError},
    wire::{
        Cookie, INTRODUCTION_KEY_LEN, Token,
        frame::{Frames, LENGTH_LEN},
        peer::{Hello, HelloReply, IntroductionKey, PeerDatagram},
        tcp::{BaseFrame, BaseHello, HostFrame, Registered},
    },
};
use bytes::Bytes;

/// A HELLO that the host sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentHello {
    pub(crate) at: Instant,
    pub(crate) to: SocketAddr,
    pub(crate) token: Token,
    pub(crate) length: usize,
}

/// What the host told its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Request(DeviceId),
    Release(DeviceId),
}

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) hellos: Vec<SentHello>,
    pub(crate) replies: Vec<SocketAddr>,
    pub(crate) told: Vec<Told>,
    pub(crate) events: Vec<Event>,
    pub(crate) conn: Option<ConnId>,
    /// Connections it wanted, and those it closed.
    pub(crate) connects: Vec<(Instant, SocketAddr)>,
    pub(crate) closed: Vec<ConnId>,
    /// Those by a way out that the system does not prefer, and from which own address.
    pub(crate) further_connects: Vec<(Instant, IpAddr, SocketAddr)>,
    /// The interfaces by which it announced itself.
    pub(crate) announced: Vec<u32>,
    /// When it had which base's name looked up.
    pub(crate) lookups: Vec<(Instant, usize)>,
    /// All datagrams it sent.
    pub(crate) datagrams: Vec<(SocketAddr, Bytes)>,
    /// Where to they went, and from which own address.
    pub(crate) sources: Vec<(SocketAddr, Option<IpAddr>)>,
    /// The introduction master keys of its INFOs, each once.
    /// How often the router was to be asked for a port anew.
    pub(crate) renewals: usize,
    pub(crate) master_keys: Vec<[u8; INTRODUCTION_KEY_LEN]>,
    /// HELLOs that peers have said: each has a token of its own.
    said: u64,
    /// Whether the base answers INFO.
    answers: bool,
    due: Option<Instant>,
}

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The base that [`World::greet`] plays, and the cookie it gives.
pub(crate) const BASE: DeviceId = DeviceId::from_bytes([0xba; 14]);
pub(crate) const COOKIE: Cookie = [1; 8];

impl World {
    /// A host with key 1 on one ordinary interface.
    pub(crate) fn new(config: HostConfig) -> Self {
        Self::seeded(config, 7)
    }

    /// The same with other randomness.
    pub(crate) fn seeded(config: HostConfig, seed: u8) -> Self {
        let now = Instant::now();
        let host = Host::new(config, key(1), [seed; 32], now);
        let mut world = Self {
            host,
            start: now,
            now,
            hellos: vec![],
            replies: vec![],
            told: vec![],
            events: vec![],
            conn: None,
            connects: vec![],
            closed: vec![],
            further_connects: vec![],
            lookups: vec![],
            announced: vec![],
            datagrams: vec![],
            sources: vec![],
            master_keys: vec![],
            said: 0,
            answers: true,
            renewals: 0,
            due: None,
        };
        world.moves_to("198.51.100.1");
        world
    }

    /// The device has this address from now on, and no other.
    pub(crate) fn moves_to(&mut self, address: &str) {
        self.is_at(&[address]);
    }

    /// The device has these addresses from now on, each on a way to the internet of its own.
    pub(crate) fn is_at(&mut self, addresses: &[&str]) {
        let interfaces = addresses.iter().zip(1..).map(|(address, index)| Interface {
            index,
            name: format!("eth{index}"),
            loopback: false,
            multicast: false,
            default_v4: true,
            default_v6: false,
            preferred: false,
            addresses: vec![(address.parse().unwrap(), 24)],
            routes: vec![],
        });
        let network = Network { interfaces: interfaces.collect(), port_v4: Some(4000), port_v6: None };
        self.host.handle_network(network, self.now);
        self.drain();
    }

    /// A host that knows where its peer 2 is and has no base.
    pub(crate) fn with_given(addresses: &[&str]) -> Self {
        let given = addresses.iter().map(|text| (key(2).device_id(), addr(text))).collect();
        Self::new(HostConfig { given, link_local: false, ..HostConfig::default() })
    }

    /// A host that is registered at a base without UDP.
    pub(crate) fn registered(config: HostConfig) -> Self {
        Self::registered_with_udp(config, vec![])
    }

    /// A host that is registered at a base that tells these UDP addresses.
    pub(crate) fn registered_with_udp(config: HostConfig, udp: Vec<SocketAddr>) -> Self {
        let mut world = Self::greeted(config, "203.0.113.9");
        world.welcomed(udp);
        assert!(world.host.is_registered());
        world
    }

    /// A host that has heard from the base that is written like this, and has sent REGISTER if it liked what it heard.
    pub(crate) fn greeted(config: HostConfig, written: &str) -> Self {
        Self::greeted_by(config, written, 0)
    }

    /// The same by a base that says what it is capable of.
    pub(crate) fn greeted_by(config: HostConfig, written: &str, capabilities: u32) -> Self {
        let bases = vec![written.parse().unwrap()];
        let mut world = Self::new(HostConfig { bases, link_local: false, ..config });
        world.greet_with(capabilities);
        world
    }

    /// The base's name is found, its connection stands, and it answers GET-COOKIE.
    pub(crate) fn greet(&mut self) {
        self.greet_with(0);
    }

    /// The same by a base that says what it is capable of.
    pub(crate) fn greet_with(&mut self, capabilities: u32) {
        self.resolved(0, Ok(vec![addr("203.0.113.9:4477")]));
        self.connected_with(capabilities);
    }

    /// The latest connection stands, and the base answers GET-COOKIE on it.
    pub(crate) fn connected_and_greeted(&mut self) {
        self.connected_with(0);
    }

    fn connected_with(&mut self, capabilities: u32) {
        let conn = self.conn.expect("it connects");
        self.host.handle_connected(conn, self.now);
        let hello = BaseHello { version: 1, cookie: COOKIE, base: BASE, cluster: BASE, capabilities };
        self.hand_over(&BaseFrame::BaseHello(hello));
    }

    /// The base takes the registration.
    pub(crate) fn welcomed(&mut self, udp: Vec<SocketAddr>) {
        let seen = addr("198.51.100.1:50000");
        self.hand_over(&BaseFrame::Registered(Registered { seen, keepalive: 25, udp }));
    }

    /// A name has been looked up.
    pub(crate) fn resolved(&mut self, base: usize, result: Result<Vec<SocketAddr>, String>) {
        self.host.handle_resolved(base, result, self.now);
        self.drain();
    }

    /// The connection to the base is reset.
    pub(crate) fn reset(&mut self) {
        let conn = self.conn.expect("connected");
        self.host.handle_closed(conn, CloseReason::Lost("reset".to_owned()), self.now);
        self.drain();
    }

    pub(crate) fn hand_over(&mut self, frame: &BaseFrame<'_>) {
        self.hand_over_on(self.conn.expect("connected"), frame);
    }

    /// A frame comes on a connection; whether it brings a message.
    pub(crate) fn hand_over_on(&mut self, conn: ConnId, frame: &BaseFrame<'_>) -> bool {
        let mut out = Vec::new();
        frame.write(&mut out);
        let delivered = self.host.handle_frame(conn, &out[LENGTH_LEN..], self.now).is_some();
        self.drain();
        delivered
    }

    /// From now on the base says nothing, not even PONG.
    pub(crate) fn stops_answering(&mut self) {
        self.answers = false;
    }

    /// The device has slept.
    pub(crate) fn resume(&mut self) {
        self.host.handle_resume(self.now);
        self.drain();
    }

    pub(crate) fn send(&mut self, to: u8, length: usize) -> Result<Route, SendError> {
        let route = self.host.route(key(to).device_id(), length, self.now);
        // The driver looks at the machine after each use.
        self.host.handle_timeout(self.now);
        self.drain();
        route
    }

    pub(crate) fn datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        let _ = self.host.handle_datagram(None, from, datagram, self.now);
        self.drain();
    }

    /// The same, at one of several own addresses.
    pub(crate) fn datagram_at(&mut self, own: &str, from: SocketAddr, datagram: &[u8]) {
        let _ = self.host.handle_datagram(Some(own.parse().unwrap()), from, datagram, self.now);
        self.drain();
    }

    /// Peer `n` answers the last HELLO that went to this address.
    pub(crate) fn answer(&mut self, n: u8, from: SocketAddr) {
        let reply = self.reply(n, from);
        self.datagram(from, &reply);
    }

    /// Its answer.
    pub(crate) fn reply(&self, n: u8, from: SocketAddr) -> Vec<u8> {
        let token = self.hellos.iter().rfind(|hello| hello.to == from).expect("a HELLO went there").token;
        HelloReply::encode(key(1).device_id(), token, &key(n))
    }

    /// Peer `n` says HELLO from this address.
    pub(crate) fn hello(&mut self, n: u8, from: SocketAddr) {
        let hello = self.next_hello(n);
        self.datagram(from, &hello);
    }

    /// What it says.
    pub(crate) fn next_hello(&mut self, n: u8) -> Vec<u8> {
        self.said += 1;
        let mut token = [n; 16];
        token[..8].copy_from_slice(&self.said.to_be_bytes());
        Hello::encode(key(1).device_id(), token, &IntroductionKey::NONE, &key(n), 0, 0)
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.due.filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.host.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// When HELLOs went to this address, since the start, in milliseconds.
    pub(crate) fn hello_times(&self, to: SocketAddr) -> Vec<u128> {
        self.hellos.iter().filter(|h| h.to == to).map(|h| (h.at - self.start).as_millis()).collect()
    }

    pub(crate) fn drain(&mut self) {
        loop {
            match self.host.poll_output(self.now) {
                Output::Transmit { to, source, payload, .. } => {
                    self.sources.push((to, source));
                    match PeerDatagram::decode(&payload) {
                        Ok(PeerDatagram::Hello(hello)) => self.hellos.push(SentHello {
                            at: self.now,
                            to,
                            token: hello.claim().token,
                            length: payload.len(),
                        }),
                        Ok(PeerDatagram::HelloReply(_)) => self.replies.push(to),
                        _ => {}
                    }
                    self.datagrams.push((to, payload));
                }
                Output::Connect { conn, source, to } => {
                    self.conn = Some(conn);
                    match source {
                        Some(source) => self.further_connects.push((self.now, source, to)),
                        None => self.connects.push((self.now, to)),
                    }
                }
                Output::Close { conn } => self.closed.push(conn),
                Output::Resolve { base, .. } => self.lookups.push((self.now, base)),
                Output::Write { frames, .. } => self.read(&frames),
                Output::Event(event) => self.events.push(event),
                Output::Timeout(at) => {
                    self.due = at;
                    return;
                }
                Output::RenewMapping => self.renewals += 1,
                Output::Announce { interface, .. } => self.announced.push(interface),
                Output::OpenSocket(_) | Output::CloseSocket(_) => {}
            }
        }
    }

    /// What a base would read; PONG comes at once, so that the session lives.
    fn read(&mut self, bytes: &[u8]) {
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(bytes);
        while let Some(frame) = frames.next_frame().unwrap() {
            match HostFrame::decode(&frame).unwrap() {
                HostFrame::RequestInfo(id) => self.told.push(Told::Request(id)),
                HostFrame::ReleaseInfo(id) => self.told.push(Told::Release(id)),
                HostFrame::Info(_) if !self.answers => {}
                HostFrame::Info(info) => {
                    if self.master_keys.last() != Some(&info.master_key) {
                        self.master_keys.push(info.master_key);
                    }
                    let mut out = Vec::new();
                    BaseFrame::Pong(info.number).write(&mut out);
                    let _ = self.host.handle_frame(self.conn.unwrap(), &out[LENGTH_LEN..], self.now);
                }
                _ => {}
            }
        }
    }
}
