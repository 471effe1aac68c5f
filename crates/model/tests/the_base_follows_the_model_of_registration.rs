//! The real base, led along ways through the model of registration: the same words on every connection, the same one
//! registered, the same binding.

mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bowline_model::{
    find,
    registration::{Action, BaseName, Conn, EvilBase, Owner, Register, Reply, Scenario, Weakening},
};
use bowline_proto::{
    DeviceId, SecretKey,
    base::{Base, BaseConfig, ConnId, Forward, Output, SocketId, UdpAddress, Via},
    wire::{
        Cookie,
        frame::LENGTH_LEN,
        relay::{self, SEND_DATA},
        tcp::{self, BaseFrame, ErrorCode, GetCookie, Info, NoticeCode},
        udp::{NAT_OK_LEN, NatConfirm, NatInit, NatOk},
    },
};
use stateright::Model;

const VIA: Via = Via { socket: SocketId(0), ip: None };
/// The connection of a device that only sends messages to the one in the model.
const PROBE: ConnId = ConnId(1_000);
/// Registered hosts send INFO more often than this.
const INFO_EVERY: Duration = Duration::from_secs(30);

struct World {
    base: Base,
    id: DeviceId,
    evil: DeviceId,
    now: Instant,
    key: SecretKey,
    cookies: Vec<Cookie>,
    owners: Vec<Owner>,
    on_its_way: BTreeMap<u8, Register>,
    attempts: BTreeMap<u8, u8>,
    seqs: BTreeMap<u8, u64>,
    speaking: BTreeSet<u8>,
    open: BTreeSet<u8>,
    /// What was said since the last action.
    said: Vec<(u8, Reply)>,
    datagrams: Vec<Vec<u8>>,
    notices: usize,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let id = SecretKey::from_seed(&[0xba; 32]).device_id();
        let mut world = Self {
            base: Base::new(BaseConfig::default(), id, [7; 32], now),
            id,
            evil: SecretKey::from_seed(&[0xe1; 32]).device_id(),
            now,
            key: SecretKey::from_seed(&[1; 32]),
            cookies: vec![],
            owners: vec![],
            on_its_way: BTreeMap::new(),
            attempts: BTreeMap::new(),
            seqs: BTreeMap::new(),
            speaking: BTreeSet::new(),
            open: BTreeSet::new(),
            said: vec![],
            datagrams: vec![],
            notices: 0,
        };
        let probe = SecretKey::from_seed(&[2; 32]);
        let cookie = world.connect(PROBE);
        let register = real_register(&probe, 1, 1);
        let mut frame = Vec::new();
        register.write(&mut frame, &probe, id, &cookie);
        world.frame(PROBE, &frame);
        assert!(world.base.is_registered(probe.device_id()));
        world
    }

    fn connect(&mut self, conn: ConnId) -> Cookie {
        let udp = [UdpAddress { address: SocketAddr::from(([192, 0, 2, 200], 4477)), socket: VIA.socket }];
        self.base.handle_accepted(conn, SocketAddr::from(([192, 0, 2, 1], 40_000)), &udp, self.now);
        let mut frame = Vec::new();
        GetCookie { highest_version: 1, capabilities: 0 }.write(&mut frame);
        let written = self.frame(conn, &frame);
        match BaseFrame::decode(&written[LENGTH_LEN..]).unwrap() {
            BaseFrame::BaseHello(hello) => hello.cookie,
            other => panic!("no BASE-HELLO, but {other:?}"),
        }
    }

    fn frame(&mut self, conn: ConnId, frame: &[u8]) -> Vec<u8> {
        let _ = self.base.handle_frame(conn, &mut frame[LENGTH_LEN..].to_vec(), self.now);
        self.drain().remove(&conn).unwrap_or_default()
    }

    /// Takes what the base wants sent, in the model's words; gives what was written, too.
    fn drain(&mut self) -> BTreeMap<ConnId, Vec<u8>> {
        let mut written: BTreeMap<ConnId, Vec<u8>> = BTreeMap::new();
        loop {
            match self.base.poll_output(self.now) {
                Output::Write { conn, frames } => written.entry(conn).or_default().extend(frames),
                Output::Close { conn } => {
                    self.open.remove(&(conn.0 as u8));
                    self.speaking.remove(&(conn.0 as u8));
                }
                Output::Bus(_) => {}
                Output::Transmit { payload, .. } => self.datagrams.push(payload),
                Output::Ask { .. } => panic!("this base asks nobody"),
                Output::Timeout(_) => break,
            }
        }
        for (conn, bytes) in written.iter().filter(|(conn, _)| **conn != PROBE) {
            self.hear(conn.0 as u8, bytes);
        }
        written
    }

    fn hear(&mut self, conn: u8, mut bytes: &[u8]) {
        while let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_LEN>() {
            let (frame, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
            bytes = rest;
            match BaseFrame::decode(frame).unwrap() {
                BaseFrame::Registered(_) => {
                    self.speaking.insert(conn);
                    self.said.push((conn, Reply::Registered));
                }
                BaseFrame::Error(error) => self.said.push((conn, Reply::Error(code(error.code)))),
                BaseFrame::Notice(notice) => {
                    assert_eq!(notice.code, NoticeCode::KeyInUse);
                    self.said.push((conn, Reply::KeyInUse));
                }
                BaseFrame::BaseHello(_) | BaseFrame::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.said.clear();
        match action {
            Action::Dials(owner) => {
                let number = self.cookies.len() as u8;
                let cookie = self.connect(ConnId(number.into()));
                self.cookies.push(cookie);
                self.owners.push(owner);
                self.open.insert(number);
            }
            Action::Sends(conn) => {
                let Owner::Boot(boot) = self.owners[usize::from(conn)] else { panic!("not a host's") };
                let attempt = self.next_attempt(boot);
                self.on_its_way.insert(conn, Register { base: BaseName::This, cookie: conn, boot, attempt });
            }
            Action::Signs(boot, ..) => {
                self.next_attempt(boot);
            }
            Action::Arrives(conn) => {
                let register = self.on_its_way.remove(&conn).expect("it was sent");
                self.register(conn, register);
            }
            Action::Replay(conn, register) => self.register(conn, register),
            Action::Lost(conn) => {
                self.open.remove(&conn);
                self.speaking.remove(&conn);
                self.base.handle_closed(ConnId(conn.into()), self.now);
                self.drain();
            }
            Action::Leaves(conn) => {
                let mut frame = Vec::new();
                tcp::write_leave(&mut frame);
                self.frame(ConnId(conn.into()), &frame);
            }
            Action::Udp(conn) => self.udp(conn),
            Action::Tick => self.pass(),
        }
    }

    fn next_attempt(&mut self, boot: u8) -> u8 {
        let attempt = self.attempts.entry(boot).or_default();
        *attempt += 1;
        *attempt
    }

    fn register(&mut self, conn: u8, register: Register) {
        let base = if register.base == BaseName::This { self.id } else { self.evil };
        let real = real_register(&self.key, register.boot, register.attempt);
        let mut frame = Vec::new();
        real.write(&mut frame, &self.key, base, &self.cookies[usize::from(register.cookie)]);
        self.frame(ConnId(conn.into()), &frame);
    }

    fn udp(&mut self, conn: u8) {
        let Owner::Boot(boot) = self.owners[usize::from(conn)] else { panic!("not a host's") };
        let cookie = self.cookies[usize::from(conn)];
        let seq = self.seqs.entry(conn).or_default();
        *seq += 1;
        let init = NatInit { cookie, seq: *seq, own: vec![] }.encode(&self.key, self.id, 0, 0);
        if let Some(ok) = self.exchange(boot, init) {
            let confirm = NatConfirm { cookie, seq: ok.seq, challenge: ok.challenge };
            self.exchange(boot, confirm.encode()).expect("it is confirmed");
        }
    }

    fn exchange(&mut self, boot: u8, mut datagram: Vec<u8>) -> Option<NatOk> {
        self.datagrams.clear();
        let _ = self.base.handle_datagram(VIA, address(boot), &mut datagram, self.now);
        self.drain();
        self.datagrams.pop().filter(|answer| answer.len() >= NAT_OK_LEN).map(|ok| NatOk::decode(&ok).unwrap())
    }

    /// Half of what a replaced boot is remembered for. Whoever is registered says so, over TCP.
    fn pass(&mut self) {
        self.notices = 0;
        let end = self.now + Duration::from_secs(ways::seconds("base::REPLACED_MEMORY")) / 2;
        while self.now < end {
            let speaking: Vec<ConnId> = self.speaking.iter().map(|&conn| ConnId(conn.into())).collect();
            for conn in speaking.into_iter().chain([PROBE]) {
                let mut frame = Vec::new();
                Info { number: 0, master_key: [0; 16], own: vec![] }.write(&mut frame);
                self.frame(conn, &frame);
            }
            self.now += INFO_EVERY;
            self.base.handle_timeout(self.now);
            self.drain();
        }
    }

    /// The boot at whose address a message to the device goes over UDP.
    fn binding(&mut self) -> Option<u8> {
        let mut message = relay::header(SEND_DATA, self.key.device_id()).to_vec();
        message.push(0xda);
        let forward = self.base.handle_frame(PROBE, &mut message, self.now);
        self.drain();
        match forward {
            Forward::Udp { to, .. } => (0..2).find(|&boot| address(boot) == to),
            Forward::Tcp { .. } | Forward::Base(_) | Forward::Nowhere => None,
        }
    }

    /// NOTICEs have a budget, which is no part of the model: after the first of a tick they may be missing.
    fn said_is(&mut self, mut expected: Vec<(u8, Reply)>) -> bool {
        let mut said = self.said.clone();
        let notices = expected.iter().filter(|(_, reply)| *reply == Reply::KeyInUse).count();
        if self.notices > 0 {
            said.retain(|(_, reply)| *reply != Reply::KeyInUse);
            expected.retain(|(_, reply)| *reply != Reply::KeyInUse);
        }
        self.notices += notices;
        said.sort_unstable();
        expected.sort_unstable();
        said == expected
    }
}

fn real_register(key: &SecretKey, boot: u8, attempt: u8) -> tcp::Register {
    tcp::Register {
        device: key.device_id(),
        public_key: key.public(),
        boot: [boot; 8],
        attempt: attempt.into(),
        capabilities: 0,
        agent: String::new(),
    }
}

fn address(boot: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, boot + 1], 50_000))
}

