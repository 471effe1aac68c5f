//! HELLO and HELLO-REPLY: whose address is it, and where may data go (`docs/protocol.md`, section 6).
//!
//! Two honest hosts, *anna* and *bert*, and an attacker, *mallory*, with a key and an address of his own. The network
//! delivers what was sent whenever it likes, as often as it likes, or never. Anna may move to the address that mallory
//! had. What mallory can do is [`Attacker`].
//!
//! What must always hold:
//!
//! 1. Data goes only to an address where the peer has answered a HELLO that was sent there, and only such an address is
//!    proven.
//! 2. Who forwards nothing while it is fresh proves an address only for whoever is there: replays, forged sources and
//!    another key gain a claim at most (section 12).
//! 3. A claim never displaces a proof.
//! 4. Among claims the first stays.
//! 5. A claim lapses with the life of the last HELLO from there: that is all a replay gains.
//! 6. An address that is neither known from elsewhere nor proven gets one HELLO a second, and a reply for each of its own.
//! 7. Without a recording, nobody claims an address in a host's name but from there.
//! 8. A HELLO that comes again after its time changes nothing: a claim and a proof are renewed by new ones alone.
//! 9. Whatever came before: once claims have lapsed, two undisturbed HELLOs of either host, a second
//!    apart, prove both to each other.
//!
//! Not here: budgets but the one HELLO; more claims than a peer may have; the local half of an address pair; which of
//! several paths is the better one; the relay.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

/// Ticks that a claim lives. A tick is `host::CLAIM_LIFE`.
pub const CLAIM: u8 = 1;
/// Ticks that a token counts.
pub const TOKEN: u8 = 1;
/// Ticks that a proof lives: more than a claim. What is real is 15 times a claim.
pub const PROOF: u8 = 2;

/// Who holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// An honest host.
    Anna,
    /// Another one.
    Bert,
    /// The attacker.
    Mallory,
}

/// Where datagrams come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// Anna's.
    Anna,
    /// Bert's.
    Bert,
    /// Mallory's, until anna moves there.
    Mallory,
}

/// All addresses.
pub const ADDRESSES: [Address; 3] = [Address::Anna, Address::Bert, Address::Mallory];

/// What mallory can do. Each can do what those before can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attacker {
    /// There is none.
    Nobody,
    /// He uses his key, from his address.
    Stranger,
    /// He sends from any source.
    Spoofer,
    /// He has recorded what the hosts sent and what came to him, and sends it again when it is no longer fresh.
    Replayer,
    /// He forwards at once what comes to his address.
    Forwarder,
    /// He is on the path: he sees everything at once.
    OnPath,
}

/// A rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weakening {
    /// A HELLO's signature is not looked at.
    SkipSignature,
    /// Any reply proves.
    ProofWithoutToken,
    /// A reply counts from wherever it comes.
    AnyPairReply,
    /// A reply counts whoever signed it.
    AnyResponder,
    /// A token counts for ever.
    TokenNeverExpires,
    /// A HELLO displaces a proof.
    ClaimDisplacesProof,
    /// A HELLO displaces a claim.
    ClaimDisplacesClaim,
    /// A claim stays.
    ClaimNeverLapses,
    /// Every HELLO draws one.
    DrawsAlways,
    /// Ladders of HELLOs go to claimed addresses, too.
    LadderToClaims,
    /// A HELLO from an address of another draws nothing.
    HeldDrawsNothing,
    /// A HELLO makes a path in both directions.
    HelloMakesPath,
    /// A HELLO counts as often as it comes, whenever that is.
    ReplayCounts,
}

