//! What goes wrong in a world: each fault has a beginning and, where it can be undone, an end.
//!
//! Faults act on nets and nodes from outside; the machines learn of them only as real ones would. When and which is
//! [`crate::scenario`]'s choice, or a test's.

use std::{fmt, time::Duration};

use bowline_proto::{base::Base, host::Host};
use serde::{Deserialize, Serialize};

use crate::{
    fabric::NetId,
    host_node::HostNode,
    link::Profile,
    nat::{Firewall, Nat},
    packet::{NodeId, Time},
    world::World,
};

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// A host's interface moves to another net; for the duration it has none.
    Roam {
        /// The host.
        host: NodeId,
        /// Its interface.
        interface: u32,
        /// The net it comes to.
        to: NetId,
    },
    /// A host gets other addresses on the net it is on.
    Readdress {
        /// The host.
        host: NodeId,
        /// Its interface.
        interface: u32,
    },
    /// A NAT or firewall restarts: all its state is lost.
    RouterReboot(NetId),
    /// A NAT or firewall forgets all UDP, as if it had been idle for too long; TCP goes on.
    MappingsExpire(NetId),
    /// A NAT gets another external address.
    NewPublicAddress(NetId),
    /// A net is cut off.
    Cut(NetId),
    /// Nothing passes between two nodes directly.
    Partition(NodeId, NodeId),
    /// Nothing passes from the first node to the second directly; the other way it does.
    OneWay(NodeId, NodeId),
    /// A net's links become bad.
    BadLink(NetId, Profile),
    /// A net's gateway lets no UDP pass.
    BlockUdp(NetId),
    /// A net's gateway lets no UDP in, though it goes out.
    BlockUdpIn(NetId),
    /// A net's gateway lets no UDP out, though it comes in.
    BlockUdpOut(NetId),
    /// Nothing of TCP passes a net's gateway; connections stand and stall.
    StallTcp(NetId),
    /// A net's gateway resets all TCP connections.
    ResetTcp(NetId),
    /// A net's gateway forgets all TCP connections silently: both ends believe that they stand.
    HalfOpenTcp(NetId),
    /// A base's program dies; it is started again after the duration.
    BaseCrash {
        /// The base.
        base: NodeId,
        /// Its machine dies with it: nobody is told.
        silently: bool,
    },
    /// A base's process is stopped, and goes on after the duration.
    Freeze(NodeId),
    /// A base drains for the duration, exits, and is started again.
    Drain(NodeId),
    /// A host sleeps for the duration.
    Sleep(NodeId),
    /// A host's process is stopped, and goes on after the duration: it reads what came meanwhile.
    FreezeHost(NodeId),
    /// A host's program dies; it is started again after the duration.
    HostCrash(NodeId),
    /// A node's clock jumps ahead.
    ClockJump {
        /// The host or base.
        node: NodeId,
        /// By so much.
        by: Duration,
        /// Its program notices, as after a time asleep.
        told: bool,
    },
    /// For the duration another device uses this host's key.
    Twin {
        /// The host.
        of: NodeId,
        /// The other device.
        twin: NodeId,
    },
    /// A base's link with the bus of its cluster is broken.
    CutBus(NodeId),
    /// The server of the bus stops, and with it store and links of all bases.
    StopBus {
        /// It has lost what was stored when it starts again.
        emptied: bool,
    },
    /// The store has no leader: it takes and tells nothing, while messages of the bus go on.
    NoLeader,
    /// Somebody on the internet listens, replays, changes and forges.
    Attack,
    /// A host writes to its base what no machine would; then its program starts anew.
    Flood(NodeId),
    /// A host says that everybody else's addresses are its own; after the duration its program starts anew.
    Lie(NodeId),
}

/// A fault, its moment and how long it lasts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// When it begins.
    pub at: Time,
    /// After which time it is undone.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:10.3} for {:7.3} s: {:?}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.fault)
    }
}

