//! What happens at the bounds, and when something cannot be done.

mod common;

use bowline::{BindError, Endpoint, SendError};
use common::{base, become_direct, key, nobody, online, soon, with};

#[tokio::test]
async fn a_message_too_large_is_refused_with_both_figures() {
    let base = base().await;
    let (a, b) = (online(20, &base).await, online(21, &base).await);
    let error = a.send(b.id(), &[0; 16_001]).await.unwrap_err();
    assert_eq!(error, SendError::TooLarge { length: 16_001, limit: 16_000 });
    assert_eq!(a.send_batch(b.id(), &[vec![0; 16_001].into()]).await, Err(error));
    let batch = [vec![0; 10].into(), vec![0; 16_001].into(), vec![0; 10].into()];
    assert_eq!(a.send_batch(b.id(), &batch).await, Ok(1));
}

#[tokio::test]
async fn an_unknown_device_and_a_missing_base_are_different_errors() {
    let stranger = key(99).device_id();
    let a = Endpoint::builder(key(22)).link_local(false).bind().await.unwrap();
    assert_eq!(a.send(stranger, b"x").await, Err(SendError::UnknownDevice));
    let dead = nobody().to_string().parse().unwrap();
    let b = Endpoint::builder(key(23)).link_local(false).base(dead).bind().await.unwrap();
    assert_eq!(b.send(stranger, b"x").await, Err(SendError::NoBase));
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = std::net::UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Endpoint::builder(key(24)).port(port).bind().await.unwrap_err();
    assert!(matches!(error, BindError::PortInUse { port: named } if named == port));
    assert!(error.to_string().contains(&port.to_string()));
}

#[tokio::test]
async fn a_receiver_that_does_not_fetch_keeps_the_first_messages_and_counts_the_rest() {
    let base = base().await;
    let (a, b) = (online(25, &base).await, online(26, &base).await);
    for number in 0..4096 + 100u32 {
        b.send(b.id(), &number.to_be_bytes()).await.unwrap();
    }
    assert_eq!(b.dropped(), 100);
    let mut got = Vec::new();
    assert_eq!(b.recv_batch(&mut got, 10_000).await, Ok(4096));
    assert!(got.iter().zip(0u32..).all(|(datagram, number)| datagram.data == number.to_be_bytes()[..]));
    a.send(b.id(), b"room again").await.unwrap();
    assert_eq!(soon("received", b.recv()).await.unwrap().1, &b"room again"[..]);
}

#[tokio::test]
async fn a_sender_that_outruns_the_relay_is_slowed_down_not_cut_off() {
    let base = base().await;
    let a = with(27, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    let b = with(28, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    let sender = tokio::spawn({
        let (a, to) = (a.clone(), b.id());
        async move {
            for number in 0..500u32 {
                let mut message = vec![0; 8000];
                message[..4].copy_from_slice(&number.to_be_bytes());
                a.send(to, &message).await.unwrap();
            }
        }
    });
    // The base's own queue may drop some.
    let mut count = 0;
    soon("received", async {
        while count < 250 {
            b.recv().await.unwrap();
            count += 1;
        }
    })
    .await;
    soon("sent", sender).await.unwrap();
}

#[tokio::test]
async fn a_batch_of_the_largest_messages_that_the_path_carries_arrives() {
    let base = base().await;
    let (a, b) = (online(29, &base).await, online(30, &base).await);
    become_direct(&a, &b).await;
    let batch = vec![bytes::Bytes::from(vec![7; 1200]); 130];
    assert_eq!(a.send_batch(b.id(), &batch).await, Ok(130));
    let mut got = Vec::new();
    while got.len() < 130 {
        soon("received", b.recv_batch(&mut got, 130)).await.unwrap();
    }
    assert!(got.iter().all(|datagram| datagram.data == batch[0]));
}