fn code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::Signature => 3,
        ErrorCode::Replaced => 8,
        ErrorCode::Cloned => 9,
        ErrorCode::Silent => 10,
        other => panic!("unexpected {other:?}"),
    }
}

/// Leads a base along a way: how many steps were compared, or where the two differ.
fn follow(scenario: &Scenario, way: &[Action]) -> Result<usize, String> {
    let mut world = World::new();
    let mut state = scenario.init_states().remove(0);
    for (done, &action) in way.iter().enumerate() {
        let (next, expected) = scenario.step(&state, action);
        state = next;
        world.act(action);
        let open: BTreeSet<u8> = numbers(&state, |conn| conn != Conn::Closed);
        let speaking = numbers(&state, |conn| conn == Conn::Registered);
        let same = world.said_is(expected.clone())
            && (&world.open, &world.speaking) == (&open, &speaking)
            && world.base.is_registered(world.key.device_id()) == state.device.is_some()
            && world.binding() == state.device.and_then(|d| d.binding);
        if !same {
            let (said, speaking) = (&world.said, &world.speaking);
            return Err(format!(
                "step {done} of {way:#?}: said {said:?}, where the model says {expected:?}; speaking {speaking:?}; {state:#?}"
            ));
        }
    }
    Ok(way.len())
}

