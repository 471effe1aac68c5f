//! Lanes: what callers and the driver may do on standing direct paths without the machine's lock.
//!
//! A lane is a lease of the machine's ([`bowline_proto::host::Lease`]) with what was counted on it since the machine last
//! heard. Its way never changes: another way is another lane, and the old one ends. Whoever uses a lane notes it here with a
//! few atomics; [`super::Machine`] reports all notes before each of its calls into the machine, under the lock.
//!
//! The one thing that cannot wait for that is a first message out on a lane that the machine does not watch. Two parties meet
//! there: a sender notes, then looks whether the lane is watched; the machine's side marks it unwatched, then looks for
//! notes. One of them sees the other's, in any order.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId,
    host::{Hop, Lease, Traffic},
};

use crate::coalesce::Waiting;

/// One direct way, while it stands above suspicion.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) peer: DeviceId,
    pub(crate) hop: Hop,
    /// The largest message it is known to carry.
    pub(crate) limit: usize,
    /// How long a datagram of joined messages may be, if the peer takes them.
    pub(crate) joined: Option<usize>,
    /// Messages of [`crate::Endpoint::send`] that wait for company.
    pub(crate) waiting: Mutex<Waiting>,
    /// Whether messages may be sent by it.
    open: AtomicBool,
    /// Whether the machine looks by itself before silence can mean anything.
    watched: AtomicBool,
    /// Until when what comes from the other end is the peer's.
    source_until: AtomicU64,
    notes: Notes,
}

/// What happened since the machine last heard. Moments are nanoseconds since [`Lanes::epoch`]; 0 is none.
#[derive(Debug, Default)]
struct Notes {
    /// Whether the lane is in the list of those that have notes.
    listed: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    last: AtomicU64,
    heard: AtomicU64,
    /// The first message out after that.
    unanswered: AtomicU64,
}

/// All lanes of an endpoint.
#[derive(Debug)]
pub(crate) struct Lanes {
    epoch: Instant,
    by_peer: RwLock<HashMap<DeviceId, Arc<Lane>>>,
    by_source: RwLock<HashMap<SocketAddr, Arc<Lane>>>,
    noted: Mutex<Vec<Arc<Lane>>>,
}

