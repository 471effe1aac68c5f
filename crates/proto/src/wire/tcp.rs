//! The control frames between host and base over TCP (protocol section 4).
//!
//! A frame here is type and body; [`super::frame`] puts the length before it. A frame may carry more bytes than
//! this version knows: they are ignored, and a signature is always the last 64 bytes.

use std::net::SocketAddr;

pub use super::code::{ErrorCode, NoticeCode, UnreachableReason};
use super::{
    BootId, Cookie, INTRODUCTION_KEY_LEN, MAX_BASE_ADDRESSES, MAX_OWN_ADDRESSES, Malformed, Put, Reader,
    frame, peer::IntroductionKey, relay,
};
use crate::{
    id::DeviceId,
    identity::{Context, PublicKey, SIGNATURE_LEN, SecretKey},
};

/// The protocol's version on the wire.
pub const VERSION: u8 = 1;

/// Type of GET-COOKIE, host to base.
pub const GET_COOKIE: u8 = 0x00;
/// Type of BASE-HELLO, base to host.
pub const BASE_HELLO: u8 = 0x01;
/// Type of REGISTER, host to base.
pub const REGISTER: u8 = 0x02;
/// Type of REGISTERED, base to host.
pub const REGISTERED: u8 = 0x03;
/// Type of ERROR, base to host.
pub const ERROR: u8 = 0x0f;
/// Type of INFO, host to base.
pub const INFO: u8 = 0x10;
/// Type of PONG, base to host.
pub const PONG: u8 = 0x11;
/// Type of REQUEST-INFO, host to base.
pub const REQUEST_INFO: u8 = 0x12;
/// Type of RELEASE-INFO, host to base.
pub const RELEASE_INFO: u8 = 0x13;
/// Type of DEVICE-ADDRESSES, base to host.
pub const DEVICE_ADDRESSES: u8 = 0x14;
/// Type of UNREACHABLE, base to host.
pub const UNREACHABLE: u8 = 0x15;
/// Type of GOAWAY, base to host.
pub const GOAWAY: u8 = 0x16;
/// Type of WANTED, base to host.
pub const WANTED: u8 = 0x17;
/// Type of NOTICE, base to host.
pub const NOTICE: u8 = 0x18;
/// Type of LEAVE, host to base.
pub const LEAVE: u8 = 0x19;

/// What GET-COOKIE begins with, so that a stray client of another service is told apart at once.
pub const SERVICE: [u8; 7] = *b"bowline";
/// Bit of DEVICE-ADDRESSES' flags: the device is here.
pub const FLAG_ONLINE: u32 = 1;
/// In DEVICE-ADDRESSES: the device takes RECV-JOINED, and its base forwards it.
pub const FLAG_JOINED: u32 = 2;
/// In capabilities: this host takes RECV-JOINED; this base forwards SEND-JOINED.
pub const TAKES_JOINED: u32 = 1;

/// GET-COOKIE: `0x00 ‖ "bowline" ‖ highest version u8 ‖ capabilities u32`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetCookie {
    /// The highest version the host speaks, 1 or more.
    pub highest_version: u8,
    /// What the host can do; unknown bits are ignored.
    pub capabilities: u32,
}

impl BaseHello {
    /// Whether the base forwards joined messages.
    #[must_use]
    pub fn takes_joined(&self) -> bool {
        self.capabilities & TAKES_JOINED != 0
    }
}

/// BASE-HELLO: `0x01 ‖ version u8 ‖ cookie 8 ‖ base ID 14 ‖ cluster ID 14 ‖ capabilities u32`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseHello {
    /// The version of this session.
    pub version: u8,
    /// What the registration is bound to.
    pub cookie: Cookie,
    /// The base's ID.
    pub base: DeviceId,
    /// The ID of its cluster, its own when alone.
    pub cluster: DeviceId,
    /// What the base can do; unknown bits are ignored.
    pub capabilities: u32,
}

/// REGISTER, to be signed: `0x02 ‖ device ID 14 ‖ public key 32 ‖ boot ID 8 ‖ attempt u32 ‖ capabilities u32 ‖ agent text ‖ signature 64`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Who registers.
    pub device: DeviceId,
    /// The key that makes that ID.
    pub public_key: PublicKey,
    /// Random, once per start of the host.
    pub boot: BootId,
    /// Rises with every attempt within a boot, from 1.
    pub attempt: u32,
    /// What the host can do; unknown bits are ignored.
    pub capabilities: u32,
    /// The program and its version, for the operator.
    pub agent: String,
}

impl Register {
    /// Whether the host takes joined messages.
    #[must_use]
    pub fn takes_joined(&self) -> bool {
        self.capabilities & TAKES_JOINED != 0
    }

