//! Where one device is on UDP, and what of that workers share with the machine.
//!
//! A [`Session`] belongs to a registered device. The machine changes it; a NAT-INIT that changes nothing is answered by whoever
//! gets it, a worker or the machine, through [`Location::renew`], so that neither can differ from the other. Nobody waits for it for longer than
//! that takes: no lock is held across anything else. The same holds for an INFO that changes nothing ([`Location::live_on`]): whoever reads the
//! connection answers it.
//!
//! Not here: signatures, who holds which address, what others are told.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    SocketId, UdpAddress, Via,
    config::{BINDING_LIFE, PADDED_SEQS, SMALL_DATA, TCP_SPEAKS, UDP_FRESH, UNVERIFIED_SEQS},
    registry::Numbered,
    routes::Budget,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::{ANY_PATH_DATA, Cookie, INTRODUCTION_KEY_LEN, MAX_BASE_ADDRESSES, tcp::Info, udp::NatInit},
};

/// A device under its cookie, for whoever gets its NAT-INITs.
#[derive(Debug)]
pub(super) struct Session {
    device: DeviceId,
    /// What it may still have relayed; whoever forwards counts it there.
    budget: Budget,
    location: Mutex<Location>,
}

impl Session {
    pub(super) fn new(
        device: DeviceId,
        cookie: Cookie,
        udp: Arc<[UdpAddress]>,
        info_by: Instant,
        budget: Budget,
    ) -> Arc<Self> {
        let location = Mutex::new(Location::new(cookie, udp, info_by));
        Arc::new(Self { device, budget, location })
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn device(&self) -> DeviceId {
        self.device
    }

    /// Where it is. To be given back before anything else is asked.
    pub(super) fn location(&self) -> MutexGuard<'_, Location> {
        self.location.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a device is on UDP, and what its NAT-INITs are compared with.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) cookie: Cookie,
    /// The base's UDP addresses as REGISTERED told them; the index of one is what NAT-INITs are signed for.
    pub(super) udp: Arc<[UdpAddress]>,
    pub(super) own: Numbered<Vec<SocketAddr>>,
    pub(super) master_key: Numbered<Option<[u8; INTRODUCTION_KEY_LEN]>>,
    /// The device is dropped then, unless an INFO comes.
    pub(super) info_by: Instant,
    /// Frames that are no messages to relay.
    pub(super) frames: Bucket,
    /// NAT-CONFIRMs that the machine hears of.
    pub(super) confirms: Bucket,
    pub(super) bindings: Vec<Binding>,
    pub(super) confirmed: Option<Confirmed>,
    /// The IPs that NAT-CONFIRMs came from last, in this session and those before it: IPv4 and IPv6.
    received: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Per index of the base's UDP addresses: the last verified seq. It outlives the binding, or an old NAT-INIT
    /// could be replayed once that is gone.
    pub(super) last: [u64; MAX_BASE_ADDRESSES],
    /// Per index: the highest seq answered, verified or not. What is not above it may be a copy of what the host has
    /// sent, and moves nothing. It is never more than [`UNVERIFIED_SEQS`] above the number of `own`.
    pub(super) seen: [u64; MAX_BASE_ADDRESSES],
    /// The last seq that was confirmed.
    pub(super) last_confirmed: u64,
    /// The seq of the first NAT-INIT of the last move: what was answered before it belongs to another network.
    pub(super) moved: u64,
    pub(super) verify_rate: Bucket,
    pub(super) map_check_rate: Bucket,
    /// Until when UDP vouches for the device: outlives a move, which is unconfirmed for a round trip.
    pub(super) vouched_until: Option<Instant>,
    /// What comes from the session before this one ends then, or with the first NAT-CONFIRM.
    pub(super) inherited_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Binding {
    pub(super) socket: SocketId,
    pub(super) address: SocketAddr,
    /// The last NAT-INIT.
    pub(super) heard: Instant,
    /// The highest seq answered here: no NAT-CONFIRM can go beyond it.
    pub(super) answered: u64,
    /// The last seqs that were answered with padding.
    pub(super) padded: [u64; PADDED_SEQS],
    /// It stems from the session before this one.
    pub(super) inherited: bool,
    /// A NAT-CONFIRM of this session came from there: what goes there goes to this device.
    pub(super) proven: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmed {
    pub(super) via: Via,
    pub(super) to: SocketAddr,
    /// The base sends there until then.
    pub(super) until: Instant,
    /// Whether 1,215 bytes are known to pass downwards.
    pub(super) full_size: bool,
    pub(super) inherited: bool,
}

/// What a NAT-INIT that changed nothing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renewed {
    /// Its UDP address of the base.
    pub(super) index: usize,
    /// Whether relayed messages come to its source.
    pub(super) confirmed: bool,
    /// Until when they do, if it is the address that they go to.
    pub(super) until: Option<Instant>,
}

impl Location {
    fn new(cookie: Cookie, udp: Arc<[UdpAddress]>, info_by: Instant) -> Self {
        Self {
            cookie,
            udp,
            own: Numbered::default(),
            master_key: Numbered::default(),
            info_by,
            frames: Bucket::default(),
            confirms: Bucket::default(),
            bindings: Vec::new(),
            confirmed: None,
            received: (None, None),
            last: [0; MAX_BASE_ADDRESSES],
            seen: [0; MAX_BASE_ADDRESSES],
            last_confirmed: 0,
            moved: 0,
            verify_rate: Bucket::default(),
            map_check_rate: Bucket::default(),
            vouched_until: None,
            inherited_until: None,
        }
    }

