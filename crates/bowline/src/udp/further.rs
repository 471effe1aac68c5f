//! Further sockets, by the name that the machine gave them.
//!
//! There are none as a rule. While ports are guessed there are some hundreds for a few seconds, and one of them may
//! become the way to a peer: then messages leave by it from their callers' own tasks, as by the main ones.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use bowline_proto::host::SocketId;

use super::Socket;

#[derive(Debug, Default)]
pub(super) struct Further(RwLock<HashMap<SocketId, Arc<Socket>>>);

impl Further {
    pub(super) fn get(&self, id: SocketId) -> Option<Arc<Socket>> {
        // An entry is put in or taken out as a whole: a panic elsewhere cannot leave half of it.
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(super) fn insert(&self, id: SocketId, socket: Arc<Socket>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, socket);
    }

    pub(super) fn for_each(&self, each: impl Fn(&Socket)) {
        let sockets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        sockets.values().for_each(|socket| each(socket));
    }

    pub(super) fn remove(&self, id: SocketId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
