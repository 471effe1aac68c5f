//! REGISTER and who replaces whom: boots, attempts, clones, cookies (`docs/protocol.md`, section 4).
//!
//! One device whose key runs in several processes (boots: a restart, or a clone), one base, and an attacker who has seen
//! every REGISTER, opens connections of his own, and may run a base of his own. Connections are TCP: each is in order,
//! but nothing is known of the order between them. Hosts here are bolder than real ones: they come back whenever they like.
//!
//! What must always hold:
//!
//! 1. A device has one registration at most, and it speaks by one connection.
//! 2. Within a boot no attempt is replaced by one that is not higher.
//! 3. A boot that another one replaced does not displace it while that is remembered (the later arrival wins once).
//! 4. A connection speaks for a device only if a holder of the key registered on it, at this base (section 12).
//! 5. A cookie whose session was replaced or has ended places nobody over UDP.
//! 6. A binding outlives a replacement only if the boot replaced itself.
//! 7. Whoever loses a connection by a replacement, or is refused for one, is told so: ERROR 8 or 9.
//! 8. A clone is told to both: ERROR 9 to the one that returns, NOTICE 1 to the one that stays.
//! 9. Whatever came before: a host that starts anew is registered at its first attempt, and the registered one stays so by
//!    its next.
//!
//! Not here: limits and budgets, what peers are told, INFO (registered hosts are taken to send it).

use std::collections::BTreeSet;

use stateright::{Model, Property};

/// Processes with the device's key.
pub const BOOTS: usize = 2;
/// Ticks for which a replaced boot is remembered: a tick is half of `base::REPLACED_MEMORY`, long enough for everything
/// else to lapse.
const REMEMBERED: u8 = 2;

/// A rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weakening {
    /// Within a boot the later arrival wins, whatever its attempt.
    LowerAttemptWins,
    /// Replaced boots are not remembered.
    ComebackWins,
    /// The cookie is not part of what is signed.
    CookieNotSigned,
    /// The base is not part of what is signed.
    BaseNotSigned,
    /// The connection that lost stays open.
    LoserStays,
    /// The cookie of who lost still places.
    CookieSurvives,
    /// Another boot inherits, too.
    OtherBootInherits,
    /// The loser's connection is closed without a word.
    LoserNotTold,
    /// The registered one does not hear of a clone.
    CloneNotNoticed,
}

impl Weakening {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::LowerAttemptWins,
        Self::ComebackWins,
        Self::CookieNotSigned,
        Self::BaseNotSigned,
        Self::LoserStays,
        Self::CookieSurvives,
        Self::OtherBootInherits,
        Self::LoserNotTold,
        Self::CloneNotNoticed,
    ];

    /// The property that does not hold without the rule.
    #[must_use]
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::LowerAttemptWins => HIGHER_WINS,
            Self::ComebackWins => NO_COMEBACK,
            Self::CookieNotSigned | Self::BaseNotSigned => KEY_HOLDER,
            Self::LoserStays => ONE,
            Self::CookieSurvives => DEAD_COOKIE,
            Self::OtherBootInherits => INHERITS_FROM_ITSELF,
            Self::LoserNotTold => TOLD,
            Self::CloneNotNoticed => CLONE_NOTICED,
        }
    }

    /// A small scenario that shows it.
    #[must_use]
    pub fn shown(self) -> Scenario {
        let quiet = Scenario { conns: 3, without: Some(self), ..Scenario::quiet() };
        match self {
            Self::CookieNotSigned => Scenario { attacker_conns: 1, ..quiet },
            Self::BaseNotSigned => Scenario { attacker_conns: 1, evil_base: EvilBase::IdKnown, ..quiet },
            _ => quiet,
        }
    }
}

/// A base of the attacker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EvilBase {
    /// There is none.
    None,
    /// The host knows its ID: written by the user, or remembered.
    IdKnown,
    /// The host goes there without knowing its ID: it may name any.
    IdUnknown,
}

