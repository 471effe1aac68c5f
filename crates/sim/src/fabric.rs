//! The network between the nodes: a tree of nets, each behind a gateway, the internet at the root.
//!
//! The fabric moves a packet one hop at a time. [`Fabric::emit`] takes it from a node, [`Fabric::step`] from one hop
//! to the next; each answers with hops to come and their moments, which the world's event queue holds. Gateways
//! translate and filter ([`crate::nat`]), links delay and lose ([`crate::link`]). Nodes are only known by the
//! addresses they have on a net.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    link::{Arrival, Link, Loss, Profile},
    nat::{Firewall, Nat, NatKind},
    packet::{Body, NodeId, Packet, Protocol, Time},
    trace::{self, Fate},
};

/// A net of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetId(pub usize);

/// The root: the public internet.
pub const INTERNET: NetId = NetId(0);

/// An address block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Its first address.
    pub first: IpAddr,
    /// How many bits are fixed.
    pub length: u8,
}

impl Prefix {
    /// A block.
    #[must_use]
    pub fn new(first: impl Into<IpAddr>, length: u8) -> Self {
        Self { first: first.into(), length }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (one, other, bits) = match (self.first, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        self.length == 0 || (one ^ other) >> (bits - u32::from(self.length)) == 0
    }

    /// Address number `n` of it.
    #[must_use]
    pub fn address(&self, n: u32) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => IpAddr::V4((first.to_bits() + n).into()),
            IpAddr::V6(first) => IpAddr::V6((first.to_bits() + u128::from(n)).into()),
        }
    }
}

/// What stands between a net and its parent.
#[derive(Debug, Clone, Default)]
pub struct Gateway {
    /// Translates IPv4.
    pub nat: Option<Nat>,
    /// Filters what is not translated.
    pub firewall: Option<Firewall>,
    /// Lets no UDP pass.
    pub blocks_udp: bool,
    /// Lets no UDP out, whatever comes in.
    pub blocks_udp_out: bool,
    /// Lets no UDP in, whatever goes out.
    pub blocks_udp_in: bool,
    /// Lets no TCP pass.
    pub blocks_tcp: bool,
    /// TCP connections of which it lost its state without a word: nothing of them passes again, and nobody is told.
    pub forgotten: BTreeSet<u64>,
}

/// What a net is made of.
#[derive(Debug, Clone)]
pub struct NetSpec {
    /// Its name in diagrams.
    pub name: String,
    /// The net that its gateway stands in.
    pub parent: NetId,
    /// Its IPv4 addresses; private ones if there is a NAT.
    pub v4: Option<Prefix>,
    /// Its IPv6 addresses.
    pub v6: Option<Prefix>,
    /// The kind of its NAT, if it has one.
    pub nat: Option<NatKind>,
    /// The firewall for what is not translated, if there is one.
    pub firewall: Option<Firewall>,
    /// Whether its gateway lets no UDP pass.
    pub blocks_udp: bool,
    /// The link between its members.
    pub lan: Profile,
    /// The link of its gateway, each direction.
    pub uplink: Profile,
    /// Whether multicast works on it.
    pub multicast: bool,
}

/// A net.
#[derive(Debug, Clone)]
pub struct Net {
    /// Its name in diagrams.
    pub name: String,
    parent: Option<NetId>,
    /// Its IPv4 addresses.
    pub v4: Option<Prefix>,
    /// Its IPv6 addresses.
    pub v6: Option<Prefix>,
    /// What stands before it.
    pub gateway: Gateway,
    /// The link between its members.
    pub lan: Link,
    /// Its gateway's link upwards.
    pub up: Link,
    /// Its gateway's link downwards.
    pub down: Link,
    /// Whether multicast works on it.
    pub multicast: bool,
    /// Cut off from its parent.
    pub cut: bool,
    members: BTreeMap<IpAddr, (NodeId, u32)>,
    next_member: u32,
}

/// Where a packet is.
#[derive(Debug, Clone)]
pub enum Hop {
    /// On a net, from a member or from a gateway below: it may go anywhere.
    Local(NetId, Packet),
    /// Before a net's gateway, from above.
    Down(NetId, Packet),
    /// On a net, from above: it never goes up again.
    Inside(NetId, Packet),
}

/// A packet at its destination.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Whose.
    pub node: NodeId,
    /// On this interface of it.
    pub interface: u32,
    /// The packet.
    pub packet: Packet,
}

