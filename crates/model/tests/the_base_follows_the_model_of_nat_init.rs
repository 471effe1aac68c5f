//! The real base, led along ways through the model of NAT-INIT: the same answers, the same address for relayed data, the same
//! owner of every source address.

mod ways;

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bowline_model::{
    find,
    nat::{
        ADDRESSES, Action, Address, Attacker, Challenge, Cookie, Datagram, Device, Message, NatOk, Scenario,
        WINDOW, Weakening,
    },
};
use bowline_proto::{
    DeviceId, SecretKey,
    base::{Base, BaseConfig, ConnId, Forward, Output, SocketId, UdpAddress, Via},
    wire::{
        self,
        frame::LENGTH_LEN,
        relay::{self, HEADER_LEN, SEND_DATA},
        tcp::{BaseFrame, GetCookie, Info, Register},
        udp::{self, NAT_OK_LEN, NatConfirm, NatInit},
    },
};
use stateright::Model;

/// The host, the attacker's device, and one that only sends messages to them.
const SEEDS: [u8; 3] = [1, 2, 3];
const PROBE: usize = 2;

struct World {
    base: Base,
    id: DeviceId,
    now: Instant,
    keys: [SecretKey; 3],
    conns: [ConnId; 3],
    cookies: HashMap<Cookie, wire::Cookie>,
    challenges: HashMap<Challenge, [u8; 8]>,
    next_conn: u64,
    /// Real seqs are so many times those of the model.
    scale: u64,
    tick: Duration,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let id = SecretKey::from_seed(&[0xba; 32]).device_id();
        let scale = ways::documented("base::UNVERIFIED_SEQS").parse::<u64>().unwrap() / u64::from(WINDOW);
        let mut world = Self {
            base: Base::new(BaseConfig::default(), id, [7; 32], now),
            id,
            now,
            keys: SEEDS.map(|seed| SecretKey::from_seed(&[seed; 32])),
            conns: [ConnId(0); 3],
            cookies: HashMap::new(),
            challenges: HashMap::new(),
            next_conn: 0,
            scale,
            tick: Duration::from_secs(ways::seconds("base::UDP_FRESH")),
        };
        for who in 0..SEEDS.len() {
            let cookie = world.register(who, 1);
            if who != PROBE {
                world.cookies.insert(Cookie { device: device(who), session: 0 }, cookie);
            }
        }
        world
    }

    fn register(&mut self, who: usize, attempt: u32) -> wire::Cookie {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let udp = [0, 1].map(|n| UdpAddress {
            address: SocketAddr::from(([192, 0, 2, 200], 4477 + 2 * n)),
            socket: SocketId(n),
        });
        self.base.handle_accepted(conn, SocketAddr::from(([192, 0, 2, SEEDS[who]], 40_000)), &udp, self.now);
        let mut frame = Vec::new();
        GetCookie { highest_version: 1, capabilities: 0 }.write(&mut frame);
        let said = self.frame(conn, &frame);
        let hello = BaseFrame::decode(&said[LENGTH_LEN..]).unwrap();
        let BaseFrame::BaseHello(hello) = hello else { panic!("no BASE-HELLO") };
        let key = &self.keys[who];
        let register = Register {
            device: key.device_id(),
            public_key: key.public(),
            boot: [1; 8],
            attempt,
            capabilities: 0,
            agent: String::new(),
        };
        frame.clear();
        register.write(&mut frame, key, self.id, &hello.cookie);
        let device = key.device_id();
        self.frame(conn, &frame);
        assert!(self.base.is_registered(device));
        self.conns[who] = conn;
        hello.cookie
    }

    /// Hands in a frame; what was written to that connection.
    fn frame(&mut self, conn: ConnId, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame[LENGTH_LEN..].to_vec();
        let _ = self.base.handle_frame(conn, &mut frame, self.now);
        let mut said = Vec::new();
        loop {
            match self.base.poll_output(self.now) {
                Output::Write { conn: to, frames } if to == conn => said.extend(frames),
                Output::Timeout(_) => return said,
                _ => {}
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<NatOk> {
        match action {
            Action::Tick => self.pass(),
            Action::HostRegisters => {
                let session = self.cookies.keys().filter(|c| c.device == Device::Host).count() as u8;
                let cookie = self.register(0, u32::from(session) + 1);
                self.cookies.insert(Cookie { device: Device::Host, session }, cookie);
            }
            _ => return action.datagram().and_then(|datagram| self.arrive(datagram)),
        }
        None
    }

    /// All hosts say that they live, and time passes.
    fn pass(&mut self) {
        for who in 0..SEEDS.len() {
            let mut frame = Vec::new();
            Info { number: 0, master_key: [0; 16], own: vec![] }.write(&mut frame);
            self.frame(self.conns[who], &frame);
        }
        let end = self.now + self.tick;
        loop {
            match self.base.poll_output(self.now) {
                Output::Timeout(Some(at)) if at <= end => {
                    self.now = self.now.max(at);
                    self.base.handle_timeout(self.now);
                }
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        self.now = end;
        self.base.handle_timeout(end);
        while !matches!(self.base.poll_output(self.now), Output::Timeout(_)) {}
    }

    fn bytes(&self, message: Message) -> Vec<u8> {
        match message {
            Message::Init(init) => {
                let own = vec![SocketAddr::from(([10, 0, 0, init.list], 50_000))];
                let cookie = self.cookies[&init.cookie];
                let real = NatInit { cookie, seq: u64::from(init.seq) * self.scale, own };
                let key =
                    if init.signed { &self.keys[init.cookie.device as usize] } else { &self.keys[PROBE] };
                real.encode(key, self.id, init.index, 0)
            }
            Message::Confirm(confirm) => {
                let cookie = self.cookies[&confirm.cookie];
                let seq = u64::from(confirm.seq) * self.scale;
                NatConfirm { cookie, seq, challenge: self.challenges[&confirm.challenge] }.encode()
            }
        }
    }

    /// Hands in a datagram; the NAT-OK that comes back, in the model's words.
    fn arrive(&mut self, datagram: Datagram) -> Option<NatOk> {
        let mut bytes = self.bytes(datagram.message);
        let cause = bytes.len();
        let via = Via { socket: SocketId(datagram.index.into()), ip: None };
        let _ = self.base.handle_datagram(via, address(datagram.from), &mut bytes, self.now);
        let mut answer = None;
        loop {
            match self.base.poll_output(self.now) {
                Output::Transmit { via, to, payload } => {
                    assert!(payload.len() <= cause, "an answer is never longer than its cause");
                    if payload.len() >= NAT_OK_LEN {
                        assert!(answer.is_none(), "one answer at most");
                        answer = Some(self.ok(via, to, &payload));
                    }
                }
                Output::Timeout(_) => return answer,
                Output::Write { .. } | Output::Close { .. } | Output::Ask { .. } | Output::Bus(_) => {}
            }
        }
    }

    fn ok(&mut self, via: Via, to: SocketAddr, payload: &[u8]) -> NatOk {
        let ok = udp::NatOk::decode(payload).unwrap();
        assert_eq!(ok.seen, to);
        let cookie = *self.cookies.iter().find(|(_, real)| **real == ok.cookie).expect("a known cookie").0;
        let to = ADDRESSES.into_iter().find(|&a| address(a) == to).expect("a known address");
        let index = via.socket.0 as u8;
        let challenge = Challenge { cookie, index, to };
        let before = self.challenges.insert(challenge, ok.challenge);
        assert!(before.is_none_or(|before| before == ok.challenge), "nothing is stored for a challenge");
        let seq = (ok.seq / self.scale) as u8;
        NatOk { to, index, cookie, seq, challenge, confirmed: ok.confirmed }
    }

    /// Where a small message to a device goes over UDP.
    fn leg(&mut self, who: usize) -> Option<(u8, Address)> {
        let mut message = relay::header(SEND_DATA, self.keys[who].device_id()).to_vec();
        message.push(0xda);
        match self.base.handle_frame(self.conns[PROBE], &mut message, self.now) {
            Forward::Udp { via, to } => {
                let to = ADDRESSES.into_iter().find(|&a| address(a) == to).expect("a known address");
                Some((via.socket.0 as u8, to))
            }
            Forward::Tcp { .. } | Forward::Base(_) | Forward::Nowhere => None,
        }
    }

    /// Whom a message from there is taken to come from.
    fn holder(&mut self, index: u8, at: Address) -> Option<Device> {
        let mut message = relay::header(SEND_DATA, self.keys[PROBE].device_id()).to_vec();
        message.push(0xda);
        let via = Via { socket: SocketId(index.into()), ip: None };
        match self.base.handle_datagram(via, address(at), &mut message, self.now) {
            Forward::Nowhere => None,
            Forward::Udp { .. } | Forward::Tcp { .. } | Forward::Base(_) => {
                let from = &message[1..HEADER_LEN];
                let who = self.keys.iter().position(|key| key.device_id().as_bytes() == from);
                Some(device(who.expect("one of ours")))
            }
        }
    }
}

fn device(who: usize) -> Device {
    if who == 0 { Device::Host } else { Device::Other }
}

fn address(at: Address) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1 + at as u8], 50_000))
}

