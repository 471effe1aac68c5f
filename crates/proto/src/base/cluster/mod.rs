//! Many bases as one (protocol section 11): what a base knows of the others, and of devices that are registered there.
//!
//! The bases share a store (which base has a device, which bases live) and a bus (subjects, one of each base and
//! [`SHARDS`] for changes). Both are NATS's; this machine sees them as a port: [`BusInput`] in, [`BusOutput`] out. It never waits for
//! them. A device is registered by what its base knows at that moment; what the store says later may take that back.
//!
//! - `members`: the other bases, their leases, and whether data goes to them over UDP
//! - `claims`: the entries of our own devices in the store
//! - `remote`: devices elsewhere that somebody here cares for
//! - `pairs`: interests and addresses that cross between two bases
//! - `data`: messages from base to base
//! - `questions`: how many are asked of the store at one time, and when after it has failed
//! - `port`: what comes from store and bus, and what goes there
//!
//! Whatever the bus does to messages (late, twice, in another order, lost) does no harm: entries are ordered by their revision in
//! the store, statements by the revision of the device that they are about and the sender's number; all of it is said again now and then,
//! and all lapses by itself. State of another base is kept only for devices that somebody here wants, that want somebody
//! here, or that a message went to lately; it is bounded by [`super::BaseConfig::max_remote_devices`].

mod claims;
mod data;
mod members;
mod pairs;
mod port;
mod questions;
mod remote;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

pub(super) use claims::Claim;
pub use port::{BusInput, BusOutput, CameOver, Entry, Over, ToBase};
use rand::Rng;

use self::{members::Member, questions::Questions, remote::Remote};
use super::{
    Base, Output, SocketId, UdpAddress,
    config::{BUS_GRACE, CLUSTER_TICK, LEASE_LIFE, LEASE_RENEW},
    deadline::Key,
    memory::{Keyed, Map},
    registry::Device,
    routes::Routes,
};
use crate::{
    id::DeviceId,
    wire::{
        BootId, Malformed,
        cluster::{
            BASE_KEY_LEN, BaseKey, Body, Change, Incarnation, Lease, MAX_WANTS, Message, Record, SHARDS,
            Want, shard_of,
        },
    },
};

/// What a base needs to know to be one of many.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// What hosts are told as the cluster's ID, by all of its bases.
    pub cluster: DeviceId,
    /// Where other bases reach this one over UDP, and the sockets behind; empty: they send over the bus.
    pub udp: Vec<UdpAddress>,
}

/// What a base knows of its cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) id: DeviceId,
    incarnation: Incarnation,
    key: BaseKey,
    udp: Vec<UdpAddress>,
    connection: u32,
    seq: u64,
    link: Link,
    lease_at: Instant,
    standing: Standing,
    /// While the store takes no leases: until then nobody's silence there means anything.
    leases_rest: Option<Instant>,
    pub(super) members: Map<DeviceId, Member>,
    incarnations: Map<Incarnation, DeviceId>,
    shards: Vec<Shard>,
    /// Devices elsewhere that were never found, by when they were looked for first.
    unfound: BTreeMap<u64, DeviceId>,
    sought: u64,
    /// The shard whose turn is next.
    turn: u8,
    questions: Questions,
    /// Interests to be stated, by base.
    wants: BTreeMap<DeviceId, Vec<Want>>,
    /// Devices that have registered elsewhere and whose session here is still open: what is under way on it arrives.
    pub(super) lingering: Map<DeviceId, Box<Device>>,
}

/// Whether the bus is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    /// What is known of other bases holds until then.
    Down {
        until: Instant,
    },
}

/// Whether the lease under this base's ID is this process's: another one may have its key, as on a machine that was copied. Whoever was here
/// first keeps it; for the other one it is as if there were no bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has been written lately. So many leases of other processes were read since: one of them may be what this base left behind
    /// before it was started again.
    New { since: Instant, others: u32 },
    /// It has been written for longer than what was left behind would have lasted.
    Settled,
    /// Another process writes it, and is gone if nothing is read of it until then. `bus`: it is there.
    Yielded { until: Instant, bus: bool },
}

