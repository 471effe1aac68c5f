//! NAT-INIT, NAT-OK, NAT-CONFIRM: where a device is on UDP, and who may say so (`docs/protocol.md`, section 5).
//!
//! One host, which roams between two addresses and may register again, one base, and an attacker with an address and a
//! registered device of his own. The network delivers what the host sent whenever it likes, as often as it likes, or
//! never. The attacker sends from any source. What else he can do is [`Attacker`].
//!
//! What must always hold:
//!
//! 1. A NAT-INIT that is not newer than all that were answered there never moves a binding (section 12).
//! 2. Relayed data goes only to an address at which somebody got a challenge that was sent there (section 5).
//! 3. What is confirmed is the present binding of the device that holds the address; an old address is dead at once.
//! 4. An address at which one device lives goes to another only by NAT-CONFIRM.
//! 5. A cookie that was replaced places nobody.
//! 6. A datagram draws one answer at most, and it goes where the datagram came from.
//! 7. Whatever came before: the host, undisturbed, gets itself confirmed where it is, within as many NAT-INITs as go
//!    unverified.
//! 8. Who is not on the path never has the host bound to an address of his own.
//!
//! Not here: SEND-DATA, which only keeps a binding alive; sizes; the budget of verifications; UDP addresses beyond two.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

/// NAT-INITs beyond the highest verified one that may go unverified: 16 in the protocol (`base::UNVERIFIED_SEQS`).
pub const WINDOW: u8 = 2;
/// Ticks for which the base sends to a confirmed address. A tick is `base::UDP_FRESH`.
const FRESH: u8 = 1;
/// Ticks that a silent binding lives.
const LIFE: u8 = 2;
/// Ticks that inherited bindings live without a NAT-CONFIRM.
const INHERITED: u8 = 1;
/// UDP addresses of the base in the largest scenario.
pub const INDICES: usize = 2;

/// Where datagrams come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// Where the host is at first.
    First,
    /// Where it goes.
    Second,
    /// The attacker's.
    Foreign,
}

/// All addresses.
pub const ADDRESSES: [Address; 3] = [Address::First, Address::Second, Address::Foreign];

/// Who holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// The honest host.
    Host,
    /// The attacker's own device, registered like any other.
    Other,
}

/// What the attacker can do besides sending from any source address. Each can do what the one before can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attacker {
    /// There is none.
    Nobody,
    /// He sends again, from anywhere to anywhere, what he saw arrive.
    Replayer,
    /// He also makes NAT-INITs with the host's cookie and list, without its signature.
    Forger,
    /// He is on the path: he also holds back what the host sends and sends it as his own.
    OnPath,
}

/// A rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weakening {
    /// A seq need not be above the last verified one.
    SkipSeqCheck,
    /// A seq that was answered unverified may come back and be verified.
    CopiesOfUnverifiedMove,
    /// The last seq is forgotten with the binding.
    LastDiesWithBinding,
    /// Any seq above the last goes unverified.
    UnboundedWindow,
    /// The signature is not looked at.
    SkipSignature,
    /// The index of the UDP address is not signed.
    IndexNotSigned,
    /// A challenge is the same for all sources.
    ChallengeNotBoundToSource,
    /// A challenge is the same for all UDP addresses of the base.
    ChallengeNotBoundToIndex,
    /// What was confirmed stays so when the binding moves.
    OldAddressStays,
    /// A NAT-INIT alone takes an address from a device that lives there.
    InitTakesAddress,
    /// The cookie of a replaced session still counts.
    CookieSurvives,
}

