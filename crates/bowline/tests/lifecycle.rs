//! From bind to close: registration, events, the end.

mod common;

use std::time::Duration;

use bowline::{ClosedError, Endpoint, Event, EventItem, RecvError, SendError};
use common::{base, become_direct, key, nobody, online, soon, with};
use tokio::time::timeout;

#[tokio::test]
async fn registration_is_told_as_an_event_and_seen_in_the_status() {
    let base = base().await;
    let a = Endpoint::builder(key(40)).link_local(false).base(base.clone()).bind().await.unwrap();
    let mut events = a.events();
    soon("registered", a.online()).await.unwrap();
    let registered = soon("told", async {
        loop {
            match events.next().await {
                Some(EventItem::Event(Event::Registered { id, .. })) => return id,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    })
    .await;
    assert_eq!(Some(registered), base.id);
    let status = a.status();
    assert_eq!(status.base.map(|base| base.id), base.id);
    assert_eq!(status.id, a.id());
    assert_eq!(a.remembered_bases().len(), 1);
}

#[tokio::test]
async fn a_dead_base_beside_a_living_one_holds_nobody_up() {
    let base = base().await;
    let dead = nobody().to_string().parse().unwrap();
    let a = with(41, |builder| builder.bases([dead, base.clone()])).await;
    assert_eq!(a.status().base.map(|base| base.id), base.id);
}

#[tokio::test]
async fn after_closing_nothing_is_sent_and_the_rest_can_be_received() {
    let base = base().await;
    let (a, b) = (online(42, &base).await, online(43, &base).await);
    let mut events = a.events();
    b.send(b.id(), b"before").await.unwrap();
    soon("closed", async { tokio::join!(a.close(), a.close(), b.close()) }).await;
    soon("closed again", a.close()).await;
    assert_eq!(a.send(b.id(), b"x").await, Err(SendError::Closed));
    assert_eq!(a.want(b.id()), Err(SendError::Closed));
    assert_eq!(a.online().await, Err(ClosedError));
    assert_eq!(a.recv().await, Err(RecvError::Closed));
    assert_eq!(b.recv().await.unwrap().1, &b"before"[..]);
    assert_eq!(b.try_recv(), Err(RecvError::Closed));
    soon("the end of the events", async { while events.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn what_was_sent_before_closing_arrives() {
    let base = base().await;
    let a = with(44, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    let b = with(45, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    for number in 0..10u8 {
        a.send(b.id(), &[number]).await.unwrap();
    }
    soon("closed", a.close()).await;
    for number in 0..10u8 {
        assert_eq!(soon("received", b.recv()).await.unwrap().1, [number][..]);
    }
}

#[tokio::test]
async fn the_first_stream_of_events_begins_with_the_endpoint() {
    let base = base().await;
    let a = online(54, &base).await;
    let first = soon("told", a.events().next()).await;
    assert!(matches!(first, Some(EventItem::Event(Event::Registered { .. }))), "{first:?}");
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_endpoint() {
    let base = base().await;
    let a = online(46, &base).await;
    let mut events = a.events();
    let clone = a.clone();
    drop(a);
    clone.send(clone.id(), b"still there").await.unwrap();
    soon("received", clone.recv()).await.unwrap();
    drop(clone);
    soon("the end of the events", async { while events.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn a_device_that_closed_and_came_back_under_the_same_key_is_reached_again() {
    let base = base().await;
    let a = online(47, &base).await;
    for round in 0..3u8 {
        let b = online(48, &base).await;
        // What is on its way to the port it had before is lost, as datagrams may be: sent again, it arrives.
        soon("received", async {
            loop {
                a.send(b.id(), &[round]).await.unwrap();
                if let Ok(received) = timeout(Duration::from_millis(50), b.recv()).await {
                    return assert_eq!(received.unwrap().1, [round][..]);
                }
            }
        })
        .await;
        soon("closed", b.close()).await;
    }
}

#[tokio::test]
async fn bases_that_stay_silent_hang_up_or_talk_nonsense_hold_nobody_up() {
    use tokio::{io::AsyncWriteExt, net::TcpListener};
    let base = base().await;
    let answers: [Option<&[u8]>; 5] =
        [None, Some(b""), Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Some(&[0, 0]), Some(&[0, 1, 0x03])];
    let mut names = Vec::new();
    for answer in answers {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        names.push(listener.local_addr().unwrap().to_string().parse().unwrap());
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                match answer {
                    Some(answer) => stream.write_all(answer).await.unwrap_or_default(),
                    None => silent.push(stream),
                }
            }
        });
    }
    let a = with(49, |builder| builder.bases(names).base(base.clone())).await;
    assert_eq!(a.status().base.map(|base| base.id), base.id);
}

#[test]
fn an_endpoint_whose_runtime_has_ended_is_closed() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let (a, b) = first.block_on(async {
        let base = base().await;
        let (a, b) = (online(55, &base).await, online(56, &base).await);
        become_direct(&a, &b).await;
        (a, b)
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(a.send(b.id(), b"by nobody").await, Err(SendError::Closed));
        assert_eq!(a.want(b.id()), Err(SendError::Closed));
        assert_eq!(a.online().await, Err(ClosedError));
        soon("closed", a.close()).await;
    });
}

#[test]
#[should_panic(expected = "timers are disabled")]
fn a_runtime_without_timers_is_refused_where_the_endpoint_is_bound() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _ = runtime.block_on(Endpoint::builder(key(57)).link_local(false).bind());
}