/// One of the parts that all devices are divided into by a hash.
#[derive(Debug)]
struct Shard {
    /// Devices that are registered here.
    locals: usize,
    remotes: Map<DeviceId, Remote>,
    watched: bool,
}

impl Cluster {
    fn new(config: ClusterConfig, keyed: Keyed, rng: &mut impl Rng, now: Instant) -> Self {
        let mut incarnation = [0; 8];
        rng.fill_bytes(&mut incarnation);
        let mut key = [0; BASE_KEY_LEN];
        rng.fill_bytes(&mut key);
        let shard = || Shard { locals: 0, remotes: Map::with_hasher(keyed), watched: false };
        Self {
            id: config.cluster,
            incarnation,
            key,
            udp: config.udp,
            connection: 0,
            seq: 0,
            link: Link::Down { until: now },
            lease_at: now,
            standing: Standing::New { since: now, others: 0 },
            leases_rest: None,
            members: Map::with_hasher(keyed),
            incarnations: Map::with_hasher(keyed),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            unfound: BTreeMap::new(),
            sought: 0,
            turn: 0,
            questions: Questions::new(keyed),
            wants: BTreeMap::new(),
            lingering: Map::with_hasher(keyed),
        }
    }

    fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    fn remote(&self, device: DeviceId) -> Option<&Remote> {
        self.shards[usize::from(shard_of(device))].remotes.get(&device)
    }

    fn remote_mut(&mut self, device: DeviceId) -> Option<&mut Remote> {
        self.shards[usize::from(shard_of(device))].remotes.get_mut(&device)
    }

    /// A device elsewhere is of no use any more, and neither is the answer about it.
    fn forget(&mut self, device: DeviceId) {
        if let Some(remote) = self.shards[usize::from(shard_of(device))].remotes.remove(&device) {
            self.unfound.remove(&remote.serial);
        }
        self.questions.forget(device);
    }

    /// Devices elsewhere, and their interests in devices here.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let remotes = self.shards.iter().flat_map(|shard| shard.remotes.values());
        remotes.fold((0, 0), |(count, pairs), remote| (count + 1, pairs + remote.pairs.len()))
    }

    fn remotes_in_all(&self) -> usize {
        self.shards.iter().map(|shard| shard.remotes.len()).sum()
    }

    /// Watches the shard, or no longer.
    fn follow(&mut self, number: u8) -> Option<BusOutput> {
        let up = self.is_up();
        let shard = &mut self.shards[usize::from(number)];
        let watched = up && (shard.locals > 0 || !shard.remotes.is_empty());
        if watched == shard.watched {
            return None;
        }
        shard.watched = watched;
        up.then_some(if watched { BusOutput::Watch(number) } else { BusOutput::Unwatch(number) })
    }
}

impl Base {
    /// Makes this base one of a cluster; to be called before anything else.
    pub fn join(&mut self, config: ClusterConfig, now: Instant) {
        let cluster = Cluster::new(config, self.keyed, &mut self.rng, now);
        let secrets = (self.keyed, self.routes.secret);
        let routes = Routes::new(&self.config, secrets, now);
        self.routes = Arc::new(routes.with_base_key(cluster.key));
        self.cluster = Some(Box::new(cluster));
        self.deadlines.by(Key::Cluster, now + CLUSTER_TICK);
    }

    /// Where the other bases reach this one over UDP, if that became known (or changed) after [`Base::join`].
    pub fn set_cluster_udp(&mut self, udp: Vec<UdpAddress>, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.udp != udp {
            cluster.udp = udp;
            if cluster.is_up() {
                self.renew_lease(now);
            }
        }
    }

    /// Whether the bus is there; `None` where there is no cluster.
    #[must_use]
    pub fn bus_is_up(&self) -> Option<bool> {
        self.cluster.as_ref().map(|cluster| cluster.is_up())
    }

