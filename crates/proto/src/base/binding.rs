//! Where devices are on UDP: NAT-INIT, NAT-OK, NAT-CONFIRM (protocol section 5).
//!
//! A *binding* is a device's source address as one of the base's sockets sees it. A signed NAT-INIT makes and moves
//! it; a NAT-CONFIRM, which only the receiver of a NAT-OK can send, confirms one of them, and only there does the
//! base send. Nothing is stored, and nothing longer than its cause is sent, before a signature was verified.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{
    Base, CameOver, Forward, Output, SocketId, Via,
    config::{
        BINDING_LIFE, MAP_CHECK_PORT_MIN, MAP_CHECK_RATE, NAT_UNKNOWN_RATE_IN_ALL, NAT_VERIFY_RATE,
        PADDED_SEQS, UDP_FRESH,
    },
    location::{Binding, Confirmed},
    routes::SourceKey,
};
use crate::{
    id::DeviceId,
    wire::{
        Malformed, addr,
        cluster::{BASE_DATA, BASE_PING, BASE_PONG},
        relay::{self, HEADER_LEN},
        udp::{
            MAP_CHECK, MapCheck, NAT_CONFIRM, NAT_INIT, NAT_OK_LEN, NAT_UNKNOWN, NatConfirm, NatInit, NatOk,
            PADDED_LEN, UnverifiedNatInit, map_ok,
        },
    },
};

impl Base {
    /// A datagram came in.
    pub fn handle_datagram(
        &mut self,
        via: Via,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Instant,
    ) -> Forward {
        let from = addr::canonical(from);
        if from.port() == 0 {
            // No answer can go there, and no message.
            self.malformed_datagram(from, &"from port 0");
            return Forward::Nowhere;
        }
        match datagram.first() {
            Some(&kind) if relay::is_sent(kind) => return self.relay_datagram(via, from, datagram, now),
            Some(&NAT_INIT) => match UnverifiedNatInit::decode(datagram) {
                Ok(init) => self.handle_nat_init(via, from, init, datagram.len(), now),
                Err(why) => self.malformed_datagram(from, &why),
            },
            Some(&NAT_CONFIRM) => match NatConfirm::decode(datagram) {
                Ok(confirm) => self.handle_nat_confirm(via, from, confirm, now),
                Err(why) => self.malformed_datagram(from, &why),
            },
            Some(&MAP_CHECK) => match MapCheck::decode(datagram) {
                Ok(check) => self.handle_map_check(via, from, check, now),
                Err(why) => self.malformed_datagram(from, &why),
            },
            Some(&(BASE_PING | BASE_PONG)) if self.cluster.is_some() => {
                self.handle_probe(via, from, datagram, now);
            }
            Some(&BASE_DATA) if self.cluster.is_some() => {
                return self.handle_base_data(CameOver::Udp(from), datagram, now);
            }
            _ => self.malformed_datagram(from, &"no message of a host"),
        }
        Forward::Nowhere
    }

    fn relay_datagram(&mut self, via: Via, from: SocketAddr, message: &mut [u8], now: Instant) -> Forward {
        if message.len() < HEADER_LEN {
            self.malformed_datagram(from, &Malformed::TooShort);
            return Forward::Nowhere;
        }
        let Some(device) = self.routes.hear(SourceKey::new(via.socket, from), now) else {
            self.unknown_source(via, from, now);
            return Forward::Nowhere;
        };
        self.relay(device, message, now).unwrap_or_else(|why| {
            self.malformed_datagram(from, &why);
            Forward::Nowhere
        })
    }

    fn malformed_datagram(&mut self, from: SocketAddr, why: &dyn std::fmt::Display) {
        self.counters.malformed_datagrams += 1;
        tracing::debug!(%from, %why, "malformed datagram");
    }

    /// A datagram came from where nobody is bound, or under a cookie that nobody has: what [`super::Reader::judge`] says of
    /// strangers, without the datagram. Answers with NAT-UNKNOWN, one byte, rarely.
    pub fn handle_stranger(&mut self, via: Via, from: SocketAddr, now: Instant) {
        let from = addr::canonical(from);
        if from.port() != 0 {
            self.unknown_source(via, from, now);
        }
    }

    fn unknown_source(&mut self, via: Via, from: SocketAddr, now: Instant) {
        self.counters.unknown_source += 1;
        if self.nat_unknown_rates.take(from, || false, now).is_ok()
            && self.nat_unknown_rate.take(NAT_UNKNOWN_RATE_IN_ALL, now)
        {
            self.counters.nat_unknown_sent += 1;
            self.outputs.push_back(Output::Transmit { via, to: from, payload: vec![NAT_UNKNOWN] });
        }
    }

