//! The store and the bus that the bases of a cluster share, over NATS with JetStream.
//!
//! [`Bus`] carries out what the base machine asks for ([`BusOutput`]) and hands on what comes ([`Heard`]). It decides
//! nothing: order, replacement and repair are the machine's (`bowline_proto::base`), membership and storage are NATS's.
//!
//! ```text
//! bucket  bowline-NAME-devices   <device ID> → record   memory, kept for a day unless written again
//! bucket  bowline-NAME-leases    <base ID>   → lease    memory, void after ten seconds unless written again
//! subject bowline.NAME.shard.N                changes of devices whose ID falls into shard N, and first messages to them
//! subject bowline.NAME.base.<base ID>         what bases tell one base
//! subject bowline.NAME.data.<base ID>         messages for devices of one base, where UDP between the bases is not open
//! ```
//!
//! Both buckets are in memory: every base brings back what is its own whenever it has connected.
//!
//! - `config`: what an operator sets; `credentials`: a file of it that may change
//! - `link`: the connection and what comes over it; `store`: the two buckets

pub mod config;
mod credentials;
mod link;
mod store;

use std::time::Duration;

use bowline_proto::{
    DeviceId,
    base::{BusInput, BusOutput, CameOver, Entry, Over},
    wire::cluster::PREFIX_LEN,
};
use bytes::Bytes;
pub use config::{ClusterConfig, ConfigError};
use tokio::sync::mpsc;

/// What the machine may have asked for and is not done yet; what is over it is dropped, and said again in time.
const COMMANDS: usize = 65_536;
/// Messages of devices on their way to other bases.
const DATA_OUT: usize = 4_096;
/// What has come for the machine; beyond it the subscriptions' own queues fill.
const HEARD: usize = 4_096;
/// Messages of devices that have come.
const DATA_IN: usize = 4_096;

/// What came from store or bus.
#[derive(Debug)]
pub enum Heard {
    /// The link is there. `seen` is the address that the NATS server sees this base at.
    Up {
        /// As the server says.
        seen: Option<std::net::IpAddr>,
    },
    /// The link is gone.
    Down,
    /// A lease.
    Lease(Bytes),
    /// A lease was taken back.
    LeaseEnded(DeviceId),
    /// The answer to [`BusOutput::Lease`].
    LeaseWritten,
    /// The store did not take it.
    LeaseFailed,
    /// The answer to [`BusOutput::Find`].
    Found {
        /// The device.
        device: DeviceId,
        /// Its entry: value, revision, age.
        entry: Option<(Bytes, u64, Duration)>,
    },
    /// The answer to [`BusOutput::Store`].
    Stored {
        /// The device.
        device: DeviceId,
        /// The revision.
        revision: u64,
    },
    /// The answer to [`BusOutput::Store`]: another revision is there.
    Refused(DeviceId),
    /// The store did not answer.
    Failed(DeviceId),
    /// A message on a shard's subject or on the base's own.
    Message(Bytes),
}

impl Heard {
    /// As the machine takes it.
    #[must_use]
    pub fn input(&self) -> BusInput<'_> {
        match self {
            Self::Up { .. } => BusInput::Up,
            Self::Down => BusInput::Down,
            Self::Lease(lease) => BusInput::Lease(lease),
            Self::LeaseEnded(base) => BusInput::LeaseEnded(*base),
            Self::LeaseWritten => BusInput::LeaseWritten,
            Self::LeaseFailed => BusInput::LeaseFailed,
            Self::Found { device, entry } => BusInput::Found {
                device: *device,
                entry: entry.as_ref().map(|(record, revision, age)| Entry {
                    record,
                    revision: *revision,
                    age: *age,
                }),
            },
            &Self::Stored { device, revision } => BusInput::Stored { device, revision },
            &Self::Refused(device) => BusInput::Refused { device },
            &Self::Failed(device) => BusInput::Failed { device },
            Self::Message(bytes) => BusInput::Message(bytes),
        }
    }
}

/// A message for a device, from another base.
#[derive(Debug)]
pub struct Data {
    /// How it came.
    pub came: CameOver,
    /// BASE-DATA.
    pub bytes: Bytes,
}

/// The link to store and bus. Dropped, it closes.
#[derive(Debug)]
pub struct Bus {
    commands: mpsc::Sender<BusOutput>,
    data_out: mpsc::Sender<(Over, Bytes)>,
    heard: mpsc::Receiver<Heard>,
    data_in: mpsc::Receiver<Data>,
    failures: mpsc::Sender<Heard>,
    task: tokio::task::JoinHandle<()>,
}

impl Bus {
    /// Begins to connect, and goes on for ever; to be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the files or addresses that the configuration names cannot be used.
    pub async fn start(config: &ClusterConfig, base: DeviceId) -> Result<Self, ConfigError> {
        let (commands, commands_out) = mpsc::channel(COMMANDS);
        let (data_out, data_out_out) = mpsc::channel(DATA_OUT);
        let (heard_in, heard) = mpsc::channel(HEARD);
        let (data_in_in, data_in) = mpsc::channel(DATA_IN);
        let failures = heard_in.clone();
        let task = link::start(config, base, commands_out, data_out_out, heard_in, data_in_in).await?;
        Ok(Self { commands, data_out, heard, data_in, failures, task })
    }

    /// Has something done. What does not fit is dropped; the machine says again what matters.
    pub fn say(&self, output: BusOutput) {
        if let Err(error) = self.commands.try_send(output) {
            tracing::warn!("more for the cluster's bus than it takes: something is left for later");
            if let BusOutput::Find(device) | BusOutput::Store { device, .. } = error.into_inner() {
                let _ = self.failures.try_send(Heard::Failed(device)); // with neither it is asked for again in half a minute
            }
        }
    }

    /// Sends a message of a device to another base (or to whoever has the destination): whether there was room for it.
    #[must_use]
    pub fn send(&self, over: Over, prefix: &[u8; PREFIX_LEN], message: &[u8]) -> bool {
        self.data_out.try_send((over, [prefix, message].concat().into())).is_ok()
    }

    /// The next thing for the machine.
    pub async fn heard(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// What else is there for it.
    pub fn more(&mut self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }

    /// Both: the next thing for the machine, or messages for devices, whichever is there.
    pub async fn next(&mut self) -> Next {
        tokio::select! {
            biased;
            Some(heard) = self.heard.recv() => Next::Heard(heard),
            Some(data) = self.data_in.recv() => Next::Data(data),
            else => std::future::pending().await,
        }
    }

    /// Further messages for devices.
    pub fn more_data(&mut self) -> Option<Data> {
        self.data_in.try_recv().ok()
    }

    /// Waits until what was said has been sent, for as long at most.
    pub async fn finish(self, patience: Duration) {
        let Self { commands, data_out, mut heard, data_in, failures, mut task } = self;
        drop((commands, data_out, data_in, failures));
        // What comes meanwhile is for nobody, and must not be in the way.
        let drained = async { while heard.recv().await.is_some() {} };
        let end = async { tokio::join!(drained, async { drop((&mut task).await) }) };
        if tokio::time::timeout(patience, end).await.is_err() {
            task.abort();
        }
    }
}

/// See [`Bus::next`].
#[derive(Debug)]
pub enum Next {
    /// For the machine.
    Heard(Heard),
    /// For a device.
    Data(Data),
}
