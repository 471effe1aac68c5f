//! Hosts written by hand, for load: they speak the wire format and nothing else. And the base's process.
//!
//! Many devices of one side share a UDP socket ([`Wire`]) and differ in their source IP. Everything blocks, one thing after the other.

use std::{
    io::{self, IoSliceMut, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use bowline_lab::{Node, Process};
use bowline_proto::{
    DeviceId, SecretKey,
    wire::{
        Cookie,
        frame::LENGTH_LEN,
        relay::{self, SEND_DATA},
        tcp::{BaseFrame, GetCookie, Info, Register},
        udp::{NatConfirm, NatInit, NatOk, PADDED_LEN},
    },
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{cpu, netns::PORT};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Asked of the system for every socket of the gear; a base asks for as much.
const BUFFER: usize = 4 << 20;
/// The largest datagram, or all that the system merged.
const LARGEST: usize = 1 << 16;

/// The base under test: the real program, on its core.
pub(crate) struct BaseProcess {
    pub(crate) process: Process,
    pub(crate) id: DeviceId,
}

impl BaseProcess {
    /// Starts `bowline base` with these lines of configuration.
    pub(crate) fn start(node: &Node, config: &str) -> Self {
        Self::start_with(node, config, &[])
    }

    /// The same, with more on its command line.
    pub(crate) fn start_with(node: &Node, config: &str, more: &[&str]) -> Self {
        let file = node.home().join("bowline.toml");
        std::fs::write(&file, format!("[base]\n{config}")).expect("the run's folder can be written to");
        let program = std::env::var("BOWLINE_BIN").expect("bench/run names the program");
        let core = cpu::BASE_CORE.to_string();
        let (file, listen) = (file.to_string_lossy().into_owned(), format!("0.0.0.0:{PORT}"));
        let state = node.home().to_string_lossy().into_owned();
        let arguments = [
            "-c", &core, &program, "--config", &file, "base", "--listen", &listen, "--state", &state,
            "--drain", "0",
        ];
        let process = node.spawn("taskset", &[&arguments, more].concat());
        let id = process.wait("line that says it is ready", PATIENCE, 0, |line| {
            let (id, _) = line.text.strip_prefix("base ")?.split_once('@')?;
            id.parse().ok()
        });
        Self { process, id }
    }

    /// In which of the base's sockets that wire's datagrams wait: each sender has one, which the system chooses. The base is stopped for
    /// a moment, so that one datagram is seen waiting.
    pub(crate) fn queue_of(&self, wire: &Wire, base: SocketAddrV4) -> u64 {
        let pid = Pid::from_raw(self.process.pid() as i32);
        let waiting = || -> Vec<u64> {
            let table = std::fs::read_to_string(format!("/proc/{pid}/net/udp")).expect("a process that runs");
            let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            // Of a line: bytes that wait to be sent and to be read, and the socket's number.
            let full = lines.filter(|line| !line[4].ends_with(":00000000"));
            full.filter_map(|line| line[9].parse().ok()).collect()
        };
        let until = |done: &dyn Fn(&[u64]) -> bool| {
            let began = Instant::now();
            loop {
                let now = waiting();
                if done(&now) {
                    return now;
                }
                assert!(began.elapsed() < PATIENCE, "no datagram is seen in the base's queues, or too many");
            }
        };
        until(&<[u64]>::is_empty);
        kill(pid, Signal::SIGSTOP).expect("a process that runs");
        while !is_stopped(pid) {
            std::thread::yield_now();
        }
        wire.send(None, base, &[0], None).expect("there is room for one");
        let found = until(&|now| !now.is_empty());
        kill(pid, Signal::SIGCONT).expect("a process that is stopped");
        found[0]
    }
}

/// Whether none of its threads runs any more.
fn is_stopped(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs");
    let stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    // The state stands after the name, which is in brackets.
    stats.into_iter().all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}

/// A UDP socket on every address of a machine.
pub(crate) struct Wire {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Wire {
    pub(crate) fn new(node: &Node) -> Self {
        let socket = node.udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let state = UdpSocketState::new((&socket).into()).expect("a socket just made");
        let asked = SockRef::from(&socket);
        let _ = asked.set_recv_buffer_size(BUFFER); // the system may give less
        let _ = asked.set_send_buffer_size(BUFFER);
        Self { socket, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().map(|a| a.port()).unwrap_or_default()
    }

    pub(crate) fn send(
        &self,
        from: Option<Ipv4Addr>,
        to: SocketAddrV4,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let src_ip = from.map(IpAddr::V4);
        let transmit = Transmit { destination: to.into(), ecn: None, contents, segment_size, src_ip };
        self.state.try_send((&self.socket).into(), &transmit)
    }

    /// Waits until there is something to read.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Receives what is there, as the system merged it.
    pub(crate) fn receive(&self, slices: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        self.state.recv((&self.socket).into(), slices, metas).unwrap_or(0)
    }

    pub(crate) fn receive_one(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; LARGEST];
        let mut metas = [RecvMeta::default()];
        if self.receive(&mut [IoSliceMut::new(&mut buffer)], &mut metas) == 0 {
            return None;
        }
        buffer.truncate(metas[0].len);
        Some(buffer)
    }

    /// Whether a datagram like this comes within a time; others are read away.
    pub(crate) fn comes_within(&self, time: Duration, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let deadline = Instant::now() + time;
        loop {
            while let Some(datagram) = self.receive_one() {
                if is_it(&datagram) {
                    return true;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.wait(left);
        }
    }

    /// Reads away all that is there: how many datagrams.
    pub(crate) fn count(&self) -> usize {
        let mut buffer = vec![0; LARGEST];
        let mut metas = [RecvMeta::default()];
        let mut count = 0;
        while self.receive(&mut [IoSliceMut::new(&mut buffer)], &mut metas) > 0 {
            count += metas[0].len.div_ceil(metas[0].stride.max(1));
        }
        count
    }

    /// Reads away all that is there.
    pub(crate) fn drain(&self) {
        while self.receive_one().is_some() {}
    }

    /// Waits for a datagram that `find` finds something in.
    pub(crate) fn expect<T>(&self, what: &str, mut find: impl FnMut(&[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            while let Some(datagram) = self.receive_one() {
                if let Some(found) = find(&datagram) {
                    return found;
                }
            }
            self.wait(Duration::from_millis(100));
        }
        panic!("no {what} came");
    }
}

/// A device that is registered over TCP.
pub(crate) struct Host {
    key: SecretKey,
    pub(crate) id: DeviceId,
    base: SocketAddrV4,
    base_id: DeviceId,
    pub(crate) tcp: TcpStream,
    cookie: Cookie,
    pub(crate) ip: Option<Ipv4Addr>,
    /// The base's UDP addresses as REGISTERED told them.
    udp: Vec<SocketAddrV4>,
    number: u64,
}

impl Host {
    /// Connects and registers, from inside the node.
    pub(crate) fn register(node: &Node, base: SocketAddrV4, base_id: DeviceId, number: u32) -> Self {
        Self::register_from(node, Ipv4Addr::UNSPECIFIED, base, base_id, number)
    }

    /// The same from one of the node's addresses.
    pub(crate) fn register_from(
        node: &Node,
        ip: Ipv4Addr,
        base: SocketAddrV4,
        base_id: DeviceId,
        number: u32,
    ) -> Self {
        let mut host = Self::connect_from(node, ip, base, base_id, number);
        let register = host.register_frame();
        host.write(&register);
        let answer = host.read();
        let Ok(BaseFrame::Registered(registered)) = BaseFrame::decode(&answer) else {
            panic!("no REGISTERED: {answer:?}")
        };
        host.udp = registered.udp.iter().map(|a| SocketAddrV4::new(*base.ip(), a.port())).collect();
        host
    }

    /// Connects and gets a cookie.
    pub(crate) fn connect_from(
        node: &Node,
        ip: Ipv4Addr,
        base: SocketAddrV4,
        base_id: DeviceId,
        number: u32,
    ) -> Self {
        let mut seed = [0xb0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let key = SecretKey::from_seed(&seed);
        let tcp: TcpStream = node.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
            if !ip.is_unspecified() {
                // The system chooses the port when it knows the destination: there are more than 65,536 of us.
                let _ = nix::sys::socket::setsockopt(
                    &socket,
                    nix::sys::socket::sockopt::IpBindAddressNoPort,
                    &true,
                );
                socket.bind(&SocketAddr::from((ip, 0)).into()).expect("an address of this node");
            }
            socket.connect(&SocketAddr::from(base).into()).expect("the base accepts");
            socket.into()
        });
        tcp.set_nodelay(true).expect("a socket just made");
        let (id, cookie) = (key.device_id(), [0; 8]);
        let mut host = Self { id, key, base, base_id, tcp, cookie, ip: None, udp: Vec::new(), number: 0 };
        let mut out = Vec::new();
        GetCookie { highest_version: 1, capabilities: 0 }.write(&mut out);
        host.write(&out);
        let answer = host.read();
        let Ok(BaseFrame::BaseHello(hello)) = BaseFrame::decode(&answer) else { panic!("no BASE-HELLO") };
        host.cookie = hello.cookie;
        host
    }

    /// The signed REGISTER of a device that has its cookie.
    pub(crate) fn register_frame(&mut self) -> Vec<u8> {
        let mut boot = [0; 8];
        getrandom::fill(&mut boot).expect("the system has randomness");
        let register = Register {
            device: self.id,
            public_key: self.key.public(),
            boot,
            attempt: 1,
            capabilities: 0,
            agent: "bench".into(),
        };
        let mut out = Vec::new();
        register.write(&mut out, &self.key, self.base_id, &self.cookie);
        out
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).expect("the base reads");
    }

    /// The next frame: type and body.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut length = [0; LENGTH_LEN];
        self.tcp.read_exact(&mut length).expect("the base answers");
        let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
        self.tcp.read_exact(&mut frame).expect("the base answers");
        frame
    }

    /// A signed NAT-INIT, padded.
    pub(crate) fn nat_init(&mut self) -> Vec<u8> {
        self.nat_init_for(0, PADDED_LEN)
    }

    fn nat_init_for(&mut self, index: u8, length: usize) -> Vec<u8> {
        self.number += 1;
        let init = NatInit { cookie: self.cookie, seq: self.number, own: vec![] };
        init.encode(&self.key, self.base_id, index, length)
    }

    /// What a host does at a keepalive while nothing changes: a bare NAT-INIT to one UDP address of the base, or to `each` of them where they
    /// see it at different places, and INFO. Nothing is waited for; how many NAT-OKs are to come.
    pub(crate) fn keep_alive(&mut self, wire: &Wire, each: bool) -> usize {
        let count = if each { self.udp.len() } else { 1 };
        for index in 0..count {
            let to = self.udp[index];
            let init = self.nat_init_for(index as u8, 0);
            wire.send(self.ip, to, &init, None).expect("a datagram can be sent");
        }
        let info = self.info();
        self.write(&info);
        count
    }

    /// An INFO.
    pub(crate) fn info(&mut self) -> Vec<u8> {
        self.number += 1;
        let mut out = Vec::new();
        Info { number: self.number, master_key: [1; 16], own: vec![] }.write(&mut out);
        out
    }

    /// The whole handshake on a wire: relayed messages of 1,200 bytes come there from now on.
    pub(crate) fn confirm(&mut self, wire: &Wire) {
        for _ in 0..5 {
            let init = self.nat_init();
            wire.send(self.ip, self.base, &init, None).expect("a datagram can be sent");
            if wire.wait(Duration::from_millis(500)) {
                break;
            }
        }
        let (seq, cookie) = (self.number, self.cookie);
        let challenge = wire.expect("NAT-OK", |datagram| {
            NatOk::decode(datagram)
                .ok()
                .filter(|ok| ok.seq == seq && ok.cookie == cookie)
                .map(|ok| ok.challenge)
        });
        let confirm = NatConfirm { cookie, seq, challenge }.encode();
        let is_confirmed = (0..5).any(|_| {
            wire.send(self.ip, self.base, &confirm, None).expect("a datagram can be sent");
            wire.comes_within(Duration::from_millis(500), |datagram| {
                NatOk::decode(datagram).is_ok_and(|ok| ok.confirmed && ok.cookie == cookie)
            })
        });
        assert!(is_confirmed, "no confirmed NAT-OK came");
    }

    /// Has each UDP address of the base know where it is, beside the first, which does.
    pub(crate) fn bind_all(&mut self, wire: &Wire) {
        for index in 1..self.udp.len() {
            let init = self.nat_init_for(index as u8, 0);
            let (seq, cookie) = (self.number, self.cookie);
            wire.send(self.ip, self.udp[index], &init, None).expect("a datagram can be sent");
            wire.expect("NAT-OK", |datagram| {
                NatOk::decode(datagram).ok().filter(|ok| ok.seq == seq && ok.cookie == cookie)
            });
        }
    }

    /// Both halves are brought up again, one message after the other.
    pub(crate) fn refresh(&mut self, wire: &Wire) {
        wire.drain();
        self.confirm(wire);
        let info = self.info();
        self.write(&info);
        self.await_pong();
    }

    pub(crate) fn await_pong(&mut self) {
        while !matches!(BaseFrame::decode(&self.read()), Ok(BaseFrame::Pong(_))) {}
    }
}

/// A connection from this address with a REGISTER whose signature is forged; within the node's namespace. Ends when the base has answered.
pub(crate) fn forge(from: Ipv4Addr, base: SocketAddrV4, base_id: DeviceId) -> io::Result<()> {
    const ANSWER: Duration = Duration::from_secs(1);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from(base).into(), ANSWER)?;
    let mut tcp: TcpStream = socket.into();
    tcp.set_read_timeout(Some(ANSWER))?;
    let mut out = Vec::new();
    GetCookie { highest_version: 1, capabilities: 0 }.write(&mut out);
    tcp.write_all(&out)?;
    let mut answer = [0; 256];
    let _hello = tcp.read(&mut answer)?;
    let key = SecretKey::from_seed(&[0xf0; 32]);
    let (device, public_key) = (key.device_id(), key.public());
    let agent = "bench".into();
    let register = Register { device, public_key, boot: [1; 8], attempt: 1, capabilities: 0, agent };
    out.clear();
    // Well-formed, and signed for another connection: the base sees that only when it verifies.
    register.write(&mut out, &key, base_id, &[0; 8]);
    tcp.write_all(&out)?;
    tcp.read(&mut answer).map(drop)
}

/// So many messages of this size as the library sends them in a batch: joined in one datagram.
pub(crate) fn send_joined(to: DeviceId, length: usize, count: usize) -> Vec<u8> {
    let size = length.try_into().expect("short enough to be joined");
    let mut message = relay::joined_header(to, size).to_vec();
    message.resize(relay::JOINED_HEADER_LEN + length * count, 0x5a);
    message
}

/// A SEND-DATA with this much data.
pub(crate) fn send_data(to: DeviceId, length: usize) -> Vec<u8> {
    let mut message = relay::header(SEND_DATA, to).to_vec();
    message.resize(relay::HEADER_LEN + length, 0x5a);
    message
}
