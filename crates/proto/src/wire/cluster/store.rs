//! What bases keep in the store, and say when it changes: leases and records of devices.

use std::net::SocketAddr;

use super::{BaseKey, CHANGE, Incarnation, LEASE, MAX_REPLACED, RECORD, VERSION};
use crate::{
    id::DeviceId,
    wire::{BootId, MAX_BASE_ADDRESSES, Malformed, Put, Reader},
};

/// "I am here": a base's own entry, which lapses by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub base: DeviceId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// How often it has (re)joined the bus since: whoever sees it rise says everything again.
    pub connection: u32,
    /// What tags of data over UDP are made with.
    pub key: BaseKey,
    /// Where it takes data over UDP; empty: nowhere.
    pub addresses: Vec<SocketAddr>,
}

impl Lease {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![LEASE, VERSION];
        out.put_id(self.base);
        out.put(&self.incarnation);
        out.put(&self.connection.to_be_bytes());
        out.put(&self.key);
        out.put_addrs(&self.addresses, MAX_BASE_ADDRESSES);
        out
    }

    /// Reads a lease; what follows its fields is for later versions.
    ///
    /// # Errors
    /// When it is malformed or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        r.kind(LEASE)?;
        if r.u8()? != VERSION {
            return Err(Malformed::Fixed);
        }
        Ok(Self {
            base: r.id()?,
            incarnation: r.array()?,
            connection: r.u32()?,
            key: r.array()?,
            addresses: r.addrs(MAX_BASE_ADDRESSES)?,
        })
    }
}

/// Which base has a device. Valid while the lease of that start of that base lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The base.
    pub base: DeviceId,
    /// Its start.
    pub incarnation: Incarnation,
    /// The device's boot.
    pub boot: BootId,
    /// The attempt of its registration.
    pub attempt: u32,
    /// Boots that this one replaced, the latest last.
    pub replaced: Vec<BootId>,
}

impl Record {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECORD];
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_id(self.base);
        out.put(&self.incarnation);
        out.put(&self.boot);
        out.put(&self.attempt.to_be_bytes());
        let replaced = &self.replaced[self.replaced.len().saturating_sub(MAX_REPLACED)..];
        out.put(&[replaced.len() as u8]);
        for boot in replaced {
            out.put(boot);
        }
    }

    /// Reads a record; what follows its fields is for later versions.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        r.kind(RECORD)?;
        Self::read(&mut r)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (base, incarnation, boot, attempt) = (r.id()?, r.array()?, r.array()?, r.u32()?);
        let count = usize::from(r.u8()?);
        if count > MAX_REPLACED {
            return Err(Malformed::OverLimit);
        }
        let replaced = (0..count).map(|_| r.array()).collect::<Result<_, _>>()?;
        Ok(Self { base, incarnation, boot, attempt, replaced })
    }
}

/// "From this revision on the device is there", or gone: told on its shard's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The device.
    pub device: DeviceId,
    /// The revision of its entry: a higher one is newer, whatever the order of arrival.
    pub revision: u64,
    /// `None`: the entry of this revision is gone.
    pub record: Option<Record>,
}

impl Change {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![CHANGE];
        out.put_id(self.device);
        out.put(&self.revision.to_be_bytes());
        if let Some(record) = &self.record {
            out.put(&[1]);
            record.put(&mut out);
        } else {
            out.put(&[0]);
        }
        out
    }

    /// Reads a change.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        r.kind(CHANGE)?;
        let (device, revision) = (r.id()?, r.u64()?);
        let record = if r.u8()? == 0 { None } else { Some(Record::read(&mut r)?) };
        Ok(Self { device, revision, record })
    }
}
