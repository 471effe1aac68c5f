//! Who wants to talk with whom: REQUEST-INFO, RELEASE-INFO, WANTED (protocol section 4, interest and consent).
//!
//! An interest stands until it is released or its device goes, whether the wanted device is here or not: it tells
//! nothing about that. What both sides of a mutual interest are told is decided in `push`.

use std::{collections::VecDeque, time::Instant};

use super::{
    Base,
    config::{WANTED_KEPT, WANTED_PAIR, WANTED_RATE, WANTED_WAITING},
    deadline::Key,
    memory::Set,
    push::{Owed, Told, Window},
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::tcp::{BaseFrame, NoticeCode},
};

/// One device's interest in another.
#[derive(Debug)]
pub(super) struct Interest {
    /// The registration (of this boot) that stated it last.
    pub(super) epoch: u32,
    /// What the device was told of the other.
    pub(super) told: Told,
    /// It asked again and is to be told again, changed or not.
    pub(super) again: bool,
    /// The other was at another base, and wanted it when it left: it may hear why its messages do not arrive.
    pub(super) left: bool,
    pub(super) window: Window,
    /// Addresses of the other that it has yet to be told, when and how many: nobody knows whether the other receives there.
    pub(super) owed: Owed,
}

/// The WANTEDs for one device.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    rate: Bucket,
    /// Sent within [`WANTED_PAIR`]; its length is bounded by [`WANTED_RATE`].
    recent: VecDeque<(Instant, DeviceId)>,
    /// To be sent, none before its moment; [`WANTED_WAITING`] at most.
    waiting: VecDeque<(Instant, DeviceId)>,
}

impl Wanted {
    /// Puts an asker in line; whether an older one had to go for it.
    fn push(&mut self, asker: DeviceId, now: Instant) -> bool {
        if self.waiting.iter().any(|&(_, waiting)| waiting == asker) {
            return false;
        }
        let last = self.recent.iter().find(|&&(_, recent)| recent == asker);
        let not_before = last.map_or(now, |&(at, _)| (at + WANTED_PAIR).max(now));
        let dropped = self.waiting.len() >= WANTED_WAITING && self.waiting.pop_front().is_some();
        self.waiting.push_back((not_before, asker));
        dropped
    }

    /// Puts those in line who have waited for a device that has just come. It is not told of anybody yet, so none of them can be there already.
    /// How many there is no room for.
    pub(super) fn start(&mut self, mut askers: impl Iterator<Item = DeviceId>, now: Instant) -> usize {
        let room = WANTED_RATE.burst as usize + WANTED_WAITING;
        self.waiting = askers.by_ref().take(room).map(|asker| (now, asker)).collect();
        askers.count()
    }

    /// The next asker that may be told of now.
    fn pop(&mut self, now: Instant) -> Option<DeviceId> {
        while self.recent.front().is_some_and(|&(at, _)| at + WANTED_PAIR <= now) {
            self.recent.pop_front();
        }
        give_back_room(&mut self.recent);
        let place = self.waiting.iter().position(|&(not_before, _)| not_before <= now)?;
        if !self.rate.take(WANTED_RATE, now) {
            return None;
        }
        let (_, asker) = self.waiting.remove(place)?;
        give_back_room(&mut self.waiting);
        self.recent.push_back((now, asker));
        Some(asker)
    }

    fn withdraw(&mut self, asker: DeviceId) {
        self.waiting.retain(|&(_, waiting)| waiting != asker);
        give_back_room(&mut self.waiting);
    }

    /// When the next one can be sent.
    pub(super) fn next(&self) -> Option<Instant> {
        let Some(first) = self.waiting.iter().map(|&(not_before, _)| not_before).min() else {
            // Nothing is sent then, but room is given back.
            let last = self.recent.back().filter(|_| self.recent.capacity() > WANTED_KEPT);
            return last.map(|&(at, _)| at + WANTED_PAIR);
        };
        Some(self.rate.next(WANTED_RATE, first))
    }
}

/// What a crowd once took is not kept for as long as the device is here.
fn give_back_room<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > WANTED_KEPT && queue.len() * 4 < queue.capacity() {
        queue.shrink_to(queue.len() * 2);
    }
}

impl Base {
    /// REQUEST-INFO: "I want to talk with that device". Repeated, it counts as new.
    pub(super) fn handle_request_info(&mut self, id: DeviceId, about: DeviceId, now: Instant) {
        if id == about {
            return;
        }
        let Some(device) = self.devices.get_mut(&id) else { return };
        let (epoch, count) = (device.epoch, device.interests.len());
        if let Some(interest) = device.interests.get_mut(&about) {
            interest.epoch = epoch;
            interest.again = true;
            self.ask(about, id, now);
            self.push(id, about, now);
            self.want_elsewhere(id, about, now);
            return;
        }
        if count >= self.config.max_interests || self.interests_in_all >= self.config.max_interests_in_all {
            let conn = device.link.conn();
            self.counters.interests_refused += 1;
            if let Some(conn) = conn {
                let text = "you want to talk with more devices than this base takes";
                self.notice(id, conn, NoticeCode::Limit, text, now);
            }
            return;
        }
        device.interests.insert(about, Interest::new(epoch));
        let keyed = self.keyed;
        self.wanters.entry(about).or_insert_with(|| Set::with_hasher(keyed)).insert(id);
        self.interests_in_all += 1;
        self.ask(about, id, now);
        self.push(id, about, now);
        self.push(about, id, now);
        self.want_elsewhere(id, about, now);
    }

    /// RELEASE-INFO: "I no longer want to".
    pub(super) fn handle_release_info(&mut self, id: DeviceId, about: DeviceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if device.interests.remove(&about).is_some() {
            let revision = device.claim.revision();
            self.forget_interest(id, about);
            self.unwant_elsewhere(id, revision, about);
            self.push(about, id, now);
        }
    }

    /// Takes an interest, which its device no longer has, out of every other table.
    pub(super) fn forget_interest(&mut self, id: DeviceId, about: DeviceId) {
        self.interests_in_all -= 1;
        self.deadlines.forget(Key::Pair { to: id, about });
        if let Some(wanters) = self.wanters.get_mut(&about) {
            wanters.remove(&id);
            if wanters.is_empty() {
                self.wanters.remove(&about);
            }
        }
        if let Some(other) = self.devices.get_mut(&about) {
            other.wanted.withdraw(id);
        }
    }

    /// A new session's time to repeat its interests may be over.
    pub(super) fn release_unrepeated(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if device.repeat_by.take_if(|by| *by <= now).is_none() {
            return;
        }
        let epoch = device.epoch;
        let stale = device.interests.iter().filter(|(_, interest)| interest.epoch != epoch);
        let stale: Vec<DeviceId> = stale.map(|(&about, _)| about).collect();
        for about in stale {
            self.handle_release_info(id, about, now);
        }
    }

    /// Has a device told that `asker` asks for it. One without TCP hears of it when it registers again.
    pub(super) fn ask(&mut self, id: DeviceId, asker: DeviceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if device.link.conn().is_none() {
            return;
        }
        if device.wanted.push(asker, now) {
            self.counters.wanted_dropped += 1;
        }
        self.send_wanted(id, now);
        self.schedule(id);
    }

    /// Sends the WANTEDs whose time has come.
    pub(super) fn send_wanted(&mut self, id: DeviceId, now: Instant) {
        while let Some(device) = self.devices.get_mut(&id)
            && let Some(conn) = device.link.conn()
            && let Some(asker) = device.wanted.pop(now)
        {
            self.counters.wanted_sent += 1;
            self.write(conn, &BaseFrame::Wanted(asker));
        }
    }
}