    /// NAT-INIT: cookie known, seq above the last and, where anything may change, above all that was answered;
    /// signature; in this order.
    fn handle_nat_init(
        &mut self,
        via: Via,
        from: SocketAddr,
        init: UnverifiedNatInit<'_>,
        length: usize,
        now: Instant,
    ) {
        let Some(session) = self.routes.session(&init.claim().cookie) else {
            self.unknown_source(via, from, now);
            return;
        };
        if let Some(ok) = self.routes.renew(&session, via, from, (init.claim(), length), now) {
            self.counters.nat_init_unverified += 1;
            self.answer(via, &ok, length);
            return;
        }
        let id = session.device();
        let Some(device) = self.devices.get(&id) else { return };
        let mut location = session.location();
        let Some(index) = location.index_of(via.socket) else {
            self.counters.nat_init_bad_signature += 1;
            return;
        };
        let seq = init.claim().seq;
        // What was verified was answered.
        if seq <= location.seen[index] {
            self.counters.nat_init_replayed += 1;
            return;
        }
        if !location.verify_rate.take(NAT_VERIFY_RATE, now) {
            self.counters.nat_init_over_rate += 1;
            return;
        }
        drop(location);
        let Some(init) = init.verify(&device.public_key, self.id, index as u8) else {
            self.counters.nat_init_bad_signature += 1;
            return;
        };
        self.counters.nat_init_verified += 1;
        session.location().last[index] = seq;
        let cookie = init.cookie;
        self.bind(id, via, from, init, now);
        let confirmed = session.location().answer(index, via.socket, from, seq, length >= PADDED_LEN);
        self.publish(id);
        let challenge = self.routes.challenge(&cookie, index, from);
        self.answer(via, &NatOk { cookie, seq, challenge, confirmed, seen: from }, length);
        self.schedule(id);
    }

    /// NAT-OK, padded like the NAT-INIT of this length that it answers.
    fn answer(&mut self, via: Via, ok: &NatOk, length: usize) {
        let payload = ok.encode(NatOk::length_for(length));
        self.outputs.push_back(Output::Transmit { via, to: ok.seen, payload });
    }

    /// Tells those who forward messages where a device is. To be called wherever that may have changed.
    pub(super) fn publish(&self, id: DeviceId) {
        let device = self.devices.get(&id);
        let leg = device.and_then(|device| device.location().confirmed_leg());
        self.routes.set_place(id, device.and_then(|device| device.link.conn()), leg);
    }

    /// A verified NAT-INIT: the binding is here now, and nowhere else.
    fn bind(&mut self, id: DeviceId, via: Via, from: SocketAddr, init: NatInit, now: Instant) {
        let Some(device) = self.devices.get(&id) else { return };
        let mut location = device.location();
        let before = location.reflexive();
        let (seq, own) = (init.seq, location.own.update(init.seq, init.own));
        let was_current = location.is_current(via.socket);
        let moved = location.take_out(|b| b.socket == via.socket && b.address != from);
        if !moved.is_empty() {
            // What leaves an address that another's move has made old belongs to that move, in whatever order the two come.
            location.moved = if was_current { seq } else { location.moved.min(seq) };
        }
        match location.binding(via.socket) {
            Some(binding) => {
                binding.inherited = false;
                binding.answered = binding.answered.max(seq);
            }
            None => {
                // Most hosts have one or two for good: no room for more than there are.
                location.bindings.reserve_exact(1);
                location.bindings.push(Binding {
                    socket: via.socket,
                    address: from,
                    heard: now,
                    answered: seq,
                    padded: [0; PADDED_SEQS],
                    inherited: false,
                    proven: false,
                });
            }
        }
        location.refresh(via.socket, from, now);
        let reflexive = location.reflexive() != before;
        drop(location);
        for address in moved {
            tracing::debug!(device = %id, from = %address.1, to = %from, "moved");
            self.let_go(id, address);
        }
        self.claim(id, via.socket, from, now);
        if own || reflexive {
            self.changed(id, now);
        }
    }

    /// The address is this device's, unless it is bound to another one that still lives there: that one goes only
    /// when a NAT-CONFIRM shows that this device receives there.
    fn claim(&mut self, id: DeviceId, socket: SocketId, address: SocketAddr, now: Instant) {
        let key = (socket, address);
        if let Some((holder, heard)) = self.routes.holder(SourceKey::new(socket, address))
            && holder != id
            && self.lives(holder, heard, key, now)
        {
            tracing::debug!(device = %id, %holder, %address, "bound to another device");
            return;
        }
        self.seize(id, key, now);
    }

    fn lives(
        &self,
        holder: DeviceId,
        heard: Instant,
        (socket, address): (SocketId, SocketAddr),
        now: Instant,
    ) -> bool {
        let Some(device) = self.devices.get(&holder).map(Box::as_ref).or_else(|| self.lingering(holder))
        else {
            return false;
        };
        let location = device.location();
        let binding = location.bindings.iter().find(|b| b.socket == socket && b.address == address);
        binding.is_some_and(|b| b.heard.max(heard) + BINDING_LIFE > now)
    }

