//! What bases of one cluster say to each other: what they keep in the store, and what they send (protocol section 11).
//!
//! The store and the bus are NATS's; who may speak there is its credentials' matter. What comes is read as carefully as
//! from anyone, since a base of another version or an operator's hand may have written it.
//!
//! Over UDP a message between bases is [`BASE_DATA`], with a tag under the receiver's key: it keeps out whoever is not on
//! the path. Like everything in this layer it does not protect content.

use std::hash::Hasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher24;

use super::{
    BootId, INTRODUCTION_KEY_LEN, MAX_BASE_ADDRESSES, MAX_OWN_ADDRESSES, Malformed, Put, Reader,
    code::UnreachableReason, peer::IntroductionKey, relay, tcp::DeviceAddresses,
};
use crate::id::{DEVICE_ID_LEN, DeviceId};

/// Subjects that changes of devices are spread over: enough that a base with few devices hears little, and few enough that one with
/// many needs no more subscriptions than this.
pub const SHARDS: u8 = 64;
/// Boots that a record remembers as replaced.
pub const MAX_REPLACED: usize = 4;
/// Statements of interest in one message.
pub const MAX_WANTS: usize = 256;
/// Bytes of the key under which a base takes data over UDP.
pub const BASE_KEY_LEN: usize = 16;
/// Bytes before the RECV-DATA that a base hands to another: type, destination, tag.
pub const PREFIX_LEN: usize = 1 + DEVICE_ID_LEN + TAG_LEN;
/// BASE-PING and BASE-PONG: as long as the largest message that goes from base to base over UDP.
pub const PROBE_LEN: usize = PREFIX_LEN + relay::HEADER_LEN + super::ANY_PATH_DATA;

/// Base to base: "give this to that device, which is yours".
pub const BASE_DATA: u8 = 0x40;
/// Base to base over UDP: "do you hear me?"
pub const BASE_PING: u8 = 0x41;
/// The answer, as long as the question.
pub const BASE_PONG: u8 = 0x42;

const LEASE: u8 = 0x50;
const RECORD: u8 = 0x51;
const CHANGE: u8 = 0x52;
const WANTS: u8 = 0x53;
const ADDRESSES: u8 = 0x54;
const BLOCKED: u8 = 0x55;
const NOT_HERE: u8 = 0x56;
const CLONED: u8 = 0x57;

const TAG_LEN: usize = 8;
/// Of this version of everything here; another one is another cluster's.
const VERSION: u8 = 1;

const FLAG_ON: u8 = 1;
const FLAG_AGAIN: u8 = 2;
const FLAG_ONLINE: u8 = 1;
const FLAG_LEFT: u8 = 2;

/// The random name of one start of a base: what it stored before is void.
pub type Incarnation = [u8; 8];
/// The key under which a base takes data over UDP.
pub type BaseKey = [u8; BASE_KEY_LEN];

/// The shard of a device. IDs are hashes already.
#[must_use]
pub fn shard_of(device: DeviceId) -> u8 {
    device.as_bytes()[0] % SHARDS
}

/// "I am here": a base's own entry, which lapses by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub base: DeviceId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// How often it has (re)joined the bus since: whoever sees it rise says everything again.
    pub connection: u32,
    /// What tags of data over UDP are made with.
    pub key: BaseKey,
    /// Where it takes data over UDP; empty: nowhere.
    pub addresses: Vec<SocketAddr>,
}

impl Lease {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![LEASE, VERSION];
        out.put_id(self.base);
        out.put(&self.incarnation);
        out.put(&self.connection.to_be_bytes());
        out.put(&self.key);
        out.put_addrs(&self.addresses, MAX_BASE_ADDRESSES);
        out
    }

    /// Reads a lease; what follows its fields is for later versions.
    ///
    /// # Errors
    /// When it is malformed or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        r.kind(LEASE)?;
        if r.u8()? != VERSION {
            return Err(Malformed::Fixed);
        }
        Ok(Self {
            base: r.id()?,
            incarnation: r.array()?,
            connection: r.u32()?,
            key: r.array()?,
            addresses: r.addrs(MAX_BASE_ADDRESSES)?,
        })
    }
}

/// Which base has a device. Valid while the lease of that start of that base lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The base.
    pub base: DeviceId,
    /// Its start.
    pub incarnation: Incarnation,
    /// The device's boot.
    pub boot: BootId,
    /// The attempt of its registration.
    pub attempt: u32,
    /// Boots that this one replaced, the latest last.
    pub replaced: Vec<BootId>,
}

