//! Messages between two endpoints: what is sent is what arrives, by every way.

mod common;

use bowline::{Datagram, Ecn, Endpoint, Event, EventItem, Path};
use bytes::Bytes;
use common::{base, become_direct, online, receive, receive_batch, soon, with};

#[tokio::test]
async fn two_endpoints_exchange_messages_through_a_base_and_become_direct() {
    let base = base().await;
    let (a, b) = (online(1, &base).await, online(2, &base).await);
    a.send(b.id(), b"hello").await.unwrap();
    let Datagram { from, data, path: by, .. } = receive(&b).await;
    assert_eq!((from, &data[..]), (a.id(), &b"hello"[..]));
    assert!(matches!(by, Path::RelayTcp | Path::RelayUdp), "the first message did not wait: {by}");
    become_direct(&a, &b).await;
    b.send(a.id(), b"straight").await.unwrap();
    let Datagram { from, data, path: by, .. } = receive(&a).await;
    assert_eq!((from, &data[..]), (b.id(), &b"straight"[..]));
    assert!(matches!(by, Path::Direct(_)), "{by}");
}

#[tokio::test]
async fn without_udp_messages_go_over_tcp() {
    let base = base().await;
    let a = with(3, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    let b = with(4, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    for size in [0, 1, 1200, 1201, 16_000] {
        let message: Vec<u8> = (0..size).map(|i| i as u8).collect();
        a.send(b.id(), &message).await.unwrap();
        let got = receive(&b).await;
        assert_eq!(
            got,
            Datagram { from: a.id(), data: message.into(), path: Path::RelayTcp, ecn: Ecn::NotEct }
        );
    }
}

#[tokio::test]
async fn messages_that_look_like_the_protocols_own_and_empty_ones_survive_on_a_direct_path() {
    let base = base().await;
    let (a, b) = (online(5, &base).await, online(6, &base).await);
    become_direct(&a, &b).await;
    let messages: [&[u8]; 5] =
        [b"", b"\x0bbowline", b"\x0bbowline\x01 a HELLO?", b"\x0bbowline\x03", &[0x0b; 1200]];
    for message in messages {
        a.send(b.id(), message).await.unwrap();
        let got = receive(&b).await;
        assert_eq!((got.from, &got.data[..]), (a.id(), message));
        assert!(matches!(got.path, Path::Direct(_)));
    }
}

#[tokio::test]
async fn a_batch_arrives_whole_and_in_its_sizes() {
    let base = base().await;
    let (a, b) = (online(7, &base).await, online(8, &base).await);
    become_direct(&a, &b).await;
    let batch: Vec<Bytes> = (0..200u32)
        .map(|i| Bytes::from(vec![i as u8; [1000, 1000, 1000, 10][i as usize % 4]]))
        .chain([Bytes::new(), Bytes::from_static(b"\x0bbowline!")])
        .collect();
    assert_eq!(a.send_batch(b.id(), &batch).await, Ok(batch.len()));
    let got = receive_batch(&b, batch.len()).await;
    let mut sent: Vec<_> = batch.iter().map(|data| data.to_vec()).collect();
    let mut received: Vec<_> = got.iter().map(|datagram| datagram.data.to_vec()).collect();
    sent.sort();
    received.sort();
    assert_eq!(sent, received);
    assert!(got.iter().all(|datagram| datagram.from == a.id()));
}

#[tokio::test]
async fn a_message_to_oneself_is_delivered_here() {
    let base = base().await;
    let a = online(9, &base).await;
    a.send(a.id(), b"note to self").await.unwrap();
    let got = receive(&a).await;
    assert_eq!(
        got,
        Datagram {
            from: a.id(),
            data: Bytes::from_static(b"note to self"),
            path: Path::Local,
            ecn: Ecn::NotEct
        }
    );
}

#[tokio::test]
async fn several_tasks_receive_each_message_once() {
    let base = base().await;
    let (a, b) = (online(10, &base).await, online(11, &base).await);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let b = b.clone();
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                while let Ok((_, data)) = b.recv().await {
                    numbers.push(u32::from_be_bytes(data[..].try_into().unwrap()));
                    if numbers.last() == Some(&u32::MAX) {
                        b.close().await;
                    }
                }
                numbers
            })
        })
        .collect();
    for number in 0..100u32 {
        a.send(b.id(), &number.to_be_bytes()).await.unwrap();
    }
    // The last word is said until it is heard: datagrams may be lost while a path comes to stand.
    let (from, to) = (a.clone(), b.id());
    let last_word = tokio::spawn(async move {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(50));
        while from.send(to, &u32::MAX.to_be_bytes()).await.is_ok() {
            again.tick().await;
        }
    });
    let mut all = Vec::new();
    for task in tasks {
        all.extend(soon("ended", task).await.unwrap());
    }
    last_word.abort();
    all.sort_unstable();
    while all.iter().rev().take(2).all(|&number| number == u32::MAX) && all.len() > 1 {
        all.pop();
    }
    let unique = all.len();
    all.dedup();
    assert_eq!(all.len(), unique, "a message was received twice");
    assert!(all.contains(&u32::MAX));
}

/// Until 1,200 bytes are known to pass a direct path, some messages would take the relay.
async fn proven(events: &mut bowline::Events) {
    soon("proven", async {
        while !matches!(events.next().await, Some(EventItem::Event(Event::DirectSize { size: 1200.., .. }))) {
        }
    })
    .await;
}