impl Weakening {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SkipSignature,
        Self::ProofWithoutToken,
        Self::AnyPairReply,
        Self::AnyResponder,
        Self::TokenNeverExpires,
        Self::ClaimDisplacesProof,
        Self::ClaimDisplacesClaim,
        Self::ClaimNeverLapses,
        Self::DrawsAlways,
        Self::LadderToClaims,
        Self::HeldDrawsNothing,
        Self::HelloMakesPath,
        Self::ReplayCounts,
    ];

    /// The property that does not hold without the rule.
    #[must_use]
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::SkipSignature => CLAIMED_FROM_THERE,
            Self::ProofWithoutToken | Self::AnyPairReply | Self::AnyResponder | Self::HelloMakesPath => {
                ANSWERED
            }
            Self::TokenNeverExpires => PROVEN_THERE,
            Self::ClaimDisplacesProof => PROOF_STAYS,
            Self::ClaimDisplacesClaim => FIRST_STAYS,
            Self::ClaimNeverLapses => CLAIM_LAPSES,
            Self::DrawsAlways | Self::LadderToClaims => IN_MEASURE,
            Self::HeldDrawsNothing => RECOVERS,
            Self::ReplayCounts => REPLAY_CHANGES_NOTHING,
        }
    }

    /// A small scenario that shows it.
    #[must_use]
    pub fn shown(self) -> Scenario {
        let quiet = Scenario { without: Some(self), ..Scenario::quiet() };
        let with = |attacker| Scenario { attacker, ..quiet.clone() };
        match self {
            Self::ClaimNeverLapses | Self::HelloMakesPath => quiet,
            Self::ProofWithoutToken | Self::TokenNeverExpires => {
                Scenario { ticks: 3, only_bert_is_watched: true, ..with(Attacker::Replayer) }
            }
            Self::SkipSignature | Self::ClaimDisplacesProof | Self::ClaimDisplacesClaim => {
                Scenario { own_hellos: 1, ..with(Attacker::Spoofer) }
            }
            Self::AnyPairReply => with(Attacker::OnPath),
            Self::AnyResponder | Self::DrawsAlways | Self::LadderToClaims | Self::ReplayCounts => {
                with(Attacker::Replayer)
            }
            Self::HeldDrawsNothing => Scenario { own_hellos: 1, moves: true, ..with(Attacker::Stranger) },
        }
    }
}

/// What is explored.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What mallory can do.
    pub attacker: Attacker,
    /// HELLOs that each host sends on its own schedule.
    pub hellos: [u8; 2],
    /// HELLOs of a host in all: states beyond are not visited.
    pub tokens: u8,
    /// HELLOs of mallory's.
    pub own_hellos: u8,
    /// Whether anna may move to mallory's address, which he then has no longer.
    pub moves: bool,
    /// How often time passes.
    pub ticks: u8,
    /// Whether the hosts want each other: then a HELLO from a proven address draws one while there is no path.
    pub wanting: bool,
    /// Mallory sends to bert alone, but for what he forwards.
    pub only_bert_is_watched: bool,
    /// The rule that is left out.
    pub without: Option<Weakening>,
}

impl Scenario {
    /// Two hosts alone.
    #[must_use]
    pub const fn quiet() -> Self {
        Self {
            attacker: Attacker::Nobody,
            hellos: [1, 1],
            tokens: 2,
            own_hellos: 0,
            moves: false,
            ticks: 2,
            wanting: true,
            only_bert_is_watched: false,
            without: None,
        }
    }

    /// What is searched to the end, by name.
    #[must_use]
    pub fn all() -> Vec<(&'static str, Self)> {
        let quiet = Self::quiet();
        let with = |attacker| Self { attacker, ..quiet.clone() };
        vec![
            ("nobody", Self { hellos: [2, 1], moves: true, ..quiet.clone() }),
            ("stranger", Self { own_hellos: 2, moves: true, ..with(Attacker::Stranger) }),
            ("spoofer", Self { own_hellos: 1, ..with(Attacker::Spoofer) }),
            ("replayer", Self { only_bert_is_watched: true, ..with(Attacker::Replayer) }),
            (
                "forwarder",
                Self {
                    hellos: [1, 0],
                    ticks: 1,
                    wanting: false,
                    only_bert_is_watched: true,
                    ..with(Attacker::Forwarder)
                },
            ),
            ("on the path", Self { hellos: [1, 0], ticks: 0, wanting: false, ..with(Attacker::OnPath) }),
        ]
    }

