//! The references for relaying: four bare forwarders that do what a base must do to a message and nothing else.
//!
//! Two look-ups in hash tables (who sent it, where its destination is), fifteen bytes rewritten, sent on. No limits, no lapses, no
//! counters, no control. They differ in how they talk to the kernel:
//! - `one`: a call in and a call out for each packet;
//! - `batch`: recvmmsg in, sendmmsg out;
//! - `coalesce`: recvmmsg in, runs of one destination and size copied together, one GSO send for each;
//! - `inplace`: what GRO merged is rewritten in place and leaves as it came, in one GSO send.
//!
//! Each is this program in a process of its own, on the base's core. A device makes itself known by a datagram of one byte
//! 0xff and its ID.

use std::{
    collections::HashMap,
    io::{ErrorKind, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    process::ExitCode,
    time::Duration,
};

use bowline_lab::{Node, Process};
use bowline_proto::{DeviceId, wire::relay};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg, setsockopt, sockopt,
};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;

use crate::{cpu, host::Wire, netns::PORT, say};

pub(crate) const KINDS: [&str; 4] = ["one", "batch", "coalesce", "inplace"];

/// What a device sends to be known, before its ID.
const HELLO: u8 = 0xff;
const BUFFER: usize = 4 << 20;
/// Packets of one recvmmsg.
const BATCH: usize = 64;
/// Room for a single packet.
const PACKET: usize = 2_048;
const LARGEST: usize = 1 << 16;
const LARGEST_RUN: usize = 65_000;
const MOST_SEGMENTS: usize = 64;

/// A forwarder's process.
pub(crate) struct Forwarder {
    pub(crate) process: Process,
}

impl Forwarder {
    pub(crate) fn start(node: &Node, kind: &str) -> Self {
        let program = std::env::current_exe().expect("a program knows its own file");
        let process = node.spawn(program, &["forwarder", kind]);
        process.wait("line that says it is ready", Duration::from_secs(10), 0, |line| {
            (line.text == "ready").then_some(())
        });
        Self { process }
    }
}

/// Makes a device known at a forwarder.
pub(crate) fn introduce(wire: &Wire, from: Option<Ipv4Addr>, to: SocketAddrV4, id: DeviceId) {
    let mut hello = vec![HELLO];
    hello.extend_from_slice(id.as_bytes());
    wire.send(from, to, &hello, None).expect("a datagram can be sent");
}

/// Who is where.
#[derive(Default)]
struct Table {
    sources: HashMap<SocketAddrV4, DeviceId>,
    destinations: HashMap<DeviceId, SocketAddrV4>,
}

impl Table {
    /// Rewrites a message in place and says where it goes.
    fn forward(&mut self, from: SocketAddrV4, message: &mut [u8]) -> Option<SocketAddrV4> {
        let (id, _) = relay::split(message).ok()?;
        if message[0] == HELLO {
            self.sources.insert(from, id);
            self.destinations.insert(id, from);
            return None;
        }
        let source = *self.sources.get(&from)?;
        let to = *self.destinations.get(&id)?;
        relay::rewrite(message, source).ok()?;
        Some(to)
    }
}

/// The forwarder's own process.
pub(crate) fn main(kind: &str) -> ExitCode {
    cpu::pin(cpu::BASE_CORE);
    let run = match kind {
        "one" => one,
        "batch" => batch,
        "coalesce" => coalesce,
        "inplace" => in_place,
        _ => return ExitCode::from(crate::WRONG_USE),
    };
    let socket = match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let asked = SockRef::from(&socket);
    let _ = asked.set_recv_buffer_size(BUFFER); // the system may give less
    let _ = asked.set_send_buffer_size(BUFFER);
    say("ready");
    run(&socket, Table::default());
    ExitCode::SUCCESS
}

fn one(socket: &UdpSocket, mut table: Table) {
    let mut buffer = [0; PACKET];
    loop {
        let Ok((length, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) else { continue };
        if let Some(to) = table.forward(from, &mut buffer[..length]) {
            let _ = socket.send_to(&buffer[..length], to); // what the system does not take is lost
        }
    }
}

/// Receives packets, each into a buffer of its own; gives their lengths and sources.
fn receive(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrIn>,
    buffer: &mut [u8],
    got: &mut Vec<(usize, SocketAddrV4)>,
) {
    got.clear();
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffer.chunks_mut(PACKET).map(|chunk| [IoSliceMut::new(chunk)]).collect();
    let flags = MsgFlags::MSG_WAITFORONE;
    let Ok(messages) = recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), flags, None) else { return };
    for message in messages {
        let from = message.address.map(|a| SocketAddrV4::new(a.ip(), a.port()));
        got.push((message.bytes, from.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))));
    }
}

