//! A deterministic world in which the real host and base machines run.
//!
//! Virtual time, one seed, no sockets, no threads: the same seed gives the same run, bit for bit. The machines are
//! `bowline_proto::host::Host` and `bowline_proto::base::Base` themselves; only their surroundings are simulated.
//!
//! - the network: [`packet`], [`link`], [`nat`], [`fabric`] (nets, gateways, routes), [`tcp`] and [`stack`] (a node's
//!   kernel)
//! - who lives in it: [`host_node`], [`base_node`], several of which may share a [`bus`]; [`world`] holds clock, queue and nodes
//! - what is watched: [`trace`] (the packet diagram), [`checks`] (safety), [`logs`] (errors), [`oracle`] (can a direct
//!   path exist?)
//! - what happens: [`faults`], [`adversary`] (those who mean harm), [`plan`] (random worlds from a seed), [`scenario`]
//!   (a plan carried out, liveness), [`shrink`] (a failure made small)

#![allow(clippy::result_large_err, reason = "a dropped packet is handed back whole, for the diagram")]
#![allow(clippy::option_map_unit_fn, clippy::collapsible_match, reason = "a node that is down does nothing")]

pub mod adversary;
pub mod base_node;
pub mod bus;
pub mod checks;
pub mod fabric;
pub mod faults;
pub mod host_node;
pub mod link;
pub mod logs;
pub mod nat;
pub mod oracle;
pub mod packet;
pub mod plan;
pub mod scenario;
pub mod shrink;
pub mod stack;
pub mod tcp;
pub mod trace;
pub mod world;
