//! What a device holds of messages that nobody has received.
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{ErrorKind, IoSlice},
    net::UdpSocket,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use bowline::{Endpoint, Path, SecretKey};
use bowline_proto::host::{Host, HostConfig, Interface, Network, Output};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

const SOON: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;
/// Messages that wait, in as many pieces: fewer than would have the sockets left alone.
const MESSAGES: usize = 1900;

/// A device of somebody who also sends what the protocol does not know.
struct Stranger {
    host: Host,
    socket: UdpSocket,
}

impl Stranger {
    fn new(key: SecretKey) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let lo = Interface {
            index: 1,
            name: "lo".to_owned(),
            loopback: true,
            multicast: false,
            default_v4: false,
            default_v6: false,
            preferred: false,
            addresses: vec![("127.0.0.1".parse().unwrap(), 8)],
            routes: vec![],
        };
        let mut host = Host::new(HostConfig::default(), key, [7; 32], Instant::now());
        let port_v4 = Some(socket.local_addr().unwrap().port());
        host.handle_network(Network { interfaces: vec![lo], port_v4, port_v6: None }, Instant::now());
        Self { host, socket }
    }

    /// Answers what has come, as it should.
    fn answer(&mut self) {
        let mut buffer = [0; 2048];
        match self.socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let _ = self.host.handle_datagram(None, from, &buffer[..length], Instant::now());
            }
            Err(error) => assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind())),
        }
        self.host.handle_timeout(Instant::now());
        loop {
            match self.host.poll_output(Instant::now()) {
                Output::Transmit { to, payload, .. } => {
                    self.socket.send_to(&payload, to).unwrap();
                }
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }
}

fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_short_message_that_came_with_much_that_is_none_holds_no_more_than_itself() {
    let mut stranger = Stranger::new(SecretKey::from_seed(&[92; 32]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (id, from) = (stranger.host.id(), stranger.socket.local_addr().unwrap());
    let builder = Endpoint::builder(SecretKey::from_seed(&[91; 32])).link_local(false).given(id, from);
    let endpoint = runtime.block_on(builder.bind()).unwrap();
    endpoint.want(id).unwrap();
    let start = Instant::now();
    while !endpoint.peer(id).is_some_and(|peer| matches!(peer.path, Path::Direct(_))) {
        assert!(start.elapsed() < SOON, "not direct");
        stranger.answer();
    }

    // Datagrams that the kernel hands over as one piece.
    let segment = 1400;
    let mut piece = [b"\x0bbowline\x7f".as_slice(), &[0; 1400 - 9]].concat().repeat(40);
    piece.extend(b"a message");
    let to =
        SockaddrIn::from(std::net::SocketAddrV4::new([127, 0, 0, 1].into(), endpoint.ports().0.unwrap()));
    let before = resident();
    for count in 1..=MESSAGES {
        let segments = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg(
            stranger.socket.as_raw_fd(),
            &[IoSlice::new(&piece)],
            &segments,
            MsgFlags::empty(),
            Some(&to),
        )
        .unwrap();
        let sent = Instant::now();
        while endpoint.status().counters.malformed < 40 * count as u64 {
            assert!(sent.elapsed() < SOON, "not taken");
            thread::yield_now();
        }
    }
    let held = resident().saturating_sub(before);
    assert!(held < 32 * MIB, "{MESSAGES} messages hold {} MiB", held / MIB);
    for _ in 0..MESSAGES {
        let (sender, data) = runtime.block_on(endpoint.recv()).unwrap();
        assert_eq!((sender, &data[..]), (id, &b"a message"[..]));
    }
}
