//! Devices that are registered at other bases, as far as somebody here cares: where they are, what they want of devices here, and
//! what crosses between two bases about two devices.
//!
//! Consent is judged where the device is that addresses are told of. A's base says to X's base "A wants X" (a *pair* there); X's base tells X
//! WANTED, and as soon as X wants A, it sends X's addresses and the introduction key that it derives for A to A's base, at once and at
//! every change, through the same windows as to a device of its own. The other direction is the same with the names exchanged.
//! A's base keeps none of it: what A missed is asked for again.

use std::time::Instant;

use super::{Base, Link, Want};
use crate::{
    base::{
        config::{PAIR_LIFE, REMOTE_GRACE, REMOTE_MEMORY},
        deadline::Key,
        interest::Interest,
        memory::{Keyed, Map, Set},
        push::{Told, Window},
    },
    id::DeviceId,
    wire::{
        cluster::{Body, Incarnation, Record, SHARDS, shard_of},
        tcp::{BaseFrame, DeviceAddresses, UnreachableReason},
    },
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
    revision: u64,
    /// Its entry is being read; what was known when that began.
    pub(super) sought: Option<u64>,
    /// Messages sent to all bases that may have it while nothing is known.
    pub(super) blind: u8,
    /// The devices here that it wants.
    pub(super) pairs: Map<DeviceId, Pair>,
    /// Kept until then because messages go to it.
    pub(super) used_until: Instant,
}

impl Remote {
    fn new(keyed: Keyed, now: Instant) -> Self {
        let pairs = Map::with_hasher(keyed);
        Self { place: None, revision: 0, sought: None, blind: 0, pairs, used_until: now }
    }

    pub(super) fn forget_revision(&mut self) {
        self.revision = 0;
        self.sought = None;
    }
}