    /// Appends the signed frame for the base with this ID and cookie.
    pub fn write(&self, out: &mut Vec<u8>, key: &SecretKey, base: DeviceId, cookie: &Cookie) {
        frame::write(out, |out| {
            let start = out.len();
            out.push(REGISTER);
            out.put_id(self.device);
            out.put(&self.public_key.0);
            out.put(&self.boot);
            out.put(&self.attempt.to_be_bytes());
            out.put(&self.capabilities.to_be_bytes());
            out.put_text(&self.agent);
            let signature = key.sign(Context::Register, &[base.as_bytes(), cookie, &out[start..]]);
            out.put(&signature);
        });
    }
}

/// A REGISTER whose signature has not been looked at.
#[derive(Debug, Clone)]
pub struct UnverifiedRegister<'a> {
    claim: Register,
    signed: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
}

impl<'a> UnverifiedRegister<'a> {
    fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        let (signed, signature) = frame.split_last_chunk().ok_or(Malformed::TooShort)?;
        let mut r = Reader(signed);
        r.u8()?;
        let claim = Register {
            device: r.id()?,
            public_key: PublicKey(r.array()?),
            boot: r.array()?,
            attempt: r.u32()?,
            capabilities: r.u32()?,
            agent: r.text()?.to_owned(),
        };
        Ok(Self { claim, signed, signature: *signature })
    }

    /// What it claims, for the checks that come before the signature.
    #[must_use]
    pub fn claim(&self) -> &Register {
        &self.claim
    }

    /// The message, if its key makes its ID and signed it for this base and cookie.
    #[must_use]
    pub fn verify(self, base: DeviceId, cookie: &Cookie) -> Option<Register> {
        let Register { device, public_key, .. } = self.claim;
        (public_key.device_id() == device
            && public_key.verifies(
                Context::Register,
                &[base.as_bytes(), cookie, self.signed],
                &self.signature,
            ))
        .then_some(self.claim)
    }
}

/// REGISTERED: `0x03 ‖ address as seen 18 ‖ keepalive seconds u16 ‖ list (≤ 4) of the base's UDP addresses`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The host's address as the base sees it on TCP.
    pub seen: SocketAddr,
    /// Seconds between refreshes, 10 to 25.
    pub keepalive: u16,
    /// The base's UDP addresses; `::` stands for the IP the host reached it at.
    pub udp: Vec<SocketAddr>,
}

/// ERROR: `0x0f ‖ code u8 ‖ retry after seconds u16 ‖ text`; the base closes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub code: ErrorCode,
    /// Seconds to stay away; 0: the host's own back-off.
    pub retry_after: u16,
    /// The same for people.
    pub text: String,
}

/// INFO: `0x10 ‖ number u64 ‖ introduction master key 16 ‖ list (≤ 12) of own addresses`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// From the counter that NAT-INIT uses, too.
    pub number: u64,
    /// What the base derives introduction keys from.
    pub master_key: [u8; INTRODUCTION_KEY_LEN],
    /// The host's own addresses.
    pub own: Vec<SocketAddr>,
}

/// DEVICE-ADDRESSES: `0x14 ‖ device ID 14 ‖ flags u32 ‖ introduction key 16 ‖ list (≤ 4) reflexive ‖ list (≤ 12) own`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceAddresses {
    /// Whose addresses.
    pub device: DeviceId,
    /// Whether it is here (bit 0 of the flags).
    pub online: bool,
    /// Whether it takes joined messages through its base (bit 1).
    pub joined: bool,
    /// What makes HELLOs to it cheap to check.
    pub introduction: IntroductionKey,
    /// As bases see it.
    pub reflexive: Vec<SocketAddr>,
    /// As it sees itself.
    pub own: Vec<SocketAddr>,
}

impl DeviceAddresses {
    /// What a host is told of a device that is gone or has released it.
    #[must_use]
    pub fn gone(device: DeviceId) -> Self {
        Self {
            device,
            online: false,
            joined: false,
            introduction: IntroductionKey::NONE,
            reflexive: vec![],
            own: vec![],
        }
    }
}

/// NOTICE: `0x18 ‖ code u8 ‖ text`; the session goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What is to be noticed.
    pub code: NoticeCode,
    /// The same for people.
    pub text: String,
}

