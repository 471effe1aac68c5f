//! A real base server and real endpoints, on loopback.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    future::{Future, pending},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bowline::{BaseName, Builder, DeviceId, Endpoint, Path, SecretKey};
use bowline_base::{Config, Server};

/// How long anything may take that is bound to happen. Far more than it needs: the machine may be busy.
pub const SOON: Duration = Duration::from_secs(20);

/// A key of its own for every number.
pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

/// A base server on a port of its own, as a name to reach it by. It runs until the test ends.
pub async fn base() -> BaseName {
    let config = Config { listen: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..Config::default() };
    let server = Server::bind(config, key(200)).await.unwrap();
    let name = format!("{}@{}", server.id(), server.local_addrs()[0]).parse().unwrap();
    tokio::spawn(server.run(pending()));
    name
}

/// An endpoint with that key at that base, registered. It keeps off local links: other tests run there.
pub async fn online(number: u8, base: &BaseName) -> Endpoint {
    with(number, |builder| builder.base(base.clone())).await
}

/// As [`online`], set up further.
pub async fn with(number: u8, set_up: impl FnOnce(Builder) -> Builder) -> Endpoint {
    let endpoint = set_up(Endpoint::builder(key(number)).link_local(false)).bind().await.unwrap();
    soon("registered", endpoint.online()).await.unwrap();
    endpoint
}

/// What is bound to happen, or a failure that says what did not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("not {what} within {} s", SOON.as_secs()),
    }
}

/// The way messages to a peer take at present.
pub fn path(endpoint: &Endpoint, peer: DeviceId) -> Path {
    endpoint.peer(peer).map_or(Path::None, |peer| peer.path)
}

/// Sends messages until they go directly, in both directions; receives them all.
pub async fn become_direct(a: &Endpoint, b: &Endpoint) {
    let direct = |from: &Endpoint, to: &Endpoint| matches!(path(from, to.id()), Path::Direct(_));
    soon("direct", async {
        while !(direct(a, b) && direct(b, a) && a.max_datagram(b.id()) >= 1200) {
            a.send(b.id(), b"towards b").await.unwrap();
            b.send(a.id(), b"towards a").await.unwrap();
            let _ = tokio::join!(a.recv(), b.recv());
        }
    })
    .await;
    while a.try_recv().unwrap().is_some() || b.try_recv().unwrap().is_some() {}
}

/// An address on loopback on which nobody listens.
pub fn nobody() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