/// Leads a base along a way: how many steps were compared, or where the two differ.
fn follow(scenario: &Scenario, way: &[Action]) -> Result<usize, String> {
    let mut world = World::new();
    let mut state = scenario.init_states().remove(0);
    for (done, &action) in way.iter().enumerate() {
        let (next, expected) = scenario.step(&state, action);
        let answer = world.act(action);
        if world.base.counters().nat_init_over_rate > 0 {
            // Budgets are no part of the model.
            return Ok(done);
        }
        if answer != expected {
            return Err(format!("step {done} of {way:#?}: {answer:?}, where the model answers {expected:?}"));
        }
        for (who, device) in [(0, Device::Host), (1, Device::Other)] {
            let leg = next.base.location(device).leg().map(|leg| (leg.index, leg.at));
            let real = world.leg(who);
            if real != leg {
                return Err(format!(
                    "{device:?} after step {done} of {way:#?}: {real:?}, in the model {leg:?}"
                ));
            }
        }
        state = next;
    }
    // Last, since a message keeps a binding alive.
    for index in 0..scenario.indices {
        for at in ADDRESSES {
            let (real, holder) = (world.holder(index, at), state.base.holder(index, at));
            if real != holder {
                return Err(format!("{at:?} after {way:#?}: {real:?} holds it, in the model {holder:?}"));
            }
        }
    }
    Ok(way.len())
}

