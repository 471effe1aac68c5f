//! Store, bus and the other bases of a cluster, as scripts.

use std::net::SocketAddr;

use bowline_proto::{
    DeviceId,
    base::{BaseConfig, BusInput, BusOutput, CameOver, ClusterConfig, Forward, Over, ToBase},
    wire::{
        cluster::{BASE_PONG, BaseKey, Body, Change, Incarnation, Lease, Message, Probe, Record, prefix},
        relay::{self, RECV_DATA},
    },
};

use super::{Host, World};

/// Another base of the cluster.
pub(crate) struct Other {
    pub(crate) id: DeviceId,
    pub(crate) incarnation: Incarnation,
    pub(crate) seq: u64,
}

impl Other {
    pub(crate) fn new(n: u8) -> Self {
        Self { id: DeviceId::from_bytes([n; 14]), incarnation: [n; 8], seq: 0 }
    }

    pub(crate) fn lease(&self) -> Vec<u8> {
        self.lease_at(Vec::new())
    }

    pub(crate) fn lease_at(&self, addresses: Vec<SocketAddr>) -> Vec<u8> {
        let (base, incarnation) = (self.id, self.incarnation);
        Lease { base, incarnation, connection: 1, key: [0; 16], addresses }.encode()
    }

    pub(crate) fn record(&self, host: &Host, attempt: u32) -> Record {
        let (base, incarnation) = (self.id, self.incarnation);
        Record { base, incarnation, boot: host.boot, attempt, replaced: Vec::new() }
    }

    pub(crate) fn says(&mut self, world: &mut World, body: Body) {
        self.seq += 1;
        let message = Message { base: self.id, incarnation: self.incarnation, seq: self.seq, body };
        bus(world, BusInput::Message(&message.encode()));
    }
}

pub(crate) fn bus(world: &mut World, input: BusInput<'_>) {
    world.base.handle_bus(input, world.now);
    world.flush();
}

/// A base that has joined, with others there.
pub(crate) fn joined(others: &[&Other]) -> World {
    joined_with(BaseConfig::default(), others)
}

pub(crate) fn joined_with(config: BaseConfig, others: &[&Other]) -> World {
    let mut world = World::with(config);
    world.base.join(ClusterConfig { cluster: world.id, udp: Vec::new() }, world.now);
    world.follow();
    for other in others {
        bus(&mut world, BusInput::Lease(&other.lease()));
    }
    bus(&mut world, BusInput::Up);
    world.bus.clear();
    world
}

/// The store has nothing of a device that has registered, and takes what the base writes.
pub(crate) fn store(world: &mut World, host: &Host, revision: u64) {
    bus(world, BusInput::Found { device: host.id, entry: None });
    assert!(world.bus.iter().any(|o| matches!(o, BusOutput::Store { device, .. } if *device == host.id)));
    bus(world, BusInput::Stored { device: host.id, revision });
}

pub(crate) fn change(world: &mut World, host: &Host, revision: u64, record: Record) {
    let change = Change { device: host.id, revision, record: Some(record) };
    bus(world, BusInput::Message(&change.encode()));
}

/// Devices that the store is asked for, since this was asked last.
pub(crate) fn finds(world: &mut World) -> Vec<DeviceId> {
    let bus = std::mem::take(&mut world.bus).into_iter();
    bus.filter_map(|output| if let BusOutput::Find(device) = output { Some(device) } else { None }).collect()
}

/// A message that another base hands over, on the bus.
pub(crate) fn data_from(world: &mut World, other: &Other, from: DeviceId, to: DeviceId) -> Forward {
    data_by(world, CameOver::Bus, other.incarnation, (from, to))
}

pub(crate) fn data_by(
    world: &mut World,
    came: CameOver,
    tag: [u8; 8],
    (from, to): (DeviceId, DeviceId),
) -> Forward {
    let datagram = [&prefix(to, tag)[..], &relay::header(RECV_DATA, from), b"data"].concat();
    let forward = world.base.handle_base_data(came, &datagram, world.now);
    world.flush();
    forward
}

/// Lets the base be reached by others over UDP; the key that they need for that.
pub(crate) fn open_udp(world: &mut World) -> BaseKey {
    world.base.set_cluster_udp(World::udp_list().to_vec(), world.now);
    world.flush();
    let lease = |output: &BusOutput| {
        if let BusOutput::Lease(bytes) = output { Lease::decode(bytes).ok() } else { None }
    };
    world.bus.iter().find_map(lease).expect("it tells the others").key
}

/// The other base, which is there, answers what it was asked over UDP.
pub(crate) fn answer_pings(world: &mut World, other: &Other, at: SocketAddr, key: &BaseKey) {
    let pings = std::mem::take(&mut world.datagrams).into_iter().filter(|(_, to, _)| *to == at);
    for (via, _, ping) in pings {
        let nonce = Probe::decode(&ping, &[0; 16]).expect("under the other's key").nonce;
        let mut pong = Probe { kind: BASE_PONG, base: other.id, nonce }.encode(key);
        world.base.handle_datagram(via, at, &mut pong, world.now);
        world.flush();
    }
}

/// What was said to another base since this was asked last, with its numbers.
pub(crate) fn said(world: &mut World, other: &Other) -> Vec<(u64, Body)> {
    let bus = std::mem::take(&mut world.bus).into_iter();
    bus.filter_map(|output| match output {
        BusOutput::Send { to, message } if to == other.id => Message::decode(&message).ok(),
        _ => None,
    })
    .map(|message| (message.seq, message.body))
    .collect()
}

/// How many messages in a row are sent to all bases that may have the destination.
pub(crate) fn blind(world: &mut World, from: &Host, to: DeviceId) -> usize {
    let is_blind = |forward: Forward| matches!(forward, Forward::Base(ToBase { over: Over::All, .. }));
    (0..100).take_while(|_| is_blind(world.data_tcp(from, to, 10))).count()
}
