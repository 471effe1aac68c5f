//! A real base server and real endpoints, on loopback.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    future::{Future, pending},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bowline::{BaseName, Builder, Datagram, DeviceId, Endpoint, Path, SecretKey};
use bowline_base::{Config, Handle, Server};
use bytes::Bytes;

/// How long anything may take that is bound to happen. Far more than it needs: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A key of its own for every number.
pub(crate) fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

/// A base server on a port of its own, as a name to reach it by. It runs until the test ends.
pub(crate) async fn base() -> BaseName {
    watched_base().await.0
}

/// The same, and what tells what it has counted.
pub(crate) async fn watched_base() -> (BaseName, Handle) {
    let config = Config { listen: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..Config::default() };
    let server = Server::bind(config, key(200)).await.unwrap();
    let name = format!("{}@{}", server.id(), server.local_addrs()[0]).parse().unwrap();
    let handle = server.handle();
    tokio::spawn(server.run(pending()));
    (name, handle)
}

/// An endpoint with that key at that base, registered. It keeps off local links: other tests run there.
pub(crate) async fn online(number: u8, base: &BaseName) -> Endpoint {
    with(number, |builder| builder.base(base.clone())).await
}

/// As [`online`], set up further.
pub(crate) async fn with(number: u8, set_up: impl FnOnce(Builder) -> Builder) -> Endpoint {
    let endpoint = set_up(Endpoint::builder(key(number)).link_local(false)).bind().await.unwrap();
    soon("registered", endpoint.online()).await.unwrap();
    endpoint
}

/// What is bound to happen, or a failure that says what did not.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("not {what} within {} s", SOON.as_secs()),
    }
}

/// The way messages to a peer take at present.
pub(crate) fn path(endpoint: &Endpoint, peer: DeviceId) -> Path {
    endpoint.peer(peer).map_or(Path::None, |peer| peer.path)
}

/// What [`become_direct`] sends.
const PROBE: &[u8] = b"is this direct?";

/// Sends messages until they go directly, in both directions. Some may still be on their way through the base:
/// [`receive`] passes over them.
pub(crate) async fn become_direct(a: &Endpoint, b: &Endpoint) {
    let direct = |from: &Endpoint, to: &Endpoint| matches!(path(from, to.id()), Path::Direct(_));
    soon("direct", async {
        while !(direct(a, b) && direct(b, a) && a.max_direct(b.id()) >= Some(1200)) {
            a.send(b.id(), PROBE).await.unwrap();
            b.send(a.id(), PROBE).await.unwrap();
            let _ = tokio::join!(a.recv(), b.recv());
        }
    })
    .await;
}

/// The next message that the test itself sent.
pub(crate) async fn receive(endpoint: &Endpoint) -> Datagram {
    soon("received", async {
        loop {
            let datagram = endpoint.recv_datagram().await.unwrap();
            if datagram.data != PROBE {
                return datagram;
            }
        }
    })
    .await
}

/// So many of them.
pub(crate) async fn receive_batch(endpoint: &Endpoint, count: usize) -> Vec<Datagram> {
    let mut got = Vec::new();
    while got.len() < count {
        soon("received", endpoint.recv_batch(&mut got, 64)).await.unwrap();
        got.retain(|datagram| datagram.data != PROBE);
    }
    got
}

/// So many messages: empty ones, some that look like the protocol's own, runs of one size with a shorter end, some too long to be joined.
pub(crate) fn of_every_size(count: usize) -> Vec<Bytes> {
    let of = |number: usize| match number % 60 {
        0 => Vec::new(),
        1 => b"\x0bbowline\x05\0\x01 joined?".to_vec(),
        2..=20 => vec![number as u8; 40],
        21 => vec![number as u8; 7],
        22..=50 => vec![number as u8; 300],
        51..=53 => vec![number as u8; 1199],
        _ => vec![number as u8; 1],
    };
    (0..count).map(|number| of(number).into()).collect()
}

/// An address on loopback on which nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
