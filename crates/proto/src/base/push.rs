//! DEVICE-ADDRESSES: what two devices that want each other are told of each other, at once and at every change.
//!
//! Each ordered pair knows which version of the other it was told. A change is told at once; the next one within a
//! [`Window`] waits for its end, and the windows double while changes go on. A device's own changes pass one more
//! window before they fan out, so that a device that flaps costs as little as one pair.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Base,
    config::{COALESCE_FIRST, COALESCE_FREE, COALESCE_MAX, UNPROVEN_TOLD},
    deadline::Key,
    interest::Interest,
};
use crate::{
    id::DeviceId,
    wire::{
        cluster::Incarnation,
        peer::IntroductionKey,
        tcp::{BaseFrame, DeviceAddresses},
    },
};

/// What a device was last told of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing yet, or that it is gone.
    Nothing,
    /// Something, on a connection before this one: whether it arrived is not known.
    Unsure,
    /// This version of it.
    Version(u64),
    /// What another base said of it; the highest number of a start of a base counts.
    Elsewhere { incarnation: Incarnation, seq: u64, online: bool },
}

impl Told {
    pub(super) fn on_a_new_connection(self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Unsure | Self::Version(_) => Self::Unsure,
            // It asks again, and so does its base.
            Self::Elsewhere { .. } => self,
        }
    }
}

/// Collects changes: after a quiet time the first few pass at once, then the next at the window's end. A move is rarely a
/// single change (an address goes, another comes, its mapping appears), and the last of them is the one that matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Window {
    /// No change for a while.
    #[default]
    Quiet,
    /// A change that may be taken back at once waits; any other passes.
    Grace { until: Instant },
    /// A change passed; nothing has had to wait since, and so many more may pass.
    Open { until: Instant, length: Duration, free: u8 },
    /// A change waits for the end.
    Waiting { until: Instant, length: Duration },
}

impl Window {
    fn first(now: Instant) -> Self {
        Self::Open { until: now + COALESCE_FIRST, length: COALESCE_FIRST, free: COALESCE_FREE }
    }

    /// A change: whether it passes now.
    fn change(&mut self, now: Instant) -> bool {
        match *self {
            Self::Open { until, length, free: free @ 1.. } if until > now => {
                *self = Self::Open { until, length, free: free - 1 };
                true
            }
            Self::Open { until, length, .. } | Self::Waiting { until, length } if until > now => {
                *self = Self::Waiting { until, length };
                false
            }
            Self::Waiting { .. } => self.end(now),
            Self::Quiet | Self::Grace { .. } | Self::Open { .. } => {
                *self = Self::first(now);
                true
            }
        }
    }

    /// A change that is likely to be followed by a better one: it never passes now.
    fn change_later(&mut self, now: Instant) {
        match *self {
            Self::Open { until, length, .. } | Self::Waiting { until, length } if until > now => {
                *self = Self::Waiting { until, length };
            }
            Self::Waiting { .. } | Self::Grace { .. } => {}
            Self::Quiet | Self::Open { .. } => *self = Self::Grace { until: now + COALESCE_FIRST },
        }
    }

    /// Whether a change has waited until now.
    fn end(&mut self, now: Instant) -> bool {
        let length = match *self {
            Self::Waiting { until, length } if until <= now => (length * 2).min(COALESCE_MAX),
            Self::Grace { until } if until <= now => {
                *self = Self::first(now);
                return true;
            }
            _ => return false,
        };
        *self = Self::Open { until: now + length, length, free: 0 };
        true
    }

    /// When something that waits has to pass.
    pub(super) fn next(&self) -> Option<Instant> {
        match *self {
            Self::Quiet | Self::Open { .. } => None,
            Self::Grace { until } | Self::Waiting { until, .. } => Some(until),
        }
    }
}

/// Addresses that are told later: when, and how many were counted.
pub(super) type Owed = Option<(Instant, u32)>;

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    Gone,
    Here,
}

impl Base {
    /// What others may be told of this device has changed.
    pub(super) fn changed(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        self.versions += 1;
        device.version = self.versions;
        if device.changes.next().is_none() {
            device.changed_at = now;
        }
        if device.changes.change(now) {
            self.fan_out(id, now);
        } else {
            self.schedule(id);
        }
    }

    pub(super) fn changes_due(&mut self, id: DeviceId, now: Instant) {
        if self.devices.get_mut(&id).is_some_and(|device| device.changes.end(now)) {
            self.fan_out(id, now);
        }
    }