    fn lacks(&self, rule: Weakening) -> bool {
        self.without == Some(rule)
    }
}

/// A HELLO's token: whose, and which.
pub type Token = (Device, u8);

/// What hosts say to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// HELLO.
    Hello {
        /// Who says it (and, but in a forgery, signed it).
        initiator: Device,
        /// To whom.
        responder: Device,
        /// What the reply has to bring back.
        token: Token,
    },
    /// HELLO-REPLY.
    Reply {
        /// Whose HELLO it answers.
        initiator: Device,
        /// Who answers, and signed it.
        responder: Device,
        /// The HELLO's.
        token: Token,
    },
}

/// A datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datagram {
    /// Where it says it is from.
    pub from: Address,
    /// Where it goes.
    pub to: Address,
    /// What it says.
    pub message: Message,
}

/// How sure a host is of who is at an address, and for how many ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A HELLO came from there.
    Claimed(u8),
    /// A reply to a HELLO of this host's came from there.
    Proven(u8),
}

/// An honest host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    id: Device,
    at: Address,
    sources: [Option<(Device, Standing)>; ADDRESSES.len()],
    /// Where the one HELLO of this tick has been drawn.
    drawn: [bool; ADDRESSES.len()],
    /// Where data to the other host goes.
    pub path: Option<Address>,
    /// Every HELLO sent: to whom, where, and for how many ticks a reply counts.
    tokens: Vec<(Device, Address, u8)>,
    /// Tokens of HELLOs that came from the other host, and for how many ticks each counts.
    heard: BTreeMap<Token, u8>,
    scheduled: u8,
}

impl Host {
    fn new(id: Device, at: Address) -> Self {
        Self {
            id,
            at,
            sources: [None; ADDRESSES.len()],
            drawn: [false; ADDRESSES.len()],
            path: None,
            tokens: Vec::new(),
            heard: BTreeMap::new(),
            scheduled: 0,
        }
    }

    /// Whom data from an address is taken for, and whether that is proven.
    #[must_use]
    pub fn owner(&self, from: Address) -> Option<(Device, bool)> {
        let source = self.sources[from as usize];
        source.map(|(owner, standing)| (owner, matches!(standing, Standing::Proven(_))))
    }

    fn peer(&self) -> Device {
        if self.id == Device::Anna { Device::Bert } else { Device::Anna }
    }

    fn hello(&mut self, responder: Device, to: Address) -> Datagram {
        self.tokens.push((responder, to, TOKEN));
        let token = (self.id, self.tokens.len() as u8 - 1);
        Datagram { from: self.at, to, message: Message::Hello { initiator: self.id, responder, token } }
    }

    /// A datagram came in: what it draws.
    fn handle(&mut self, scenario: &Scenario, from: Address, message: Message) -> Vec<Datagram> {
        match message {
            Message::Hello { initiator, responder, token }
                if responder == self.id && initiator != self.id =>
            {
                self.handle_hello(scenario, from, initiator, token)
            }
            Message::Reply { initiator, responder, token } if initiator == self.id => {
                self.handle_reply(scenario, from, responder, token);
                Vec::new()
            }
            Message::Hello { .. } | Message::Reply { .. } => Vec::new(),
        }
    }

