//! Signatures at the edge of Ed25519, which no library makes: computed once from curve arithmetic, kept as constants.
//!
//! All are over the HELLO context and the message [`MESSAGE`]. With `a` and `A = aB` of the seed `11…11` and `T` a
//! point of order 8, [`MIXED_KEY`] is `A + T`; a signature `R = rB, S = r + ka` by it satisfies the cofactored equation
//! always, the cofactorless one only when `k` is a multiple of 8.

/// What is signed.
pub(crate) const MESSAGE: &[u8] = b"mixed order";

/// A public key with a component of small order.
pub(crate) const MIXED_KEY: &str = "05edb8c261651304ea335a4397e0696b9fb37c99aa8023ee1583a2f3e43d9fe4";

/// `k` is a multiple of 8: the cofactorless equation holds, and so the signature does.
pub(crate) const MIXED_HOLDS: &str = "3578b204f13314878f9e753840af5c0efb31d2e3b5f34a1fcf5204794df4d863\
                                      a9d019dc02a240267d1675a87e789d9606510397fa3be1d499ebb3d4f340e800";

/// `k` is no multiple of 8: only verifiers that multiply by the cofactor take it.
pub(crate) const MIXED_COFACTORED_ONLY: &str = "d41bb1ea0f7a20c97036afcfb7df29e1a14ce9d49bf15dec5c4e69fc1a3b2f3e\
                                                dbaf050680d5ddfdf5c419fce63f0eb6c6e285eae073d4c9406a9633e85adf0c";

/// By the key of the seed `11…11` itself, with R the neutral element: S = ka.
pub(crate) const SMALL_ORDER_R: &str = "0100000000000000000000000000000000000000000000000000000000000000\
                                        480efd68cb90f72d072e22a833f168ead5449deca6c19236170557fe9b35a107";
