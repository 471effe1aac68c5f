//! What bases of one cluster say to each other: what they keep in the store, and what they send (protocol section 11).
//!
//! The store and the bus are NATS's; who may speak there is its credentials' matter. What comes is read as carefully as
//! from anyone, since a base of another version or an operator's hand may have written it.
//!
//! Over UDP a message between bases is [`BASE_DATA`], with a tag under the receiver's key: it keeps out whoever is not on
//! the path. Like everything in this layer it does not protect content.

mod data;
mod message;
mod store;

pub use self::{
    data::{BaseData, Probe, prefix, tag},
    message::{Body, Message, Want},
    store::{Change, Lease, Record},
};
use super::relay;
use crate::id::{DEVICE_ID_LEN, DeviceId};

/// Subjects that changes of devices are spread over: enough that a base with few devices hears little, and few enough that one with
/// many needs no more subscriptions than this.
pub const SHARDS: u8 = 64;
/// Boots that a record remembers as replaced.
pub const MAX_REPLACED: usize = 4;
/// Statements of interest in one message.
pub const MAX_WANTS: usize = 256;
/// Bytes of the key under which a base takes data over UDP.
pub const BASE_KEY_LEN: usize = 16;
/// Bytes before the RECV-DATA or RECV-JOINED that a base hands to another: type, destination, tag.
pub const PREFIX_LEN: usize = 1 + DEVICE_ID_LEN + TAG_LEN;
/// BASE-PING and BASE-PONG: as long as the largest message that goes from base to base over UDP.
pub const PROBE_LEN: usize = PREFIX_LEN + relay::HEADER_LEN + super::ANY_PATH_DATA;

/// Base to base: "give this to that device, which is yours".
pub const BASE_DATA: u8 = 0x40;
/// Base to base over UDP: "do you hear me?"
pub const BASE_PING: u8 = 0x41;
/// The answer, as long as the question.
pub const BASE_PONG: u8 = 0x42;

const LEASE: u8 = 0x50;
const RECORD: u8 = 0x51;
const CHANGE: u8 = 0x52;
const WANTS: u8 = 0x53;
const ADDRESSES: u8 = 0x54;
const BLOCKED: u8 = 0x55;
const NOT_HERE: u8 = 0x56;
const CLONED: u8 = 0x57;

const TAG_LEN: usize = 8;
/// Of this version of everything here; another one is another cluster's.
const VERSION: u8 = 1;

const FLAG_ON: u8 = 1;
const FLAG_AGAIN: u8 = 2;
const FLAG_ONLINE: u8 = 1;
const FLAG_LEFT: u8 = 2;
const FLAG_JOINED: u8 = 4;

/// The random name of one start of a base: what it stored before is void.
pub type Incarnation = [u8; 8];
/// The key under which a base takes data over UDP.
pub type BaseKey = [u8; BASE_KEY_LEN];

/// The shard of a device. IDs are hashes already.
#[must_use]
pub fn shard_of(device: DeviceId) -> u8 {
    device.as_bytes()[0] % SHARDS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{code::UnreachableReason, peer::IntroductionKey, tcp::DeviceAddresses};

    fn id(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; DEVICE_ID_LEN])
    }

    fn record() -> Record {
        Record { base: id(1), incarnation: [2; 8], boot: [3; 8], attempt: 4, replaced: vec![[5; 8], [6; 8]] }
    }

    fn bodies() -> Vec<Body> {
        let want = Want { asker: id(1), revision: 7, about: id(2), heard: 3, on: true, again: false };
        let addresses = DeviceAddresses {
            device: id(3),
            online: true,
            joined: true,
            introduction: IntroductionKey([9; 16]),
            reflexive: vec!["192.0.2.1:5".parse().unwrap()],
            own: vec!["[2001:db8::1]:6".parse().unwrap()],
        };
        vec![
            Body::Wants(vec![want, Want { on: false, again: true, ..want }]),
            Body::Addresses { to: id(4), revision: 8, left: false, addresses },
            Body::Addresses { to: id(4), revision: 8, left: true, addresses: DeviceAddresses::gone(id(3)) },
            Body::Blocked { from: id(5), about: id(6), reason: UnreachableReason::QueueFull },
            Body::NotHere { device: id(7), from: id(8) },
            Body::Cloned(id(9)),
        ]
    }

    #[test]
    fn everything_returns_and_nothing_shorter_does() {
        let lease = Lease {
            base: id(1),
            incarnation: [2; 8],
            connection: 3,
            key: [4; 16],
            addresses: vec!["192.0.2.1:4477".parse().unwrap()],
        };
        let bytes = lease.encode();
        assert_eq!(Lease::decode(&bytes), Ok(lease));
        assert!((0..bytes.len()).all(|n| Lease::decode(&bytes[..n]).is_err()));
        let bytes = record().encode();
        assert_eq!(Record::decode(&bytes), Ok(record()));
        assert!((0..bytes.len()).all(|n| Record::decode(&bytes[..n]).is_err()));
        for record in [None, Some(record())] {
            let change = Change { device: id(9), revision: 10, record };
            let bytes = change.encode();
            assert_eq!(Change::decode(&bytes), Ok(change));
            assert!((0..bytes.len()).all(|n| Change::decode(&bytes[..n]).is_err()));
        }
        for body in bodies() {
            let message = Message { base: id(1), incarnation: [2; 8], seq: 3, body };
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            assert!((0..bytes.len()).all(|n| Message::decode(&bytes[..n]).is_err()));
        }
    }

    #[test]
    fn a_record_keeps_the_latest_of_too_many_replaced_boots() {
        let record = Record { replaced: (0..9).map(|n| [n; 8]).collect(), ..record() };
        let read = Record::decode(&record.encode()).unwrap();
        assert_eq!(read.replaced, [[5; 8], [6; 8], [7; 8], [8; 8]]);
    }

    #[test]
    fn a_probe_holds_under_its_receivers_key_alone() {
        let probe = Probe { kind: BASE_PING, base: id(1), nonce: [2; 8] };
        let bytes = probe.encode(&[3; 16]);
        assert_eq!(bytes.len(), PROBE_LEN);
        assert_eq!(Probe::decode(&bytes, &[3; 16]), Some(probe));
        assert_eq!(Probe::decode(&bytes, &[4; 16]), None);
        assert_eq!(Probe::decode(&bytes[1..], &[3; 16]), None);
        let pong = [&[BASE_PONG], &bytes[1..]].concat();
        assert_eq!(Probe::decode(&pong, &[3; 16]), None, "a ping is no pong");
    }

    proptest! {
        #[test]
        fn no_decoder_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0x40u8..0x60) {
            let bytes = [&[kind][..], &bytes].concat();
            let _ = (Lease::decode(&bytes), Record::decode(&bytes), Change::decode(&bytes));
            let _ = (Message::decode(&bytes), BaseData::decode(&bytes), Probe::decode(&bytes, &[0; 16]));
        }
    }
}
