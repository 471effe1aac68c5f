//! What happens at the bounds, and when something cannot be done.

mod common;

use bowline::{BindError, Endpoint, SendError, TrySendError};
use common::{base, become_direct, key, nobody, online, receive_batch, soon, with};

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
async fn a_batch_of_the_largest_messages_that_the_path_carries_arrives() {
    let base = base().await;
    let (a, b) = (online(29, &base).await, online(30, &base).await);
    become_direct(&a, &b).await;
    let batch = vec![bytes::Bytes::from(vec![7; 1200]); 130];
    assert_eq!(a.send_batch(b.id(), &batch).await, Ok(130));
    let got = receive_batch(&b, 130).await;
    assert!(got.iter().all(|datagram| datagram.data == batch[0]));
}

#[tokio::test]
async fn a_full_queue_towards_the_base_is_told_by_try_send_and_waited_for_by_send() {
    let base = base().await;
    let a = with(31, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    let b = with(32, |builder| builder.base(base.clone()).direct(false).relay_udp(false)).await;
    // Nothing else runs on this thread until the first await: the queue does not drain.
    let mut taken = 0;
    let error = loop {
        match a.try_send(b.id(), &[1; 8000]) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, TrySendError::Full);
    assert_eq!(taken, 128 * 1024 / (8000 + 17), "as many as fit into 128 KiB");
    a.send(b.id(), b"the last").await.unwrap();
    soon("received", async { while b.recv().await.unwrap().1 != b"the last"[..] {} }).await;
}
