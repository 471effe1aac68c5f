//! Whether a direct path between two hosts can exist at all.
//!
//! The oracle looks at the two ends and what stands between them, not at the machines: it takes the nets as they are
//! now, with perfect links and empty tables, and lets both ends do the best that any protocol of half-duplex HELLO and
//! reply could do: ask the bases for their reflexive addresses, exchange all addresses, write from every own address to
//! every known one, learn every source that comes through, answer on the exact pair, and again. What it cannot reach,
//! no machine may claim; what it can, a machine has to reach.
//!
//! Port prediction is a switch: with it, each side also knows the external sources of what the other sends, even
//! where they were not let through.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    base_node::{PORT, SECOND_PORT},
    fabric::{Fabric, Hop, Hops, NetId, Step, is_link_local},
    packet::{Body, NodeId, Packet, Time},
    trace::Trace,
    world::World,
};

/// Rounds of writing to everything that is known; new knowledge needs three at most.
const ROUNDS: usize = 8;
/// Addresses known of the other side: NATs that give every reply a new port would make them grow without end.
const MAX_KNOWN: usize = 40;

/// One of the two ends.
#[derive(Debug)]
struct End {
    node: NodeId,
    port: u16,
    own: Vec<(NetId, IpAddr)>,
    /// (own address, the other's address) to write to.
    pairs: BTreeSet<(IpAddr, SocketAddr)>,
    established: BTreeSet<(IpAddr, SocketAddr)>,
}

/// What the oracle says of an ordered pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The first can send to the second.
    pub forth: bool,
    /// The second can send to the first.
    pub back: bool,
}

/// What the two ends are taken to know and to be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skill {
    /// What every machine has to: bases are asked from where the system asks them.
    Ordinary,
    /// All that a machine may have come to know, by luck or history: bases asked from every interface.
    Lucky,
    /// As [`Self::Ordinary`], and each side predicts the other's next ports.
    PredictsPorts,
}

/// Whether the two can reach each other directly, as the nets are now.
#[must_use]
pub fn direct(world: &World, one: NodeId, other: NodeId, skill: Skill) -> Verdict {
    let mut probe = Probe {
        fabric: world.fabric.pristine(),
        trace: Trace::default(),
        sources: Vec::new(),
        ends: [end(world, one), end(world, other)],
    };
    let bases: Vec<SocketAddr> = world
        .bases()
        .into_iter()
        .flat_map(|base| {
            let ips: Vec<IpAddr> =
                world.stack(base).ifaces.iter().flat_map(|i| i.addresses.iter().map(|a| a.0)).collect();
            ips.into_iter().flat_map(|ip| [PORT, SECOND_PORT].map(|port| SocketAddr::new(ip, port)))
        })
        .filter(|base| !is_link_local(base.ip()))
        .collect();
    probe.introduce(&bases, skill == Skill::Lucky);
    for _ in 0..ROUNDS {
        for side in 0..2 {
            probe.round(side, skill == Skill::PredictsPorts);
        }
    }
    Verdict { forth: !probe.ends[0].established.is_empty(), back: !probe.ends[1].established.is_empty() }
}

fn end(world: &World, node: NodeId) -> End {
    let host = world.at_host(node);
    let own =
        host.stack.ifaces.iter().flat_map(|iface| iface.addresses.iter().map(|a| (iface.net, a.0))).collect();
    End { node, port: host.port, own, pairs: BTreeSet::new(), established: BTreeSet::new() }
}

struct Probe {
    fabric: Fabric,
    trace: Trace,
    /// Sources as they left the last gateway of what did not arrive.
    sources: Vec<SocketAddr>,
    ends: [End; 2],
}