    fn fan_out(&mut self, about: DeviceId, now: Instant) {
        let Some(device) = self.devices.get(&about) else { return };
        let wanted: Vec<DeviceId> = device.interests.keys().copied().collect();
        for to in wanted {
            self.push(to, about, now);
        }
    }

    /// Tells `to` about another device, if there is anything to tell, now or when the window ends.
    pub(super) fn push(&mut self, to: DeviceId, about: DeviceId, now: Instant) {
        if self.news(to, about) == News::None {
            return;
        }
        let Some(interest) = self.interest(to, about) else { return };
        if interest.window.change(now) {
            self.tell(to, about, now);
        } else if let Some(at) = interest.window.next() {
            self.deadlines.by(Key::Pair { to, about }, at);
        }
    }

    /// As [`Base::push`], never now.
    pub(super) fn push_later(&mut self, to: DeviceId, about: DeviceId, now: Instant) {
        if self.news(to, about) == News::None {
            return;
        }
        let Some(interest) = self.interest(to, about) else { return };
        interest.window.change_later(now);
        if let Some(at) = interest.window.next() {
            self.deadlines.by(Key::Pair { to, about }, at);
        }
    }

    /// What waited for the end of a window may have to be told.
    pub(super) fn pair_due(&mut self, to: DeviceId, about: DeviceId, now: Instant) {
        let Some(interest) = self.interest(to, about) else { return };
        let is_owed = interest.owed.is_some_and(|(at, _)| at <= now);
        interest.again |= is_owed;
        if interest.window.end(now) || is_owed {
            self.tell(to, about, now);
        }
        let Some(interest) = self.interest(to, about) else { return };
        // Who cannot be told asks again.
        interest.owed.take_if(|(at, _)| *at <= now);
        let owed = interest.owed.map(|(at, _)| at);
        if let Some(at) = interest.window.next().into_iter().chain(owed).min() {
            self.deadlines.by(Key::Pair { to, about }, at);
        }
    }

    /// A device was shown to receive at an address: whoever has waited to be told of it is told now.
    pub(super) fn proven(&mut self, about: DeviceId, now: Instant) {
        let Some(device) = self.devices.get(&about) else { return };
        let wanted: Vec<DeviceId> = device.interests.keys().copied().collect();
        for to in wanted {
            let Some(interest) = self.interest(to, about) else { continue };
            let Some((_, count)) = interest.owed.take() else { continue };
            interest.again = true;
            self.give_back(about, count);
            self.push(to, about, now);
        }
    }

    fn give_back(&mut self, about: DeviceId, count: u32) {
        if let Some(device) = self.devices.get_mut(&about) {
            (0..count).for_each(|_| device.rates().unproven.give_back(UNPROVEN_TOLD));
        }
    }

    fn interest(&mut self, of: DeviceId, about: DeviceId) -> Option<&mut Interest> {
        if !self.devices.contains_key(&of) {
            return self.pair_mut(of, about);
        }
        self.devices.get_mut(&of)?.interests.get_mut(&about)
    }

    /// The interest of a device that can be told: one with TCP, or one at another base.
    fn interest_of_reachable(&self, of: DeviceId, about: DeviceId) -> Option<&Interest> {
        match self.devices.get(&of) {
            Some(device) => device.link.conn().and_then(|_| device.interests.get(&about)),
            None => self.pair(of, about),
        }
    }

    /// Without the other's consent there is no news, nor to a device without TCP: it asks again when it is back.
    fn news(&self, to: DeviceId, about: DeviceId) -> News {
        let Some(interest) = self.interest_of_reachable(to, about) else { return News::None };
        let mutual = self.devices.get(&about).filter(|d| d.interests.contains_key(&to));
        if mutual.is_some_and(|d| d.claim.revision().is_none()) && !self.devices.contains_key(&to) {
            // Other bases do not know it yet.
            return News::None;
        }
        match (mutual, interest.told) {
            (None, Told::Nothing | Told::Elsewhere { .. }) => News::None,
            (None, Told::Unsure | Told::Version(_)) => News::Gone,
            (Some(d), Told::Version(told)) if told == d.version && !interest.again => News::None,
            (Some(_), _) => News::Here,
        }
    }