impl Weakening {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::SkipSeqCheck,
        Self::CopiesOfUnverifiedMove,
        Self::LastDiesWithBinding,
        Self::UnboundedWindow,
        Self::SkipSignature,
        Self::IndexNotSigned,
        Self::ChallengeNotBoundToSource,
        Self::ChallengeNotBoundToIndex,
        Self::OldAddressStays,
        Self::InitTakesAddress,
        Self::CookieSurvives,
    ];

    /// The property that does not hold without the rule.
    #[must_use]
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::SkipSeqCheck | Self::CopiesOfUnverifiedMove | Self::LastDiesWithBinding => {
                OLD_MOVES_NOTHING
            }
            Self::UnboundedWindow => RECOVERS,
            Self::SkipSignature | Self::IndexNotSigned => NOT_TO_THE_ATTACKER,
            Self::ChallengeNotBoundToSource | Self::ChallengeNotBoundToIndex => CHALLENGED,
            Self::OldAddressStays => CONFIRMED_IS_BOUND,
            Self::InitTakesAddress => TAKEN_BY_CONFIRM,
            Self::CookieSurvives => DEAD_COOKIE,
        }
    }

    /// A small scenario that shows it.
    #[must_use]
    pub fn shown(self) -> Scenario {
        let quiet = Scenario { inits: 2, without: Some(self), ..Scenario::quiet() };
        let with = |attacker| Scenario { attacker, ..quiet.clone() };
        match self {
            Self::SkipSeqCheck | Self::CopiesOfUnverifiedMove | Self::LastDiesWithBinding => {
                with(Attacker::Replayer)
            }
            Self::UnboundedWindow | Self::SkipSignature => with(Attacker::Forger),
            Self::IndexNotSigned => Scenario { indices: 2, ..with(Attacker::Replayer) },
            Self::ChallengeNotBoundToSource => with(Attacker::OnPath),
            Self::ChallengeNotBoundToIndex => Scenario { indices: 2, moves: 0, ..with(Attacker::OnPath) },
            Self::OldAddressStays => quiet,
            Self::InitTakesAddress => Scenario { other_inits: 1, ..quiet },
            Self::CookieSurvives => Scenario { sessions: 1, ..quiet },
        }
    }
}

/// What is explored.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What the attacker can do.
    pub attacker: Attacker,
    /// UDP addresses of the base.
    pub indices: u8,
    /// NAT-INITs of the host, a session.
    pub inits: u8,
    /// How often the host moves from the first address to the second, and back.
    pub moves: u8,
    /// How often it registers again.
    pub sessions: u8,
    /// NAT-INITs of the attacker's device.
    pub other_inits: u8,
    /// Whether the attacker hears what is sent to the host's first address once the host has left it.
    pub hears_first: bool,
    /// How often time passes.
    pub ticks: u8,
    /// The rule that is left out.
    pub without: Option<Weakening>,
}

impl Scenario {
    /// Nothing may happen but what is then allowed.
    #[must_use]
    pub const fn quiet() -> Self {
        Self {
            attacker: Attacker::Nobody,
            indices: 1,
            inits: 3,
            moves: 1,
            sessions: 0,
            other_inits: 0,
            hears_first: false,
            ticks: 2,
            without: None,
        }
    }

    /// What is searched to the end, by name.
    #[must_use]
    pub fn all() -> Vec<(&'static str, Self)> {
        let quiet = Self::quiet();
        let with = |attacker| Self { attacker, ..quiet.clone() };
        vec![
            ("nobody", Self { moves: 2, ..quiet.clone() }),
            ("replayer", Self { moves: 2, ..with(Attacker::Replayer) }),
            ("replayer, registered again", Self { inits: 2, sessions: 1, ..with(Attacker::Replayer) }),
            (
                "replayer, two UDP addresses",
                Self { indices: 2, moves: 0, ticks: 1, ..with(Attacker::Replayer) },
            ),
            ("forger", with(Attacker::Forger)),
            ("on the path", Self { ticks: 1, ..with(Attacker::OnPath) }),
            (
                "another device",
                Self { inits: 2, other_inits: 2, hears_first: true, ..with(Attacker::Replayer) },
            ),
        ]
    }

    fn lacks(&self, rule: Weakening) -> bool {
        self.without == Some(rule)
    }
}

/// A device's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie {
    /// Whose.
    pub device: Device,
    /// Which.
    pub session: u8,
}

/// NAT-INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Init {
    /// The session.
    pub cookie: Cookie,
    /// The UDP address of the base that it is signed for.
    pub index: u8,
    /// Its number.
    pub seq: u8,
    /// Names a list of own addresses.
    pub list: u8,
    /// Whether the device signed it.
    pub signed: bool,
}

/// The keyed hash that only the receiver of a NAT-OK knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Challenge {
    /// The session.
    pub cookie: Cookie,
    /// The UDP address of the base.
    pub index: u8,
    /// The source it was made for.
    pub to: Address,
}

/// NAT-CONFIRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Confirm {
    /// The session.
    pub cookie: Cookie,
    /// The number of the NAT-OK it answers.
    pub seq: u8,
    /// What that NAT-OK brought.
    pub challenge: Challenge,
}

/// What goes to the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// The first step.
    Init(Init),
    /// The third step.
    Confirm(Confirm),
}

/// A datagram to the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datagram {
    /// Where it says it is from.
    pub from: Address,
    /// The UDP address of the base that it goes to.
    pub index: u8,
    /// What it says.
    pub message: Message,
}

