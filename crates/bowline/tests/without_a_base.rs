//! Devices that find each other with no base at all: on a local link, or by an address that the user gives.
#![cfg(target_os = "linux")]

#[path = "../src/testns.rs"]
mod testns;

use std::time::Duration;

use bowline::{DeviceId, Endpoint, Event, EventItem, Path, SecretKey, SendError};
use bytes::Bytes;

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("not {what} within {} s", SOON.as_secs()),
    }
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

/// Waits for the events of an endpoint until the way to a peer is direct; the address.
async fn direct(endpoint: &Endpoint, peer: DeviceId) -> std::net::SocketAddr {
    let mut events = endpoint.events();
    soon("direct", async {
        loop {
            if let Some(Path::Direct(address)) = endpoint.peer(peer).map(|peer| peer.path) {
                return address;
            }
            events.next().await.expect("the endpoint was closed");
        }
    })
    .await
}

#[tokio::test]
async fn two_devices_on_one_link_find_each_other() {
    let setup = "sysctl -qw net.ipv6.conf.default.accept_dad=0 && ip link add v0 type veth peer name v1 \
                 && ip link set v0 up && ip link set v1 up";
    if !testns::inside("two_devices_on_one_link_find_each_other", setup) {
        return;
    }
    let a = Endpoint::builder(key(1)).bind().await.unwrap();
    let mut events = a.events();
    let b = Endpoint::builder(key(2)).bind().await.unwrap();
    soon("announced", async {
        loop {
            match events.next().await.expect("the endpoint was closed") {
                EventItem::Event(Event::Announced { peer, from }) if peer == b.id() => return from,
                _ => {}
            }
        }
    })
    .await;
    a.want(b.id()).unwrap();
    let address = direct(&a, b.id()).await;
    let std::net::SocketAddr::V6(address) = address else { panic!("{address}") };
    assert!(address.ip().is_unicast_link_local() && address.scope_id() > 0, "{address}");
    a.send(b.id(), b"over the link").await.unwrap();
    assert_eq!(soon("received", b.recv()).await.unwrap(), (a.id(), Bytes::from_static(b"over the link")));
    b.send(a.id(), b"").await.ok();
    direct(&b, a.id()).await;
    b.send(a.id(), b"and back").await.unwrap();
    soon("received", async { while a.recv().await.unwrap().1 != b"and back"[..] {} }).await;
}

#[tokio::test]
async fn a_device_at_a_given_address_is_reached() {
    let b = Endpoint::builder(key(3)).link_local(false).bind().await.unwrap();
    let port = b.ports().0.unwrap();
    let a = Endpoint::builder(key(4))
        .link_local(false)
        .given(b.id(), ([127, 0, 0, 1], port).into())
        .bind()
        .await
        .unwrap();
    a.want(b.id()).unwrap();
    direct(&a, b.id()).await;
    a.send(b.id(), b"no base").await.unwrap();
    assert_eq!(soon("received", b.recv()).await.unwrap(), (a.id(), Bytes::from_static(b"no base")));
}

#[tokio::test]
async fn a_device_that_nobody_has_seen_is_unknown() {
    let a = Endpoint::builder(key(5)).link_local(false).bind().await.unwrap();
    assert_eq!(a.send(key(6).device_id(), b"x").await, Err(SendError::UnknownDevice));
    assert_eq!(a.try_send(key(6).device_id(), b"x"), Err(SendError::UnknownDevice.into()));
}
