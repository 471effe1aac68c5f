//! What a world is made of: nets, bases, hosts.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use bowline_proto::{
    DeviceId, SecretKey,
    host::{BaseName, HostConfig},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Node, World};
use crate::{
    base_node::{BaseNode, PORT},
    fabric::{INTERNET, NetId, NetSpec, Prefix},
    host_node::HostNode,
    link::Profile,
    nat::{Dependence, Firewall, NatKind},
    packet::NodeId,
    stack::{Iface, Stack},
};

/// IPv6 nets of the world: `2a00:1::/32` and up, ordinary unicast space.
const PUBLIC_V6: u16 = 0x2a00;

impl World {
    /// A net with public addresses of both families and no gateway rules: a data centre.
    pub fn data_centre(&mut self, name: &str, latency: Duration) -> NetId {
        let v4 = Some(self.fabric.public_v4());
        let v6 = Some(self.public_v6());
        self.fabric.add(NetSpec { v4, v6, ..spec(name, INTERNET, latency) })
    }

    /// A home: private IPv4 behind a NAT, no IPv6.
    pub fn home(&mut self, name: &str, nat: NatKind, latency: Duration) -> NetId {
        self.home_in(name, INTERNET, nat, latency)
    }

    /// A home whose NAT stands in another net (a carrier's).
    pub fn home_in(&mut self, name: &str, parent: NetId, nat: NatKind, latency: Duration) -> NetId {
        let v4 = Some(Prefix::new(IpAddr::from([192, 168, 1, 0]), 24));
        self.fabric.add(NetSpec { v4, nat: Some(nat), ..spec(name, parent, latency) })
    }

    /// A carrier's net behind its NAT.
    pub fn carrier(&mut self, name: &str, nat: NatKind, latency: Duration) -> NetId {
        let v4 = Some(Prefix::new(IpAddr::from([100, 64, 0, 0]), 16));
        self.fabric.add(NetSpec { v4, nat: Some(nat), ..spec(name, INTERNET, latency) })
    }

    /// A net with IPv6 alone behind a stateful firewall.
    pub fn home_v6(&mut self, name: &str, filtering: Dependence, latency: Duration) -> NetId {
        let v6 = Some(self.public_v6());
        let firewall = Some(Firewall::new(filtering, Duration::from_secs(120)));
        self.fabric.add(NetSpec { v6, firewall, ..spec(name, INTERNET, latency) })
    }

    /// A link without any router: only link-local addresses.
    pub fn bare_link(&mut self, name: &str) -> NetId {
        self.fabric.add(spec(name, INTERNET, Duration::ZERO))
    }

    /// A /64 that nobody else has.
    pub fn public_v6(&mut self) -> Prefix {
        self.next_v6 += 1;
        Prefix::new(Ipv6Addr::new(PUBLIC_V6, self.next_v6, 0, 0, 0, 0, 0, 0), 64)
    }

    /// A base on a net; it runs at once.
    pub fn base(&mut self, name: &str, net: NetId) -> NodeId {
        let node = self.idle_base(name, net);
        self.with_base(node, BaseNode::start);
        node
    }

    /// A base of the world's cluster on a net; it runs at once. Data between bases may take UDP, or takes the bus.
    pub fn clustered_base(&mut self, name: &str, net: NetId, over_udp: bool) -> NodeId {
        let node = self.idle_base(name, net);
        self.with_base(node, |base, _| base.cluster = Some((DeviceId::from_bytes([0xc1; 14]), over_udp)));
        self.start_base(node);
        node
    }

    /// A base on a net whose program has not been started.
    pub fn idle_base(&mut self, name: &str, net: NetId) -> NodeId {
        let node = self.next_node(name);
        let mut stack = Stack::new(node);
        self.attach(&mut stack, net, 1);
        let id = SecretKey::from_seed(&self.seeds.random()).device_id();
        for ip in stack.ifaces.iter().flat_map(|i| i.addresses.iter().map(|a| a.0)) {
            self.trace.address(ip, name);
        }
        self.nodes.push(Node::Base(Box::new(BaseNode::new(node, id, stack))));
        node
    }