/// NAT-OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NatOk {
    /// Where it goes.
    pub to: Address,
    /// The UDP address of the base that it comes from.
    pub index: u8,
    /// The session.
    pub cookie: Cookie,
    /// The number of what it answers.
    pub seq: u8,
    /// For the third step.
    pub challenge: Challenge,
    /// Whether that address is confirmed.
    pub confirmed: bool,
}

/// A device's address as one UDP address of the base sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The address.
    pub at: Address,
    ticks: u8,
    answered: u8,
    inherited: bool,
}

/// Where relayed data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Confirmed {
    /// By this UDP address of the base.
    pub index: u8,
    /// To there.
    pub at: Address,
    ticks: u8,
    inherited: bool,
}

/// What the base holds of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    cookie: Cookie,
    last: [u8; INDICES],
    seen: [u8; INDICES],
    last_confirmed: u8,
    list: (u8, u8),
    /// A binding per UDP address of the base.
    pub bindings: [Option<Binding>; INDICES],
    confirmed: Option<Confirmed>,
    inherited: u8,
}

impl Location {
    fn new(device: Device) -> Self {
        Self {
            cookie: Cookie { device, session: 0 },
            last: [0; INDICES],
            seen: [0; INDICES],
            last_confirmed: 0,
            list: (0, 0),
            bindings: [None; INDICES],
            confirmed: None,
            inherited: 0,
        }
    }

    /// Where relayed data goes over UDP now.
    #[must_use]
    pub fn leg(&self) -> Option<Confirmed> {
        self.confirmed.filter(|c| c.ticks > 0)
    }

    fn take_out(&mut self, which: impl Fn(u8, &Binding) -> bool, keep_confirmed: bool) -> Vec<(u8, Address)> {
        let mut gone = Vec::new();
        for (index, slot) in (0..).zip(&mut self.bindings) {
            if let Some(binding) = slot.take_if(|b| which(index, b)) {
                gone.push((index, binding.at));
            }
        }
        if !keep_confirmed {
            self.confirmed.take_if(|c| gone.contains(&(c.index, c.at)));
        }
        gone
    }

    fn refresh(&mut self, index: u8, at: Address) {
        if let Some(binding) = &mut self.bindings[usize::from(index)] {
            binding.ticks = LIFE;
        }
        if let Some(confirmed) = self.confirmed.as_mut().filter(|c| (c.index, c.at) == (index, at)) {
            confirmed.ticks = FRESH;
        }
    }
}

/// The base.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Base {
    host: Location,
    other: Location,
    /// Whom a source address stands for, by UDP address of the base.
    holders: [[Option<Device>; ADDRESSES.len()]; INDICES],
}

impl Base {
    /// What it holds of a device.
    #[must_use]
    pub fn location(&self, device: Device) -> &Location {
        match device {
            Device::Host => &self.host,
            Device::Other => &self.other,
        }
    }

    fn location_mut(&mut self, device: Device) -> &mut Location {
        match device {
            Device::Host => &mut self.host,
            Device::Other => &mut self.other,
        }
    }

    /// Whom data from an address is taken for.
    #[must_use]
    pub fn holder(&self, index: u8, at: Address) -> Option<Device> {
        self.holders[usize::from(index)][at as usize]
    }

    fn holder_mut(&mut self, index: u8, at: Address) -> &mut Option<Device> {
        &mut self.holders[usize::from(index)][at as usize]
    }

    fn let_go(&mut self, device: Device, (index, at): (u8, Address)) {
        self.holder_mut(index, at).take_if(|holder| *holder == device);
    }

    fn seize(&mut self, device: Device, (index, at): (u8, Address)) {
        let before = self.holder_mut(index, at).replace(device);
        if let Some(loser) = before.filter(|&loser| loser != device) {
            self.location_mut(loser).take_out(|i, b| (i, b.at) == (index, at), false);
        }
    }

    /// A datagram came in: what the base answers.
    fn handle(&mut self, scenario: &Scenario, datagram: Datagram) -> Option<NatOk> {
        match datagram.message {
            Message::Init(init) => self.handle_init(scenario, datagram.from, datagram.index, init),
            Message::Confirm(confirm) => {
                self.handle_confirm(scenario, datagram.from, datagram.index, confirm)
            }
        }
    }

    fn knows(&self, scenario: &Scenario, cookie: Cookie) -> bool {
        self.location(cookie.device).cookie == cookie || scenario.lacks(Weakening::CookieSurvives)
    }

