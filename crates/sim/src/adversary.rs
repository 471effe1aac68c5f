//! Those who mean harm: somebody on the internet who listens and forges, a device that floods, a device that lies.
//!
//! The attacker sees what crosses the internet and sends what he likes from any source address, but is not in the path:
//! what he saw arrives nevertheless. He forges no *data* from another's address, since everyone who can forge addresses
//! can inject data (protocol section 12). Data from addresses of his own must not be taken for another's; but from one of
//! them he replays HELLOs, and there it may be as long as the protocol says. The device that floods and the one that lies are ordinary
//! hosts beside whose machine other bytes leave.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bowline_proto::{
    DeviceId, SecretKey,
    id::DEVICE_ID_LEN,
    identity::{Context, KnownKeys, SIGNATURE_LEN},
    wire::{
        MAX_OWN_ADDRESSES, Token,
        peer::{self, HELLO_LEN, Hello, IntroductionKey, MAGIC, PREFIX_LEN, PeerDatagram, unknown_source},
        relay,
        tcp::{self, Info},
        udp,
    },
};
use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    base_node::{PORT, SECOND_PORT},
    checks::{self, FORGED, MIN_MESSAGE, REPLAYED},
    packet::{Body, NodeId, Packet, Time},
    trace,
};

/// Datagrams that the attacker remembers, the latest ones.
const CAPTURED: usize = 64;
/// Identities that he has keys for: more than a host keeps of those who only ask.
const IDENTITIES: usize = 400;
/// Between two moves of the attacker, or of a device that floods.
pub const PAUSE: Duration = Duration::from_millis(20);
/// Where bases are.
const BASE_PORTS: [u16; 2] = [PORT, SECOND_PORT];
/// The ports of his own addresses: from one he says what he likes in his own name, from the other he replays HELLOs.
const HONEST_PORT: u16 = 666;
const REPLAY_PORT: u16 = 667;
/// A HELLO counts for five seconds after it came first, the claim it makes for five more; and the way there takes time.
const REPLAY_GAINS: Duration = Duration::from_secs(12);
/// A type of frame that no version has.
const UNKNOWN_TYPE: u8 = 0x7f;
/// Frames that a device that floods writes at once.
const FLOOD_FRAMES: usize = 8;

/// A datagram as it crossed the internet.
#[derive(Debug, Clone)]
struct Captured {
    src: SocketAddr,
    dst: SocketAddr,
    payload: Bytes,
}

/// A datagram that an attacker sends.
#[derive(Debug)]
pub struct Forged {
    /// The source it claims.
    pub src: SocketAddr,
    /// Where it goes.
    pub dst: SocketAddr,
    /// Its bytes.
    pub payload: Bytes,
}

impl Forged {
    /// What is in it, if it is a HELLO as its initiator signed it, whatever source it claims: a copy from the initiator's own address
    /// makes a forgotten token count anew, and for the next seconds a copy from the attacker's address counts too.
    #[must_use]
    pub fn replayed_hello(&self) -> Option<Hello> {
        let PeerDatagram::Hello(hello) = PeerDatagram::decode(&self.payload).ok()? else { return None };
        hello.verify(&mut KnownKeys::default())
    }
}

/// Somebody on the internet.
#[derive(Debug)]
pub struct Attacker {
    /// When each HELLO that he replays from an address of his own crossed the internet first: whose, to whom.
    hellos: BTreeMap<(DeviceId, DeviceId), Time>,
    tokens: BTreeSet<Token>,
    captured: VecDeque<Captured>,
    identities: Vec<SecretKey>,
    ids: BTreeSet<DeviceId>,
    next: u64,
    rng: ChaCha8Rng,
}

