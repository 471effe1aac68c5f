//! The codes in ERROR, NOTICE and UNREACHABLE: numbers on the wire, words for people.

use std::fmt;

/// Codes of ERROR, after which the base closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// Malformed, out of order, or from the wrong side.
    Malformed,
    /// No common version.
    Version,
    /// The signature does not hold, or the key does not make the ID.
    Signature,
    /// This device is not allowed here.
    NotAllowed,
    /// A limit of this source address.
    SourceLimit,
    /// The base is busy.
    Busy,
    /// The base is draining.
    Draining,
    /// A newer session of the same device took over.
    Replaced,
    /// Two devices use one key.
    Cloned,
    /// Ten seconds without GET-COOKIE or REGISTER.
    Silent,
    /// A code that this version does not know.
    Other(u8),
}

impl ErrorCode {
    const KNOWN: [Self; 10] = [
        Self::Malformed,
        Self::Version,
        Self::Signature,
        Self::NotAllowed,
        Self::SourceLimit,
        Self::Busy,
        Self::Draining,
        Self::Replaced,
        Self::Cloned,
        Self::Silent,
    ];

    /// The code on the wire.
    #[must_use]
    pub fn to_u8(self) -> u8 {
        match self {
            Self::Other(code) => code,
            known => 1 + Self::KNOWN.iter().position(|&k| k == known).unwrap_or(0) as u8,
        }
    }

    /// The code that a number stands for.
    #[must_use]
    pub fn from_u8(code: u8) -> Self {
        Self::KNOWN.get(usize::from(code).wrapping_sub(1)).copied().unwrap_or(Self::Other(code))
    }
}

/// In words, for people.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a message was malformed or out of order",
            Self::Version => "no common version of the protocol",
            Self::Signature => "the signature does not hold",
            Self::NotAllowed => "this device is not allowed there",
            Self::SourceLimit => "too many registrations from this address",
            Self::Busy => "it is busy",
            Self::Draining => "it is being shut down",
            Self::Replaced => "another process with the same key has registered",
            Self::Cloned => "two devices use the same key",
            Self::Silent => "this device was silent for too long",
            Self::Other(_) => "an error this version does not know",
        })
    }
}

/// Codes of NOTICE: the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeCode {
    /// Another device uses this key.
    KeyInUse,
    /// A limit of the base holds this device back.
    Limit,
    /// A code that this version does not know.
    Other(u8),
}

impl NoticeCode {
    /// The code on the wire.
    #[must_use]
    pub fn to_u8(self) -> u8 {
        match self {
            Self::KeyInUse => 1,
            Self::Limit => 2,
            Self::Other(code) => code,
        }
    }

    /// The code that a number stands for.
    #[must_use]
    pub fn from_u8(code: u8) -> Self {
        match code {
            1 => Self::KeyInUse,
            2 => Self::Limit,
            other => Self::Other(other),
        }
    }
}

/// Why a message did not reach its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnreachableReason {
    /// The base does not have this device.
    NotHere,
    /// The queue towards it is full, or there is no way to it at all.
    QueueFull,
    /// The sender is over its rate.
    Rate,
    /// The message is too large for any way to it.
    TooLarge,
    /// A reason that this version does not know.
    Other(u8),
}

impl UnreachableReason {
    /// The reason on the wire.
    #[must_use]
    pub fn to_u8(self) -> u8 {
        match self {
            Self::NotHere => 1,
            Self::QueueFull => 2,
            Self::Rate => 3,
            Self::TooLarge => 4,
            Self::Other(reason) => reason,
        }
    }

    /// The reason that a number stands for.
    #[must_use]
    pub fn from_u8(reason: u8) -> Self {
        match reason {
            1 => Self::NotHere,
            2 => Self::QueueFull,
            3 => Self::Rate,
            4 => Self::TooLarge,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for UnreachableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere => f.write_str("it is not there"),
            Self::QueueFull => f.write_str("the queue towards it is full"),
            Self::Rate => f.write_str("this device sends more than the base relays"),
            Self::TooLarge => f.write_str("the message is too large for any way to it"),
            Self::Other(reason) => write!(f, "reason {reason}"),
        }
    }
}
