//! Waiting for what comes by further sockets: a small task for each says when something has come, and ends.

use std::{collections::HashMap, future::pending, sync::Arc, time::Instant};

use bowline_proto::host::SocketId;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};

use crate::{queue::Inbox, udp::Socket};

/// The further sockets that are waited for.
#[derive(Debug, Default)]
pub(super) struct Further {
    waiting: JoinSet<SocketId>,
    tasks: HashMap<SocketId, AbortHandle>,
}

impl Further {
    /// Waits for this one (again).
    pub(super) fn watch(&mut self, id: SocketId, socket: Arc<Socket>) {
        let task = self.waiting.spawn(async move {
            socket.readable().await;
            id
        });
        self.tasks.insert(id, task);
    }

    /// It has been closed.
    pub(super) fn forget(&mut self, id: SocketId) {
        if let Some(task) = self.tasks.remove(&id) {
            task.abort();
        }
    }

    /// One of them may have something. Not to be asked while the inbox is crowded, but for a look now and then.
    pub(super) async fn readable(&mut self, inbox: &Inbox, crowded: Option<Instant>) -> SocketId {
        if self.waiting.is_empty() {
            return pending().await;
        }
        if let Some(look) = crowded {
            tokio::select! {
                () = inbox.roomy() => {}
                () = sleep_until(look.into()) => {}
            }
        }
        loop {
            match self.waiting.join_next().await {
                Some(Ok(id)) => return id,
                // Of a socket that has been closed.
                Some(Err(_)) => {}
                None => return pending().await,
            }
        }
    }
}
