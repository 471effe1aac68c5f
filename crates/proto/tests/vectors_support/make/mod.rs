//! Makes the vector files: the same bytes at every run.

mod announce;
mod cluster;
mod identity;
mod peer;
mod tcp;
mod udp;

use std::net::SocketAddr;

use bowline_proto::{
    SecretKey,
    identity::SIGNATURE_LEN,
    wire::{frame::LENGTH_LEN, peer::HELLO_LEN},
};

use super::{
    codec::{self, Family},
    file::{Hex, Key, Keys, MessageFile, Refused, Sender, Signing, Tagging, Vector, Why},
    message::Message,
};

/// Every file by its name, with its content.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    fn text(value: &impl serde::Serialize) -> String {
        serde_json::to_string_pretty(value).expect("plain data") + "\n"
    }
    vec![
        ("identity.json", text(&identity::file())),
        ("tcp.json", text(&tcp::file())),
        ("udp.json", text(&udp::file())),
        ("peer.json", text(&peer::file())),
        ("announce.json", text(&announce::file())),
        ("cluster.json", text(&cluster::file())),
    ]
}

const ALICE: &str = "alice";
const BOB: &str = "bob";
const BASE: &str = "base";
const OTHER_BASE: &str = "other-base";

const COOKIE: [u8; 8] = [0xc0, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07];
const OTHER_COOKIE: [u8; 8] = [0xc1, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07];

/// The group order of Ed25519, little-endian: added to S, it makes a second signature for lax verifiers.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn key(seed: u8) -> Key {
    let secret = SecretKey::from_seed(&[seed; 32]);
    let id = secret.device_id();
    let text = id.to_string();
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    // The last eight bits of the text are the check byte: three bits of one character, five of the next.
    let value =
        |at: usize| b"0123456789abcdefghjkmnpqrstvwxyz".iter().position(|&c| c == digits.as_bytes()[at]);
    let check = value(22).unwrap_or(0) << 5 | value(23).unwrap_or(0);
    Key {
        seed: secret.seed().into(),
        public_key: secret.public().0.into(),
        id: id.as_bytes().into(),
        check_byte: [check as u8].into(),
        text,
        ipv6: id.to_ipv6().to_string(),
    }
}