    fn handle_init(&mut self, scenario: &Scenario, from: Address, index: u8, init: Init) -> Option<NatOk> {
        if !self.knows(scenario, init.cookie) {
            return None;
        }
        let device = init.cookie.device;
        let at = usize::from(index);
        let location = self.location_mut(device);
        let last = location.last[at];
        if init.seq <= last && !scenario.lacks(Weakening::SkipSeqCheck) {
            return None;
        }
        let known = location.bindings[at].is_some_and(|b| b.at == from && !b.inherited);
        // What the host has signed for any of the addresses shows how far it has come. (So does an INFO, of which the model has none.)
        let reached = location.list.0;
        let near = init.seq.saturating_sub(reached) <= WINDOW || scenario.lacks(Weakening::UnboundedWindow);
        if known && location.list.1 == init.list && near {
            location.refresh(index, from);
        } else {
            let copies =
                [Weakening::SkipSeqCheck, Weakening::CopiesOfUnverifiedMove].map(|rule| scenario.lacks(rule));
            if init.seq <= location.seen[at] && copies == [false; 2] {
                return None;
            }
            let signed_for = init.index == index || scenario.lacks(Weakening::IndexNotSigned);
            if !((init.signed && signed_for) || scenario.lacks(Weakening::SkipSignature)) {
                return None;
            }
            location.last[at] = init.seq;
            self.bind(scenario, from, index, init);
        }
        Some(self.answer(scenario, from, index, init.cookie, init.seq))
    }

    fn bind(&mut self, scenario: &Scenario, from: Address, index: u8, init: Init) {
        let device = init.cookie.device;
        let location = self.location_mut(device);
        if init.seq > location.list.0 {
            location.list = (init.seq, init.list);
        }
        let moved =
            location.take_out(|i, b| i == index && b.at != from, scenario.lacks(Weakening::OldAddressStays));
        let answered = location.bindings[usize::from(index)].map_or(0, |b| b.answered).max(init.seq);
        location.bindings[usize::from(index)] =
            Some(Binding { at: from, ticks: LIFE, answered, inherited: false });
        location.refresh(index, from);
        for gone in moved {
            self.let_go(device, gone);
        }
        let lived_at_by_another = self
            .holder(index, from)
            .is_some_and(|holder| holder != device && self.lives(holder, index, from));
        if !lived_at_by_another || scenario.lacks(Weakening::InitTakesAddress) {
            self.seize(device, (index, from));
        }
    }

    fn lives(&self, device: Device, index: u8, at: Address) -> bool {
        self.location(device).bindings[usize::from(index)].is_some_and(|b| b.at == at)
    }

    fn answer(&mut self, scenario: &Scenario, to: Address, index: u8, cookie: Cookie, seq: u8) -> NatOk {
        let location = self.location_mut(cookie.device);
        let at = usize::from(index);
        location.seen[at] = location.seen[at].max(seq);
        if let Some(binding) = &mut location.bindings[at] {
            binding.answered = binding.answered.max(seq);
        }
        let confirmed = location.confirmed.is_some_and(|c| !c.inherited && (c.index, c.at) == (index, to));
        // What the base answers with is its own record of the cookie.
        let cookie = location.cookie;
        NatOk { to, index, cookie, seq, challenge: challenge(scenario, cookie, index, to), confirmed }
    }

    fn handle_confirm(
        &mut self,
        scenario: &Scenario,
        from: Address,
        index: u8,
        confirm: Confirm,
    ) -> Option<NatOk> {
        let Confirm { cookie, seq, challenge: given } = confirm;
        if !self.knows(scenario, cookie) || given != challenge(scenario, cookie, index, from) {
            return None;
        }
        let device = cookie.device;
        let location = self.location_mut(device);
        let last_confirmed = location.last_confirmed;
        let binding =
            location.bindings[usize::from(index)].as_mut().filter(|b| b.at == from && !b.inherited)?;
        if seq < last_confirmed || seq > binding.answered {
            return None;
        }
        binding.ticks = LIFE;
        location.last_confirmed = seq;
        location.confirmed = Some(Confirmed { index, at: from, ticks: FRESH, inherited: false });
        let inherited = std::mem::take(&mut location.inherited) > 0;
        let gone = location.take_out(|_, b| inherited && b.inherited, false);
        for address in gone {
            self.let_go(device, address);
        }
        self.seize(device, (index, from));
        let challenge = challenge(scenario, cookie, index, from);
        Some(NatOk { to: from, index, cookie, seq, challenge, confirmed: true })
    }

    /// The host registered again, by TCP: new numbers, the same addresses for a while.
    fn inherit(&mut self) {
        let location = &mut self.host;
        location.cookie.session += 1;
        (location.last, location.seen) = ([0; INDICES], [0; INDICES]);
        location.last_confirmed = 0;
        location.list.0 = 0;
        for binding in location.bindings.iter_mut().flatten() {
            (binding.inherited, binding.answered) = (true, 0);
        }
        if let Some(confirmed) = &mut location.confirmed {
            confirmed.inherited = true;
        }
        location.inherited = INHERITED;
    }

