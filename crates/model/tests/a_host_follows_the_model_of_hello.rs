//! A real host in bert's place, led along ways through the model of HELLO: the same datagrams are drawn, and every source
//! address stands for the same peer.
//!
//! The host never sends to anna: it only asks nobody and answers, so that no schedule of its own comes in between. What it
//! draws of itself later (rounds, probes of size) is no part of the model and not looked at.

mod ways;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bowline_model::{
    find,
    handshake::{
        ADDRESSES, Action, Address, Attacker, Datagram, Device, Message, Scenario, Token, Weakening,
    },
};
use bowline_proto::{
    SecretKey,
    host::{Host, HostConfig, Interface, Network, Output, config},
    wire::{
        self,
        peer::{
            HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, IntroductionKey, PeerDatagram, SAYING_HELLO_LEN,
        },
    },
};
use stateright::Model;

const DEVICES: [Device; 3] = [Device::Anna, Device::Bert, Device::Mallory];
const BERT: usize = 1;

struct World {
    host: Host,
    now: Instant,
    keys: [SecretKey; 3],
    /// Tokens of the real host's HELLOs, by their number in the model.
    tokens: HashMap<Token, wire::Token>,
    /// HELLOs handed in since the last tick, by source: strangers have a budget.
    hellos: HashMap<Address, usize>,
    /// HELLOs of mallory's own so far: each has a token that was never heard.
    own: u32,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let keys = DEVICES.map(|device| SecretKey::from_seed(&[1 + device as u8; 32]));
        let config = HostConfig { link_local: false, ..HostConfig::default() };
        let mut host = Host::new(config, SecretKey::from_seed(&[1 + BERT as u8; 32]), [7; 32], now);
        let interface = Interface {
            index: 1,
            name: "eth0".to_owned(),
            loopback: false,
            multicast: false,
            default_v4: true,
            default_v6: false,
            preferred: false,
            addresses: vec![(address(Address::Bert).ip(), 24)],
            routes: vec![],
        };
        host.handle_network(Network { interfaces: vec![interface], port_v4: Some(4000), port_v6: None }, now);
        let mut world = Self { host, now, keys, tokens: HashMap::new(), hellos: HashMap::new(), own: 0 };
        world.drain();
        world
    }

    fn drain(&mut self) -> (Vec<(SocketAddr, Vec<u8>)>, Option<Instant>) {
        let mut sent = Vec::new();
        loop {
            match self.host.poll_output(self.now) {
                Output::Transmit { to, payload, .. } => sent.push((to, payload.to_vec())),
                Output::Timeout(at) => return (sent, at),
                _ => {}
            }
        }
    }

    /// What happens to bert, and what he sends because of it; nothing of what happens elsewhere.
    fn act(&mut self, action: Action, expected: &[Datagram]) -> Option<Vec<Datagram>> {
        match action {
            Action::Tick => {
                self.pass();
                None
            }
            Action::Arrives(datagram) | Action::Attack(datagram) if datagram.to == Address::Bert => {
                Some(self.arrive(datagram, expected))
            }
            _ => None,
        }
    }

    fn arrive(&mut self, datagram: Datagram, expected: &[Datagram]) -> Vec<Datagram> {
        if matches!(datagram.message, Message::Hello { .. }) {
            *self.hellos.entry(datagram.from).or_default() += 1;
        }
        let bytes = self.bytes(datagram.message);
        let local: IpAddr = address(Address::Bert).ip();
        let delivered = self.host.handle_datagram(Some(local), address(datagram.from), &bytes, self.now);
        assert!(delivered.is_none(), "no handshake is data");
        let (sent, _) = self.drain();
        let mut out = Vec::new();
        for (to, payload) in sent {
            let to = ADDRESSES.into_iter().find(|&at| address(at) == to).expect("a known address");
            let message = match PeerDatagram::decode(&payload).unwrap() {
                PeerDatagram::Hello(hello) if payload.len() == SAYING_HELLO_LEN => {
                    let responder = self.device(hello.claim().responder);
                    let token = self.new_token(hello.claim().token, expected);
                    Message::Hello { initiator: Device::Bert, responder, token }
                }
                // A probe of size on a path that stands.
                PeerDatagram::Hello(_) => continue,
                PeerDatagram::HelloReply(reply) => {
                    assert!(
                        HELLO_REPLY_LEN == payload.len() && payload.len() < bytes.len(),
                        "an answer is shorter"
                    );
                    let initiator = self.device(reply.claim().initiator);
                    let token = self.token_of(reply.claim().token);
                    Message::Reply { initiator, responder: Device::Bert, token }
                }
                other => panic!("unexpected {other:?}"),
            };
            out.push(Datagram { from: Address::Bert, to, message });
        }
        out
    }

    /// A HELLO that the model sends, too, has the model's number.
    fn new_token(&mut self, real: wire::Token, expected: &[Datagram]) -> Token {
        let token = expected.iter().find_map(|d| match d.message {
            Message::Hello { initiator: Device::Bert, token, .. } => Some(token),
            _ => None,
        });
        let token = token.unwrap_or((Device::Bert, u8::MAX));
        self.tokens.insert(token, real);
        token
    }

    fn token(&self, token: Token) -> wire::Token {
        match self.tokens.get(&token) {
            Some(&real) => real,
            None => [token.0 as u8 + 1, token.1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
        }
    }

    fn token_of(&self, real: wire::Token) -> Token {
        (DEVICES[usize::from(real[0] - 1)], real[1])
    }

    fn device(&self, id: bowline_proto::DeviceId) -> Device {
        DEVICES[self.keys.iter().position(|key| key.device_id() == id).expect("one of ours")]
    }

    fn bytes(&mut self, message: Message) -> Vec<u8> {
        let keys = self.keys.clone();
        let key = |device: Device| &keys[device as usize];
        match message {
            Message::Hello { initiator, responder, token } => {
                let to = key(responder).device_id();
                let mut real = self.token(token);
                if token.0 == Device::Mallory {
                    self.own += 1;
                    real[2..6].copy_from_slice(&self.own.to_be_bytes());
                }
                // In a model without signatures mallory signs himself, in another's name.
                let forged = initiator != Device::Mallory && token.0 == Device::Mallory;
                let mut bytes = Hello::encode(to, real, &IntroductionKey::NONE, key(initiator), 0, 0);
                if forged {
                    bytes[HELLO_LEN - 1] ^= 1;
                }
                bytes
            }
            Message::Reply { initiator, responder, token } => {
                HelloReply::encode(key(initiator).device_id(), self.token(token), key(responder))
            }
        }
    }

    /// A tick: claims and tokens are gone after one, proofs after two.
    fn pass(&mut self) {
        self.hellos.clear();
        let end = self.now + config::PROOF_LIFE / 2;
        let mut stops = 0;
        while let (_, Some(at)) = self.drain()
            && at <= end
        {
            stops += 1;
            assert!(stops < 10_000, "the machine lets time pass");
            self.now = self.now.max(at);
            self.host.handle_timeout(self.now);
        }
        self.now = end;
        self.host.handle_timeout(end);
        self.drain();
    }

    /// Whom data from there is taken for.
    fn owner(&mut self, at: Address) -> Option<Device> {
        let local: IpAddr = address(Address::Bert).ip();
        let from = self.host.handle_datagram(Some(local), address(at), b"data", self.now).map(|d| d.from);
        self.drain();
        from.map(|id| self.device(id))
    }

    fn over_budget(&self) -> bool {
        let most = config::STRANGER_SOURCE.burst as usize;
        self.hellos.values().any(|&n| n > most) || self.hellos.values().sum::<usize>() > 2 * most
    }
}