    fn handle_hello(
        &mut self,
        scenario: &Scenario,
        from: Address,
        initiator: Device,
        token: Token,
    ) -> Vec<Datagram> {
        // Mallory makes a new token for each HELLO of his own: one name stands for them all.
        if token.0 != Device::Mallory
            && *self.heard.entry(token).or_insert(TOKEN) == 0
            && !scenario.lacks(Weakening::ReplayCounts)
        {
            return Vec::new();
        }
        let slot = &mut self.sources[from as usize];
        let displaces = match slot {
            Some((_, Standing::Proven(_))) => scenario.lacks(Weakening::ClaimDisplacesProof),
            Some((_, Standing::Claimed(_))) => scenario.lacks(Weakening::ClaimDisplacesClaim),
            None => true,
        };
        let (held, proven) = match slot {
            Some((owner, standing)) if *owner == initiator => {
                let proven = matches!(standing, Standing::Proven(_));
                *standing = if proven { Standing::Proven(PROOF) } else { Standing::Claimed(CLAIM) };
                (false, proven)
            }
            Some(_) if !displaces => (true, false),
            _ => {
                *slot = Some((initiator, Standing::Claimed(CLAIM)));
                (false, false)
            }
        };
        let mut out = Vec::new();
        if !held {
            let message = Message::Reply { initiator, responder: self.id, token };
            out.push(Datagram { from: self.at, to: from, message });
        }
        if scenario.lacks(Weakening::HelloMakesPath) && initiator == self.peer() {
            self.path = self.path.or(Some(from));
        }
        let wanting = scenario.wanting && initiator == self.peer() && self.path.is_none();
        let may_draw = !self.drawn[from as usize] || scenario.lacks(Weakening::DrawsAlways);
        let draws = if held { !scenario.lacks(Weakening::HeldDrawsNothing) } else { !proven || wanting };
        if draws && may_draw {
            self.drawn[from as usize] = true;
            out.push(self.hello(initiator, from));
        }
        out
    }

    fn handle_reply(&mut self, scenario: &Scenario, from: Address, responder: Device, token: Token) {
        let counts = |&(to_whom, to, ticks): &(Device, Address, u8)| {
            let signed = responder == to_whom || scenario.lacks(Weakening::AnyResponder);
            let pair = from == to || scenario.lacks(Weakening::AnyPairReply);
            let fresh = ticks > 0 || scenario.lacks(Weakening::TokenNeverExpires);
            signed && pair && fresh
        };
        let sent = self.tokens.get(usize::from(token.1)).filter(|_| token.0 == self.id);
        let peer = match sent {
            Some(sent) if counts(sent) => sent.0,
            _ if scenario.lacks(Weakening::ProofWithoutToken) => responder,
            _ => return,
        };
        if let Some(sent) = self.tokens.get_mut(usize::from(token.1)).filter(|_| token.0 == self.id) {
            sent.2 = 0; // What comes again is a copy.
        }
        self.sources[from as usize] = Some((peer, Standing::Proven(PROOF)));
        self.drawn[from as usize] = false;
        if peer == self.peer() {
            self.path = self.path.or(Some(from));
        }
    }

    fn tick(&mut self, scenario: &Scenario) {
        self.drawn = [false; ADDRESSES.len()];
        for token in &mut self.tokens {
            token.2 = token.2.saturating_sub(1);
        }
        for ticks in self.heard.values_mut() {
            *ticks = ticks.saturating_sub(1);
        }
        for slot in &mut self.sources {
            *slot = slot.and_then(|(owner, standing)| {
                let standing = match standing {
                    Standing::Claimed(_) if scenario.lacks(Weakening::ClaimNeverLapses) => standing,
                    Standing::Claimed(ticks) => Standing::Claimed(ticks - 1),
                    Standing::Proven(ticks) => Standing::Proven(ticks - 1),
                };
                let over = matches!(standing, Standing::Claimed(0) | Standing::Proven(0));
                (!over).then_some((owner, standing))
            });
        }
    }
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Anna and bert.
    pub hosts: [Host; 2],
    sent: BTreeSet<Datagram>,
    /// What mallory may send: his recordings, what came to him, what he sees.
    recorded: BTreeSet<Message>,
    fresh: BTreeSet<Message>,
    own_hellos: u8,
    moved: bool,
    ticks: u8,
    seen: Seen,
}

/// What the properties need to know of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Seen {
    /// Replies that each host signed.
    replied: BTreeSet<(Device, Token)>,
    /// HELLOs since the last tick: at which host, from where, whose.
    hellos: BTreeSet<(Device, Address, Device)>,
    /// HELLOs since the last tick to an address that nothing speaks for but HELLOs from there.
    drawn: BTreeMap<(Device, Address), u8>,
    proof_displaced: bool,
    first_displaced: bool,
    beyond_measure: bool,
    moved_by_proof: bool,
    used_up: bool,
    replay_counted: bool,
}

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A host's schedule sends a HELLO.
    Sends(Device, Address),
    /// What was sent arrives (perhaps again).
    Arrives(Datagram),
    /// Mallory sends something.
    Attack(Datagram),
    /// Anna moves.
    Moves,
    /// A host drops its path.
    Drops(Device),
    /// Time passes.
    Tick,
}

