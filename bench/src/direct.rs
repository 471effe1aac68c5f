//! `direct` and `direct-one`: one device to another over a direct path, through the public library.
//!
//! Two machines on one veth; the sender's process on one core, the receiver's on the other, each with one thread that works. The
//! receive side counts. The reference is what the same sockets carry without us: as large as ours, the same options, runs of as
//! many datagrams in a call (GSO), as many buffers to receive into (GRO). For `direct-one` it is one packet a call on
//! both sides, and one message a call (`send`, `recv`) through the library.
//!
//! Library: `one` is a message a call, `segments` hands one buffer over and takes what came together (`send_segments`,
//! `recv_segments`), `batch` as many buffers as messages (`send_batch`, `recv_batch`), `paced:N` is `segments` at N messages a second.

use std::{
    io::{self, BufRead as _, IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bowline::{Endpoint, SecretKey};
use bowline_lab::{Lab, Node, Process, connect};
use bytes::Bytes;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, recv, sendmsg},
};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

use crate::{
    cpu,
    netns::Links,
    report::{Goal, Options, Report, spread},
    say,
};

/// What both the library and the reference ask of the system for their sockets.
const BUFFER: usize = 4 << 20;
/// The most bytes of one send call: what an IPv4 packet holds.
const LARGEST_RUN: usize = 65_507;
const MOST_SEGMENTS: usize = 64;
/// Room for all that the system merged.
const LARGEST: usize = 1 << 16;
/// Longer than anything takes that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages taken from the library at once.
const TAKE: usize = 1_024;
/// Messages between two looks at the count.
const LOOK: usize = 64;
/// Messages at a time of a sender that keeps to a rate.
const PACE: usize = 20;

const SENDER: &str = "10.9.0.1:7001";
const RECEIVER: &str = "10.9.0.2:7002";
/// The receiver's port.
pub(crate) const PEER_PORT: u16 = 7002;

/// Two machines on one cable.
pub(crate) struct Cable {
    pub(crate) sender: Node,
    pub(crate) receiver: Node,
}

impl Cable {
    pub(crate) fn new(options: &Options) -> Self {
        let lab = Lab::here(&options.folder);
        let (sender, receiver) = (lab.node("sender"), lab.node("receiver"));
        connect(&sender, "eth0", &receiver, "eth0");
        sender.address("eth0", "10.9.0.1/24");
        receiver.address("eth0", "10.9.0.2/24");
        Self { sender, receiver }
    }

    pub(crate) fn set(&self, links: Links) {
        let how = if links == Links::Single { "off" } else { "on" };
        for node in [&self.sender, &self.receiver] {
            let set = node.command("ethtool").args(["-K", "eth0", "tx-udp-segmentation", how]).output();
            let done = set.as_ref().is_ok_and(|output| output.status.success());
            assert!(done, "ethtool cannot switch segmentation: {set:?}");
        }
    }
}

/// What one turn measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Datagrams that the receiver counted, a second.
    pub(crate) rate: f64,
    /// CPU seconds of the sender for a million that it sent, and of the receiver for a million that it received.
    sender: f64,
    receiver: f64,
}

/// A sender and a receiver at work.
pub(crate) struct Flow {
    sender: Process,
    receiver: Process,
}

impl Flow {
    /// Starts both; returns once data flows.
    pub(crate) fn start(cable: &Cable, how: &str, size: usize) -> Self {
        let program = std::env::current_exe().expect("a program knows its own file");
        let start = |node: &Node, role: &str| {
            let process = node.spawn(&program, &["direct", role, how, &size.to_string()]);
            process
                .wait("line that says it is ready", PATIENCE, 0, |line| (line.text == "ready").then_some(()));
            process
        };
        let receiver = start(&cable.receiver, "receiver");
        Self { sender: start(&cable.sender, "sender"), receiver }
    }

