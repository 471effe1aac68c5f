//! Device IDs: how a device is named, everywhere.
//!
//! A [`DeviceId`] is 14 bytes made from an Ed25519 public key (protocol section 2). People see it as 24
//! characters of Crockford base32 in six groups, the last characters of which carry a check byte, so that a
//! mistyped ID is an error and not another device. Base servers are named in the same way.
//!
//! This file knows nothing of keys beyond their 32 public bytes; signing lives in [`crate::identity`].

use std::{fmt, net::Ipv6Addr, str::FromStr};

use sha2::{Digest, Sha256};

/// Bytes in a device ID.
pub const DEVICE_ID_LEN: usize = 14;

/// Characters in the text form, without dashes: 15 bytes (ID and check byte) are 24 groups of five bits.
const TEXT_CHARS: usize = 24;
const GROUP: usize = 4;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The name of a device (or of a base server): 14 bytes of the hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId([u8; DEVICE_ID_LEN]);

impl DeviceId {
    /// The ID that belongs to an Ed25519 public key.
    #[must_use]
    pub fn of_public_key(public_key: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(b"bowline device id v1").chain_update(public_key).finalize();
        let mut id = [0; DEVICE_ID_LEN];
        id.copy_from_slice(&digest[..DEVICE_ID_LEN]);
        Self(id)
    }

    /// The ID of a cluster of bases, made from its name.
    #[must_use]
    pub fn of_cluster(name: &str) -> Self {
        let digest = Sha256::new().chain_update(b"bowline cluster id v1").chain_update(name).finalize();
        let mut id = [0; DEVICE_ID_LEN];
        id.copy_from_slice(&digest[..DEVICE_ID_LEN]);
        Self(id)
    }

    /// An ID from its bytes. Any 14 bytes are an ID; whether a key makes it is for a signature to show.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; DEVICE_ID_LEN]) -> Self {
        Self(bytes)
    }

    /// The 14 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DEVICE_ID_LEN] {
        &self.0
    }

    /// The device's address for upper layers that want one: `fdb0::/16` followed by the 14 bytes.
    #[must_use]
    pub fn to_ipv6(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfd, 0xb0]);
        octets[2..].copy_from_slice(&self.0);
        octets.into()
    }

    fn check_byte(self) -> u8 {
        Sha256::new().chain_update(b"bowline id check v1").chain_update(self.0).finalize()[0]
    }
}

/// Twenty-four characters in six groups of four: `7k2m-…`.
impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = 0u128;
        for byte in self.0.iter().copied().chain([self.check_byte()]) {
            value = value << 8 | u128::from(byte);
        }
        let mut text = String::with_capacity(TEXT_CHARS + TEXT_CHARS / GROUP);
        for i in 0..TEXT_CHARS {
            if i > 0 && i % GROUP == 0 {
                text.push('-');
            }
            let shift = 5 * (TEXT_CHARS - 1 - i);
            text.push(char::from(ALPHABET[(value >> shift & 31) as usize]));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a device ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not 24 characters (dashes aside).
    #[error("a device ID has 24 characters, this has {0}")]
    Length(usize),
    /// A character outside Crockford's alphabet; `u` is one of them.
    #[error("'{0}' is not a character of a device ID")]
    Character(char),
    /// The check byte does not fit: most likely a typing mistake.
    #[error("the check characters do not fit: the ID is mistyped")]
    Check,
}

/// Takes upper case, ignores dashes, reads `o` as 0 and `i`, `l` as 1.
impl FromStr for DeviceId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let length = text.chars().filter(|&c| c != '-').count();
        let mut value = 0u128;
        for c in text.chars().filter(|&c| c != '-') {
            let folded = match c.to_ascii_lowercase() {
                'o' => b'0',
                'i' | 'l' => b'1',
                c if c.is_ascii() => c as u8,
                _ => return Err(ParseIdError::Character(c)),
            };
            let digit = ALPHABET.iter().position(|&a| a == folded).ok_or(ParseIdError::Character(c))?;
            if length == TEXT_CHARS {
                value = value << 5 | digit as u128;
            }
        }
        if length != TEXT_CHARS {
            return Err(ParseIdError::Length(length));
        }
        let bytes = value.to_be_bytes();
        let mut id = [0; DEVICE_ID_LEN];
        id.copy_from_slice(&bytes[1..=DEVICE_ID_LEN]);
        let id = Self(id);
        if bytes[DEVICE_ID_LEN + 1] != id.check_byte() {
            return Err(ParseIdError::Check);
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> DeviceId {
        DeviceId::of_public_key(&[n; 32])
    }

    #[test]
    fn text_form_returns_to_the_same_id() {
        for n in 0..=255 {
            let text = id(n).to_string();
            assert_eq!(text.len(), 29);
            assert_eq!(text.parse(), Ok(id(n)));
        }
    }

    #[test]
    fn upper_case_missing_dashes_and_lookalikes_are_read() {
        let text = id(7).to_string();
        assert_eq!(text.to_uppercase().replace('-', "").parse(), Ok(id(7)));
        assert_eq!(text.replace('0', "o").replace('1', "l").parse(), Ok(id(7)));
        assert_eq!(text.replace('0', "O").replace('1', "I").parse(), Ok(id(7)));
    }

    #[test]
    fn a_single_wrong_character_is_noticed_almost_always() {
        let text = id(9).to_string();
        let mut missed = 0;
        let mut tried = 0;
        for (at, old) in text.char_indices().filter(|&(_, c)| c != '-') {
            for &new in ALPHABET.iter().filter(|&&c| char::from(c) != old) {
                let mut wrong = text.clone();
                wrong.replace_range(at..=at, &char::from(new).to_string());
                tried += 1;
                missed += u32::from(wrong.parse::<DeviceId>().is_ok());
            }
        }
        assert!(tried > 700 && missed < tried / 50, "{missed} of {tried} typing mistakes went unnoticed");
    }

    #[test]
    fn bad_texts_say_what_is_wrong() {
        let text = id(1).to_string();
        assert_eq!("".parse::<DeviceId>(), Err(ParseIdError::Length(0)));
        assert_eq!(text[1..].parse::<DeviceId>(), Err(ParseIdError::Length(23)));
        assert_eq!(format!("{text}0").parse::<DeviceId>(), Err(ParseIdError::Length(25)));
        assert_eq!(format!("u{}", &text[1..]).parse::<DeviceId>(), Err(ParseIdError::Character('u')));
        assert_eq!(format!("é{}", &text[1..]).parse::<DeviceId>(), Err(ParseIdError::Character('é')));
    }

    #[test]
    fn the_ipv6_form_carries_the_whole_id() {
        let octets = id(3).to_ipv6().octets();
        assert_eq!(octets[..2], [0xfd, 0xb0]);
        assert_eq!(&octets[2..], id(3).as_bytes());
    }
}
