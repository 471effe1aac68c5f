//! coturn, the TURN server of the WebRTC world: one allocation, one channel (RFC 8656).
//!
//! The left end allocates and binds a channel to the right one, then sends ChannelData; the server takes four bytes off and sends on from
//! the port that belongs to the allocation. So only one of the two ends is a client, which is the least that the server can have to do.
//! Without authentication: it would only matter while setting up.
//!
//! The client is what is needed for that and no more.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use bowline_lab::Process;

use super::{
    load::{Billed, Tuned, Turn, Way},
    tools::{self, PATIENCE},
};
use crate::{
    cpu,
    host::Wire,
    netns::{Net, Side},
};

const PORT: u16 = 3478;
const PROGRAM: &str = "turnserver";
const CHANNEL: u16 = 0x4000;

const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
/// Added to a request's type in the answer that grants it, and in the one that does not.
const SUCCESS: u16 = 0x0100;
const MAGIC_COOKIE: u32 = 0x2112_a442;
const TRANSACTION: [u8; 12] = *b"bowlinebench";
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const UDP: [u8; 4] = [17, 0, 0, 0];

pub(super) struct Coturn {
    _server: Process,
    way: Way,
    tuned: Tuned,
}

impl Coturn {
    pub(super) fn version() -> Result<String, String> {
        let program = tools::installed(PROGRAM, "coturn")?;
        Ok(format!("coturn {}", tools::version(&program, &["--version"])))
    }

    pub(super) fn start(net: &Net) -> Result<Self, String> {
        tools::installed(PROGRAM, "coturn")?;
        let home = net.middle.home().display().to_string();
        let port = PORT.to_string();
        let core = cpu::BASE_CORE.to_string();
        let server = net.middle.spawn(
            "taskset",
            &[
                "-c",
                &core,
                PROGRAM,
                "-n",
                "--no-auth",
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "--no-tcp",
                "--no-stdout-log",
                "--log-file=/dev/null",
                "--simple-log",
                "--pidfile",
                &format!("{home}/turn.pid"),
                "--userdb",
                &format!("{home}/turndb"),
                "--listening-port",
                &port,
                "--listening-ip",
                "10.1.0.1",
                "--relay-ip",
                "10.2.0.1",
            ],
        );
        let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
        let at = SocketAddrV4::new(*Net::base(Side::Left).ip(), PORT);
        let peer = SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 2), right.port());
        ask(&left, at, ALLOCATE, &attribute(REQUESTED_TRANSPORT, &UDP))?;
        let bind =
            [attribute(CHANNEL_NUMBER, &[0x40, 0, 0, 0]), attribute(XOR_PEER_ADDRESS, &xor(peer))].concat();
        ask(&left, at, CHANNEL_BIND, &bind)?;
        let billed = Billed::Relay(server.pid());
        let way = Way { from: left, to: at, into: right, cores: [cpu::GEAR_CORE; 2], billed };
        way.open(&channel_data(100), PATIENCE)?;
        Ok(Self { _server: server, way, tuned: Tuned::default() })
    }

    pub(super) fn turn(&mut self, size: usize, time: std::time::Duration) -> Turn {
        let (way, datagram) = (&self.way, channel_data(size));
        let window = self.tuned.window(size, |window, time| way.turn(&datagram, window, time));
        way.turn(&datagram, window, time)
    }
}

/// Asks again and again until the server, which may still be starting, grants it.
fn ask(wire: &Wire, server: SocketAddrV4, request: u16, attributes: &[u8]) -> Result<(), String> {
    let mut message = request.to_be_bytes().to_vec();
    message.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    message.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    message.extend_from_slice(&TRANSACTION);
    message.extend_from_slice(attributes);
    let mut refused = None;
    let asked = tools::until("an answer of the TURN server", || {
        let _ = wire.send(None, server, &message, None); // nobody may listen yet
        wire.wait(std::time::Duration::from_millis(200));
        while let Some(answer) = wire.receive_one() {
            match answer.first_chunk().map(|kind| u16::from_be_bytes(*kind)) {
                Some(kind) if kind == request | SUCCESS => {
                    refused = None;
                    return true;
                }
                Some(kind) => refused = Some(kind),
                None => {}
            }
        }
        false
    });
    match refused {
        Some(kind) => Err(format!("it answered {request:#06x} with {kind:#06x}")),
        None => asked,
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &(value.len() as u16).to_be_bytes(), value].concat()
}

/// An IPv4 address as XOR-PEER-ADDRESS has it (RFC 8489, section 14.2).
fn xor(address: SocketAddrV4) -> Vec<u8> {
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = u32::from(*address.ip()) ^ MAGIC_COOKIE;
    [&[0, 1][..], &port.to_be_bytes(), &ip.to_be_bytes()].concat()
}

fn channel_data(size: usize) -> Vec<u8> {
    let mut message = [CHANNEL.to_be_bytes(), (size as u16).to_be_bytes()].concat();
    message.resize(4 + size, 0x5a);
    message
}