/// The interest of a device elsewhere in one here.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) interest: Interest,
    incarnation: Incarnation,
    seq: u64,
    /// It has to be stated again by then.
    until: Instant,
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

    // --- Who is where ------------------------------------------------------------------------------------------

    /// Somebody here cares for a device elsewhere: its entry is read, and its shard watched. `false` at the bound.
    pub(super) fn seek(&mut self, id: DeviceId, now: Instant) -> bool {
        let keyed = self.keyed;
        let Some(cluster) = &mut self.cluster else { return false };
        if cluster.remote(id).is_some() {
            return true;
        }
        if cluster.remotes_in_all() >= self.config.max_remote_devices {
            self.counters.remotes_refused += 1;
            return false;
        }
        let up = cluster.is_up();
        let shard = shard_of(id);
        let mut remote = Remote::new(keyed, now);
        remote.sought = up.then_some(0);
        cluster.shards[usize::from(shard)].remotes.insert(id, remote);
        self.follow(shard);
        self.find(id);
        true
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
            if all || !remote.place.is_some_and(lives) {
                remote.sought = Some(remote.revision);
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
        remote.blind = 0;
        if remote.place.replace(place) != Some(place) {
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

    fn wanters_here(&self, id: DeviceId) -> Vec<DeviceId> {
        let wanters = self.wanters.get(&id).into_iter().flatten();
        wanters.filter(|asker| self.devices.contains_key(asker)).copied().collect()
    }

    // --- Interests of devices here -----------------------------------------------------------------------------

    /// A device here wants one that is not.
    pub(in crate::base) fn want_elsewhere(&mut self, asker: DeviceId, about: DeviceId, now: Instant) {
        if self.cluster.is_some() && !self.devices.contains_key(&about) && self.seek(about, now) {
            self.state(asker, about, true);
        }
    }

    /// It no longer does, or it is gone; `revision` is its own.
    pub(in crate::base) fn unwant_elsewhere(
        &mut self,
        asker: DeviceId,
        revision: Option<u64>,
        about: DeviceId,
    ) {
        if let Some(place) = self.place_of(about)
            && let Some(revision) = revision
        {
            self.queue_want(place.base, Want { asker, revision, about, on: false, again: false });
        }
    }

    /// States an interest to the base of the device that it is about, if both are known in the store.
    fn state(&mut self, asker: DeviceId, about: DeviceId, again: bool) {
        let revision = self.devices.get(&asker).and_then(|device| device.claim.revision());
        if let Some(revision) = revision
            && let Some(place) = self.place_of(about)
        {
            self.queue_want(place.base, Want { asker, revision, about, on: true, again });
        }
    }

    fn queue_want(&mut self, base: DeviceId, want: Want) {
        if let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up()) {
            cluster.wants.entry(base).or_default().push(want);
        }
    }

    /// Other bases know a device here from now on (under a new revision): it states its interests, and they are told of it.
    pub(super) fn speak_up(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get(&id) else { return };
        let peers: Vec<DeviceId> = device.interests.keys().copied().collect();
        for peer in peers.into_iter().filter(|peer| !self.devices.contains_key(peer)).collect::<Vec<_>>() {
            self.state(id, peer, true);
            self.push(peer, id, now);
        }
    }

    /// A base may have missed what was said: all of it once more.
    pub(super) fn say_again(&mut self, base: DeviceId, now: Instant) {
        for remote in self.devices_of(base) {
            self.publish_remote(remote);
            for asker in self.wanters_here(remote) {
                self.state(asker, remote, false);
            }
            let Some(entry) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(remote)) else {
                continue;
            };
            let mut peers: Vec<DeviceId> = Vec::with_capacity(entry.pairs.len());
            for (&about, pair) in &mut entry.pairs {
                pair.interest.told = pair.interest.told.on_a_new_connection();
                peers.push(about);
            }
            for about in peers {
                self.push(remote, about, now);
            }
        }
    }

    // --- Interests of devices elsewhere ------------------------------------------------------------------------

    /// What a device elsewhere was told of one here.
    pub(in crate::base) fn pair(&self, of: DeviceId, about: DeviceId) -> Option<&Interest> {
        let remote = self.cluster.as_ref()?.remote(of)?;
        remote.pairs.get(&about).map(|pair| &pair.interest)
    }

    pub(in crate::base) fn pair_mut(&mut self, of: DeviceId, about: DeviceId) -> Option<&mut Interest> {
        let remote = self.cluster.as_mut()?.remote_mut(of)?;
        remote.pairs.get_mut(&about).map(|pair| &mut pair.interest)
    }

    /// Another base states an interest of a device of its own.
    pub(super) fn handle_want(&mut self, from: Place, seq: u64, want: Want, now: Instant) {
        let Want { asker, revision, about, on, again } = want;
        if asker == about || self.devices.contains_key(&asker) {
            return;
        }
        if !self.devices.contains_key(&about) {
            if on {
                self.deny(from.base, about, asker, now);
            }
            return;
        }
        if !on {
            if self.learn(asker, from, revision, now) {
                self.drop_pair(asker, about, from.incarnation, seq, now);
            }
            return;
        }
        if !self.seek(asker, now) || !self.learn(asker, from, revision, now) {
            return;
        }
        let mut full = self.interests_in_all >= self.config.max_interests_in_all;
        let (most, until) = (self.config.max_interests, now + PAIR_LIFE);
        let keyed = self.keyed;
        let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(asker)) else {
            return;
        };
        full |= remote.pairs.len() >= most;
        let new = match remote.pairs.get_mut(&about) {
            Some(pair) if pair.incarnation == from.incarnation && seq < pair.seq => return,
            Some(pair) => {
                (pair.incarnation, pair.seq, pair.until) = (from.incarnation, seq, until);
                pair.interest.again |= again;
                false
            }
            None if full => {
                self.counters.interests_refused += 1;
                return;
            }
            None => {
                let interest = Interest::new(0);
                remote.pairs.insert(about, Pair { interest, incarnation: from.incarnation, seq, until });
                self.wanters.entry(about).or_insert_with(|| Set::with_hasher(keyed)).insert(asker);
                self.interests_in_all += 1;
                true
            }
        };
        if new || again {
            self.ask(about, asker, now);
            self.push(asker, about, now);
        }
    }

    /// An interest was released, unless it was stated again since.
    fn drop_pair(
        &mut self,
        asker: DeviceId,
        about: DeviceId,
        incarnation: Incarnation,
        seq: u64,
        now: Instant,
    ) {
        let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(asker)) else {
            return;
        };
        if remote.pairs.get(&about).is_some_and(|pair| pair.incarnation != incarnation || pair.seq <= seq) {
            remote.pairs.remove(&about);
            self.forget_interest(asker, about);
            self.push(about, asker, now);
        }
    }

    /// Another base tells a device here of one of its own.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn handle_addresses(
        &mut self,
        from: Place,
        seq: u64,
        to: DeviceId,
        revision: u64,
        left: bool,
        addresses: DeviceAddresses,
        now: Instant,
    ) {
        let about = addresses.device;
        let wanted = self.devices.get(&to).is_some_and(|device| device.interests.contains_key(&about));
        if !wanted || self.devices.contains_key(&about) {
            return;
        }
        // What its base says of a device that has moved away since is old.
        let known = self.cluster.as_ref().and_then(|cluster| cluster.remote(about));
        let newer = known.is_some_and(|remote| remote.revision > revision);
        if newer || (addresses.online && !self.learn(about, from, revision, now)) {
            return;
        }
        let Some(device) = self.devices.get_mut(&to) else { return };
        let (Some(interest), Some(conn)) = (device.interests.get_mut(&about), device.link.conn()) else {
            return;
        };
        if let Told::Elsewhere { incarnation, seq: last, .. } = interest.told
            && incarnation == from.incarnation
            && seq <= last
        {
            return;
        }
        let known = !matches!(interest.told, Told::Nothing | Told::Elsewhere { online: false, .. });
        let online = addresses.online;
        interest.told = Told::Elsewhere { incarnation: from.incarnation, seq, online };
        interest.left = left;
        if online || known {
            self.counters.addresses_sent += 1;
            self.write(conn, &BaseFrame::DeviceAddresses(addresses));
        }
    }

    /// Sends another base what a device of its own may know of one here.
    pub(in crate::base) fn tell_elsewhere(&mut self, to: DeviceId, addresses: DeviceAddresses) {
        let Some(place) = self.place_of(to) else { return };
        let device = self.devices.get(&addresses.device);
        let left = device.is_none();
        // What is gone has no entry any more: its base's word counts as long as nothing newer is known.
        let revision = device.and_then(|device| device.claim.revision()).unwrap_or(u64::MAX);
        self.send_to_base(place.base, Body::Addresses { to, revision, left, addresses });
    }

    // --- What could not be delivered ---------------------------------------------------------------------------

    /// A base has sent something for a device that is not here.
    pub(super) fn deny(&mut self, base: DeviceId, device: DeviceId, from: DeviceId, now: Instant) {
        let member = self.cluster.as_mut().and_then(|cluster| cluster.members.get_mut(&base));
        if member.is_some_and(|member| member.replies.take(crate::base::config::BASE_REPLY_RATE, now)) {
            self.send_to_base(base, Body::NotHere { device, from });
        }
    }

    /// A base does not have a device that something was sent to it for: it is looked for anew.
    pub(super) fn handle_not_here(&mut self, place: Place, id: DeviceId, from: DeviceId, now: Instant) {
        let Some(remote) = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(id)) else { return };
        if remote.place == Some(place) {
            remote.sought = Some(remote.revision);
            self.find(id);
        }
        self.unreachable_elsewhere(from, id, now);
    }

    /// The destination is at no base: whom it had wanted may know.
    pub(in crate::base) fn unreachable_elsewhere(&mut self, from: DeviceId, about: DeviceId, now: Instant) {
        let interest = self.devices.get(&from).and_then(|device| device.interests.get(&about));
        let wanted = |i: &Interest| i.left || matches!(i.told, Told::Elsewhere { online: true, .. });
        if interest.is_some_and(wanted) {
            self.unreachable(from, about, UnreachableReason::NotHere, now);
        }
    }

    /// Tells the base of a message's sender that it did not arrive.
    pub(in crate::base) fn blocked_elsewhere(
        &mut self,
        from: DeviceId,
        about: DeviceId,
        reason: UnreachableReason,
        now: Instant,
    ) {
        let Some(place) = self.place_of(from) else { return };
        let member = self.cluster.as_mut().and_then(|cluster| cluster.members.get_mut(&place.base));
        if member.is_some_and(|member| member.replies.take(crate::base::config::BASE_REPLY_RATE, now)) {
            self.send_to_base(place.base, Body::Blocked { from, about, reason });
        }
    }

    pub(super) fn handle_blocked(
        &mut self,
        from: DeviceId,
        about: DeviceId,
        reason: UnreachableReason,
        now: Instant,
    ) {
        self.unreachable(from, about, reason, now);
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
                && let Some(cluster) = &mut self.cluster
                && cluster.remote(id).is_some_and(|r| r.pairs.is_empty() && r.used_until <= now)
            {
                cluster.shards[usize::from(shard)].remotes.remove(&id);
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

impl Interest {
    pub(in crate::base) fn new(epoch: u32) -> Self {
        Self { epoch, told: Told::Nothing, again: false, left: false, window: Window::default() }
    }
}
