//! The entries of our own devices in the store: written when a device registers, taken back when it goes, each only in the
//! revision that is ours.
//!
//! ```text
//! none ─registered, bus up─▶ finding ─nobody's, a dead base's, an older one's─▶ storing ─stored─▶ stored (told to all)
//!                              ▲  └ a newer one's: the device is theirs              │ refused: somebody was faster
//!                              └─────────────────────────────────────────────────────┘
//! ```
//!
//! The order of registrations is the store's: whoever writes has read what he writes over. Within a boot the higher attempt wins, as at one
//! base; between boots the later one, unless it was replaced before.

use std::time::{Duration, Instant};

use super::{Base, BusOutput, and_replaced, remote::Place};
use crate::{
    base::{
        Output,
        config::{CLONE_RETRY_AFTER, LINGER, RECORD_RENEW, REPLACED_MEMORY},
        conn::Failure,
        deadline::Key,
        registry::{Device, replaced},
    },
    id::DeviceId,
    wire::{
        BootId,
        cluster::{Body, Change, Record, shard_of},
        tcp::{ErrorCode, NoticeCode},
    },
};

/// How far the entry of a device here is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::base) enum Claim {
    /// There is no cluster, or the bus was gone all the time.
    #[default]
    None,
    /// The entry is being read. `known` is the revision of ours, if it had one.
    Finding { known: Option<u64> },
    /// It is being written.
    Storing { known: Option<u64>, boot: BootId, attempt: u32, replaced: Vec<BootId> },
    /// It is ours.
    Stored { revision: u64, boot: BootId, attempt: u32, replaced: Vec<BootId>, renew_at: Instant },
}

impl Claim {
    /// The revision under which other bases know the device: without one it does not speak to them.
    pub(in crate::base) fn revision(&self) -> Option<u64> {
        match *self {
            Self::None => None,
            Self::Finding { known } | Self::Storing { known, .. } => known,
            Self::Stored { revision, .. } => Some(revision),
        }
    }

    pub(in crate::base) fn renew_at(&self) -> Option<Instant> {
        match *self {
            Self::Stored { renew_at, .. } => Some(renew_at),
            _ => None,
        }
    }
}

impl Base {
    /// A device has registered: other bases are to know.
    pub(in crate::base) fn claim_device(&mut self, id: DeviceId) {
        let up = self.cluster.as_ref().is_some_and(|cluster| cluster.is_up());
        let Some(device) = self.devices.get_mut(&id).filter(|_| up) else { return };
        device.claim = Claim::Finding { known: device.claim.revision() };
        self.find(id);
    }

    /// The store has answered what it has of a device.
    pub(super) fn found(&mut self, id: DeviceId, entry: Option<(Record, u64, Duration)>, now: Instant) {
        self.answered(id);
        match self.devices.get(&id).map(|device| &device.claim) {
            Some(Claim::Finding { .. }) => self.judge(id, entry, now),
            Some(_) => {}
            None => match entry {
                // Of a device that went before its entry was known.
                Some((record, revision, _)) if self.is_own(Place::of(&record)) => {
                    self.bus(BusOutput::Erase { device: id, revision });
                }
                entry => self.found_elsewhere(id, entry.map(|(record, revision, _)| (record, revision)), now),
            },
        }
        self.after_answer(id);
    }

    /// What our device's entry says, against what we know.
    fn judge(&mut self, id: DeviceId, entry: Option<(Record, u64, Duration)>, now: Instant) {
        let Some((boot, attempt)) = self.devices.get(&id).map(|device| (device.boot, device.attempt)) else {
            return;
        };
        let Some((record, revision, age)) = entry else {
            self.store(id, Vec::new(), 0);
            return;
        };
        let place = Place::of(&record);
        if self.is_own(place) {
            if record.boot == boot && record.attempt == attempt {
                self.is_stored(id, revision, record.replaced, now);
            } else {
                let replaced = if record.boot == boot {
                    record.replaced
                } else {
                    and_replaced(record.replaced, record.boot)
                };
                self.store(id, replaced, revision);
            }
        } else if !self.place_lives(place) || (record.boot == boot && record.attempt < attempt) {
            self.store(id, record.replaced, revision);
        } else if record.boot == boot {
            self.supersede(id, &record, revision, now);
        } else if record.replaced.contains(&boot) && age < REPLACED_MEMORY {
            self.is_clone(id, place, now);
        } else {
            self.store(id, and_replaced(record.replaced, record.boot), revision);
        }
    }