fn numbers(state: &bowline_model::registration::State, which: impl Fn(Conn) -> bool) -> BTreeSet<u8> {
    let all = (0..).zip(&state.conns);
    all.filter(|(_, (_, conn))| which(*conn)).map(|(number, _)| number).collect()
}

fn follow_all(scenario: &Scenario, states: usize, walks: u64) -> Result<usize, String> {
    let short = ways::every_step(scenario, states).into_iter();
    let long = (0..walks).map(|seed| ways::random(scenario, seed, 40));
    short.chain(long).try_fold(0, |steps, way| Ok(steps + follow(scenario, &way)?))
}

fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { conns: 8, attempts: 6, ticks: 3, ..Scenario::quiet() },
        Scenario { conns: 6, attacker_conns: 3, attempts: 4, ..Scenario::quiet() },
        Scenario {
            conns: 5,
            attacker_conns: 2,
            attempts: 4,
            evil_base: EvilBase::IdKnown,
            ..Scenario::quiet()
        },
        Scenario {
            conns: 5,
            attacker_conns: 2,
            attempts: 4,
            evil_base: EvilBase::IdUnknown,
            ..Scenario::quiet()
        },
    ]
}

#[test]
fn every_short_way_and_long_random_ones_lead_the_base_where_they_lead_the_model() {
    let steps = scenarios().iter().map(|s| follow_all(s, 150, 50)).sum::<Result<usize, String>>();
    let steps = steps.unwrap_or_else(|differs| panic!("{differs}"));
    assert!(steps > 10_000, "{steps} steps compared");
}

#[test]
fn the_base_does_not_go_where_a_model_that_lacks_a_rule_goes() {
    for rule in Weakening::ALL {
        let way = find(rule.shown(), rule.breaks()).expect("the property fails without the rule");
        assert!(follow(&rule.shown(), &way).is_err(), "{rule:?}: the base went along {way:#?}");
    }
}