/// What is explored.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Connections in all.
    pub conns: usize,
    /// How many of them the attacker may open.
    pub attacker_conns: usize,
    /// REGISTERs of each boot.
    pub attempts: u8,
    /// How often time passes.
    pub ticks: u8,
    /// A base of the attacker's.
    pub evil_base: EvilBase,
    /// The rule that is left out.
    pub without: Option<Weakening>,
}

impl Scenario {
    /// Two boots that restart, return and overtake themselves.
    #[must_use]
    pub const fn quiet() -> Self {
        Self { conns: 4, attacker_conns: 0, attempts: 3, ticks: 2, evil_base: EvilBase::None, without: None }
    }

    /// What is searched to the end, by name.
    #[must_use]
    pub fn all() -> Vec<(&'static str, Self)> {
        let attacker = Self { attacker_conns: 1, attempts: 2, ticks: 1, ..Self::quiet() };
        vec![
            ("two boots", Self::quiet()),
            ("an attacker who saw all", attacker.clone()),
            ("with a base of his own", Self { conns: 3, evil_base: EvilBase::IdKnown, ..attacker.clone() }),
            ("whose ID is not known", Self { conns: 3, evil_base: EvilBase::IdUnknown, ..attacker }),
        ]
    }

    fn lacks(&self, rule: Weakening) -> bool {
        self.without == Some(rule)
    }
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A process with the device's key.
    Boot(u8),
    /// Somebody without it.
    Attacker,
}

/// The base that a REGISTER is signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BaseName {
    /// The one of this model.
    This,
    /// The attacker's.
    Evil,
}

/// REGISTER, signed. A cookie is named by the number of the connection that it was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Register {
    /// For this base.
    pub base: BaseName,
    /// On the connection with this cookie.
    pub cookie: u8,
    /// By this process.
    pub boot: u8,
    /// Its number in that process, from 1.
    pub attempt: u8,
}

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conn {
    /// It has its cookie; perhaps REGISTER is on its way.
    CookieGiven(Option<u8>),
    /// It speaks for the device.
    Registered,
    /// It ended.
    Closed,
}

/// What the base says on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reply {
    /// REGISTERED.
    Registered,
    /// ERROR and the end.
    Error(u8),
    /// NOTICE 1.
    KeyInUse,
}

/// The registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// The process.
    pub boot: u8,
    /// Its attempt.
    pub attempt: u8,
    cookie: u8,
    /// Its connection; none, once that is lost and UDP vouches for the device.
    pub conn: Option<u8>,
    /// The boot whose NAT-CONFIRM made the binding, if there is one.
    pub binding: Option<u8>,
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// All connections to the base, by number.
    pub conns: Vec<(Owner, Conn)>,
    /// The registration, if there is one.
    pub device: Option<Device>,
    cookies: BTreeSet<u8>,
    replaced: [u8; BOOTS + 1],
    attempts: [u8; BOOTS],
    captured: BTreeSet<Register>,
    ticks: u8,
    seen: Seen,
}

/// What the properties need to know of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Seen {
    /// Ticks since a boot was displaced by another, kept apart from the base's own memory.
    displaced: [Option<u8>; BOOTS + 1],
    lowered: bool,
    comeback_won: bool,
    returned_later: bool,
    dead_cookie_placed: bool,
    not_told: bool,
    clone_not_noticed: bool,
    refused: BTreeSet<u8>,
    again: bool,
    outlived: bool,
    forged_refused: bool,
}

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Somebody connects and gets a cookie.
    Dials(Owner),
    /// REGISTER leaves on a connection.
    Sends(u8),
    /// It arrives.
    Arrives(u8),
    /// The attacker sends what he saw on a connection of his own.
    Replay(u8, Register),
    /// A boot is at the attacker's base, which gives it the cookie of a connection of his, and names a base.
    Signs(u8, u8, BaseName),
    /// A connection is lost.
    Lost(u8),
    /// LEAVE.
    Leaves(u8),
    /// NAT-INIT and NAT-CONFIRM with a connection's cookie.
    Udp(u8),
    /// Time passes.
    Tick,
}

