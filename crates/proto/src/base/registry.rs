//! The devices that are registered here: how they come, are replaced, and go.
//!
//! A registration is made by a REGISTER that passed all checks, cheapest first. It ends with LEAVE, an ERROR, 60
//! seconds without INFO, or some time after its TCP connection was lost; the same boot may take it over before
//! that, and nobody else notices. State is soft: a host brings everything back by itself.

use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use super::{
    Base, ConnId, UdpAddress,
    admission::not_allowed,
    cluster::Claim,
    config::{CLONE_RETRY_AFTER, INHERITED_LIFE, NOTICE_RATE, OUTLIVES_TCP, REPEAT_WITHIN},
    conn::Failure,
    deadline::Key,
    interest::{Interest, Wanted},
    location::{Location, Session},
    memory::{Map, Source},
    push::Window,
    relay::Unreached,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    identity::PublicKey,
    wire::{
        BootId, Cookie,
        tcp::{BaseFrame, ErrorCode, Info, Notice, NoticeCode, Register, Registered, UnverifiedRegister},
    },
};

#[derive(Debug)]
pub(super) struct Device {
    pub(super) public_key: PublicKey,
    pub(super) boot: BootId,
    pub(super) attempt: u32,
    /// Whether it takes joined messages.
    pub(super) takes_joined: bool,
    pub(super) since: Instant,
    pub(super) link: Link,
    /// Where it is on UDP: shared with those who answer its NAT-INITs.
    pub(super) session: Arc<Session>,
    pub(super) interests: Map<DeviceId, Interest>,
    /// How often this boot has registered: tells repeated interests from inherited ones.
    pub(super) epoch: u32,
    /// Interests that are not repeated are released then.
    pub(super) repeat_by: Option<Instant>,
    pub(super) wanted: Wanted,
    /// Names what others may be told of this device at present.
    pub(super) version: u64,
    /// When the oldest change came that others may not have been told of.
    pub(super) changed_at: Instant,
    /// Collects the changes of this device before others are told.
    pub(super) changes: Window,
    /// What other bases of the cluster know of it.
    pub(super) claim: Claim,
    /// Most devices never need them.
    rates: Option<Box<Rates>>,
}

/// What a device has used up of what it may make the base do.
#[derive(Debug, Default)]
pub(super) struct Rates {
    notices: Bucket,
    /// What it was told of messages that went nowhere.
    pub(super) unreached: Unreached,
    /// What others were told of its addresses that it was not shown to receive at.
    pub(super) unproven: Bucket,
    /// Devices elsewhere that were looked for on its account.
    pub(super) seeks: Bucket,
}

impl Device {
    pub(super) fn rates(&mut self) -> &mut Rates {
        self.rates.get_or_insert_default()
    }
}

/// The TCP half of a registration.
#[derive(Debug, Clone, Copy)]
pub(super) enum Link {
    Tcp(ConnId),
    /// The connection was lost; the registration ends then, or as soon as UDP is no longer confirmed.
    Lost {
        until: Instant,
    },
}

impl Link {
    pub(super) fn conn(self) -> Option<ConnId> {
        match self {
            Self::Tcp(conn) => Some(conn),
            Self::Lost { .. } => None,
        }
    }
}

/// Something the host numbers: the highest number counts, whatever the order of arrival. Numbers start from 1.
#[derive(Debug, Default)]
pub(super) struct Numbered<T> {
    number: u64,
    pub(super) value: T,
}

impl<T: PartialEq> Numbered<T> {
    /// Takes a newer value; tells whether it differs.
    pub(super) fn update(&mut self, number: u64, value: T) -> bool {
        if number <= self.number {
            return false;
        }
        self.number = number;
        let changed = self.value != value;
        self.value = value;
        changed
    }

    /// The highest number that came.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The value came once more, under this number.
    pub(super) fn reach(&mut self, number: u64) {
        self.number = self.number.max(number);
    }

    /// Keeps the value; numbers start anew.
    pub(super) fn inherit(&mut self) {
        self.number = 0;
    }
}