    fn tick(&mut self, scenario: &Scenario) {
        for device in [Device::Host, Device::Other] {
            let location = self.location_mut(device);
            for binding in location.bindings.iter_mut().flatten() {
                binding.ticks -= 1;
            }
            if let Some(confirmed) = &mut location.confirmed {
                confirmed.ticks = confirmed.ticks.saturating_sub(1);
            }
            let inherited_over = location.inherited == 1;
            location.inherited = location.inherited.saturating_sub(1);
            let gone = location.take_out(|_, b| b.ticks == 0 || (inherited_over && b.inherited), false);
            if inherited_over {
                location.confirmed.take_if(|c| c.inherited);
            }
            if scenario.lacks(Weakening::LastDiesWithBinding) {
                for &(index, _) in &gone {
                    (location.last[usize::from(index)], location.seen[usize::from(index)]) = (0, 0);
                }
            }
            for address in gone {
                self.let_go(device, address);
            }
        }
    }
}

fn challenge(scenario: &Scenario, cookie: Cookie, index: u8, to: Address) -> Challenge {
    let to = if scenario.lacks(Weakening::ChallengeNotBoundToSource) { Address::First } else { to };
    let index = if scenario.lacks(Weakening::ChallengeNotBoundToIndex) { 0 } else { index };
    Challenge { cookie, index, to }
}

/// The honest host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Host {
    at: Address,
    session: u8,
    seq: u8,
    moves: u8,
}

impl Host {
    fn cookie(&self) -> Cookie {
        Cookie { device: Device::Host, session: self.session }
    }

    /// Own addresses differ with the network.
    fn list(&self) -> u8 {
        1 + self.at as u8
    }

    fn init(&mut self, index: u8) -> Datagram {
        self.seq += 1;
        let init = Init { cookie: self.cookie(), index, seq: self.seq, list: self.list(), signed: true };
        Datagram { from: self.at, index, message: Message::Init(init) }
    }

    /// The host confirms what answers a NAT-INIT of its present session, from where it is.
    fn confirm(&self, ok: &NatOk) -> Option<Datagram> {
        if ok.to != self.at || ok.cookie != self.cookie() || ok.seq > self.seq {
            return None;
        }
        let confirm = Confirm { cookie: ok.cookie, seq: ok.seq, challenge: ok.challenge };
        Some(Datagram { from: self.at, index: ok.index, message: Message::Confirm(confirm) })
    }
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The base.
    pub base: Base,
    host: Host,
    other_seq: u8,
    ticks: u8,
    /// What the host sent, and whether it arrived.
    sent: BTreeMap<Datagram, bool>,
    /// NAT-OKs that are on their way to the host.
    oks: BTreeSet<NatOk>,
    /// NAT-OKs that the attacker heard.
    heard_by_attacker: BTreeSet<NatOk>,
    seen: Seen,
}

/// What the properties need to know of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Seen {
    /// Where somebody got a NAT-OK: session, UDP address of the base, and source.
    challenged: BTreeSet<(Cookie, u8, Address)>,
    /// The highest seq of the host's own NAT-INITs that was answered, by UDP address, in this session.
    answered: [u8; INDICES],
    old_moved: bool,
    taken_without_confirm: bool,
    dead_cookie_counted: bool,
    astray: bool,
    unverified: bool,
    forged_kept: bool,
    lapsed_taken: bool,
    taken_by_confirm: bool,
    inherited_leg: bool,
}

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The host sends a NAT-INIT.
    HostSends(u8),
    /// What it sent arrives (perhaps again).
    Arrives(Datagram),
    /// A NAT-OK reaches the host, which confirms.
    HostHears(NatOk),
    /// The host moves.
    HostMoves,
    /// The host registers again.
    HostRegisters,
    /// The attacker sends the host's own NAT-INIT from elsewhere.
    Replay(Datagram),
    /// The attacker makes a NAT-INIT without the host's key.
    Forge(Datagram),
    /// The attacker sends a NAT-CONFIRM for a NAT-OK that he heard.
    AttackerConfirms(Datagram),
    /// The attacker's device sends a NAT-INIT of its own, from any source.
    OtherSends(Datagram),
    /// Time passes.
    Tick,
}

