//! What goes wrong in a world: each fault has a beginning and, where it can be undone, an end.
//!
//! Faults act on nets and nodes from outside; the machines learn of them only as real ones would. When and which is
//! [`crate::scenario`]'s choice, or a test's.

use std::{fmt, time::Duration};

use bowline_proto::base::Base;

use crate::{
    fabric::NetId,
    link::Profile,
    packet::{NodeId, Time},
    world::World,
};

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq)]
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
    /// A net is cut off.
    Cut(NetId),
    /// Nothing passes between two nodes directly.
    Partition(NodeId, NodeId),
    /// A net's links become bad.
    BadLink(NetId, Profile),
    /// A net's gateway lets no UDP pass.
    BlockUdp(NetId),
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
    /// A host's program dies; it is started again after the duration.
    HostCrash(NodeId),
}

/// A fault, its moment and how long it lasts.
#[derive(Debug, Clone, PartialEq)]
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
            Self::Cut(net) => world.fabric.net_mut(net).cut = true,
            Self::Partition(one, other) => {
                world.fabric.blocked.extend([(one, other), (other, one)]);
            }
            Self::BadLink(net, profile) => {
                let net = world.fabric.net_mut(net);
                (net.up.profile, net.down.profile) = (profile, profile);
            }
            Self::BlockUdp(net) => world.fabric.net_mut(net).gateway.blocks_udp = true,
            Self::BaseCrash { base, silently } => {
                world.with_base(base, |base, env| base.crash(silently, env));
            }
            Self::Freeze(base) => world.with_base(base, |base, _| base.frozen = true),
            Self::Drain(base) => {
                let seconds = lasts.as_secs() as u16;
                world.with_base(base, |base, env| {
                    base.with(env, |machine: &mut Base, now| machine.drain(seconds, now));
                });
            }
            Self::Sleep(host) => world.with_host(host, |host, _| host.asleep = true),
            Self::HostCrash(host) => world.with_host(host, super::host_node::HostNode::crash),
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
            Self::Readdress { .. } | Self::RouterReboot(_) => {}
            Self::Cut(net) => world.fabric.net_mut(net).cut = false,
            Self::Partition(one, other) => {
                world.fabric.blocked.remove(&(one, other));
                world.fabric.blocked.remove(&(other, one));
            }
            Self::BadLink(net, _) => {
                if let Some(profile) = before {
                    let net = world.fabric.net_mut(net);
                    (net.up.profile, net.down.profile) = (profile, profile);
                }
            }
            Self::BlockUdp(net) => world.fabric.net_mut(net).gateway.blocks_udp = false,
            Self::BaseCrash { base, .. } => restart_base(world, base),
            Self::Freeze(base) => world.with_base(base, super::base_node::BaseNode::thaw),
            Self::Drain(base) => {
                world.with_base(base, |base, env| {
                    base.with(env, |machine: &mut Base, now| machine.drain(0, now));
                });
                world.with_base(base, |base, env| base.crash(false, env));
                restart_base(world, base);
            }
            Self::Sleep(host) => {
                world.with_host(host, |host, env| {
                    host.asleep = false;
                    host.with(env, bowline_proto::host::Host::handle_resume);
                    host.on_wake(env);
                });
            }
            Self::HostCrash(host) => {
                world.with_host(host, |host, env| {
                    if host.machine().is_none() {
                        host.start(env);
                    }
                });
            }
        }
    }

    /// The net whose links it changes.
    #[must_use]
    pub fn links_of(&self) -> Option<NetId> {
        if let Self::BadLink(net, _) = self { Some(*net) } else { None }
    }
}

fn restart_base(world: &mut World, base: NodeId) {
    world.with_base(base, |base, env| {
        if !base.is_running() {
            base.start(env);
        }
    });
}

/// The system tells the program at once.
fn tell(world: &mut World, host: NodeId) {
    world.with_host(host, |host, env| {
        if !host.asleep {
            host.network_changed(env);
        }
    });
}
