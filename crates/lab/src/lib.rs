//! Real-kernel networks for tests: machines are network namespaces, links are veth pairs, NATs are nft rule sets.
//!
//! A test calls [`in_network`] (or [`with_bowline`], which also has the real program at hand) and gets a [`Lab`]. The test
//! process runs itself again inside network, mount and process namespaces of its own: names cannot collide with those of another test,
//! nothing of the machine's own network is touched, and everything is gone when the test ends, however it ends.
//!
//! ```text
//! Lab::node ─ a machine            Internet ─ a switch with public addresses, IPv4 and IPv6
//! Node::{ip, sysctl, nft, …}       Internet::{server, home}   Home ─ a router with a NAT and a LAN behind it
//! Node::spawn ─ Process            program::{Base, Listener, Pinger} ─ the bowline program on a machine
//! Capture ─ bytes on the wire      Node::enter ─ sockets of this process inside a machine
//! Delay ─ packets come later       again ─ a program (a benchmark) inside a network of its own
//! ```
//!
//! This crate is test support: what goes wrong panics with the command and the system's words, because a network that is not as the
//! test says makes every later assertion worthless. It is Linux only.

#![cfg(target_os = "linux")]

mod capture;
mod delay;
mod frame;
mod nat;
mod nat64;
mod node;
mod process;
pub mod program;
mod world;

pub use capture::{Capture, Datagram};
pub use delay::Delay;
pub use frame::{Lab, Refusal, again, in_network, in_network_as_root, with_bowline, with_bowline_as_root};
pub use nat::Nat;
pub use node::{Node, connect};
pub use process::{Line, Process, eventually};
pub use world::{Home, Internet};
