//! The store and the bus that bases of a cluster share, as NATS would be: entries with revisions and ages, subjects, and what can
//! happen to a base's link with it (delay, loss, copies, another order, no link at all).
//!
//! A base that is connected gets what is said on the subjects that it follows, each message delayed by itself, so that they overtake each
//! other where the delays differ. What is under way when a link breaks is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bowline_proto::{
    DeviceId,
    base::{BusInput, BusOutput, CameOver, Entry, LEASE_LIFE, RECORD_LIFE},
    wire::cluster::{Incarnation, Lease, Record},
};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::packet::{NodeId, Time};

/// What bases hear, with the bytes in it.
#[derive(Debug, Clone)]
pub enum Heard {
    /// The link is there.
    Up,
    /// The link is gone.
    Down,
    /// A lease.
    Lease(Vec<u8>),
    /// A lease was taken back.
    LeaseEnded(DeviceId),
    /// The base's own lease is written, or not.
    LeaseWritten(bool),
    /// The answer to a find.
    Found(DeviceId, Option<(Vec<u8>, u64, Duration)>),
    /// The answer to a store.
    Stored(DeviceId, u64),
    /// The other one.
    Refused(DeviceId),
    /// The store did not answer.
    Failed(DeviceId),
    /// A control message.
    Message(Vec<u8>),
    /// A message from base to base.
    Data(CameOver, Vec<u8>),
}

impl Heard {
    /// As the machine takes it; data it takes otherwise.
    #[must_use]
    pub fn input(&self) -> Option<BusInput<'_>> {
        Some(match self {
            Self::Up => BusInput::Up,
            Self::Down => BusInput::Down,
            Self::Lease(bytes) => BusInput::Lease(bytes),
            Self::LeaseEnded(base) => BusInput::LeaseEnded(*base),
            Self::LeaseWritten(true) => BusInput::LeaseWritten,
            Self::LeaseWritten(false) => BusInput::LeaseFailed,
            Self::Found(device, entry) => BusInput::Found {
                device: *device,
                entry: entry.as_ref().map(|(record, revision, age)| Entry {
                    record,
                    revision: *revision,
                    age: *age,
                }),
            },
            &Self::Stored(device, revision) => BusInput::Stored { device, revision },
            Self::Refused(device) => BusInput::Refused { device: *device },
            Self::Failed(device) => BusInput::Failed { device: *device },
            Self::Message(bytes) => BusInput::Message(bytes),
            Self::Data(..) => return None,
        })
    }
}

/// What a base says.
#[derive(Debug, Clone)]
pub enum Said {
    /// What the machine asks of store and bus.
    Output(BusOutput),
    /// A message on a base's subject.
    ToBase(DeviceId, Vec<u8>),
    /// A message on the subject of all bases.
    ToAll(Vec<u8>),
}

/// What the bus does to messages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weather {
    /// Each is under way for as long at least,
    pub least: Duration,
    /// and at most.
    pub most: Duration,
    /// So many of a thousand are lost.
    pub lost: u32,
    /// So many of a thousand come twice.
    pub doubled: u32,
}

impl Default for Weather {
    fn default() -> Self {
        let delay = Duration::from_micros(500);
        Self { least: delay, most: delay, lost: 0, doubled: 0 }
    }
}

impl Weather {
    fn delay(&self, rng: &mut impl Rng) -> Duration {
        if self.most > self.least { rng.random_range(self.least..=self.most) } else { self.least }
    }
}

#[derive(Debug)]
struct Link {
    id: DeviceId,
    up: bool,
    /// Rises with every break: what is under way across one is lost.
    session: u32,
    shards: BTreeSet<u8>,
}

/// Store and bus.
#[derive(Debug, Default)]
pub struct Bus {
    /// What it does to messages.
    pub weather: Weather,
    revision: u64,
    records: BTreeMap<DeviceId, (Vec<u8>, u64, Time)>,
    leases: BTreeMap<DeviceId, (Vec<u8>, Time)>,
    links: BTreeMap<NodeId, Link>,
    /// The server does not run.
    stopped: bool,
    /// The store takes and tells nothing, as one whose servers have no leader; subjects go on.
    pub without_leader: bool,
    /// What it did, by kind: finds, stores, messages.
    pub counts: [u64; 3],
}

