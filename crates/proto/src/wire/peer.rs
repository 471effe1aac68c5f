//! Host and host: HELLO, HELLO-REPLY, UNKNOWN-SOURCE, KNOCK, escaped data and joined data (protocol section 6).
//!
//! A direct datagram is the caller's bytes and nothing else. What is not data begins with [`MAGIC`] and a type
//! byte; data that begins with the magic, or is empty, travels escaped, and short messages that leave together travel joined.

use super::{INTRODUCTION_KEY_LEN, Malformed, Put, Reader, TOKEN_LEN, Token, joined};
use crate::{
    id::{DEVICE_ID_LEN, DeviceId},
    identity::{Context, KnownKeys, PublicKey, SIGNATURE_LEN, SecretKey},
};

/// What every direct datagram that is not plain data begins with.
pub const MAGIC: [u8; 8] = *b"\x0bbowline";
/// Type of escaped data.
pub const ESCAPED_DATA: u8 = 0x00;
/// Type of HELLO.
pub const HELLO: u8 = 0x01;
/// Type of HELLO-REPLY.
pub const HELLO_REPLY: u8 = 0x02;
/// Type of UNKNOWN-SOURCE.
pub const UNKNOWN_SOURCE: u8 = 0x03;
/// Type of KNOCK.
pub const KNOCK: u8 = 0x04;
/// Type of joined data.
pub const JOINED_DATA: u8 = 0x05;

/// Magic and type.
pub const PREFIX_LEN: usize = MAGIC.len() + 1;
/// Bytes of the introduction in a HELLO.
pub const INTRODUCTION_LEN: usize = 8;
/// Length of a HELLO without what may follow its signature.
pub const HELLO_LEN: usize =
    PREFIX_LEN + 2 * DEVICE_ID_LEN + 32 + TOKEN_LEN + INTRODUCTION_LEN + SIGNATURE_LEN;
/// Length of a HELLO that says what its sender takes.
pub const SAYING_HELLO_LEN: usize = HELLO_LEN + 1;
/// In a HELLO, behind the signature: its sender takes joined data.
pub const TAKES_JOINED: u8 = 1;
/// Length of a HELLO-REPLY, exactly: shorter than what it answers.
pub const HELLO_REPLY_LEN: usize = PREFIX_LEN + 2 * DEVICE_ID_LEN + 32 + TOKEN_LEN + SIGNATURE_LEN;
/// Length of a HELLO that probes whether 1,200 bytes pass, even escaped.
pub const PADDED_HELLO_LEN: usize = super::ANY_PATH_DATA + PREFIX_LEN;

/// Bytes before joined messages: magic, type and their size.
pub const JOINED_HEADER_LEN: usize = PREFIX_LEN + joined::SIZE_LEN;

/// Whether these bytes must travel as ESCAPED-DATA on a direct path.
#[must_use]
pub fn needs_escape(data: &[u8]) -> bool {
    data.is_empty() || data.starts_with(&MAGIC)
}

/// The nine bytes before escaped data.
#[must_use]
pub fn escape_prefix() -> [u8; PREFIX_LEN] {
    prefix(ESCAPED_DATA)
}

/// The whole UNKNOWN-SOURCE: "data from your address, and I do not know you".
#[must_use]
pub fn unknown_source() -> [u8; PREFIX_LEN] {
    prefix(UNKNOWN_SOURCE)
}

/// The whole KNOCK: it opens a NAT's way, and says nothing.
#[must_use]
pub fn knock() -> [u8; PREFIX_LEN] {
    prefix(KNOCK)
}

/// What goes before messages of `size` bytes, of which the last may be shorter.
#[must_use]
pub fn joined_header(size: u16) -> [u8; JOINED_HEADER_LEN] {
    let mut header = [0; JOINED_HEADER_LEN];
    header[..PREFIX_LEN].copy_from_slice(&prefix(JOINED_DATA));
    header[PREFIX_LEN..].copy_from_slice(&size.to_be_bytes());
    header
}

/// The messages of a datagram that is JOINED-DATA, whole, and their size; `None` for anything else.
#[must_use]
pub fn read_joined(datagram: &[u8]) -> Option<(usize, &[u8])> {
    match PeerDatagram::decode(datagram) {
        Ok(PeerDatagram::Joined { size, data }) => Some((size, data)),
        _ => None,
    }
}

fn prefix(kind: u8) -> [u8; PREFIX_LEN] {
    let mut prefix = [kind; PREFIX_LEN];
    prefix[..MAGIC.len()].copy_from_slice(&MAGIC);
    prefix
}

fn read_prefix(r: &mut Reader<'_>, kind: u8) -> Result<(), Malformed> {
    if r.array()? != MAGIC {
        return Err(Malformed::Fixed);
    }
    r.kind(kind)
}

