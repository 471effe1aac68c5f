//! Who forwards by a copy of the table: a program in the system's kernel that never sees the machine, nor any reader.
//!
//! It is told of what [`Routes`] is told of, and forwards plain messages between devices on UDP as [`super::Reader`] would. What it cannot
//! or will not do it leaves to the workers, so it may forget anything at any time, but must not keep what it was told to drop.

use std::{
    fmt::Debug,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use super::{Routes, SourceKey, limit};
use crate::{
    base::{Base, Via},
    id::DeviceId,
};

/// Where a device is on UDP, as a [`Follower`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// From here.
    pub via: Via,
    /// To there.
    pub to: SocketAddr,
    /// The most data that goes there.
    pub limit: usize,
    /// Nothing is sent there from then on.
    pub until: Instant,
}

/// What a device may still have relayed, in memory that whoever forwards counts in. Dropped, it is the follower's again.
pub trait SharedBudget: Debug + Send + Sync {
    /// When all messages, and all units of data, that the device may have relayed would be there again: nanoseconds since
    /// [`Limits::start`](super::Limits::start). Zero when the follower gives it.
    fn full_at(&self) -> &[AtomicU64; 2];

    /// What the follower knows it by.
    fn number(&self) -> u32;
}

/// Who keeps a copy of the table. It is told by the machine's thread of everything, by the workers that something lives on.
pub trait Follower: Debug + Send + Sync {
    /// A budget for a device, where there are [`Limits`](super::Limits). `None`: there is no more room, and what that device sends is left
    /// to the workers.
    fn budget(&self) -> Option<Box<dyn SharedBudget>>;

    /// Messages from there are this device's from now on, and count against this budget; `None`: there are no limits.
    fn seized(&self, source: &SourceKey, device: DeviceId, budget: Option<u32>);

    /// Messages from there are nobody's.
    fn let_go(&self, source: &SourceKey);

    /// The device is reached there, or no longer over UDP.
    fn placed(&self, device: DeviceId, leg: Option<Reached>);

    /// Where the device is reached, that counts for longer. It may have been placed elsewhere meanwhile: then this changes nothing.
    fn lives(&self, device: DeviceId, leg: Reached);

    /// When the last message came from there that the follower has forwarded, as far as it knows.
    fn heard(&self, source: &SourceKey) -> Option<Instant>;
}

impl Base {
    /// Has somebody follow the routes; to be called after [`Base::join`] and before all else. Gives back whether it was.
    pub fn have_followed(&mut self, follower: Arc<dyn Follower>) -> bool {
        let routes = Arc::get_mut(&mut self.routes);
        routes.map(|routes| routes.follower = Some(follower)).is_some()
    }
}

impl Routes {
    pub(super) fn follower(&self) -> Option<&dyn Follower> {
        self.follower.as_deref()
    }

    pub(super) fn tell_place(&self, device: DeviceId, leg: Option<(Via, SocketAddr, bool, Instant)>) {
        if let Some(follower) = self.follower() {
            let reached = |(via, to, full_size, until)| Reached { via, to, limit: limit(full_size), until };
            follower.placed(device, leg.map(reached));
        }
    }
}
