//! NAT-INIT: the host's address over UDP, registered at each UDP address of the base and kept alive.
//!
//! A [`Bindings`] lives as long as its session. Each of the base's UDP addresses has a [`Binding`] with a ladder of
//! NAT-INITs; the first that is answered is confirmed by the third step and carries relayed messages. Of those that show the same
//! address of ours one is kept alive, and the others rest. What is sent is numbered by the session's counter.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Hop,
    config::{
        BINDING_FAILED, BINDING_REST, NAT_CONFIRM_GAPS, NAT_INIT_GAPS, NAT_INIT_PADDED, NAT_OK_LIFE,
        NAT_OUTSTANDING, REFRESH_LOST, REFRESH_MIN, SESSION_DEAD, SMALL_DATA, UDP_QUIET, UDP_QUIET_INFO,
        UDP_SILENT, UDP_SILENT_ASK,
    },
    context::{Context, Rtt, earlier},
    event::BindingStatus,
    locals::Locals,
    refresh::Refresh,
};
use crate::{
    id::DeviceId,
    wire::{
        ANY_PATH_DATA, Cookie,
        udp::{NatConfirm, NatInit, NatOk, PADDED_LEN},
    },
};

/// What all bindings of a session share.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) base: DeviceId,
    pub(super) cookie: Cookie,
    pub(super) keepalive: Duration,
}

/// The bindings of a session, one per UDP address of the base.
#[derive(Debug)]
pub(super) struct Bindings {
    terms: Terms,
    /// The own address to send from, if not the system's choice.
    source: Option<IpAddr>,
    list: Vec<Binding>,
    chosen: Option<Chosen>,
    health: Health,
    /// When something last came.
    heard: Option<Instant>,
    /// Data would have gone over UDP since it was last asked whether that is silent still.
    missed: bool,
    /// Something has come after a silence, and nobody has been told.
    came_back: bool,
    /// Whether the user wants UDP to be used.
    on: bool,
}

#[derive(Debug)]
struct Binding {
    /// As the base tells it.
    told: SocketAddr,
    /// As it is to be had from here.
    address: SocketAddr,
    index: u8,
    /// The next NAT-INIT and its rung in the ladder.
    next: Instant,
    rung: usize,
    sent: VecDeque<Sent>,
    unanswered: u32,
    answered: Option<Instant>,
    reflexive: Option<SocketAddr>,
    /// Refreshes in a row that were answered to another address of ours.
    lost: u32,
    full_size: bool,
    /// The next NAT-INIT only keeps it alive: nothing is to be proven.
    keepalive: bool,
    rtt: Rtt,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    at: Instant,
    padded: bool,
}

impl Binding {
    fn new(index: u8, told: SocketAddr, address: SocketAddr, now: Instant) -> Self {
        Self {
            told,
            address,
            index,
            next: now,
            rung: 0,
            sent: VecDeque::new(),
            unanswered: 0,
            answered: None,
            reflexive: None,
            lost: 0,
            full_size: false,
            keepalive: false,
            rtt: Rtt::default(),
        }
    }

    /// Whether it has been answered lately enough to send there.
    fn answers(&self, now: Instant) -> bool {
        self.answered.is_some_and(|at| now < at + NAT_OK_LIFE)
    }

    /// It is seen there now; whether it was elsewhere before. A NAT that loses mappings between refreshes shows by that.
    fn note_seen(&mut self, seen: SocketAddr, refresh: &mut Refresh, now: Instant) -> bool {
        let elsewhere = self.reflexive.replace(seen).is_some_and(|known| known != seen);
        let unused = self.answered.replace(now).map_or(Duration::ZERO, |last| now - last);
        if unused >= REFRESH_MIN {
            self.lost = if elsewhere { self.lost + 1 } else { 0 };
            if self.lost >= REFRESH_LOST {
                refresh.note_lost(unused);
            }
        }
        elsewhere
    }

    /// How long a message may be that goes by it.
    fn limit(&self) -> usize {
        if self.full_size { ANY_PATH_DATA } else { SMALL_DATA }
    }
}

/// The binding that relayed messages go by.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    index: usize,
    confirm: Confirm,
}

