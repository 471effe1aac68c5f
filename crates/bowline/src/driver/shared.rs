//! What the driver, its tasks and all handles of an endpoint share, and how it ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bowline_proto::host::{ConnId, Host};
use tokio::sync::{Notify, watch};

use super::Machine;
use crate::{coalesce::Turns, events::Publisher, queue::Inbox, tcp::Outbox, udp::Udp};

/// What the driver, its tasks and all handles of an endpoint share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) machine: Machine,
    pub(crate) udp: Udp,
    pub(crate) inbox: Inbox,
    pub(crate) events: Publisher,
    /// The lanes on which messages may wait for company.
    pub(crate) turns: Turns,
    outboxes: Mutex<HashMap<ConnId, Arc<Outbox>>>,
    /// Rung once, to end.
    pub(crate) close: Notify,
    /// Whether the driver has ended.
    pub(crate) ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(machine: Machine, udp: Udp) -> Self {
        Self {
            machine,
            udp,
            inbox: Inbox::default(),
            events: Publisher::new(),
            turns: Turns::default(),
            outboxes: Mutex::default(),
            close: Notify::new(),
            ended: watch::Sender::new(false),
        }
    }

    /// What is to be written to a connection goes here; `None` once it has ended.
    pub(crate) fn outbox(&self, conn: ConnId) -> Option<Arc<Outbox>> {
        self.outboxes().get(&conn).cloned()
    }

    pub(super) fn outboxes(&self) -> MutexGuard<'_, HashMap<ConnId, Arc<Outbox>>> {
        // Nothing panics while it holds this lock.
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However the driver ends, be it unpolled with its runtime, nobody waits for it any longer, nor sends what it would have to look after.
pub(super) struct Ending(Arc<Shared>);

impl Ending {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.machine.drive(Host::close);
        self.0.inbox.close();
        self.0.events.close();
        self.0.ended.send_replace(true);
        for (_, outbox) in self.0.outboxes().drain() {
            outbox.close();
        }
    }
}
