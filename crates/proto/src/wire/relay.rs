//! SEND-DATA and RECV-DATA: the relayed message, the same on TCP (in a frame) and on UDP.
//!
//! Both are type ‖ ID ‖ data and differ in type and in whose ID they carry, so that a base forwards a message by
//! rewriting its first 15 bytes in place.

use super::Malformed;
use crate::id::{DEVICE_ID_LEN, DeviceId};

/// Host to base: "give this to that device".
pub const SEND_DATA: u8 = 0x20;
/// Base to host: "this came from that device".
pub const RECV_DATA: u8 = 0x21;
/// Bytes before the data: type and ID.
pub const HEADER_LEN: usize = 1 + DEVICE_ID_LEN;

/// The header of a relayed message.
#[must_use]
pub fn header(kind: u8, id: DeviceId) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = kind;
    header[1..].copy_from_slice(id.as_bytes());
    header
}

/// The ID and the data of a SEND-DATA or RECV-DATA whose type byte has been looked at.
///
/// # Errors
/// When it ends before its ID does.
pub fn split(message: &[u8]) -> Result<(DeviceId, &[u8]), Malformed> {
    let (header, data) = message.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::TooShort)?;
    let mut id = [0; DEVICE_ID_LEN];
    id.copy_from_slice(&header[1..]);
    Ok((DeviceId::from_bytes(id), data))
}

/// Turns a SEND-DATA into the RECV-DATA that goes on from the base, in place.
///
/// # Errors
/// When it ends before its ID does; the message is then untouched.
pub fn rewrite(message: &mut [u8], source: DeviceId) -> Result<(), Malformed> {
    let head = message.first_chunk_mut::<HEADER_LEN>().ok_or(Malformed::TooShort)?;
    *head = header(RECV_DATA, source);
    Ok(())
}