    fn store(&mut self, id: DeviceId, replaced: Vec<BootId>, over: u64) {
        let (base, own) = (self.id, self.own_incarnation());
        let Some(device) = self.devices.get_mut(&id) else { return };
        let known = device.claim.revision();
        let (boot, attempt) = (device.boot, device.attempt);
        device.claim = Claim::Storing { known, boot, attempt, replaced: replaced.clone() };
        if let Some(cluster) = &mut self.cluster {
            cluster.questions.also(id);
        }
        let record = Record { base, incarnation: own, boot, attempt, replaced }.encode();
        self.counters.claims_stored += 1;
        self.bus(BusOutput::Store { device: id, record, over });
    }

    /// The store has written an entry of ours.
    pub(super) fn stored(&mut self, id: DeviceId, revision: u64, now: Instant) {
        self.answered(id);
        let Some(device) = self.devices.get_mut(&id) else {
            // It went meanwhile.
            self.bus(BusOutput::Erase { device: id, revision });
            self.after_answer(id);
            return;
        };
        match std::mem::take(&mut device.claim) {
            Claim::Storing { boot, attempt, replaced, .. }
                if boot == device.boot && attempt == device.attempt =>
            {
                self.is_stored(id, revision, replaced, now);
            }
            // It has registered again meanwhile: that is to be written, too.
            claim => {
                device.claim = Claim::Finding { known: claim.revision() };
                self.find(id);
            }
        }
        self.after_answer(id);
    }

    fn is_stored(&mut self, id: DeviceId, revision: u64, replaced: Vec<BootId>, now: Instant) {
        let (base, incarnation) = (self.id, self.own_incarnation());
        let Some(device) = self.devices.get_mut(&id) else { return };
        let (boot, attempt) = (device.boot, device.attempt);
        let new = device.claim.revision() != Some(revision);
        let renew_at = now + RECORD_RENEW;
        device.claim = Claim::Stored { revision, boot, attempt, replaced: replaced.clone(), renew_at };
        self.schedule(id);
        let record = Some(Record { base, incarnation, boot, attempt, replaced });
        let change = Change { device: id, revision, record };
        self.bus(BusOutput::Publish { shard: shard_of(id), message: change.encode() });
        if new {
            self.speak_up(id, now);
        }
    }

    pub(super) fn refused(&mut self, id: DeviceId) {
        self.answered(id);
        self.claim_device(id);
        self.after_answer(id);
    }