impl State {
    fn close(&mut self, conn: u8) {
        self.conns[usize::from(conn)].1 = Conn::Closed;
    }

    fn forget(&mut self) {
        if let Some(device) = self.device.take() {
            self.cookies.remove(&device.cookie);
        }
    }

    fn registered(&self) -> impl Iterator<Item = u8> {
        let all = (0..).zip(&self.conns);
        all.filter(|(_, (_, conn))| *conn == Conn::Registered).map(|(number, _)| number)
    }
}

impl Scenario {
    /// What happens, and what the base says.
    #[must_use]
    pub fn step(&self, state: &State, action: Action) -> (State, Vec<(u8, Reply)>) {
        let mut next = state.clone();
        let mut said = Vec::new();
        match action {
            Action::Dials(owner) => next.conns.push((owner, Conn::CookieGiven(None))),
            Action::Sends(conn) => self.send(&mut next, conn),
            Action::Signs(boot, cookie, base) => {
                let attempt = next.attempts[usize::from(boot)] + 1;
                next.attempts[usize::from(boot)] = attempt;
                next.captured.insert(Register { base, cookie, boot, attempt });
            }
            Action::Arrives(conn) => {
                if let (Owner::Boot(boot), Conn::CookieGiven(Some(attempt))) = next.conns[usize::from(conn)] {
                    let register = Register { base: BaseName::This, cookie: conn, boot, attempt };
                    said = self.handle_register(&mut next, conn, register);
                    note(state, &mut next, conn, &said);
                }
            }
            Action::Replay(conn, register) => {
                said = self.handle_register(&mut next, conn, register);
                note(state, &mut next, conn, &said);
                next.seen.forged_refused |= said.contains(&(conn, Reply::Error(3)));
            }
            Action::Lost(conn) => {
                next.close(conn);
                if let Some(device) = next.device.as_mut().filter(|d| d.conn == Some(conn)) {
                    device.conn = None;
                    if device.binding.is_none() {
                        next.forget();
                    }
                }
                next.seen.outlived |= next.device.is_some_and(|d| d.conn.is_none());
            }
            Action::Leaves(conn) => {
                next.close(conn);
                next.forget();
            }
            Action::Udp(conn) => self.udp(&mut next, conn),
            Action::Tick => said = tick(&mut next),
        }
        (next, said)
    }

    fn send(&self, next: &mut State, conn: u8) {
        if let (Owner::Boot(boot), Conn::CookieGiven(sent @ None)) = &mut next.conns[usize::from(conn)] {
            let attempt = next.attempts[usize::from(*boot)] + 1;
            next.attempts[usize::from(*boot)] = attempt;
            *sent = Some(attempt);
            if self.attacker_conns > 0 {
                next.captured.insert(Register { base: BaseName::This, cookie: conn, boot: *boot, attempt });
            }
        }
    }

    fn udp(&self, next: &mut State, conn: u8) {
        if !next.cookies.contains(&conn) {
            return;
        }
        let Owner::Boot(boot) = next.conns[usize::from(conn)].0 else { return };
        let Some(device) = &mut next.device else { return };
        device.binding = Some(boot);
        next.seen.dead_cookie_placed |= device.cookie != conn;
    }

    fn handle_register(&self, next: &mut State, conn: u8, register: Register) -> Vec<(u8, Reply)> {
        let for_this = register.base == BaseName::This || self.lacks(Weakening::BaseNotSigned);
        let for_here = register.cookie == conn || self.lacks(Weakening::CookieNotSigned);
        if !for_this || !for_here {
            next.close(conn);
            return vec![(conn, Reply::Error(3))];
        }
        self.take_over(next, conn, register)
    }