impl State {
    fn host_at(&self, at: Address) -> Option<usize> {
        self.hosts.iter().position(|host| host.at == at)
    }

    /// Where a device is, or has been.
    fn has_been(&self, device: Device, at: Address) -> bool {
        match device {
            Device::Anna => at == Address::Anna || (at == Address::Mallory && self.moved),
            Device::Bert => at == Address::Bert,
            Device::Mallory => at == Address::Mallory,
        }
    }
}

impl Scenario {
    /// What happens, and what is sent because of it.
    #[must_use]
    pub fn step(&self, state: &State, action: Action) -> (State, Vec<Datagram>) {
        let mut next = state.clone();
        let mut out = Vec::new();
        match action {
            Action::Sends(who, to) => {
                let host = &mut next.hosts[who as usize];
                host.scheduled += 1;
                let peer = host.peer();
                if host.owner(to) != Some((peer, true)) && !next.seen.is_candidate(to, peer, next.moved) {
                    next.seen.sent_to_nobody(who, to);
                }
                out.push(next.hosts[who as usize].hello(peer, to));
            }
            Action::Arrives(datagram) | Action::Attack(datagram) => {
                if let Action::Attack(Datagram { message: Message::Hello { initiator, .. }, .. }) = action {
                    next.own_hellos += u8::from(initiator == Device::Mallory);
                }
                if let Some(at) = next.host_at(datagram.to) {
                    out = next.hosts[at].handle(self, datagram.from, datagram.message);
                    next.seen.note(&state.hosts[at], &next.hosts[at], state.moved, datagram, &out);
                }
            }
            Action::Moves => {
                next.moved = true;
                next.hosts[0].at = Address::Mallory;
                next.hosts[0].path = None;
            }
            Action::Drops(who) => next.hosts[who as usize].path = None,
            Action::Tick => {
                next.ticks += 1;
                next.hosts.iter_mut().for_each(|host| host.tick(self));
                next.seen.hellos.clear();
                next.seen.drawn.clear();
                if self.attacker >= Attacker::Replayer {
                    let old = next.sent.iter().map(|d| d.message).chain(next.fresh.iter().copied());
                    next.recorded.extend(old.collect::<Vec<_>>());
                }
                next.fresh.clear();
            }
        }
        for &datagram in &out {
            if datagram.to == Address::Mallory && !next.moved && self.attacker != Attacker::Nobody {
                next.fresh.insert(datagram.message);
            } else {
                next.sent.insert(datagram);
            }
        }
        (next, out)
    }

    /// Nobody disturbs: one host says HELLO twice, a second apart, to where the other is.
    fn recovers(&self, state: &State, who: usize) -> bool {
        let mut state = state.clone();
        state.hosts.iter_mut().for_each(|host| host.tick(self));
        let (peer, to) = (state.hosts[1 - who].id, state.hosts[1 - who].at);
        for _ in 0..2 {
            // A second later, what is drawn once a second is drawn again.
            state.hosts.iter_mut().for_each(|host| host.drawn = [false; ADDRESSES.len()]);
            let mut open = vec![state.hosts[who].hello(peer, to)];
            // A HELLO draws a reply and a HELLO, and that one a reply: without measure it would go on for ever.
            for _ in 0..8 {
                let Some(datagram) = open.pop() else { break };
                if let Some(at) = state.host_at(datagram.to) {
                    open.extend(state.hosts[at].handle(self, datagram.from, datagram.message));
                }
            }
        }
        let (host, other) = (&state.hosts[who], &state.hosts[1 - who]);
        host.owner(to) == Some((peer, true))
            && host.path.is_some()
            && other.owner(host.at) == Some((host.id, true))
    }

