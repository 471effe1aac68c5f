//! Keys and signatures: Ed25519, one context per purpose, strict verification.
//!
//! A signature made for one purpose is worth nothing for another: what is signed always begins with
//! `"bowline/1 " ‖ context ‖ 0x00` (protocol section 2). Where a key is stored is not decided here.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::id::DeviceId;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// REGISTER, bound to a base and its cookie.
    Register,
    /// NAT-INIT, bound to a base, its cookie and the index of one of its UDP addresses.
    NatInit,
    /// HELLO between devices.
    Hello,
    /// HELLO-REPLY between devices.
    HelloReply,
}

impl Context {
    const fn label(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::NatInit => "nat-init",
            Self::Hello => "hello",
            Self::HelloReply => "hello-reply",
        }
    }

    /// The exact bytes that are signed for a message given in parts.
    #[must_use]
    pub fn message(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut message = Vec::with_capacity(32 + parts.iter().map(|p| p.len()).sum::<usize>());
        message.extend_from_slice(b"bowline/1 ");
        message.extend_from_slice(self.label().as_bytes());
        message.push(0);
        for part in parts {
            message.extend_from_slice(part);
        }
        message
    }
}

/// A device's (or a base's) secret key. Wiped from memory when dropped; never shown by `Debug`.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A key from its 32-byte seed (RFC 8032). Any 32 bytes make a key; whoever makes a new one must take
    /// them from the system's random source.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for storing the key.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The ID this key makes.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.public().device_id()
    }

    /// Signs `parts`, one after the other, for `context`.
    #[must_use]
    pub fn sign(&self, context: Context, parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&context.message(parts)).to_bytes()
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey of {}", self.device_id())
    }
}

/// The 32 bytes of a public key as they came; whether they are a point of the curve shows at verification.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The ID this key makes.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        DeviceId::of_public_key(&self.0)
    }

    /// Whether `signature` over `parts` was made by this key for `context`: strictly (S below the group
    /// order, canonical A and R, no small-order A or R, no cofactor).
    #[must_use]
    pub fn verifies(&self, context: Context, parts: &[&[u8]], signature: &[u8; SIGNATURE_LEN]) -> bool {
        if !is_canonical_point(&self.0) {
            return false;
        }
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        key.verify_strict(&context.message(parts), &Signature::from_bytes(signature)).is_ok()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey of {}", self.device_id())
    }
}

/// Whether the y coordinate is below the field's prime 2^255 - 19. The library decompresses larger ones to the
/// reduced point, which would give one key several encodings and so one device several IDs.
fn is_canonical_point(bytes: &[u8; 32]) -> bool {
    !(bytes[31] & 0x7f == 0x7f && bytes[1..31].iter().all(|&b| b == 0xff) && bytes[0] >= 0xed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_context_and_message_only() {
        let (a, b) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let signature = a.sign(Context::Hello, &[b"one", b"two"]);
        assert!(a.public().verifies(Context::Hello, &[b"onetwo"], &signature));
        assert!(!b.public().verifies(Context::Hello, &[b"onetwo"], &signature));
        assert!(!a.public().verifies(Context::HelloReply, &[b"onetwo"], &signature));
        assert!(!a.public().verifies(Context::Hello, &[b"onetwo!"], &signature));
    }

    #[test]
    fn a_raised_s_is_refused() {
        // S + L verifies in lax implementations: the same message would have two signatures.
        const L: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = SecretKey::from_seed(&[1; 32]);
        let mut signature = key.sign(Context::Hello, &[b"x"]);
        let mut carry = 0u16;
        for (byte, add) in signature[32..].iter_mut().zip(L) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert!(!key.public().verifies(Context::Hello, &[b"x"], &signature));
    }

    #[test]
    fn small_order_and_non_canonical_keys_verify_nothing() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        let mut raised_identity = [0xff; 32]; // y = p + 1, the same point in another writing
        raised_identity[0] = 0xee;
        raised_identity[31] = 0x7f;
        for key in [identity_point, raised_identity, [0; 32]] {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&identity_point); // R = identity, S = 0: cofactorless equation holds
            assert!(!PublicKey(key).verifies(Context::Hello, &[b"anything"], &signature));
        }
    }

    #[test]
    fn debug_output_never_shows_the_secret() {
        let key = SecretKey::from_seed(&[0xab; 32]);
        assert!(!format!("{key:?}").to_lowercase().contains("abab"));
    }
}
