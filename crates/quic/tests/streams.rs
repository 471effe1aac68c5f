//! Streams between devices: whatever the way is, and while it changes.

mod common;

use bowline::{Allow, Path};
use bowline_quic::{Endpoint, Listen, SetupError, quinn::Connection};
use common::{
    SERVICE, accept, base, base_that_ends, by_tcp, bytes, echo, endpoint, id, key, listen, path, soon,
};

/// Sends bytes and reads them back, all at once.
async fn there_and_back(connection: &Connection, data: Vec<u8>) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let expected = data.clone();
    let sending = tokio::spawn(async move {
        send.write_all(&data).await.unwrap();
        send.finish().unwrap();
    });
    let got = soon("echoed", receive.read_to_end(expected.len() + 1)).await.unwrap();
    assert!(got == expected, "{} of {} bytes, or others", got.len(), expected.len());
    sending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_know_who_the_other_is_and_a_half_closed_stream_goes_on_the_other_way() {
    let (name, _) = base().await;
    let (a, b) = (endpoint(1, &name).await, endpoint(2, &name).await);
    let mut listener = listen(&b);
    let connection = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    let accepted = accept(&mut listener).await;
    assert_eq!((accepted.device, accepted.service.as_slice()), (id(1), SERVICE.as_bytes()));

    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"question").await.unwrap();
    send.finish().unwrap();
    let (mut answer, mut question) = soon("opened", accepted.connection.accept_bi()).await.unwrap();
    assert_eq!(soon("asked", question.read_to_end(100)).await.unwrap(), b"question");
    answer.write_all(b"answer").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(soon("answered", receive.read_to_end(100)).await.unwrap(), b"answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_by_the_tcp_connection_of_the_base_alone() {
    let (name, _) = base().await;
    let (a, b) = (by_tcp(1, &name).await, by_tcp(2, &name).await);
    echo(listen(&b));
    let connection = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    there_and_back(&connection, bytes(3_000_000)).await;
    assert_eq!(path(&a, b.id()), Path::RelayTcp);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_direct_path_packets_grow_to_what_it_carries() {
    let (name, _) = base().await;
    let (a, b) = (endpoint(1, &name).await, endpoint(2, &name).await);
    echo(listen(&b));
    let connection = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    soon("grown", async {
        while connection.stats().path.current_mtu <= 1400 {
            there_and_back(&connection, bytes(500_000)).await;
        }
    })
    .await;
    assert!(matches!(path(&a, b.id()), Path::Direct(_)));
    assert!(a.bowline().max_direct(b.id()).unwrap() >= usize::from(connection.stats().path.current_mtu));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_from_direct_to_relay_and_back_and_packets_shrink_to_what_that_carries() {
    let (name, _) = base().await;
    let (a, b) = (endpoint(1, &name).await, endpoint(2, &name).await);
    echo(listen(&b));
    let connection = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    soon("grown", async {
        while connection.stats().path.current_mtu <= 1400 {
            there_and_back(&connection, bytes(500_000)).await;
        }
    })
    .await;
    for direct in [false, true, false] {
        let transfer = tokio::spawn({
            let connection = connection.clone();
            async move { there_and_back(&connection, bytes(20_000_000)).await }
        });
        a.bowline().set_direct(direct);
        b.bowline().set_direct(direct);
        transfer.await.unwrap();
    }
    assert!(!matches!(path(&a, b.id()), Path::Direct(_)));
    assert!(connection.stats().path.current_mtu <= 1200, "what the relay carries over UDP");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_a_connection() {
    let (name, _) = base().await;
    let (a, b) = (endpoint(1, &name).await, endpoint(2, &name).await);
    echo(listen(&b));
    let connection = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    let streams: Vec<_> = (0..300)
        .map(|n| {
            let connection = connection.clone();
            tokio::spawn(async move { there_and_back(&connection, bytes(1000 + n)).await })
        })
        .collect();
    for stream in streams {
        stream.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_connection_outlives_its_base() {
    let (name, _, base) = base_that_ends().await;
    let (a, b) = (endpoint(1, &name).await, endpoint(2, &name).await);
    echo(listen(&b));
    let connection = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    soon("direct", async {
        while !matches!(path(&a, b.id()), Path::Direct(_)) {
            there_and_back(&connection, bytes(1000)).await;
        }
    })
    .await;
    let transfer = tokio::spawn({
        let connection = connection.clone();
        async move { there_and_back(&connection, bytes(20_000_000)).await }
    });
    base.abort();
    transfer.await.unwrap();
    there_and_back(&connection, bytes(1000)).await;
    assert!(a.bowline().status().base.is_none(), "the base is gone");
}

#[tokio::test]
async fn an_endpoint_that_nobody_uses_any_more_is_closed() {
    let (base, _) = base().await;
    let (a, b) = (endpoint(60, &base).await, endpoint(61, &base).await);
    let mut events = a.bowline().events();
    echo(listen(&b));
    let connection = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    drop((a, b));
    // The listener and the connection go on …
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"still there").await.unwrap();
    send.finish().unwrap();
    assert_eq!(soon("received", receive.read_to_end(100)).await.unwrap(), b"still there");
    // … and when they have ended, the endpoint has, too.
    drop((connection, send, receive));
    soon("the end of its events", async { while events.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn an_endpoint_that_was_never_used_is_closed_when_it_is_dropped() {
    let (base, _) = base().await;
    let a = endpoint(62, &base).await;
    let mut events = a.bowline().events();
    drop(a);
    soon("the end of its events", async { while events.next().await.is_some() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_listens_again_once_its_listener_is_dropped() {
    let (name, _) = base().await;
    let (a, b) = (endpoint(20, &name).await, endpoint(21, &name).await);
    let mut listener = listen(&b);
    assert!(matches!(b.listen(Listen::new(["other/1"])), Err(SetupError::ListensAlready)));
    let first = soon("connected", a.connect(b.id(), SERVICE.as_bytes())).await.unwrap();
    let _accepted = accept(&mut listener).await;
    drop(listener);
    let mut other = b.listen(Listen::new(["other/1"]).allow(Allow::Everyone)).unwrap();
    soon("connected", a.connect(b.id(), b"other/1")).await.unwrap();
    assert_eq!(accept(&mut other).await.service, b"other/1");
    assert!(soon("refused", a.connect(b.id(), SERVICE.as_bytes())).await.is_err());
    assert!(first.close_reason().is_none(), "what stood before goes on");
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bowline = runtime.block_on(bowline::Endpoint::builder(key(22)).link_local(false).bind()).unwrap();
    assert!(matches!(Endpoint::new(bowline.clone(), &key(22)), Err(SetupError::Runtime(_))));
    let endpoint = runtime.block_on(async { Endpoint::new(bowline, &key(22)) }).unwrap();
    assert!(matches!(endpoint.listen(Listen::new([SERVICE])), Err(SetupError::Runtime(_))));
    let listening = runtime.block_on(async { endpoint.listen(Listen::new([SERVICE])) });
    assert!(listening.is_ok(), "nothing was begun: {listening:?}");
}