    /// A NAT-INIT with nothing new in it (source and own addresses are what is known, and its seq is not far from what the host is
    /// known to have reached) lets a binding live on, and no more. Any other is the machine's: `None`, and nothing has happened.
    pub(super) fn renew(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        init: &NatInit,
        padded: bool,
        now: Instant,
    ) -> Option<Renewed> {
        if init.cookie != self.cookie {
            // It was replaced meanwhile.
            return None;
        }
        let index = self.index_of(socket)?;
        let seq = init.seq;
        // The host has come so far for certain: it has signed that number, or sent it over its connection. What is long before
        // that is a copy.
        let reached = self.own.number();
        let same_list = self.own.value == init.own;
        // One that a move elsewhere has made old is news: others are told of it again.
        let known = self.is_current(socket)
            && self.binding(socket).is_some_and(|b| b.address == from && !b.inherited);
        let near =
            seq <= reached.saturating_add(UNVERIFIED_SEQS) && seq > reached.saturating_sub(UNVERIFIED_SEQS);
        if seq <= self.last[index] || !(known && same_list && near) {
            return None;
        }
        self.refresh(socket, from, now);
        let confirmed = self.answer(index, socket, from, seq, padded);
        let until = self.confirmed.filter(|c| c.is(socket, from)).map(|c| c.until);
        Some(Renewed { index, confirmed, until })
    }

    /// An INFO with nothing new in it lets the device live on, and no more. Any other is the machine's: `false`, and nothing has happened.
    pub(super) fn live_on(&mut self, info: &Info, info_by: Instant) -> bool {
        let same = self.master_key.value == Some(info.master_key) && self.own.value == info.own;
        if same {
            self.info_by = self.info_by.max(info_by);
            self.master_key.reach(info.number);
            self.own.reach(info.number);
        }
        same
    }

    /// A NAT-INIT from there is answered. Tells whether relayed messages come there.
    pub(super) fn answer(
        &mut self,
        index: usize,
        socket: SocketId,
        from: SocketAddr,
        seq: u64,
        padded: bool,
    ) -> bool {
        self.seen[index] = self.seen[index].max(seq);
        if let Some(binding) = self.binding(socket) {
            binding.answer(seq, padded);
        }
        self.confirmed.is_some_and(|c| !c.inherited && c.is(socket, from))
    }

