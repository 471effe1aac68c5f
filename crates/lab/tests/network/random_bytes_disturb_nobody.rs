//! Row 14: random bytes at the ports of a base and of a device change nothing for those who talk: no answer is lost, no path changes.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
};

use bowline_lab::{
    Internet, Node, eventually,
    program::{Base, Listener, Pinger},
    with_bowline,
};
use bowline_proto::wire::peer;

use crate::{BASE, OFTEN, SOON};

/// How many datagrams, and how many connections, of garbage. Well over every port's first thousand message types and lengths, and
/// few enough that a queue of the kernel does not lose a ping.
const DATAGRAMS: usize = 2000;
const CONNECTIONS: usize = 200;

#[test]
fn garbage_at_every_port_loses_no_ping() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let mut base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let mut listener = Listener::start(&internet.server(lab, "listener", 20), "listener", &base.names());
        let pinger = Pinger::start(&internet.server(lab, "pinger", 21), &listener.id, OFTEN, &base.names());
        let target = pinger.wait_path("direct", SOON, 0).address.expect("a direct path has an address");
        let mark = pinger.mark();

        let vandal = internet.server(lab, "vandal", 66);
        let mut random = Random(0x0b6f_776c);
        for port in [target, at("203.0.113.10:4477"), at("203.0.113.10:4479")] {
            datagrams(&vandal, port, &mut random);
        }
        connections(&vandal, at("203.0.113.10:4477"), &mut random);

        let answers = pinger.wait_answers(50, SOON, pinger.mark());
        assert!(answers.iter().all(|answer| answer.path == "direct"), "{answers:?}");
        let answers = pinger.answers(mark);
        let lost = answers.windows(2).filter(|pair| pair[1].seq != pair[0].seq + 1).count();
        assert_eq!(lost, 0, "answers are missing: {answers:?}");
        assert!(base.process.is_running() && listener.process.is_running());

        // And the base still takes newcomers in.
        let newcomer =
            Pinger::start(&internet.server(lab, "newcomer", 22), &listener.id, OFTEN, &base.names());
        newcomer.wait_path("direct", SOON, 0);
    });
}

/// Nonsense of all lengths, half of it behind the magic or a message type, so that it gets past the first check.
fn datagrams(vandal: &Node, to: SocketAddr, random: &mut Random) {
    let socket = vandal.udp(at("203.0.113.66:0"));
    for round in 0..DATAGRAMS {
        let length = random.below(1400);
        let mut bytes = random.bytes(length);
        match round % 4 {
            0 => bytes.splice(..0, [&peer::MAGIC[..], &[random.below(5) as u8]].concat()).for_each(drop),
            1 => bytes.splice(..0, [0x20 + random.below(0x14) as u8]).for_each(drop),
            _ => {}
        }
        // A port that is closed says so on a later send; that is no matter here.
        let _ = socket.send_to(&bytes, to);
        if round % 50 == 0 {
            std::thread::yield_now(); // the receiver's queue holds about 200 datagrams
        }
    }
}

/// Connections with nonsense: raw, in frames of a right length, after a right greeting, and cut short.
fn connections(vandal: &Node, to: SocketAddr, random: &mut Random) {
    let mut open = Vec::new();
    for round in 0..CONNECTIONS {
        let mut stream = vandal.enter(|| TcpStream::connect(to)).expect("the base accepts");
        let greeting = [&[0, 13, 0][..], b"bowline", &[1, 0, 0, 0, 0]].concat();
        let length = 1 + random.below(400);
        let body = random.bytes(length);
        let frame = [&(body.len() as u16).to_be_bytes()[..], &body].concat();
        let bytes = match round % 4 {
            0 => body,
            1 => frame,
            2 => [greeting, frame].concat(),
            _ => greeting[..random.below(greeting.len())].to_vec(),
        };
        // The base may have closed it half-way: its right.
        let _ = stream.write_all(&bytes);
        open.push(stream);
    }
    // The base says ERROR and closes all but those that have not said enough to be wrong.
    eventually("the base closes what is malformed", SOON, || {
        let closed = |stream: &&TcpStream| {
            stream.set_nonblocking(true).expect("nonblocking");
            let mut rest = [0; 4096];
            loop {
                match std::io::Read::read(&mut &**stream, &mut rest) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
                }
            }
        };
        let framed = open.iter().skip(1).step_by(4).chain(open.iter().skip(2).step_by(4));
        (framed.filter(closed).count() == CONNECTIONS / 2).then_some(())
    });
}

/// Numbers that are the same in every run: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}
