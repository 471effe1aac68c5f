//! Messages of devices from base to base, and the pings that open the way over UDP.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::{BASE_DATA, BaseKey, PREFIX_LEN, PROBE_LEN, TAG_LEN};
use crate::{
    id::{DEVICE_ID_LEN, DeviceId},
    wire::{Malformed, Put, Reader, relay},
};

/// What goes before a RECV-DATA or RECV-JOINED on its way from base to base.
///
/// `0x40 ‖ destination 14 ‖ tag 8`, where the tag is [`tag`] over UDP and the sender's [`Incarnation`](super::Incarnation) on the bus.
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
    /// From whom, as the relayed message says.
    pub from: DeviceId,
    /// The tag.
    pub tag: [u8; TAG_LEN],
    /// Bytes of data.
    pub length: usize,
}

impl BaseData {
    /// Reads prefix and header; the relayed message is `datagram[PREFIX_LEN..]`.
    ///
    /// # Errors
    /// When it is too short, or what it carries is not what a base relays.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(datagram);
        r.kind(BASE_DATA)?;
        let (to, tag) = (r.id()?, r.array()?);
        if !r.0.first().is_some_and(|&kind| relay::is_relayed(kind)) {
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
    /// [`BASE_PING`](super::BASE_PING) or [`BASE_PONG`](super::BASE_PONG).
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