    /// Which of the base's UDP addresses, as told to this host, is behind a socket.
    pub(super) fn index_of(&self, socket: SocketId) -> Option<usize> {
        self.udp.iter().position(|a| a.socket == socket)
    }

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

    /// Whether what is bound there belongs to the network that the device is in, as far as is known.
    pub(super) fn is_current(&self, socket: SocketId) -> bool {
        self.current().any(|b| b.socket == socket)
    }

    fn current(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(|b| b.answered >= self.moved)
    }

    /// The device's addresses as this base sees them, the confirmed one first.
    pub(super) fn reflexive(&self) -> Vec<SocketAddr> {
        let mut list: Vec<SocketAddr> = Vec::with_capacity(MAX_BASE_ADDRESSES);
        let current = || self.current().map(|b| b.address);
        let confirmed =
            self.confirmed.iter().map(|c| c.to).filter(|to| current().any(|address| address == *to));
        for address in confirmed.chain(current()) {
            if list.len() < MAX_BASE_ADDRESSES && !list.contains(&address) {
                list.push(address);
            }
        }
        list
    }

    /// A NAT-CONFIRM came from there. Tells whether that is news.
    pub(super) fn receive_at(&mut self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.received.0.replace(ip) != Some(ip),
            IpAddr::V6(ip) => self.received.1.replace(ip) != Some(ip),
        }
    }

    /// Whether the device was shown to receive at this IP.
    pub(super) fn receives_at(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.received.0 == Some(ip),
            IpAddr::V6(ip) => self.received.1 == Some(ip),
        }
    }

    /// The device sent over TCP what it would send over UDP if that worked: what it cannot hear is not sent there
    /// until a NAT-CONFIRM says otherwise. A sign of life over UDP within the last second weighs more: messages of
    /// the two transports overtake each other.
    ///
    /// Tells whether it was.
    pub(super) fn doubt(&mut self, now: Instant) -> bool {
        let silent = |c: &mut Confirmed| c.is_silent(now);
        self.confirmed.take_if(silent).is_some()
    }

    /// Whether [`Location::doubt`] would do something.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.confirmed.is_some_and(|c| c.is_silent(now))
    }

    /// What is bound, as the table of addresses names it.
    pub(super) fn addresses(&self) -> Vec<(SocketId, SocketAddr)> {
        self.bindings.iter().map(|b| (b.socket, b.address)).collect()
    }

    /// A new cookie: numbers start anew, the addresses stay for a while.
    pub(super) fn inherit(&mut self, cookie: Cookie, udp: Arc<[UdpAddress]>, until: Instant) {
        self.cookie = cookie;
        self.udp = udp;
        self.own.inherit();
        self.master_key.inherit();
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

    pub(super) fn binding(&mut self, socket: SocketId) -> Option<&mut Binding> {
        self.bindings.iter_mut().find(|b| b.socket == socket)
    }

    /// A NAT-INIT from a bound address: it lives on.
    pub(super) fn refresh(&mut self, socket: SocketId, address: SocketAddr, now: Instant) {
        if let Some(binding) = self.binding(socket) {
            binding.heard = binding.heard.max(now);
        }
        if let Some(confirmed) = self.confirmed.as_mut().filter(|c| c.is(socket, address)) {
            confirmed.until = confirmed.until.max(now + UDP_FRESH);
            self.vouched_until = Some(confirmed.until);
        }
    }

    /// Takes bindings out, with the confirmation where it was one of them.
    pub(super) fn take_out(&mut self, which: impl Fn(&Binding) -> bool) -> Vec<(SocketId, SocketAddr)> {
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
    fn is_silent(&self, now: Instant) -> bool {
        self.until <= now + (UDP_FRESH - TCP_SPEAKS)
    }

    pub(super) fn is(&self, socket: SocketId, address: SocketAddr) -> bool {
        self.via.socket == socket && self.to == address
    }
}