/// For whom, in which session, what, and when.
pub type Delivery = (NodeId, u32, Heard, Time);

impl Bus {
    /// A base has started.
    pub fn attach(&mut self, node: NodeId, id: DeviceId, now: Time, out: &mut Vec<Delivery>) {
        let session = self.links.get(&node).map_or(0, |link| link.session + 1);
        self.links.insert(node, Link { id, up: false, session, shards: BTreeSet::new() });
        self.connect(node, now, out);
    }

    /// Makes or breaks the link of a base.
    pub fn set_link(&mut self, node: NodeId, up: bool, now: Time, out: &mut Vec<Delivery>) {
        if up {
            self.connect(node, now, out);
        } else if let Some(link) = self.links.get_mut(&node).filter(|link| link.up) {
            link.up = false;
            link.session += 1;
            link.shards.clear();
            out.push((node, link.session, Heard::Down, now));
        }
    }

    /// The server stops, with all links, or starts again; `emptied`: it has lost what was stored.
    pub fn set_running(&mut self, running: bool, emptied: bool, now: Time, out: &mut Vec<Delivery>) {
        self.stopped = !running;
        if emptied {
            (self.revision, self.records, self.leases) = (0, BTreeMap::new(), BTreeMap::new());
        }
        let nodes: Vec<NodeId> = self.links.keys().copied().collect();
        for node in nodes {
            self.set_link(node, running, now, out);
        }
    }

    fn connect(&mut self, node: NodeId, now: Time, out: &mut Vec<Delivery>) {
        self.leases.retain(|_, (_, written)| *written + LEASE_LIFE > now);
        let Some(link) = self.links.get_mut(&node).filter(|link| !link.up && !self.stopped) else { return };
        link.up = true;
        let leases = self.leases.values().map(|(lease, _)| Heard::Lease(lease.clone()));
        for heard in leases.chain([Heard::Up]) {
            out.push((node, link.session, heard, now));
        }
    }

    /// What is stored of devices.
    pub fn records(&self) -> impl Iterator<Item = (DeviceId, Record)> {
        let read = |(&device, (record, ..)): (&DeviceId, &(Vec<u8>, u64, Time))| {
            Some((device, Record::decode(record).ok()?))
        };
        self.records.iter().filter_map(read)
    }

    /// The start of a base whose lease was written last, if it has one.
    #[must_use]
    pub fn incarnation(&self, base: DeviceId) -> Option<Incarnation> {
        Some(Lease::decode(&self.leases.get(&base)?.0).ok()?.incarnation)
    }

    /// Whether what was sent in a session still comes.
    #[must_use]
    pub fn delivers(&self, node: NodeId, session: u32) -> bool {
        self.links.get(&node).is_some_and(|link| link.session == session)
    }

    /// A base says something.
    pub fn said(&mut self, node: NodeId, said: Said, now: Time, rng: &mut impl Rng, out: &mut Vec<Delivery>) {
        if !self.links.get(&node).is_some_and(|link| link.up) {
            return;
        }
        match said {
            Said::Output(output) => self.output(node, output, now, rng, out),
            Said::ToBase(base, bytes) => {
                self.tell_base(base, &Heard::Data(CameOver::Bus, bytes), now, rng, out);
            }
            Said::ToAll(bytes) => {
                for other in self.others(node) {
                    self.deliver(other, &Heard::Data(CameOver::All, bytes.clone()), now, rng, out);
                }
            }
        }
    }