    /// Makes the address this device's, whoever had it.
    fn seize(&mut self, id: DeviceId, key: (SocketId, SocketAddr), now: Instant) {
        let Some(session) = self.devices.get(&id).map(|device| Arc::clone(&device.session)) else { return };
        let before = self.routes.seize(SourceKey::new(key.0, key.1), session, now);
        let Some(loser) = before.filter(|&loser| loser != id) else { return };
        if let Some(device) = self.devices.get(&loser) {
            device.location().take_out(|b| (b.socket, b.address) == key);
            self.publish(loser);
            self.changed(loser, now);
        } else if let Some(device) = self.lingering(loser) {
            device.location().take_out(|b| (b.socket, b.address) == key);
        }
    }

    /// The device is no longer behind this address.
    pub(super) fn let_go(&mut self, id: DeviceId, (socket, address): (SocketId, SocketAddr)) {
        self.routes.let_go(SourceKey::new(socket, address), id);
    }

    /// When the device's last message to relay came from there.
    pub(super) fn heard(&self, id: DeviceId, socket: SocketId, address: SocketAddr) -> Option<Instant> {
        let (holder, heard) = self.routes.holder(SourceKey::new(socket, address))?;
        (holder == id).then_some(heard)
    }

    /// NAT-CONFIRM: relayed messages go there from now on.
    fn handle_nat_confirm(&mut self, via: Via, from: SocketAddr, confirm: NatConfirm, now: Instant) {
        if self.confirm(via, from, &confirm, now).is_none() {
            self.counters.nat_confirm_refused += 1;
            tracing::debug!(%from, seq = confirm.seq, "NAT-CONFIRM refused");
        }
    }

    fn confirm(&mut self, via: Via, from: SocketAddr, confirm: &NatConfirm, now: Instant) -> Option<()> {
        let session = self.routes.session(&confirm.cookie)?;
        let id = session.device();
        let mut guard = session.location();
        let location = &mut *guard;
        let index = location.index_of(via.socket)?;
        let challenge = self.routes.challenge(&confirm.cookie, index, from);
        if challenge != confirm.challenge {
            return None;
        }
        let before = location.reflexive();
        let last_confirmed = location.last_confirmed;
        let binding = location.binding(via.socket).filter(|b| b.address == from && !b.inherited)?;
        if confirm.seq < last_confirmed || confirm.seq > binding.answered {
            return None;
        }
        (binding.heard, binding.proven) = (now, true);
        let proven = confirm.seq != 0 && binding.padded.contains(&confirm.seq);
        let known = location.confirmed.is_some_and(|c| c.full_size && !c.inherited && c.is(via.socket, from));
        let until = now + UDP_FRESH;
        let is_new = location.receive_at(from.ip());
        location.last_confirmed = confirm.seq;
        location.vouched_until = Some(until);
        location.confirmed =
            Some(Confirmed { via, to: from, until, full_size: proven || known, inherited: false });
        let inherited = match location.inherited_until.take() {
            Some(_) => location.take_out(|b| b.inherited),
            None => Vec::new(),
        };
        let changed = location.reflexive() != before;
        drop(guard);
        self.counters.nat_confirmed += 1;

        for address in inherited {
            self.let_go(id, address);
        }
        self.seize(id, (via.socket, from), now);
        self.publish(id);
        let ok = NatOk { cookie: confirm.cookie, seq: confirm.seq, challenge, confirmed: true, seen: from };
        self.answer(via, &ok, NAT_OK_LEN);
        if changed {
            self.changed(id, now);
        }
        if is_new {
            self.proven(id, now);
        }
        self.schedule(id);
        Some(())
    }

    /// MAP-CHECK: a few bytes to an address of the IP that asks, where the device is known to receive; never to anybody else.
    fn handle_map_check(&mut self, via: Via, from: SocketAddr, check: MapCheck, now: Instant) {
        let to = addr::canonical(check.address);
        let Some(session) = self.routes.session(&check.cookie) else { return };
        let mut location = session.location();
        let receives = location.binding(via.socket).is_some_and(|b| b.address == from && b.proven);
        if !receives
            || to.ip() != from.ip()
            || to.port() < MAP_CHECK_PORT_MIN
            || !location.map_check_rate.take(MAP_CHECK_RATE, now)
        {
            self.counters.map_check_refused += 1;
            return;
        }
        self.counters.map_checks += 1;
        self.outputs.push_back(Output::Transmit { via, to, payload: map_ok(check.nonce) });
    }

    /// Bindings that were silent for too long, and what was inherited and never confirmed anew.
    pub(super) fn expire_bindings(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get(&id) else { return };
        let routes = &self.routes;
        let heard = |b: &Binding| match routes.holder(SourceKey::new(b.socket, b.address)) {
            Some((holder, heard)) if holder == id => heard.max(b.heard),
            _ => b.heard,
        };
        let mut location = device.location();
        let inherited_over = location.inherited_until.take_if(|until| *until <= now).is_some();
        let before = location.reflexive();
        let gone = location.take_out(|b| heard(b) + BINDING_LIFE <= now || (inherited_over && b.inherited));
        if inherited_over {
            location.confirmed.take_if(|c| c.inherited);
        }
        let changed = location.reflexive() != before;
        drop(location);
        self.publish(id);
        for address in gone {
            self.let_go(id, address);
        }
        if changed {
            self.changed(id, now);
        }
    }
}