fn batch(socket: &UdpSocket, mut table: Table) {
    let mut buffer = vec![0; PACKET * BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut send_headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let (mut got, mut addresses) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    loop {
        receive(socket, &mut headers, &mut buffer, &mut got);
        let mut slices: Vec<[IoSlice<'_>; 1]> = Vec::with_capacity(BATCH);
        addresses.clear();
        for (&(length, from), chunk) in got.iter().zip(buffer.chunks_mut(PACKET)) {
            if let Some(to) = table.forward(from, &mut chunk[..length]) {
                slices.push([IoSlice::new(&chunk[..length])]);
                addresses.push(Some(SockaddrIn::from(to)));
            }
        }
        let mut sent = 0;
        while sent < slices.len() {
            let rest = sendmmsg(
                socket.as_raw_fd(),
                &mut send_headers,
                &slices[sent..],
                &addresses[sent..],
                [],
                MsgFlags::empty(),
            );
            sent += rest.map_or(1, Iterator::count).max(1);
        }
    }
}

fn coalesce(socket: &UdpSocket, mut table: Table) {
    let mut buffer = vec![0; PACKET * BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut got = Vec::with_capacity(BATCH);
    let mut run: Vec<u8> = Vec::with_capacity(LARGEST);
    loop {
        receive(socket, &mut headers, &mut buffer, &mut got);
        let mut open: Option<(SocketAddrV4, usize)> = None;
        for (&(length, from), chunk) in got.iter().zip(buffer.chunks_mut(PACKET)) {
            let Some(to) = table.forward(from, &mut chunk[..length]) else { continue };
            let joins = open.is_some_and(|(run_to, size)| {
                run_to == to
                    && size == length
                    && run.len() + length <= LARGEST_RUN
                    && run.len() < size * MOST_SEGMENTS
            });
            if !joins {
                send_run(socket, open, &mut run);
                open = Some((to, length));
            }
            run.extend_from_slice(&chunk[..length]);
        }
        send_run(socket, open, &mut run);
    }
}

fn send_run(socket: &UdpSocket, run: Option<(SocketAddrV4, usize)>, bytes: &mut Vec<u8>) {
    let Some((to, size)) = run else { return };
    let segment = size as u16;
    let gso = [ControlMessage::UdpGsoSegments(&segment)];
    let cmsgs: &[ControlMessage<'_>] = if bytes.len() > size { &gso } else { &[] };
    let to = SockaddrIn::from(to);
    let _ = sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], cmsgs, MsgFlags::empty(), Some(&to));
    bytes.clear();
}

fn in_place(socket: &UdpSocket, mut table: Table) {
    let state = UdpSocketState::new(socket.into()).expect("a socket just made");
    // Switched on for timing by the crate, and paid for by every packet.
    let _ = setsockopt(socket, sockopt::ReceiveTimestampns, &false);
    // It made the socket non-blocking; a forwarder with nothing to do waits.
    let _ = socket.set_nonblocking(false);
    let mut buffer = vec![0; LARGEST];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        // One at a time: each may be 64 KiB, and the call would wait for more.
        let received = state.recv(socket.into(), &mut [IoSliceMut::new(&mut buffer)], &mut metas);
        if received.is_err() {
            continue;
        }
        let meta = &metas[0];
        let SocketAddr::V4(from) = meta.addr else { continue };
        let (contents, stride) = (&mut buffer[..meta.len], meta.stride.max(1));
        let mut to = None;
        for message in contents.chunks_mut(stride) {
            to = table.forward(from, message);
        }
        let Some(to) = to else { continue };
        let segment_size = (contents.len() > stride).then_some(stride);
        let transmit = Transmit { destination: to.into(), ecn: None, contents, segment_size, src_ip: None };
        match state.try_send(socket.into(), &transmit) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => eprintln!("{error}"),
            _ => {}
        }
    }
}
