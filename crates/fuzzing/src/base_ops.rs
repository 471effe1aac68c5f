//! Sequences of inputs on the base's machine: connections, frames, datagrams, time, in any order.
//!
//! A run plays four devices with real keys, so that signatures hold and the depth behind them is reached, and
//! strangers that send anything. After each step all output is drained and what the base promises is checked:
//! frames and datagrams are well-formed, closed connections stay silent, nobody who has not shown that he receives
//! gets more bytes than he sent, tables stay within their limits, and a timeout always brings progress.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId, SecretKey,
    base::{Base, BaseConfig, ConnId, Forward, Output, SocketId, Ticket, UdpAddress, Via},
    wire::{
        Cookie, Malformed,
        frame::{Frames, LENGTH_LEN},
        relay,
        tcp::{self, BaseFrame, GetCookie, Info, Register},
        udp::{BaseDatagram, NatConfirm, NatInit, NatOk, PADDED_LEN},
    },
};

use crate::input::Input;

const DEVICES: u8 = 4;
const MAX_CONNECTIONS: usize = 12;
const MAX_STEPS: usize = 300;
/// Outputs that one input may cause: pushes to all devices, with room.
const MAX_OUTPUTS: usize = 2_000;

/// Sequences of inputs on [`Base`].
pub fn base_ops(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.run_for(Duration::from_secs(200));
}

struct World {
    base: Base,
    id: DeviceId,
    config: BaseConfig,
    now: Instant,
    keys: Vec<SecretKey>,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    seq: u64,
    last_ok: Option<NatOk>,
    next_timeout: Option<Instant>,
    drained: bool,
}