#[tokio::test]
async fn one_buffer_arrives_as_messages_of_one_size_and_a_rest() {
    let base = base().await;
    let (a, b) = (online(12, &base).await, online(13, &base).await);
    let data: Vec<u8> = (0..100_100u32).map(|i| (i / 1000) as u8).collect();
    // Over whatever way there is, then directly.
    for _ in 0..2 {
        assert_eq!(a.send_segments(b.id(), &data, 1000).await, Ok(101));
        let mut got: Vec<_> = receive_batch(&b, 101).await.iter().map(|got| got.data.to_vec()).collect();
        got.sort();
        assert!(got.iter().map(Vec::as_slice).eq(data.chunks(1000)), "each is whole");
        become_direct(&a, &b).await;
    }
    assert_eq!(a.send_segments(b.id(), &[], 1000).await, Ok(0));
    // The path that stands now: another may have been proven before it.
    let carries = || a.max_direct(b.id()).is_some_and(|size| size >= 1200);
    soon("proven", async {
        while !carries() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // As they came: in fewer pieces, and the same when cut.
    assert_eq!(a.send_segments(b.id(), &data, 1000).await, Ok(101));
    let (mut got, mut pieces) = (Vec::new(), 0);
    while got.len() < 101 {
        let segments = soon("received", b.recv_segments()).await.unwrap();
        assert_eq!((segments.from, segments.messages().count()), (a.id(), segments.count()));
        let ours = segments.messages().filter(|message| message.len() == 1000 || message.len() == 100);
        got.extend(ours.map(<[u8]>::to_vec));
        pieces += 1;
    }
    got.sort();
    assert!(got.iter().map(Vec::as_slice).eq(data.chunks(1000)));
    // What comes by another pair than the receiver's own path is taken one by one.
    let way = |from: &Endpoint, to: &Endpoint| match from.peer(to.id()).map(|peer| peer.path) {
        Some(Path::Direct(address)) => Some(address.ip()),
        _ => None,
    };
    if way(&a, &b) == way(&b, &a) {
        assert!(pieces < 101, "{pieces} pieces");
    }
    let magic = b"\x0bbowline".repeat(20);
    assert_eq!(a.send_segments(b.id(), &magic, 8).await, Ok(20));
    let got = receive_batch(&b, 20).await;
    assert!(got.iter().all(|got| got.data == b"\x0bbowline"[..]), "those that need an escape travel in one");
}

#[tokio::test]
async fn messages_sent_one_by_one_in_a_row_arrive_in_their_order_and_sizes() {
    let base = base().await;
    let (a, b) = (online(14, &base).await, online(15, &base).await);
    let mut events = a.events();
    become_direct(&a, &b).await;
    proven(&mut events).await;
    let size = |number: u32| [1000, 1000, 1000, 1000, 12, 700, 1100][number as usize % 7];
    for number in 0..700u32 {
        let mut message = number.to_be_bytes().to_vec();
        message.resize(size(number), 7);
        a.send(b.id(), &message).await.unwrap();
    }
    // The last ones leave although nothing follows them.
    let got = receive_batch(&b, 700).await;
    for (number, datagram) in (0u32..).zip(&got) {
        assert_eq!(datagram.data[..4], number.to_be_bytes());
        assert_eq!(datagram.data.len(), size(number));
        assert!(matches!(datagram.path, Path::Direct(_)));
    }
}

#[tokio::test]
async fn messages_that_are_sent_and_answered_in_turn_wait_for_nothing() {
    let base = base().await;
    let (a, b) = (online(16, &base).await, online(17, &base).await);
    become_direct(&a, &b).await;
    for number in 0..300u32 {
        a.send(b.id(), &number.to_be_bytes()).await.unwrap();
        assert_eq!(receive(&b).await.data, number.to_be_bytes()[..]);
        b.send(a.id(), &number.to_be_bytes()).await.unwrap();
        assert_eq!(receive(&a).await.data, number.to_be_bytes()[..]);
    }
}

#[tokio::test]
async fn a_message_that_is_sent_by_itself_leaves_before_its_sender_waits() {
    let base = base().await;
    let (a, b) = (online(18, &base).await, online(19, &base).await);
    become_direct(&a, &b).await;
    let sent = |a: &Endpoint| a.status().counters.data_sent_direct;
    let before = sent(&a);
    // Nothing else runs on this thread until the next await.
    a.try_send(b.id(), b"now").unwrap();
    assert_eq!(sent(&a), before + 1);
    assert_eq!(&receive(&b).await.data[..], b"now");
}

#[tokio::test]
async fn a_path_that_carries_more_than_1200_bytes_is_found_told_and_used() {
    let base = base().await;
    let (a, b) = (online(40, &base).await, online(41, &base).await);
    let mut events = a.events();
    become_direct(&a, &b).await;
    a.send(b.id(), &[1; 1200]).await.unwrap();
    soon("found", async {
        loop {
            // Loopback carries 65,536 bytes; the largest size of all waits for its budget.
            match events.next().await {
                Some(EventItem::Event(Event::DirectSize { peer, size })) if size > 8_000 => {
                    return assert_eq!((peer, a.max_direct(b.id())), (b.id(), Some(size)));
                }
                Some(_) => {}
                None => panic!("the endpoint has ended"),
            }
        }
    })
    .await;
    let batch = vec![Bytes::from(vec![9; 8_000]); 20];
    assert_eq!(a.send_batch(b.id(), &batch).await, Ok(20));
    let got = receive_batch(&b, 21).await;
    let large: Vec<_> = got.iter().filter(|got| got.data.len() == 8_000).collect();
    assert_eq!(large.len(), 20);
    assert!(large.iter().all(|got| matches!(got.path, Path::Direct(_))));
}