    fn take_over(&self, next: &mut State, conn: u8, register: Register) -> Vec<(u8, Reply)> {
        let Register { boot, attempt, .. } = register;
        let mut said = Vec::new();
        let mut binding = None;
        match next.device {
            None => {}
            Some(old) if old.boot == boot => {
                if attempt <= old.attempt && !self.lacks(Weakening::LowerAttemptWins) {
                    next.close(conn);
                    return vec![(conn, Reply::Error(8))];
                }
                binding = old.binding;
                said.extend(self.oust(next, old));
            }
            Some(old) if next.replaced[usize::from(boot)] > 0 && !self.lacks(Weakening::ComebackWins) => {
                next.close(conn);
                if let Some(stays) = old.conn
                    && !self.lacks(Weakening::CloneNotNoticed)
                {
                    said.push((stays, Reply::KeyInUse));
                }
                said.push((conn, Reply::Error(9)));
                return said;
            }
            Some(old) => {
                next.replaced[usize::from(old.boot)] = REMEMBERED;
                if self.lacks(Weakening::OtherBootInherits) {
                    binding = old.binding;
                }
                said.extend(self.oust(next, old));
            }
        }
        next.device = Some(Device { boot, attempt, cookie: conn, conn: Some(conn), binding });
        next.replaced[usize::from(boot)] = 0;
        next.cookies.insert(conn);
        next.conns[usize::from(conn)].1 = Conn::Registered;
        said.push((conn, Reply::Registered));
        said
    }

    /// The registered one has lost.
    fn oust(&self, next: &mut State, old: Device) -> Option<(u8, Reply)> {
        if !self.lacks(Weakening::CookieSurvives) {
            next.cookies.remove(&old.cookie);
        }
        let loser = old.conn?;
        if !self.lacks(Weakening::LoserStays) {
            next.close(loser);
        }
        (!self.lacks(Weakening::LoserNotTold)).then_some((loser, Reply::Error(8)))
    }

    /// A host that starts anew, and one that goes on, register with nobody in their way.
    fn recovers(&self, state: &State) -> bool {
        let try_register = |state: &mut State, boot: u8, attempt: u8| {
            let conn = state.conns.len() as u8;
            state.conns.push((Owner::Boot(boot), Conn::CookieGiven(Some(attempt))));
            let register = Register { base: BaseName::This, cookie: conn, boot, attempt };
            self.handle_register(state, conn, register).contains(&(conn, Reply::Registered))
        };
        let mut anew = state.clone();
        let mut goes_on = state.clone();
        let next_attempt = state.device.map(|d| (d.boot, self.attempts.max(d.attempt) + 1));
        try_register(&mut anew, BOOTS as u8, 1)
            && next_attempt.is_none_or(|(boot, attempt)| try_register(&mut goes_on, boot, attempt))
    }
}

/// Half of what a replaced boot is remembered for: bindings, waiting connections and what outlived its own are gone.
fn tick(next: &mut State) -> Vec<(u8, Reply)> {
    next.ticks += 1;
    let mut said = Vec::new();
    for (number, (_, conn)) in (0..).zip(&mut next.conns) {
        if matches!(conn, Conn::CookieGiven(_)) {
            *conn = Conn::Closed;
            said.push((number, Reply::Error(10)));
        }
    }
    if let Some(device) = &mut next.device {
        device.binding = None;
        if device.conn.is_none() {
            next.forget();
        }
    }
    for boot in 0..=BOOTS {
        next.replaced[boot] = next.replaced[boot].saturating_sub(1);
        next.seen.displaced[boot] = next.seen.displaced[boot].map(|ticks| ticks + 1);
    }
    said
}

/// A REGISTER was handled.
fn note(before: &State, next: &mut State, conn: u8, said: &[(u8, Reply)]) {
    let mut seen = std::mem::take(&mut next.seen);
    seen.note(before, next, conn, said);
    next.seen = seen;
}

