//! The cursor that all decoders share, and its counterpart for encoders.

use std::net::SocketAddr;

use super::{Malformed, addr};
use crate::id::DeviceId;

/// Reads fields from the front of a message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Malformed::TooShort)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed::TooShort)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn id(&mut self) -> Result<DeviceId, Malformed> {
        Ok(DeviceId::from_bytes(self.array()?))
    }

    pub(crate) fn addr(&mut self) -> Result<SocketAddr, Malformed> {
        Ok(addr::decode(&self.array()?))
    }

    /// A count byte and that many addresses, `limit` at most.
    pub(crate) fn addrs(&mut self, limit: usize) -> Result<Vec<SocketAddr>, Malformed> {
        let count = usize::from(self.u8()?);
        if count > limit {
            return Err(Malformed::OverLimit);
        }
        (0..count).map(|_| self.addr()).collect()
    }

    /// A length byte and that many bytes of UTF-8 without control characters (category Cc).
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::from(self.u8()?);
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed::Text)?;
        if text.chars().any(char::is_control) {
            return Err(Malformed::Text);
        }
        Ok(text)
    }

    /// The type byte of a message whose type the caller has looked at, or should have.
    pub(crate) fn kind(&mut self, expected: u8) -> Result<(), Malformed> {
        match self.u8()? {
            kind if kind == expected => Ok(()),
            kind => Err(Malformed::UnknownType(kind)),
        }
    }

    /// Ends an exact message: nothing may be left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::TooLong) }
    }
}

/// Appends fields to a message.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_id(&mut self, id: DeviceId) {
        self.put(id.as_bytes());
    }

    fn put_addr(&mut self, address: SocketAddr) {
        self.put(&addr::encode(address));
    }

    /// A list; what is over `limit` is left out, so that no caller can make a malformed message.
    fn put_addrs(&mut self, addresses: &[SocketAddr], limit: usize) {
        let addresses = &addresses[..addresses.len().min(limit)];
        self.put(&[addresses.len() as u8]);
        for &address in addresses {
            self.put_addr(address);
        }
    }

    /// A text; cut to 255 bytes at a character, control characters left out.
    fn put_text(&mut self, text: &str) {
        let mut clean = String::new();
        for c in text.chars().filter(|c| !c.is_control()) {
            if clean.len() + c.len_utf8() > usize::from(u8::MAX) {
                break;
            }
            clean.push(c);
        }
        self.put(&[clean.len() as u8]);
        self.put(clean.as_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
