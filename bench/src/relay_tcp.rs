//! `relay-tcp`: host → base → host over TCP, one flow, 1,200 and 16,000 bytes of data.
//!
//! The reference is a plain proxy in the base's place that reads blocks of 256 KiB from one connection, steps from frame to frame in them,
//! gives each another type and ID, and writes all whole ones to the other. It looks nothing up, and nobody else is served.
//! Both ends write and read in blocks of many frames.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bowline_lab::Process;
use bowline_proto::{
    DeviceId,
    wire::{frame, relay::HEADER_LEN},
};

use crate::{
    cpu,
    gear::{Priority, Running},
    host::{BaseProcess, Host, send_data},
    netns::{Net, PORT, Side},
    report::{Goal, Options, Report, in_turn},
    say,
};

/// What is written, read and copied at once.
const BLOCK: usize = 256 << 10;

pub(crate) fn run(options: &Options, report: &mut Report) {
    let net = Net::new(options);
    let (turn, rounds) =
        if options.quick { (Duration::from_secs(1), 4) } else { (Duration::from_secs(3), 5) };
    for size in [1_200, 16_000] {
        let pairs = in_turn(rounds, || relay(&net, size, turn), || proxy(&net, size, turn));
        let rates: Vec<_> = pairs.iter().map(|(a, b)| (a.0, b.0)).collect();
        report.pairs(&format!("{size} B"), "Gbit/s (reference: a plain proxy)", &rates, Goal::AtLeast(0.80));
        let costs: Vec<_> = pairs.iter().map(|(a, b)| (1.0 / a.1, 1.0 / b.1)).collect();
        report.pairs(&format!("{size} B, cost"), "Gbit per CPU-s", &costs, Goal::AtLeast(0.80));
    }
}

/// Gigabits a second, and CPU seconds for one.
fn relay(net: &Net, size: usize, turn: Duration) -> (f64, f64) {
    let base = BaseProcess::start(&net.middle, "");
    let a = Host::register(&net.left, Net::base(Side::Left), base.id, 1);
    let b = Host::register(&net.right, Net::base(Side::Right), base.id, 2);
    flow(a.tcp, b.tcp, &framed(b.id, size), base.process.pid(), turn)
}

fn proxy(net: &Net, size: usize, turn: Duration) -> (f64, f64) {
    let proxy = Proxy::start(net);
    let (left, right) = proxy.pair(net);
    flow(left, right, &framed(DeviceId::from_bytes([1; 14]), size), proxy.0.pid(), turn)
}

/// The proxy in the base's place.
pub(crate) struct Proxy(Process);

impl Proxy {
    pub(crate) fn start(net: &Net) -> Self {
        let program = std::env::current_exe().expect("a program knows its own file");
        let process: Process = net.middle.spawn(program, &["forwarder", "tcp"]);
        process.wait("line that says it is ready", Duration::from_secs(10), 0, |line| {
            (line.text == "ready").then_some(())
        });
        Self(process)
    }

    /// Two connections, the first of which is copied to the second.
    pub(crate) fn pair(&self, net: &Net) -> (TcpStream, TcpStream) {
        let connect = |node: &bowline_lab::Node, side| {
            node.enter(|| TcpStream::connect(Net::base(side))).expect("the proxy accepts")
        };
        (connect(&net.left, Side::Left), connect(&net.right, Side::Right))
    }
}

fn flow(left: TcpStream, right: TcpStream, message: &[u8], pid: u32, turn: Duration) -> (f64, f64) {
    let flow = Flow::start(left, right, message);
    thread::sleep(turn / 5);
    let (start, used, before) = (Instant::now(), cpu::seconds(pid), flow.arrived());
    thread::sleep(turn);
    let bits = (flow.arrived() - before) as f64 * 8.0 / 1e9;
    let (time, used) = (start.elapsed().as_secs_f64(), cpu::seconds(pid) - used);
    flow.stop();
    (bits / time, used / bits)
}

/// A message again and again, as fast as the connection takes it, and its reader.
pub(crate) struct Flow {
    arrived: Arc<AtomicU64>,
    writer: Running,
    reader: Running,
}

impl Flow {
    pub(crate) fn start(mut left: TcpStream, mut right: TcpStream, message: &[u8]) -> Self {
        let block = message.repeat((BLOCK / message.len()).max(1));
        let _ = left.set_write_timeout(Some(Duration::from_millis(100)));
        let _ = right.set_read_timeout(Some(Duration::from_millis(100)));
        let arrived = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&arrived);
        let reader = Running::start(Priority::Normal, move |stop: &AtomicBool| {
            let mut buffer = vec![0; BLOCK];
            while !stop.load(Ordering::Relaxed) {
                if let Ok(n) = right.read(&mut buffer) {
                    count.fetch_add(n as u64, Ordering::Relaxed);
                }
            }
            0
        });
        let writer = Running::start(Priority::Normal, move |stop: &AtomicBool| {
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                if let Ok(n) = left.write(&block[at..]) {
                    at = (at + n) % block.len();
                }
            }
            0
        });
        Self { arrived, writer, reader }
    }

    /// Bytes that have arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(self) {
        self.writer.stop();
        self.reader.stop();
    }
}

/// A message to a device, in its frame.
pub(crate) fn framed(to: DeviceId, size: usize) -> Vec<u8> {
    let mut message = Vec::new();
    frame::write(&mut message, |out| out.extend_from_slice(&send_data(to, size)));
    message
}

/// The proxy's own process: what comes over each connection is copied to the one after it, each pair in a thread.
pub(crate) fn forwarder() -> ExitCode {
    cpu::pin(cpu::BASE_CORE);
    let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) else { return ExitCode::FAILURE };
    say("ready");
    while let (Ok((from, _)), Ok((to, _))) = (listener.accept(), listener.accept()) {
        thread::spawn(move || copy(from, to));
    }
    ExitCode::FAILURE
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let (mut buffer, mut filled) = (vec![0; BLOCK], 0);
    while let Ok(n @ 1..) = from.read(&mut buffer[filled..]) {
        filled += n;
        let whole = readdress(&mut buffer[..filled]);
        if to.write_all(&buffer[..whole]).is_err() {
            break;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// Gives every whole frame another header; tells how many bytes they are.
fn readdress(bytes: &mut [u8]) -> usize {
    const HEADER: [u8; HEADER_LEN] = [0x5b; HEADER_LEN];
    let mut start = 0;
    while let Some((length, rest)) = bytes[start..].split_first_chunk_mut() {
        let Some(frame) = rest.get_mut(..usize::from(u16::from_be_bytes(*length))) else { break };
        frame[..HEADER_LEN].copy_from_slice(&HEADER);
        start += frame::LENGTH_LEN + frame.len();
    }
    start
}