/// What became of a packet at a hop.
#[derive(Debug)]
pub enum Step {
    /// It goes on (or has been lost on a link): see the list of hops.
    Onward,
    /// It reached a node.
    Arrived(Arrived),
    /// It goes no further; these are its addresses where it ended.
    Dropped(&'static str, Packet),
}

/// Hops to come, and when.
pub type Hops = Vec<(Time, Hop)>;

/// All nets.
#[derive(Debug, Clone)]
pub struct Fabric {
    nets: Vec<Net>,
    /// Pairs of nodes between which nothing passes, in this direction.
    pub blocked: BTreeSet<(NodeId, NodeId)>,
    next_external: u32,
    rng: ChaCha8Rng,
}

/// External addresses of NATs and public nets come from here (RFC 2544's block: nobody's).
const PUBLIC_V4: u32 = 0x0b00_0000; // 11.0.0.0/8: ordinary unicast space, so no rule about special blocks applies.

impl Fabric {
    /// Only the internet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let link = Link::new(Profile::perfect(Duration::ZERO));
        let internet = Net {
            name: "internet".to_owned(),
            parent: None,
            v4: None,
            v6: None,
            gateway: Gateway::default(),
            lan: link.clone(),
            up: link.clone(),
            down: link,
            multicast: false,
            cut: false,
            members: BTreeMap::new(),
            next_member: 2,
        };
        Self {
            nets: vec![internet],
            blocked: BTreeSet::new(),
            next_external: PUBLIC_V4 + 1,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Adds a net.
    pub fn add(&mut self, spec: NetSpec) -> NetId {
        let id = NetId(self.nets.len());
        let nat = spec.nat.map(|kind| Nat::new(kind, self.external_address(spec.parent)));
        self.nets.push(Net {
            name: spec.name,
            parent: Some(spec.parent),
            v4: spec.v4,
            v6: spec.v6,
            gateway: Gateway {
                nat,
                firewall: spec.firewall,
                blocks_udp: spec.blocks_udp,
                ..Gateway::default()
            },
            lan: Link::new(spec.lan),
            up: Link::new(spec.uplink),
            down: Link::new(spec.uplink),
            multicast: spec.multicast,
            cut: false,
            members: BTreeMap::new(),
            next_member: 2,
        });
        id
    }

    /// An IPv4 address for a gateway in a net, nobody's so far.
    fn external_address(&mut self, parent: NetId) -> Ipv4Addr {
        let parent = &mut self.nets[parent.0];
        if let Some(Prefix { first: IpAddr::V4(first), .. }) = parent.v4 {
            parent.next_member += 1;
            return (first.to_bits() + parent.next_member - 1).into();
        }
        self.next_external += 256;
        self.next_external.into()
    }

    /// A net's gateway gets another external address, as when a provider connects it anew.
    pub fn readdress_gateway(&mut self, net: NetId) {
        let Some(parent) = self.nets[net.0].parent else { return };
        if self.nets[net.0].gateway.nat.is_some() {
            let external = self.external_address(parent);
            self.nets[net.0].gateway.nat.as_mut().map(|nat| nat.readdress(external));
        }
    }

    /// A net.
    #[must_use]
    pub fn net(&self, id: NetId) -> &Net {
        &self.nets[id.0]
    }

    /// A net, to be changed.
    pub fn net_mut(&mut self, id: NetId) -> &mut Net {
        &mut self.nets[id.0]
    }

    /// All nets but the internet.
    pub fn ids(&self) -> impl Iterator<Item = NetId> + use<> {
        (1..self.nets.len()).map(NetId)
    }

    /// A public IPv4 block of 256 addresses that nobody else has.
    pub fn public_v4(&mut self) -> Prefix {
        self.next_external += 256;
        Prefix::new(IpAddr::V4((self.next_external & !255).into()), 24)
    }

    /// Gives a node addresses on a net: one a family that the net has, and a link-local one.
    pub fn attach(&mut self, net: NetId, node: NodeId, interface: u32) -> Vec<(IpAddr, u8)> {
        let n = &mut self.nets[net.0];
        let number = n.next_member;
        n.next_member += 1;
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, net.0 as u16, node.0 as u16 + 1, number as u16);
        let mut addresses: Vec<(IpAddr, u8)> = [n.v4, n.v6]
            .into_iter()
            .flatten()
            .map(|prefix| (prefix.address(number), prefix.length))
            .collect();
        addresses.push((link_local.into(), 64));
        for &(ip, _) in &addresses {
            n.members.insert(ip, (node, interface));
        }
        addresses
    }

    /// Takes all addresses of a node's interface from a net.
    pub fn detach(&mut self, net: NetId, node: NodeId, interface: u32) {
        self.nets[net.0].members.retain(|_, member| *member != (node, interface));
    }