    fn output(
        &mut self,
        node: NodeId,
        output: BusOutput,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Vec<Delivery>,
    ) {
        match output {
            BusOutput::Lease(lease) => {
                let Some(id) = self.links.get(&node).map(|link| link.id) else { return };
                self.answer(node, Heard::LeaseWritten(!self.without_leader), now, rng, out);
                if self.without_leader {
                    return;
                }
                self.leases.insert(id, (lease.clone(), now));
                for other in self.others(node) {
                    self.deliver(other, &Heard::Lease(lease.clone()), now, rng, out);
                }
            }
            BusOutput::EndLease | BusOutput::Erase { .. } if self.without_leader => {}
            BusOutput::EndLease => {
                let Some(id) = self.links.get(&node).map(|link| link.id) else { return };
                self.leases.remove(&id);
                for other in self.others(node) {
                    self.deliver(other, &Heard::LeaseEnded(id), now, rng, out);
                }
            }
            BusOutput::Find(device) | BusOutput::Store { device, .. } if self.without_leader => {
                self.answer(node, Heard::Failed(device), now, rng, out);
            }
            BusOutput::Find(device) => {
                self.counts[0] += 1;
                self.records.retain(|_, (_, _, written)| *written + RECORD_LIFE > now);
                let entry = self.records.get(&device);
                let entry = entry.map(|(record, revision, at)| (record.clone(), *revision, now - *at));
                self.answer(node, Heard::Found(device, entry), now, rng, out);
            }
            BusOutput::Store { device, record, over } => {
                self.counts[1] += 1;
                let present = self.records.get(&device).map_or(0, |&(_, revision, _)| revision);
                let heard = if present == over {
                    self.revision += 1;
                    self.records.insert(device, (record, self.revision, now));
                    Heard::Stored(device, self.revision)
                } else {
                    Heard::Refused(device)
                };
                self.answer(node, heard, now, rng, out);
            }
            BusOutput::Erase { device, revision } => {
                self.records.extract_if(device..=device, |_, entry| entry.1 == revision).for_each(drop);
            }
            BusOutput::Watch(shard) => self.links.get_mut(&node).map_or((), |link| {
                link.shards.insert(shard);
            }),
            BusOutput::Unwatch(shard) => self.links.get_mut(&node).map_or((), |link| {
                link.shards.remove(&shard);
            }),
            BusOutput::Publish { shard, message } => {
                self.tell_shard(node, shard, &Heard::Message(message), now, rng, out);
            }
            BusOutput::Send { to, message } => self.tell_base(to, &Heard::Message(message), now, rng, out),
        }
    }

    fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.links
            .iter()
            .filter(|&(&other, link)| other != node && link.up)
            .map(|(&other, _)| other)
            .collect()
    }

    fn tell_base(
        &mut self,
        base: DeviceId,
        heard: &Heard,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Vec<Delivery>,
    ) {
        let node = self.links.iter().find(|(_, link)| link.id == base && link.up).map(|(&node, _)| node);
        if let Some(node) = node {
            self.deliver(node, heard, now, rng, out);
        }
    }

    fn tell_shard(
        &mut self,
        from: NodeId,
        shard: u8,
        heard: &Heard,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Vec<Delivery>,
    ) {
        for other in self.others(from) {
            if self.links[&other].shards.contains(&shard) {
                self.deliver(other, heard, now, rng, out);
            }
        }
    }

    /// An answer of the store: late, never lost while the link stands.
    fn answer(&self, node: NodeId, heard: Heard, now: Time, rng: &mut impl Rng, out: &mut Vec<Delivery>) {
        let delay = self.weather.delay(rng) + self.weather.delay(rng);
        out.push((node, self.links[&node].session, heard, now + delay));
    }

    fn deliver(
        &mut self,
        node: NodeId,
        heard: &Heard,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Vec<Delivery>,
    ) {
        self.counts[2] += 1;
        let weather = self.weather;
        let chance = |rng: &mut dyn Rng, of_a_thousand: u32| {
            of_a_thousand > 0 && rng.next_u32() % 1_000 < of_a_thousand
        };
        if chance(rng, weather.lost) {
            return;
        }
        let copies = 1 + usize::from(chance(rng, weather.doubled));
        for _ in 0..copies {
            out.push((node, self.links[&node].session, heard.clone(), now + weather.delay(rng)));
        }
    }
}
