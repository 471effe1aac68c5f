//! Host and base over UDP: NAT-INIT, NAT-OK, NAT-CONFIRM, NAT-UNKNOWN, MAP-CHECK, MAP-OK (protocol section 5).
//!
//! Type u8 ‖ body, without a length. NAT-INIT and NAT-OK may end in padding, which is not signed and ignored;
//! the others are exact.

use std::net::SocketAddr;

use super::{
    COOKIE_LEN, Cookie, MAX_OWN_ADDRESSES, Malformed, Put, Reader,
    addr::{self, ADDR_LEN},
    relay,
};
use crate::{
    id::DeviceId,
    identity::{Context, PublicKey, SIGNATURE_LEN, SecretKey},
};

/// Type of NAT-INIT.
pub const NAT_INIT: u8 = 0x30;
/// Type of NAT-OK.
pub const NAT_OK: u8 = 0x31;
/// Type of NAT-CONFIRM.
pub const NAT_CONFIRM: u8 = 0x32;
/// Type of NAT-UNKNOWN.
pub const NAT_UNKNOWN: u8 = 0x33;
/// Type of MAP-CHECK.
pub const MAP_CHECK: u8 = 0x34;
/// Type of MAP-OK.
pub const MAP_OK: u8 = 0x35;

/// Bit of NAT-OK's flags: this address is confirmed, relayed messages come here.
pub const FLAG_CONFIRMED: u8 = 1;

/// Length of a NAT-INIT that carries no address and no padding.
pub const NAT_INIT_MIN_LEN: usize = 1 + COOKIE_LEN + 8 + 1 + SIGNATURE_LEN;
/// Length of a NAT-OK without padding, and of every NAT-CONFIRM.
pub const NAT_OK_LEN: usize = 1 + COOKIE_LEN + 8 + 8 + 1 + ADDR_LEN;
/// Bytes of the nonce in MAP-CHECK and MAP-OK.
pub const NONCE_LEN: usize = 8;
/// Length of every MAP-CHECK.
pub const MAP_CHECK_LEN: usize = 1 + COOKIE_LEN + NONCE_LEN + ADDR_LEN;
/// Length of every MAP-OK.
pub const MAP_OK_LEN: usize = 1 + NONCE_LEN;
/// Length of a padded NAT-INIT: a relayed message of 1,200 bytes with its header.
pub const PADDED_LEN: usize = super::ANY_PATH_DATA + relay::HEADER_LEN;

/// "This is where I am": signed, so that a base moves the host without waiting for TCP.
///
/// `0x30 ‖ cookie 8 ‖ seq 8 ‖ list (≤ 12) of addresses ‖ signature 64 ‖ padding`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatInit {
    /// The session's cookie.
    pub cookie: Cookie,
    /// The number of this datagram, from the counter that INFO uses, too.
    pub seq: u64,
    /// The host's own addresses.
    pub own: Vec<SocketAddr>,
}

impl NatInit {
    /// The signed datagram for the base's UDP address number `index`, padded with zeros to `length` at least.
    #[must_use]
    pub fn encode(&self, key: &SecretKey, base: DeviceId, index: u8, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length.max(NAT_INIT_MIN_LEN + ADDR_LEN * MAX_OWN_ADDRESSES));
        out.push(NAT_INIT);
        out.put(&self.cookie);
        out.put(&self.seq.to_be_bytes());
        out.put_addrs(&self.own, MAX_OWN_ADDRESSES);
        let signature = key.sign(Context::NatInit, &[base.as_bytes(), &[index], &out]);
        out.put(&signature);
        if out.len() < length {
            out.resize(length, 0);
        }
        out
    }
}

/// A NAT-INIT whose signature has not been looked at.
#[derive(Debug, Clone)]
pub struct UnverifiedNatInit<'a> {
    claim: NatInit,
    signed: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
}

impl<'a> UnverifiedNatInit<'a> {
    /// Reads a NAT-INIT, type byte included.
    ///
    /// # Errors
    /// When it is of another type, too short, or its list is over the limit.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.kind(NAT_INIT)?;
        let claim = NatInit { cookie: r.array()?, seq: r.u64()?, own: r.addrs(MAX_OWN_ADDRESSES)? };
        let signed = &datagram[..datagram.len() - r.0.len()];
        Ok(Self { claim, signed, signature: r.array()? })
    }

    /// What it claims, for the checks that come before the signature.
    #[must_use]
    pub fn claim(&self) -> &NatInit {
        &self.claim
    }

    /// The message, if `key` signed it for this base's UDP address number `index`.
    #[must_use]
    pub fn verify(self, key: &PublicKey, base: DeviceId, index: u8) -> Option<NatInit> {
        key.verifies(Context::NatInit, &[base.as_bytes(), &[index], self.signed], &self.signature)
            .then_some(self.claim)
    }
}

/// "I see you there": the base's answer to NAT-INIT and NAT-CONFIRM.
///
/// `0x31 ‖ cookie 8 ‖ seq 8 ‖ challenge 8 ‖ flags u8 ‖ address 18 ‖ padding`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatOk {
    /// The cookie of what is answered.
    pub cookie: Cookie,
    /// The seq of what is answered.
    pub seq: u64,
    /// What a NAT-CONFIRM has to bring back.
    pub challenge: [u8; 8],
    /// Whether this address is confirmed (bit 0 of the flags).
    pub confirmed: bool,
    /// The host's address as the base sees it.
    pub seen: SocketAddr,
}

impl NatOk {
    /// How long the answer to a NAT-INIT of so many bytes is: padded like it, and never longer.
    #[must_use]
    pub fn length_for(cause: usize) -> usize {
        if cause >= PADDED_LEN { PADDED_LEN } else { NAT_OK_LEN }
    }