impl Lanes {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, by_peer: RwLock::default(), by_source: RwLock::default(), noted: Mutex::default() }
    }

    /// The lane for messages of up to `length` bytes to a peer.
    pub(crate) fn to(&self, peer: DeviceId, length: usize) -> Option<Arc<Lane>> {
        let by_peer = self.by_peer.read().unwrap_or_else(PoisonError::into_inner);
        by_peer.get(&peer).filter(|lane| length <= lane.limit && lane.is_open()).cloned()
    }

    /// The lane that something from there came by. `last` is tried first: mostly it is that one again.
    pub(crate) fn from(
        &self,
        source: SocketAddr,
        last: &mut Option<Arc<Lane>>,
        now: Instant,
    ) -> Option<Arc<Lane>> {
        let now = self.moment(now);
        let holds = |lane: &Arc<Lane>| lane.hop.to == source && lane.source_until.load(Relaxed) > now;
        if let Some(lane) = last.as_ref().filter(|lane| holds(lane)) {
            return Some(Arc::clone(lane));
        }
        let by_source = self.by_source.read().unwrap_or_else(PoisonError::into_inner);
        *last = by_source.get(&source).filter(|lane| holds(lane)).cloned();
        last.clone()
    }

    /// Messages leave by this lane. `true`: the machine has to hear of it at once.
    #[must_use]
    pub(crate) fn note_sent(&self, lane: &Arc<Lane>, count: usize) -> bool {
        let now = self.moment(Instant::now());
        lane.notes.sent.fetch_add(count as u64, Relaxed);
        lane.notes.last.fetch_max(now, Relaxed);
        let _ = lane.notes.unanswered.compare_exchange(0, now, SeqCst, Relaxed);
        self.list(lane);
        !lane.watched.load(SeqCst)
    }

    /// Messages came from the lane's other end; `on_its_way`: back on the very way that messages to there take.
    pub(crate) fn note_received(&self, lane: &Arc<Lane>, count: usize, on_its_way: bool, now: Instant) {
        let now = self.moment(now);
        lane.notes.received.fetch_add(count as u64, Relaxed);
        lane.notes.last.fetch_max(now, Relaxed);
        if !on_its_way {
            return self.list(lane);
        }
        let before = lane.notes.unanswered.load(SeqCst);
        lane.notes.heard.fetch_max(now, Relaxed);
        // What went out since the look above still waits.
        let _ = lane.notes.unanswered.compare_exchange(before, 0, SeqCst, Relaxed);
        self.list(lane);
    }

    fn list(&self, lane: &Arc<Lane>) {
        if !lane.notes.listed.swap(true, SeqCst) {
            locked(&self.noted).push(Arc::clone(lane));
        }
    }

    /// All that was noted since the last time.
    pub(super) fn take_notes(&self) -> Vec<(DeviceId, Traffic)> {
        let noted = std::mem::take(&mut *locked(&self.noted));
        noted.iter().filter_map(|lane| Some((lane.peer, self.take(lane)?))).collect()
    }

    fn take(&self, lane: &Lane) -> Option<Traffic> {
        // From here on a note lists it again.
        lane.notes.listed.store(false, SeqCst);
        let notes = &lane.notes;
        Some(Traffic {
            hop: lane.hop,
            heard: self.instant(notes.heard.swap(0, SeqCst)),
            unanswered: self.instant(notes.unanswered.swap(0, SeqCst)),
            last: self.instant(notes.last.load(SeqCst))?,
            sent: notes.sent.swap(0, SeqCst),
            received: notes.received.swap(0, SeqCst),
        })
    }

    /// What the machine leases for this peer now. `true`: a message has left that it does not know of and does not watch for.
    pub(super) fn update(&self, peer: DeviceId, lease: Option<Lease>) -> bool {
        let mut by_peer = self.by_peer.write().unwrap_or_else(PoisonError::into_inner);
        let Some(lease) = lease else {
            if let Some(lane) = by_peer.remove(&peer) {
                self.end(&lane);
            }
            return false;
        };
        let fits = |lane: &&Arc<Lane>| {
            lane.hop == lease.hop && lane.limit == lease.limit && lane.joined == lease.joined
        };
        if let Some(lane) = by_peer.get(&peer).filter(fits) {
            return self.renew(lane, &lease);
        }
        let lane = Arc::new(Lane {
            peer,
            hop: lease.hop,
            limit: lease.limit,
            joined: lease.joined,
            waiting: Mutex::default(),
            open: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            source_until: AtomicU64::new(0),
            notes: Notes::default(),
        });
        let _ = self.renew(&lane, &lease);
        if let Some(old) = by_peer.insert(peer, Arc::clone(&lane)) {
            self.end(&old);
        }
        let mut by_source = self.by_source.write().unwrap_or_else(PoisonError::into_inner);
        by_source.insert(lane.hop.to, lane);
        false
    }

    fn renew(&self, lane: &Lane, lease: &Lease) -> bool {
        lane.open.store(lease.wanted, Relaxed);
        lane.source_until.store(lease.source_until.map_or(0, |until| self.moment(until)), Relaxed);
        lane.watched.store(lease.watched, SeqCst);
        !lease.watched && lane.notes.unanswered.load(SeqCst) != 0
    }

    /// Nothing more goes by this lane, nor is anything taken for having come by it.
    fn end(&self, lane: &Arc<Lane>) {
        lane.open.store(false, Relaxed);
        lane.source_until.store(0, Relaxed);
        // Whoever has it in hand still asks the machine at once.
        lane.watched.store(false, SeqCst);
        let mut by_source = self.by_source.write().unwrap_or_else(PoisonError::into_inner);
        if by_source.get(&lane.hop.to).is_some_and(|there| Arc::ptr_eq(there, lane)) {
            by_source.remove(&lane.hop.to);
        }
    }

    fn moment(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn instant(&self, moment: u64) -> Option<Instant> {
        (moment != 0).then(|| self.epoch + Duration::from_nanos(moment))
    }
}

impl Lane {
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lease(to: SocketAddr, joined: Option<usize>, now: Instant) -> Lease {
        Lease {
            hop: Hop::anywhere(to),
            limit: 1_200,
            joined,
            wanted: true,
            watched: true,
            source_until: Some(now + Duration::from_secs(60)),
        }
    }

    #[test]
    fn what_came_another_way_leaves_what_went_out_unanswered() {
        let now = Instant::now();
        let lanes = Lanes::new(now);
        let (peer, to) = (DeviceId::from_bytes([1; 14]), "192.0.2.1:4000".parse().unwrap());
        lanes.update(peer, Some(lease(to, None, now)));
        let lane = lanes.to(peer, 10).expect("it was leased");
        let after = |on_its_way| {
            let _ = lanes.note_sent(&lane, 1);
            lanes.note_received(&lane, 1, on_its_way, Instant::now());
            let notes = lanes.take_notes();
            let [(_, traffic)] = notes.try_into().expect("one lane was used");
            (traffic.sent, traffic.received, traffic.heard.is_some(), traffic.unanswered.is_some())
        };
        assert_eq!(after(false), (1, 1, false, true));
        assert_eq!(after(true), (1, 1, true, false));
    }

    #[test]
    fn whether_and_how_messages_are_joined_is_what_the_last_lease_says() {
        let now = Instant::now();
        let lanes = Lanes::new(now);
        let peer = DeviceId::from_bytes([1; 14]);
        let to = "192.0.2.1:4000".parse().unwrap();
        for joined in [None, Some(509), Some(1_209), None] {
            assert!(!lanes.update(peer, Some(lease(to, joined, now))));
            assert_eq!(lanes.to(peer, 1_200).expect("there is a lane").joined, joined);
            let came_by = lanes.from(to, &mut None, now).expect("the same one");
            assert_eq!(came_by.joined, joined);
        }
    }
}