impl Record {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECORD];
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_id(self.base);
        out.put(&self.incarnation);
        out.put(&self.boot);
        out.put(&self.attempt.to_be_bytes());
        let replaced = &self.replaced[self.replaced.len().saturating_sub(MAX_REPLACED)..];
        out.put(&[replaced.len() as u8]);
        for boot in replaced {
            out.put(boot);
        }
    }

    /// Reads a record; what follows its fields is for later versions.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        r.kind(RECORD)?;
        Self::read(&mut r)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (base, incarnation, boot, attempt) = (r.id()?, r.array()?, r.array()?, r.u32()?);
        let count = usize::from(r.u8()?);
        if count > MAX_REPLACED {
            return Err(Malformed::OverLimit);
        }
        let replaced = (0..count).map(|_| r.array()).collect::<Result<_, _>>()?;
        Ok(Self { base, incarnation, boot, attempt, replaced })
    }
}

/// "From this revision on the device is there", or gone: told on its shard's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The device.
    pub device: DeviceId,
    /// The revision of its entry: a higher one is newer, whatever the order of arrival.
    pub revision: u64,
    /// `None`: the entry of this revision is gone.
    pub record: Option<Record>,
}

impl Change {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![CHANGE];
        out.put_id(self.device);
        out.put(&self.revision.to_be_bytes());
        if let Some(record) = &self.record {
            out.put(&[1]);
            record.put(&mut out);
        } else {
            out.put(&[0]);
        }
        out
    }

    /// Reads a change.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        r.kind(CHANGE)?;
        let (device, revision) = (r.id()?, r.u64()?);
        let record = if r.u8()? == 0 { None } else { Some(Record::read(&mut r)?) };
        Ok(Self { device, revision, record })
    }
}

/// A device's interest in another, as its base states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Who is interested.
    pub asker: DeviceId,
    /// The revision of his entry: statements of the base that he has left are older.
    pub revision: u64,
    /// In whom.
    pub about: DeviceId,
    /// Whether it stands (or was released).
    pub on: bool,
    /// He asked anew, and is to be told anew.
    pub again: bool,
}

/// What one base tells another on that one's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Interests of devices of the sender in devices of the receiver.
    Wants(Vec<Want>),
    /// What a device of the receiver may know of one of the sender.
    Addresses {
        /// Whom to tell.
        to: DeviceId,
        /// The revision of the entry of the device that it is about.
        revision: u64,
        /// It left, and had wanted the other until then (else: it released it).
        left: bool,
        /// What to tell.
        addresses: DeviceAddresses,
    },
    /// A message did not reach its device, and its sender may know.
    Blocked {
        /// The sender.
        from: DeviceId,
        /// The destination.
        about: DeviceId,
        /// Why.
        reason: UnreachableReason,
    },
    /// "You sent me something for a device that I do not have."
    NotHere {
        /// The device.
        device: DeviceId,
        /// Who had sent it something.
        from: DeviceId,
    },
    /// Another device uses the key of one of yours.
    Cloned(DeviceId),
}

/// A message on a base's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub base: DeviceId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Rises with every message of this start: of two about the same the higher one counts.
    pub seq: u64,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self.body {
            Body::Wants(_) => WANTS,
            Body::Addresses { .. } => ADDRESSES,
            Body::Blocked { .. } => BLOCKED,
            Body::NotHere { .. } => NOT_HERE,
            Body::Cloned(_) => CLONED,
        };
        let mut out = vec![kind];
        out.put_id(self.base);
        out.put(&self.incarnation);
        out.put(&self.seq.to_be_bytes());
        match &self.body {
            Body::Wants(wants) => put_wants(wants, &mut out),
            Body::Addresses { to, revision, left, addresses } => {
                out.put_id(*to);
                out.put(&revision.to_be_bytes());
                let flags =
                    if addresses.online { FLAG_ONLINE } else { 0 } | if *left { FLAG_LEFT } else { 0 };
                out.put(&[flags]);
                out.put_id(addresses.device);
                out.put(&addresses.introduction.0);
                out.put_addrs(&addresses.reflexive, MAX_BASE_ADDRESSES);
                out.put_addrs(&addresses.own, MAX_OWN_ADDRESSES);
            }
            Body::Blocked { from, about, reason } => {
                out.put_id(*from);
                out.put_id(*about);
                out.put(&[reason.to_u8()]);
            }
            Body::NotHere { device, from } => {
                out.put_id(*device);
                out.put_id(*from);
            }
            Body::Cloned(device) => out.put_id(*device),
        }
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is malformed or of an unknown type.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let kind = r.u8()?;
        let (base, incarnation, seq) = (r.id()?, r.array()?, r.u64()?);
        let body = match kind {
            WANTS => Body::Wants(read_wants(&mut r)?),
            ADDRESSES => read_addresses(&mut r)?,
            BLOCKED => {
                let (from, about) = (r.id()?, r.id()?);
                Body::Blocked { from, about, reason: UnreachableReason::from_u8(r.u8()?) }
            }
            NOT_HERE => Body::NotHere { device: r.id()?, from: r.id()? },
            CLONED => Body::Cloned(r.id()?),
            kind => return Err(Malformed::UnknownType(kind)),
        };
        Ok(Self { base, incarnation, seq, body })
    }
}

