//! Several short messages of one size as one body: what JOINED-DATA, SEND-JOINED and RECV-JOINED carry.
//!
//! `size u16 ‖ data`: messages of that size, one after the other, the last of which may be shorter.

use super::{Malformed, Reader};

/// Bytes before the messages: their size.
pub const SIZE_LEN: usize = 2;
/// No more messages than these are joined: a datagram costs its receiver no more than so many.
pub const MAX_JOINED: usize = 64;

/// The size of the messages of a body, never 0, and the bytes of all of them, never none.
///
/// # Errors
/// When it brings no message, or more than [`MAX_JOINED`].
pub fn read(body: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    let mut r = Reader(body);
    let size = usize::from(r.u16()?);
    let data = r.0;
    if size == 0 || data.len() > size * MAX_JOINED {
        return Err(Malformed::Fixed);
    }
    if data.is_empty() { Err(Malformed::TooShort) } else { Ok((size, data)) }
}

/// How many messages of `size` bytes are joined where there is room for so many bytes of them; 1: none are.
#[must_use]
pub fn count(size: usize, room: usize) -> usize {
    room.checked_div(size).unwrap_or(0).clamp(1, MAX_JOINED)
}
