//! What must hold after every step: the safety side of the world.
//!
//! Messages carry who sent them to whom, a number, a filling that follows from both, and a hash: a receiver needs
//! nothing else to know whether what came is what was sent. Watches count what each address got for what it gave.
//! Liveness (who must be able to talk to whom, and how) is [`crate::scenario`]'s.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bowline_proto::{
    host::config::{EARLY_FOR, EARLY_MESSAGES, EARLY_MOVES, PROOF_LIFE},
    wire::{
        ANY_PATH_DATA, MAX_DATA, Token,
        peer::{MAGIC, PREFIX_LEN, PeerDatagram},
        relay,
        udp::{self, NatConfirm, NatOk},
    },
};

use crate::packet::{NodeId, Time};

/// Something that must never happen has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Time,
    /// To whom, if it is one node's.
    pub node: Option<NodeId>,
    /// What.
    pub what: String,
}

/// Outputs of one machine for one input: rounds to many pairs are large, but bounded (16 peers' pairs at 64 new
/// flows a second and as many control frames stay far below).
pub const MAX_OUTPUTS: usize = 4_096;
/// How often a machine may ask for its timer at the very moment at which it is called.
pub const MAX_IMMEDIATE_TIMEOUTS: usize = 64;

/// Sender, receiver, number, and the hash at the end.
const HEADER: usize = 2 + 2 + 8;
const HASH: usize = 8;
/// Numbers from here on are of messages that nobody sent: an attacker made them up.
pub const FORGED: u64 = 1 << 48;
/// And from here on of those that came from where he replays HELLOs: for a while they may be taken for another's.
pub const REPLAYED: u64 = 1 << 49;
/// The shortest message of the world.
pub const MIN_MESSAGE: usize = HEADER + HASH;

/// The bytes of a message. Every sixteenth begins with the magic, as a hostile caller's would.
#[must_use]
pub fn message(from: NodeId, to: NodeId, number: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + PREFIX_LEN);
    if number % 16 == 5 {
        bytes.extend_from_slice(&MAGIC);
        bytes.push(number as u8);
    }
    bytes.extend_from_slice(&(from.0 as u16).to_be_bytes());
    bytes.extend_from_slice(&(to.0 as u16).to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    let mut state = number ^ 0x9e37_79b9_7f4a_7c15;
    while bytes.len() + HASH < length.clamp(MIN_MESSAGE, MAX_DATA) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push((state >> 56) as u8);
    }
    bytes.extend_from_slice(&hash(&bytes).to_be_bytes());
    bytes
}

/// Who sent a message to whom, and its number; `None` if it is not as it was sent.
#[must_use]
pub fn read_message(bytes: &[u8]) -> Option<(NodeId, NodeId, u64)> {
    let (body, sum) = bytes.split_last_chunk::<HASH>()?;
    if hash(body) != u64::from_be_bytes(*sum) {
        return None;
    }
    let body = if body.starts_with(&MAGIC) { body.get(PREFIX_LEN..)? } else { body };
    let (from, rest) = body.split_first_chunk()?;
    let (to, rest) = rest.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    Some((
        NodeId(u16::from_be_bytes(*from).into()),
        NodeId(u16::from_be_bytes(*to).into()),
        u64::from_be_bytes(*number),
    ))
}

/// FNV-1a: the world needs to notice changes, not to resist anybody.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What one address gave and got.
#[derive(Debug, Default)]
struct Ledger {
    given: usize,
    got: usize,
    proven: bool,
    /// When a NAT-INIT or NAT-CONFIRM last came from there.
    lives: Time,
    challenges: Vec<[u8; 8]>,
}

/// Watches a base's UDP sockets: an address that has not shown that it receives gets no more than it gave, and
/// relayed messages go to proven addresses only, and for as long as those say something.
#[derive(Debug, Default)]
pub struct BaseWatch {
    ledgers: BTreeMap<SocketAddr, Ledger>,
}

/// Addresses that a watch remembers; a world with more is an attack by spoofed sources, each of which sends little.
const MAX_LEDGERS: usize = 10_000;
/// A base relays over UDP for so long after it last heard from there.
const BASE_HALF: Duration = Duration::from_secs(35);
/// Challenges remembered per address: they change only with cookie and socket.
const MAX_CHALLENGES: usize = 32;

impl BaseWatch {
    /// A datagram came in.
    pub fn incoming(&mut self, from: SocketAddr, payload: &[u8], now: Time) {
        if self.ledgers.len() >= MAX_LEDGERS && !self.ledgers.contains_key(&from) {
            return;
        }
        let ledger = self.ledgers.entry(from).or_default();
        ledger.given += payload.len();
        if matches!(payload.first(), Some(&(udp::NAT_INIT | udp::NAT_CONFIRM))) {
            ledger.lives = now;
        }
        if payload.first() == Some(&udp::NAT_CONFIRM)
            && let Ok(confirm) = NatConfirm::decode(payload)
            && ledger.challenges.contains(&confirm.challenge)
        {
            ledger.proven = true;
        }
    }