    fn sends(&self, state: &State, actions: &mut Vec<Action>) {
        for host in &state.hosts {
            if host.scheduled >= self.hellos[host.id as usize] {
                continue;
            }
            for to in ADDRESSES.into_iter().filter(|&to| to != host.at) {
                let told = state.seen.is_candidate(to, host.peer(), state.moved);
                let owner = host.owner(to);
                let proven = owner == Some((host.peer(), true));
                let claimed = self.lacks(Weakening::LadderToClaims) && owner == Some((host.peer(), false));
                if told || proven || claimed {
                    actions.push(Action::Sends(host.id, to));
                }
            }
        }
    }

    fn attacks(&self, state: &State, actions: &mut Vec<Action>) {
        let mut messages: BTreeSet<Message> = state.recorded.clone();
        if self.attacker >= Attacker::Forwarder {
            messages.extend(&state.fresh);
        }
        if self.attacker >= Attacker::OnPath {
            messages.extend(state.sent.iter().map(|d| d.message));
        }
        // With his own key he answers what came to him, and says HELLO.
        for &message in &state.fresh {
            if let Message::Hello { initiator, token, .. } = message {
                messages.insert(Message::Reply { initiator, responder: Device::Mallory, token });
            }
        }
        for host in &state.hosts {
            let token = (Device::Mallory, 0);
            if state.own_hellos < self.own_hellos {
                messages.insert(Message::Hello { initiator: Device::Mallory, responder: host.id, token });
            }
            if self.lacks(Weakening::SkipSignature) {
                messages.insert(Message::Hello { initiator: host.peer(), responder: host.id, token });
            }
        }
        for message in messages {
            let (Message::Hello { responder: whom, .. } | Message::Reply { initiator: whom, .. }) = message;
            let reply = matches!(message, Message::Reply { .. });
            let to = match whom {
                Device::Mallory => continue,
                Device::Anna | Device::Bert => state.hosts[whom as usize].at,
            };
            for from in ADDRESSES.into_iter().filter(|&from| from != to) {
                let may = from == Address::Mallory && !state.moved || self.attacker >= Attacker::Spoofer;
                let watched = !self.only_bert_is_watched || whom == Device::Bert || !reply;
                if may && watched {
                    actions.push(Action::Attack(Datagram { from, to, message }));
                }
            }
        }
    }
}

impl Seen {
    /// Whether a base would tell that this device is there.
    fn is_candidate(&self, at: Address, device: Device, moved: bool) -> bool {
        match device {
            Device::Anna => at == if moved { Address::Mallory } else { Address::Anna },
            Device::Bert => at == Address::Bert,
            Device::Mallory => false,
        }
    }

    fn sent_to_nobody(&mut self, who: Device, to: Address) {
        let count = self.drawn.entry((who, to)).or_default();
        *count += 1;
        self.beyond_measure |= *count > 1;
    }

    /// A host handled a datagram.
    fn note(&mut self, before: &Host, after: &Host, moved: bool, datagram: Datagram, out: &[Datagram]) {
        let (host, from) = (before.id, datagram.from);
        let (was, is) = (before.owner(from), after.owner(from));
        self.beyond_measure |= out.iter().any(|d| d.to != from) || out.len() > 2;
        match datagram.message {
            Message::Hello { initiator, token, .. } => {
                let too_late = before.heard.get(&token) == Some(&0);
                self.replay_counted |= too_late && (!out.is_empty() || before.sources != after.sources);
                self.proof_displaced |= was.is_some_and(|(_, proven)| proven) && is != was;
                self.first_displaced |=
                    was.is_some_and(|(_, proven)| !proven) && is.map(|o| o.0) != was.map(|o| o.0);
                self.hellos.insert((host, from, initiator));
                self.used_up |= out.is_empty()
                    && initiator != Device::Mallory
                    && was.is_some_and(|(owner, _)| owner == Device::Mallory);
                let spoken_for = was == Some((initiator, true)) || self.is_candidate(from, initiator, moved);
                for reply in out {
                    match reply.message {
                        Message::Reply { token, .. } => drop(self.replied.insert((host, token))),
                        Message::Hello { .. } if !spoken_for => self.sent_to_nobody(host, from),
                        Message::Hello { .. } => {}
                    }
                }
            }
            Message::Reply { .. } => {
                if is != was {
                    self.drawn.remove(&(host, from));
                }
                self.moved_by_proof |= was.is_some_and(|(owner, _)| is.is_some_and(|is| is.0 != owner));
            }
        }
    }
}