    /// Measures for a while what arrives and what it costs.
    pub(crate) fn measure(&mut self, turn: Duration) -> Turn {
        let before = (Instant::now(), Mark::of(&mut self.sender), Mark::of(&mut self.receiver));
        thread::sleep(turn);
        let after = (Instant::now(), Mark::of(&mut self.sender), Mark::of(&mut self.receiver));
        Turn {
            rate: (after.2.packets - before.2.packets) / (after.0 - before.0).as_secs_f64(),
            sender: after.1.cost_since(&before.1),
            receiver: after.2.cost_since(&before.2),
        }
    }
}

/// What a worker has done so far.
struct Mark {
    packets: f64,
    cpu: f64,
}

impl Mark {
    fn of(worker: &mut Process) -> Self {
        let mark = worker.mark();
        worker.write(b"\n");
        let packets = worker.wait("count", PATIENCE, mark, |line| line.text.parse().ok());
        Self { packets, cpu: cpu::seconds(worker.pid()) }
    }

    fn cost_since(&self, before: &Self) -> f64 {
        (self.cpu - before.cpu) / (self.packets - before.packets) * 1e6
    }
}

/// One turn with fresh processes, so that none inherits anything.
fn turn(cable: &Cable, how: &str, size: usize, time: Duration) -> Turn {
    let mut flow = Flow::start(cable, how, size);
    thread::sleep(time / 5);
    flow.measure(time)
}

pub(crate) fn run(options: &Options, report: &mut Report) {
    let cable = Cable::new(options);
    let (time, rounds) = times(options);
    for links in Links::ALL {
        cable.set(links);
        rows(&cable, links, 1_200, &["segments", "batch"], "raw", 0.90, (time, rounds), report);
        rows(&cable, links, 100, &["segments"], "raw", 0.90, (time, rounds), report);
    }
}

pub(crate) fn run_one(options: &Options, report: &mut Report) {
    let cable = Cable::new(options);
    let (time, rounds) = times(options);
    for links in Links::ALL {
        cable.set(links);
        rows(&cable, links, 1_200, &["one"], "raw-one", 1.0, (time, rounds), report);
        rows(&cable, links, 100, &["one"], "raw-one", 1.0, (time, rounds), report);
    }
}

fn times(options: &Options) -> (Duration, usize) {
    if options.quick { (Duration::from_millis(600), 3) } else { (Duration::from_secs(3), 5) }
}

#[allow(clippy::too_many_arguments, reason = "one row of a table each")]
fn rows(
    cable: &Cable,
    links: Links,
    size: usize,
    ours: &[&str],
    reference: &str,
    goal: f64,
    (time, rounds): (Duration, usize),
    report: &mut Report,
) {
    // Small datagrams are shown for what they tell.
    let goal = if size == 1_200 { Goal::AtLeast(goal) } else { Goal::None };
    let mut measured: Vec<Vec<(Turn, Turn)>> = vec![vec![]; ours.len()];
    let mut distances = vec![];
    for _ in 0..rounds {
        for (how, pairs) in ours.iter().zip(&mut measured) {
            distances.push(cpu::distance());
            pairs.push((turn(cable, how, size, time), turn(cable, reference, size, time)));
        }
    }
    for (how, pairs) in ours.iter().zip(&measured) {
        let case = format!("{} {size} B, {how}", links.name());
        let gbit = |turn: &Turn| turn.rate * size as f64 * 8.0 / 1e9;
        let rates: Vec<_> = pairs.iter().map(|(a, b)| (gbit(a), gbit(b))).collect();
        let kpps = spread(&pairs.iter().map(|p| p.0.rate / 1e3).collect::<Vec<_>>()).1;
        report.pairs(&case, &format!("Gbit/s received ({kpps:.0} kpps)"), &rates, goal);
        type Cost = fn(&Turn) -> f64;
        let sides: [(&str, Cost); 2] = [("sender", |turn| turn.sender), ("receiver", |turn| turn.receiver)];
        for (side, cost) in sides {
            // Less is better: turned round, so that the goal reads the same.
            let costs: Vec<_> = pairs.iter().map(|(a, b)| (1.0 / cost(a), 1.0 / cost(b))).collect();
            let of = |f: fn(&(Turn, Turn)) -> &Turn| {
                spread(&pairs.iter().map(|pair| cost(f(pair))).collect::<Vec<_>>()).1
            };
            let unit = format!(
                "Mpkt per CPU-s ({:.3} and {:.3} CPU-s per Mpkt)",
                of(|pair| &pair.0),
                of(|pair| &pair.1)
            );
            report.pairs(&format!("{case}: cost, {side}"), &unit, &costs, goal);
        }
    }
    // What tells why one run differs from another.
    report.figures(
        &format!("{} {size} B: between the cores", links.name()),
        "ns one way",
        &distances,
        Goal::None,
    );
}