/// The third step of the handshake.
#[derive(Debug, Clone, Copy)]
enum Confirm {
    /// NAT-CONFIRM is on its way; sent again at `next`.
    Sent { message: NatConfirm, resends: usize, next: Instant },
    /// The base said that it has it.
    Done,
}

/// Whether relayed data sent over UDP is followed by anything that comes in over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// Nothing is waited for.
    Quiet,
    /// Data went out at this moment and nothing has come since.
    Awaiting(Instant),
    /// … and NAT-INIT has been sent because of it.
    Probing(Instant),
    /// … and INFO, too.
    ProbingTcp(Instant),
    /// Too long: data goes over TCP until something comes. Whether that is still so was last asked at this moment.
    Silent(Option<Instant>),
}

/// What a tick asks of the session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TickResult {
    /// Send an INFO: the base may be gone altogether.
    pub(super) info: bool,
}

impl Bindings {
    pub(super) fn new(
        terms: Terms,
        addresses: &[(u8, SocketAddr)],
        source: Option<IpAddr>,
        on: bool,
        now: Instant,
    ) -> Self {
        let list =
            addresses.iter().map(|&(index, address)| Binding::new(index, address, address, now)).collect();
        let (heard, missed, came_back) = (None, false, false);
        Self { terms, source, list, chosen: None, health: Health::Quiet, heard, missed, came_back, on }
    }

    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.list.iter().any(|b| b.address == address)
    }

    /// Takes each of the base's addresses as it is to be had from here now. One that is another than before begins anew.
    pub(super) fn reach(&mut self, locals: &Locals, now: Instant) {
        self.source = self.source.filter(|&own| locals.has(own));
        for (index, binding) in self.list.iter_mut().enumerate() {
            let address = locals.reach(binding.told);
            if address != binding.address {
                *binding = Binding::new(binding.index, binding.told, address, now);
                self.chosen.take_if(|chosen| chosen.index == index);
            }
        }
    }

    /// The way to that address of the base: the one that its connection takes, where that is of the same family.
    fn hop(&self, binding: &Binding) -> Hop {
        hop(self.source, binding.address)
    }

    /// Begins to use UDP, or ceases to: then nothing more is sent, and the base's half lapses by itself.
    pub(super) fn switch(&mut self, on: bool, now: Instant) {
        self.on = on;
        self.restart(true, now);
        for binding in &mut self.list {
            binding.answered = None;
        }
    }

    /// Starts every ladder anew: the own addresses have changed, or the base does not know us. A `moved` host chooses
    /// its binding again, too: whichever is answered first.
    pub(super) fn restart(&mut self, moved: bool, now: Instant) {
        for binding in &mut self.list {
            binding.next = now;
            binding.rung = 0;
            binding.unanswered = 0;
            binding.keepalive = false;
            binding.full_size &= !moved;
            if moved {
                binding.lost = 0;
            }
        }
        if moved {
            // Data may go on over UDP meanwhile: the NAT-INIT that leaves first moves the base's idea of us.
            self.chosen = None;
            self.health = Health::Quiet;
        }
    }

    /// Asks whether the address in use still answers, and no more than that; the others where `all` is in doubt.
    fn probe(&mut self, all: bool, now: Instant) {
        let used = self.chosen.map(|chosen| chosen.index);
        for (index, binding) in self.list.iter_mut().enumerate() {
            let is_used = used.is_none_or(|used| used == index);
            if is_used != all || used.is_none() {
                binding.next = now;
                binding.rung = 0;
                binding.unanswered = 0;
                binding.keepalive = binding.full_size;
            }
        }
    }

    /// Where a message of `length` bytes goes over UDP, if it may.
    pub(super) fn route(&mut self, length: usize, now: Instant) -> Option<Hop> {
        if self.is_silent() {
            self.missed = true;
            return None;
        }
        let binding = self.usable(now).filter(|binding| length <= binding.limit())?;
        let hop = self.hop(binding);
        if self.health == Health::Quiet {
            self.health = Health::Awaiting(now);
        }
        Some(hop)
    }

    /// How long a message may be that goes over UDP now.
    pub(super) fn limit(&self, now: Instant) -> Option<usize> {
        self.usable(now).filter(|_| !self.is_silent()).map(Binding::limit)
    }

    /// Whether small messages may go over UDP now.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !self.is_silent() && self.usable(now).is_some()
    }

    fn usable(&self, now: Instant) -> Option<&Binding> {
        let fresh = |b: &&Binding| b.answers(now);
        match self.chosen {
            Some(chosen) => Some(&self.list[chosen.index]).filter(fresh),
            None => self.list.iter().find(fresh),
        }
    }

    /// The base's address that answers at present.
    pub(super) fn answering(&self, now: Instant) -> Option<SocketAddr> {
        self.usable(now).filter(|_| self.on).map(|binding| binding.address)
    }

    /// When UDP stops being usable if nothing comes.
    pub(super) fn lapse(&self, now: Instant) -> Option<Instant> {
        self.usable(now).and_then(|b| b.answered).map(|at| at + NAT_OK_LIFE)
    }

    /// Whether relayed data waits for a sign of life that does not come.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self.health, Health::ProbingTcp(_) | Health::Silent(_))
    }

    fn is_silent(&self) -> bool {
        matches!(self.health, Health::Silent(_))
    }

    /// When something last came from the base over UDP.
    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.heard
    }

    pub(super) fn has_come_back(&self) -> bool {
        self.came_back
    }

    /// Whether something has come after a silence; said once.
    pub(super) fn take_came_back(&mut self) -> bool {
        std::mem::take(&mut self.came_back)
    }

    /// The base says that it does not know us, so the way to it is open again.
    pub(super) fn note_unknown(&mut self) {
        self.came_back |= self.is_silent();
    }

    /// The reflexive addresses that the base sees, for judging candidates.
    pub(super) fn reflexive(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().filter_map(|b| b.reflexive)
    }

    /// Something came from this session's base over UDP.
    pub(super) fn heard(&mut self, now: Instant) {
        self.note_heard(now);
        self.health = Health::Quiet;
    }

    fn note_heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.came_back |= self.is_silent();
    }

    /// The system refuses to send there: too large a datagram says so of its size, anything else of the way.
    pub(super) fn handle_send_error(&mut self, to: SocketAddr, too_large: bool) {
        let Some(index) = self.list.iter().position(|b| b.address == to) else { return };
        if too_large {
            self.list[index].full_size = false;
        } else if self.chosen.is_none_or(|chosen| chosen.index == index) {
            self.health = Health::Silent(None);
        }
    }

    pub(super) fn handle_nat_ok(
        &mut self,
        from: SocketAddr,
        ok: &NatOk,
        length: usize,
        ctx: &mut Context,
        now: Instant,
    ) {
        if ok.cookie != self.terms.cookie {
            ctx.counters.base_stray += 1;
            return;
        }
        let Some(index) = self.list.iter().position(|b| self.on && b.address == from) else { return };
        let rest = self.until_next(index, ok.seen, ctx.refresh, now);
        let binding = &mut self.list[index];
        let Some(at) = binding.sent.iter().position(|sent| sent.seq == ok.seq) else {
            ctx.counters.base_stray += 1;
            return;
        };
        let sent = binding.sent[at];
        if binding.answered.is_none_or(|last| last < sent.at) {
            binding.rtt.sample(now - sent.at);
        }
        self.heard = Some(now);
        self.came_back |= matches!(self.health, Health::Silent(_));
        // Seen from elsewhere all of a sudden: another way perhaps, on which nothing is proven, and the base has to hear of it.
        let elsewhere = binding.note_seen(ok.seen, &mut ctx.refresh, now);
        binding.full_size &= !elsewhere;
        binding.unanswered = 0;
        let proves_size = sent.padded && length >= PADDED_LEN;
        let newly_full = proves_size && !binding.full_size;
        binding.full_size |= proves_size;
        let second_padded = NAT_INIT_PADDED[1];
        if binding.full_size || binding.rung > second_padded {
            binding.rung = 0;
            binding.keepalive = binding.full_size;
            binding.next = now + ctx.jittered(rest);
        } else if binding.rung < second_padded {
            // Only a bare one was answered: one lost datagram must not keep large messages off UDP for a keepalive.
            binding.rung = second_padded;
            binding.next = now + NAT_INIT_GAPS[second_padded - 1];
        }
        if elsewhere {
            self.rouse(ctx.refresh, now);
        }
        let in_doubt = self.is_probing();
        match &mut self.chosen {
            None => self.choose(index, ok, ctx, now),
            Some(chosen) if chosen.index == index => {
                self.health = Health::Quiet;
                if ok.confirmed {
                    chosen.confirm = Confirm::Done;
                }
                // A seq of a padded NAT-OK proves the full size downwards, too: the base has to hear of it.
                let waiting = matches!(chosen.confirm, Confirm::Sent { .. });
                if newly_full || (!ok.confirmed && !waiting) {
                    self.choose(index, ok, ctx, now);
                }
            }
            // The one in use has been silent for so long that this one's answer counts for more.
            Some(_) if in_doubt => self.choose(index, ok, ctx, now),
            Some(_) => {}
        }
    }

    /// How long the base is not asked there if its answer shows this address of ours: one binding of each address is kept alive, the one in
    /// use before others, and they rest: it is one mapping of a NAT, or none, and they could not be told apart by peers.
    fn until_next(&self, index: usize, seen: SocketAddr, refresh: Refresh, now: Instant) -> Duration {
        let rank = |i: usize| (self.chosen.is_some_and(|chosen| chosen.index != i), i);
        let is_kept = |(other, b): (usize, &Binding)| {
            rank(other) < rank(index) && b.answers(now) && b.full_size && b.reflexive == Some(seen)
        };
        if self.list.iter().enumerate().any(is_kept) {
            BINDING_REST
        } else {
            refresh.within(self.terms.keepalive)
        }
    }

    /// Asks at the addresses that rest: what they rested by holds no longer.
    fn rouse(&mut self, refresh: Refresh, now: Instant) {
        let keepalive = refresh.within(self.terms.keepalive);
        for binding in self.list.iter_mut().filter(|b| b.next > now + keepalive) {
            binding.next = now;
            binding.rung = 0;
            binding.keepalive = binding.full_size;
        }
    }

    fn choose(&mut self, index: usize, ok: &NatOk, ctx: &mut Context, now: Instant) {
        let message = NatConfirm { cookie: ok.cookie, seq: ok.seq, challenge: ok.challenge };
        ctx.transmit(self.hop(&self.list[index]), message.encode());
        let confirm = Confirm::Sent { message, resends: 0, next: now + NAT_CONFIRM_GAPS[0] };
        self.health = Health::Quiet;
        self.chosen = Some(Chosen { index, confirm });
    }

    pub(super) fn tick(
        &mut self,
        own: &[SocketAddr],
        counter: &mut u64,
        ctx: &mut Context,
        now: Instant,
    ) -> TickResult {
        if !self.on {
            return TickResult::default();
        }
        let result = self.tick_health(now);
        self.tick_confirm(ctx, now);
        for index in 0..self.list.len() {
            if self.list[index].next <= now {
                self.send_init(index, own, counter, ctx, now);
            }
        }
        result
    }

    fn send_init(
        &mut self,
        index: usize,
        own: &[SocketAddr],
        counter: &mut u64,
        ctx: &mut Context,
        now: Instant,
    ) {
        let binding = &mut self.list[index];
        *counter += 1;
        // After a whole ladder in vain, UDP is probably not let through: one at each keepalive notices when it is.
        let in_vain = binding.unanswered as usize > NAT_INIT_GAPS.len();
        let bare = std::mem::take(&mut binding.keepalive) || in_vain;
        let padded = NAT_INIT_PADDED.contains(&binding.rung) && !bare;
        let init = NatInit { cookie: self.terms.cookie, seq: *counter, own: own.to_vec() };
        let datagram =
            init.encode(&ctx.key, self.terms.base, binding.index, if padded { PADDED_LEN } else { 0 });
        ctx.transmit(hop(self.source, binding.address), datagram);
        if binding.sent.len() == NAT_OUTSTANDING {
            binding.sent.pop_front();
        }
        binding.sent.push_back(Sent { seq: *counter, at: now, padded });
        binding.unanswered += 1;
        if let Some(&gap) = NAT_INIT_GAPS.get(binding.rung).filter(|_| !in_vain) {
            binding.rung += 1;
            binding.next = now + gap;
        } else {
            binding.rung = 0;
            binding.next = now + ctx.jittered(ctx.refresh.within(self.terms.keepalive));
        }
        let unanswered = binding.unanswered;
        if unanswered > BINDING_FAILED && self.chosen.is_some_and(|chosen| chosen.index == index) {
            self.chosen = None;
        }
        if unanswered == BINDING_FAILED + 1 {
            self.rouse(ctx.refresh, now);
        }
    }

    fn tick_confirm(&mut self, ctx: &mut Context, now: Instant) {
        let Some(Chosen { index, confirm: Confirm::Sent { message, resends, next } }) = &mut self.chosen
        else {
            return;
        };
        if *next > now {
            return;
        }
        let binding = &mut self.list[*index];
        if *resends < NAT_CONFIRM_GAPS.len() {
            ctx.transmit(hop(self.source, binding.address), message.encode());
            *resends += 1;
            *next = now + NAT_CONFIRM_GAPS.get(*resends).copied().unwrap_or(NAT_CONFIRM_GAPS[1]);
        } else {
            binding.rung = 0;
            binding.next = now;
            self.chosen = None;
        }
    }

    fn tick_health(&mut self, now: Instant) -> TickResult {
        let mut result = TickResult::default();
        if let Health::Awaiting(since) = self.health
            && now >= since + UDP_QUIET
        {
            self.health = Health::Probing(since);
            self.probe(false, now);
        }
        if let Health::Probing(since) = self.health
            && now >= since + UDP_QUIET_INFO
        {
            self.health = Health::ProbingTcp(since);
            self.probe(true, now);
            result.info = true;
        }
        if let Health::ProbingTcp(since) = self.health
            && now >= since + UDP_SILENT
        {
            self.health = Health::Silent(Some(now));
        }
        if self.ask_at().is_some_and(|at| at <= now) {
            self.ask(now);
        }
        result
    }

    /// When to ask whether UDP is silent still: the base knows the binding for some time, and what it knows is at once of use again.
    fn ask_at(&self) -> Option<Instant> {
        let (Health::Silent(asked), true, Some(heard)) = (self.health, self.missed, self.heard) else {
            return None;
        };
        let at = asked.map_or(heard, |at| at + UDP_SILENT_ASK);
        (at < heard + SESSION_DEAD).then_some(at)
    }

    fn ask(&mut self, now: Instant) {
        self.health = Health::Silent(Some(now));
        self.missed = false;
        let used = self.chosen.map(|chosen| chosen.index);
        let index = used.or_else(|| self.list.iter().position(|b| b.answered.is_some()));
        // A ladder that is still going on asks by itself.
        if let Some(binding) =
            index.map(|index| &mut self.list[index]).filter(|b| b.next > now + UDP_SILENT_ASK)
        {
            binding.next = now;
            binding.keepalive = true;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.on {
            return None;
        }
        let health = match self.health {
            Health::Quiet => None,
            Health::Silent(_) => self.ask_at(),
            Health::Awaiting(since) => Some(since + UDP_QUIET),
            Health::Probing(since) => Some(since + UDP_QUIET_INFO),
            Health::ProbingTcp(since) => Some(since + UDP_SILENT),
        };
        let confirm = match self.chosen {
            Some(Chosen { confirm: Confirm::Sent { next, .. }, .. }) => Some(next),
            _ => None,
        };
        earlier(earlier(health, confirm), self.list.iter().map(|b| b.next).min())
    }

    pub(super) fn status(&self) -> Vec<BindingStatus> {
        self.list
            .iter()
            .enumerate()
            .map(|(i, b)| BindingStatus {
                address: b.address,
                reflexive: b.reflexive,
                confirmed: matches!(self.chosen, Some(Chosen { index, confirm: Confirm::Done }) if index == i),
                full_size: b.full_size,
                answered: b.answered,
                rtt: b.rtt.smoothed(),
            })
            .collect()
    }
}

fn hop(source: Option<IpAddr>, to: SocketAddr) -> Hop {
    Hop { source: source.filter(|source| source.is_ipv4() == to.is_ipv4()), ..Hop::anywhere(to) }
}