/// 1.
pub const ANSWERED: &str = "data goes only where the peer answered a HELLO that was sent there";
/// 2.
pub const PROVEN_THERE: &str = "who forwards nothing fresh proves no address but for who is there";
/// 3.
pub const PROOF_STAYS: &str = "a claim never displaces a proof";
/// 4.
pub const FIRST_STAYS: &str = "among claims the first stays";
/// 5.
pub const CLAIM_LAPSES: &str = "a claim lapses with its last HELLO's life";
/// 6.
pub const IN_MEASURE: &str = "an address that only HELLOs speak for gets one HELLO a second";
/// 7.
pub const CLAIMED_FROM_THERE: &str = "without a recording nobody claims an address in a host's name";
/// 8.
pub const REPLAY_CHANGES_NOTHING: &str = "a HELLO that comes again after its time changes nothing";
/// 9.
pub const RECOVERS: &str = "two undisturbed HELLOs of either host, a second apart, prove both to each other";

/// Possible: both directions.
pub const POSSIBLE_BOTH: &str = "possible: both directions are established";
/// Possible: only one direction.
pub const POSSIBLE_HALF: &str = "possible: one direction is established and the other is not";
/// Possible: an address changes its owner by proof.
pub const POSSIBLE_MOVED: &str = "possible: a reply moves an address from one peer to another";
/// Admitted: a replay.
pub const ADMITTED_CLAIM: &str =
    "admitted: who replays a HELLO has an unproven source, and data from it is taken";
/// Admitted: with a key and the host's address forged.
pub const ADMITTED_SQUAT: &str =
    "admitted: a spoofer's claim leaves a host's own HELLO without answer for a second";
/// Admitted: injection.
pub const ADMITTED_INJECT: &str = "admitted: who forges a proven source injects data";
/// Admitted: who passes both sides' messages on is in the path.
pub const ADMITTED_PLACED: &str = "admitted: who forwards fresh messages puts himself in the path";

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let hosts = [Host::new(Device::Anna, Address::Anna), Host::new(Device::Bert, Address::Bert)];
        // Of an earlier time: its token counts nowhere any more.
        let old = |initiator: Device, responder| Message::Hello {
            initiator,
            responder,
            token: (initiator, u8::MAX),
        };
        let recorded = if self.attacker >= Attacker::Replayer {
            BTreeSet::from([old(Device::Anna, Device::Bert)])
        } else {
            BTreeSet::new()
        };
        vec![State {
            hosts,
            sent: BTreeSet::new(),
            recorded,
            fresh: BTreeSet::new(),
            own_hellos: 0,
            moved: false,
            ticks: 0,
            seen: Seen::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.sends(state, actions);
        actions.extend(state.sent.iter().copied().map(Action::Arrives));
        if self.attacker != Attacker::Nobody {
            self.attacks(state, actions);
        }
        if self.moves && !state.moved {
            actions.push(Action::Moves);
        }
        let with_path = state.hosts.iter().filter(|host| host.path.is_some());
        actions.extend(with_path.map(|host| Action::Drops(host.id)));
        if state.ticks < self.ticks {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let (next, _) = self.step(state, action);
        (next != *state).then_some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.hosts.iter().all(|host| host.tokens.len() <= usize::from(self.tokens))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(ANSWERED, |_, s: &State| {
                s.hosts.iter().all(|host| {
                    let answered = |peer: Device, at: Address| {
                        let sent = (0..).zip(&host.tokens).filter(|(_, t)| (t.0, t.1) == (peer, at));
                        let mut replied = sent.map(|(n, _)| s.seen.replied.contains(&(peer, (host.id, n))));
                        peer == Device::Mallory || replied.any(|replied| replied)
                    };
                    let proven = |at: Address| match host.owner(at) {
                        Some((owner, true)) => answered(owner, at),
                        Some((_, false)) | None => true,
                    };
                    host.path.is_none_or(|at| answered(host.peer(), at)) && ADDRESSES.into_iter().all(proven)
                })
            }),
            Property::always(PROOF_STAYS, |_, s: &State| !s.seen.proof_displaced),
            Property::always(FIRST_STAYS, |_, s: &State| !s.seen.first_displaced),
            Property::always(CLAIM_LAPSES, |_, s: &State| {
                s.hosts.iter().all(|host| {
                    ADDRESSES.into_iter().all(|at| match host.owner(at) {
                        Some((owner, false)) => s.seen.hellos.contains(&(host.id, at, owner)),
                        Some((_, true)) | None => true,
                    })
                })
            }),
            Property::always(IN_MEASURE, |_, s: &State| !s.seen.beyond_measure),
            Property::always(REPLAY_CHANGES_NOTHING, |_, s: &State| !s.seen.replay_counted),
            Property::always(RECOVERS, |scenario: &Self, s: &State| {
                scenario.recovers(s, 0) && scenario.recovers(s, 1)
            }),
            Property::sometimes(POSSIBLE_BOTH, |_, s: &State| s.hosts.iter().all(|host| host.path.is_some())),
            Property::sometimes(POSSIBLE_HALF, |_, s: &State| {
                s.hosts[0].path == Some(Address::Bert) && s.hosts[1].path.is_none()
            }),
        ];
        self.by_attacker(&mut all);
        all
    }
}