/// What a host sends over TCP.
#[derive(Debug, Clone)]
pub enum HostFrame<'a> {
    /// The first frame of a connection.
    GetCookie(GetCookie),
    /// Asks for a session.
    Register(UnverifiedRegister<'a>),
    /// Own addresses, every keepalive and at changes.
    Info(Info),
    /// "I want to talk with this device."
    RequestInfo(DeviceId),
    /// "I no longer want to."
    ReleaseInfo(DeviceId),
    /// "Forget me now."
    Leave,
    /// A message to relay.
    SendData(DeviceId, &'a [u8]),
    /// Several to relay in one: a body for [`super::joined::read`].
    SendJoined(DeviceId, &'a [u8]),
    /// A type of a later version.
    Unknown(u8),
}

impl<'a> HostFrame<'a> {
    /// Reads a frame (type and body) that a host sent.
    ///
    /// # Errors
    /// When it is malformed, or of a type that only a base sends.
    pub fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(frame);
        Ok(match r.u8()? {
            GET_COOKIE => {
                if r.array()? != SERVICE {
                    return Err(Malformed::Fixed);
                }
                let message = GetCookie { highest_version: r.u8()?, capabilities: r.u32()? };
                if message.highest_version == 0 {
                    return Err(Malformed::Fixed);
                }
                Self::GetCookie(message)
            }
            REGISTER => Self::Register(UnverifiedRegister::decode(frame)?),
            INFO => Self::Info(Info {
                number: r.u64()?,
                master_key: r.array()?,
                own: r.addrs(MAX_OWN_ADDRESSES)?,
            }),
            REQUEST_INFO => Self::RequestInfo(r.id()?),
            RELEASE_INFO => Self::ReleaseInfo(r.id()?),
            LEAVE => Self::Leave,
            relay::SEND_DATA => {
                let (to, data) = relay::split(frame)?;
                Self::SendData(to, data)
            }
            relay::SEND_JOINED => {
                let (to, body) = relay::split(frame)?;
                Self::SendJoined(to, body)
            }
            kind @ (BASE_HELLO
            | REGISTERED
            | ERROR
            | PONG
            | DEVICE_ADDRESSES
            | UNREACHABLE
            | GOAWAY
            | WANTED
            | NOTICE
            | relay::RECV_DATA
            | relay::RECV_JOINED) => return Err(Malformed::WrongSide(kind)),
            kind => Self::Unknown(kind),
        })
    }
}

impl GetCookie {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        frame::write(out, |out| {
            out.push(GET_COOKIE);
            out.put(&SERVICE);
            out.push(self.highest_version);
            out.put(&self.capabilities.to_be_bytes());
        });
    }
}

impl Info {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        frame::write(out, |out| {
            out.push(INFO);
            out.put(&self.number.to_be_bytes());
            out.put(&self.master_key);
            out.put_addrs(&self.own, MAX_OWN_ADDRESSES);
        });
    }
}

/// Appends a REQUEST-INFO: `0x12 ‖ device ID 14`
pub fn write_request_info(out: &mut Vec<u8>, device: DeviceId) {
    write_id(out, REQUEST_INFO, device);
}

/// Appends a RELEASE-INFO: `0x13 ‖ device ID 14`
pub fn write_release_info(out: &mut Vec<u8>, device: DeviceId) {
    write_id(out, RELEASE_INFO, device);
}

/// Appends a LEAVE: `0x19`
pub fn write_leave(out: &mut Vec<u8>) {
    frame::write(out, |out| out.push(LEAVE));
}

fn write_id(out: &mut Vec<u8>, kind: u8, device: DeviceId) {
    frame::write(out, |out| {
        out.push(kind);
        out.put_id(device);
    });
}

