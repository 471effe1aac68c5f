//! A real base server and real endpoints, on loopback; and a base's network that lies.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    future::{Future, pending},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bowline::{Allow, BaseName, Builder, DeviceId, Path, SecretKey};
use bowline_base::{Config, Server};
use bowline_quic::{Accepted, Endpoint, Listen, Listener};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How long anything may take that is bound to happen. Far more than it needs: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const SERVICE: &str = "test/1";

pub(crate) fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

pub(crate) fn id(number: u8) -> DeviceId {
    key(number).device_id()
}

/// A base server on a port of its own: its name, and its address. It runs until the test ends.
pub(crate) async fn base() -> (BaseName, SocketAddr) {
    let (name, address, _running) = base_that_ends().await;
    (name, address)
}

/// The same, with the task that it runs in.
pub(crate) async fn base_that_ends() -> (BaseName, SocketAddr, tokio::task::JoinHandle<()>) {
    let config = Config { listen: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..Config::default() };
    let server = Server::bind(config, key(200)).await.unwrap();
    let address = server.local_addrs()[0];
    let name = format!("{}@{address}", server.id()).parse().unwrap();
    let running = tokio::spawn(async move {
        let _ = server.run(pending()).await;
    });
    (name, address, running)
}

pub(crate) async fn bowline(
    number: u8,
    base: &BaseName,
    set_up: impl FnOnce(Builder) -> Builder,
) -> bowline::Endpoint {
    let builder = bowline::Endpoint::builder(key(number)).link_local(false).base(base.clone());
    let endpoint = set_up(builder).bind().await.unwrap();
    soon("registered", endpoint.online()).await.unwrap();
    endpoint
}

/// An endpoint with that key at that base, registered.
pub(crate) async fn endpoint(number: u8, base: &BaseName) -> Endpoint {
    Endpoint::new(bowline(number, base, |builder| builder).await, &key(number)).unwrap()
}

/// The same, by the base's TCP connection alone.
pub(crate) async fn by_tcp(number: u8, base: &BaseName) -> Endpoint {
    let bowline = bowline(number, base, |builder| builder.direct(false).relay_udp(false)).await;
    Endpoint::new(bowline, &key(number)).unwrap()
}

pub(crate) fn listen(endpoint: &Endpoint) -> Listener {
    endpoint.listen(Listen::new([SERVICE]).allow(Allow::Everyone)).unwrap()
}

pub(crate) async fn accept(listener: &mut Listener) -> Accepted {
    soon("accepted", listener.accept()).await.unwrap()
}

/// Sends back everything that comes on any stream, until the endpoint ends.
pub(crate) fn echo(mut listener: Listener) {
    tokio::spawn(async move {
        while let Some(accepted) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok((mut send, mut receive)) = accepted.connection.accept_bi().await {
                    tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut receive, &mut send).await;
                        let _ = send.finish();
                        let _ = send.stopped().await;
                    });
                }
            });
        }
    });
}

/// What is bound to happen, or a failure that says what did not.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("not {what} within {} s", SOON.as_secs()),
    }
}

pub(crate) fn path(endpoint: &Endpoint, peer: DeviceId) -> Path {
    endpoint.bowline().peer(peer).map_or(Path::None, |peer| peer.path)
}

/// Bytes that tell where they are.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// A network in front of a base that sees and changes every frame, both ways.
pub(crate) struct Liar {
    pub(crate) name: BaseName,
    /// Frames that the device sent.
    pub(crate) seen: Arc<Mutex<Vec<Vec<u8>>>>,
    /// More of them, to be put in.
    put_in: tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
}

pub(crate) type Change = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;

impl Liar {
    /// In front of that base, for one device.
    pub(crate) async fn new(name: &BaseName, base: SocketAddr, up: Change, down: Change) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let id = name.to_string().split_once('@').unwrap().0.to_owned();
        let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (put_in, mut more) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            let (device, _) = listener.accept().await.unwrap();
            let base = TcpStream::connect(base).await.unwrap();
            let (mut from_device, mut to_device) = device.into_split();
            let (mut from_base, mut to_base) = base.into_split();
            tokio::spawn(async move {
                while let Some(mut frame) = frame(&mut from_base).await {
                    down(&mut frame);
                    if to_device.write_all(&frame).await.is_err() {
                        return;
                    }
                }
            });
            let (frames, mut both) = tokio::sync::mpsc::unbounded_channel();
            let also = frames.clone();
            tokio::spawn(async move {
                while let Some(mut frame) = frame(&mut from_device).await {
                    up(&mut frame);
                    record.lock().unwrap().push(frame.clone());
                    let _ = frames.send(frame);
                }
            });
            tokio::spawn(async move {
                while let Some(frame) = more.recv().await {
                    let _ = also.send(frame);
                }
            });
            while let Some(frame) = both.recv().await {
                if to_base.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
        Self { name: format!("{id}@{address}").parse().unwrap(), seen, put_in }
    }

    pub(crate) fn put_in(&self, frame: Vec<u8>) {
        self.put_in.send(frame).unwrap();
    }
}

/// The next frame, its length included.
async fn frame(from: &mut tokio::net::tcp::OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u16().await.ok()?;
    let mut frame = vec![0; 2 + usize::from(length)];
    frame[..2].copy_from_slice(&length.to_be_bytes());
    from.read_exact(&mut frame[2..]).await.ok()?;
    Some(frame)
}

/// Writes one device's ID wherever another's stands.
pub(crate) fn swap(one: DeviceId, by: DeviceId) -> Change {
    Arc::new(move |frame| {
        while let Some(at) = frame.windows(14).position(|part| part == one.as_bytes()) {
            frame[at..at + 14].copy_from_slice(by.as_bytes());
        }
    })
}

pub(crate) fn unchanged() -> Change {
    Arc::new(|_| {})
}
