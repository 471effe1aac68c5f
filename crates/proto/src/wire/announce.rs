//! The announcement on a local link: the 14-byte device ID and nothing else (protocol section 10).

use std::net::Ipv6Addr;

use super::Malformed;
use crate::id::DeviceId;

/// The group that announcements go to.
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0x88bb, 0x31e4, 0x95f7, 0x2b87, 0x6b52, 0xe112, 0x19ac);
/// The port that announcements go to, shared by all programs of a machine.
pub const PORT: u16 = 4478;
/// The hop limit of every announcement: one that was routed has less.
pub const HOP_LIMIT: u8 = 255;

/// The ID in an announcement.
///
/// # Errors
/// When it is not exactly 14 bytes.
pub fn decode(payload: &[u8]) -> Result<DeviceId, Malformed> {
    match payload.len() {
        0..14 => Err(Malformed::TooShort),
        14 => Ok(DeviceId::from_bytes(payload.try_into().map_err(|_| Malformed::TooShort)?)),
        _ => Err(Malformed::TooLong),
    }
}
