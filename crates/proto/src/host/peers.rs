//! All peers: who gets state, what HELLOs may cost, whose source address is whose, and the index of deadlines.
//!
//! What comes from other hosts is in `heard`.

mod heard;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    ConnId, Event, Hop, Lease, Output, Path, SendError, Sizes, Traffic,
    bases::Bases,
    candidate::Judge,
    config::{MAX_ASKING_PEERS, MAX_GIVEN, MAX_PEERS, PEER_HELD, ROOM_LOOK, WANTED_TAKEN},
    context::Context,
    link::Link,
    locals::{Change, Locals},
    path::Standing,
    peer::{Activity, Due, Mapping, Peer, Role},
    sources::Sources,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::{
        MAX_BASE_ADDRESSES,
        tcp::{self, DeviceAddresses},
    },
};

/// What peers need to know of the session with the base.
#[derive(Debug)]
pub(super) struct RelayView {
    /// The way small messages take through the base.
    pub(super) path: Path,
    conn: Option<ConnId>,
    base: Option<IpAddr>,
    /// As its UDP addresses see us, and as it sees us over TCP.
    reflexive: [Option<IpAddr>; MAX_BASE_ADDRESSES + 1],
    /// When something last came from it.
    pub(super) heard: Option<Instant>,
    /// What its UDP addresses show of our NAT.
    pub(super) mapping: Mapping,
}

impl RelayView {
    pub(super) fn of(bases: &Bases, now: Instant) -> Self {
        let Some(session) = bases.session().or_else(|| bases.lingering()) else {
            return Self {
                path: Path::None,
                conn: None,
                base: None,
                reflexive: Default::default(),
                heard: None,
                mapping: Mapping::Unknown,
            };
        };
        let conn = bases.session().map(|s| s.conn);
        let path = match conn {
            _ if session.bindings.is_usable(now) => Path::RelayUdp,
            Some(_) => Path::RelayTcp,
            None => Path::None,
        };
        let mut reflexive = [None; MAX_BASE_ADDRESSES + 1];
        let seen = session.bindings.reflexive().chain([session.seen]).map(|address| Some(address.ip()));
        reflexive.iter_mut().zip(seen).for_each(|(slot, ip)| *slot = ip);
        let mapping = Mapping::of(session.bindings.reflexive());
        let heard = if conn.is_some() { Some(session.last_heard()) } else { session.bindings.last_heard() };
        Self { path, conn, base: Some(session.remote.ip()), reflexive, heard, mapping }
    }
}

/// All peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    map: BTreeMap<DeviceId, Peer>,
    due: BTreeSet<(Instant, DeviceId)>,
    sources: Sources,
    wanted: Bucket,
    /// All were in use: until then nobody looks again whether one still is.
    full_until: Option<Instant>,
    /// Peers whose lease is no longer as it was given out. Only those that one was given for: who asks for none owes
    /// nothing here.
    revoked: Vec<DeviceId>,
    pub(super) link: Link,
}

impl Peers {
    // --- Leases ----------------------------------------------------------------------------------------------------

    /// What may be done on the direct path without asking; its changes are told from now on.
    pub(super) fn lease(&mut self, id: DeviceId) -> Option<Lease> {
        let peer = self.map.get_mut(&id)?;
        peer.leased = peer.lease(&self.sources);
        peer.leased
    }

    pub(super) fn pop_revoked(&mut self) -> Option<DeviceId> {
        self.revoked.pop()
    }