// --- The workers -------------------------------------------------------------------------------------------------------

/// One end of a flow, in a process of its own: says "ready", then works until it is killed, and answers each line on its standard
/// input with its count.
pub(crate) fn main(words: &[&str]) -> ExitCode {
    let [role, how, size] = words[..] else { return ExitCode::from(2) };
    let Ok(size) = size.parse::<usize>() else { return ExitCode::from(2) };
    let sends = role == "sender";
    cpu::pin(usize::from(!sends));
    let count = Arc::new(AtomicU64::new(0));
    answer(Arc::clone(&count));
    match (how, sends) {
        ("raw", true) => raw_send(size, (LARGEST_RUN / size).min(MOST_SEGMENTS), &count),
        ("raw-one", true) => raw_send(size, 1, &count),
        ("raw", false) => raw_receive(&count),
        ("raw-one", false) => raw_receive_one(&count),
        (how, sends) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime needs nothing special");
            runtime.block_on(async {
                if sends { send(how, size, &count).await } else { receive(how, &count).await }
            });
        }
    }
    ExitCode::SUCCESS
}

fn answer(count: Arc<AtomicU64>) {
    thread::spawn(move || {
        for _line in io::stdin().lock().lines().map_while(Result::ok) {
            say(&count.load(Ordering::Relaxed).to_string());
        }
    });
}

/// A socket as the library has it.
fn socket(address: &str) -> (UdpSocket, UdpSocketState) {
    let address: SocketAddr = address.parse().expect("written above");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let socket = socket.expect("the system has sockets");
    let _ = socket.set_recv_buffer_size(BUFFER); // the system may give less
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&SocketAddr::from(([0; 4], address.port())).into()).expect("the namespace is new");
    let socket: UdpSocket = socket.into();
    let state = UdpSocketState::new((&socket).into()).expect("a socket just made");
    let asked = socket2::SockRef::from(&socket);
    let _ = asked.set_recv_tos_v4(false);
    let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::ReceiveTimestampns, &false);
    (socket, state)
}

fn wait(socket: &UdpSocket, for_what: PollFlags) {
    let _ = poll(&mut [PollFd::new(socket.as_fd(), for_what)], PollTimeout::NONE);
}

fn raw_send(size: usize, segments: usize, count: &AtomicU64) {
    let (socket, _state) = socket(SENDER);
    let run = vec![0x5a; size * segments];
    let to = SockaddrStorage::from(RECEIVER.parse::<SocketAddr>().expect("written above"));
    let segment = u16::try_from(size).expect("a size of the table");
    let control = [ControlMessage::UdpGsoSegments(&segment)];
    let control = if segments > 1 { &control[..] } else { &[] };
    say("ready");
    loop {
        match sendmsg(socket.as_raw_fd(), &[IoSlice::new(&run)], control, MsgFlags::empty(), Some(&to)) {
            Ok(_) => count.fetch_add(segments as u64, Ordering::Relaxed),
            Err(nix::errno::Errno::EAGAIN) => {
                wait(&socket, PollFlags::POLLOUT);
                0
            }
            Err(error) => panic!("cannot send: {error}"),
        };
    }
}