fn keys() -> Keys {
    [(ALICE, 0x11), (BOB, 0x22), (BASE, 0x33), (OTHER_BASE, 0x44)]
        .into_iter()
        .map(|(name, seed)| (name.to_owned(), key(seed)))
        .collect()
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn many_addresses(count: u16) -> Vec<SocketAddr> {
    (1..=count)
        .map(
            |n| {
                if n % 2 == 0 {
                    format!("198.51.100.{n}:{}", 5000 + n)
                } else {
                    format!("[2001:db8::{n}]:{n}")
                }
            },
        )
        .map(|text| text.parse().expect("an address"))
        .collect()
}

/// What a signature is made with; `signed` and `signature` follow from the bytes.
#[derive(Clone, Default)]
struct Sign {
    context: &'static str,
    signer: &'static str,
    base: Option<&'static str>,
    cookie: Option<[u8; 8]>,
    udp_index: Option<u8>,
    introduction_key: Option<[u8; 16]>,
}

/// A file in the making.
struct Maker {
    family: Family,
    file: MessageFile,
}

impl Maker {
    fn new(family: Family, about: &[&str]) -> Self {
        let about = about.iter().map(|&line| line.to_owned()).collect();
        let file = MessageFile { about, keys: keys(), messages: vec![], tolerated: vec![], refused: vec![] };
        Self { family, file }
    }

    fn id(&self, name: &str) -> Hex {
        self.file.keys[name].id.clone()
    }

    fn public_key(&self, name: &str) -> Hex {
        self.file.keys[name].public_key.clone()
    }

    /// A message that is not signed.
    fn plain(&mut self, name: &str, from: Sender, message: Message) -> Vec<u8> {
        let bytes = codec::encode(self.family, &message, None, &self.file.keys);
        let bytes_hex = Hex::from(&bytes);
        self.file.messages.push(Vector {
            name: name.to_owned(),
            from,
            message,
            signing: None,
            tagging: None,
            bytes: bytes_hex,
        });
        bytes
    }

    /// A message that is signed.
    fn signed(&mut self, name: &str, from: Sender, message: Message, sign: &Sign) -> Vec<u8> {
        let mut signing = self.unfinished(sign);
        let bytes = codec::encode(self.family, &message, Some(&signing), &self.file.keys);
        self.finish(&mut signing, &message, &bytes);
        let bytes_hex = Hex::from(&bytes);
        self.file.messages.push(Vector {
            name: name.to_owned(),
            from,
            message,
            signing: Some(signing),
            tagging: None,
            bytes: bytes_hex,
        });
        bytes
    }

    fn unfinished(&self, sign: &Sign) -> Signing {
        Signing {
            context: sign.context.to_owned(),
            signer: sign.signer.to_owned(),
            base_id: sign.base.map(|name| self.id(name)),
            cookie: sign.cookie.map(Hex::from),
            udp_index: sign.udp_index,
            introduction_key: sign.introduction_key.map(Hex::from),
            signed: Hex(vec![]),
            signature: Hex(vec![]),
        }
    }

    /// Takes `signed` and `signature` out of a message's bytes.
    fn finish(&self, signing: &mut Signing, message: &Message, bytes: &[u8]) {
        let (front, end) = match (self.family, message) {
            (Family::Tcp, _) => (LENGTH_LEN, bytes.len()),
            (_, Message::NatInit { padding, .. }) => (0, bytes.len() - padding),
            (_, Message::Hello { .. }) => (0, HELLO_LEN),
            _ => (0, bytes.len()),
        };
        let (body, signature) = bytes[front..end].split_at(end - front - SIGNATURE_LEN);
        let mut signed = format!("bowline/1 {}\0", signing.context).into_bytes();
        signed.extend_from_slice(&signing.base_id.clone().unwrap_or(Hex(vec![])).0);
        signed.extend_from_slice(&signing.cookie.clone().unwrap_or(Hex(vec![])).0);
        signed.extend(signing.udp_index);
        signed.extend_from_slice(body);
        (signing.signed, signing.signature) = (signed.into(), signature.into());
    }

    /// A message between bases.
    fn between_bases(&mut self, name: &str, message: Message, tagging: Option<Tagging>) -> Vec<u8> {
        let bytes = codec::encode_cluster(&message, tagging.as_ref());
        let (name, from, bytes_hex) = (name.to_owned(), Sender::Base, Hex::from(&bytes));
        self.file.messages.push(Vector { name, from, message, signing: None, tagging, bytes: bytes_hex });
        bytes
    }

    /// A well-formed message between bases whose tag does not hold.
    fn refused_tag(&mut self, name: &str, bytes: &[u8], tagging: Tagging) {
        let (name, from, bytes) = (name.to_owned(), Sender::Base, bytes.into());
        let (why, tagging) = (Why::Tag, Some(tagging));
        self.file.refused.push(Refused { name, from, why, signing: None, tagging, bytes });
    }

    /// Other bytes that decode to the fields of the last message.
    fn tolerated(&mut self, name: &str, bytes: &[u8]) {
        let last = self.file.messages.last().expect("a message before").clone();
        self.file.tolerated.push(Vector { name: name.to_owned(), bytes: bytes.into(), ..last });
    }

    fn refused(&mut self, name: &str, from: Sender, why: Why, bytes: &[u8]) {
        self.file.refused.push(Refused {
            name: name.to_owned(),
            from,
            why,
            signing: None,
            tagging: None,
            bytes: bytes.into(),
        });
    }

    /// A well-formed message whose signature does not hold for what the receiver knows: the last message's signing,
    /// changed.
    fn refused_signature(&mut self, name: &str, bytes: &[u8], change: impl FnOnce(&mut Signing)) {
        let last = self.file.messages.iter().rfind(|v| v.signing.is_some()).expect("a signed message before");
        let (from, mut signing) = (last.from, last.signing.clone().expect("signed"));
        change(&mut signing);
        self.finish(&mut signing, &last.message, bytes);
        let name = name.to_owned();
        let bytes = bytes.into();
        let (why, signing) = (Why::Signature, Some(signing));
        self.file.refused.push(Refused { name, from, why, signing, tagging: None, bytes });
    }
}

/// `bytes` with the bit flipped.
fn flipped(bytes: &[u8], at: usize, bit: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes
}

/// A signature with the group order added to its S.
fn raised(signature: &[u8; 64]) -> [u8; 64] {
    let mut raised = *signature;
    let mut carry = 0;
    for (byte, add) in raised[32..].iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    raised
}

/// A frame of this type and body.
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bowline_proto::wire::frame::write(&mut out, |out| {
        out.push(kind);
        out.extend_from_slice(body);
    });
    out
}

/// A frame with more bytes at its end than its message knows.
fn longer(frame_bytes: &[u8], extra: &[u8]) -> Vec<u8> {
    frame(frame_bytes[LENGTH_LEN], &[&frame_bytes[LENGTH_LEN + 1..], extra].concat())
}