impl Fault {
    /// The fault happens.
    pub fn begin(&self, world: &mut World, lasts: Duration) {
        world.note(None, format!("FAULT {self:?} for {lasts:?}"));
        match *self {
            Self::Roam { host, interface, .. } => {
                world.move_interface(host, interface, None);
                tell(world, host);
            }
            Self::Readdress { host, interface } => {
                let net = world.stack(host).ifaces.iter().find(|i| i.index == interface).map(|i| i.net);
                if net.is_some() {
                    world.move_interface(host, interface, net);
                    tell(world, host);
                }
            }
            Self::RouterReboot(net) => world.reboot_router(net),
            Self::MappingsExpire(net) => {
                let gateway = &mut world.fabric.net_mut(net).gateway;
                gateway.nat.as_mut().map(Nat::expire_udp);
                gateway.firewall.as_mut().map(Firewall::expire_udp);
            }
            Self::NewPublicAddress(net) => world.fabric.readdress_gateway(net),
            Self::Cut(net) => world.fabric.net_mut(net).cut = true,
            Self::Partition(one, other) => {
                world.fabric.blocked.extend([(one, other), (other, one)]);
            }
            Self::OneWay(one, other) => {
                world.fabric.blocked.insert((one, other));
            }
            Self::BadLink(net, profile) => {
                let net = world.fabric.net_mut(net);
                (net.up.profile, net.down.profile) = (profile, profile);
            }
            Self::BlockUdp(net) => world.fabric.net_mut(net).gateway.blocks_udp = true,
            Self::BlockUdpIn(net) => world.fabric.net_mut(net).gateway.blocks_udp_in = true,
            Self::BlockUdpOut(net) => world.fabric.net_mut(net).gateway.blocks_udp_out = true,
            Self::StallTcp(net) => world.fabric.net_mut(net).gateway.blocks_tcp = true,
            Self::ResetTcp(net) => world.reset_tcp(net),
            Self::HalfOpenTcp(net) => world.forget_tcp(net),
            Self::BaseCrash { base, silently } => world.lose_base(base, silently),
            Self::Freeze(base) => world.with_base(base, |base, _| base.frozen = true),
            Self::Drain(base) => {
                let seconds = lasts.as_secs() as u16;
                world.with_base(base, |base, env| {
                    base.with(env, |machine: &mut Base, now| machine.drain(seconds, now));
                });
            }
            Self::Sleep(host) => world.with_host(host, |host, _| host.asleep = true),
            Self::FreezeHost(host) => world.with_host(host, |host, _| host.frozen = true),
            Self::HostCrash(host) => world.with_host(host, HostNode::crash),
            Self::ClockJump { node, by, told } => world.jump_clock(node, by, told),
            Self::Twin { twin, .. } => start_host(world, twin),
            Self::CutBus(base) => world.link_with_bus(base, false),
            Self::StopBus { emptied } => world.run_bus(false, emptied),
            Self::NoLeader => world.bus.without_leader = true,
            Self::Attack => world.attack(true),
            Self::Flood(host) => world.flood(host, true),
            Self::Lie(host) => world.lie(host),
        }
    }

