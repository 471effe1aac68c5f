//! What one base tells another on that one's subject.

use super::{
    ADDRESSES, BLOCKED, CLONED, FLAG_AGAIN, FLAG_JOINED, FLAG_LEFT, FLAG_ON, FLAG_ONLINE, Incarnation,
    MAX_WANTS, NOT_HERE, WANTS,
};
use crate::{
    id::DeviceId,
    wire::{
        INTRODUCTION_KEY_LEN, MAX_BASE_ADDRESSES, MAX_OWN_ADDRESSES, Malformed, Put, Reader,
        code::UnreachableReason, peer::IntroductionKey, tcp::DeviceAddresses,
    },
};

/// A device's interest in another, as its base states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Who is interested.
    pub asker: DeviceId,
    /// The revision of his entry: statements of the base that he has left are older.
    pub revision: u64,
    /// In whom.
    pub about: DeviceId,
    /// The number of the last ADDRESSES about the two that came from the receiver of this; 0: none has.
    pub heard: u64,
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
                let flag = |is: bool, flag: u8| if is { flag } else { 0 };
                let (online, joined) =
                    (flag(addresses.online, FLAG_ONLINE), flag(addresses.joined, FLAG_JOINED));
                out.put(&[online | flag(*left, FLAG_LEFT) | joined]);
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
        out.put(&want.heard.to_be_bytes());
        out.put(&[if want.on { FLAG_ON } else { 0 } | if want.again { FLAG_AGAIN } else { 0 }]);
    }
}

fn read_wants(r: &mut Reader<'_>) -> Result<Vec<Want>, Malformed> {
    let count = usize::from(r.u16()?);
    if count > MAX_WANTS {
        return Err(Malformed::OverLimit);
    }
    let want = |r: &mut Reader<'_>| {
        let (asker, revision, about, heard, flags) = (r.id()?, r.u64()?, r.id()?, r.u64()?, r.u8()?);
        let (on, again) = (flags & FLAG_ON != 0, flags & FLAG_AGAIN != 0);
        Ok(Want { asker, revision, about, heard, on, again })
    };
    (0..count).map(|_| want(r)).collect()
}

fn read_addresses(r: &mut Reader<'_>) -> Result<Body, Malformed> {
    let (to, revision, flags) = (r.id()?, r.u64()?, r.u8()?);
    let addresses = DeviceAddresses {
        device: r.id()?,
        online: flags & FLAG_ONLINE != 0,
        joined: flags & FLAG_JOINED != 0,
        introduction: IntroductionKey(r.array::<INTRODUCTION_KEY_LEN>()?),
        reflexive: r.addrs(MAX_BASE_ADDRESSES)?,
        own: r.addrs(MAX_OWN_ADDRESSES)?,
    };
    Ok(Body::Addresses { to, revision, left: flags & FLAG_LEFT != 0, addresses })
}