impl Device {
    /// Where it is on UDP. To be given back before anything else is asked.
    pub(super) fn location(&self) -> MutexGuard<'_, Location> {
        self.session.location()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let link = match self.link {
            Link::Tcp(_) => self.location().info_by,
            Link::Lost { until } => until.min(self.location().vouched_until.unwrap_or(until)),
        };
        [Some(link), self.repeat_by, self.wanted.next(), self.changes.next(), self.claim.renew_at()]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Base {
    /// REGISTER: checked, cheapest first, then taken over.
    pub(super) fn handle_register(
        &mut self,
        conn: ConnId,
        cookie: &Cookie,
        unverified: UnverifiedRegister<'_>,
        now: Instant,
    ) {
        let verified = self.admit(conn, unverified.claim(), now).and_then(|()| {
            self.counters.registers_verified += 1;
            unverified.verify(self.id, cookie).ok_or_else(bad_signature)
        });
        let outcome = verified.and_then(|register| {
            if self.is_allowed(register.device) {
                return self.take_over(conn, cookie, &register, now);
            }
            self.ask_shell(conn, *cookie, register);
            Ok(())
        });
        if let Err(failure) = outcome {
            self.refuse(conn, failure, now);
        }
    }

    /// A registration fails.
    pub(super) fn refuse(&mut self, conn: ConnId, failure: Failure, now: Instant) {
        match failure.code {
            ErrorCode::Signature => self.counters.register_bad_signature += 1,
            ErrorCode::SourceLimit | ErrorCode::Busy => self.counters.register_over_rate += 1,
            ErrorCode::NotAllowed => self.counters.register_not_allowed += 1,
            _ => {}
        }
        self.fail(conn, failure, now);
    }

    /// Everything that is cheaper than a signature.
    fn admit(&mut self, conn: ConnId, claim: &Register, now: Instant) -> Result<(), Failure> {
        if self.draining != super::Draining::No {
            return Err(Failure::draining(&self.config));
        }
        if claim.public_key.device_id() != claim.device {
            return Err(bad_signature());
        }
        if !self.is_allowed(claim.device) && !self.config.ask {
            return Err(not_allowed());
        }
        let Some(remote) = self.conns.get(&conn).map(|c| c.remote.ip()) else {
            return Err(Failure::malformed("no connection"));
        };
        let (narrow, wide) = Source::of(remote);
        let (spare, rate) = (&mut self.register_spare, self.config.register_spare);
        // Half of the base is for those who come at their own rates.
        let is_roomy = self.devices.len() < self.config.max_devices / 2;
        // One for both of a source's rates.
        let mut taken = false;
        let mut spare = || {
            taken = taken || (is_roomy && spare.take(rate, now));
            taken
        };
        let rates = &mut self.register_rates_wide;
        self.register_rates
            .take(narrow, &mut spare, now)
            .and_then(|()| wide.map_or(Ok(()), |wide| rates.take(wide, &mut spare, now)))
            .map_err(|next| {
                let text = "too many registrations from this address";
                Failure::new(ErrorCode::SourceLimit, seconds_until(next, now), text)
            })?;
        self.has_room(claim.device)?;
        if !self.verify_rate.take(self.config.verify_rate, now) {
            return Err(Failure::busy(&self.config, "too many registrations"));
        }
        Ok(())
    }

    /// A verified REGISTER against whoever is registered already (protocol section 4, replacement).
    pub(super) fn take_over(
        &mut self,
        conn: ConnId,
        cookie: &Cookie,
        register: &Register,
        now: Instant,
    ) -> Result<(), Failure> {
        let id = register.device;
        match self.devices.get(&id) {
            None => self.insert(conn, cookie, register, now),
            Some(old) if old.boot == register.boot => {
                if register.attempt <= old.attempt {
                    return Err(replaced());
                }
                self.reattach(conn, cookie, register, now);
            }
            Some(old) if self.replaced.get(&(id, register.boot), now).is_some() => {
                let stays = old.link.conn();
                self.counters.cloned += 1;
                let remote_of = |conn| self.conns.get(&conn).map(|c| c.remote);
                let (here, refused) = (stays.and_then(remote_of), remote_of(conn));
                tracing::warn!(device = %id, ?here, ?refused, "two devices use one key: the one that is here stays");
                if let Some(stays) = stays {
                    self.notice(id, stays, NoticeCode::KeyInUse, "another device uses this key", now);
                }
                let text = "another device uses this key";
                return Err(Failure::new(ErrorCode::Cloned, CLONE_RETRY_AFTER, text));
            }
            Some(old) => {
                let (boot, link) = (old.boot, old.link);
                self.replaced.insert((id, boot), (), 1, now);
                self.counters.replaced += 1;
                if let Some(loser) = link.conn() {
                    self.fail_conn(loser, replaced());
                }
                for peer in self.remove(id) {
                    // Not gone, but starting anew: it will ask back within a round trip.
                    self.push_later(peer, id, now);
                }
                self.insert(conn, cookie, register, now);
            }
        }
        self.welcome(conn, id, now);
        self.claim_device(id);
        Ok(())
    }

    fn insert(&mut self, conn: ConnId, cookie: &Cookie, register: &Register, now: Instant) {
        self.versions += 1;
        let info_by = now + self.config.info_timeout;
        let budget = self.routes.new_budget();
        let session = Session::new(register.device, *cookie, self.udp_of(conn), info_by, budget);
        let device = Device {
            public_key: register.public_key,
            boot: register.boot,
            attempt: register.attempt,
            takes_joined: register.takes_joined(),
            since: now,
            link: Link::Tcp(conn),
            session: Arc::clone(&session),
            interests: Map::with_hasher(self.keyed),
            epoch: 0,
            repeat_by: None,
            wanted: Wanted::default(),
            version: self.versions,
            changed_at: now,
            changes: Window::default(),
            claim: Claim::default(),
            rates: None,
        };
        self.arrived(register.device, now);
        self.devices.insert(register.device, Box::new(device));
        self.routes.cookies.pin().insert(*cookie, session);
        self.publish(register.device);
        self.absent.remove(&register.device);
        self.replaced.remove(&(register.device, register.boot));
        self.counters.registered += 1;
        tracing::info!(device = %register.device, agent = %register.agent, "registered");
    }

    /// The same boot again: it inherits everything, under new numbers.
    fn reattach(&mut self, conn: ConnId, cookie: &Cookie, register: &Register, now: Instant) {
        let id = register.device;
        let udp = self.udp_of(conn);
        let Some(device) = self.devices.get_mut(&id) else { return };
        let loser = device.link.conn();
        let before = device.location().cookie;
        self.routes.cookies.pin().remove(&before);
        device.location().inherit(*cookie, udp, now + INHERITED_LIFE);
        self.routes.cookies.pin().insert(*cookie, Arc::clone(&device.session));
        device.attempt = register.attempt;
        let changed = device.takes_joined != register.takes_joined();
        device.takes_joined = register.takes_joined();
        device.link = Link::Tcp(conn);
        device.location().info_by = now + self.config.info_timeout;
        device.epoch = device.epoch.wrapping_add(1);
        device.repeat_by = Some(now + REPEAT_WITHIN);
        device.wanted = Wanted::default();
        for interest in device.interests.values_mut() {
            interest.told = interest.told.on_a_new_connection();
            interest.window = Window::default();
        }
        self.counters.re_registered += 1;
        self.publish(id);
        tracing::info!(device = %id, attempt = register.attempt, "registered again");
        if let Some(loser) = loser {
            self.fail_conn(loser, replaced());
        }
        if changed {
            self.changed(id, now);
        }
    }

    /// The base's UDP addresses as the host of this connection is told them.
    fn udp_of(&self, conn: ConnId) -> Arc<[UdpAddress]> {
        self.conns.get(&conn).map_or_else(|| Arc::from([]), |c| Arc::clone(&c.udp))
    }

    /// REGISTERED, and what has waited for this device.
    fn welcome(&mut self, conn: ConnId, id: DeviceId, now: Instant) {
        self.finish(conn, id);
        let Some(seen) = self.conns.get(&conn).map(|c| c.remote) else { return };
        let Some(device) = self.devices.get_mut(&id) else { return };
        let registered = Registered {
            seen,
            keepalive: self.config.keepalive.clamp(10, 25),
            udp: device.location().udp.iter().map(|a| a.address).collect(),
        };
        if let Some(wanters) = self.wanters.get(&id) {
            let Device { wanted, interests, .. } = &mut **device;
            let askers = wanters.iter().copied().filter(|asker| !interests.contains_key(asker));
            self.counters.wanted_dropped += wanted.start(askers, now) as u64;
        }
        self.write(conn, &BaseFrame::Registered(registered));
        self.send_wanted(id, now);
        self.schedule(id);
    }

    /// INFO: the address list with the highest number counts, the key of the highest INFO; each gets its PONG.
    pub(super) fn handle_info(&mut self, id: DeviceId, conn: ConnId, info: Info, now: Instant) {
        let Some(device) = self.devices.get(&id) else { return };
        let info_by = now + self.config.info_timeout;
        let mut location = device.location();
        let mut changed = false;
        if !location.live_on(&info, info_by) {
            location.info_by = info_by;
            let key = location.master_key.update(info.number, Some(info.master_key));
            changed = location.own.update(info.number, info.own) || key;
        }
        drop(location);
        self.write(conn, &BaseFrame::Pong(info.number));
        if changed {
            self.changed(id, now);
        }
    }

    pub(super) fn notice(&mut self, id: DeviceId, conn: ConnId, code: NoticeCode, text: &str, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if device.rates().notices.take(NOTICE_RATE, now) {
            self.counters.notices_sent += 1;
            self.write(conn, &BaseFrame::Notice(Notice { code, text: text.to_owned() }));
        }
    }

    /// A registered connection was lost: UDP, while it is confirmed, vouches for the device a little longer.
    pub(super) fn link_lost(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let vouched_until = device.location().vouched_until;
        if vouched_until.is_some_and(|until| until > now) {
            device.link = Link::Lost { until: now + OUTLIVES_TCP };
            device.wanted = Wanted::default();
            self.publish(id);
            tracing::debug!(device = %id, "TCP lost, UDP is confirmed");
            self.schedule(id);
        } else {
            self.unregister(id, "its connection was lost", now);
        }
    }

    /// Forgets a device and tells its peers.
    pub(super) fn unregister(&mut self, id: DeviceId, why: &str, now: Instant) {
        if !self.devices.contains_key(&id) {
            return;
        }
        self.counters.lost += 1;
        tracing::info!(device = %id, why, "lost");
        let mut wanted = self.remove(id);
        for &peer in &wanted {
            self.push(peer, id, now);
        }
        if !wanted.is_empty() {
            wanted.sort_unstable();
            let weight = wanted.len();
            self.absent.insert(id, wanted, weight, now);
        }
    }

    /// Takes a device and all that hangs on it out of every table; gives back whom it wanted.
    pub(super) fn remove(&mut self, id: DeviceId) -> Vec<DeviceId> {
        let Some(device) = self.take_registration(id) else { return Vec::new() };
        let addresses = device.location().addresses();
        for address in addresses {
            self.let_go(id, address);
        }
        device.interests.into_keys().collect()
    }

    /// Takes a device out of every table but that of addresses.
    pub(super) fn take_registration(&mut self, id: DeviceId) -> Option<Box<Device>> {
        let device = self.devices.remove(&id)?;
        let cookie = device.location().cookie;
        self.routes.cookies.pin().remove(&cookie);
        self.routes.set_place(id, None, None);
        self.deadlines.forget(Key::Device(id));
        let revision = device.claim.revision();
        for &about in device.interests.keys() {
            self.forget_interest(id, about);
            self.unwant_elsewhere(id, revision, about);
        }
        self.unclaim(id, &device.claim);
        Some(device)
    }

    /// Something of a device may have had its time.
    pub(super) fn device_due(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get(&id) else { return };
        let location = device.location();
        let (vouched_until, info_by) = (location.vouched_until, location.info_by);
        drop(location);
        match device.link {
            Link::Tcp(conn) if info_by <= now => {
                let text = format!("no INFO within {} seconds", self.config.info_timeout.as_secs());
                self.fail(conn, Failure::new(ErrorCode::Silent, 0, text), now);
                return;
            }
            Link::Lost { until } if until <= now || vouched_until.is_none_or(|until| until <= now) => {
                self.unregister(id, "its connection was lost, and UDP did not outlive it", now);
                return;
            }
            Link::Tcp(_) | Link::Lost { .. } => {}
        }
        self.release_unrepeated(id, now);
        self.expire_bindings(id, now);
        self.send_wanted(id, now);
        self.changes_due(id, now);
        self.renew_claim(id, now);
        self.schedule(id);
    }

    /// Has the device woken when the next of its deadlines comes.
    pub(super) fn schedule(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get(&id) else { return };
        let binding = device.location().next_deadline(|socket, address| self.heard(id, socket, address));
        if let Some(at) = [device.next_deadline(), binding].into_iter().flatten().min() {
            self.deadlines.by(Key::Device(id), at);
        }
    }
}

fn bad_signature() -> Failure {
    Failure::new(ErrorCode::Signature, 0, "the signature does not hold, or the key does not make the ID")
}

pub(super) fn replaced() -> Failure {
    Failure::new(ErrorCode::Replaced, 0, "a newer session of this device took over")
}

/// Whole seconds, rounded up, one at least: what `retry after` tells.
fn seconds_until(moment: Instant, now: Instant) -> u16 {
    let wait = moment.saturating_duration_since(now) + Duration::from_nanos(999_999_999);
    wait.as_secs().clamp(1, u16::MAX.into()) as u16
}
