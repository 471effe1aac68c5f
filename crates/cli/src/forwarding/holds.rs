//! Where devices have `serve` listen, and that a device takes a place over from itself: its earlier `forward` may have been killed, which
//! shows after minutes of silence only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bowline::DeviceId;
use tokio::{
    sync::{OwnedMutexGuard, watch},
    time::timeout,
};

use super::spec::Place;

/// How long who has a place may take to leave it.
const LEAVING: Duration = Duration::from_secs(5);
/// No connection.
const NOBODY: usize = usize::MAX;

/// All places at which this device listens for others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(Arc<Mutex<Places>>);

type Places = HashMap<(DeviceId, Place), Arc<Shared>>;

#[derive(Debug)]
struct Shared {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The connection that asked last.
    wanted_by: watch::Sender<usize>,
}

/// A place that one connection has.
#[derive(Debug)]
pub(crate) struct Hold {
    by: usize,
    wanted_by: watch::Receiver<usize>,
    _shared: Arc<Shared>,
    _turn: OwnedMutexGuard<()>,
}

impl Holds {
    /// Takes a place for a connection of that device, from an earlier one of the same device if need be; `None` where that does not leave,
    /// or where it is this very connection.
    pub(crate) async fn take(&self, device: DeviceId, at: &Place, connection: usize) -> Option<Hold> {
        let shared = self.shared(device, at);
        shared.wanted_by.send_replace(connection);
        let turn = timeout(LEAVING, Arc::clone(&shared.turn).lock_owned()).await.ok()?;
        let wanted_by = shared.wanted_by.subscribe();
        Some(Hold { by: connection, wanted_by, _shared: shared, _turn: turn })
    }

    fn shared(&self, device: DeviceId, at: &Place) -> Arc<Shared> {
        // Nothing panics while it holds this lock.
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, shared| Arc::strong_count(shared) > 1);
        let new = || Arc::new(Shared { turn: Arc::default(), wanted_by: watch::Sender::new(NOBODY) });
        Arc::clone(places.entry((device, at.clone())).or_insert_with(new))
    }
}

impl Hold {
    /// Waits until another connection of the same device wants the place. Cancel safe.
    pub(crate) async fn is_wanted(&mut self) {
        // The sender lives as long as this.
        let _ = self.wanted_by.wait_for(|&by| by != self.by).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_goes_to_the_newest_connection_of_its_device_and_to_no_other_device() {
        let (holds, device) = (Holds::default(), DeviceId::from_bytes([7; 14]));
        let at: Place = "localhost:80".parse().unwrap();
        let mut first = holds.take(device, &at, 1).await.unwrap();
        assert!(holds.take(DeviceId::from_bytes([8; 14]), &at, 2).await.is_some());
        assert!(holds.take(device, &"localhost:81".parse().unwrap(), 2).await.is_some());
        assert!(holds.take(device, &at, 1).await.is_none(), "twice by one connection");
        assert!(timeout(LEAVING, first.is_wanted()).await.is_err());
        let leaving = async {
            first.is_wanted().await;
            drop(first);
        };
        let ((), second) = tokio::join!(leaving, holds.take(device, &at, 3));
        assert!(second.is_some());
    }
}
