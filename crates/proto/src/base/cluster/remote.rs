//! Devices that are registered at other bases, as far as somebody here cares: where they are, and since which revision of their entry.

use std::time::Instant;

use super::{Base, Link, pairs::Pair};
use crate::{
    base::{
        config::{BLIND_MESSAGES, BLIND_TIME, REMOTE_GRACE, REMOTE_MEMORY, SEEK_RATE},
        deadline::Key,
        memory::{Keyed, Map},
        push::Told,
    },
    id::DeviceId,
    wire::cluster::{Incarnation, Record, SHARDS, shard_of},
};

/// A start of a base: where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) base: DeviceId,
    pub(super) incarnation: Incarnation,
}

impl Place {
    pub(super) fn of(record: &Record) -> Self {
        Self { base: record.base, incarnation: record.incarnation }
    }
}

/// A device that is not registered here.
#[derive(Debug)]
pub(super) struct Remote {
    /// Where it was said to be last; nowhere, as far as is known. It counts while that start of that base lives.
    pub(super) place: Option<Place>,
    /// The newest revision of its entry that was heard of.
    pub(super) revision: u64,
    /// Its entry is being read, and that there is none counts; what was known when that began.
    pub(super) sought: Option<u64>,
    /// Its place among those that were never found.
    pub(super) serial: u64,
    /// The device here that has it looked for, until it is found.
    sought_for: Option<DeviceId>,
    /// Messages sent to all bases that may have it since it is not known where it is.
    blind: u8,
    /// Such messages are sent until then, and while its entry is being read.
    blind_until: Instant,
    /// The devices here that it wants.
    pub(super) pairs: Map<DeviceId, Pair>,
    /// Kept until then because messages go to it.
    pub(super) used_until: Instant,
}

impl Remote {
    fn new(serial: u64, keyed: Keyed, now: Instant) -> Self {
        let pairs = Map::with_hasher(keyed);
        let (blind, blind_until) = (0, now + BLIND_TIME);
        Self {
            place: None,
            revision: 0,
            sought: None,
            serial,
            sought_for: None,
            blind,
            blind_until,
            pairs,
            used_until: now,
        }
    }

    /// Whether one more message may go to all bases that may have it.
    pub(super) fn goes_blind(&mut self, now: Instant) -> bool {
        let may = (self.sought.is_some() || now < self.blind_until) && self.blind < BLIND_MESSAGES;
        self.blind += u8::from(may);
        may
    }

    pub(super) fn forget_revision(&mut self) {
        self.revision = 0;
        self.sought = None;
    }
}

impl Base {
    /// Whether that start of that base is known to live.
    pub(super) fn place_lives(&self, place: Place) -> bool {
        let member = self.cluster.as_ref().and_then(|cluster| cluster.members.get(&place.base));
        member.is_some_and(|member| member.incarnation == place.incarnation)
    }

    /// Where a device is that is not here, if that is known.
    pub(super) fn place_of(&self, id: DeviceId) -> Option<Place> {
        let place = self.cluster.as_ref()?.remote(id)?.place?;
        self.place_lives(place).then_some(place)
    }

    /// Somebody here cares for a device elsewhere: its entry is read, and its shard watched. At the bound the one goes that has been looked for
    /// in vain the longest: who asks for what does not exist takes no place from others. `false` where all were found.
    pub(super) fn seek(&mut self, id: DeviceId, now: Instant) -> bool {
        let keyed = self.keyed;
        let Some(cluster) = &mut self.cluster else { return false };
        if cluster.remote(id).is_some() {
            return true;
        }
        if cluster.remotes_in_all() >= self.config.max_remote_devices {
            self.counters.remotes_refused += 1;
            let Some((_, longest)) = cluster.unfound.pop_first() else { return false };
            cluster.forget(longest);
            self.follow(shard_of(longest));
        }
        let Some(cluster) = &mut self.cluster else { return false };
        let up = cluster.is_up();
        let shard = shard_of(id);
        cluster.sought += 1;
        let mut remote = Remote::new(cluster.sought, keyed, now);
        remote.sought = up.then_some(0);
        cluster.unfound.insert(cluster.sought, id);
        cluster.shards[usize::from(shard)].remotes.insert(id, remote);
        self.follow(shard);
        self.find(id);
        true
    }