impl Probe {
    /// Reflexive and own addresses become pairs.
    fn introduce(&mut self, bases: &[SocketAddr], from_everywhere: bool) {
        for side in 0..2 {
            let mut known: Vec<SocketAddr> =
                self.ends[side].own.iter().map(|a| SocketAddr::new(a.1, self.ends[side].port)).collect();
            // A system asks a base from its first interface that leads there: only that source becomes known.
            for v4 in [true, false] {
                let fits = |own: &&(NetId, IpAddr)| own.1.is_ipv4() == v4 && !is_link_local(own.1);
                let sources: Vec<(NetId, IpAddr)> = self.ends[side]
                    .own
                    .iter()
                    .filter(fits)
                    .take(if from_everywhere { usize::MAX } else { 1 })
                    .copied()
                    .collect();
                for (net, ip) in sources {
                    for &base in bases.iter().filter(|base| base.is_ipv4() == v4) {
                        if let Some((_, packet)) = self.send(side, net, ip, base) {
                            known.push(packet.src);
                        }
                    }
                }
            }
            let there = 1 - side;
            let mine = self.ends[there].own.clone();
            for remote in known {
                for &(net, local) in &mine {
                    let on_link = self.ends[side].own.iter().any(|&(other, _)| other == net);
                    let fits = local.is_ipv4() == remote.is_ipv4()
                        && is_link_local(local) == is_link_local(remote.ip())
                        && (!is_link_local(local) || on_link);
                    if fits {
                        self.ends[there].pairs.insert((local, remote));
                    }
                }
            }
        }
    }

    /// One side writes to all it knows; what arrives is answered, and its source is known from then on.
    fn round(&mut self, side: usize, predicts_ports: bool) {
        let there = 1 - side;
        for (local, remote) in self.ends[side].pairs.clone() {
            let Some(net) = self.net_of(side, local) else { continue };
            self.sources.clear();
            let arrived = self.send(side, net, local, remote);
            if predicts_ports {
                for source in std::mem::take(&mut self.sources) {
                    for (_, ip) in self.ends[there].own.clone() {
                        if ip.is_ipv4() == source.is_ipv4() {
                            self.learn(there, ip, source);
                        }
                    }
                }
            }
            let Some((node, hello)) = arrived else { continue };
            if node != self.ends[there].node || hello.dst.port() != self.ends[there].port {
                continue;
            }
            self.learn(there, hello.dst.ip(), hello.src);
            let Some(net) = self.net_of(there, hello.dst.ip()) else { continue };
            if let Some((node, reply)) = self.send(there, net, hello.dst.ip(), hello.src) {
                // A reply counts only on the exact pair its HELLO was sent on.
                if node == self.ends[side].node && reply.src == remote && reply.dst.ip() == local {
                    self.ends[side].established.insert((local, remote));
                }
            }
        }
    }

    fn learn(&mut self, side: usize, local: IpAddr, remote: SocketAddr) {
        let pairs = &mut self.ends[side].pairs;
        if pairs.len() < MAX_KNOWN {
            pairs.insert((local, remote));
        }
    }

    fn net_of(&self, side: usize, ip: IpAddr) -> Option<NetId> {
        self.ends[side].own.iter().find(|own| own.1 == ip).map(|own| own.0)
    }

    /// Sends a datagram and follows it to its end.
    fn send(&mut self, side: usize, net: NetId, from: IpAddr, to: SocketAddr) -> Option<(NodeId, Packet)> {
        // All at one moment: nothing expires while the oracle thinks.
        let now: Time = Duration::from_secs(1);
        let packet = Packet {
            src: SocketAddr::new(from, self.ends[side].port),
            dst: SocketAddr::new(to.ip(), to.port()),
            body: Body::Udp(Bytes::from_static(b"?")),
            origin: Some(self.ends[side].node),
            line: Trace::NO_LINE,
        };
        let mut hops = Hops::new();
        self.fabric.emit(net, packet, now, &mut hops, &mut self.trace);
        let mut queue: VecDeque<Hop> = hops.into_iter().map(|(_, hop)| hop).collect();
        while let Some(hop) = queue.pop_front() {
            let mut hops = Hops::new();
            match self.fabric.step(hop, now, &mut hops, &mut self.trace) {
                Step::Arrived(arrived) => return Some((arrived.node, arrived.packet)),
                Step::Dropped(_, packet) => self.sources.push(packet.src),
                Step::Onward => {}
            }
            queue.extend(hops.into_iter().map(|(_, hop)| hop));
        }
        None
    }
}
