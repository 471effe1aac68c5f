//! A base on loopback, and a host written by hand: it speaks the wire format and nothing else.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bowline_base::{Config, Handle, Server, Shutdown};
use bowline_proto::{
    DeviceId, SecretKey,
    wire::{
        Cookie,
        frame::{self, LENGTH_LEN},
        relay::{self, SEND_DATA},
        tcp::{BaseFrame, Error, ErrorCode, GetCookie, Info, Register, Registered},
        udp::{BaseDatagram, NatConfirm, NatInit, NatOk, PADDED_LEN},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Longer than anything on loopback takes; a test that waits for it has failed.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A running base.
pub(crate) struct Running {
    pub(crate) id: DeviceId,
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) admin: Option<SocketAddr>,
    stop: Option<oneshot::Sender<Shutdown>>,
    task: JoinHandle<()>,
}

pub(crate) fn on_loopback() -> Config {
    Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() }
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let server = Server::bind(config, SecretKey::from_seed(&[0xba; 32])).await.unwrap();
        let (id, address) = (server.id(), server.local_addrs()[0]);
        let (handle, admin) = (server.handle(), server.admin_addr());
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or(Shutdown::Drain(0)) };
        let task = tokio::spawn(server.run(stopped));
        Self { id, address, handle, admin, stop: Some(stop), task }
    }

    pub(crate) fn stop(&mut self, how: Shutdown) {
        self.stop.take().unwrap().send(how).unwrap();
    }

    /// Waits until `run` has returned.
    pub(crate) async fn ended(self) {
        timeout(SOON, self.task).await.expect("the base ends").unwrap();
    }
}

/// One frame (type and body) as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    pub(crate) fn decode(&self) -> BaseFrame<'_> {
        BaseFrame::decode(&self.0).expect("the base writes well-formed frames")
    }
}

pub(crate) struct Client {
    pub(crate) key: SecretKey,
    pub(crate) id: DeviceId,
    pub(crate) tcp: TcpStream,
    pub(crate) udp: UdpSocket,
    pub(crate) base: SocketAddr,
    pub(crate) base_id: DeviceId,
    pub(crate) cookie: Cookie,
    pub(crate) registered: Option<Registered>,
    number: u64,
}

impl Client {
    pub(crate) async fn connect(base: &Running, n: u8) -> Self {
        Self::connect_with(base, [n; 32]).await
    }

    pub(crate) async fn connect_with(base: &Running, seed: [u8; 32]) -> Self {
        let key = SecretKey::from_seed(&seed);
        let local = if base.address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        Self {
            id: key.device_id(),
            key,
            tcp: TcpStream::connect(base.address).await.unwrap(),
            udp: UdpSocket::bind(local).await.unwrap(),
            base: base.address,
            base_id: base.id,
            cookie: [0; 8],
            registered: None,
            number: 0,
        }
    }

    /// Connects and registers.
    pub(crate) async fn register(base: &Running, n: u8) -> Self {
        let mut client = Self::ask_to_register(base, n).await;
        let BaseFrame::Registered(registered) = client.read().await.decode() else { panic!("no REGISTERED") };
        assert_eq!(registered.seen, client.tcp.local_addr().unwrap());
        client.registered = Some(registered);
        client
    }

    /// Connects and sends REGISTER; what comes of it is for the caller to read.
    pub(crate) async fn ask_to_register(base: &Running, n: u8) -> Self {
        let mut client = Self::connect(base, n).await;
        client.send_register().await;
        client
    }

    /// GET-COOKIE, BASE-HELLO, REGISTER.
    pub(crate) async fn send_register(&mut self) {
        self.get_cookie().await;
        let register = Register {
            device: self.id,
            public_key: self.key.public(),
            boot: *self.id.as_bytes().first_chunk().unwrap(),
            attempt: 1,
            capabilities: 0,
            agent: "test".into(),
        };
        let mut out = Vec::new();
        register.write(&mut out, &self.key, self.base_id, &self.cookie);
        self.write(&out).await;
    }

    pub(crate) async fn get_cookie(&mut self) {
        let mut out = Vec::new();
        GetCookie { highest_version: 1, capabilities: 0 }.write(&mut out);
        self.write(&out).await;
        let BaseFrame::BaseHello(hello) = self.read().await.decode() else { panic!("no BASE-HELLO") };
        assert_eq!(hello.base, self.base_id);
        self.cookie = hello.cookie;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        timeout(SOON, self.tcp.write_all(bytes)).await.expect("in time").unwrap();
    }

