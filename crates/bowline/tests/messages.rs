//! Messages between two endpoints: what is sent is what arrives, by every way.

mod common;

use bowline::{Datagram, Path};
use bytes::Bytes;
use common::{base, become_direct, online, receive, receive_batch, soon, with};

#[tokio::test]
async fn two_endpoints_exchange_messages_through_a_base_and_become_direct() {
    let base = base().await;
    let (a, b) = (online(1, &base).await, online(2, &base).await);
    a.send(b.id(), b"hello").await.unwrap();
    let Datagram { from, data, path: by } = receive(&b).await;
    assert_eq!((from, &data[..]), (a.id(), &b"hello"[..]));
    assert!(matches!(by, Path::RelayTcp | Path::RelayUdp), "the first message did not wait: {by}");
    become_direct(&a, &b).await;
    b.send(a.id(), b"straight").await.unwrap();
    let Datagram { from, data, path: by } = receive(&a).await;
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
        assert_eq!(got, Datagram { from: a.id(), data: message.into(), path: Path::RelayTcp });
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
    assert_eq!(got, Datagram { from: a.id(), data: Bytes::from_static(b"note to self"), path: Path::Local });
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
    for number in (0..100u32).chain([u32::MAX]) {
        a.send(b.id(), &number.to_be_bytes()).await.unwrap();
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(soon("ended", task).await.unwrap());
    }
    all.sort_unstable();
    let unique = all.len();
    all.dedup();
    assert_eq!(all.len(), unique, "a message was received twice");
    assert!(all.contains(&u32::MAX));
}