    /// The members of a net that hear its multicast: each once, with its link-local address.
    #[must_use]
    pub fn listeners(&self, net: NetId) -> Vec<(NodeId, u32)> {
        let net = &self.nets[net.0];
        let mut listeners: Vec<_> = net.members.values().copied().collect();
        listeners.sort_unstable();
        listeners.dedup();
        if net.multicast { listeners } else { Vec::new() }
    }

    /// A node puts a packet on its net.
    pub fn emit(&mut self, net: NetId, packet: Packet, now: Time, hops: &mut Hops, trace: &mut trace::Trace) {
        self.over(|net| &mut net.lan, net, packet, now, hops, trace, |packet| Hop::Local(net, packet));
    }

    /// A packet has reached the end of a hop.
    pub fn step(&mut self, hop: Hop, now: Time, hops: &mut Hops, trace: &mut trace::Trace) -> Step {
        match hop {
            Hop::Local(net, packet) => match self.deliver_on(net, packet, now, hops, trace) {
                Ok(step) => step,
                Err(packet) => self.up(net, packet, now, hops, trace),
            },
            Hop::Inside(net, packet) => match self.deliver_on(net, packet, now, hops, trace) {
                Ok(step) => step,
                Err(packet) => Step::Dropped("nobody has this address", packet),
            },
            Hop::Down(net, packet) => self.down(net, packet, now, hops, trace),
        }
    }

    /// To a member of the net or to a gateway in it; the packet comes back if it is for neither.
    fn deliver_on(
        &mut self,
        net: NetId,
        packet: Packet,
        now: Time,
        hops: &mut Hops,
        trace: &mut trace::Trace,
    ) -> Result<Step, Packet> {
        let ip = packet.dst.ip();
        if let Some(&(node, interface)) = self.nets[net.0].members.get(&ip) {
            let blocked = packet.origin.is_some_and(|from| self.blocked.contains(&(from, node)));
            return Ok(if blocked {
                Step::Dropped("partition", packet)
            } else {
                Step::Arrived(Arrived { node, interface, packet })
            });
        }
        let child = self.nets.iter().position(|child| {
            child.parent == Some(net)
                && match &child.gateway.nat {
                    Some(nat) if ip.is_ipv4() => ip == nat.external,
                    _ => [child.v4, child.v6].into_iter().flatten().any(|prefix| prefix.contains(ip)),
                }
        });
        let Some(child) = child.map(NetId) else { return Err(packet) };
        if self.nets[child.0].cut {
            return Ok(Step::Dropped("cut", packet));
        }
        self.over(|net| &mut net.down, child, packet, now, hops, trace, |packet| Hop::Down(child, packet));
        Ok(Step::Onward)
    }

    /// Through the gateway, outwards.
    fn up(
        &mut self,
        net: NetId,
        mut packet: Packet,
        now: Time,
        hops: &mut Hops,
        trace: &mut trace::Trace,
    ) -> Step {
        let n = &mut self.nets[net.0];
        let Some(parent) = n.parent else { return Step::Dropped("no route", packet) };
        if is_link_local(packet.dst.ip()) || is_link_local(packet.src.ip()) {
            return Step::Dropped("link-local addresses are not routed", packet);
        }
        if ![n.v4, n.v6].into_iter().flatten().any(|prefix| prefix.contains(packet.src.ip())) {
            return Step::Dropped("a source that is not of this net", packet);
        }
        if n.cut {
            return Step::Dropped("cut", packet);
        }
        let one_way = n.gateway.blocks_udp_out && packet.protocol() == Protocol::Udp;
        if one_way || refuses(&n.gateway, &packet) {
            return Step::Dropped("firewall: protocol", packet);
        }
        match (&mut n.gateway.nat, &mut n.gateway.firewall) {
            (Some(nat), _) if packet.dst.is_ipv4() => {
                let hairpin = packet.dst.ip() == nat.external;
                if hairpin && !nat.kind.hairpin {
                    return Step::Dropped("NAT: no hairpin", packet);
                }
                packet.src = nat.outbound(packet.protocol(), packet.src, packet.dst, now, &mut self.rng);
                if hairpin {
                    return self.down(net, packet, now, hops, trace);
                }
            }
            (_, Some(firewall)) => firewall.outbound(packet.protocol(), packet.src, packet.dst, now),
            _ => {}
        }
        self.over(|net| &mut net.up, net, packet, now, hops, trace, |packet| Hop::Local(parent, packet));
        Step::Onward
    }

