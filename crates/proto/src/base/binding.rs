//! Where devices are on UDP: NAT-INIT, NAT-OK, NAT-CONFIRM (protocol section 5).
//!
//! A *binding* is a device's source address as one of the base's sockets sees it. A signed NAT-INIT makes and moves
//! it; a NAT-CONFIRM, which only the receiver of a NAT-OK can send, confirms one of them, and only there does the
//! base send. Nothing is stored, and nothing longer than its cause is sent, before a signature was verified.

use std::{hash::Hasher, net::SocketAddr, sync::Arc, time::Instant};

use siphasher::sip::SipHasher24;

use super::{
    Base, CameOver, Forward, Output, SocketId, Via,
    config::{
        BINDING_LIFE, MAP_CHECK_PORT_MIN, MAP_CHECK_RATE, NAT_UNKNOWN_RATE_IN_ALL, NAT_VERIFY_RATE,
        PADDED_SEQS, SMALL_DATA, TCP_SPEAKS, UDP_FRESH, UNVERIFIED_SEQS,
    },
    routes::SourceKey,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::{
        ANY_PATH_DATA, Cookie, MAX_BASE_ADDRESSES, Malformed, addr,
        cluster::{BASE_DATA, BASE_PING, BASE_PONG},
        relay::{HEADER_LEN, SEND_DATA},
        udp::{
            MAP_CHECK, MapCheck, NAT_CONFIRM, NAT_INIT, NAT_OK_LEN, NAT_UNKNOWN, NatConfirm, NatInit, NatOk,
            PADDED_LEN, UnverifiedNatInit, map_ok,
        },
    },
};

/// Where a device is on UDP.
#[derive(Debug, Default)]
pub(super) struct Location {
    bindings: Vec<Binding>,
    confirmed: Option<Confirmed>,
    /// Per index of the base's UDP addresses: the last verified seq. It outlives the binding, or an old NAT-INIT
    /// could be replayed once that is gone.
    last: [u64; MAX_BASE_ADDRESSES],
    /// Per index: the highest seq answered, verified or not. What is not above it may be a copy of what the host has
    /// sent, and moves nothing. It is never more than [`UNVERIFIED_SEQS`] above `last`.
    seen: [u64; MAX_BASE_ADDRESSES],
    /// The last seq that was confirmed.
    last_confirmed: u64,
    /// The seq of the last NAT-INIT that moved a binding: what was answered before it belongs to another network.
    moved: u64,
    verify_rate: Bucket,
    map_check_rate: Bucket,
    /// Until when UDP vouches for the device: outlives a move, which is unconfirmed for a round trip.
    vouched_until: Option<Instant>,
    /// What comes from the session before this one ends then, or with the first NAT-CONFIRM.
    inherited_until: Option<Instant>,
}

#[derive(Debug)]
struct Binding {
    socket: SocketId,
    address: SocketAddr,
    /// The last NAT-INIT.
    heard: Instant,
    /// The highest seq answered here: no NAT-CONFIRM can go beyond it.
    answered: u64,
    /// The last seqs that were answered with padding.
    padded: [u64; PADDED_SEQS],
    /// It stems from the session before this one.
    inherited: bool,
    /// A NAT-CONFIRM of this session came from there: what goes there goes to this device.
    proven: bool,
}

#[derive(Debug, Clone, Copy)]
struct Confirmed {
    via: Via,
    to: SocketAddr,
    /// The base sends there until then.
    until: Instant,
    /// Whether 1,215 bytes are known to pass downwards.
    full_size: bool,
    inherited: bool,
}

impl Location {
    /// Where messages go over UDP, whether they may be of full size, and until when.
    pub(super) fn confirmed_leg(&self) -> Option<(Via, SocketAddr, bool, Instant)> {
        self.confirmed.map(|leg| (leg.via, leg.to, leg.full_size, leg.until))
    }

    /// The confirmed address, if it is fresh and carries so much data.
    pub(super) fn leg_for(&self, length: usize, now: Instant) -> Option<(Via, SocketAddr)> {
        let leg = self.confirmed.filter(|leg| leg.until > now)?;
        let limit = if leg.full_size { ANY_PATH_DATA } else { SMALL_DATA };
        (length <= limit).then_some((leg.via, leg.to))
    }

    pub(super) fn vouched_until(&self) -> Option<Instant> {
        self.vouched_until
    }