/// An introduction key: made by a base from the responder's master key, it makes a HELLO cheap to check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IntroductionKey(pub [u8; INTRODUCTION_KEY_LEN]);

impl IntroductionKey {
    /// No key: no base has introduced the two.
    pub const NONE: Self = Self([0; INTRODUCTION_KEY_LEN]);

    /// The key that lets `initiator` introduce itself to the device whose master key this is.
    #[must_use]
    pub fn derive(master: &[u8; INTRODUCTION_KEY_LEN], initiator: DeviceId) -> Self {
        use hmac::{KeyInit, Mac};
        let mut mac =
            hmac::Hmac::<sha2::Sha256>::new_from_slice(master).expect("HMAC takes keys of any length");
        mac.update(b"bowline/1 introduction\0");
        mac.update(initiator.as_bytes());
        let mut key = [0; INTRODUCTION_KEY_LEN];
        key.copy_from_slice(&mac.finalize().into_bytes()[..INTRODUCTION_KEY_LEN]);
        Self(key)
    }

    /// The introduction over a HELLO's bytes from magic up to and including its token. Zero without a key.
    #[must_use]
    pub fn introduce(&self, hello: &[u8]) -> [u8; INTRODUCTION_LEN] {
        use std::hash::Hasher;
        if *self == Self::NONE {
            return [0; INTRODUCTION_LEN];
        }
        let mut hasher = siphasher::sip::SipHasher24::new_with_key(&self.0);
        hasher.write(hello);
        hasher.finish().to_le_bytes()
    }
}

impl std::fmt::Debug for IntroductionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::NONE { "no introduction key" } else { "an introduction key" })
    }
}

/// "I am the initiator, and this is where I am": establishes initiator → responder.
///
/// `magic 8 ‖ 0x01 ‖ initiator 14 ‖ responder 14 ‖ public key 32 ‖ token 16 ‖ introduction 8 ‖ signature 64 ‖ takes 1 ‖ padding`
///
/// It may end with the signature: then its sender takes nothing but what every host takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Who sends it.
    pub initiator: DeviceId,
    /// Whom it is for.
    pub responder: DeviceId,
    /// The initiator's key.
    pub public_key: PublicKey,
    /// What the reply has to bring back.
    pub token: Token,
}

impl Hello {
    /// The signed datagram, padded with zeros to `length` at least. One of [`SAYING_HELLO_LEN`] or more says what its sender takes.
    #[must_use]
    pub fn encode(
        responder: DeviceId,
        token: Token,
        introduction: &IntroductionKey,
        key: &SecretKey,
        takes: u8,
        length: usize,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(length.max(HELLO_LEN));
        out.put(&prefix(HELLO));
        out.put_id(key.device_id());
        out.put_id(responder);
        out.put(&key.public().0);
        out.put(&token);
        let introduction = introduction.introduce(&out);
        out.put(&introduction);
        let signature = key.sign(Context::Hello, &[&out]);
        out.put(&signature);
        if out.len() < length {
            out.resize(length, 0);
            out[HELLO_LEN] = takes;
        }
        out
    }
}

/// A HELLO whose introduction and signature have not been looked at.
#[derive(Debug, Clone)]
pub struct UnverifiedHello<'a> {
    claim: Hello,
    introduced: &'a [u8],
    introduction: [u8; INTRODUCTION_LEN],
    signed: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
    takes: u8,
}

impl<'a> UnverifiedHello<'a> {
    /// Reads a HELLO, magic and type included.
    ///
    /// # Errors
    /// When it is of another type or too short.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        read_prefix(&mut r, HELLO)?;
        let claim = Hello {
            initiator: r.id()?,
            responder: r.id()?,
            public_key: PublicKey(r.array()?),
            token: r.array()?,
        };
        let introduced = &datagram[..datagram.len() - r.0.len()];
        let introduction = r.array()?;
        let signed = &datagram[..datagram.len() - r.0.len()];
        let signature = r.array()?;
        let takes = r.0.first().copied().unwrap_or(0);
        Ok(Self { claim, introduced, introduction, signed, signature, takes })
    }

    /// Whether its sender says that it takes joined data. That is not signed: who could change it on its way could drop it, too.
    #[must_use]
    pub fn takes_joined(&self) -> bool {
        self.takes & TAKES_JOINED != 0
    }

    /// What it claims, for the checks that come before the signature.
    #[must_use]
    pub fn claim(&self) -> &Hello {
        &self.claim
    }

    /// Whether it carries the introduction that `key` makes. A missing key introduces nobody.
    #[must_use]
    pub fn is_introduced_by(&self, key: &IntroductionKey) -> bool {
        *key != IntroductionKey::NONE && key.introduce(self.introduced) == self.introduction
    }

    /// The message, if its key makes the initiator's ID and signed it.
    #[must_use]
    pub fn verify(self, known: &mut KnownKeys) -> Option<Hello> {
        let Hello { initiator, public_key, .. } = self.claim;
        (public_key.device_id() == initiator
            && known.verifies(&public_key, Context::Hello, &[self.signed], &self.signature))
        .then_some(self.claim)
    }
}

