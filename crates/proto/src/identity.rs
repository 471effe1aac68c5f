//! Keys and signatures: Ed25519, one context per purpose, strict verification.
//!
//! A signature made for one purpose is worth nothing for another: what is signed always begins with
//! `"bowline/1 " ‖ context ‖ 0x00` (protocol section 2). Where a key is stored is not decided here.

use std::collections::VecDeque;

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};

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

    /// Whether it is a key that one party alone can have: a canonical point of the curve that is not of small order.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        is_canonical_point(&self.0) && VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }

    /// Whether `signature` over `parts` was made by this key for `context`: strictly (S below the group
    /// order, canonical A and R, no small-order A or R, no cofactor).
    #[must_use]
    ///
    /// The same as the library's strict verification, a sixth faster: that one makes R a point, which takes a square
    /// root, to see whether its order is small. Here its bytes say so: what passes has the one encoding R can have.
    pub fn verifies(&self, context: Context, parts: &[&[u8]], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.point().is_some_and(|point| verifies(&point, context, parts, signature))
    }

    /// The point of the curve that this is, unless nothing is to be believed of it.
    fn point(&self) -> Option<VerifyingKey> {
        let fit = is_canonical_point(&self.0) && !is_small_order(&self.0);
        fit.then(|| VerifyingKey::from_bytes(&self.0).ok()).flatten()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey of {}", self.device_id())
    }
}

fn verifies(
    point: &VerifyingKey,
    context: Context,
    parts: &[&[u8]],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    let r = signature.first_chunk().expect("a signature is longer");
    !is_small_order(r) && point.verify(&context.message(parts), &Signature::from_bytes(signature)).is_ok()
}

/// Public keys that have verified something lately, as points: making one takes a square root, a quarter of a verification.
/// Only who owns a key puts it here.
#[derive(Debug, Default)]
pub struct KnownKeys(VecDeque<VerifyingKey>);

impl KnownKeys {
    /// Of so many the points are kept: the peers that a device talks to.
    const MAX: usize = 64;

    /// The same as [`PublicKey::verifies`].
    pub fn verifies(
        &mut self,
        key: &PublicKey,
        context: Context,
        parts: &[&[u8]],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        if let Some(known) = self.0.iter().find(|known| *known.as_bytes() == key.0) {
            return verifies(known, context, parts, signature);
        }
        let Some(point) = key.point() else { return false };
        let holds = verifies(&point, context, parts, signature);
        if holds {
            self.0.truncate(Self::MAX - 1);
            self.0.push_front(point);
        }
        holds
    }
}

/// Whether the y coordinate is below the field's prime 2^255 - 19. The library decompresses larger ones to the
/// reduced point, which would give one key several encodings and so one device several IDs.
fn is_canonical_point(bytes: &[u8; 32]) -> bool {
    !(bytes[31] & 0x7f == 0x7f && bytes[1..31].iter().all(|&b| b == 0xff) && bytes[0] >= 0xed)
}

/// Whether these bytes, if they are a point in its canonical encoding, are one of the eight whose order divides eight:
/// the y coordinates of those, with either sign of x.
fn is_small_order(bytes: &[u8; 32]) -> bool {
    const Y: [[u8; 32]; 5] = [
        [0; 32],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [
            0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *bytes;
    y[31] &= 0x7f;
    Y.contains(&y)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::Scalar;
    use sha2::{Digest, Sha512};

    use super::*;

    /// The y coordinates of the points of small order, with both signs of x, and twice in the encodings that are not reduced.
    fn small_orders() -> Vec<[u8; 32]> {
        let hex = |text: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        };
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ]
        .into_iter()
        .map(hex)
        .flat_map(|y| {
            let mut other = y;
            other[31] ^= 0x80;
            [y, other]
        })
        .collect()
    }

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
    fn a_small_order_r_is_refused_though_the_equation_holds() {
        // With S = k·a, S·B - k·A is the identity: a lax verifier takes this from the key's owner, for any message whatever k is.
        let key = SecretKey::from_seed(&[1; 32]);
        let (public, message) = (key.public(), Context::Hello.message(&[b"x"]));
        let mut refused = 0;
        for r in small_orders() {
            let k = Sha512::new().chain_update(r).chain_update(public.0).chain_update(&message).finalize();
            let s = Scalar::from_bytes_mod_order_wide(&k.into()) * key.0.to_scalar();
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&r);
            signature[32..].copy_from_slice(s.as_bytes());
            let lax = key.0.verifying_key().verify(&message, &Signature::from_bytes(&signature));
            refused += usize::from(lax.is_ok());
            assert!(!public.verifies(Context::Hello, &[b"x"], &signature), "R = {r:02x?}");
        }
        assert_eq!(refused, 1, "the library's lax verification takes the identity as R");
    }

    #[test]
    fn known_keys_say_the_same_and_are_bounded() {
        let mut known = KnownKeys::default();
        for round in 0..2 {
            for seed in 0..=KnownKeys::MAX as u8 {
                let key = SecretKey::from_seed(&[seed; 32]);
                let signature = key.sign(Context::Hello, &[b"x"]);
                let forged = key.sign(Context::Hello, &[b"y"]);
                let mut holds = |signature| known.verifies(&key.public(), Context::Hello, &[b"x"], signature);
                assert!(!holds(&forged), "round {round}, key {seed}");
                assert!(holds(&signature) && holds(&signature), "round {round}, key {seed}");
                assert!(!holds(&forged), "round {round}, key {seed}");
            }
        }
        assert_eq!(known.0.len(), KnownKeys::MAX);
    }

    #[test]
    fn small_orders_are_what_the_library_says() {
        for bytes in small_orders() {
            let Ok(point) = VerifyingKey::from_bytes(&bytes) else { panic!("{bytes:02x?} is a point") };
            assert!(point.is_weak(), "{bytes:02x?}");
            assert_eq!(is_small_order(&bytes), is_canonical_point(&bytes), "{bytes:02x?}");
        }
        for seed in 0..32 {
            assert!(!is_small_order(&SecretKey::from_seed(&[seed; 32]).public().0));
        }
    }

    #[test]
    fn debug_output_never_shows_the_secret() {
        let key = SecretKey::from_seed(&[0xab; 32]);
        assert!(!format!("{key:?}").to_lowercase().contains("abab"));
    }
}
