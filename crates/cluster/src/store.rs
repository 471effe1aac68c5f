//! The two buckets: which base has a device, and which bases live.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::{
    self,
    kv::{self, Operation, UpdateErrorKind},
    stream::{self, DiscardPolicy, StorageType},
};
use bowline_proto::{
    DeviceId,
    base::{LEASE_LIFE, RECORD_LIFE},
};
use bytes::Bytes;

use crate::Heard;

/// The largest value, with room for later versions.
const MAX_VALUE: i32 = 4_096;

/// Handles of the buckets.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    devices: kv::Store,
    pub(crate) leases: kv::Store,
}

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Store {
    /// Opens the buckets, or makes them.
    pub(crate) async fn open(
        context: &jetstream::Context,
        name: &str,
        replicas: usize,
    ) -> Result<Self, Failure> {
        let bucket = |what: &str, description: &str, max_age: Duration| stream::Config {
            name: format!("KV_bowline-{name}-{what}"),
            description: Some(description.to_owned()),
            subjects: vec![format!("$KV.bowline-{name}-{what}.>")],
            max_message_size: MAX_VALUE,
            max_messages_per_subject: 1,
            max_age,
            storage: StorageType::Memory,
            num_replicas: replicas,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            // Of several copies some are behind: a read that shows an older revision than was written would end in a refusal.
            allow_direct: replicas == 1,
            // A base takes an entry back by its revision, and leaves no tombstone behind.
            deny_delete: false,
            ..stream::Config::default()
        };
        let devices = bucket("devices", "which base of a bowline cluster has a device", RECORD_LIFE);
        let leases = bucket("leases", "the bases of a bowline cluster that live", LEASE_LIFE);
        Ok(Self { devices: open(context, devices).await?, leases: open(context, leases).await? })
    }

    /// A device's entry.
    pub(crate) async fn find(&self, device: DeviceId) -> Heard {
        match self.devices.entry(device.to_string()).await {
            Ok(entry) => {
                let entry = entry.filter(|entry| entry.operation == Operation::Put);
                Heard::Found { device, entry: entry.map(|e| (e.value.clone(), e.revision, age(&e))) }
            }
            Err(error) => failed("read", device, &error),
        }
    }

    /// Writes a device's entry over the revision that was read.
    pub(crate) async fn store(&self, device: DeviceId, record: Bytes, over: u64) -> Heard {
        match self.devices.update(device.to_string(), record, over).await {
            Ok(revision) => Heard::Stored { device, revision },
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Heard::Refused(device),
            Err(error) => failed("write", device, &error),
        }
    }

    /// Deletes this revision of a device's entry; a newer one stays. Nothing is left behind.
    pub(crate) async fn erase(&self, device: DeviceId, revision: u64) {
        let stream = &self.devices.stream;
        let subject = format!("{}{device}", self.devices.prefix);
        // A store that was emptied meanwhile may have given the number to somebody else's.
        let ours = match stream.get_raw_message(revision).await {
            Ok(message) => message.subject.as_str() == subject,
            Err(_) => false,
        };
        if ours && let Err(error) = stream.delete_message(revision).await {
            tracing::debug!(%device, revision, %error, "cannot take back an entry of the cluster's store");
        }
    }

    pub(crate) async fn put_lease(&self, base: DeviceId, lease: Bytes) -> Heard {
        match self.leases.put(base.to_string(), lease).await {
            Ok(_) => Heard::LeaseWritten,
            Err(error) => {
                tracing::debug!(%error, "cannot write this base's lease to the cluster's store");
                Heard::LeaseFailed
            }
        }
    }

    pub(crate) async fn end_lease(&self, base: DeviceId) {
        if let Err(error) = self.leases.delete(base.to_string()).await {
            tracing::debug!(%error, "cannot take back this base's lease");
        }
    }
}

/// Opens a bucket, or makes it: as a stream, since the client's own way asks for more than NATS 2.9 says, and forbids deletion.
async fn open(context: &jetstream::Context, config: stream::Config) -> Result<kv::Store, Failure> {
    let bucket = config.name.trim_start_matches("KV_").to_owned();
    // Several bases may make it at once; the same twice is no error.
    let wanted = config.num_replicas;
    let there = context.get_or_create_stream(config).await?.cached_info().config.num_replicas;
    if there != wanted {
        tracing::warn!(
            bucket,
            replicas = there,
            wanted,
            "the cluster's store was made with another number of copies, which stays: change it with `nats stream edit`"
        );
    }
    Ok(context.get_key_value(bucket).await?)
}

fn failed(what: &str, device: DeviceId, error: &dyn std::fmt::Display) -> Heard {
    tracing::debug!(%device, %error, "cannot {what} an entry of the cluster's store");
    Heard::Failed(device)
}

/// By this machine's clock, which need not be the server's: rough.
fn age(entry: &kv::Entry) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let written = Duration::from_secs(entry.created.unix_timestamp().try_into().unwrap_or_default());
    now.saturating_sub(written)
}