/// What a base sends over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseFrame<'a> {
    /// The answer to GET-COOKIE.
    BaseHello(BaseHello),
    /// The session stands.
    Registered(Registered),
    /// Something is wrong, and the base closes.
    Error(Error),
    /// The answer to INFO, with its number.
    Pong(u64),
    /// Where a device is.
    DeviceAddresses(DeviceAddresses),
    /// A message did not reach its device.
    Unreachable(DeviceId, UnreachableReason),
    /// "Leave within so many seconds."
    GoAway(u16),
    /// "This device asks for you."
    Wanted(DeviceId),
    /// Something to know; the session goes on.
    Notice(Notice),
    /// A relayed message.
    RecvData(DeviceId, &'a [u8]),
    /// Several in one: a body for [`super::joined::read`], which is the sender's, as data is.
    RecvJoined(DeviceId, &'a [u8]),
    /// A type of a later version.
    Unknown(u8),
}

impl<'a> BaseFrame<'a> {
    /// Reads a frame (type and body) that a base sent.
    ///
    /// # Errors
    /// When it is malformed, or of a type that only a host sends.
    pub fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(frame);
        Ok(match r.u8()? {
            BASE_HELLO => Self::BaseHello(BaseHello {
                version: r.u8()?,
                cookie: r.array()?,
                base: r.id()?,
                cluster: r.id()?,
                capabilities: r.u32()?,
            }),
            REGISTERED => Self::Registered(Registered {
                seen: r.addr()?,
                keepalive: r.u16()?,
                udp: r.addrs(MAX_BASE_ADDRESSES)?,
            }),
            ERROR => Self::Error(Error {
                code: ErrorCode::from_u8(r.u8()?),
                retry_after: r.u16()?,
                text: r.text()?.to_owned(),
            }),
            PONG => Self::Pong(r.u64()?),
            DEVICE_ADDRESSES => {
                let (device, flags) = (r.id()?, r.u32()?);
                Self::DeviceAddresses(DeviceAddresses {
                    device,
                    online: flags & FLAG_ONLINE != 0,
                    joined: flags & FLAG_JOINED != 0,
                    introduction: IntroductionKey(r.array()?),
                    reflexive: r.addrs(MAX_BASE_ADDRESSES)?,
                    own: r.addrs(MAX_OWN_ADDRESSES)?,
                })
            }
            UNREACHABLE => Self::Unreachable(r.id()?, UnreachableReason::from_u8(r.u8()?)),
            GOAWAY => Self::GoAway(r.u16()?),
            WANTED => Self::Wanted(r.id()?),
            NOTICE => Self::Notice(Notice { code: NoticeCode::from_u8(r.u8()?), text: r.text()?.to_owned() }),
            relay::RECV_DATA => {
                let (from, data) = relay::split(frame)?;
                Self::RecvData(from, data)
            }
            relay::RECV_JOINED => {
                let (from, body) = relay::split(frame)?;
                Self::RecvJoined(from, body)
            }
            kind @ (GET_COOKIE
            | REGISTER
            | INFO
            | REQUEST_INFO
            | RELEASE_INFO
            | LEAVE
            | relay::SEND_DATA
            | relay::SEND_JOINED) => {
                return Err(Malformed::WrongSide(kind));
            }
            kind => Self::Unknown(kind),
        })
    }

    /// Appends the frame.
    ///
    /// # Panics
    /// When the data of a RECV-DATA or RECV-JOINED do not fit a frame, which the limit on messages rules out.
    pub fn write(&self, out: &mut Vec<u8>) {
        frame::write(out, |out| match self {
            Self::BaseHello(m) => {
                out.push(BASE_HELLO);
                out.push(m.version);
                out.put(&m.cookie);
                out.put_id(m.base);
                out.put_id(m.cluster);
                out.put(&m.capabilities.to_be_bytes());
            }
            Self::Registered(m) => {
                out.push(REGISTERED);
                out.put_addr(m.seen);
                out.put(&m.keepalive.to_be_bytes());
                out.put_addrs(&m.udp, MAX_BASE_ADDRESSES);
            }
            Self::Error(m) => {
                out.push(ERROR);
                out.push(m.code.to_u8());
                out.put(&m.retry_after.to_be_bytes());
                out.put_text(&m.text);
            }
            Self::Pong(number) => {
                out.push(PONG);
                out.put(&number.to_be_bytes());
            }
            Self::DeviceAddresses(m) => {
                out.push(DEVICE_ADDRESSES);
                out.put_id(m.device);
                let flag = |is: bool, flag: u32| if is { flag } else { 0 };
                out.put(&(flag(m.online, FLAG_ONLINE) | flag(m.joined, FLAG_JOINED)).to_be_bytes());
                out.put(&m.introduction.0);
                out.put_addrs(&m.reflexive, MAX_BASE_ADDRESSES);
                out.put_addrs(&m.own, MAX_OWN_ADDRESSES);
            }
            Self::Unreachable(device, reason) => {
                out.push(UNREACHABLE);
                out.put_id(*device);
                out.push(reason.to_u8());
            }
            Self::GoAway(seconds) => {
                out.push(GOAWAY);
                out.put(&seconds.to_be_bytes());
            }
            Self::Wanted(device) => {
                out.push(WANTED);
                out.put_id(*device);
            }
            Self::Notice(m) => {
                out.push(NOTICE);
                out.push(m.code.to_u8());
                out.put_text(&m.text);
            }
            Self::RecvData(from, data) => {
                out.put(&relay::header(relay::RECV_DATA, *from));
                out.put(data);
            }
            Self::RecvJoined(from, body) => {
                out.put(&relay::header(relay::RECV_JOINED, *from));
                out.put(body);
            }
            Self::Unknown(kind) => out.push(*kind),
        });
    }
}
