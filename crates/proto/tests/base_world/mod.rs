//! A base and the hosts around it, as bytes: what the tests of the base machine share.
//!
//! Hosts here are scripts, not machines: they send exactly the bytes a test wants them to send. Time stands still
//! but for [`World::advance`], which stops at every deadline that the machine names.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod cluster;
pub(crate) mod follower;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId, SecretKey,
    base::{
        Base, BaseConfig, BusOutput, ConnId, Forward, Output, SocketId, Speaker, Step, UdpAddress, Verdict,
        Via,
    },
    wire::{
        Cookie,
        frame::{LENGTH_LEN, MAX_FRAME},
        relay::{self, SEND_DATA},
        tcp::{
            self, BaseFrame, DeviceAddresses, ErrorCode, GetCookie, INFO, Info, Register, Registered,
            UnreachableReason,
        },
        udp::{NAT_INIT, NAT_OK_LEN, NatConfirm, NatInit, NatOk, PADDED_LEN},
    },
};

/// The base's first UDP port.
pub(crate) const FIRST: Via = Via { socket: SocketId(0), ip: None };
/// The base's second UDP port.
pub(crate) const SECOND: Via = Via { socket: SocketId(1), ip: None };

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A device's key and where it stands in its numbers.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) key: SecretKey,
    pub(crate) id: DeviceId,
    pub(crate) boot: [u8; 8],
    pub(crate) attempt: u32,
    pub(crate) number: u64,
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) own: Vec<SocketAddr>,
    pub(crate) master: [u8; 16],
    pub(crate) conn: ConnId,
    pub(crate) cookie: Cookie,
    pub(crate) capabilities: u32,
}

impl Host {
    pub(crate) fn new(n: u8) -> Self {
        let key = SecretKey::from_seed(&[n; 32]);
        Self {
            id: key.device_id(),
            key,
            boot: [n; 8],
            attempt: 0,
            number: 0,
            tcp: SocketAddr::from(([192, 0, 2, n], 40_000)),
            udp: SocketAddr::from(([192, 0, 2, n], 50_000)),
            own: vec![SocketAddr::from(([10, 0, 0, n], 50_000))],
            master: [n; 16],
            conn: ConnId(u64::MAX),
            cookie: [0; 8],
            capabilities: 0,
        }
    }

    /// One of many, each with a key, a boot and an address of its own.
    pub(crate) fn of_many(n: u32) -> Self {
        let mut seed = [0xff; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let key = SecretKey::from_seed(&seed);
        let [.., high, low] = n.to_be_bytes();
        let tcp = SocketAddr::from(([198, 18, high, low], 40_000));
        Self { id: key.device_id(), key, tcp, ..Self::new(0) }
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(crate) fn register(&self) -> Register {
        Register {
            device: self.id,
            public_key: self.key.public(),
            boot: self.boot,
            attempt: self.attempt,
            capabilities: self.capabilities,
            agent: "test".into(),
        }
    }
}

pub(crate) struct World {
    pub(crate) base: Base,
    pub(crate) id: DeviceId,
    pub(crate) now: Instant,
    /// Whether every datagram is judged as a worker would, and the two compared.
    judges: bool,
    /// Whether the answer of a worker, or of whoever reads a connection, stands, as in a server; otherwise the machine gets every NAT-INIT
    /// and INFO.
    pub(crate) workers_answer: bool,
    /// Who follows the routes: it would forward what a worker would, and nothing else.
    pub(crate) copy: Arc<follower::Copy>,
    /// NAT-INITs that a worker has answered: the machine has not heard of them.
    answered_by_worker: u64,
    next_conn: u64,
    speakers: HashMap<ConnId, Arc<Speaker>>,
    written: HashMap<ConnId, Vec<u8>>,
    pub(crate) closed: HashSet<ConnId>,
    pub(crate) datagrams: Vec<(Via, SocketAddr, Vec<u8>)>,
    /// What the machine wants to know.
    pub(crate) asked: Vec<(ConnId, DeviceId)>,
    pub(crate) bus: Vec<BusOutput>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(BaseConfig::default())
    }

    pub(crate) fn with(config: BaseConfig) -> Self {
        Self::with_room(config, 1_000)
    }

    /// Whoever follows the routes can count for so many devices.
    pub(crate) fn with_room(config: BaseConfig, devices: usize) -> Self {
        let now = Instant::now();
        let id = SecretKey::from_seed(&[0xba; 32]).device_id();
        let mut world = Self {
            judges: config.relay_rate.is_none() && config.relay_messages.is_none(),
            workers_answer: true,
            copy: follower::Copy::with_room_for(devices),
            answered_by_worker: 0,
            base: Base::new(config, id, [7; 32], now),
            id,
            now,
            next_conn: 0,
            speakers: HashMap::new(),
            written: HashMap::new(),
            closed: HashSet::new(),
            datagrams: Vec::new(),
            asked: Vec::new(),
            bus: Vec::new(),
        };
        world.follow();
        world
    }

    /// To be called anew when the base has new routes.
    pub(crate) fn follow(&mut self) {
        self.copy.tables().limits = self.base.relay_limits();
        assert!(self.base.have_followed(Arc::clone(&self.copy) as _), "somebody has the routes already");
    }

    pub(crate) fn udp_list() -> [UdpAddress; 2] {
        [
            UdpAddress { address: addr("[::]:4477"), socket: FIRST.socket },
            UdpAddress { address: addr("[::]:4479"), socket: SECOND.socket },
        ]
    }

    /// Takes what the machine wants done; gives the next moment it names.
    pub(crate) fn flush(&mut self) -> Option<Instant> {
        loop {
            match self.base.poll_output(self.now) {
                Output::Transmit { via, to, payload } => self.datagrams.push((via, to, payload)),
                Output::Write { conn, frames } => self.written.entry(conn).or_default().extend(frames),
                Output::Bus(output) => self.bus.push(output),
                Output::Close { conn } => {
                    assert!(self.closed.insert(conn), "closed twice");
                }
                Output::Ask { conn, device } => self.asked.push((conn, device)),
                Output::Timeout(at) => {
                    assert!(self.base.routes_agree(), "the routes are not what the machine knows");
                    return at;
                }
            }
        }
    }

    /// Lets time pass, stopping at every deadline.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        let mut stops = 0;
        while let Some(at) = self.flush().filter(|&at| at <= end) {
            stops += 1;
            assert!(stops < 100_000, "the machine does not let time pass");
            self.now = self.now.max(at);
            self.base.handle_timeout(self.now);
        }
        self.now = end;
        self.base.handle_timeout(end);
        self.flush();
    }

