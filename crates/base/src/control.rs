//! How others speak with the owner of the machine: the admin address asks what there is, the list of devices changes, the
//! operator's own service answers.
//!
//! Everything goes through one bounded queue, and the owner answers between two batches of work: whoever asks waits for it, never the
//! other way round.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId,
    base::{Answer, ConnId, Counters, Delays, DeviceView, Sizes},
};
use tokio::sync::{Notify, mpsc, oneshot};

/// Requests that wait for the owner.
pub(crate) const CONTROL: usize = 256;

/// What the owner is asked or told.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nobody can be asked there"))]
pub(crate) enum Control {
    /// Say what there is, and so many devices.
    Inspect(usize, oneshot::Sender<Snapshot>),
    /// These may be here, as the file says now; an error is only remembered.
    Listed(Result<HashSet<DeviceId>, String>),
    /// Whether a device may register, for the connection that waits.
    Answered { conn: ConnId, device: DeviceId, answer: Answer },
    /// Whether a device that is here may stay.
    Confirmed { device: DeviceId, answer: Answer },
}

/// A base server as it is at this moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The base.
    pub id: DeviceId,
    /// Since it started.
    pub uptime: Duration,
    /// When the devices' moments are to be compared with.
    pub now: Instant,
    /// What was counted since the start, by the machine and all workers.
    pub counters: Counters,
    /// What is held.
    pub sizes: Sizes,
    /// What waits, and where.
    pub queues: Queues,
    /// How long handshakes had waited for the owner.
    pub waits: Delays,
    /// Whether devices have been told to leave.
    pub draining: bool,
    /// Memory of the process and what it may have, in bytes; 0 where the system does not say.
    pub memory: (u64, u64),
    /// Whether newcomers are refused because of it.
    pub short_of_memory: bool,
    /// File descriptors that the process may have, and those that the limits in the configuration ask for.
    pub descriptors: (u64, u64),
    /// Devices in the file of allowed ones, and how often it could not be read when it had changed.
    pub listed: Option<(usize, u64)>,
    /// The other bases of the cluster, if there is one.
    pub cluster: Option<Cluster>,
    /// Some of the devices that are here.
    pub devices: Vec<DeviceView>,
    /// The UDP addresses that workers listen on.
    pub(crate) locals: Vec<SocketAddr>,
}

/// A cluster as one base sees it.
#[derive(Debug, Clone, Copy)]
pub struct Cluster {
    /// Whether the bus is there.
    pub bus_is_up: bool,
    /// Other bases that live, and those of them that data goes to over UDP.
    pub bases: (usize, usize),
}

/// How much waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queues {
    /// Reads of TCP connections, for the owner.
    pub frames: usize,
    /// Batches of handshakes from workers, for the owner.
    pub handshakes: usize,
    /// Batches of data that does not go over UDP, for the owner.
    pub data: usize,
    /// Batches of notes from workers, for the owner.
    pub notes: usize,
    /// Bytes for hosts, over TCP.
    pub outgoing_bytes: usize,
}

/// A base server that runs, for those beside it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) control: mpsc::Sender<Control>,
    pub(crate) reload: Arc<Notify>,
}

impl Handle {
    /// What there is, with so many of the devices at most; `None` when the base has ended.
    pub async fn inspect(&self, devices: usize) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        self.control.send(Control::Inspect(devices, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Has files read again that may have changed (SIGHUP): the list of allowed devices.
    pub fn reload(&self) {
        tracing::info!("files are read again");
        self.reload.notify_one();
    }
}