impl Scenario {
    fn by_attacker(&self, all: &mut Vec<Property<Self>>) {
        if self.attacker < Attacker::Forwarder {
            all.push(Property::always(PROVEN_THERE, |_, s: &State| {
                let honest =
                    |&(_, (owner, proven)): &(Address, (Device, bool))| owner != Device::Mallory && proven;
                let owners = |host: &Host| {
                    ADDRESSES.into_iter().filter_map(|at| Some((at, host.owner(at)?))).collect::<Vec<_>>()
                };
                s.hosts.iter().all(|host| {
                    owners(host).into_iter().filter(honest).all(|(at, (owner, _))| s.has_been(owner, at))
                })
            }));
        }
        if self.attacker < Attacker::Replayer {
            all.push(Property::always(CLAIMED_FROM_THERE, |_, s: &State| {
                s.hosts.iter().all(|host| {
                    ADDRESSES.into_iter().all(|at| match host.owner(at) {
                        Some((owner, _)) if owner != Device::Mallory => s.has_been(owner, at),
                        Some(_) | None => true,
                    })
                })
            }));
        }
        if self.attacker >= Attacker::Replayer {
            all.push(Property::sometimes(ADMITTED_CLAIM, |_, s: &State| {
                s.hosts[1].owner(Address::Mallory) == Some((Device::Anna, false)) && !s.moved
            }));
        }
        if self.attacker >= Attacker::Spoofer {
            all.push(Property::sometimes(ADMITTED_INJECT, |_, s: &State| {
                s.hosts[1].owner(Address::Anna) == Some((Device::Anna, true))
            }));
            if self.own_hellos > 0 {
                all.push(Property::sometimes(ADMITTED_SQUAT, |_, s: &State| s.seen.used_up));
            }
        }
        if self.own_hellos > 0 && (self.moves || self.attacker >= Attacker::Spoofer) {
            all.push(Property::sometimes(POSSIBLE_MOVED, |_, s: &State| s.seen.moved_by_proof));
        }
        if self.attacker >= Attacker::Forwarder {
            all.push(Property::sometimes(ADMITTED_PLACED, |_, s: &State| {
                s.hosts[1].path == Some(Address::Mallory) && !s.moved
            }));
        }
    }
}