    /// A datagram goes out.
    ///
    /// # Errors
    /// When it must not: why.
    pub fn outgoing(&mut self, to: SocketAddr, payload: &[u8], now: Time) -> Result<(), String> {
        let full = self.ledgers.len() >= MAX_LEDGERS;
        let Some(ledger) = self.ledgers.get_mut(&to) else {
            return if full { Ok(()) } else { Err(format!("a base sends to {to}, which never wrote to it")) };
        };
        ledger.got += payload.len();
        match payload.first() {
            Some(&udp::NAT_OK) => {
                if let Ok(ok) = NatOk::decode(payload) {
                    if !ledger.challenges.contains(&ok.challenge) {
                        ledger.challenges.push(ok.challenge);
                    }
                    if ledger.challenges.len() > MAX_CHALLENGES {
                        ledger.challenges.remove(0);
                    }
                }
            }
            Some(&kind) if relay::is_relayed(kind) && !ledger.proven => {
                return Err(format!(
                    "a base relays to {to}, which has confirmed nothing (protocol section 5)"
                ));
            }
            Some(&kind) if relay::is_relayed(kind) && now > ledger.lives + BASE_HALF => {
                let silent = (now - ledger.lives).as_secs();
                return Err(format!("a base relays to {to}, silent for {silent} s (protocol section 5)"));
            }
            _ => {}
        }
        if !ledger.proven && ledger.got > ledger.given {
            return Err(format!(
                "a base amplifies: {to} gave {} bytes and got {} before it was proven",
                ledger.given, ledger.got
            ));
        }
        Ok(())
    }
}

/// What a host gave one address of a peer and got from it.
#[derive(Debug, Default)]
struct PeerLedger {
    hellos_in: usize,
    last_hello_in: Option<Time>,
    replies_out: usize,
    data_in: usize,
    unknown_out: usize,
    tokens: Vec<(Token, bool)>,
    answered: bool,
    /// When it last answered one.
    answered_at: Option<Time>,
    last_hello_out: Option<Time>,
    /// Messages that went there before it has answered, since a moment.
    early: (Time, u32),
}

/// Watches a host's direct datagrams: data goes only where a HELLO was answered, or early and little; no more replies than
/// HELLOs; HELLOs within their rate.
#[derive(Debug, Default)]
pub struct HostWatch {
    ledgers: BTreeMap<SocketAddr, PeerLedger>,
    hellos: BTreeMap<std::net::IpAddr, (Time, u32)>,
    knocks: (Time, u32),
    /// HELLOs sent since the start.
    pub hellos_sent: u64,
    /// All datagrams sent since the start.
    pub datagrams_sent: u64,
}

/// Tokens remembered per address: a reply counts for five seconds only.
const MAX_TOKENS: usize = 64;
/// 16 HELLO a second that are not answered to one remote IP (protocol section 8), with a burst of as many.
const HELLOS_A_WINDOW: u32 = 32;
/// 64 new flows a second (protocol section 8), with a burst of as many.
const KNOCKS_A_WINDOW: u32 = 128;
/// Early data in five seconds (protocol section 9), with a burst of as much.
const EARLY_A_WINDOW: u32 = 2 * EARLY_MESSAGES;

impl HostWatch {
    /// The program starts anew: nobody has answered it, and it remembers nothing of what it has sent.
    pub fn begin_anew(&mut self) {
        let Self { hellos_sent, datagrams_sent, .. } = *self;
        *self = Self { hellos_sent, datagrams_sent, ..Self::default() };
    }

    /// A datagram came from an address that is no base's.
    pub fn incoming(&mut self, from: SocketAddr, payload: &[u8], now: Time) {
        if self.ledgers.len() >= MAX_LEDGERS && !self.ledgers.contains_key(&from) {
            return;
        }
        let ledger = self.ledgers.entry(from).or_default();
        match PeerDatagram::decode(payload) {
            Ok(PeerDatagram::Hello(_)) => {
                ledger.hellos_in += 1;
                ledger.last_hello_in = Some(now);
            }
            Ok(PeerDatagram::HelloReply(reply)) => {
                let answers = |(token, _): &&mut (Token, bool)| *token == reply.claim().token;
                if let Some((_, counted)) = ledger.tokens.iter_mut().find(answers) {
                    ledger.answered = true;
                    ledger.answered_at = Some(now);
                    if std::mem::take(counted)
                        && let Some((_, count)) = self.hellos.get_mut(&from.ip())
                    {
                        *count = count.saturating_sub(1);
                    }
                }
            }
            Ok(PeerDatagram::Data(data) | PeerDatagram::Joined { data, .. }) => ledger.data_in += data.len(),
            _ => {}
        }
    }