    pub(crate) fn connect(&mut self, remote: SocketAddr) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let speaker = self.base.handle_accepted(conn, remote, &Self::udp_list(), self.now);
        self.speakers.insert(conn, speaker);
        self.flush();
        conn
    }

    /// Hands in encoded frames (lengths included), as they would come from a stream.
    pub(crate) fn send(&mut self, conn: ConnId, frames: &[u8]) {
        let mut rest = frames;
        while let Some((length, tail)) = rest.split_first_chunk::<LENGTH_LEN>() {
            let length = usize::from(u16::from_be_bytes(*length));
            assert!((1..=MAX_FRAME).contains(&length));
            let mut frame = tail[..length].to_vec();
            self.frame(conn, &mut frame);
            rest = &tail[length..];
        }
    }

    /// Hands in one frame (type and body).
    pub(crate) fn frame(&mut self, conn: ConnId, frame: &mut [u8]) -> Forward {
        let mut judged = frame.to_vec();
        let is_judged = self.judges && (self.workers_answer || frame.first() != Some(&INFO));
        let step = if is_judged { self.judge_frame(conn, &mut judged) } else { None };
        if let Some(Step::Pong(number)) = step {
            BaseFrame::Pong(number).write(self.written.entry(conn).or_default());
            return Forward::Nowhere;
        }
        let is_small = frame.len() <= relay::HEADER_LEN + 500;
        let forward = self.base.handle_frame(conn, frame, self.now);
        match (step, forward) {
            (Some(Step::Forward(judgement)), forward) => {
                assert_eq!(judgement, forward, "whoever reads the connection would forward it otherwise");
                assert_eq!(frame, judged);
            }
            // A small one may have ended a leg on UDP.
            (Some(step), Forward::Tcp { .. }) if !is_small => panic!("the reader would say {step:?}"),
            (Some(_) | None, _) => {}
        }
        self.flush();
        forward
    }

    pub(crate) fn speaker(&self, conn: ConnId) -> Arc<Speaker> {
        Arc::clone(&self.speakers[&conn])
    }

    /// What whoever reads a connection would do with a frame; `None` if it speaks for nobody.
    pub(crate) fn judge_frame(&self, conn: ConnId, frame: &mut [u8]) -> Option<Step> {
        let (routes, speaker) = (self.base.routes(), self.speakers.get(&conn)?);
        let mut talk = routes.talk(speaker, self.now)?;
        Some(talk.judge(frame))
    }

    pub(crate) fn write(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = Vec::new();
        write(&mut frames);
        self.send(conn, &frames);
    }

    /// What the base wrote to a connection since this was asked last.
    pub(crate) fn read(&mut self, conn: ConnId) -> Vec<BaseFrame<'static>> {
        let bytes: &'static [u8] = self.written.remove(&conn).unwrap_or_default().leak();
        let mut rest = bytes;
        let mut frames = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<LENGTH_LEN>() {
            let length = usize::from(u16::from_be_bytes(*length));
            frames.push(BaseFrame::decode(&tail[..length]).expect("the base writes well-formed frames"));
            rest = &tail[length..];
        }
        frames
    }

    /// The code of the one ERROR that ended a connection.
    pub(crate) fn error(&mut self, conn: ConnId) -> (ErrorCode, u16) {
        let frames = self.read(conn);
        match frames.last() {
            Some(BaseFrame::Error(e)) if self.closed.contains(&conn) => (e.code, e.retry_after),
            _ => panic!("no ERROR and close, but {frames:?}"),
        }
    }

    pub(crate) fn cookie(&mut self, conn: ConnId) -> Cookie {
        self.write(conn, |out| GetCookie { highest_version: 1, capabilities: 0 }.write(out));
        match self.read(conn).as_slice() {
            [BaseFrame::BaseHello(hello)] => {
                assert_eq!((hello.base, hello.cluster, hello.version), (self.id, self.id, 1));
                hello.cookie
            }
            other => panic!("no BASE-HELLO, but {other:?}"),
        }
    }

    /// Connects and sends a REGISTER; what comes of it is for the caller to read.
    pub(crate) fn try_register(&mut self, host: &mut Host) {
        host.conn = self.connect(host.tcp);
        host.cookie = self.cookie(host.conn);
        host.attempt += 1;
        host.number = 0;
        let (id, cookie) = (self.id, host.cookie);
        self.write(host.conn, |out| host.register().write(out, &host.key, id, &cookie));
    }

    pub(crate) fn register(&mut self, host: &mut Host) -> Registered {
        self.try_register(host);
        match self.read(host.conn).as_slice() {
            [BaseFrame::Registered(registered), ..] => registered.clone(),
            other => panic!("no REGISTERED, but {other:?}"),
        }
    }

    /// Registers with INFO, and a confirmed and padded UDP leg.
    pub(crate) fn join(&mut self, host: &mut Host) {
        self.register(host);
        self.info(host);
        self.read(host.conn);
        self.confirm_udp(host);
    }

    pub(crate) fn info(&mut self, host: &mut Host) {
        let number = host.next_number();
        let (master_key, own) = (host.master, host.own.clone());
        self.write(host.conn, |out| Info { number, master_key, own }.write(out));
    }

    /// Sends a datagram as it is.
    pub(crate) fn datagram(&mut self, via: Via, from: SocketAddr, datagram: &[u8]) -> Forward {
        let (mut datagram, mut judged) = (datagram.to_vec(), datagram.to_vec());
        // A budget is spent by whoever asks: with one, the machine alone is asked.
        let is_judged = self.judges && (self.workers_answer || datagram.first() != Some(&NAT_INIT));
        let copied = self.copy.judge(via, from, &datagram, self.now);
        let verdict = is_judged.then(|| self.base.routes().reader().judge(via, from, &mut judged, self.now));
        if let Some(Verdict::Answer { skip }) = verdict {
            self.answered_by_worker += 1;
            self.datagrams.push((via, from, judged[skip..].to_vec()));
            return Forward::Nowhere;
        }
        let forward = self.base.handle_datagram(via, from, &mut datagram, self.now);
        match (verdict, forward) {
            (None, Forward::Udp { via, to }) => {
                let copied = copied.map(|(leg, message)| (leg.via, leg.to, message));
                assert_eq!(copied, Some((via, to, datagram)), "who follows the routes would do otherwise");
            }
            (None, _) => assert!(copied.is_none(), "the base would not do {copied:?}"),
            (Some(Verdict::Forward { via, to }), forward) => {
                assert_eq!(forward, Forward::Udp { via, to }, "a worker would forward it otherwise");
                assert_eq!(datagram, judged);
                let copied = copied.map(|(leg, message)| (leg.via, leg.to, message));
                assert_eq!(copied, Some((via, to, judged)), "who follows the routes would do otherwise");
            }
            (Some(verdict), _) if copied.is_some() => {
                panic!("a worker would say {verdict:?}, not {copied:?}")
            }
            (Some(verdict), Forward::Udp { .. }) => panic!("a worker would say {verdict:?}"),
            (Some(_), _) => {}
        }
        self.flush();
        forward
    }

    /// NAT-INITs that were answered without a look at their signature.
    pub(crate) fn unverified(&self) -> u64 {
        self.base.counters().nat_init_unverified + self.answered_by_worker
    }

    /// The NAT-INIT this host sends next.
    pub(crate) fn nat_init_bytes(&self, host: &mut Host, via: Via, length: usize) -> Vec<u8> {
        let init = NatInit { cookie: host.cookie, seq: host.next_number(), own: host.own.clone() };
        init.encode(&host.key, self.id, via.socket.0 as u8, length)
    }

    /// A NAT-INIT from the host's UDP address, and the NAT-OK it draws, if any.
    pub(crate) fn nat_init(&mut self, host: &mut Host, via: Via, length: usize) -> Option<NatOk> {
        let bytes = self.nat_init_bytes(host, via, length);
        self.exchange(via, host.udp, &bytes)
    }

    /// Sends a datagram; the NAT-OK that comes back to that address.
    pub(crate) fn exchange(&mut self, via: Via, from: SocketAddr, datagram: &[u8]) -> Option<NatOk> {
        self.datagrams.clear();
        self.datagram(via, from, datagram);
        let (back, to, bytes) = self.datagrams.pop()?;
        assert_eq!((back, to), (via, from), "answers go back the way they came");
        assert!(bytes.len() <= datagram.len(), "amplified");
        (bytes.len() >= NAT_OK_LEN).then(|| NatOk::decode(&bytes).unwrap())
    }

    pub(crate) fn nat_confirm(&mut self, host: &Host, via: Via, ok: &NatOk) -> Option<NatOk> {
        let confirm = NatConfirm { cookie: ok.cookie, seq: ok.seq, challenge: ok.challenge };
        self.exchange(via, host.udp, &confirm.encode())
    }

    /// A padded NAT-INIT and the NAT-CONFIRM of its answer.
    pub(crate) fn confirm_udp(&mut self, host: &mut Host) {
        self.confirm_udp_with(host, PADDED_LEN);
    }

    pub(crate) fn confirm_udp_with(&mut self, host: &mut Host, length: usize) {
        let ok = self.nat_init(host, FIRST, length).expect("NAT-OK");
        assert_eq!(ok.seen, host.udp);
        let ok = self.nat_confirm(host, FIRST, &ok).expect("NAT-OK of the NAT-CONFIRM");
        assert!(ok.confirmed);
    }

    pub(crate) fn request(&mut self, from: &Host, about: &Host) {
        self.write(from.conn, |out| tcp::write_request_info(out, about.id));
    }

    pub(crate) fn release(&mut self, from: &Host, about: &Host) {
        self.write(from.conn, |out| tcp::write_release_info(out, about.id));
    }

    /// Both want each other; what they were told is read away.
    pub(crate) fn befriend(&mut self, a: &Host, b: &Host) {
        self.request(a, b);
        self.request(b, a);
        self.read(a.conn);
        self.read(b.conn);
    }

    /// The DEVICE-ADDRESSES that a host got since this was asked last.
    pub(crate) fn told(&mut self, host: &Host) -> Vec<DeviceAddresses> {
        let frames = self.read(host.conn).into_iter();
        frames.filter_map(|f| if let BaseFrame::DeviceAddresses(a) = f { Some(a) } else { None }).collect()
    }

    /// The WANTEDs that a host got since this was asked last.
    pub(crate) fn wanted(&mut self, host: &Host) -> Vec<DeviceId> {
        let frames = self.read(host.conn).into_iter();
        frames.filter_map(|f| if let BaseFrame::Wanted(id) = f { Some(id) } else { None }).collect()
    }

    /// The UNREACHABLEs that a host got since this was asked last.
    pub(crate) fn unreachable(&mut self, host: &Host) -> Vec<(DeviceId, UnreachableReason)> {
        let frames = self.read(host.conn).into_iter();
        frames
            .filter_map(|f| if let BaseFrame::Unreachable(id, r) = f { Some((id, r)) } else { None })
            .collect()
    }

    /// Relays data over TCP.
    pub(crate) fn data_tcp(&mut self, from: &Host, to: DeviceId, length: usize) -> Forward {
        self.frame(from.conn, &mut send_data(to, length))
    }

    /// Relays data over UDP.
    pub(crate) fn data_udp(&mut self, from: &Host, to: DeviceId, length: usize) -> Forward {
        self.datagram(FIRST, from.udp, &send_data(to, length))
    }
}

/// A SEND-DATA with so many bytes of data.
pub(crate) fn send_data(to: DeviceId, length: usize) -> Vec<u8> {
    let mut message = relay::header(SEND_DATA, to).to_vec();
    message.resize(relay::HEADER_LEN + length, 0xda);
    message
}

pub(crate) fn over_udp(forward: Forward) -> Option<SocketAddr> {
    if let Forward::Udp { to, .. } = forward { Some(to) } else { None }
}

pub(crate) fn over_tcp(forward: Forward) -> Option<ConnId> {
    if let Forward::Tcp { conn, .. } = forward { Some(conn) } else { None }
}