fn put_wants(wants: &[Want], out: &mut Vec<u8>) {
    let wants = &wants[..wants.len().min(MAX_WANTS)];
    out.put(&(wants.len() as u16).to_be_bytes());
    for want in wants {
        out.put_id(want.asker);
        out.put(&want.revision.to_be_bytes());
        out.put_id(want.about);
        out.put(&[if want.on { FLAG_ON } else { 0 } | if want.again { FLAG_AGAIN } else { 0 }]);
    }
}

fn read_wants(r: &mut Reader<'_>) -> Result<Vec<Want>, Malformed> {
    let count = usize::from(r.u16()?);
    if count > MAX_WANTS {
        return Err(Malformed::OverLimit);
    }
    let want = |r: &mut Reader<'_>| {
        let (asker, revision, about, flags) = (r.id()?, r.u64()?, r.id()?, r.u8()?);
        Ok(Want { asker, revision, about, on: flags & FLAG_ON != 0, again: flags & FLAG_AGAIN != 0 })
    };
    (0..count).map(|_| want(r)).collect()
}

fn read_addresses(r: &mut Reader<'_>) -> Result<Body, Malformed> {
    let (to, revision, flags) = (r.id()?, r.u64()?, r.u8()?);
    let addresses = DeviceAddresses {
        device: r.id()?,
        online: flags & FLAG_ONLINE != 0,
        introduction: IntroductionKey(r.array::<INTRODUCTION_KEY_LEN>()?),
        reflexive: r.addrs(MAX_BASE_ADDRESSES)?,
        own: r.addrs(MAX_OWN_ADDRESSES)?,
    };
    Ok(Body::Addresses { to, revision, left: flags & FLAG_LEFT != 0, addresses })
}

/// What goes before a RECV-DATA on its way from base to base.
///
/// `0x40 ‖ destination 14 ‖ tag 8`, where the tag is [`tag`] over UDP and the sender's [`Incarnation`] on the bus.
#[must_use]
pub fn prefix(to: DeviceId, tag: [u8; TAG_LEN]) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    prefix[0] = BASE_DATA;
    prefix[1..=DEVICE_ID_LEN].copy_from_slice(to.as_bytes());
    prefix[1 + DEVICE_ID_LEN..].copy_from_slice(&tag);
    prefix
}

/// A BASE-DATA as it came, type byte looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseData {
    /// For whom.
    pub to: DeviceId,
    /// From whom, as the RECV-DATA says.
    pub from: DeviceId,
    /// The tag.
    pub tag: [u8; TAG_LEN],
    /// Bytes of data.
    pub length: usize,
}

impl BaseData {
    /// Reads prefix and header; the RECV-DATA is `datagram[PREFIX_LEN..]`.
    ///
    /// # Errors
    /// When it is too short, or what it carries is no RECV-DATA.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.kind(BASE_DATA)?;
        let (to, tag) = (r.id()?, r.array()?);
        if r.0.first() != Some(&relay::RECV_DATA) {
            return Err(Malformed::Fixed);
        }
        let (from, data) = relay::split(r.0)?;
        Ok(Self { to, from, tag, length: data.len() })
    }
}

/// The tag of data from one device to another: SipHash-2-4 under the receiving base's key.
///
/// It is the same for all data of the pair, so it says that the sender knows the key or has seen such data: who is not on
/// the path has neither.
#[must_use]
pub fn tag(key: &BaseKey, from: DeviceId, to: DeviceId) -> [u8; TAG_LEN] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(from.as_bytes());
    hasher.write(to.as_bytes());
    hasher.finish().to_be_bytes()
}

/// BASE-PING or BASE-PONG: `type ‖ tag 8 ‖ sender's base ID 14 ‖ nonce 8 ‖ zero bytes up to` [`PROBE_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// [`BASE_PING`] or [`BASE_PONG`].
    pub kind: u8,
    /// Who sends it.
    pub base: DeviceId,
    /// The ping's, in the pong, too.
    pub nonce: [u8; 8],
}

impl Probe {
    /// The datagram, under the receiver's key.
    #[must_use]
    pub fn encode(&self, key: &BaseKey) -> Vec<u8> {
        let mut out = vec![self.kind];
        out.put(&self.tag(key));
        out.put_id(self.base);
        out.put(&self.nonce);
        out.resize(PROBE_LEN, 0);
        out
    }

