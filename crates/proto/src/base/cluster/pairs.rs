//! What crosses between two bases about two devices: interests one way, addresses the other.
//!
//! Consent is judged where the device is that addresses are told of. A's base says to X's base "A wants X" (a *pair* there); X's base tells X
//! WANTED, and as soon as X wants A, it sends X's addresses and the introduction key that it derives for A to A's base, at once and at
//! every change, through the same windows as to a device of its own. The other direction is the same with the names exchanged.
//! A's base keeps none of it but the number of the message: each statement says which one came last, and where that is not the last
//! that was sent, X's base sends anew.

use std::time::Instant;

use super::{Base, Want, remote::Place};
use crate::{
    base::{
        config::PAIR_LIFE,
        interest::Interest,
        memory::Set,
        push::{Told, Window},
    },
    id::DeviceId,
    wire::{
        cluster::{Body, Incarnation},
        tcp::{BaseFrame, DeviceAddresses},
    },
};

/// The interest of a device elsewhere in one here.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) interest: Interest,
    incarnation: Incarnation,
    seq: u64,
    /// The number of the last ADDRESSES that was sent for it; 0: none was.
    said: u64,
    /// It has to be stated again by then.
    pub(super) until: Instant,
}

impl Base {
    // --- Interests of devices here -----------------------------------------------------------------------------

    /// A device here wants one that is not.
    pub(in crate::base) fn want_elsewhere(&mut self, asker: DeviceId, about: DeviceId, now: Instant) {
        if self.cluster.is_some() && !self.devices.contains_key(&about) && self.seek_for(asker, about, now) {
            // Should this statement be lost, the next one still says that nothing has come since.
            if let Some(interest) = self.devices.get_mut(&asker).and_then(|d| d.interests.get_mut(&about))
                && let Told::Elsewhere { seq, .. } = &mut interest.told
            {
                *seq = 0;
            }
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
            let want = Want { asker, revision, about, heard: 0, on: false, again: false };
            self.queue_want(place.base, want);
        }
    }

    /// States an interest to the base of the device that it is about, if both are known in the store.
    pub(super) fn state(&mut self, asker: DeviceId, about: DeviceId, again: bool) {
        let Some(device) = self.devices.get(&asker) else { return };
        let (revision, interest) = (device.claim.revision(), device.interests.get(&about));
        if let Some(revision) = revision
            && let Some(place) = self.place_of(about)
        {
            let heard = match interest.map(|interest| interest.told) {
                Some(Told::Elsewhere { incarnation, seq, .. }) if incarnation == place.incarnation => seq,
                _ => 0,
            };
            self.queue_want(place.base, Want { asker, revision, about, heard, on: true, again });
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
        let Want { asker, revision, about, heard, on, again } = want;
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
                let pair = Pair { interest, incarnation: from.incarnation, seq, said: 0, until };
                remote.pairs.insert(about, pair);
                self.wanters.entry(about).or_insert_with(|| Set::with_hasher(keyed)).insert(asker);
                self.interests_in_all += 1;
                true
            }
        };
        if new || again {
            self.ask(about, asker, now);
        }
        let missed = self.missed(asker, about, heard);
        if new || again || missed {
            self.push(asker, about, now);
        }
    }

    /// Whether what was last said for a pair has not come, or what has come is not known here: then it counts as not told.
    fn missed(&mut self, asker: DeviceId, about: DeviceId, heard: u64) -> bool {
        let remote = self.cluster.as_mut().and_then(|cluster| cluster.remote_mut(asker));
        let Some(pair) = remote.and_then(|remote| remote.pairs.get_mut(&about)) else { return false };
        let missed = heard != pair.said;
        if missed {
            pair.interest.told = Told::Unsure;
        }
        missed
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
        // What its base says of a device that has moved away since is old; "gone" bears no revision to tell that by.
        let known = self.cluster.as_ref().and_then(|cluster| cluster.remote(about));
        let newer = known.is_some_and(|remote| remote.revision > revision);
        let moved = !addresses.online && self.place_of(about).is_some_and(|place| place != from);
        if newer || moved || (addresses.online && !self.learn(about, from, revision, now)) {
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
        let about = addresses.device;
        self.send_to_base(place.base, Body::Addresses { to, revision, left, addresses });
        let Some(cluster) = &mut self.cluster else { return };
        let said = cluster.seq;
        if let Some(pair) = cluster.remote_mut(to).and_then(|remote| remote.pairs.get_mut(&about)) {
            pair.said = said;
        }
    }
}

impl Interest {
    pub(in crate::base) fn new(epoch: u32) -> Self {
        Self { epoch, told: Told::Nothing, again: false, left: false, window: Window::default(), owed: None }
    }
}
