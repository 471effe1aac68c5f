//! How a vector file looks. Binary fields are hex strings, 64-bit numbers decimal strings (JSON readers that hold
//! numbers as doubles would lose their ends), addresses texts.

use std::collections::BTreeMap;

use bowline_proto::{SecretKey, identity::Context, wire::peer::IntroductionKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::message::Message;

/// Bytes, written as hex.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Hex {
    /// As an array; the file is wrong where the length is.
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap_or_else(|_| panic!("{N} bytes expected: {self:?}"))
    }
}

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<T: AsRef<[u8]>> From<T> for Hex {
    fn from(bytes: T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => {
                Ok(Self(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()))
            }
            _ => Err(D::Error::custom(format!("not hex: {text}"))),
        }
    }
}

/// 64-bit numbers as decimal strings, for `#[serde(with = …)]`.
pub(crate) mod decimal {
    use super::{Deserialize, Deserializer, Error, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&number.to_string())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A key and all that is made from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) seed: Hex,
    pub(crate) public_key: Hex,
    pub(crate) id: Hex,
    pub(crate) check_byte: Hex,
    pub(crate) text: String,
    pub(crate) ipv6: String,
}

impl Key {
    pub(crate) fn secret(&self) -> SecretKey {
        SecretKey::from_seed(&self.seed.array())
    }
}

/// All keys of a file, by name.
pub(crate) type Keys = BTreeMap<String, Key>;

/// Whose message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sender {
    Host,
    Base,
    Peer,
    Link,
}

/// How a message is signed: `signed` is everything that goes into Ed25519.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Signing {
    pub(crate) context: String,
    /// The name of the key that signed, and of the key that the receiver checks a NAT-INIT with.
    pub(crate) signer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base_id: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cookie: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) udp_index: Option<u8>,
    /// The introduction key of a HELLO, zero where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) introduction_key: Option<Hex>,
    pub(crate) signed: Hex,
    pub(crate) signature: Hex,
}

impl Signing {
    pub(crate) fn context(&self) -> Context {
        context(&self.context)
    }

    pub(crate) fn introduction_key(&self) -> IntroductionKey {
        self.introduction_key.as_ref().map_or(IntroductionKey::NONE, |key| IntroductionKey(key.array()))
    }
}

/// How a message between bases is tagged: SipHash-2-4 under the receiver's key over `tagged`, in network byte order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tagging {
    pub(crate) key: Hex,
    pub(crate) tagged: Hex,
}

pub(crate) fn context(label: &str) -> Context {
    match label {
        "register" => Context::Register,
        "nat-init" => Context::NatInit,
        "hello" => Context::Hello,
        "hello-reply" => Context::HelloReply,
        other => panic!("no context {other}"),
    }
}

/// A message with its fields and its bytes. On TCP the bytes are the whole frame, length included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) from: Sender,
    #[serde(flatten)]
    pub(crate) message: Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signing: Option<Signing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tagging: Option<Tagging>,
    pub(crate) bytes: Hex,
}

/// Why a receiver does not act on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Why {
    /// Its form is wrong.
    Malformed,
    /// Only the other side sends this type.
    WrongSide,
    /// The type is not known (TCP: skipped once registered; UDP and peers: dropped).
    UnknownType,
    /// Well-formed, but its signature does not hold for this key, context, base, cookie or index.
    Signature,
    /// Well-formed, but its tag does not hold under the receiver's key.
    Tag,
}

/// Bytes that a receiver must not act on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) name: String,
    pub(crate) from: Sender,
    pub(crate) why: Why,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signing: Option<Signing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tagging: Option<Tagging>,
    pub(crate) bytes: Hex,
}

/// A file of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MessageFile {
    pub(crate) about: Vec<String>,
    pub(crate) keys: Keys,
    /// Encoding gives exactly these bytes, decoding exactly these fields.
    pub(crate) messages: Vec<Vector>,
    /// Decoding gives these fields, encoding them other bytes.
    pub(crate) tolerated: Vec<Vector>,
    pub(crate) refused: Vec<Refused>,
}

/// `identity.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdentityFile {
    pub(crate) about: Vec<String>,
    pub(crate) keys: Keys,
    pub(crate) texts: Vec<Text>,
    pub(crate) refused_texts: Vec<RefusedText>,
    pub(crate) signatures: Vec<Signature>,
    pub(crate) refused_signatures: Vec<Signature>,
    pub(crate) introduction_keys: Vec<Introduction>,
}

/// A text that stands for an ID.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) id: Hex,
}

/// A text that stands for none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RefusedText {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A signature over `message` for a context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Signature {
    pub(crate) name: String,
    pub(crate) public_key: Hex,
    pub(crate) context: String,
    pub(crate) message: Hex,
    pub(crate) signed: Hex,
    pub(crate) signature: Hex,
}

/// An introduction key and what it makes of a HELLO's front.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    pub(crate) master_key: Hex,
    pub(crate) initiator_id: Hex,
    pub(crate) introduction_key: Hex,
    pub(crate) hello_front: Hex,
    pub(crate) introduction: Hex,
}