impl Action {
    /// The datagram that reaches the base.
    #[must_use]
    pub fn datagram(&self) -> Option<Datagram> {
        match *self {
            Self::Arrives(d)
            | Self::Replay(d)
            | Self::Forge(d)
            | Self::AttackerConfirms(d)
            | Self::OtherSends(d) => Some(d),
            Self::HostSends(_) | Self::HostHears(_) | Self::HostMoves | Self::HostRegisters | Self::Tick => {
                None
            }
        }
    }
}

impl Scenario {
    /// What happens, and what the base answers.
    #[must_use]
    pub fn step(&self, state: &State, action: Action) -> (State, Option<NatOk>) {
        let mut next = state.clone();
        let mut answer = None;
        match action {
            Action::HostSends(index) => {
                let datagram = next.host.init(index);
                next.sent.insert(datagram, false);
            }
            Action::HostHears(ok) => {
                next.oks.remove(&ok);
                next.seen.challenged.insert((ok.cookie, ok.index, ok.to));
                if let Some(datagram) = next.host.confirm(&ok) {
                    next.sent.entry(datagram).or_insert(false);
                }
            }
            Action::HostMoves => {
                next.host.moves += 1;
                next.host.at = if next.host.at == Address::First { Address::Second } else { Address::First };
            }
            Action::HostRegisters => {
                next.host.session += 1;
                next.host.seq = 0;
                next.seen.answered = [0; INDICES];
                next.base.inherit();
                next.seen.inherited_leg |= next.base.host.leg().is_some();
            }
            Action::Tick => {
                next.ticks += 1;
                next.base.tick(self);
            }
            Action::OtherSends(datagram) => {
                next.other_seq += 1;
                answer = self.arrive(&mut next, datagram);
            }
            Action::Arrives(datagram) => {
                next.sent.insert(datagram, true);
                answer = self.arrive(&mut next, datagram);
            }
            Action::Replay(datagram) | Action::Forge(datagram) | Action::AttackerConfirms(datagram) => {
                answer = self.arrive(&mut next, datagram);
            }
        }
        (next, answer)
    }

    fn arrive(&self, next: &mut State, datagram: Datagram) -> Option<NatOk> {
        let before = next.base.clone();
        let answer = next.base.handle(self, datagram);
        next.seen.note(&before, &next.base, datagram, answer);
        if let Some(ok) = answer {
            // Whoever is there hears it: at the foreign address at once, at the host's when it is delivered.
            let attacker_hears = ok.to == Address::Foreign
                || (self.hears_first && ok.to == Address::First && next.host.at != Address::First);
            if attacker_hears && self.attacker != Attacker::Nobody {
                next.seen.challenged.insert((ok.cookie, ok.index, ok.to));
                next.heard_by_attacker.insert(NatOk { confirmed: false, ..ok });
            } else if next.host.confirm(&ok).is_some() && !ok.confirmed {
                next.oks.insert(ok);
            }
        }
        answer
    }

    /// The host alone with the base: does it get itself confirmed where it is?
    fn recovers(&self, state: &State) -> bool {
        let (mut base, mut host) = (state.base.clone(), state.host.clone());
        (0..=WINDOW).any(|_| {
            let init = host.init(0);
            let ok = base.handle(self, init);
            let confirm = ok.and_then(|ok| host.confirm(&ok));
            confirm.and_then(|confirm| base.handle(self, confirm)).is_some_and(|ok| {
                ok.confirmed && base.host.leg().is_some_and(|leg| (leg.index, leg.at) == (0, host.at))
            })
        })
    }

    fn replays(&self, state: &State, actions: &mut Vec<Action>) {
        for (datagram, &arrived) in &state.sent {
            let usable = match self.attacker {
                Attacker::Nobody => false,
                Attacker::Replayer | Attacker::Forger => arrived,
                Attacker::OnPath => true,
            };
            if !usable {
                continue;
            }
            for from in ADDRESSES {
                for index in 0..self.indices {
                    let copy = Datagram { from, index, ..*datagram };
                    if copy != *datagram {
                        actions.push(Action::Replay(copy));
                    }
                }
            }
        }
    }

    fn forgeries(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(captured) = state.sent.keys().find_map(|d| match d.message {
            Message::Init(init) if init.cookie == state.base.host.cookie => Some(init),
            _ => None,
        }) else {
            return;
        };
        for from in ADDRESSES {
            for index in 0..self.indices {
                let last = state.base.host.last[usize::from(index)];
                let reached = state.base.host.list.0;
                let far = reached + if self.lacks(Weakening::UnboundedWindow) { 3 * WINDOW } else { WINDOW };
                for seq in [last + 1, far] {
                    let list = state.base.host.list.1;
                    let forged = Init { seq, index, list, signed: false, ..captured };
                    actions.push(Action::Forge(Datagram { from, index, message: Message::Init(forged) }));
                }
            }
        }
    }