    /// A datagram goes to an address that is no base's.
    ///
    /// # Errors
    /// When it must not: why.
    pub fn outgoing(&mut self, to: SocketAddr, payload: &[u8], now: Time) -> Result<(), String> {
        self.datagrams_sent += 1;
        if matches!(PeerDatagram::decode(payload), Ok(PeerDatagram::Knock)) {
            return self.knock(now);
        }
        if self.ledgers.len() >= MAX_LEDGERS && !self.ledgers.contains_key(&to) {
            return Ok(());
        }
        let ledger = self.ledgers.entry(to).or_default();
        match PeerDatagram::decode(payload) {
            Ok(PeerDatagram::Hello(hello)) => {
                ledger.last_hello_out = Some(now);
                // One that was drawn has a rate of its own: one a second for each address. One to where the peer has answered lately does not
                // count, nor one that is answered.
                let drawn = ledger.last_hello_in == Some(now);
                let counts = !drawn && ledger.answered_at.is_none_or(|at| at + PROOF_LIFE <= now);
                ledger.tokens.push((hello.claim().token, counts));
                if ledger.tokens.len() > MAX_TOKENS {
                    ledger.tokens.remove(0);
                }
                self.hellos_sent += 1;
                if !counts {
                    return Ok(());
                }
                let (since, count) = self.hellos.entry(to.ip()).or_insert((now, 0));
                if now >= *since + Duration::from_secs(1) {
                    (*since, *count) = (now, 0);
                }
                *count += 1;
                if *count > HELLOS_A_WINDOW {
                    return Err(format!(
                        "{count} HELLOs to {} within a second (protocol section 8)",
                        to.ip()
                    ));
                }
            }
            Ok(PeerDatagram::HelloReply(_)) => {
                ledger.replies_out += 1;
                if ledger.replies_out > ledger.hellos_in {
                    return Err(format!("more replies than HELLOs for {to}"));
                }
            }
            Ok(PeerDatagram::UnknownSource) => {
                ledger.unknown_out += payload.len();
                if ledger.unknown_out > ledger.data_in {
                    return Err(format!("UNKNOWN-SOURCE amplifies towards {to}"));
                }
            }
            Ok(PeerDatagram::Data(data)) if !ledger.answered => return self.early(to, data.len(), now),
            Ok(PeerDatagram::Joined { .. }) if !ledger.answered => {
                return Err(format!("joined data goes to {to}, which has answered no HELLO"));
            }
            Ok(PeerDatagram::Data(_) | PeerDatagram::Joined { .. } | PeerDatagram::Knock) => {}
            Err(e) => return Err(format!("a malformed datagram goes to {to}: {e}")),
        }
        Ok(())
    }

    /// Data goes to an address that has answered no HELLO.
    fn early(&mut self, to: SocketAddr, length: usize, now: Time) -> Result<(), String> {
        let vouched = self.ledgers.iter().any(|(other, ledger)| other.ip() == to.ip() && ledger.answered);
        let ledger = self.ledgers.entry(to).or_default();
        let behind_a_hello = ledger.last_hello_out.is_some_and(|at| now < at + EARLY_FOR);
        if !vouched || !behind_a_hello || length > ANY_PATH_DATA {
            return Err(format!("data goes to {to}, which has answered no HELLO (protocol section 6)"));
        }
        let (since, count) = &mut ledger.early;
        if now >= *since + EARLY_MOVES.every {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > EARLY_A_WINDOW {
            return Err(format!("{count} messages to {to} before it has answered (protocol section 9)"));
        }
        Ok(())
    }

    fn knock(&mut self, now: Time) -> Result<(), String> {
        let (since, count) = &mut self.knocks;
        if now >= *since + Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > KNOCKS_A_WINDOW {
            return Err(format!("{count} KNOCKs within a second (protocol section 8)"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recognised_and_a_changed_one_is_not() {
        for number in 0..32 {
            let mut bytes = message(NodeId(1), NodeId(2), number, 100);
            assert_eq!(read_message(&bytes), Some((NodeId(1), NodeId(2), number)));
            bytes[40] ^= 1;
            assert_eq!(read_message(&bytes), None);
        }
        assert_eq!(message(NodeId(1), NodeId(2), 5, 1200).len(), 1200);
        assert!(message(NodeId(1), NodeId(2), 5, 1200).starts_with(&MAGIC));
    }
}