    /// The fault is over. `before` is what the net's links were like.
    pub fn end(&self, world: &mut World, before: Option<Profile>) {
        world.note(None, format!("END OF {self:?}"));
        match *self {
            Self::Roam { host, interface, to } => {
                world.move_interface(host, interface, Some(to));
                tell(world, host);
            }
            Self::Readdress { .. }
            | Self::RouterReboot(_)
            | Self::MappingsExpire(_)
            | Self::NewPublicAddress(_)
            | Self::ResetTcp(_)
            | Self::HalfOpenTcp(_)
            | Self::ClockJump { .. } => {}
            Self::Cut(net) => world.fabric.net_mut(net).cut = false,
            Self::Partition(one, other) => {
                world.fabric.blocked.remove(&(one, other));
                world.fabric.blocked.remove(&(other, one));
            }
            Self::OneWay(one, other) => {
                world.fabric.blocked.remove(&(one, other));
            }
            Self::BadLink(net, _) => {
                if let Some(profile) = before {
                    let net = world.fabric.net_mut(net);
                    (net.up.profile, net.down.profile) = (profile, profile);
                }
            }
            Self::BlockUdp(net) => world.fabric.net_mut(net).gateway.blocks_udp = false,
            Self::BlockUdpIn(net) => world.fabric.net_mut(net).gateway.blocks_udp_in = false,
            Self::BlockUdpOut(net) => world.fabric.net_mut(net).gateway.blocks_udp_out = false,
            Self::StallTcp(net) => world.fabric.net_mut(net).gateway.blocks_tcp = false,
            Self::BaseCrash { base, .. } => restart_base(world, base),
            Self::Freeze(base) => world.with_base(base, super::base_node::BaseNode::thaw),
            Self::Drain(base) => {
                world.with_base(base, |base, env| {
                    base.with(env, |machine: &mut Base, now| machine.drain(0, now));
                });
                world.kill_base(base);
                restart_base(world, base);
            }
            Self::Sleep(host) => {
                world.with_host(host, |host, env| {
                    host.asleep = false;
                    if !host.frozen {
                        host.with(env, Host::handle_resume);
                        host.network_changed(env);
                    }
                    host.on_wake(env);
                });
            }
            Self::FreezeHost(host) => world.with_host(host, |host, env| {
                if host.asleep {
                    host.frozen = false;
                } else {
                    host.thaw(env);
                }
            }),
            Self::HostCrash(host) => start_host(world, host),
            Self::Twin { twin, .. } => world.with_host(twin, HostNode::crash),
            Self::CutBus(base) => world.link_with_bus(base, true),
            Self::StopBus { .. } => world.run_bus(true, false),
            Self::NoLeader => world.bus.without_leader = false,
            Self::Attack => world.attack(false),
            Self::Flood(host) => {
                world.flood(host, false);
                restart_host(world, host);
            }
            Self::Lie(host) => restart_host(world, host),
        }
    }

    /// The same in a world whose nodes and nets have other numbers; `None` if one of its own is not there.
    #[must_use]
    pub fn renumbered(
        &self,
        node: impl Fn(NodeId) -> Option<NodeId>,
        net: impl Fn(NetId) -> Option<NetId>,
    ) -> Option<Self> {
        let mut fault = self.clone();
        let (nodes, nets): (Vec<&mut NodeId>, Vec<&mut NetId>) = match &mut fault {
            Self::Roam { host, to, .. } => (vec![host], vec![to]),
            Self::Partition(one, other) | Self::OneWay(one, other) => (vec![one, other], vec![]),
            Self::Twin { of, twin } => (vec![of, twin], vec![]),
            Self::Readdress { host: node, .. }
            | Self::BaseCrash { base: node, .. }
            | Self::ClockJump { node, .. }
            | Self::Freeze(node)
            | Self::Drain(node)
            | Self::Sleep(node)
            | Self::FreezeHost(node)
            | Self::HostCrash(node)
            | Self::CutBus(node)
            | Self::Flood(node)
            | Self::Lie(node) => (vec![node], vec![]),
            Self::RouterReboot(net)
            | Self::MappingsExpire(net)
            | Self::NewPublicAddress(net)
            | Self::Cut(net)
            | Self::BadLink(net, _)
            | Self::BlockUdp(net)
            | Self::BlockUdpIn(net)
            | Self::BlockUdpOut(net)
            | Self::StallTcp(net)
            | Self::ResetTcp(net)
            | Self::HalfOpenTcp(net) => (vec![], vec![net]),
            Self::StopBus { .. } | Self::NoLeader | Self::Attack => (vec![], vec![]),
        };
        for one in nodes {
            *one = node(*one)?;
        }
        for one in nets {
            *one = net(*one)?;
        }
        Some(fault)
    }

    /// The net whose links it changes.
    #[must_use]
    pub fn links_of(&self) -> Option<NetId> {
        if let Self::BadLink(net, _) = self { Some(*net) } else { None }
    }
}

fn restart_base(world: &mut World, base: NodeId) {
    if !world.at_base(base).is_running() {
        world.start_base(base);
    }
}

/// A device whose program does not run is switched on.
fn start_host(world: &mut World, host: NodeId) {
    world.with_host(host, |host, env| {
        if host.machine().is_none() {
            (host.asleep, host.frozen) = (false, false);
            host.start(env);
        }
    });
}

fn restart_host(world: &mut World, host: NodeId) {
    world.with_host(host, HostNode::crash);
    start_host(world, host);
}

/// The system tells the program at once.
fn tell(world: &mut World, host: NodeId) {
    world.with_host(host, |host, env| {
        if host.is_awake() {
            host.network_changed(env);
        }
    });
}