    /// The device's addresses as this base sees them, the confirmed one first.
    pub(super) fn reflexive(&self) -> Vec<SocketAddr> {
        let mut list: Vec<SocketAddr> = Vec::with_capacity(MAX_BASE_ADDRESSES);
        let current = || self.bindings.iter().filter(|b| b.answered >= self.moved).map(|b| b.address);
        let confirmed =
            self.confirmed.iter().map(|c| c.to).filter(|to| current().any(|address| address == *to));
        for address in confirmed.chain(current()) {
            if list.len() < MAX_BASE_ADDRESSES && !list.contains(&address) {
                list.push(address);
            }
        }
        list
    }

    /// The device sent over TCP what it would send over UDP if that worked: what it cannot hear is not sent there
    /// until a NAT-CONFIRM says otherwise. A sign of life over UDP within the last second weighs more: messages of
    /// the two transports overtake each other.
    ///
    /// Tells whether it was.
    pub(super) fn doubt(&mut self, length: usize, now: Instant) -> bool {
        let silent = |c: &mut Confirmed| c.until <= now + (UDP_FRESH - TCP_SPEAKS);
        length <= SMALL_DATA && self.confirmed.take_if(silent).is_some()
    }

    /// What is bound, as the table of addresses names it.
    pub(super) fn addresses(&self) -> Vec<(SocketId, SocketAddr)> {
        self.bindings.iter().map(|b| (b.socket, b.address)).collect()
    }

    /// A new cookie: numbers start anew, the addresses stay for a while.
    pub(super) fn inherit(&mut self, until: Instant) {
        self.last = Default::default();
        self.seen = Default::default();
        self.last_confirmed = 0;
        self.moved = 0;
        self.verify_rate = Bucket::default();
        for binding in &mut self.bindings {
            (binding.inherited, binding.proven) = (true, false);
            (binding.answered, binding.padded) = (0, [0; PADDED_SEQS]);
        }
        if let Some(confirmed) = &mut self.confirmed {
            confirmed.inherited = true;
        }
        self.inherited_until = Some(until);
    }

    fn binding(&mut self, socket: SocketId) -> Option<&mut Binding> {
        self.bindings.iter_mut().find(|b| b.socket == socket)
    }

    /// A NAT-INIT from a bound address: it lives on.
    fn refresh(&mut self, socket: SocketId, address: SocketAddr, now: Instant) {
        if let Some(binding) = self.binding(socket) {
            binding.heard = now;
        }
        if let Some(confirmed) = self.confirmed.as_mut().filter(|c| c.is(socket, address)) {
            confirmed.until = now + UDP_FRESH;
            self.vouched_until = Some(confirmed.until);
        }
    }

    /// Takes bindings out, with the confirmation where it was one of them.
    fn take_out(&mut self, which: impl Fn(&Binding) -> bool) -> Vec<(SocketId, SocketAddr)> {
        let gone: Vec<_> =
            self.bindings.extract_if(.., |b| which(b)).map(|b| (b.socket, b.address)).collect();
        self.confirmed.take_if(|c| gone.contains(&(c.via.socket, c.to)));
        gone
    }

    /// When the first binding (or all that is inherited) goes; `heard` tells of relayed messages.
    pub(super) fn next_deadline(
        &self,
        heard: impl Fn(SocketId, SocketAddr) -> Option<Instant>,
    ) -> Option<Instant> {
        let lives = self.bindings.iter().map(|b| b.heard.max(heard(b.socket, b.address).unwrap_or(b.heard)));
        lives.map(|heard| heard + BINDING_LIFE).chain(self.inherited_until).min()
    }
}

impl Binding {
    fn answer(&mut self, seq: u64, padded: bool) {
        self.answered = self.answered.max(seq);
        if padded {
            self.padded.rotate_right(1);
            self.padded[0] = seq;
        }
    }
}