    /// Through the gateway, inwards.
    fn down(
        &mut self,
        net: NetId,
        mut packet: Packet,
        now: Time,
        hops: &mut Hops,
        trace: &mut trace::Trace,
    ) -> Step {
        let gateway = &mut self.nets[net.0].gateway;
        let one_way = gateway.blocks_udp_in && packet.protocol() == Protocol::Udp;
        if one_way || refuses(gateway, &packet) {
            return Step::Dropped("firewall: protocol", packet);
        }
        match (&mut gateway.nat, &mut gateway.firewall) {
            (Some(nat), _) if packet.dst.is_ipv4() => {
                match nat.inbound(packet.protocol(), packet.dst.port(), packet.src, now) {
                    Some(inner) => packet.dst = inner,
                    None => return Step::Dropped("NAT: not asked for", packet),
                }
            }
            (_, Some(firewall)) => {
                if !firewall.inbound(packet.protocol(), packet.dst, packet.src, now) {
                    return Step::Dropped("firewall: not asked for", packet);
                }
            }
            _ => {}
        }
        self.over(|net| &mut net.lan, net, packet, now, hops, trace, |packet| Hop::Inside(net, packet));
        Step::Onward
    }

    /// Over one link of a net: what arrives, when, becomes a hop.
    #[expect(clippy::too_many_arguments, reason = "all of them are what a link needs, none belongs together")]
    fn over(
        &mut self,
        link: impl Fn(&mut Net) -> &mut Link,
        net: NetId,
        packet: Packet,
        now: Time,
        hops: &mut Hops,
        trace: &mut trace::Trace,
        hop: impl Fn(Packet) -> Hop,
    ) {
        let link = link(&mut self.nets[net.0]);
        // Segments of TCP fit any path: the end systems clamp them.
        let length = if packet.protocol() == Protocol::Tcp { 0 } else { packet.length() };
        let (first, second) = match link.transit(length, now, &mut self.rng) {
            Ok(arrivals) => arrivals,
            Err(loss) => {
                let why = match loss {
                    Loss::Chance => "lost on a link",
                    Loss::Mtu => "larger than the MTU",
                    Loss::Queue => "queue of a link full",
                };
                trace.fate(packet.line, now, Fate::Dropped(why, packet.dst));
                return;
            }
        };
        for Arrival { at, corrupted } in [Some(first), second].into_iter().flatten() {
            let mut packet = packet.clone();
            if corrupted && !corrupt(&mut packet.body, &mut self.rng) {
                trace.fate(packet.line, at, Fate::Dropped("checksum", packet.dst));
                continue;
            }
            hops.push((at, hop(packet)));
        }
    }

    /// The same nets with perfect links, and as if nothing had ever been sent: what the oracle asks.
    #[must_use]
    pub fn pristine(&self) -> Self {
        let mut fabric = self.clone();
        let perfect = Link::new(Profile::perfect(Duration::ZERO));
        for net in &mut fabric.nets {
            (net.lan, net.up, net.down) = (perfect.clone(), perfect.clone(), perfect.clone());
            if let Some(nat) = &mut net.gateway.nat {
                *nat = Nat::new(nat.kind, nat.external);
            }
            if let Some(firewall) = &mut net.gateway.firewall {
                firewall.reboot();
            }
        }
        fabric
    }
}

fn refuses(gateway: &Gateway, packet: &Packet) -> bool {
    match &packet.body {
        Body::Udp(_) => gateway.blocks_udp,
        Body::Tcp(segment) => gateway.blocks_tcp || gateway.forgotten.contains(&segment.conn),
    }
}

/// Whether an address is `fe80::/10`.
#[must_use]
pub fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Flips a bit of a control message, behind its type; answers `false` where a checksum would have caught it. Data has
/// no protection of its own in this layer, so what passes a checksum unnoticed is outside of what it promises.
fn corrupt(body: &mut Body, rng: &mut ChaCha8Rng) -> bool {
    let Body::Udp(payload) = body else { return false };
    let Some(start) = trace::control_prefix(payload) else { return false };
    if start >= payload.len() {
        return false;
    }
    let mut bytes = payload.to_vec();
    let at = rng.random_range(start..bytes.len());
    bytes[at] ^= 1 << rng.random_range(0..8u8);
    *payload = Bytes::from(bytes);
    true
}

/// A socket address on an interface: link-local ones get their scope.
#[must_use]
pub fn scoped(ip: IpAddr, port: u16, scope: u32) -> SocketAddr {
    let mut address = SocketAddr::new(ip, port);
    if let SocketAddr::V6(v6) = &mut address
        && is_link_local(ip)
    {
        v6.set_scope_id(scope);
    }
    address
}
