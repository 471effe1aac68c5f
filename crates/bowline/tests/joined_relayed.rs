//! Short messages of a batch share datagrams through a base, too.

mod common;

use bowline::{Endpoint, Path};
use bowline_base::Handle;
use bytes::Bytes;
use common::{online, path, receive_batch, soon, watched_base};

/// Two endpoints, each told by the base of the other, that then keep to the base.
async fn relayed() -> (Handle, Endpoint, Endpoint) {
    let (base, handle) = watched_base().await;
    let (a, b) = (online(1, &base).await, online(2, &base).await);
    let mut events = (a.events(), b.events());
    a.want(b.id()).unwrap();
    b.want(a.id()).unwrap();
    let ready = |of: &Endpoint, other: &Endpoint| {
        let known = of.peer(other.id()).is_some_and(|peer| peer.online == Some(true));
        known && of.status().base.is_some_and(|base| base.udp.iter().any(|binding| binding.full_size))
    };
    soon("told and confirmed", async {
        while !(ready(&a, &b) && ready(&b, &a)) {
            tokio::select! {
                _ = events.0.next() => {}
                _ = events.1.next() => {}
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    a.set_direct(false);
    b.set_direct(false);
    assert_eq!((path(&a, b.id()), path(&b, a.id())), (Path::RelayUdp, Path::RelayUdp));
    (handle, a, b)
}

/// Datagrams that the base has forwarded.
async fn forwarded(base: &Handle) -> u64 {
    base.inspect(0).await.unwrap().counters.forwarded_udp
}

#[tokio::test]
async fn eleven_of_100_bytes_of_a_batch_go_through_the_base_in_one_datagram() {
    let (base, a, b) = relayed().await;
    let sent: Vec<Bytes> = (0..220_u32).map(|n| [n.to_be_bytes(); 25].concat().into()).collect();
    let mut expected = 0;
    for (form, datagrams) in [("batch", 20), ("segments", 20), ("one by one", 220)] {
        match form {
            "batch" => assert_eq!(a.send_batch(b.id(), &sent).await, Ok(220)),
            "segments" => assert_eq!(a.send_segments(b.id(), &sent.concat(), 100).await, Ok(220)),
            _ => {
                for message in &sent {
                    a.send(b.id(), message).await.unwrap();
                }
            }
        }
        let got = receive_batch(&b, 220).await;
        let other = got.iter().find(|got| (got.from, got.path) != (a.id(), Path::RelayUdp));
        assert_eq!(other, None, "{form}");
        assert!(got.iter().map(|got| &got.data).eq(&sent), "{form}");
        // A worker counts a round when it has sent it.
        expected += datagrams;
        soon("counted", async { while forwarded(&base).await < expected {} }).await;
        assert_eq!(forwarded(&base).await, expected, "{form}");
    }
    assert_eq!(b.status().counters.data_received_relay_udp, 660);
}

#[tokio::test]
async fn messages_of_every_size_arrive_whole_and_in_order_through_the_base() {
    let (_base, a, b) = relayed().await;
    let of = |number: usize| match number % 60 {
        0 => Vec::new(),
        1 => b"\x0bbowline\x05\0\x01 joined?".to_vec(),
        2..=20 => vec![number as u8; 40],
        21 => vec![number as u8; 7],
        22..=50 => vec![number as u8; 300],
        51..=53 => vec![number as u8; 1199],
        _ => vec![number as u8; 1],
    };
    let sent: Vec<Bytes> = (0..600).map(|number| of(number).into()).collect();
    assert_eq!(a.send_batch(b.id(), &sent).await, Ok(600));
    let got = receive_batch(&b, 600).await;
    assert!(got.iter().map(|got| &got.data).eq(&sent));
}