fn follow_all(scenario: &Scenario, states: usize, walks: u64) -> Result<usize, String> {
    let short = ways::every_step(scenario, states).into_iter();
    let long = (0..walks).map(|seed| ways::random(scenario, seed, 40));
    short.chain(long).try_fold(0, |steps, way| Ok(steps + follow(scenario, &way)?))
}

fn scenarios() -> Vec<Scenario> {
    let quiet = Scenario::quiet();
    vec![
        Scenario { attacker: Attacker::OnPath, inits: 5, moves: 2, ..quiet.clone() },
        Scenario { attacker: Attacker::Forger, inits: 4, moves: 2, ticks: 3, ..quiet.clone() },
        Scenario { attacker: Attacker::OnPath, inits: 4, moves: 2, sessions: 2, ..quiet.clone() },
        Scenario { attacker: Attacker::OnPath, inits: 6, indices: 2, sessions: 1, ..quiet.clone() },
        Scenario { attacker: Attacker::OnPath, other_inits: 4, hears_first: true, ticks: 3, ..quiet },
    ]
}

#[test]
fn the_model_s_ticks_and_window_are_in_the_order_of_the_real_ones() {
    let fresh = ways::seconds("base::UDP_FRESH");
    assert!(ways::seconds("base::BINDING_LIFE") > fresh && ways::seconds("base::BINDING_LIFE") <= 2 * fresh);
    assert_eq!(ways::seconds("base::INHERITED_LIFE"), fresh);
    assert_eq!(ways::documented("base::UNVERIFIED_SEQS").parse::<u64>().unwrap() % u64::from(WINDOW), 0);
}

#[test]
fn every_short_way_and_long_random_ones_lead_the_base_where_they_lead_the_model() {
    let steps = scenarios().iter().map(|s| follow_all(s, 50, 25)).sum::<Result<usize, String>>();
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
