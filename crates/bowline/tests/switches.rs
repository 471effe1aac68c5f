//! What a running endpoint is allowed to use can be changed: direct paths, and UDP to the base.

mod common;

use std::time::Duration;

use bowline::{DeviceId, Endpoint, Path};
use common::{base, become_direct, online, path, receive, soon, with};

/// Waits, sending meanwhile, until messages to the peer take such a way.
async fn until(what: &str, from: &Endpoint, to: DeviceId, wanted: impl Fn(Path) -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    soon(what, async {
        while !wanted(path(from, to)) {
            from.send(to, b"which way?").await.unwrap();
            ticks.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn direct_paths_that_are_switched_off_are_dropped_at_once_and_come_back_when_switched_on() {
    let base = base().await;
    let (a, b) = (online(61, &base).await, online(62, &base).await);
    become_direct(&a, &b).await;
    a.set_direct(false);
    assert!(matches!(path(&a, b.id()), Path::RelayUdp | Path::RelayTcp), "{}", path(&a, b.id()));
    a.send(b.id(), b"by the base").await.unwrap();
    let got = loop {
        let got = receive(&b).await;
        if &got.data[..] == b"by the base" {
            break got;
        }
    };
    assert!(matches!(got.path, Path::RelayUdp | Path::RelayTcp), "{}", got.path);
    a.set_direct(true);
    until("direct again", &a, b.id(), |path| matches!(path, Path::Direct(_))).await;
}

#[tokio::test]
async fn a_device_that_begins_without_direct_paths_finds_one_once_both_allow_it() {
    let base = base().await;
    let a = with(63, |builder| builder.base(base.clone()).direct(false)).await;
    let b = with(64, |builder| builder.base(base.clone()).direct(false)).await;
    a.send(b.id(), b"one").await.unwrap();
    receive(&b).await;
    b.send(a.id(), b"two").await.unwrap();
    receive(&a).await;
    a.set_direct(true);
    b.set_direct(true);
    until("direct", &a, b.id(), |path| matches!(path, Path::Direct(_))).await;
}

#[tokio::test]
async fn udp_to_the_base_is_used_while_it_is_switched_on() {
    let base = base().await;
    let [a, b] = [65, 66].map(|number| {
        let base = base.clone();
        with(number, move |builder| builder.base(base).direct(false).relay_udp(false))
    });
    let (a, b) = (a.await, b.await);
    a.send(b.id(), b"x").await.unwrap();
    assert_eq!(receive(&b).await.path, Path::RelayTcp);
    assert_eq!(path(&a, b.id()), Path::RelayTcp);
    a.set_relay_udp(true);
    until("over UDP", &a, b.id(), |path| path == Path::RelayUdp).await;
    a.set_relay_udp(false);
    assert_eq!(path(&a, b.id()), Path::RelayTcp);
    a.send(b.id(), b"back on TCP").await.unwrap();
    while &receive(&b).await.data[..] != b"back on TCP" {}
}