impl Attacker {
    /// An attacker who has seen nothing yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let identities: Vec<SecretKey> =
            (0..IDENTITIES).map(|_| SecretKey::from_seed(&rng.random())).collect();
        Self {
            hellos: BTreeMap::new(),
            tokens: BTreeSet::new(),
            captured: VecDeque::new(),
            ids: identities.iter().map(SecretKey::device_id).collect(),
            identities,
            next: 0,
            rng,
        }
    }

    /// A packet crosses the internet.
    pub fn sees(&mut self, packet: &Packet, now: Time) {
        let Body::Udp(payload) = &packet.body else { return };
        if let Ok(PeerDatagram::Hello(hello)) = PeerDatagram::decode(payload) {
            let claim = hello.claim();
            if self.tokens.insert(claim.token) {
                self.hellos.insert((claim.initiator, claim.responder), now);
            }
        }
        if [HONEST_PORT, REPLAY_PORT].contains(&packet.dst.port()) {
            return; // An answer to himself.
        }
        if self.captured.len() == CAPTURED {
            self.captured.pop_front();
        }
        self.captured.push_back(Captured { src: packet.src, dst: packet.dst, payload: payload.clone() });
    }

    /// A HELLO that he replays counts once more: from now on he may pass for its initiator for a while.
    pub fn gains(&mut self, initiator: DeviceId, responder: DeviceId, now: Time) {
        self.hellos.insert((initiator, responder), now);
    }

    /// Whether this is one of his own identities: then a message of it is what it says it is.
    #[must_use]
    pub fn is(&self, id: DeviceId) -> bool {
        self.ids.contains(&id)
    }

    /// Whether one device may take what comes from the attacker's address for another's: he has just seen a HELLO.
    #[must_use]
    pub fn may_pass_for(&self, from: DeviceId, to: DeviceId, now: Time) -> bool {
        self.hellos.get(&(from, to)).is_some_and(|&seen| now < seen + REPLAY_GAINS)
    }

    /// His next move, if he has seen enough for one. `hosts` are those that he may know of, with their IDs.
    pub fn step(&mut self, hosts: &[(NodeId, DeviceId)]) -> Option<Forged> {
        let one = self.some_captured()?;
        let other = self.some_captured()?;
        let own = own_address(HONEST_PORT, one.dst);
        let control = trace::control_prefix(&one.payload).is_some();
        // What hosts and bases say to each other would be data between hosts.
        let moves = control && one.payload.starts_with(&MAGIC);
        let forged = match self.rng.random_range(0..12) {
            // What was seen once more, later.
            0 | 1 => Forged { src: one.src, dst: one.dst, payload: one.payload },
            // From an address of his own: where answers would come to him.
            2 if moves || (control && BASE_PORTS.contains(&one.dst.port())) => {
                let src = own_address(REPLAY_PORT, one.dst);
                Forged { src, dst: one.dst, payload: one.payload }
            }
            // Changed, cut, or sent to somebody else.
            3 if control => Forged { src: one.src, dst: one.dst, payload: self.flipped(&one.payload) },
            4 if control => {
                let length = self.rng.random_range(0..one.payload.len());
                let cut = one.payload.slice(..length);
                // What is cut to no control message would be data.
                trace::control_prefix(&cut)?;
                Forged { src: one.src, dst: one.dst, payload: cut }
            }
            5 if moves && one.src.is_ipv4() == other.dst.is_ipv4() => {
                Forged { src: one.src, dst: other.dst, payload: one.payload }
            }
            // His own identities, from his own address or from somebody else's.
            6 => {
                let same_family = one.src.is_ipv4() == other.src.is_ipv4();
                let src = if self.rng.random_bool(0.5) && same_family { other.src } else { own };
                Forged { src, dst: one.dst, payload: self.hello(hosts)? }
            }
            // "I know you not", in another's name.
            7 => {
                let of_base = BASE_PORTS.contains(&one.src.port());
                let payload = if of_base { vec![udp::NAT_UNKNOWN] } else { unknown_source().to_vec() };
                Forged { src: one.src, dst: one.dst, payload: payload.into() }
            }
            // A message that claims to be one device's for another.
            8 => {
                let (from, to) = (self.pick(hosts)?.0, self.pick(hosts)?.0);
                self.next += 1;
                let replays = self.rng.random_bool(0.5);
                let (port, first) = if replays { (REPLAY_PORT, REPLAYED) } else { (HONEST_PORT, FORGED) };
                let mut data = checks::message(from, to, first + self.next, MIN_MESSAGE);
                if peer::needs_escape(&data) {
                    data.splice(..0, peer::escape_prefix());
                }
                Forged { src: own_address(port, one.dst), dst: one.dst, payload: data.into() }
            }
            // In the name of one of them, from where answers come to him: a HELLO that he changed, or signed himself.
            9 if one.payload.len() >= HELLO_LEN && one.payload.starts_with(&MAGIC) && moves => {
                Forged { src: own, dst: one.dst, payload: self.flipped(&one.payload[..HELLO_LEN]) }
            }
            10 => Forged { src: own, dst: one.dst, payload: self.impostor(hosts)? },
            // Anything, and what a base would have to look up.
            _ => {
                let mut bytes = vec![0; self.rng.random_range(0..200)];
                self.rng.fill_bytes(&mut bytes);
                if self.rng.random_bool(0.5)
                    && let Some(first) = bytes.first_mut()
                {
                    let kinds = [relay::SEND_DATA, relay::SEND_JOINED, udp::NAT_INIT, udp::NAT_CONFIRM];
                    *first = kinds[self.rng.random_range(0..kinds.len())];
                }
                Forged { src: own, dst: one.dst, payload: bytes.into() }
            }
        };
        Some(forged)
    }

    fn some_captured(&mut self) -> Option<Captured> {
        let at = self.rng.random_range(0..self.captured.len().max(1));
        self.captured.get(at).cloned()
    }

    fn pick(&mut self, hosts: &[(NodeId, DeviceId)]) -> Option<(NodeId, DeviceId)> {
        hosts.get(self.rng.random_range(0..hosts.len().max(1))).copied()
    }

    /// A HELLO that is signed as it should be, by an identity of his.
    fn hello(&mut self, hosts: &[(NodeId, DeviceId)]) -> Option<Bytes> {
        let responder = self.pick(hosts)?.1;
        let key = &self.identities[self.rng.random_range(0..IDENTITIES)];
        let token = self.rng.random();
        Some(Hello::encode(responder, token, &IntroductionKey::NONE, key, 0, HELLO_LEN).into())
    }

    /// A HELLO in the name of one of them, with a key of his.
    fn impostor(&mut self, hosts: &[(NodeId, DeviceId)]) -> Option<Bytes> {
        let (initiator, responder) = (self.pick(hosts)?.1, self.pick(hosts)?.1);
        let key = &self.identities[self.rng.random_range(0..IDENTITIES)];
        let token = self.rng.random();
        let mut hello = Hello::encode(responder, token, &IntroductionKey::NONE, key, 0, HELLO_LEN);
        hello[PREFIX_LEN..PREFIX_LEN + DEVICE_ID_LEN].copy_from_slice(initiator.as_bytes());
        let (signed, signature) = hello.split_at_mut(HELLO_LEN - SIGNATURE_LEN);
        signature.copy_from_slice(&key.sign(Context::Hello, &[signed]));
        Some(hello.into())
    }

    fn flipped(&mut self, payload: &[u8]) -> Bytes {
        let start = trace::control_prefix(payload).unwrap_or_default();
        let mut bytes = payload.to_vec();
        if start < bytes.len() {
            let at = self.rng.random_range(start..bytes.len());
            bytes[at] ^= 1 << self.rng.random_range(0..8u8);
        }
        bytes.into()
    }
}