impl Seen {
    fn note(&mut self, before: &State, after: &State, conn: u8, said: &[(u8, Reply)]) {
        self.refused.extend(said.iter().filter_map(|&(_, reply)| match reply {
            Reply::Error(code) => Some(code),
            Reply::Registered | Reply::KeyInUse => None,
        }));
        let refused = after.conns[usize::from(conn)].1 == Conn::Closed;
        let told = |conn| said.iter().any(|&(to, reply)| to == conn && matches!(reply, Reply::Error(_)));
        let spoke_before = before.device.and_then(|d| d.conn);
        let replaced = before.device.is_some() && !refused;
        self.not_told |= (refused && !told(conn)) || (replaced && spoke_before.is_some_and(|c| !told(c)));
        self.clone_not_noticed |= said.contains(&(conn, Reply::Error(9)))
            && spoke_before.is_some_and(|stays| !said.contains(&(stays, Reply::KeyInUse)));
        let (Some(now), false) = (after.device, refused) else { return };
        if let Some(old) = before.device {
            if old.boot == now.boot {
                self.lowered |= now.attempt <= old.attempt;
                self.again |= now.attempt > old.attempt && now.binding.is_some();
            } else {
                let ticks = self.displaced[usize::from(now.boot)];
                self.comeback_won |= ticks.is_some_and(|ticks| ticks < REMEMBERED);
                self.returned_later |= ticks.is_some_and(|ticks| ticks >= REMEMBERED);
                self.displaced[usize::from(old.boot)] = Some(0);
            }
        }
        self.displaced[usize::from(now.boot)] = None;
    }
}

/// 1.
pub const ONE: &str = "a device has one registration, and one connection speaks for it";
/// 2.
pub const HIGHER_WINS: &str = "within a boot only a higher attempt replaces";
/// 3.
pub const NO_COMEBACK: &str =
    "a boot that was replaced does not displace who replaced it while that is remembered";
/// 4.
pub const KEY_HOLDER: &str = "a connection speaks for a device only if a holder of its key registered on it";
/// 5.
pub const DEAD_COOKIE: &str = "a cookie whose session ended places nobody";
/// 6.
pub const INHERITS_FROM_ITSELF: &str = "a binding belongs to the boot that is registered";
/// 7.
pub const TOLD: &str = "who loses a connection by a replacement or is refused is told why";
/// 8.
pub const CLONE_NOTICED: &str = "the registered one hears of a clone";
/// 9.
pub const RECOVERS: &str =
    "who starts anew is registered at once, and who is registered stays so by its next attempt";

/// Possible: a boot replaces itself and keeps its binding.
pub const POSSIBLE_AGAIN: &str = "possible: a boot replaces itself and keeps its binding";
/// Possible: REGISTERs overtake each other.
pub const POSSIBLE_LATE: &str = "possible: a late attempt or a loser gets ERROR 8";
/// Possible: a clone is noticed.
pub const POSSIBLE_CLONE: &str = "possible: a clone gets ERROR 9";
/// Possible: after the memory's time it is a newcomer.
pub const POSSIBLE_RETURN: &str = "possible: a replaced boot returns once nobody remembers it";
/// Possible: UDP vouches for a device.
pub const POSSIBLE_OUTLIVES: &str =
    "possible: a registration outlives its connection while UDP vouches for it";
