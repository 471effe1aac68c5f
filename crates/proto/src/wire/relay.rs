//! SEND-DATA and RECV-DATA, SEND-JOINED and RECV-JOINED: what is relayed, the same on TCP (in a frame) and on UDP.
//!
//! All are type ‖ ID ‖ data; the two of a pair differ in type and in whose ID they carry, so that a base forwards a message by
//! rewriting its first 15 bytes in place. What is joined ([`super::joined`]) concerns the hosts alone: to a base it is data.

use super::{Malformed, joined};
use crate::id::{DEVICE_ID_LEN, DeviceId};

/// Host to base: "give this to that device".
pub const SEND_DATA: u8 = 0x20;
/// Base to host: "this came from that device".
pub const RECV_DATA: u8 = 0x21;
/// Host to base: "give these to that device, in one".
pub const SEND_JOINED: u8 = 0x22;
/// Base to host: "these came from that device".
pub const RECV_JOINED: u8 = 0x23;
/// Bytes before the data: type and ID.
pub const HEADER_LEN: usize = 1 + DEVICE_ID_LEN;
/// Bytes before joined messages: type, ID and their size.
pub const JOINED_HEADER_LEN: usize = HEADER_LEN + joined::SIZE_LEN;

/// The header of a relayed message.
#[must_use]
pub fn header(kind: u8, id: DeviceId) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = kind;
    header[1..].copy_from_slice(id.as_bytes());
    header
}

/// What goes before messages of `size` bytes that are relayed joined, of which the last may be shorter.
#[must_use]
pub fn joined_header(to: DeviceId, size: u16) -> [u8; JOINED_HEADER_LEN] {
    let mut header = [0; JOINED_HEADER_LEN];
    header[..HEADER_LEN].copy_from_slice(&self::header(SEND_JOINED, to));
    header[HEADER_LEN..].copy_from_slice(&size.to_be_bytes());
    header
}

/// Whether a message of this type is one that a host has relayed.
#[must_use]
pub fn is_sent(kind: u8) -> bool {
    matches!(kind, SEND_DATA | SEND_JOINED)
}

/// Whether a message of this type is one that a base has relayed.
#[must_use]
pub fn is_relayed(kind: u8) -> bool {
    matches!(kind, RECV_DATA | RECV_JOINED)
}

/// The ID and the data of a relayed message whose type byte has been looked at.
///
/// # Errors
/// When it ends before its ID does.
pub fn split(message: &[u8]) -> Result<(DeviceId, &[u8]), Malformed> {
    let (header, data) = message.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::TooShort)?;
    let mut id = [0; DEVICE_ID_LEN];
    id.copy_from_slice(&header[1..]);
    Ok((DeviceId::from_bytes(id), data))
}

/// Turns a SEND-DATA into the RECV-DATA that goes on from the base, or a SEND-JOINED into the RECV-JOINED, in place.
///
/// # Errors
/// When it ends before its ID does; the message is then untouched.
pub fn rewrite(message: &mut [u8], source: DeviceId) -> Result<(), Malformed> {
    let head = message.first_chunk_mut::<HEADER_LEN>().ok_or(Malformed::TooShort)?;
    let kind = if head[0] == SEND_JOINED { RECV_JOINED } else { RECV_DATA };
    *head = header(kind, source);
    Ok(())
}
