//! Systems without it.

use std::{sync::Arc, time::Instant};

use bowline_proto::{
    DeviceId,
    base::{Follower, Reached, SharedBudget, SourceKey},
};

use crate::{Counts, Error, Setup};

/// There is none.
#[derive(Debug)]
pub enum FastPath {}

impl FastPath {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always.
    pub fn start(_: Setup<'_>) -> Result<Arc<Self>, Error> {
        Err(Error::System(std::env::consts::OS.to_owned()))
    }

    /// What it has forwarded.
    #[must_use]
    pub fn counts(&self) -> Counts {
        match *self {}
    }
}

impl Follower for FastPath {
    fn budget(&self) -> Option<Box<dyn SharedBudget>> {
        None
    }
    fn seized(&self, _: &SourceKey, _: DeviceId, _: Option<u32>) {}
    fn let_go(&self, _: &SourceKey) {}
    fn placed(&self, _: DeviceId, _: Option<Reached>) {}
    fn lives(&self, _: DeviceId, _: Reached) {}
    fn heard(&self, _: &SourceKey) -> Option<Instant> {
        None
    }
}