    fn attacker_confirms(&self, state: &State, actions: &mut Vec<Action>) {
        for ok in &state.heard_by_attacker {
            let confirm = Confirm { cookie: ok.cookie, seq: ok.seq, challenge: ok.challenge };
            for from in ADDRESSES {
                for index in 0..self.indices {
                    let message = Message::Confirm(confirm);
                    actions.push(Action::AttackerConfirms(Datagram { from, index, message }));
                }
            }
        }
    }
}

impl Seen {
    fn note(&mut self, before: &Base, after: &Base, datagram: Datagram, answer: Option<NatOk>) {
        let index = datagram.index;
        let at = usize::from(index);
        self.astray |= answer.is_some_and(|ok| (ok.to, ok.index) != (datagram.from, index));
        let bound = |base: &Base, device| base.location(device).bindings[at];
        match datagram.message {
            Message::Init(init) => {
                let device = init.cookie.device;
                let moved = bound(before, device).map(|b| b.at) != bound(after, device).map(|b| b.at);
                if device == Device::Host {
                    self.old_moved |= moved && init.seq <= self.answered[at];
                    self.dead_cookie_counted |= answer.is_some() && init.cookie != before.host.cookie;
                    let unchanged = before.host.last == after.host.last;
                    self.unverified |= answer.is_some() && init.signed && unchanged;
                    self.forged_kept |=
                        !init.signed && before.host.leg().is_none() && after.host.leg().is_some();
                    if answer.is_some() && init.signed && init.index == index {
                        self.answered[at] = self.answered[at].max(init.seq);
                    }
                }
                let holder = before.holder(index, datagram.from);
                if let Some(loser) = holder
                    && after.holder(index, datagram.from) != holder
                    && loser != device
                {
                    self.taken_without_confirm |= before.lives(loser, index, datagram.from);
                }
                let lapsed = device == Device::Other && datagram.from != Address::Foreign;
                self.lapsed_taken |= lapsed && after.holder(index, datagram.from) == Some(Device::Other);
            }
            Message::Confirm(confirm) => {
                self.dead_cookie_counted |=
                    answer.is_some() && confirm.cookie != before.location(confirm.cookie.device).cookie;
                let holder = before.holder(index, datagram.from);
                self.taken_by_confirm |= holder.is_some() && after.holder(index, datagram.from) != holder;
            }
        }
    }
}

/// 1.
pub const OLD_MOVES_NOTHING: &str = "only a NAT-INIT newer than all that were answered moves a binding";
/// 2.
pub const CHALLENGED: &str = "relayed data goes only where somebody got a challenge that was sent there";
/// 3.
pub const CONFIRMED_IS_BOUND: &str = "what is confirmed is the present binding of the holder of the address";
/// 4.
pub const TAKEN_BY_CONFIRM: &str = "an address somebody lives at changes its owner by NAT-CONFIRM only";
/// 5.
pub const DEAD_COOKIE: &str = "a cookie that was replaced places nobody";
/// 6.
pub const ONE_ANSWER: &str = "an answer goes where its cause came from";
/// 7.
pub const RECOVERS: &str = "the host, undisturbed, gets itself confirmed where it is";
/// 8.
pub const NOT_TO_THE_ATTACKER: &str = "who is not on the path has nothing bound to himself";

/// Possible: the handshake goes through, here and there.
pub const POSSIBLE_BOTH: &str = "possible: confirmed at one address, then at the other";
/// Possible: the shortcut is taken.
pub const POSSIBLE_UNVERIFIED: &str = "possible: a keepalive is answered without a look at its signature";
/// Possible: an address is free when its owner has lapsed.
pub const POSSIBLE_LAPSED: &str = "possible: another device takes an address whose owner has lapsed";
/// Possible: the other device is there now, and says so.
pub const POSSIBLE_TAKEN: &str = "possible: another device takes an address by NAT-CONFIRM";
/// Possible: what section 5 promises to a re-registration.
pub const POSSIBLE_INHERITED: &str = "possible: data goes to an inherited binding";
/// Admitted: who forges the host's source and knows cookie and list.
pub const ADMITTED_KEPT: &str =
    "admitted: a forger keeps the base sending to an address that would have lapsed";