    /// The other bases of the cluster that live, and whether data goes to them over UDP.
    #[must_use]
    pub fn members(&self, now: Instant) -> Vec<(DeviceId, bool)> {
        let members = self.cluster.iter().flat_map(|cluster| &cluster.members);
        members.map(|(&id, member)| (id, member.hears_udp(now))).collect()
    }

    /// Something came from store or bus.
    pub fn handle_bus(&mut self, input: BusInput<'_>, now: Instant) {
        if self.cluster.is_none() {
            return;
        }
        let read = match input {
            BusInput::Up => {
                if !self.note_bus_while_yielded(true) {
                    self.bus_up(now);
                }
                Ok(())
            }
            BusInput::Down => {
                if !self.note_bus_while_yielded(false) {
                    self.bus_down(now);
                }
                Ok(())
            }
            BusInput::Lease(bytes) => Lease::decode(bytes).map(|lease| self.handle_lease(lease, now)),
            BusInput::LeaseEnded(base) => {
                self.lose_member(base, "it left", now);
                Ok(())
            }
            BusInput::LeaseWritten => {
                self.lease_written(now);
                Ok(())
            }
            BusInput::LeaseFailed => {
                self.lease_failed(now);
                Ok(())
            }
            BusInput::Found { device, entry } => {
                let read = |entry: Entry<'_>| {
                    Record::decode(entry.record).map(|record| (record, entry.revision, entry.age))
                };
                let entry = entry.map(read).transpose();
                // What cannot be read is nobody's; it is written over where we have the device.
                self.found(device, entry.clone().unwrap_or(None), now);
                entry.map(|_| ())
            }
            BusInput::Stored { device, revision } => {
                self.stored(device, revision, now);
                Ok(())
            }
            BusInput::Refused { device } => {
                self.refused(device);
                Ok(())
            }
            BusInput::Failed { device } => {
                self.failed(device, now);
                Ok(())
            }
            BusInput::Message(bytes) => self.handle_message_of_base(bytes, now),
        };
        if let Err(why) = read {
            self.counters.malformed_bus += 1;
            tracing::debug!(%why, "malformed message of a base");
        }
    }

    fn handle_message_of_base(&mut self, bytes: &[u8], now: Instant) -> Result<(), Malformed> {
        if let Ok(change) = Change::decode(bytes) {
            self.handle_change(change, now);
            return Ok(());
        }
        let message = Message::decode(bytes)?;
        let (base, incarnation, seq) = (message.base, message.incarnation, message.seq);
        let known = self.cluster.as_ref().and_then(|cluster| cluster.members.get(&base));
        if known.is_none_or(|member| member.incarnation != incarnation) {
            self.counters.not_a_member += 1;
            return Ok(());
        }
        let place = remote::Place { base, incarnation };
        match message.body {
            Body::Wants(wants) => {
                for want in wants {
                    self.handle_want(place, seq, want, now);
                }
            }
            Body::Addresses { to, revision, left, addresses } => {
                self.handle_addresses(place, seq, to, revision, left, addresses, now);
            }
            Body::Blocked { from, about, reason } => self.handle_blocked(from, about, reason, now),
            Body::NotHere { device, from } => self.handle_not_here(place, device, from, now),
            Body::Cloned(device) => self.handle_cloned(device, now),
        }
        Ok(())
    }

    fn bus_up(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.link = Link::Up;
        if cluster.standing != Standing::Settled {
            cluster.standing = Standing::New { since: now, others: 0 };
        }
        cluster.connection += 1;
        cluster.leases_rest = None;
        cluster.questions.clear();
        for member in cluster.members.values_mut() {
            member.until = now + LEASE_LIFE;
        }
        for shard in &mut cluster.shards {
            shard.watched = false;
            // The store may be a new one, whose revisions begin anew.
            shard.remotes.values_mut().for_each(Remote::forget_revision);
        }
        tracing::info!(bases = cluster.members.len() + 1, "joined the cluster's bus");
        self.renew_lease(now);
        for shard in 0..SHARDS {
            self.follow(shard);
        }
        let devices: Vec<DeviceId> = self.devices.keys().copied().collect();
        for id in devices {
            // Nor may the others be told of revisions of the one before: they would take what is newer for older.
            if let Some(device) = self.devices.get_mut(&id) {
                device.claim = Claim::None;
            }
            self.claim_device(id);
        }
        self.seek_all();
        let members: Vec<DeviceId> =
            self.cluster.iter().flat_map(|cluster| cluster.members.keys().copied()).collect();
        for member in members {
            self.say_again(member, now);
        }
    }

    fn bus_down(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.is_up() {
            cluster.link = Link::Down { until: now + BUS_GRACE };
            cluster.questions.clear();
            cluster.wants.clear();
            tracing::warn!(
                "the cluster's bus is gone: devices of this base go on; those of other bases are reached over UDP where \
                 that is open, and not found anew"
            );
        }
    }

    fn renew_lease(&mut self, now: Instant) {
        let id = self.id;
        let Some(cluster) = &mut self.cluster else { return };
        cluster.lease_at = now + LEASE_RENEW;
        let lease = Lease {
            base: id,
            incarnation: cluster.incarnation,
            connection: cluster.connection,
            key: cluster.key,
            addresses: cluster.udp.iter().map(|udp| udp.address).collect(),
        };
        self.bus(BusOutput::Lease(lease.encode()));
    }

    /// Leaves the cluster: what this base has stored is void at once.
    pub(super) fn end_lease(&mut self) {
        if self.cluster.as_ref().is_some_and(|cluster| cluster.is_up()) {
            self.bus(BusOutput::EndLease);
        }
    }

    /// The cluster's own clock.
    pub(super) fn cluster_due(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        self.deadlines.by(Key::Cluster, now + CLUSTER_TICK);
        let turn = cluster.turn;
        cluster.turn = (turn + 1) % SHARDS;
        self.standing_due(now);
        let Some(cluster) = &mut self.cluster else { return };
        let renew = cluster.is_up() && cluster.lease_at <= now && self.draining != super::Draining::Done;
        if renew {
            self.renew_lease(now);
        }
        self.members_due(now);
        self.shard_due(turn, now);
    }

    fn bus(&mut self, output: BusOutput) {
        self.outputs.push_back(Output::Bus(output));
    }

    /// Says something to another base, if the bus is there.
    fn send_to_base(&mut self, to: DeviceId, body: Body) {
        let base = self.id;
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up()) else { return };
        cluster.seq += 1;
        let message = Message { base, incarnation: cluster.incarnation, seq: cluster.seq, body };
        self.bus(BusOutput::Send { to, message: message.encode() });
    }

    /// States the interests that have come together, when there is nothing else to do.
    pub(super) fn send_wants(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        for (base, wants) in std::mem::take(&mut cluster.wants) {
            for wants in wants.chunks(MAX_WANTS) {
                self.send_to_base(base, Body::Wants(wants.to_vec()));
            }
        }
    }

    fn follow(&mut self, shard: u8) {
        if let Some(output) = self.cluster.as_mut().and_then(|cluster| cluster.follow(shard)) {
            self.bus(output);
        }
    }
}

/// The socket that reaches an address of this family.
fn socket_towards(udp: &[UdpAddress], to: std::net::SocketAddr) -> Option<SocketId> {
    udp.iter().find(|own| own.address.is_ipv4() == to.is_ipv4()).map(|own| own.socket)
}

/// Adds a boot to those that were replaced.
fn and_replaced(mut replaced: Vec<BootId>, boot: BootId) -> Vec<BootId> {
    replaced.retain(|&other| other != boot);
    replaced.push(boot);
    let over = replaced.len().saturating_sub(crate::wire::cluster::MAX_REPLACED);
    replaced.drain(..over);
    replaced
}
