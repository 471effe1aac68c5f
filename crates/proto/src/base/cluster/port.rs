//! The port to store and bus, and to other bases: what the shell hears and hands in, and what it has to do there.

use std::{net::SocketAddr, time::Duration};

use crate::{base::Via, id::DeviceId, wire::cluster::PREFIX_LEN};

/// What the shell has heard.
#[derive(Debug, Clone, Copy)]
pub enum BusInput<'a> {
    /// The bus is there (again). The leases that stand were handed in before; watches and unanswered requests are void.
    Up,
    /// The bus is gone.
    Down,
    /// A lease was written.
    Lease(&'a [u8]),
    /// A base took its lease back.
    LeaseEnded(DeviceId),
    /// The answer to [`BusOutput::Lease`]: it is written.
    LeaseWritten,
    /// The answer to [`BusOutput::Lease`]: the store did not take it.
    LeaseFailed,
    /// The answer to [`BusOutput::Find`].
    Found {
        /// The device.
        device: DeviceId,
        /// Its entry.
        entry: Option<Entry<'a>>,
    },
    /// The answer to [`BusOutput::Store`]: it is stored, under this revision.
    Stored {
        /// The device.
        device: DeviceId,
        /// The revision.
        revision: u64,
    },
    /// The answer to [`BusOutput::Store`]: the entry has another revision by now.
    Refused {
        /// The device.
        device: DeviceId,
    },
    /// The answer to a find or a store: the store did not answer.
    Failed {
        /// The device.
        device: DeviceId,
    },
    /// What came on the subject of a shard, or on the base's own, and is not BASE-DATA.
    Message(&'a [u8]),
}

/// An entry of the store.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its value.
    pub record: &'a [u8],
    /// Its revision: of two the higher one is newer.
    pub revision: u64,
    /// How long ago it was written, roughly.
    pub age: Duration,
}

/// What the shell has to do at store and bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusOutput {
    /// Write this base's lease, in place of the one before, and answer with [`BusInput::LeaseWritten`] or [`BusInput::LeaseFailed`]; it
    /// lapses after [`LEASE_LIFE`](crate::base::LEASE_LIFE).
    Lease(Vec<u8>),
    /// Take it back.
    EndLease,
    /// Read a device's entry, and answer with [`BusInput::Found`] or [`BusInput::Failed`].
    Find(DeviceId),
    /// Write a device's entry, if the present one has this revision (0: there is none), and answer.
    Store {
        /// The device.
        device: DeviceId,
        /// The value.
        record: Vec<u8>,
        /// The revision that it takes the place of.
        over: u64,
    },
    /// Delete a device's entry if it still has this revision.
    Erase {
        /// The device.
        device: DeviceId,
        /// The revision.
        revision: u64,
    },
    /// Hear the subject of this shard from now on; what a later [`BusOutput::Find`] does not show, comes there.
    Watch(u8),
    /// No longer.
    Unwatch(u8),
    /// Say this on the subject of a shard.
    Publish {
        /// The shard.
        shard: u8,
        /// The bytes.
        message: Vec<u8>,
    },
    /// Say this on the subject of a base.
    Send {
        /// The base.
        to: DeviceId,
        /// The bytes.
        message: Vec<u8>,
    },
}

/// A relayed message for another base: it goes as `prefix ‖ message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToBase {
    /// What goes before it.
    pub prefix: [u8; PREFIX_LEN],
    /// Where.
    pub over: Over,
}

/// The way of a message to another base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// As a datagram.
    Udp {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
    },
    /// On the subject of this base.
    Bus(DeviceId),
    /// On the subject of all bases: whoever has the device takes it.
    All,
}

/// How a message came from another base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CameOver {
    /// As a datagram from this address.
    Udp(SocketAddr),
    /// On this base's subject.
    Bus,
    /// On the subject of all bases.
    All,
}