/// Admitted: who is on the path.
pub const ADMITTED_ON_PATH: &str = "admitted: who holds back a NAT-INIT on the path has data sent to himself";

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let (host, other) = (Location::new(Device::Host), Location::new(Device::Other));
        vec![State {
            base: Base { host, other, holders: Default::default() },
            host: Host { at: Address::First, session: 0, seq: 0, moves: 0 },
            other_seq: 0,
            ticks: 0,
            sent: BTreeMap::new(),
            oks: BTreeSet::new(),
            heard_by_attacker: BTreeSet::new(),
            seen: Seen::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.host.seq < self.inits {
            actions.extend((0..self.indices).map(Action::HostSends));
        }
        if state.host.moves < self.moves {
            actions.push(Action::HostMoves);
        }
        if state.host.session < self.sessions {
            actions.push(Action::HostRegisters);
        }
        if state.ticks < self.ticks {
            actions.push(Action::Tick);
        }
        actions.extend(state.sent.keys().copied().map(Action::Arrives));
        actions.extend(state.oks.iter().filter(|ok| ok.to == state.host.at).copied().map(Action::HostHears));
        self.replays(state, actions);
        self.attacker_confirms(state, actions);
        if self.attacker >= Attacker::Forger {
            self.forgeries(state, actions);
        }
        if state.other_seq < self.other_inits {
            let cookie = Cookie { device: Device::Other, session: 0 };
            for from in ADDRESSES {
                for index in 0..self.indices {
                    let init = Init { cookie, index, seq: state.other_seq + 1, list: 9, signed: true };
                    actions.push(Action::OtherSends(Datagram { from, index, message: Message::Init(init) }));
                }
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let (next, _) = self.step(state, action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(OLD_MOVES_NOTHING, |_, s: &State| !s.seen.old_moved),
            Property::always(CHALLENGED, |_, s: &State| {
                [&s.base.host, &s.base.other].iter().all(|location| {
                    location.confirmed.is_none_or(|c| {
                        s.seen.challenged.iter().any(|&(cookie, index, at)| {
                            cookie.device == location.cookie.device && (index, at) == (c.index, c.at)
                        })
                    })
                })
            }),
            Property::always(CONFIRMED_IS_BOUND, |_, s: &State| {
                [&s.base.host, &s.base.other].iter().all(|location| {
                    location.confirmed.is_none_or(|c| {
                        location.bindings[usize::from(c.index)].is_some_and(|b| b.at == c.at)
                            && s.base.holder(c.index, c.at) == Some(location.cookie.device)
                    })
                })
            }),
            Property::always(TAKEN_BY_CONFIRM, |_, s: &State| !s.seen.taken_without_confirm),
            Property::always(DEAD_COOKIE, |_, s: &State| !s.seen.dead_cookie_counted),
            Property::always(ONE_ANSWER, |_, s: &State| !s.seen.astray),
            Property::always(RECOVERS, |scenario: &Self, s: &State| scenario.recovers(s)),
        ];
        if self.attacker < Attacker::OnPath {
            all.push(Property::always(NOT_TO_THE_ATTACKER, |_, s: &State| {
                s.base.host.bindings.iter().flatten().all(|b| b.at != Address::Foreign)
            }));
        }
        self.possibilities(&mut all);
        all
    }
}

impl Scenario {
    fn possibilities(&self, all: &mut Vec<Property<Self>>) {
        if self.moves > 0 {
            all.push(Property::sometimes(POSSIBLE_BOTH, |_, s: &State| {
                let was = |at| s.seen.challenged.iter().any(|&(.., to)| to == at);
                was(Address::First) && s.base.host.leg().is_some_and(|leg| leg.at == Address::Second)
            }));
        }
        if self.inits >= 2 {
            all.push(Property::sometimes(POSSIBLE_UNVERIFIED, |_, s: &State| s.seen.unverified));
        }
        if self.other_inits > 0 {
            all.push(Property::sometimes(POSSIBLE_LAPSED, |_, s: &State| s.seen.lapsed_taken));
            if self.hears_first {
                all.push(Property::sometimes(POSSIBLE_TAKEN, |_, s: &State| s.seen.taken_by_confirm));
            }
        }
        if self.sessions > 0 {
            all.push(Property::sometimes(POSSIBLE_INHERITED, |_, s: &State| s.seen.inherited_leg));
        }
        if self.attacker >= Attacker::Forger && self.ticks > 0 {
            all.push(Property::sometimes(ADMITTED_KEPT, |_, s: &State| s.seen.forged_kept));
        }
        if self.attacker == Attacker::OnPath {
            all.push(Property::sometimes(ADMITTED_ON_PATH, |_, s: &State| {
                s.base.host.leg().is_some_and(|leg| leg.at == Address::Foreign)
            }));
        }
    }
}