    /// A host on a net, with these bases; it runs at once.
    pub fn host(&mut self, name: &str, net: NetId, bases: &[NodeId]) -> NodeId {
        self.host_with(name, &[net], bases, None, |_| {})
    }

    /// A host with several interfaces, a key of choice, or another configuration; it runs at once.
    pub fn host_with(
        &mut self,
        name: &str,
        nets: &[NetId],
        bases: &[NodeId],
        key: Option<SecretKey>,
        configure: impl FnOnce(&mut HostConfig),
    ) -> NodeId {
        let node = self.make_host(name, nets, bases, key, configure);
        self.with_host(node, HostNode::start);
        node
    }

    /// A host whose program has not been started.
    pub fn idle_host(&mut self, name: &str, nets: &[NetId], bases: &[NodeId]) -> NodeId {
        self.make_host(name, nets, bases, None, |_| {})
    }

    /// A host with another's key and bases, whose program has not been started.
    pub fn idle_twin(&mut self, name: &str, net: NetId, of: NodeId) -> NodeId {
        let (key, bases) = (self.at_host(of).key().clone(), self.at_host(of).config.bases.clone());
        self.make_host(name, &[net], &[], Some(key), |config| config.bases = bases)
    }

    fn make_host(
        &mut self,
        name: &str,
        nets: &[NetId],
        bases: &[NodeId],
        key: Option<SecretKey>,
        configure: impl FnOnce(&mut HostConfig),
    ) -> NodeId {
        let node = self.next_node(name);
        let mut stack = Stack::new(node);
        for (net, index) in nets.iter().zip(1..) {
            self.attach(&mut stack, *net, index);
        }
        let key = key.unwrap_or_else(|| SecretKey::from_seed(&self.seeds.random()));
        let mut config = HostConfig { bases: self.base_names(bases, &stack), ..HostConfig::default() };
        configure(&mut config);
        // Distinct ports: collisions at port-preserving NATs are a case of its own, not an accident.
        let port = 40_000 + node.0 as u16 * 7;
        let mut host = HostNode::new(node, key, config, port, stack);
        host.base_ips = self.base_ips();
        self.nodes.push(Node::Host(Box::new(host)));
        node
    }

    /// Bases as a user on this host would write them: by the family that the host has.
    fn base_names(&self, bases: &[NodeId], stack: &Stack) -> Vec<BaseName> {
        let has_v4 = stack.ifaces.iter().any(|i| i.addresses.iter().any(|a| a.0.is_ipv4()));
        bases
            .iter()
            .filter_map(|&base| {
                let ip = self.address(base, has_v4)?;
                Some(BaseName { id: None, host: ip.to_string(), port: PORT })
            })
            .collect()
    }

    fn base_ips(&self) -> Vec<IpAddr> {
        let bases = self.nodes.iter().filter_map(|n| if let Node::Base(b) = n { Some(b) } else { None });
        bases.flat_map(|b| b.stack.ifaces.iter().flat_map(|i| i.addresses.iter().map(|a| a.0))).collect()
    }

    fn next_node(&mut self, name: &str) -> NodeId {
        let node = NodeId(self.nodes.len());
        self.trace.name(node, name);
        self.woken.push(None);
        self.skews.push(Duration::ZERO);
        self.rngs.push(ChaCha8Rng::seed_from_u64(self.seeds.random()));
        node
    }

    fn attach(&mut self, stack: &mut Stack, net: NetId, index: u32) {
        let node = NodeId(self.rngs.len() - 1);
        let addresses = self.fabric.attach(net, node, index);
        stack.ifaces.push(Iface { index, net, addresses, multicast: true });
    }
}

/// A net with a perfect uplink and no addresses.
fn spec(name: &str, parent: NetId, latency: Duration) -> NetSpec {
    NetSpec {
        name: name.to_owned(),
        parent,
        v4: None,
        v6: None,
        nat: None,
        firewall: None,
        blocks_udp: false,
        lan: Profile::perfect(Duration::from_micros(200)),
        uplink: Profile::perfect(latency),
        multicast: true,
    }
}