fn address(at: Address) -> SocketAddr {
    // Bert's address is one of his interface, the others are far.
    SocketAddr::from(([198, 51, 100 + 2 * at as u8, 1 + at as u8], 4000))
}

/// Leads a host along a way: how many steps were compared, or where the two differ.
fn follow(scenario: &Scenario, way: &[Action]) -> Result<usize, String> {
    let mut world = World::new();
    let mut state = scenario.init_states().remove(0);
    for (done, &action) in way.iter().enumerate() {
        let (next, expected) = scenario.step(&state, action);
        if let Some(out) = world.act(action, &expected) {
            if world.over_budget() {
                // Budgets are no part of the model.
                return Ok(done);
            }
            if out != expected {
                return Err(format!("step {done} of {way:#?}: {out:?}, where the model sends {expected:?}"));
            }
        }
        for at in ADDRESSES.into_iter().filter(|&at| at != Address::Bert) {
            let (real, owner) = (world.owner(at), next.hosts[BERT].owner(at).map(|(owner, _)| owner));
            if real != owner {
                return Err(format!(
                    "{at:?} after step {done} of {way:#?}: stands for {real:?}, in the model for {owner:?}"
                ));
            }
        }
        state = next;
    }
    Ok(way.len())
}

fn follow_all(scenario: &Scenario, states: usize, walks: u64) -> Result<usize, String> {
    let short = ways::every_step(scenario, states).into_iter();
    let long = (0..walks).map(|seed| ways::random(scenario, seed, 40));
    short.chain(long).try_fold(0, |steps, way| Ok(steps + follow(scenario, &way)?))
}

