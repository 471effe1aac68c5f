//! Connections that have been told their last words, and have some time to take them and to close their side.
//!
//! Each still holds a task and a descriptor, and whoever is refused at once costs as much as who is served. So they are few: the first of them
//! goes for one too many.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use crate::{conn::Conn, outbox::End};

/// The last that were told, in that order. Some may be gone already.
#[derive(Debug)]
pub(crate) struct Goodbyes {
    conns: VecDeque<Weak<Conn>>,
    limit: usize,
}

impl Goodbyes {
    pub(crate) fn new(limit: usize) -> Self {
        Self { conns: VecDeque::new(), limit: limit.max(1) }
    }

    /// Has a connection end when all has been written, and the first of too many at once.
    pub(crate) fn say(&mut self, conn: &Arc<Conn>) {
        conn.outbox.end(End::Flushed);
        self.conns.push_back(Arc::downgrade(conn));
        if self.conns.len() > self.limit
            && let Some(first) = self.conns.pop_front().and_then(|first| first.upgrade())
        {
            first.outbox.end(End::Now);
        }
    }
}