/// "I am the responder, and your HELLO reached me": the initiator may send here.
///
/// `magic 8 ‖ 0x02 ‖ initiator 14 ‖ responder 14 ‖ public key 32 ‖ token 16 ‖ signature 64`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloReply {
    /// Whose HELLO it answers.
    pub initiator: DeviceId,
    /// Who answers.
    pub responder: DeviceId,
    /// The responder's key.
    pub public_key: PublicKey,
    /// The token of the HELLO.
    pub token: Token,
}

impl HelloReply {
    /// The signed datagram.
    #[must_use]
    pub fn encode(initiator: DeviceId, token: Token, key: &SecretKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_REPLY_LEN);
        out.put(&prefix(HELLO_REPLY));
        out.put_id(initiator);
        out.put_id(key.device_id());
        out.put(&key.public().0);
        out.put(&token);
        let signature = key.sign(Context::HelloReply, &[&out]);
        out.put(&signature);
        out
    }
}

/// A HELLO-REPLY whose signature has not been looked at.
#[derive(Debug, Clone)]
pub struct UnverifiedHelloReply<'a> {
    claim: HelloReply,
    signed: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
}

impl<'a> UnverifiedHelloReply<'a> {
    /// Reads a HELLO-REPLY, magic and type included.
    ///
    /// # Errors
    /// When it is of another type, or its length is not [`HELLO_REPLY_LEN`].
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        read_prefix(&mut r, HELLO_REPLY)?;
        let claim = HelloReply {
            initiator: r.id()?,
            responder: r.id()?,
            public_key: PublicKey(r.array()?),
            token: r.array()?,
        };
        let signed = &datagram[..datagram.len() - r.0.len()];
        let signature = r.array()?;
        r.end()?;
        Ok(Self { claim, signed, signature })
    }

    /// What it claims, for the checks that come before the signature.
    #[must_use]
    pub fn claim(&self) -> &HelloReply {
        &self.claim
    }

    /// The message, if its key makes the responder's ID and signed it.
    #[must_use]
    pub fn verify(self, known: &mut KnownKeys) -> Option<HelloReply> {
        let HelloReply { responder, public_key, .. } = self.claim;
        (public_key.device_id() == responder
            && known.verifies(&public_key, Context::HelloReply, &[self.signed], &self.signature))
        .then_some(self.claim)
    }
}

/// What may come from an address that is no base's.
#[derive(Debug, Clone)]
pub enum PeerDatagram<'a> {
    /// The sender's bytes, unescaped.
    Data(&'a [u8]),
    /// Several messages, one after the other.
    Joined {
        /// The length of each but the last, which may be shorter; never 0.
        size: usize,
        /// Their bytes, never none.
        data: &'a [u8],
    },
    /// A HELLO.
    Hello(UnverifiedHello<'a>),
    /// A HELLO-REPLY.
    HelloReply(UnverifiedHelloReply<'a>),
    /// "I do not know you."
    UnknownSource,
    /// Somebody guesses ports: this way is open.
    Knock,
}

impl<'a> PeerDatagram<'a> {
    /// Reads what came from another host.
    ///
    /// # Errors
    /// When it is empty, a bare magic, of an unknown type, or malformed.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let Some(rest) = datagram.strip_prefix(&MAGIC) else {
            return if datagram.is_empty() { Err(Malformed::TooShort) } else { Ok(Self::Data(datagram)) };
        };
        match rest {
            [] => Err(Malformed::TooShort),
            [ESCAPED_DATA, data @ ..] => Ok(Self::Data(data)),
            [HELLO, ..] => UnverifiedHello::decode(datagram).map(Self::Hello),
            [HELLO_REPLY, ..] => UnverifiedHelloReply::decode(datagram).map(Self::HelloReply),
            [UNKNOWN_SOURCE] => Ok(Self::UnknownSource),
            [UNKNOWN_SOURCE, ..] => Err(Malformed::TooLong),
            [KNOCK] => Ok(Self::Knock),
            [KNOCK, ..] => Err(Malformed::TooLong),
            [JOINED_DATA, body @ ..] => joined::read(body).map(|(size, data)| Self::Joined { size, data }),
            [kind, ..] => Err(Malformed::UnknownType(*kind)),
        }
    }
}