#[derive(Default)]
struct Conn {
    cookie: Option<Cookie>,
    device: Option<u8>,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let mut config = BaseConfig::default();
        if input.bool() {
            // Small limits are reached by short runs.
            config.max_devices = 3;
            config.max_unfinished = 4;
            config.max_unfinished_per_source = 2;
            config.max_interests = 2;
            config.max_interests_in_all = 5;
            config.max_absent_interests = 2;
            config.max_replaced_boots = 2;
            config.max_sources = 4;
            config.relay_rate = Some(1_000);
        }
        let id = DeviceId::from_bytes([0xba; 14]);
        let now = Instant::now();
        let mut world = Self {
            base: Base::new(config.clone(), id, [7; 32], now),
            id,
            config,
            now,
            keys: (0..DEVICES).map(|n| SecretKey::from_seed(&[n + 1; 32])).collect(),
            conns: BTreeMap::new(),
            next_conn: 0,
            seq: 0,
            last_ok: None,
            next_timeout: None,
            drained: false,
        };
        world.drain_output(None);
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 20 {
            0 => self.accept(input),
            1 => self.frame(input, |out, _| GetCookie { highest_version: 1, capabilities: 0 }.write(out)),
            2..=4 => self.register(input),
            5 => self.info(input),
            6 => self.frame(input, |out, input| tcp::write_request_info(out, Self::some_id(input))),
            7 => self.frame(input, |out, input| tcp::write_release_info(out, Self::some_id(input))),
            8 => self.frame(input, |out, _| tcp::write_leave(out)),
            9 => self.send_data_tcp(input),
            10 | 11 => self.nat_init(input),
            12 | 13 => self.nat_confirm(input),
            14 => self.send_data_udp(input),
            15 => {
                let body = input.bytes().to_vec();
                if !body.is_empty() {
                    self.frame(input, |out, _| {
                        bowline_proto::wire::frame::write(out, |out| out.extend_from_slice(&body));
                    });
                }
            }
            16 => {
                let mut datagram = input.bytes().to_vec();
                self.datagram(input, &mut datagram);
            }
            17 => self.end_of_connection(input),
            18 => self.pass_time(input),
            _ => self.rare(input),
        }
    }

    fn some_conn(&self, input: &mut Input<'_>) -> Option<ConnId> {
        let at = input.below(self.conns.len());
        self.conns.keys().nth(at).copied()
    }

    /// A device's ID, or one that no key makes.
    fn some_id(input: &mut Input<'_>) -> DeviceId {
        match input.u8() % (DEVICES + 1) {
            n if n < DEVICES => SecretKey::from_seed(&[n + 1; 32]).device_id(),
            _ => DeviceId::from_bytes([input.u8(); 14]),
        }
    }

    fn via(input: &mut Input<'_>) -> Via {
        let ip = input.pick(&[None, Some([198, 51, 100, 1].into()), Some([198, 51, 100, 2].into())]);
        Via { socket: SocketId(u16::from(input.u8() % 3)), ip }
    }

    fn accept(&mut self, input: &mut Input<'_>) {
        if self.conns.len() >= MAX_CONNECTIONS {
            return;
        }
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let remote = input.unicast();
        let udp = [0, 1].map(|n| UdpAddress {
            address: SocketAddr::from(([0u16; 8], 4477 + 2 * n)),
            socket: SocketId(n),
        });
        self.conns.insert(conn, Conn::default());
        self.base.handle_accepted(conn, remote, &udp[..input.below(3)], self.now);
        self.drain_output(None);
    }

    /// Sends the frame that `write` makes over some connection.
    fn frame(&mut self, input: &mut Input<'_>, write: impl FnOnce(&mut Vec<u8>, &mut Input<'_>)) {
        let Some(conn) = self.some_conn(input) else { return };
        let mut out = Vec::new();
        write(&mut out, input);
        self.raw_frame(conn, out);
    }

    fn raw_frame(&mut self, conn: ConnId, mut frame: Vec<u8>) {
        let sent = frame[LENGTH_LEN..].to_vec();
        let forward = self.base.handle_frame(conn, &mut frame[LENGTH_LEN..], self.now);
        self.check_forward(forward, &sent, &frame[LENGTH_LEN..]);
        self.drain_output(None);
    }

    fn register(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.some_conn(input) else { return };
        let Some(cookie) = self.conns[&conn].cookie else {
            let mut out = Vec::new();
            GetCookie { highest_version: input.u8() | 1, capabilities: 0 }.write(&mut out);
            return self.raw_frame(conn, out);
        };
        let device = input.u8() % DEVICES;
        let key = self.keys[usize::from(device)].clone();
        let choice = input.u8();
        let register = Register {
            device: key.device_id(),
            public_key: key.public(),
            boot: [choice & 3; 8],
            attempt: u32::from(choice >> 2 & 7),
            capabilities: 0,
            agent: "fuzz".to_owned(),
        };
        // One in eight is signed for another base.
        let base = if choice >> 5 == 7 { DeviceId::from_bytes([1; 14]) } else { self.id };
        let mut out = Vec::new();
        register.write(&mut out, &key, base, &cookie);
        if let Some(state) = self.conns.get_mut(&conn) {
            state.device = Some(device);
        }
        self.raw_frame(conn, out);
    }

    fn info(&mut self, input: &mut Input<'_>) {
        self.seq += 1;
        let number = self.seq.saturating_sub(u64::from(input.u8() % 3));
        self.frame(input, |out, input| {
            Info { number, master_key: [input.u8(); 16], own: input.addrs(12) }.write(out);
        });
    }

    fn some_relayed(input: &mut Input<'_>) -> u8 {
        if input.bool() { relay::SEND_DATA } else { relay::SEND_JOINED }
    }

    fn send_data_tcp(&mut self, input: &mut Input<'_>) {
        let length = input.pick(&[0, 1, 500, 501, 1_200, 1_201, 16_000, 16_001, 16_369]);
        self.frame(input, |out, input| {
            let header = relay::header(Self::some_relayed(input), Self::some_id(input));
            bowline_proto::wire::frame::write(out, |out| {
                out.extend_from_slice(&header);
                out.resize(out.len() + length, 0xda);
            });
        });
    }

    fn send_data_udp(&mut self, input: &mut Input<'_>) {
        let length = input.pick(&[0, 1, 500, 501, 1_200, 1_201, 16_000, 16_001, 20_000]);
        let mut datagram = relay::header(Self::some_relayed(input), Self::some_id(input)).to_vec();
        datagram.resize(datagram.len() + length, 0xda);
        self.datagram(input, &mut datagram);
    }

    fn nat_init(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.some_conn(input) else { return };
        let Conn { cookie: Some(cookie), device: Some(device) } = self.conns[&conn] else { return };
        self.seq += 1;
        let choice = input.u8();
        let seq = match choice & 7 {
            0 => self.seq.saturating_sub(1),
            1 => u64::MAX,
            2 => self.seq + 20,
            _ => self.seq,
        };
        let init = NatInit { cookie, seq, own: input.addrs(3) };
        let padded = if choice & 8 != 0 { PADDED_LEN } else { 0 };
        let mut datagram = init.encode(&self.keys[usize::from(device)], self.id, choice >> 4 & 3, padded);
        if choice >> 6 == 3 {
            let at = input.below(82);
            datagram[at] ^= 1;
        }
        self.datagram(input, &mut datagram);
    }

    fn nat_confirm(&mut self, input: &mut Input<'_>) {
        let Some(ok) = self.last_ok else { return };
        let seq = ok.seq.wrapping_sub(u64::from(input.u8() % 3));
        let mut datagram = NatConfirm { cookie: ok.cookie, seq, challenge: ok.challenge }.encode();
        self.datagram(input, &mut datagram);
    }

    fn datagram(&mut self, input: &mut Input<'_>, datagram: &mut [u8]) {
        let (via, from) = (Self::via(input), input.unicast());
        let sent = datagram.to_vec();
        let forward = self.base.handle_datagram(via, from, datagram, self.now);
        assert!(self.base.routes_agree(), "the routes are not what the machine knows");
        self.check_forward(forward, &sent, datagram);
        self.drain_output(Some((via, from, sent.len())));
    }

    fn end_of_connection(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.some_conn(input) else { return };
        if input.bool() {
            self.base.handle_closed(conn, self.now);
            self.conns.remove(&conn);
        } else {
            self.base.handle_malformed(conn, Malformed::TooLong, self.now);
        }
        self.drain_output(None);
    }

    fn rare(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 if !self.drained => {
                self.drained = true;
                self.base.drain(u16::from(input.u8()), self.now);
            }
            1 => self.base.drain(0, self.now),
            _ => {
                let ticket = Ticket { from: Self::some_id(input), to: Self::some_id(input) };
                self.base.handle_overflow(ticket, 1, self.now);
            }
        }
        self.drain_output(None);
    }

    fn pass_time(&mut self, input: &mut Input<'_>) {
        let passed = input.pick(&[0, 1, 100, 251, 1_000, 2_000, 5_001, 10_001, 35_001, 61_000, 600_001]);
        self.run_for(Duration::from_millis(passed));
    }

    /// Lets time pass, stopping wherever the machine asked for it.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut wakes_at_once = 0;
        while let Some(due) = self.next_timeout.filter(|&due| due <= end) {
            wakes_at_once = if due <= self.now { wakes_at_once + 1 } else { 0 };
            assert!(wakes_at_once < 50, "a timeout without progress");
            self.now = self.now.max(due);
            self.base.handle_timeout(self.now);
            self.drain_output(None);
        }
        self.now = end;
    }

    /// Where a message goes on, it goes rewritten and nothing else of it has changed.
    fn check_forward(&self, forward: Forward, sent: &[u8], now: &[u8]) {
        match forward {
            Forward::Nowhere | Forward::Base(_) => return,
            Forward::Udp { to, .. } => assert!(to.port() != 0 && !to.ip().is_unspecified()),
            Forward::Tcp { conn, .. } => {
                assert!(self.conns.contains_key(&conn), "forwarded to a connection that is gone");
            }
        }
        let kinds = [(relay::SEND_DATA, relay::RECV_DATA), (relay::SEND_JOINED, relay::RECV_JOINED)];
        assert!(kinds.contains(&(sent[0], now[0])));
        assert_eq!(sent[relay::HEADER_LEN..], now[relay::HEADER_LEN..]);
        assert!(now.len() <= relay::HEADER_LEN + bowline_proto::wire::MAX_DATA);
        let source = relay::split(now).map(|(id, _)| id);
        assert!(
            self.keys.iter().any(|key| Ok(key.device_id()) == source),
            "from a device that never registered"
        );
    }

    /// Drains and checks all output; `cause` is the datagram that was handed in, by its source and length.
    fn drain_output(&mut self, cause: Option<(Via, SocketAddr, usize)>) {
        let mut answered = 0;
        for _ in 0..MAX_OUTPUTS {
            match self.base.poll_output(self.now) {
                Output::Transmit { via, to, payload } => {
                    let (cause_via, from, length) = cause.expect("a base sends datagrams only as answers");
                    let decoded = BaseDatagram::decode(&payload);
                    if matches!(decoded, Ok(BaseDatagram::MapOk(_))) {
                        assert_eq!(
                            (via, to.ip()),
                            (cause_via, from.ip()),
                            "to the IP that asks, and to no other"
                        );
                    } else {
                        assert_eq!((via, to), (cause_via, from), "answers go where the question came from");
                    }
                    answered += payload.len();
                    assert!(answered <= length, "an answer longer than its question");
                    match decoded {
                        Ok(BaseDatagram::NatOk(ok)) => self.last_ok = Some(ok),
                        Ok(BaseDatagram::NatUnknown | BaseDatagram::MapOk(_)) => {}
                        other => panic!("the base sent {other:?}"),
                    }
                }
                Output::Write { conn, frames } => self.read_frames(conn, &frames),
                Output::Bus(_) => unreachable!("a base alone has no bus"),
                Output::Close { conn } => {
                    assert!(self.conns.remove(&conn).is_some(), "closed twice");
                }
                Output::Ask { .. } => panic!("this base asks nobody"),
                Output::Timeout(at) => {
                    self.next_timeout = at;
                    return self.check_sizes();
                }
            }
        }
        panic!("endless output");
    }

    fn read_frames(&mut self, conn: ConnId, bytes: &[u8]) {
        let state = self.conns.get_mut(&conn).expect("writes go to open connections");
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(bytes);
        while let Some(frame) = frames.next_frame().expect("the base frames what it sends") {
            match BaseFrame::decode(&frame).expect("the base sends what is well-formed") {
                BaseFrame::BaseHello(hello) => state.cookie = Some(hello.cookie),
                BaseFrame::RecvData(..) | BaseFrame::RecvJoined(..) | BaseFrame::Unknown(_) => {
                    panic!("not a control frame")
                }
                _ => {}
            }
        }
        assert!(frames.buffer().is_empty(), "a frame was cut off");
    }

    fn check_sizes(&self) {
        let sizes = self.base.sizes();
        assert_eq!(sizes.over(&self.config), None);
        assert!(sizes.connections <= self.conns.len(), "the shell has closed the others");
    }
}
