//! The bytes of every message, as `docs/protocol.md` lays them out: one struct a message, its encoder and
//! decoder side by side.
//!
//! Decoders read what anyone may have sent: they never panic, never allocate more than a list's limit, and say
//! what is wrong in a [`Malformed`]. What is signed decodes to an `Unverified…` type; only its `verify` gives the
//! message itself. No state is kept here, and nothing is decided but well-formedness.
//!
//! - [`addr`]: addresses; [`read`]: the cursor that all decoders share
//! - [`frame`]: framing on TCP; [`tcp`]: the control frames between host and base; [`code`]: their codes
//! - [`udp`]: NAT-INIT and its kin; [`relay`]: what a base passes on, on both transports
//! - [`peer`]: HELLO and its kin between hosts; [`joined`]: messages that share a datagram there or through a base; [`announce`]: the announcement on a
//!   local link

pub mod addr;
pub mod announce;
pub mod cluster;
pub mod code;
pub mod frame;
pub mod joined;
pub mod peer;
pub mod read;
pub mod relay;
pub mod tcp;
pub mod udp;

/// Bytes of the cookie a base gives each TCP connection.
pub const COOKIE_LEN: usize = 8;
/// Bytes of a HELLO's token.
pub const TOKEN_LEN: usize = 16;
/// Bytes of an introduction key, and of the master key it is derived from.
pub const INTRODUCTION_KEY_LEN: usize = 16;
/// Own addresses in an INFO, NAT-INIT or DEVICE-ADDRESSES.
pub const MAX_OWN_ADDRESSES: usize = 12;
/// Reflexive addresses in DEVICE-ADDRESSES, and UDP addresses in REGISTERED.
pub const MAX_BASE_ADDRESSES: usize = 4;
/// The largest message the layer carries, on any path.
pub const MAX_DATA: usize = 16_000;
/// What any path carries: larger messages need a path that is known to allow them.
pub const ANY_PATH_DATA: usize = 1_200;

/// A cookie: what binds registrations and NAT-INITs to one TCP connection.
pub type Cookie = [u8; COOKIE_LEN];
/// The random name of one HELLO.
pub type Token = [u8; TOKEN_LEN];
/// The random name of one start of a host.
pub type BootId = [u8; 8];

/// What is wrong with a message that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// It ends before its fields do.
    #[error("too short")]
    TooShort,
    /// Bytes follow where none may.
    #[error("too long")]
    TooLong,
    /// A list is longer than its limit.
    #[error("a list over its limit")]
    OverLimit,
    /// Text that is not UTF-8, or has control characters.
    #[error("text that is not printable UTF-8")]
    Text,
    /// A fixed part (magic, version, zero bytes) is not what it must be.
    #[error("a fixed part has another value")]
    Fixed,
    /// No message has this type here.
    #[error("unknown type {0:#04x}")]
    UnknownType(u8),
    /// A type that only the other side sends.
    #[error("type {0:#04x} is the other side's to send")]
    WrongSide(u8),
}

pub(crate) use read::{Put, Reader};