fn raw_receive(count: &AtomicU64) {
    let (socket, state) = socket(RECEIVER);
    let mut buffer = vec![0; LARGEST * BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    say("ready");
    loop {
        let mut chunks = buffer.chunks_mut(LARGEST);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        match state.recv((&socket).into(), &mut slices, &mut metas) {
            Ok(filled) => {
                let datagrams = metas[..filled].iter().map(|m| m.len.div_ceil(m.stride.max(1)) as u64);
                count.fetch_add(datagrams.sum(), Ordering::Relaxed);
            }
            Err(_) => wait(&socket, PollFlags::POLLIN),
        }
    }
}

fn raw_receive_one(count: &AtomicU64) {
    let address: SocketAddr = RECEIVER.parse().expect("written above");
    // Not as the library has it: what the system merged would come as one.
    let socket = UdpSocket::bind(("0.0.0.0", address.port())).expect("the namespace is new");
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER);
    let mut buffer = vec![0; LARGEST];
    say("ready");
    loop {
        if recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The key of the sender, or of the receiver.
pub(crate) fn key_of(sender: bool) -> SecretKey {
    SecretKey::from_seed(&[if sender { 1 } else { 2 }; 32])
}

fn key(end: &str) -> SecretKey {
    key_of(end == SENDER)
}

async fn endpoint(own: &str, other: &str) -> Endpoint {
    let port = own.parse::<SocketAddr>().expect("written above").port();
    let given = other.parse().expect("written above");
    let builder = Endpoint::builder(key(own)).link_local(false).port(port);
    builder.given(key(other).device_id(), given).bind().await.expect("the namespace is new")
}

async fn send(how: &str, size: usize, count: &AtomicU64) {
    let endpoint = endpoint(SENDER, RECEIVER).await;
    let peer = key(RECEIVER).device_id();
    endpoint.want(peer).expect("there is room");
    let run = vec![0x5a; (LARGEST_RUN / size).min(MOST_SEGMENTS) * size];
    // One buffer for each message, as programs have them.
    let batch: Vec<Bytes> = run.chunks(size).map(Bytes::copy_from_slice).collect();
    // The path stands, and is known to carry the size, once a message takes it.
    while endpoint.send(peer, &run[..size]).await.is_err()
        || endpoint.peer(peer).is_none_or(|p| p.rtt.is_none())
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    say("ready");
    let paced = how.strip_prefix("paced:").and_then(|rate| rate.parse::<f64>().ok());
    let began = Instant::now();
    loop {
        if let Some(rate) = paced {
            let sent = count.load(Ordering::Relaxed) as f64;
            let due = began + Duration::from_secs_f64(sent / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        let sent = match how {
            _ if paced.is_some() => endpoint.send_segments(peer, &run[..PACE * size], size).await,
            "segments" => endpoint.send_segments(peer, &run, size).await,
            "batch" => endpoint.send_batch(peer, &batch).await,
            _ => {
                let mut sent = 0;
                while sent < LOOK && endpoint.send(peer, &run[..size]).await.is_ok() {
                    sent += 1;
                }
                Ok(sent)
            }
        };
        count.fetch_add(sent.unwrap_or(0) as u64, Ordering::Relaxed);
    }
}

async fn receive(how: &str, count: &AtomicU64) {
    let endpoint = endpoint(RECEIVER, SENDER).await;
    endpoint.want(key(SENDER).device_id()).expect("there is room");
    say("ready");
    if how == "one" {
        while endpoint.recv().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    if how != "batch" {
        while let Ok(segments) = endpoint.recv_segments().await {
            count.fetch_add(segments.count() as u64, Ordering::Relaxed);
        }
    }
    let mut batch = Vec::with_capacity(TAKE);
    while let Ok(received) = endpoint.recv_batch(&mut batch, TAKE).await {
        count.fetch_add(received as u64, Ordering::Relaxed);
        batch.clear();
    }
}