/// An address that is nobody's but the attacker's; what goes there leads nowhere.
fn own_address(port: u16, towards: SocketAddr) -> SocketAddr {
    if towards.is_ipv4() {
        SocketAddr::from(([11, 255, 0, 66], port))
    } else {
        SocketAddr::from(([0x2a00, 0xffff, 0, 0, 0, 0, 0, 0x66], port))
    }
}

/// What a device that floods writes to its base beside what its machine does: frames, lengths included.
#[must_use]
pub fn flood(rng: &mut ChaCha8Rng, others: &[DeviceId]) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..FLOOD_FRAMES {
        let stranger = SecretKey::from_seed(&rng.random()).device_id();
        let known = others.get(rng.random_range(0..others.len().max(1))).copied().unwrap_or(stranger);
        match rng.random_range(0..5) {
            0 => tcp::write_request_info(&mut frames, stranger),
            1 => tcp::write_request_info(&mut frames, known),
            2 => tcp::write_release_info(&mut frames, known),
            3 => frame(&mut frames, &[&relay::header(relay::SEND_DATA, stranger), &[0; 1_000]]),
            _ => frame(&mut frames, &[&[UNKNOWN_TYPE], &[0; 300]]),
        }
    }
    frames
}

/// The INFO of a device that lies: "my own addresses are these", with a number that no honest INFO exceeds.
#[must_use]
pub fn lie(addresses: impl IntoIterator<Item = (IpAddr, u16)>) -> Vec<u8> {
    let own: Vec<SocketAddr> =
        addresses.into_iter().take(MAX_OWN_ADDRESSES).map(|(ip, port)| SocketAddr::new(ip, port)).collect();
    let mut frames = Vec::new();
    Info { number: u64::MAX / 2, master_key: [7; 16], own }.write(&mut frames);
    frames
}

fn frame(frames: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    frames.extend_from_slice(&(length as u16).to_be_bytes());
    parts.iter().for_each(|part| frames.extend_from_slice(part));
}