    /// The reflexive addresses that `to` may be told now, and when the rest. Where a NAT-INIT comes from, anybody could have written: those at
    /// which the device was never shown to receive may be a victim's, and are told in bounded number. The IP of its TCP connection is its own.
    fn reflexive_for(&mut self, to: DeviceId, about: DeviceId, now: Instant) -> (Vec<SocketAddr>, Owed) {
        let owed = self.interest(to, about).and_then(|interest| interest.owed);
        let Some(device) = self.devices.get_mut(&about) else { return Default::default() };
        let tcp = device.link.conn().and_then(|conn| self.conns.get(&conn)).map(|conn| conn.remote.ip());
        let location = device.session.location();
        let is_proven = |a: &SocketAddr| Some(a.ip()) == tcp || location.receives_at(a.ip());
        let all = location.reflexive();
        let proven: Vec<SocketAddr> = all.iter().copied().filter(is_proven).collect();
        drop(location);
        let unproven = (all.len() - proven.len()) as u32;
        if unproven == 0 {
            return (all, None);
        }
        let (at, count) =
            owed.unwrap_or_else(|| (device.rates().unproven.reserve(unproven, UNPROVEN_TOLD, now), unproven));
        if at <= now { (all, None) } else { (proven, Some((at, count))) }
    }

    fn tell(&mut self, to: DeviceId, about: DeviceId, now: Instant) {
        let mut owed = None;
        let (message, told) = match self.news(to, about) {
            News::None => return,
            News::Gone => (DeviceAddresses::gone(about), Told::Nothing),
            News::Here => {
                let reflexive;
                (reflexive, owed) = self.reflexive_for(to, about, now);
                let Some(d) = self.devices.get(&about) else { return };
                let location = d.location();
                let master = location.master_key.value;
                let message = DeviceAddresses {
                    device: about,
                    online: true,
                    joined: d.takes_joined,
                    introduction: master.map_or(IntroductionKey::NONE, |k| IntroductionKey::derive(&k, to)),
                    reflexive,
                    own: location.own.value.clone(),
                };
                (message, Told::Version(d.version))
            }
        };
        let changed_at = self.devices.get(&about).map(|device| device.changed_at);
        let Some(interest) = self.interest(to, about) else { return };
        let changed = matches!(interest.told, Told::Version(_)) && interest.told != told;
        interest.told = told;
        interest.again = false;
        interest.owed = owed;
        if let Some((at, _)) = owed {
            self.deadlines.by(Key::Pair { to, about }, at);
        }
        if let Some(at) = changed_at.filter(|_| changed) {
            self.counters.push_delay.add(now.saturating_duration_since(at));
        }
        let Some(receiver) = self.devices.get(&to) else {
            self.tell_elsewhere(to, message);
            return;
        };
        if let Some(conn) = receiver.link.conn() {
            self.counters.addresses_sent += 1;
            self.write(conn, &BaseFrame::DeviceAddresses(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_changes_pass_at_once_and_the_windows_double_until_one_is_quiet() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut window = Window::default();
        assert!((0..=u64::from(COALESCE_FREE)).all(|ms| window.change(at(ms))));
        assert!(!window.change(at(10)));
        assert_eq!(window.next(), Some(at(250)));
        assert!(!window.end(at(249)));
        assert!(window.end(at(250)));
        assert!(!window.change(at(300)));
        assert_eq!(window.next(), Some(at(750)));
        assert!(window.end(at(750)));
        assert!(window.change(at(1_750)), "a window without a change resets");
        assert!((1..=u64::from(COALESCE_FREE)).all(|ms| window.change(at(1_750 + ms))));
        assert!(!window.change(at(1_760)));
        assert_eq!(window.next(), Some(at(2_000)));
    }

    #[test]
    fn windows_grow_to_their_limit_and_no_further() {
        let mut now = Instant::now();
        let mut window = Window::default();
        assert!((0..=COALESCE_FREE).all(|_| window.change(now)));
        let mut lengths = Vec::new();
        for _ in 0..8 {
            assert!(!window.change(now));
            let next = window.next().unwrap();
            lengths.push((next - now).as_millis());
            now = next;
            assert!(window.end(now));
        }
        assert_eq!(lengths, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn what_waits_in_grace_is_overtaken_by_a_better_change() {
        let now = Instant::now();
        let mut window = Window::default();
        window.change_later(now);
        assert_eq!(window.next(), Some(now + COALESCE_FIRST));
        assert!(window.change(now + Duration::from_millis(5)));
        assert_eq!(window.next(), None);
    }
}
