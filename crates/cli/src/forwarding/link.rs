//! The connection that all sockets of `bowline forward` share: dialled by the first who needs it, for all who do, and anew once it
//! has ended or says nothing.
//!
//! QUIC bears silence for three minutes. That is well for sockets that are under way, and far too long for a new one: where what it
//! sends draws nothing, another connection is dialled while it still waits, and what answers first counts. The connection before goes
//! on for those who use it.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline::DeviceId;
use bowline_quic::{
    IDLE,
    quinn::{Connection, VarInt},
};
use tokio::sync::OnceCell;

use super::SERVICE;
use crate::streams::{Failed, Streams};

/// Silence after a question after which another connection is dialled beside the one that was asked: more than any round trip.
const SUSPICIOUS: Duration = Duration::from_secs(2);
/// Between two looks at whether something came.
const LOOK: Duration = Duration::from_millis(100);

/// An attempt to connect, made once for all who wait for it.
type Dial = Arc<OnceCell<Result<Arc<Held>, String>>>;

/// The device, and the connection to it.
pub(crate) struct Link {
    pub(crate) streams: Streams,
    pub(crate) device: DeviceId,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    standing: Option<Arc<Held>>,
    dial: Dial,
}

/// A connection that ends some time after the last who used it.
pub(crate) struct Held(pub(crate) Connection);

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.close_reason().is_some() {
            return;
        }
        let connection = self.0.clone();
        tokio::spawn(async move {
            // The last bytes that were written may still be on their way.
            tokio::select! {
                _ = connection.closed() => {}
                () = tokio::time::sleep(IDLE) => connection.close(VarInt::from_u32(0), b""),
            }
        });
    }
}

impl Link {
    pub(crate) fn new(streams: Streams, device: DeviceId, patience: Duration) -> Self {
        Self { streams, device, patience, state: Mutex::default() }
    }

    /// The connection that stands, or a new one. Cancel safe.
    pub(crate) async fn connection(&self) -> Result<Arc<Held>, Failed> {
        self.other_than(None).await
    }

    /// A connection that is not this one. Cancel safe: whoever else waits for it goes on with it.
    async fn other_than(&self, suspect: Option<&Arc<Held>>) -> Result<Arc<Held>, Failed> {
        let dial = {
            let state = self.state();
            let other = |held: &&Arc<Held>| suspect.is_none_or(|suspect| !Arc::ptr_eq(held, suspect));
            let standing = state.standing.as_ref().filter(|held| held.0.close_reason().is_none());
            if let Some(held) = standing.filter(other) {
                return Ok(Arc::clone(held));
            }
            Arc::clone(&state.dial)
        };
        let dialled = dial.get_or_init(|| self.dial()).await.clone();
        let mut state = self.state();
        // The first of those who waited sees to it that the next attempt is another one.
        if Arc::ptr_eq(&state.dial, &dial) {
            state.dial = Dial::default();
            if let Ok(held) = &dialled {
                state.standing = Some(Arc::clone(held));
            }
        }
        dialled.map_err(Failed)
    }

    async fn dial(&self) -> Result<Arc<Held>, String> {
        let connected = self.streams.connect(self.patience, self.device, SERVICE).await;
        let connection = connected.map_err(|error| error.to_string())?;
        // A refusal shows now, and not with the first socket.
        let accepted = self.streams.endpoint.accepted(&connection);
        if let Ok(Err(error)) = tokio::time::timeout(self.patience, accepted).await {
            return Err(self.streams.explain(self.device, &error.into()).0);
        }
        Ok(Arc::new(Held(connection)))
    }

    /// Waits for as long as the connection answers, or is not known not to; then for another one. To be polled beside a question.
    /// Cancel safe.
    pub(crate) async fn instead_of(&self, held: &Arc<Held>) -> Result<Arc<Held>, Failed> {
        let heard = || held.0.stats().udp_rx.datagrams;
        let before = heard();
        let silence = async {
            let mut looks = tokio::time::interval(LOOK);
            while heard() == before {
                looks.tick().await;
            }
        };
        if tokio::time::timeout(SUSPICIOUS, silence).await.is_ok() {
            return pending().await;
        }
        tracing::debug!(device = %self.device, "nothing comes from it: dialling anew");
        self.other_than(Some(held)).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