    pub(crate) async fn read(&mut self) -> Raw {
        self.try_read().await.expect("a frame, not the end")
    }

    /// The next frame, or `None` at the end of the stream.
    pub(crate) async fn try_read(&mut self) -> Option<Raw> {
        let read = async {
            let mut length = [0; LENGTH_LEN];
            self.tcp.read_exact(&mut length).await.ok()?;
            let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
            self.tcp.read_exact(&mut frame).await.ok()?;
            Some(Raw(frame))
        };
        timeout(SOON, read).await.expect("a frame in time")
    }

    /// The ERROR that ends the connection, and its end.
    pub(crate) async fn read_error(&mut self) -> Error {
        let error = loop {
            if let BaseFrame::Error(error) = self.read().await.decode() {
                break error;
            }
        };
        assert_eq!(self.try_read().await, None, "the base closes after ERROR");
        error
    }

    pub(crate) async fn read_error_code(&mut self) -> ErrorCode {
        self.read_error().await.code
    }

    pub(crate) async fn ping(&mut self) {
        self.number += 1;
        let mut out = Vec::new();
        Info { number: self.number, master_key: [1; 16], own: vec![] }.write(&mut out);
        let number = self.number;
        self.write(&out).await;
        assert_eq!(self.read().await.decode(), BaseFrame::Pong(number));
    }

    pub(crate) async fn send_tcp(&mut self, to: DeviceId, data: &[u8]) {
        let mut out = Vec::new();
        frame::write(&mut out, |out| out.extend_from_slice(&send_data(to, data)));
        self.write(&out).await;
    }

    pub(crate) async fn send_udp(&mut self, to: DeviceId, data: &[u8]) {
        self.udp.send_to(&send_data(to, data), self.base).await.unwrap();
    }

    /// A RECV-DATA over TCP.
    pub(crate) async fn recv_tcp(&mut self) -> (DeviceId, Vec<u8>) {
        match self.read().await.decode() {
            BaseFrame::RecvData(from, data) => (from, data.to_vec()),
            other => panic!("no RECV-DATA, but {other:?}"),
        }
    }

    /// A RECV-DATA over UDP.
    pub(crate) async fn recv_udp(&mut self) -> (DeviceId, Vec<u8>) {
        let datagram = self.datagram().await;
        match BaseDatagram::decode(&datagram).unwrap() {
            BaseDatagram::RecvData(from, data) => (from, data.to_vec()),
            other => panic!("no RECV-DATA, but {other:?}"),
        }
    }

    async fn datagram(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 2_000];
        let receive = self.udp.recv_from(&mut buffer);
        let (length, from) = timeout(SOON, receive).await.expect("a datagram in time").unwrap();
        assert_eq!(from, self.base, "answers come from the address that was asked");
        buffer.truncate(length);
        buffer
    }

    /// NAT-INIT at the base's UDP address number `index`, and its NAT-OK.
    pub(crate) async fn nat_init(&mut self, index: u8) -> NatOk {
        self.number += 1;
        let init = NatInit { cookie: self.cookie, seq: self.number, own: vec![] };
        let port = self.registered.as_ref().unwrap().udp[usize::from(index)].port();
        let main = self.base;
        self.base.set_port(port);
        let datagram = init.encode(&self.key, self.base_id, index, PADDED_LEN);
        self.udp.send_to(&datagram, self.base).await.unwrap();
        let answer = self.datagram().await;
        self.base = main;
        assert_eq!(answer.len(), PADDED_LEN);
        let ok = NatOk::decode(&answer).unwrap();
        assert_eq!(ok.seen, self.udp.local_addr().unwrap());
        ok
    }

    /// The whole handshake: RECV-DATA comes over UDP from now on.
    pub(crate) async fn confirm_udp(&mut self) {
        let ok = self.nat_init(0).await;
        let confirm = NatConfirm { cookie: self.cookie, seq: ok.seq, challenge: ok.challenge };
        self.udp.send_to(&confirm.encode(), self.base).await.unwrap();
        assert!(NatOk::decode(&self.datagram().await).unwrap().confirmed);
    }
}

pub(crate) fn send_data(to: DeviceId, data: &[u8]) -> Vec<u8> {
    let mut message = relay::header(SEND_DATA, to).to_vec();
    message.extend_from_slice(data);
    message
}

/// Waits until something holds, and fails when that takes too long.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < SOON, "it does not come to hold");
        tokio::task::yield_now().await;
    }
}