    pub(super) fn failed(&mut self, id: DeviceId, now: Instant) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.claim = Claim::Finding { known: device.claim.revision() };
        }
        self.find_later(id, now);
    }

    /// An entry that grows old is written anew, or the store would forget it.
    pub(in crate::base) fn renew_claim(&mut self, id: DeviceId, now: Instant) {
        if self.devices.get(&id).and_then(|device| device.claim.renew_at()).is_some_and(|at| at <= now)
            && let Some(Claim::Stored { revision, replaced, .. }) =
                self.devices.get(&id).map(|device| device.claim.clone())
        {
            if self.cluster.as_ref().is_some_and(|cluster| cluster.is_up()) {
                self.store(id, replaced, revision);
            } else if let Some(device) = self.devices.get_mut(&id) {
                device.claim = Claim::Finding { known: Some(revision) };
            }
        }
    }

    /// A device here has gone: its entry, if it is still ours, goes, too.
    pub(in crate::base) fn unclaim(&mut self, id: DeviceId, claim: &Claim) {
        let Some(cluster) = &mut self.cluster else { return };
        let shard = shard_of(id);
        cluster.shards[usize::from(shard)].locals -= 1;
        let up = cluster.is_up();
        // Of an entry that is on its way the answer is awaited.
        if let Claim::Stored { revision, .. } = *claim
            && up
        {
            self.bus(BusOutput::Erase { device: id, revision });
            let change = Change { device: id, revision, record: None };
            self.bus(BusOutput::Publish { shard, message: change.encode() });
        }
        self.follow(shard);
    }

    /// Somebody says where a device is, from this revision on.
    pub(super) fn handle_change(&mut self, change: Change, now: Instant) {
        let Change { device: id, revision, record } = change;
        let Some(device) = self.devices.get(&id) else {
            match record {
                Some(record) => {
                    // While it was nowhere, it may have had to give way to others that were looked for.
                    if !self.wanters_here(id).is_empty() && !self.seek(id, now) {
                        return;
                    }
                    self.learn(id, Place::of(&record), revision, now);
                }
                None => self.learn_gone(id, revision, now),
            }
            return;
        };
        // While an entry of ours is on its way, the store decides.
        let Claim::Stored { revision: ours, .. } = device.claim else { return };
        match record {
            Some(record) if revision > ours && !self.is_own(Place::of(&record)) => {
                self.supersede(id, &record, revision, now);
            }
            _ => {}
        }
    }

    /// A device here has registered elsewhere since.
    fn supersede(&mut self, id: DeviceId, record: &Record, revision: u64, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let (boot, conn) = (device.boot, device.link.conn());
        // Theirs is the entry; there is nothing of ours to take back.
        device.claim = Claim::None;
        let place = Place::of(record);
        self.counters.moved_away += 1;
        tracing::info!(device = %id, base = %record.base, "registered at another base of the cluster");
        let peers: Vec<DeviceId> = device.interests.keys().copied().collect();
        if record.boot == boot {
            self.linger(id, now);
        } else {
            self.replaced.insert((id, boot), (), 1, now);
            if let Some(conn) = conn {
                self.fail_conn(conn, replaced());
            }
            self.remove(id);
        }
        self.departed(id, &peers, place, revision, now);
    }

    /// The device's session here stays open for what is under way, and is no registration any more. Its host ends it.
    fn linger(&mut self, id: DeviceId, now: Instant) {
        let Some(mut device) = self.take_registration(id) else { return };
        device.interests.clear();
        if let Some(conn) = device.link.conn() {
            self.set_lingering(conn, id);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.lingering.insert(id, device);
        }
        self.deadlines.by(Key::Linger(id), now + LINGER);
    }

    /// A device that has registered elsewhere, whose session here is still open.
    pub(in crate::base) fn lingering(&self, id: DeviceId) -> Option<&Device> {
        self.cluster.as_ref()?.lingering.get(&id).map(Box::as_ref)
    }

    /// The end of a session that lingers.
    pub(in crate::base) fn end_linger(&mut self, id: DeviceId) {
        self.deadlines.forget(Key::Linger(id));
        let Some(device) = self.cluster.as_mut().and_then(|cluster| cluster.lingering.remove(&id)) else {
            return;
        };
        let addresses = device.location().addresses();
        for address in addresses {
            self.let_go(id, address);
        }
        if let Some(conn) = device.link.conn()
            && self.forget_conn(conn)
        {
            self.outputs.push_back(Output::Close { conn });
        }
    }

    /// The connection of a session that lingers was lost.
    pub(in crate::base) fn linger_lost(&mut self, id: DeviceId) {
        self.end_linger(id);
    }

    /// Our device's boot was replaced elsewhere, and is back: two devices have one key.
    fn is_clone(&mut self, id: DeviceId, place: Place, now: Instant) {
        self.counters.cloned += 1;
        self.send_to_base(place.base, Body::Cloned(id));
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.claim = Claim::None;
        let conn = device.link.conn();
        let text = "another device uses this key";
        match conn {
            Some(conn) => self.fail(conn, Failure::new(ErrorCode::Cloned, CLONE_RETRY_AFTER, text), now),
            None => self.unregister(id, text, now),
        }
    }

    pub(super) fn handle_cloned(&mut self, id: DeviceId, now: Instant) {
        let Some(conn) = self.devices.get(&id).and_then(|device| device.link.conn()) else { return };
        self.notice(id, conn, NoticeCode::KeyInUse, "another device uses this key", now);
    }

    pub(super) fn own_incarnation(&self) -> [u8; 8] {
        self.cluster.as_ref().map_or([0; 8], |cluster| cluster.incarnation)
    }

    pub(super) fn is_own(&self, place: Place) -> bool {
        place.base == self.id && place.incarnation == self.own_incarnation()
    }
}