/// Possible: the attacker tries and fails.
pub const POSSIBLE_FORGED: &str = "possible: a REGISTER seen elsewhere is refused";
/// Admitted: who sends his host to a base without its ID trusts that base.
pub const ADMITTED_ID_UNKNOWN: &str =
    "admitted: a base whose ID the host does not know registers as the host at another base";

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            conns: Vec::new(),
            device: None,
            cookies: BTreeSet::new(),
            replaced: [0; BOOTS + 1],
            attempts: [0; BOOTS],
            captured: BTreeSet::new(),
            ticks: 0,
            seen: Seen::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.ticks < self.ticks {
            actions.push(Action::Tick);
        }
        let of_attacker = |(owner, _): &&(Owner, Conn)| *owner == Owner::Attacker;
        if state.conns.len() < self.conns {
            actions.extend((0..BOOTS as u8).map(|boot| Action::Dials(Owner::Boot(boot))));
            if state.conns.iter().filter(of_attacker).count() < self.attacker_conns {
                actions.push(Action::Dials(Owner::Attacker));
            }
        }
        for (number, &(owner, conn)) in (0..).zip(&state.conns) {
            self.on_connection(state, number, owner, conn, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let (next, _) = self.step(state, action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(ONE, |_, s: &State| {
                let speaks: Vec<u8> = s.registered().collect();
                speaks.len() <= 1 && s.device.and_then(|d| d.conn) == speaks.first().copied()
            }),
            Property::always(HIGHER_WINS, |_, s: &State| !s.seen.lowered),
            Property::always(NO_COMEBACK, |_, s: &State| !s.seen.comeback_won),
            Property::always(DEAD_COOKIE, |_, s: &State| !s.seen.dead_cookie_placed),
            Property::always(INHERITS_FROM_ITSELF, |_, s: &State| {
                s.device.is_none_or(|d| d.binding.is_none_or(|boot| boot == d.boot))
            }),
            Property::always(TOLD, |_, s: &State| !s.seen.not_told),
            Property::always(CLONE_NOTICED, |_, s: &State| !s.seen.clone_not_noticed),
            Property::always(RECOVERS, |scenario: &Self, s: &State| scenario.recovers(s)),
            Property::sometimes(POSSIBLE_AGAIN, |_, s: &State| s.seen.again),
            Property::sometimes(POSSIBLE_LATE, |_, s: &State| s.seen.refused.contains(&8)),
            Property::sometimes(POSSIBLE_CLONE, |_, s: &State| s.seen.refused.contains(&9)),
            Property::sometimes(POSSIBLE_OUTLIVES, |_, s: &State| s.seen.outlived),
        ];
        if self.ticks >= REMEMBERED {
            all.push(Property::sometimes(POSSIBLE_RETURN, |_, s: &State| s.seen.returned_later));
        }
        if self.attacker_conns > 0 {
            all.push(Property::sometimes(POSSIBLE_FORGED, |_, s: &State| s.seen.forged_refused));
        }
        if self.evil_base == EvilBase::IdUnknown {
            all.push(Property::sometimes(ADMITTED_ID_UNKNOWN, |_, s: &State| {
                s.registered().any(|conn| s.conns[usize::from(conn)].0 == Owner::Attacker)
            }));
        } else {
            all.push(Property::always(KEY_HOLDER, |_, s: &State| {
                s.registered().all(|conn| match s.conns[usize::from(conn)].0 {
                    Owner::Attacker => false,
                    Owner::Boot(boot) => s.device.is_some_and(|d| d.boot == boot),
                })
            }));
        }
        all
    }
}

impl Scenario {
    fn on_connection(&self, state: &State, number: u8, owner: Owner, conn: Conn, actions: &mut Vec<Action>) {
        match (owner, conn) {
            (Owner::Boot(boot), Conn::CookieGiven(None)) => {
                if state.attempts[usize::from(boot)] < self.attempts {
                    actions.push(Action::Sends(number));
                }
                actions.push(Action::Lost(number));
            }
            (Owner::Boot(_), Conn::CookieGiven(Some(_))) => {
                actions.extend([Action::Arrives(number), Action::Lost(number)]);
            }
            (Owner::Boot(_), Conn::Registered) => {
                actions.extend([Action::Udp(number), Action::Lost(number), Action::Leaves(number)]);
            }
            // What is on its way over UDP does not know that its session has ended.
            (Owner::Boot(_), Conn::Closed) => actions.push(Action::Udp(number)),
            (Owner::Attacker, Conn::CookieGiven(_)) => {
                actions.extend(state.captured.iter().map(|&register| Action::Replay(number, register)));
                let names: &[BaseName] = match self.evil_base {
                    EvilBase::None => &[],
                    EvilBase::IdKnown => &[BaseName::Evil],
                    EvilBase::IdUnknown => &[BaseName::Evil, BaseName::This],
                };
                for boot in 0..BOOTS as u8 {
                    if state.attempts[usize::from(boot)] < self.attempts {
                        actions.extend(names.iter().map(|&name| Action::Signs(boot, number, name)));
                    }
                }
            }
            (Owner::Attacker, Conn::Registered | Conn::Closed) => {}
        }
    }
}