    /// The datagram, padded with zeros to `length` at least.
    #[must_use]
    pub fn encode(&self, length: usize) -> Vec<u8> {
        let mut out = vec![0; length.max(NAT_OK_LEN)];
        self.write(&mut out);
        out
    }

    /// Writes the datagram over all of `out`, which is at least [`NAT_OK_LEN`] bytes long; what remains of it is padding.
    pub fn write(&self, out: &mut [u8]) {
        let (message, padding) = out.split_at_mut(NAT_OK_LEN);
        let seq = self.seq.to_be_bytes();
        let flags = [if self.confirmed { FLAG_CONFIRMED } else { 0 }];
        let seen = addr::encode(self.seen);
        let fields: [&[u8]; 6] = [&[NAT_OK], &self.cookie, &seq, &self.challenge, &flags, &seen];
        let mut at = 0;
        for field in fields {
            message[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        padding.fill(0);
    }

    /// Reads a NAT-OK, type byte included.
    ///
    /// # Errors
    /// When it is of another type or too short.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.kind(NAT_OK)?;
        Ok(Self {
            cookie: r.array()?,
            seq: r.u64()?,
            challenge: r.array()?,
            confirmed: r.u8()? & FLAG_CONFIRMED != 0,
            seen: r.addr()?,
        })
    }
}

/// The third step: the host shows that it received a NAT-OK at this address.
///
/// `0x32 ‖ cookie 8 ‖ seq 8 ‖ challenge 8 ‖ zero bytes up to 44`, as long as the NAT-OK that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatConfirm {
    /// The session's cookie.
    pub cookie: Cookie,
    /// The seq of the NAT-OK it answers.
    pub seq: u64,
    /// The challenge of that NAT-OK.
    pub challenge: [u8; 8],
}

impl NatConfirm {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(NAT_OK_LEN);
        out.push(NAT_CONFIRM);
        out.put(&self.cookie);
        out.put(&self.seq.to_be_bytes());
        out.put(&self.challenge);
        out.resize(NAT_OK_LEN, 0);
        out
    }

    /// Reads a NAT-CONFIRM, type byte included.
    ///
    /// # Errors
    /// When it is of another type, not 44 bytes, or its tail is not zero.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.kind(NAT_CONFIRM)?;
        let confirm = Self { cookie: r.array()?, seq: r.u64()?, challenge: r.array()? };
        let tail = r.bytes(NAT_OK_LEN - (datagram.len() - r.0.len()))?;
        r.end()?;
        if tail.iter().any(|&b| b != 0) {
            return Err(Malformed::Fixed);
        }
        Ok(confirm)
    }
}

/// "My router says that this address leads to me: does it?"
///
/// `0x34 ‖ cookie 8 ‖ nonce 8 ‖ address 18`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapCheck {
    /// The session's cookie.
    pub cookie: Cookie,
    /// What MAP-OK brings back.
    pub nonce: [u8; NONCE_LEN],
    /// The address, of the IP that the datagram itself comes from.
    pub address: SocketAddr,
}

impl MapCheck {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAP_CHECK_LEN);
        out.push(MAP_CHECK);
        out.put(&self.cookie);
        out.put(&self.nonce);
        out.put_addr(self.address);
        out
    }

    /// Reads a MAP-CHECK, type byte included.
    ///
    /// # Errors
    /// When it is of another type or length.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.kind(MAP_CHECK)?;
        let check = Self { cookie: r.array()?, nonce: r.array()?, address: r.addr()? };
        r.end()?;
        Ok(check)
    }
}

/// "It does": sent to the address that was asked about, and nowhere else.
///
/// `0x35 ‖ nonce 8`
#[must_use]
pub fn map_ok(nonce: [u8; NONCE_LEN]) -> Vec<u8> {
    let mut out = vec![MAP_OK];
    out.put(&nonce);
    out
}

/// The nonce of a MAP-OK.
///
/// # Errors
/// When it is of another type or length.
pub fn read_map_ok(datagram: &[u8]) -> Result<[u8; NONCE_LEN], Malformed> {
    let mut r = Reader(datagram);
    r.kind(MAP_OK)?;
    let nonce = r.array()?;
    r.end()?;
    Ok(nonce)
}

/// What a host may get from a base over UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseDatagram<'a> {
    /// An answer to NAT-INIT or NAT-CONFIRM.
    NatOk(NatOk),
    /// "I cannot place you."
    NatUnknown,
    /// The address that MAP-CHECK asked about leads here.
    MapOk([u8; NONCE_LEN]),
    /// A relayed message.
    RecvData(DeviceId, &'a [u8]),
    /// Several in one: a body for [`super::joined::read`].
    RecvJoined(DeviceId, &'a [u8]),
}

impl<'a> BaseDatagram<'a> {
    /// Reads what came from a base's address.
    ///
    /// # Errors
    /// When it is malformed or of a type that a base does not send.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        match *datagram.first().ok_or(Malformed::TooShort)? {
            NAT_OK => NatOk::decode(datagram).map(Self::NatOk),
            NAT_UNKNOWN if datagram.len() == 1 => Ok(Self::NatUnknown),
            NAT_UNKNOWN => Err(Malformed::TooLong),
            relay::RECV_DATA => relay::split(datagram).map(|(id, data)| Self::RecvData(id, data)),
            relay::RECV_JOINED => relay::split(datagram).map(|(id, body)| Self::RecvJoined(id, body)),
            MAP_OK => read_map_ok(datagram).map(Self::MapOk),
            kind @ (NAT_INIT | NAT_CONFIRM | MAP_CHECK | relay::SEND_DATA | relay::SEND_JOINED) => {
                Err(Malformed::WrongSide(kind))
            }
            kind => Err(Malformed::UnknownType(kind)),
        }
    }
}