    /// Reads a probe whose type byte was looked at; `None` when its length or its tag is wrong.
    #[must_use]
    pub fn decode(datagram: &[u8], key: &BaseKey) -> Option<Self> {
        if datagram.len() != PROBE_LEN {
            return None;
        }
        let mut r = Reader(datagram);
        let kind = r.u8().ok()?;
        let tag: [u8; TAG_LEN] = r.array().ok()?;
        let probe = Self { kind, base: r.id().ok()?, nonce: r.array().ok()? };
        (probe.tag(key) == tag).then_some(probe)
    }

    fn tag(&self, key: &BaseKey) -> [u8; TAG_LEN] {
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write(&[self.kind]);
        hasher.write(self.base.as_bytes());
        hasher.write(&self.nonce);
        hasher.finish().to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; DEVICE_ID_LEN])
    }

    fn record() -> Record {
        Record { base: id(1), incarnation: [2; 8], boot: [3; 8], attempt: 4, replaced: vec![[5; 8], [6; 8]] }
    }

    fn bodies() -> Vec<Body> {
        let want = Want { asker: id(1), revision: 7, about: id(2), on: true, again: false };
        let addresses = DeviceAddresses {
            device: id(3),
            online: true,
            introduction: IntroductionKey([9; 16]),
            reflexive: vec!["192.0.2.1:5".parse().unwrap()],
            own: vec!["[2001:db8::1]:6".parse().unwrap()],
        };
        vec![
            Body::Wants(vec![want, Want { on: false, again: true, ..want }]),
            Body::Addresses { to: id(4), revision: 8, left: false, addresses },
            Body::Addresses { to: id(4), revision: 8, left: true, addresses: DeviceAddresses::gone(id(3)) },
            Body::Blocked { from: id(5), about: id(6), reason: UnreachableReason::QueueFull },
            Body::NotHere { device: id(7), from: id(8) },
            Body::Cloned(id(9)),
        ]
    }

    #[test]
    fn everything_returns_and_nothing_shorter_does() {
        let lease = Lease {
            base: id(1),
            incarnation: [2; 8],
            connection: 3,
            key: [4; 16],
            addresses: vec!["192.0.2.1:4477".parse().unwrap()],
        };
        let bytes = lease.encode();
        assert_eq!(Lease::decode(&bytes), Ok(lease));
        assert!((0..bytes.len()).all(|n| Lease::decode(&bytes[..n]).is_err()));
        let bytes = record().encode();
        assert_eq!(Record::decode(&bytes), Ok(record()));
        assert!((0..bytes.len()).all(|n| Record::decode(&bytes[..n]).is_err()));
        for record in [None, Some(record())] {
            let change = Change { device: id(9), revision: 10, record };
            let bytes = change.encode();
            assert_eq!(Change::decode(&bytes), Ok(change));
            assert!((0..bytes.len()).all(|n| Change::decode(&bytes[..n]).is_err()));
        }
        for body in bodies() {
            let message = Message { base: id(1), incarnation: [2; 8], seq: 3, body };
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            assert!((0..bytes.len()).all(|n| Message::decode(&bytes[..n]).is_err()));
        }
    }

    #[test]
    fn a_record_keeps_the_latest_of_too_many_replaced_boots() {
        let record = Record { replaced: (0..9).map(|n| [n; 8]).collect(), ..record() };
        let read = Record::decode(&record.encode()).unwrap();
        assert_eq!(read.replaced, [[5; 8], [6; 8], [7; 8], [8; 8]]);
    }

    #[test]
    fn a_probe_holds_under_its_receivers_key_alone() {
        let probe = Probe { kind: BASE_PING, base: id(1), nonce: [2; 8] };
        let bytes = probe.encode(&[3; 16]);
        assert_eq!(bytes.len(), PROBE_LEN);
        assert_eq!(Probe::decode(&bytes, &[3; 16]), Some(probe));
        assert_eq!(Probe::decode(&bytes, &[4; 16]), None);
        assert_eq!(Probe::decode(&bytes[1..], &[3; 16]), None);
        let pong = [&[BASE_PONG], &bytes[1..]].concat();
        assert_eq!(Probe::decode(&pong, &[3; 16]), None, "a ping is no pong");
    }

    proptest! {
        #[test]
        fn no_decoder_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0x40u8..0x60) {
            let bytes = [&[kind][..], &bytes].concat();
            let _ = (Lease::decode(&bytes), Record::decode(&bytes), Change::decode(&bytes));
            let _ = (Message::decode(&bytes), BaseData::decode(&bytes), Probe::decode(&bytes, &[0; 16]));
        }
    }
}
