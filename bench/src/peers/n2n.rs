//! n2n: layer 2 over UDP, edges that know each other through a supernode.
//!
//! Relay: the supernode alone, with two clients of ours that register and then send frames for each other, in the header of its version 1: a
//! look-up by MAC address, and the packet goes on. It looks into nothing that edges encrypt. Direct: two real edges, TAP devices, Twofish.

use std::{net::SocketAddrV4, sync::Arc, time::Duration};

use bowline_lab::{Node, Process};

use super::{
    load::{Billed, Tuned, Turn, Way},
    tools::{self, PATIENCE},
    tunnel::{self, Tunnel},
};
use crate::{
    cpu,
    direct::Cable,
    host::Wire,
    netns::{Net, Side},
};

pub(super) const PORT: u16 = 7654;
const COMMUNITY: &[u8; 5] = b"bench";
/// Of a header: version, type, time to live, sent by a supernode, community, two MAC addresses, two socket addresses, kind, number, checksum.
const HEADER_LEN: usize = 84;
const VERSION: u8 = 1;
const REGISTER: u8 = 1;
const PACKET: u8 = 3;
/// What an edge's compressor makes of nothing: the end of an LZO stream.
const EMPTY: [u8; 3] = [0x11, 0, 0];

const MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

pub(super) fn version() -> Result<String, String> {
    let program = tools::installed("supernode", "n2n")?;
    tools::installed("edge", "n2n")?;
    Ok(format!("n2n {}", tools::version(&program, &["-h"])))
}

pub(super) fn supernode(node: &Node) -> Process {
    let (core, port) = (cpu::BASE_CORE.to_string(), PORT.to_string());
    node.spawn("taskset", &["-c", &core, "supernode", "-l", &port])
}

pub(super) struct Supernode {
    _server: Process,
    way: Way,
    tuned: Tuned,
}

impl Supernode {
    pub(super) fn start(net: &Net) -> Result<Self, String> {
        version()?;
        let server = supernode(&net.middle);
        let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
        let at = |side| SocketAddrV4::new(*Net::base(side).ip(), PORT);
        register(&left, at(Side::Left), MAC[0])?;
        register(&right, at(Side::Right), MAC[1])?;
        let billed = Billed::Relay(server.pid());
        let way = Way { from: left, to: at(Side::Left), into: right, cores: [cpu::GEAR_CORE; 2], billed };
        way.open(&packet(100), PATIENCE)?;
        Ok(Self { _server: server, way, tuned: Tuned::default() })
    }

    pub(super) fn turn(&mut self, size: usize, time: Duration) -> Turn {
        let (way, datagram) = (&self.way, packet(size));
        let window = self.tuned.window(size, |window, time| way.turn(&datagram, window, time));
        way.turn(&datagram, window, time)
    }
}

/// Makes a client known; the supernode answers.
pub(super) fn register(wire: &Wire, to: SocketAddrV4, from: [u8; 6]) -> Result<(), String> {
    let message = [&header(REGISTER, from, [0; 6])[..], &EMPTY].concat();
    tools::until("the supernode's answer to a registration", || {
        let _ = wire.send(None, to, &message, None); // nobody may listen yet
        wire.wait(Duration::from_millis(200)) && wire.receive_one().is_some()
    })
}

fn header(kind: u8, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    let mut header = vec![VERSION, kind, 0, 0];
    header.extend_from_slice(COMMUNITY);
    header.resize(20, 0);
    header.extend_from_slice(&from);
    header.extend_from_slice(&to);
    header.resize(HEADER_LEN, 0);
    // The family of both socket addresses, as the edge's own machine writes it.
    header[32] = 2;
    header[52] = 2;
    header
}

fn packet(size: usize) -> Vec<u8> {
    let mut packet = header(PACKET, MAC[0], MAC[1]);
    packet.resize(HEADER_LEN + size, 0x5a);
    packet
}

/// Two edges on one cable, the supernode with the receiver.
pub(super) fn direct(cable: &Cable) -> Result<Tunnel, String> {
    version()?;
    tunnel::possible()?;
    let server = supernode(&cable.receiver);
    let edge = |node: &Node, end: usize| {
        let (core, ip) = (end.to_string(), tunnel::IP[end]);
        let mac = MAC[end].map(|byte| format!("{byte:02x}")).join(":");
        let supernode = format!("10.9.0.2:{PORT}");
        node.spawn(
            "taskset",
            &[
                "-c",
                &core,
                "edge",
                "-d",
                "n2n0",
                "-a",
                ip,
                "-s",
                "255.255.255.0",
                "-c",
                "bench",
                "-k",
                "key",
                "-m",
                &mac,
                "-l",
                &supernode,
            ],
        )
    };
    let ends = [edge(&cable.sender, 0), edge(&cable.receiver, 1)];
    let billed = ends.iter().map(Process::pid).collect();
    Tunnel::over(cable, billed, [vec![server], ends.into()].into_iter().flatten().collect())
}
