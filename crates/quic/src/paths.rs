//! Changes of path, told to the connections they concern.
//!
//! Each device that there are connections to has a counter of changes, which the controllers of these connections look at
//! (`congestion.rs`). When there is a way again, or another one, all connections are woken: QUIC repeats what was lost ever more rarely
//! while nothing comes back, and would let a path that is back wait for as long as it was gone.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use bowline::{DeviceId, Event, EventItem, Events, Path};
use tokio::sync::Notify;

use crate::{
    config::{NUDGE, NUDGE_EACH, UNUSED_LOOK},
    congestion::Generation,
    socket::Socket,
};

/// The counters of all devices that there are connections to.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    counters: Mutex<HashMap<DeviceId, Weak<AtomicU64>>>,
    /// Somebody wants all connections woken.
    asked: Notify,
}

impl Paths {
    /// The counter of a device, for as long as anybody holds it.
    pub(crate) fn of(&self, device: DeviceId) -> Generation {
        let mut counters = self.lock();
        if let Some(counter) = counters.get(&device).and_then(Weak::upgrade) {
            return counter;
        }
        counters.retain(|_, counter| counter.strong_count() > 0);
        let counter = Generation::default();
        counters.insert(device, Arc::downgrade(&counter));
        counter
    }

    /// Counts a change; `false` where it concerns nobody.
    fn changed(&self, device: DeviceId) -> bool {
        let counter = self.lock().get(&device).and_then(Weak::upgrade);
        counter.is_some_and(|counter| {
            counter.fetch_add(1, Relaxed);
            true
        })
    }

    fn all_changed(&self) {
        for counter in self.lock().values().filter_map(Weak::upgrade) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Has every connection send something, as soon as they can bear it.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Weak<AtomicU64>>> {
        // Nothing panics while it holds this lock.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by whoever may make or take connections.
pub(crate) type InUse = tokio::sync::watch::Sender<()>;

/// Passes changes on until the endpoint is closed, or nobody has any use for it: it would stay open for this alone.
pub(crate) async fn watch(
    mut events: Events,
    paths: Arc<Paths>,
    quinn: quinn::Endpoint,
    socket: Arc<Socket>,
    mut in_use: tokio::sync::watch::Receiver<()>,
) {
    let mut nudges = Nudges::default();
    loop {
        let is_in_use = in_use.has_changed().is_ok();
        if !is_in_use && quinn.open_connections() == 0 {
            return;
        }
        let item = tokio::select! {
            item = events.next() => item,
            () = nudges.due() => {
                nudges.note_given(quinn.open_connections(), Instant::now());
                wake(&quinn, &socket);
                continue;
            }
            () = paths.asked.notified() => {
                nudges.ask(Instant::now());
                continue;
            }
            // Nothing is ever sent there: it ends when nobody holds the other end.
            _ = in_use.changed(), if is_in_use => continue,
            // Nobody tells when the last connection has ended.
            () = tokio::time::sleep(UNUSED_LOOK), if !is_in_use => continue,
        };
        let Some(item) = item else { return };
        let concerns = match item {
            EventItem::Event(Event::PathChanged { peer, to, .. }) => paths.changed(peer) && to != Path::None,
            EventItem::Event(_) => false,
            EventItem::Lost(_) => {
                paths.all_changed();
                true
            }
        };
        if concerns {
            nudges.ask(Instant::now());
        }
    }
}

/// When all connections are to be woken. It is the change of one device's path that asks for it, or doubt about one, and each of the others sends for it
/// and has its other end answer: so where there are many, it happens rarely.
#[derive(Debug, Default)]
struct Nudges {
    due: Option<Instant>,
    /// Not before this.
    next: Option<Instant>,
}

impl Nudges {
    fn ask(&mut self, now: Instant) {
        self.due.get_or_insert(self.next.map_or(now, |next| next.max(now)));
    }

    fn note_given(&mut self, connections: usize, now: Instant) {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        *self = Self { due: None, next: Some(now + NUDGE.max(NUDGE_EACH.saturating_mul(connections))) };
    }

    async fn due(&self) {
        match self.due {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// Has every connection send something.
fn wake(quinn: &quinn::Endpoint, socket: &Arc<Socket>) {
    // To quinn this is a change of the own address: every connection sends a PING by it.
    if let Err(error) = quinn.rebind_abstract(Arc::clone(socket) as _) {
        tracing::debug!(%error, "connections were not woken");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How often connections are woken in a minute in which a path changes each 10 ms.
    fn woken_in_a_minute(connections: usize) -> usize {
        let (start, mut nudges, mut woken) = (Instant::now(), Nudges::default(), 0);
        for at in (0..60_000).step_by(10).map(|ms| start + Duration::from_millis(ms)) {
            nudges.ask(at);
            if nudges.due.is_some_and(|due| due <= at) {
                nudges.note_given(connections, at);
                woken += 1;
            }
        }
        woken
    }

    #[test]
    fn a_change_wakes_connections_at_once_and_many_of_them_no_more_often_than_they_can_bear() {
        let (now, mut nudges) = (Instant::now(), Nudges::default());
        nudges.ask(now);
        assert_eq!(nudges.due, Some(now));
        assert_eq!([1, 10, 100, 1000].map(woken_in_a_minute), [600, 600, 60, 6]);
        // What is asked for meanwhile is given in its turn.
        nudges.note_given(1000, now);
        nudges.ask(now);
        nudges.ask(now + Duration::from_secs(1));
        assert_eq!(nudges.due, Some(now + Duration::from_secs(10)));
    }
}