impl Confirmed {
    fn is(&self, socket: SocketId, address: SocketAddr) -> bool {
        self.via.socket == socket && self.to == address
    }
}

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
            Some(&SEND_DATA) => return self.relay_datagram(via, from, datagram, now),
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
        if self.nat_unknown_rates.take(from, now).is_ok()
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
        let Some(id) = self.device_of(&init.claim().cookie) else {
            self.unknown_source(via, from, now);
            return;
        };
        let Some(device) = self.devices.get_mut(&id) else { return };
        let Some(index) = device.index_of(via.socket) else {
            self.counters.nat_init_bad_signature += 1;
            return;
        };
        let seq = init.claim().seq;
        let last = device.location.last[index];
        if seq <= last {
            self.counters.nat_init_replayed += 1;
            return;
        }
        let same_list = device.own.value == init.claim().own;
        let known = device.location.binding(via.socket).is_some_and(|b| b.address == from && !b.inherited);
        if known && same_list && seq - last <= UNVERIFIED_SEQS {
            self.counters.nat_init_unverified += 1;
            device.location.refresh(via.socket, from, now);
        } else {
            if seq <= device.location.seen[index] {
                self.counters.nat_init_replayed += 1;
                return;
            }
            if !device.location.verify_rate.take(NAT_VERIFY_RATE, now) {
                self.counters.nat_init_over_rate += 1;
                return;
            }
            let Some(init) = init.verify(&device.public_key, self.id, index as u8) else {
                self.counters.nat_init_bad_signature += 1;
                return;
            };
            self.counters.nat_init_verified += 1;
            device.location.last[index] = seq;
            self.bind(id, via, from, init, now);
        }
        self.publish(id);
        self.answer(id, index, via, from, seq, length);
        self.schedule(id);
    }

    /// Tells those who forward messages where a device is on UDP. To be called wherever that may have changed.
    pub(super) fn publish(&self, id: DeviceId) {
        self.routes.set_leg(id, self.devices.get(&id).and_then(|device| device.location.confirmed_leg()));
    }

    fn device_of(&self, cookie: &Cookie) -> Option<DeviceId> {
        self.routes.cookies.pin().get(cookie).copied()
    }

    /// A verified NAT-INIT: the binding is here now, and nowhere else.
    fn bind(&mut self, id: DeviceId, via: Via, from: SocketAddr, init: NatInit, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let before = device.location.reflexive();
        let (seq, own) = (init.seq, device.own.update(init.seq, init.own));
        let moved = device.location.take_out(|b| b.socket == via.socket && b.address != from);
        if !moved.is_empty() {
            device.location.moved = seq;
        }
        match device.location.binding(via.socket) {
            Some(binding) => {
                binding.inherited = false;
                binding.answered = binding.answered.max(seq);
            }
            None => {
                // Most hosts have one or two for good: no room for more than there are.
                device.location.bindings.reserve_exact(1);
                device.location.bindings.push(Binding {
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
        device.location.refresh(via.socket, from, now);
        let reflexive = device.location.reflexive() != before;
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
        let bindings =
            self.devices.get(&holder).or_else(|| self.lingering(holder)).map(|d| &d.location.bindings);
        let binding = bindings.into_iter().flatten().find(|b| b.socket == socket && b.address == address);
        binding.is_some_and(|b| b.heard.max(heard) + BINDING_LIFE > now)
    }

    /// Makes the address this device's, whoever had it.
    fn seize(&mut self, id: DeviceId, key: (SocketId, SocketAddr), now: Instant) {
        let Some(budget) = self.devices.get(&id).map(|device| Arc::clone(&device.budget)) else { return };
        let before = self.routes.seize(SourceKey::new(key.0, key.1), id, budget, now);
        let Some(loser) = before.filter(|&loser| loser != id) else { return };
        if let Some(device) = self.devices.get_mut(&loser) {
            device.location.take_out(|b| (b.socket, b.address) == key);
            self.publish(loser);
            self.changed(loser, now);
        } else if let Some(device) = self.lingering_mut(loser) {
            device.location.take_out(|b| (b.socket, b.address) == key);
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

    /// NAT-OK, padded like the NAT-INIT that it answers and never longer.
    fn answer(&mut self, id: DeviceId, index: usize, via: Via, from: SocketAddr, seq: u64, length: usize) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let padded = length >= PADDED_LEN;
        device.location.seen[index] = device.location.seen[index].max(seq);
        let confirmed = device.location.confirmed.is_some_and(|c| !c.inherited && c.is(via.socket, from));
        if let Some(binding) = device.location.binding(via.socket) {
            binding.answer(seq, padded);
        }
        let cookie = device.cookie;
        let challenge = self.challenge(&cookie, index, from);
        let ok = NatOk { cookie, seq, challenge, confirmed, seen: from };
        let payload = ok.encode(if padded { PADDED_LEN } else { NAT_OK_LEN });
        self.outputs.push_back(Output::Transmit { via, to: from, payload });
    }

    /// What only the receiver of a NAT-OK at this address can know; nothing is stored for it.
    fn challenge(&self, cookie: &Cookie, index: usize, from: SocketAddr) -> [u8; 8] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(cookie);
        hasher.write(&[index as u8]);
        hasher.write(&addr::encode(from));
        hasher.finish().to_be_bytes()
    }

    /// NAT-CONFIRM: relayed messages go there from now on.
    fn handle_nat_confirm(&mut self, via: Via, from: SocketAddr, confirm: NatConfirm, now: Instant) {
        if self.confirm(via, from, &confirm, now).is_none() {
            self.counters.nat_confirm_refused += 1;
            tracing::debug!(%from, seq = confirm.seq, "NAT-CONFIRM refused");
        }
    }

    fn confirm(&mut self, via: Via, from: SocketAddr, confirm: &NatConfirm, now: Instant) -> Option<()> {
        let id = self.device_of(&confirm.cookie)?;
        let index = self.devices.get(&id)?.index_of(via.socket)?;
        let challenge = self.challenge(&confirm.cookie, index, from);
        if challenge != confirm.challenge {
            return None;
        }
        let device = self.devices.get_mut(&id)?;
        let before = device.location.reflexive();
        let location = &mut device.location;
        let last_confirmed = location.last_confirmed;
        let binding = location.binding(via.socket).filter(|b| b.address == from && !b.inherited)?;
        if confirm.seq < last_confirmed || confirm.seq > binding.answered {
            return None;
        }
        (binding.heard, binding.proven) = (now, true);
        let proven = confirm.seq != 0 && binding.padded.contains(&confirm.seq);
        let known = location.confirmed.is_some_and(|c| c.full_size && !c.inherited && c.is(via.socket, from));
        let until = now + UDP_FRESH;
        location.last_confirmed = confirm.seq;
        location.vouched_until = Some(until);
        location.confirmed =
            Some(Confirmed { via, to: from, until, full_size: proven || known, inherited: false });
        let inherited = match location.inherited_until.take() {
            Some(_) => location.take_out(|b| b.inherited),
            None => Vec::new(),
        };
        let changed = location.reflexive() != before;
        self.counters.nat_confirmed += 1;

        for address in inherited {
            self.let_go(id, address);
        }
        self.seize(id, (via.socket, from), now);
        self.publish(id);
        let ok = NatOk { cookie: confirm.cookie, seq: confirm.seq, challenge, confirmed: true, seen: from };
        self.outputs.push_back(Output::Transmit { via, to: from, payload: ok.encode(NAT_OK_LEN) });
        if changed {
            self.changed(id, now);
        }
        self.schedule(id);
        Some(())
    }

    /// MAP-CHECK: a few bytes to an address of the IP that asks, where the device is known to receive; never to anybody else.
    fn handle_map_check(&mut self, via: Via, from: SocketAddr, check: MapCheck, now: Instant) {
        let to = addr::canonical(check.address);
        let Some(device) = self.device_of(&check.cookie).and_then(|id| self.devices.get_mut(&id)) else {
            return;
        };
        let receives = device.location.binding(via.socket).is_some_and(|b| b.address == from && b.proven);
        if !receives
            || to.ip() != from.ip()
            || to.port() < MAP_CHECK_PORT_MIN
            || !device.location.map_check_rate.take(MAP_CHECK_RATE, now)
        {
            self.counters.map_check_refused += 1;
            return;
        }
        self.counters.map_checks += 1;
        self.outputs.push_back(Output::Transmit { via, to, payload: map_ok(check.nonce) });
    }

    /// Bindings that were silent for too long, and what was inherited and never confirmed anew.
    pub(super) fn expire_bindings(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let routes = &self.routes;
        let heard = |b: &Binding| match routes.holder(SourceKey::new(b.socket, b.address)) {
            Some((holder, heard)) if holder == id => heard.max(b.heard),
            _ => b.heard,
        };
        let inherited_over = device.location.inherited_until.take_if(|until| *until <= now).is_some();
        let before = device.location.reflexive();
        let gone =
            device.location.take_out(|b| heard(b) + BINDING_LIFE <= now || (inherited_over && b.inherited));
        if inherited_over {
            device.location.confirmed.take_if(|c| c.inherited);
        }
        let changed = device.location.reflexive() != before;
        self.publish(id);
        for address in gone {
            self.let_go(id, address);
        }
        if changed {
            self.changed(id, now);
        }
    }
}