    /// The same for a device here, which may have so many looked for as are not found.
    pub(super) fn seek_for(&mut self, from: DeviceId, id: DeviceId, now: Instant) -> bool {
        if self.cluster.as_ref().is_some_and(|cluster| cluster.remote(id).is_some()) {
            return true;
        }
        if self.devices.get_mut(&from).is_some_and(|sender| !sender.rates().seeks.take(SEEK_RATE, now)) {
            self.counters.remotes_refused += 1;
            return false;
        }
        let sought = self.seek(id, now);
        if let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(id)) {
            remote.sought_for = Some(from);
        }
        sought
    }

    /// Messages go on to a device that nobody was known to have: what said where it is may have been lost.
    pub(super) fn seek_again(&mut self, from: DeviceId, id: DeviceId, now: Instant) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up()) else { return };
        let Some(remote) = cluster.remote_mut(id) else { return };
        if remote.sought.is_some() || now < remote.blind_until {
            return;
        }
        if self.devices.get_mut(&from).is_none_or(|sender| !sender.rates().seeks.take(SEEK_RATE, now)) {
            return;
        }
        remote.sought = Some(remote.revision);
        remote.sought_for = Some(from);
        (remote.blind, remote.blind_until) = (BLIND_MESSAGES, now + BLIND_TIME);
        self.find(id);
    }

    /// Reads the entries of all devices elsewhere.
    pub(super) fn seek_all(&mut self) {
        for shard in 0..SHARDS {
            self.seek_lost(shard, true);
        }
    }

    /// Reads the entries of a shard's devices that are nowhere, as far as is known (or of all).
    fn seek_lost(&mut self, shard: u8, all: bool) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up()) else { return };
        let members = &cluster.members;
        let lives =
            |place: Place| members.get(&place.base).is_some_and(|m| m.incarnation == place.incarnation);
        let mut lost = Vec::new();
        for (&id, remote) in &mut cluster.shards[usize::from(shard)].remotes {
            let lives = remote.place.is_some_and(lives);
            if all || !lives {
                // What a store lacks that has begun anew says nothing of a base that lives and has yet to write it. A device
                // that has left is denied by that base.
                remote.sought = (!lives).then_some(remote.revision);
                lost.push(id);
            }
        }
        for id in lost {
            self.find(id);
        }
    }

    /// The answer of the store about a device that is not here.
    pub(super) fn found_elsewhere(&mut self, id: DeviceId, entry: Option<(Record, u64)>, now: Instant) {
        let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(id)) else { return };
        let sought = remote.sought.take();
        match entry {
            Some((record, revision)) => {
                self.learn(id, Place::of(&record), revision, now);
            }
            // Nobody has it, unless something newer was heard since it was asked for.
            None if sought == Some(remote.revision) && remote.place.take().is_some() => {
                self.place_changed(id, now);
            }
            None => {}
        }
    }

    /// A device is there, from this revision on; whether that is the newest.
    pub(super) fn learn(&mut self, id: DeviceId, place: Place, revision: u64, now: Instant) -> bool {
        let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(id)) else {
            return false;
        };
        if revision < remote.revision {
            return false;
        }
        if revision == remote.revision && remote.place.is_some() {
            return remote.place == Some(place);
        }
        remote.revision = revision;
        let (moved, sought_for) = (remote.place.replace(place) != Some(place), remote.sought_for.take());
        let serial = remote.serial;
        if let Some(cluster) = &mut self.cluster {
            cluster.unfound.remove(&serial);
        }
        if let Some(sender) = sought_for.and_then(|from| self.devices.get_mut(&from)) {
            sender.rates().seeks.give_back(SEEK_RATE);
        }
        if moved {
            self.place_changed(id, now);
        }
        true
    }

    /// The entry of this revision is gone.
    pub(super) fn learn_gone(&mut self, id: DeviceId, revision: u64, now: Instant) {
        let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(id)) else { return };
        if revision >= remote.revision {
            remote.revision = revision;
            if remote.place.take().is_some() {
                self.place_changed(id, now);
            }
        }
    }

    /// A device elsewhere is at another place than it was, or nowhere.
    fn place_changed(&mut self, id: DeviceId, now: Instant) {
        if let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(id)) {
            (remote.blind, remote.blind_until) = (0, now + BLIND_TIME);
        }
        self.publish_remote(id);
        for asker in self.wanters_here(id) {
            self.state(asker, id, true);
        }
        self.deadlines.by(Key::Remote(id), now + REMOTE_GRACE);
    }

    /// A base is gone: so are its devices, as long as nothing newer is heard of them.
    pub(super) fn unsettle(&mut self, base: DeviceId, now: Instant) {
        for id in self.devices_of(base) {
            self.place_changed(id, now);
        }
    }

    /// The devices that are at a base, as far as somebody here cares.
    pub(super) fn devices_of(&self, base: DeviceId) -> Vec<DeviceId> {
        let remotes = self.cluster.iter().flat_map(|cluster| &cluster.shards).flat_map(|s| &s.remotes);
        remotes
            .filter(|(_, remote)| remote.place.is_some_and(|place| place.base == base))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Some time after a device has moved: who was told of it by a base that has it no more, and by none since, is told
    /// that it is gone.
    pub(in crate::base) fn settle(&mut self, id: DeviceId, now: Instant) {
        let place = self.place_of(id);
        for asker in self.wanters_here(id) {
            let Some(interest) = self.devices.get_mut(&asker).and_then(|d| d.interests.get_mut(&id)) else {
                continue;
            };
            if let Told::Elsewhere { incarnation, online: true, .. } = interest.told
                && place.is_none_or(|place| place.incarnation != incarnation)
            {
                interest.told = Told::Unsure;
                // Nobody said that it released him: he may hear why his messages do not arrive.
                interest.left = place.is_none();
                self.push(asker, id, now);
            }
        }
    }

    /// A device has registered here: what was known of it elsewhere is over.
    pub(in crate::base) fn arrived(&mut self, id: DeviceId, now: Instant) {
        if self.cluster.is_none() {
            return;
        }
        self.end_linger(id);
        let shard = shard_of(id);
        let Some(cluster) = &mut self.cluster else { return };
        let shard_of_it = &mut cluster.shards[usize::from(shard)];
        shard_of_it.locals += 1;
        let remote = shard_of_it.remotes.remove(&id);
        self.follow(shard);
        if let Some(remote) = remote {
            if let Some(cluster) = &mut self.cluster {
                cluster.unfound.remove(&remote.serial);
            }
            self.routes.set_remote(id, None);
            for &about in remote.pairs.keys() {
                self.forget_interest(id, about);
            }
            self.deadlines.by(Key::Remote(id), now + REMOTE_GRACE);
        }
    }

    /// A device that was here is there now. `peers` are those whom it wanted.
    pub(super) fn departed(
        &mut self,
        id: DeviceId,
        peers: &[DeviceId],
        place: Place,
        revision: u64,
        now: Instant,
    ) {
        let wanters = self.wanters_here(id);
        if wanters.is_empty() || !self.seek(id, now) {
            return;
        }
        for asker in wanters.iter().filter(|asker| peers.contains(asker)) {
            if let Some(interest) = self.devices.get_mut(asker).and_then(|d| d.interests.get_mut(&id))
                && interest.told != Told::Nothing
            {
                // Until its new base says more.
                interest.told = Told::Elsewhere { incarnation: [0; 8], seq: 0, online: true };
            }
        }
        self.learn(id, place, revision, now);
    }

    pub(super) fn wanters_here(&self, id: DeviceId) -> Vec<DeviceId> {
        let wanters = self.wanters.get(&id).into_iter().flatten();
        wanters.filter(|asker| self.devices.contains_key(asker)).copied().collect()
    }

    // --- Now and then ------------------------------------------------------------------------------------------

    /// The turn of a shard: what was not stated again lapses, what stands is stated again, who is lost is looked for, and
    /// who is of no use is forgotten.
    pub(super) fn shard_due(&mut self, shard: u8, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        if matches!(cluster.link, Link::Down { .. }) {
            // Nobody can state anything.
            return;
        }
        let remotes = &mut cluster.shards[usize::from(shard)].remotes;
        let mut over = Vec::new();
        for (&asker, remote) in remotes.iter_mut() {
            over.extend(
                remote.pairs.extract_if(|_, pair| pair.until <= now).map(|(about, _)| (asker, about)),
            );
        }
        let ids: Vec<DeviceId> = remotes.keys().copied().collect();
        for (asker, about) in over {
            self.forget_interest(asker, about);
        }
        for id in ids {
            let wanters = self.wanters_here(id);
            for &asker in &wanters {
                self.state(asker, id, false);
            }
            if wanters.is_empty()
                && !self.routes.remote_was_used(id, REMOTE_MEMORY, now)
                && let Some(cluster) = &mut self.cluster
                && cluster.remote(id).is_some_and(|r| r.pairs.is_empty() && r.used_until <= now)
            {
                cluster.forget(id);
                self.routes.set_remote(id, None);
                self.deadlines.forget(Key::Remote(id));
            }
        }
        self.seek_lost(shard, false);
        self.follow(shard);
    }

    /// A message goes to a device elsewhere: it is worth remembering for a while.
    pub(super) fn used(&mut self, id: DeviceId, now: Instant) {
        if let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(id)) {
            remote.used_until = now + REMOTE_MEMORY;
        }
    }
}
