//! Messages from base to base: `prefix ‖ RECV-DATA` (or RECV-JOINED), over UDP where that is open, else on the bus.
//!
//! What came from a base goes to a device that is here, or nowhere: it is never handed on to a base again, so there are no loops,
//! whatever two bases believe of a device.

use std::time::Instant;

use super::{Base, CameOver, Over, ToBase, remote::Place};
use crate::{
    base::{Forward, Ticket, config::BASE_REPLY_RATE, interest::Interest, push::Told, registry::Link},
    id::DeviceId,
    wire::{
        ANY_PATH_DATA, MAX_DATA, Malformed,
        cluster::{BaseData, Body, PREFIX_LEN, prefix, tag},
        tcp::UnreachableReason,
    },
};

impl Base {
    /// Where a message goes whose destination is not here.
    pub(in crate::base) fn elsewhere(
        &mut self,
        from: DeviceId,
        to: DeviceId,
        length: usize,
        now: Instant,
    ) -> Option<ToBase> {
        let tag_on_bus = self.own_incarnation();
        // Each device that is looked for takes a place and a question to the store.
        if self.cluster.as_ref()?.remote(to).is_none() && !self.seek_for(from, to, now) {
            return None;
        }
        self.used(to, now);
        if let Some(place) = self.place_of(to) {
            let leg = self.leg_of(place.base, place.incarnation);
            if let Some(leg) = leg.filter(|leg| length <= ANY_PATH_DATA && leg.until() > now) {
                let prefix = prefix(to, leg.tag(from, to));
                return Some(ToBase { prefix, over: Over::Udp { via: leg.via(), to: leg.to() } });
            }
            let up = self.cluster.as_ref().is_some_and(|cluster| cluster.is_up());
            let over = Over::Bus(place.base);
            return up.then(|| ToBase { prefix: prefix(to, tag_on_bus), over });
        }
        let remote = self.cluster.as_mut()?.remote_mut(to)?;
        // Nobody knows yet where it is; the first messages do not wait for that.
        if !remote.goes_blind(now) {
            self.seek_again(from, to, now);
            return None;
        }
        Some(ToBase { prefix: prefix(to, tag_on_bus), over: Over::All })
    }

    /// A BASE-DATA came in. The message that goes on is `datagram[PREFIX_LEN..]`.
    pub fn handle_base_data(&mut self, came: CameOver, datagram: &[u8], now: Instant) -> Forward {
        let data = match BaseData::decode(datagram) {
            Ok(data) if data.length <= MAX_DATA => data,
            Ok(_) => return self.refused_data(Malformed::TooLong),
            Err(why) => return self.refused_data(why),
        };
        let sender = self.sender_of(came, &data);
        if sender.is_none() && matches!(came, CameOver::Udp(_)) {
            self.counters.not_a_member += 1;
            return Forward::Nowhere;
        }
        // Who may publish on the bus is a base, and a new one's first messages may be here before its lease.
        let BaseData { to, from, length, .. } = data;
        if let Some(forward) = self.deliver(from, to, length, now) {
            return forward;
        }
        match sender {
            // Everybody hears it, and most do not have the device.
            _ if came == CameOver::All => {}
            Some(sender) if !self.devices.contains_key(&to) => {
                self.counters.dropped_not_here += 1;
                self.deny(sender, to, from, now);
            }
            Some(_) => {}
            None => self.counters.not_a_member += 1,
        }
        Forward::Nowhere
    }

    fn refused_data(&mut self, why: Malformed) -> Forward {
        self.counters.malformed_bus += 1;
        tracing::debug!(%why, "malformed message of a base");
        Forward::Nowhere
    }

    /// The base that sent it, if it lives and may speak for itself.
    fn sender_of(&self, came: CameOver, data: &BaseData) -> Option<DeviceId> {
        let cluster = self.cluster.as_ref()?;
        match came {
            CameOver::Udp(from) => {
                let known = self.routes.is_base(from) && data.tag == tag(&cluster.key, data.from, data.to);
                let sender = || cluster.members.iter().find(|(_, m)| m.is_at(from)).map(|(&id, _)| id);
                known.then(sender).flatten()
            }
            CameOver::Bus | CameOver::All => cluster.incarnations.get(&data.tag).copied(),
        }
    }

    /// To a device that is registered here, or was until a moment ago.
    fn deliver(&mut self, from: DeviceId, to: DeviceId, length: usize, now: Instant) -> Option<Forward> {
        let here = self.devices.contains_key(&to);
        let device = match self.devices.get(&to) {
            Some(device) => device,
            None => self.lingering(to)?,
        };
        let leg = device.location().leg_for(length, now);
        let (link, bytes) = (device.link, length as u64);
        match (leg, link) {
            (Some((via, to)), _) => {
                self.counters.from_bases += 1;
                self.counters.from_bases_bytes += bytes;
                Some(Forward::Udp { via, to })
            }
            (None, Link::Tcp(conn)) => {
                self.counters.from_bases += 1;
                self.counters.from_bases_bytes += bytes;
                Some(Forward::Tcp { conn, ticket: Ticket { from, to } })
            }
            (None, Link::Lost { .. }) => {
                self.counters.dropped_no_way += 1;
                if here {
                    self.blocked(from, to, now);
                }
                None
            }
        }
    }

    // --- What could not be delivered ---------------------------------------------------------------------------

    /// A base has sent something for a device that is not here.
    pub(super) fn deny(&mut self, base: DeviceId, device: DeviceId, from: DeviceId, now: Instant) {
        let member = self.cluster.as_mut().and_then(|cluster| cluster.members.get_mut(&base));
        if member.is_some_and(|member| member.replies.take(BASE_REPLY_RATE, now)) {
            self.send_to_base(base, Body::NotHere { device, from });
            // Should the store say that it is here, since it left while there was no bus, that is taken back with the answer.
            self.find(device);
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
        if member.is_some_and(|member| member.replies.take(BASE_REPLY_RATE, now)) {
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

    /// Tells those who forward where messages to a device elsewhere go over UDP.
    pub(super) fn publish_remote(&mut self, id: DeviceId) {
        let place = self.place_of(id);
        let leg = place.and_then(|place| self.leg_of(place.base, place.incarnation));
        self.routes.set_remote(id, leg);
    }

    /// The same for all devices of a base.
    pub(super) fn publish_member(&mut self, base: DeviceId) {
        for id in self.devices_of(base) {
            self.publish_remote(id);
        }
    }

    /// The part of a BASE-DATA that goes on to a host.
    #[must_use]
    pub fn message_of(datagram: &[u8]) -> &[u8] {
        datagram.get(PREFIX_LEN..).unwrap_or_default()
    }
}
