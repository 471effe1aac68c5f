//! Without the feature `port-mapping` no router is asked for anything.

use std::sync::Arc;

use crate::driver::Shared;

/// There is none.
#[derive(Debug)]
pub(crate) enum PortMapping {}

impl PortMapping {
    pub(crate) fn of(_shared: &Arc<Shared>) -> Option<Self> {
        None
    }

    pub(crate) fn renew(&self) {
        match *self {}
    }

    pub(crate) fn moved(&self) {
        match *self {}
    }

    #[allow(clippy::unused_async, reason = "the other one waits")]
    pub(crate) async fn release(self) {
        match self {}
    }
}