/// Bert sends nothing on a schedule, and wants nobody.
fn silent(scenario: Scenario) -> Scenario {
    Scenario { hellos: [scenario.hellos[0], 0], wanting: false, ..scenario }
}

fn scenarios() -> Vec<Scenario> {
    let all = [
        Scenario { hellos: [3, 0], tokens: 6, moves: true, ticks: 3, ..Scenario::quiet() },
        Scenario {
            attacker: Attacker::OnPath,
            hellos: [2, 0],
            tokens: 4,
            own_hellos: 3,
            ticks: 3,
            ..Scenario::quiet()
        },
        Scenario { attacker: Attacker::Replayer, tokens: 4, own_hellos: 2, moves: true, ..Scenario::quiet() },
    ];
    all.into_iter().map(silent).collect()
}

#[test]
fn the_model_s_ticks_are_in_the_order_of_the_real_times() {
    assert_eq!(config::CLAIM_LIFE, config::TOKEN_LIFE);
    assert!(config::PROOF_LIFE > 2 * config::CLAIM_LIFE);
    assert!(config::DRAWN.every <= Duration::from_secs(1) && config::DRAWN.burst == 1);
}

#[test]
fn every_short_way_and_long_random_ones_lead_a_host_where_they_lead_the_model() {
    let steps = scenarios().iter().map(|s| follow_all(s, 60, 60)).sum::<Result<usize, String>>();
    let steps = steps.unwrap_or_else(|differs| panic!("{differs}"));
    assert!(steps > 5_000, "{steps} steps compared");
}

#[test]
fn a_host_does_not_go_where_a_model_that_lacks_a_rule_goes() {
    // Ladders are the host's own doing, and data goes where the host decides: nothing that comes in shows them.
    let shown = |rule: &Weakening| !matches!(rule, Weakening::LadderToClaims | Weakening::HelloMakesPath);
    for rule in Weakening::ALL.into_iter().filter(shown) {
        let scenario = silent(Scenario { hellos: [1, 0], ..rule.shown() });
        let differs = match find(scenario.clone(), rule.breaks()) {
            Some(way) if follow(&scenario, &way).is_err() => true,
            // The way shows it at anna; some way shows it at bert.
            Some(_) | None => follow_all(&scenario, 200, 300).is_err(),
        };
        assert!(differs, "{rule:?} makes no difference");
    }
}