    /// What went over a lease. Counts as use of the peer, and as signs of life and of waiting if the path is still that one.
    pub(super) fn handle_traffic(&mut self, id: DeviceId, traffic: &Traffic) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        peer.used = peer.used.max(traffic.last);
        if traffic.heard.is_some() {
            peer.note_heard();
        }
        if let Some(standing) = peer.direct.as_mut().filter(|s| s.hop == traffic.hop) {
            if let Some(heard) = traffic.heard {
                standing.note_data(heard);
            }
            if let Some(since) = traffic.unanswered {
                standing.note_sent(since);
            }
        }
        self.reschedule(id);
    }

    /// Tells if a peer's lease is no longer as it was given out. Part of [`Self::reschedule`], which follows every change.
    fn check_lease(&mut self, id: DeviceId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if peer.leased.is_some() && peer.leased != peer.lease(&self.sources) {
            peer.leased = None;
            self.revoked.push(id);
        }
    }

    // --- Sending ---------------------------------------------------------------------------------------------------

    /// The direct hop for a message, if there is one, and whether it is suspect. Counts as use of the peer.
    pub(super) fn direct_route(
        &mut self,
        id: DeviceId,
        length: usize,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) -> Result<Option<(Hop, bool)>, SendError> {
        self.want(id, relay, ctx, now)?;
        let Some(peer) = self.map.get_mut(&id) else { return Ok(None) };
        let route = peer.direct_route(length, relay.path == Path::None, now);
        peer.report(relay.path, "the relay is the way at present", ctx, now);
        self.reschedule(id);
        Ok(route)
    }

    /// The direct hop for a message that nothing else carries, though its size has not been proven there.
    pub(super) fn direct_alone(&mut self, id: DeviceId, length: usize, now: Instant) -> Option<Hop> {
        let (hop, _) = self.map.get_mut(&id)?.direct_route(length, true, now)?;
        self.reschedule(id);
        Some(hop)
    }

    /// Where a message that takes the relay because the path is suspect goes in place of that path, if the peer has moved.
    pub(super) fn early(&mut self, id: DeviceId, length: usize, now: Instant) -> Option<Hop> {
        self.map.get_mut(&id)?.early.take(length, now)
    }

    /// This peer is used: it becomes (or stays) active and wanted.
    pub(super) fn want(
        &mut self,
        id: DeviceId,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) -> Result<(), SendError> {
        if let Some(peer) = self.map.get_mut(&id)
            && peer.role == Role::Wanted
            && peer.is_active()
        {
            peer.used = now;
            return Ok(());
        }
        if !self.map.contains_key(&id) && !self.make_room(Role::Wanted, relay, ctx, now) {
            return Err(SendError::TooManyPeers { limit: MAX_PEERS });
        }
        self.activate(id, Role::Wanted, relay, ctx, now);
        Ok(())
    }

    /// Makes a peer active in this role (or a better one it has already), and starts what that means.
    fn activate(&mut self, id: DeviceId, role: Role, relay: &RelayView, ctx: &mut Context, now: Instant) {
        let peer = self.map.entry(id).or_insert_with(|| Peer::new(id, role, now));
        // Idle ones are not tried at all, asking ones five times: both begin anew.
        let begins_anew = !peer.is_active() || (role == Role::Wanted && peer.role == Role::Asking);
        if role == Role::Wanted {
            peer.role = role;
        }
        peer.activity = Activity::Active;
        peer.used = now;
        let given = ctx.config.given.iter().filter(|(device, _)| *device == id).map(|&(_, address)| address);
        peer.known.given = given.take(MAX_GIVEN).collect();
        peer.known.link = self.link.candidates(id, now);
        if ctx.config.direct {
            if let (Some(conn), false) = (relay.conn, peer.requested) {
                let mut frames = Vec::new();
                tcp::write_request_info(&mut frames, id);
                ctx.push(Output::Write { conn, frames });
                peer.requested = true;
            }
            rebuild(peer, relay, ctx, now);
            if begins_anew {
                peer.restart_pairs(now);
            }
        }
        self.reschedule(id);
    }

    /// Room for one more peer: the one worth least goes, of those that are idle, only asking, or not used for a while and not named. One that
    /// only asks does not take the place of one at work.
    fn make_room(&mut self, role: Role, relay: &RelayView, ctx: &mut Context, now: Instant) -> bool {
        if self.map.len() < MAX_PEERS {
            return true;
        }
        if role == Role::Wanted && self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        let unused = |p: &Peer| p.used + PEER_HELD <= now && !ctx.names(p.id);
        let asks =
            |p: &Peer| p.role == Role::Asking && !(role == Role::Asking && p.is_at_work(&self.sources, now));
        let evictable = self.map.values().filter(|&p| !p.is_active() || asks(p) || unused(p));
        let Some(id) = evictable.min_by_key(|p| p.worth()).map(|p| p.id) else {
            if role == Role::Wanted {
                self.full_until = Some(now + ROOM_LOOK);
            }
            return false;
        };
        self.forget(id, relay, ctx);
        true
    }

    fn forget(&mut self, id: DeviceId, relay: &RelayView, ctx: &mut Context) {
        let Some(mut peer) = self.map.remove(&id) else { return };
        release(&mut peer, relay, ctx);
        peer.direct = None;
        peer.stop_punching(ctx);
        if peer.leased.is_some() {
            self.revoked.push(id);
        }
        if let Some(at) = peer.scheduled {
            self.due.remove(&(at, id));
        }
        for from in peer.claims.iter().chain(peer.proofs.iter().map(|(from, _)| from)) {
            self.sources.release(*from, id);
        }
    }

    // --- From the base -----------------------------------------------------------------------------------------------

    /// A session stands: every active peer is asked for again, in one write.
    pub(super) fn handle_registered(&mut self, relay: &RelayView, ctx: &mut Context, now: Instant) {
        let mut frames = Vec::new();
        for peer in self.map.values_mut() {
            peer.requested = peer.is_active() && ctx.config.direct;
            peer.takes_joined_relayed = false;
            if peer.requested {
                tcp::write_request_info(&mut frames, peer.id);
            }
        }
        if let (Some(conn), false) = (relay.conn, frames.is_empty()) {
            ctx.push(Output::Write { conn, frames });
        }
        self.report_all(relay, "registered at a base", ctx, now);
        self.handle_came_back(now);
    }

    /// The way to the base is open again.
    pub(super) fn handle_came_back(&mut self, now: Instant) {
        let ids: Vec<DeviceId> = self.map.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.map.get_mut(&id) {
                peer.handle_came_back(now);
            }
            self.reschedule(id);
        }
    }

    pub(super) fn report_all(
        &mut self,
        relay: &RelayView,
        reason: &'static str,
        ctx: &mut Context,
        now: Instant,
    ) {
        for peer in self.map.values_mut().filter(|p| p.is_active() && p.role == Role::Wanted) {
            peer.report(relay.path, reason, ctx, now);
        }
    }

    /// A device asks for us. If it is allowed, we ask back: then both learn the other's addresses.
    pub(super) fn handle_wanted(&mut self, id: DeviceId, relay: &RelayView, ctx: &mut Context, now: Instant) {
        if id == ctx.id || !ctx.config.direct {
            return;
        }
        if !ctx.allows(id) {
            ctx.counters.not_allowed += 1;
            return;
        }
        if self.map.get(&id).is_some_and(Peer::is_active) || !self.wanted.take(WANTED_TAKEN, now) {
            return;
        }
        let role = if ctx.names(id) { Role::Wanted } else { Role::Asking };
        if self.map.contains_key(&id) || self.make_room_for_asking(relay, ctx, now) {
            self.activate(id, role, relay, ctx, now);
        }
    }

    fn make_room_for_asking(&mut self, relay: &RelayView, ctx: &mut Context, now: Instant) -> bool {
        let asking = self.map.values().filter(|p| p.role == Role::Asking);
        if asking.clone().count() < MAX_ASKING_PEERS {
            return self.make_room(Role::Asking, relay, ctx, now);
        }
        let spare = asking.filter(|p| !p.is_at_work(&self.sources, now));
        let Some(id) = spare.min_by_key(|p| p.worth()).map(|p| p.id) else { return false };
        ctx.counters.peers_evicted += 1;
        self.forget(id, relay, ctx);
        true
    }

    /// Where a peer is, as the base says.
    pub(super) fn handle_addresses(
        &mut self,
        told: DeviceAddresses,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) {
        let id = told.device;
        let Some(peer) = self.map.get_mut(&id).filter(|p| p.requested) else {
            ctx.counters.base_stray += 1;
            return;
        };
        peer.online = Some(told.online);
        // Who is gone, or no longer wants us, may go on as an older program, and nobody would say so.
        peer.takes_joined_relayed = told.joined;
        if !told.online {
            // Gone or no longer interested: the key and a standing path are kept.
            return;
        }
        peer.introduction = told.introduction;
        let (reflexive, own) = (canonical(told.reflexive), canonical(told.own));
        let stands = peer.direct.as_ref().map(|standing| standing.hop.to);
        let was_known = stands.is_some_and(|to| peer.known.has(to, &ctx.locals));
        let reached: Vec<_> = reflexive.iter().map(|&address| ctx.locals.reach(address)).collect();
        let moved_to = moved_to(peer, &reached, ctx, &self.sources, now);
        peer.early.keep(&reached);
        if peer.known.reflexive != reflexive {
            peer.restart_punching(ctx);
        }
        peer.known.reflexive = reflexive;
        peer.known.own = own;
        let left_behind = was_known && stands.is_some_and(|to| !peer.known.has(to, &ctx.locals));
        rebuild(peer, relay, ctx, now);
        if left_behind && peer.is_active() {
            peer.doubt(now);
            if let Some(to) = moved_to.filter(|_| peer.direct.as_ref().is_some_and(Standing::is_suspect)) {
                peer.early.name(to, now);
            }
            peer.report(relay.path, "the peer has moved", ctx, now);
        }
        self.reschedule(id);
    }

    // --- Changes -----------------------------------------------------------------------------------------------------

    /// The network changed.
    pub(super) fn handle_network(
        &mut self,
        change: Change,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) {
        let ids: Vec<DeviceId> = self.map.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.map.get(&id).filter(|_| ctx.config.direct) else { continue };
            let lost =
                peer.direct.as_ref().is_some_and(|s| s.hop.source.is_some_and(|ip| !ctx.locals.has(ip)));
            if change == Change::Links && !lost {
                continue;
            }
            let candidates = self.link.candidates(id, now);
            let Some(peer) = self.map.get_mut(&id) else { continue };
            peer.known.link = candidates;
            let peer_reflexive = peer.known.reflexive.clone();
            let judge = judge(relay, &peer_reflexive, ctx);
            if change == Change::Moved || lost {
                peer.handle_moved(&judge, now);
                peer.stop_punching(ctx);
                peer.report(relay.path, "this device has moved", ctx, now);
            } else {
                peer.rebuild(&judge, now);
            }
            self.reschedule(id);
        }
    }

    /// The user allowed direct paths, or forbade them.
    pub(super) fn handle_direct_switched(&mut self, relay: &RelayView, ctx: &mut Context, now: Instant) {
        let ids: Vec<DeviceId> = self.map.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.map.get_mut(&id) else { continue };
            if ctx.config.direct {
                if peer.is_active() {
                    let (role, used) = (peer.role, peer.used);
                    peer.restart_pairs(now);
                    self.activate(id, role, relay, ctx, now);
                    if let Some(peer) = self.map.get_mut(&id) {
                        peer.used = used;
                    }
                }
                continue;
            }
            peer.forbid_direct();
            peer.stop_punching(ctx);
            release(peer, relay, ctx);
            peer.report(relay.path, "direct paths are switched off", ctx, now);
            self.reschedule(id);
        }
    }

    pub(super) fn handle_send_error(
        &mut self,
        hop: Hop,
        error: &str,
        too_large: bool,
        relay: &RelayView,
        ctx: &mut Context,
        now: Instant,
    ) {
        let Some(id) = self.sources.owner(hop.to, now).or_else(|| self.with_pair(hop)) else { return };
        let Some(peer) = self.map.get_mut(&id) else { return };
        if peer.handle_send_error(hop, error, too_large, now) {
            peer.report(relay.path, "the system cannot send there", ctx, now);
        }
        peer.report_size(ctx);
        self.reschedule(id);
    }

    fn with_pair(&self, hop: Hop) -> Option<DeviceId> {
        self.map.values().find(|p| p.has_pair(hop)).map(|p| p.id)
    }

    // --- Time --------------------------------------------------------------------------------------------------------

    /// Does what is due. `true`: a path went silent in the middle of a talk. Perhaps a router in between has restarted, and the way to
    /// the base goes through it, too.
    pub(super) fn tick(&mut self, relay: &RelayView, ctx: &mut Context, now: Instant) -> bool {
        let mut went_silent = false;
        self.link.tick(ctx, now);
        while let Some(&(at, id)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(peer) = self.map.get_mut(&id) else { continue };
            peer.scheduled = None;
            match peer.tick(relay, ctx, now) {
                Due::Nothing => {}
                Due::Release => release(peer, relay, ctx),
                Due::Forget => {
                    self.forget(id, relay, ctx);
                    continue;
                }
            }
            if let Some(peer) = self.map.get_mut(&id) {
                went_silent |= std::mem::take(&mut peer.went_silent);
            }
            self.reschedule(id);
        }
        went_silent
    }

    /// After every change of a peer: keeps the index of deadlines right (an entry may be early, never late) and its lease.
    fn reschedule(&mut self, id: DeviceId) {
        self.check_lease(id);
        let Some(peer) = self.map.get_mut(&id) else { return };
        let Some(at) = peer.deadline() else { return };
        match peer.scheduled {
            Some(scheduled) if scheduled <= at => {}
            scheduled => {
                if let Some(scheduled) = scheduled {
                    self.due.remove(&(scheduled, id));
                }
                self.due.insert((at, id));
                peer.scheduled = Some(at);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        super::context::earlier(self.due.first().map(|&(at, _)| at), self.link.deadline())
    }

    pub(super) fn get(&self, id: DeviceId) -> Option<&Peer> {
        self.map.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.map.values()
    }

    pub(super) fn measure(&self, sizes: &mut Sizes) {
        sizes.peers = self.map.len();
        for peer in self.map.values() {
            sizes.asking_peers += usize::from(peer.role == Role::Asking);
            sizes.pairs += peer.pair_count();
            sizes.most_pairs = sizes.most_pairs.max(peer.pair_count());
            sizes.most_tokens = sizes.most_tokens.max(peer.token_count());
            sizes.most_heard = sizes.most_heard.max(peer.heard.len());
        }
        sizes.sources = self.sources.len();
        sizes.announcements = self.link.heard_count();
    }

    pub(super) fn unreachable(&self, id: DeviceId, reason: tcp::UnreachableReason, ctx: &mut Context) {
        if self.map.contains_key(&id) {
            ctx.event(Event::Unreachable { peer: id, reason });
        }
    }

    pub(super) fn clear(&mut self) {
        let leased = self.map.values().filter(|p| p.leased.is_some()).map(|p| p.id);
        let revoked = self.revoked.iter().copied().chain(leased).collect();
        *self = Self { revoked, ..Self::default() };
    }
}

/// Where messages may follow a peer whose path is above suspicion, if it has left that path's address: what stands vouches for
/// its IP, not for any other, and not for what is somebody else's.
fn moved_to(
    peer: &Peer,
    reached: &[SocketAddr],
    ctx: &Context,
    sources: &Sources,
    now: Instant,
) -> Option<SocketAddr> {
    let ip = peer.direct.as_ref().filter(|s| !s.is_suspect())?.hop.to.ip();
    let free = |a: SocketAddr| sources.owner(a, now).is_none_or(|owner| owner == peer.id);
    reached.iter().copied().find(|&a| a.ip() == ip && !peer.known.has(a, &ctx.locals) && free(a))
}

/// Whether the system refuses a datagram for its size alone.
#[must_use]
pub fn is_too_large(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(EMSGSIZE)
}

/// What it says then.
#[must_use]
pub fn too_large() -> std::io::Error {
    std::io::Error::from_raw_os_error(EMSGSIZE)
}

/// EMSGSIZE where the standard library has no name for it.
const EMSGSIZE: i32 = if cfg!(target_os = "linux") {
    90
} else if cfg!(windows) {
    10_040
} else {
    40
};

/// The base need not tell us of this peer any more.
fn release(peer: &mut Peer, relay: &RelayView, ctx: &mut Context) {
    if let (Some(conn), true) = (relay.conn, peer.requested) {
        let mut frames = Vec::new();
        tcp::write_release_info(&mut frames, peer.id);
        ctx.push(Output::Write { conn, frames });
    }
    peer.requested = false;
    peer.takes_joined_relayed = false;
}

fn rebuild(peer: &mut Peer, relay: &RelayView, ctx: &Context, now: Instant) {
    let peer_reflexive = peer.known.reflexive.clone();
    peer.rebuild(&judge(relay, &peer_reflexive, ctx), now);
}

fn judge<'a>(relay: &'a RelayView, peer_reflexive: &'a [SocketAddr], ctx: &'a Context) -> Judge<'a> {
    Judge { locals: &ctx.locals, base: relay.base, reflexive: &relay.reflexive, peer_reflexive }
}

/// The hop for a HELLO that is drawn: the pair that is known already, or the one the HELLO came by.
fn draw_hop(peer: &Peer, came_by: Hop, locals: &Locals) -> Hop {
    let system_chooses = Hop { source: None, ..came_by };
    let is_choice = locals.sources_for(came_by.to).contains(&None);
    if is_choice || peer.has_pair(system_chooses) { system_chooses } else { came_by }
}

fn canonical(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.into_iter().map(crate::wire::addr::canonical).collect()
}
