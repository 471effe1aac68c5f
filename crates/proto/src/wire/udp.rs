//! Host and base over UDP: NAT-INIT, NAT-OK, NAT-CONFIRM, NAT-UNKNOWN (protocol section 5).
//!
//! Type u8 ‖ body, without a length. NAT-INIT and NAT-OK may end in padding, which is not signed and ignored;
//! the others are exact.

use std::net::SocketAddr;

use super::{COOKIE_LEN, Cookie, MAX_OWN_ADDRESSES, Malformed, Put, Reader, addr::ADDR_LEN};
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

/// Length of a NAT-OK without padding, and of every NAT-CONFIRM.
pub const NAT_OK_LEN: usize = 1 + COOKIE_LEN + 8 + 8 + 1 + ADDR_LEN;
/// Length of a padded NAT-INIT: a relayed message of 1,200 bytes with its header.
pub const PADDED_LEN: usize = 1_215;

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
        let mut out = Vec::with_capacity(length.max(NAT_OK_LEN + SIGNATURE_LEN));
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
    /// When it is too short or its list is over the limit.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.u8()?;
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
    /// The datagram, padded with zeros to `length` at least.
    #[must_use]
    pub fn encode(&self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length.max(NAT_OK_LEN));
        out.push(NAT_OK);
        out.put(&self.cookie);
        out.put(&self.seq.to_be_bytes());
        out.put(&self.challenge);
        out.push(u8::from(self.confirmed));
        out.put_addr(self.seen);
        if out.len() < length {
            out.resize(length, 0);
        }
        out
    }

    /// Reads a NAT-OK, type byte included.
    ///
    /// # Errors
    /// When it is too short.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.u8()?;
        Ok(Self {
            cookie: r.array()?,
            seq: r.u64()?,
            challenge: r.array()?,
            confirmed: r.u8()? & 1 != 0,
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
    /// When it is not 44 bytes, or its tail is not zero.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.u8()?;
        let confirm = Self { cookie: r.array()?, seq: r.u64()?, challenge: r.array()? };
        let tail = r.bytes(NAT_OK_LEN - (datagram.len() - r.0.len()))?;
        r.end()?;
        if tail.iter().any(|&b| b != 0) {
            return Err(Malformed::Fixed);
        }
        Ok(confirm)
    }
}

/// What a host may get from a base over UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseDatagram<'a> {
    /// An answer to NAT-INIT or NAT-CONFIRM.
    NatOk(NatOk),
    /// "I cannot place you."
    NatUnknown,
    /// A relayed message.
    RecvData(DeviceId, &'a [u8]),
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
            super::relay::RECV_DATA => {
                super::relay::split(datagram).map(|(id, data)| Self::RecvData(id, data))
            }
            kind @ (NAT_INIT | NAT_CONFIRM | super::relay::SEND_DATA) => Err(Malformed::WrongSide(kind)),
            kind => Err(Malformed::UnknownType(kind)),
        }
    }
}
