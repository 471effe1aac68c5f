//! bowline's side of each comparison.
//!
//! - Relay: the base, with two hosts written by hand, as in `relay`: what sends and receives is no part of what is measured. Where the peer
//!   takes messages together, so does ours: short ones share datagrams, as those of a batch do.
//! - Direct, plain: two endpoints of the library, `send_segments` and `recv_segments`, as in `direct`. Nothing is encrypted.
//! - Relay over TCP: the same base, its frames written and read in blocks, as in `relay-tcp`.
//! - Direct, encrypted: a stream of a QUIC connection over bowline (`bowline-quic`, which has no datagrams), counted in
//!   pieces of the datagrams' size.

use std::{
    env,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bowline_proto::wire::{ANY_PATH_DATA, joined};

use super::{
    ends::Ends,
    load::{Billed, Tuned, Turn, Way},
    tools::PATIENCE,
};
use crate::{
    cpu,
    direct::Cable,
    host::{BaseProcess, Host, Wire, send_data, send_joined},
    netns::{Net, Side},
    relay_tcp, say, stream,
};

/// The base and two hosts.
pub(super) struct Base {
    base: BaseProcess,
    hosts: [Host; 2],
    way: Way,
    tuned: Tuned,
}

impl Base {
    pub(super) fn start(net: &Net) -> Result<Self, String> {
        let base = BaseProcess::start(&net.middle, "");
        let (left, right) = (Arc::new(Wire::new(&net.left)), Arc::new(Wire::new(&net.right)));
        let mut a = Host::register(&net.left, Net::base(Side::Left), base.id, 1);
        let mut b = Host::register(&net.right, Net::base(Side::Right), base.id, 2);
        a.confirm(&left);
        b.confirm(&right);
        let billed = Billed::Relay(base.process.pid());
        let to = Net::base(Side::Left);
        let way = Way { from: left, to, into: right, cores: [cpu::GEAR_CORE; 2], billed };
        way.open(&send_data(b.id, 100), PATIENCE)?;
        Ok(Self { base, hosts: [a, b], way, tuned: Tuned::default() })
    }

    /// Each message in a datagram of its own.
    pub(super) fn turn(&mut self, size: usize, time: Duration) -> Turn {
        let datagram = send_data(self.hosts[1].id, size);
        self.turn_of(&datagram, time)
    }

    /// As the library sends a batch: short messages share datagrams.
    pub(super) fn turn_batch(&mut self, size: usize, time: Duration) -> Turn {
        let each = joined::count(size, ANY_PATH_DATA - joined::SIZE_LEN);
        if each == 1 {
            return self.turn(size, time);
        }
        let datagram = send_joined(self.hosts[1].id, size, each);
        self.turn_of(&datagram, time).of_messages(each)
    }

    fn turn_of(&mut self, datagram: &[u8], time: Duration) -> Turn {
        let (way, [left, right]) = (&self.way, &mut self.hosts);
        left.refresh(&way.from);
        right.refresh(&way.into);
        let window = self.tuned.window(datagram.len(), |window, time| way.turn(datagram, window, time));
        way.turn(datagram, window, time)
    }

    /// Forgets how much load is best: the links have changed.
    pub(super) fn retune(&mut self) {
        self.tuned = Tuned::default();
    }

    /// A turn over TCP, between two other hosts.
    pub(super) fn turn_tcp(&self, net: &Net, size: usize, time: Duration) -> Turn {
        let (id, pid) = (self.base.id, self.base.process.pid());
        let left = Host::register(&net.left, Net::base(Side::Left), id, 3);
        let right = Host::register(&net.right, Net::base(Side::Right), id, 4);
        let message = relay_tcp::framed(right.id, size);
        let flow = relay_tcp::Flow::start(left.tcp, right.tcp, &message);
        thread::sleep(time / 5);
        let (start, cpu, before) = (Instant::now(), cpu::seconds(pid), flow.arrived());
        thread::sleep(time);
        let received = (flow.arrived() - before) as f64 / message.len() as f64;
        let (seconds, used) = (start.elapsed().as_secs_f64(), cpu::seconds(pid) - cpu);
        flow.stop();
        Turn { rate: received / seconds, cost: used / received * 1e6, busy: used / seconds, lost: 0.0 }
    }
}

/// How two endpoints talk directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direct {
    Plain,
    Encrypted,
}

impl Direct {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "bowline",
            Self::Encrypted => "bowline-quic stream",
        }
    }

    /// One turn with fresh processes.
    pub(super) fn turn(self, cable: &Cable, size: usize, time: Duration) -> Result<Turn, String> {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let (kind, how) = match self {
            Self::Plain => ("direct", "segments"),
            Self::Encrypted => ("pieces", "bowline"),
        };
        let words = |role: &str| [kind, role, how, &size.to_string()].map(str::to_owned).to_vec();
        let nodes = [&cable.sender, &cable.receiver];
        let mut ends = Ends::start(&program, nodes, [cpu::BASE_CORE, cpu::GEAR_CORE], words)?;
        // QUIC starts slowly, and looks for the size that the path carries.
        let warm_up = if self == Self::Plain { time / 5 } else { super::QUIC_WARM_UP };
        ends.turn(None, warm_up, time)
    }
}

/// What is written at once.
const BLOCK: usize = 64 << 10;

/// One end of an encrypted stream, in a process of its own.
pub(crate) fn main(words: &[&str]) -> ExitCode {
    let [role, how, size] = words[..] else { return ExitCode::from(2) };
    let Ok(size) = size.parse::<u64>() else { return ExitCode::from(2) };
    // Bytes; asked for in pieces.
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for _line in std::io::stdin().lines().map_while(Result::ok) {
            say(&(counted.load(Ordering::Relaxed) / size).to_string());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs nothing special").block_on(async {
        if role == "sender" {
            let (_held, connection) = stream::dial(how, "-").await;
            let mut stream = connection.open_uni().await.expect("the receiver takes streams");
            let block = bytes::Bytes::from(vec![0x5a; BLOCK]);
            say("ready");
            while stream.write_chunk(block.clone()).await.is_ok() {
                count.fetch_add(BLOCK as u64, Ordering::Relaxed);
            }
        } else {
            let (_held, connection) = stream::accept(how, "-").await;
            let mut stream = connection.accept_uni().await.expect("the sender opens one");
            while let Ok(Some(chunk)) = stream.read_chunk(BLOCK, true).await {
                count.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            }
        }
    });
    ExitCode::SUCCESS
}
