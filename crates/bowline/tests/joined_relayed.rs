//! Short messages of a batch share datagrams through a base, too.

mod common;

use std::{
    collections::{HashMap, hash_map::Entry},
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bowline::{BaseName, Builder, Endpoint, Path};
use bowline_base::{Config, Handle, Server};
use bytes::Bytes;
use common::{key, of_every_size, path, receive_batch, soon, with};
use tokio::net::UdpSocket;

/// Where the base's UDP is told to be: a NAT stands there, which lets nothing in but what the base sends.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Passes on what hosts send to the base, each from a socket of its own, and what comes back.
async fn nat(base: SocketAddr) {
    let inside = Arc::new(UdpSocket::bind((OUTSIDE, base.port())).await.unwrap());
    let mut hosts: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, host) = inside.recv_from(&mut buffer).await.unwrap();
        if let Entry::Vacant(unknown) = hosts.entry(host) {
            let outside = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
            // From nowhere else does it receive.
            outside.connect(base).await.unwrap();
            unknown.insert(Arc::clone(&outside));
            let inside = Arc::clone(&inside);
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    let length = outside.recv(&mut buffer).await.unwrap();
                    inside.send_to(&buffer[..length], host).await.unwrap();
                }
            });
        }
        hosts[&host].send(&buffer[..length]).await.unwrap();
    }
}

/// Two endpoints, each told by the base of the other, that have no direct path.
async fn relayed() -> (Handle, Endpoint, Endpoint) {
    let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
    let config = Config { listen, advertise: vec![OUTSIDE.into()], ..Config::default() };
    let server = Server::bind(config, key(200)).await.unwrap();
    let at = server.local_addrs()[0];
    let base: BaseName = format!("{}@{at}", server.id()).parse().unwrap();
    let handle = server.handle();
    tokio::spawn(server.run(pending()));
    tokio::spawn(nat(at));
    let hidden = |builder: Builder| builder.base(base.clone()).exclude_interfaces(["*".to_owned()]);
    let (a, b) = (with(1, hidden).await, with(2, hidden).await);
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
    assert_eq!((path(&a, b.id()), path(&b, a.id())), (Path::RelayUdp, Path::RelayUdp));
    // The base may not have heard yet that they are confirmed: until then the second half of the way is TCP.
    let mut probes = 0;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut path = None;
        while path != Some(Path::RelayUdp) {
            from.send(to.id(), &[0; 1_200]).await.unwrap();
            probes += 1;
            path = Some(receive_batch(to, 1).await[0].path);
        }
    }
    // A worker counts a round when it has sent it.
    soon("counted", async { while forwarded(&handle).await.iter().sum::<u64>() < probes {} }).await;
    (handle, a, b)
}

/// Datagrams that the base has forwarded, and frames.
async fn forwarded(base: &Handle) -> [u64; 2] {
    let counters = base.inspect(0).await.unwrap().counters;
    [counters.forwarded_udp, counters.forwarded_tcp]
}

#[tokio::test]
async fn eleven_of_100_bytes_of_a_batch_go_through_the_base_in_one_datagram() {
    let (base, a, b) = relayed().await;
    // As many as the NAT's sockets hold until it has its turn.
    let sent: Vec<Bytes> = (0..110_u32).map(|n| [n.to_be_bytes(); 25].concat().into()).collect();
    let [mut expected, _] = forwarded(&base).await;
    let before = (a.status().counters, b.status().counters);
    for (form, datagrams) in [("batch", 10), ("segments", 10), ("polled", 10), ("one by one", 110)] {
        match form {
            "batch" => assert_eq!(a.send_batch(b.id(), &sent).await, Ok(110)),
            "segments" => assert_eq!(a.send_segments(b.id(), &sent.concat(), 100).await, Ok(110)),
            "polled" => a.try_send_segments(b.id(), &sent.concat(), 100).unwrap(),
            _ => {
                for message in &sent {
                    a.send(b.id(), message).await.unwrap();
                }
            }
        }
        let got = receive_batch(&b, 110).await;
        let other = got.iter().find(|got| (got.from, got.path) != (a.id(), Path::RelayUdp));
        assert_eq!(other, None, "{form}");
        assert!(got.iter().map(|got| &got.data).eq(&sent), "{form}");
        // A worker counts a round when it has sent it.
        expected += datagrams;
        soon("counted", async { while forwarded(&base).await[0] < expected {} }).await;
        assert_eq!(forwarded(&base).await[0], expected, "{form}");
    }
    let after = (a.status().counters, b.status().counters);
    assert_eq!(after.0.data_sent_relay_udp - before.0.data_sent_relay_udp, 440);
    assert_eq!(after.1.data_received_relay_udp - before.1.data_received_relay_udp, 440);
}

#[tokio::test]
async fn what_takes_several_calls_is_counted_once() {
    let (_base, a, b) = relayed().await;
    let before = a.status().counters.data_sent_relay_udp;
    let data = vec![7; 80 * 1000];
    a.try_send_segments(b.id(), &data, 1000).unwrap();
    let got = receive_batch(&b, 80).await;
    assert!(got.iter().all(|got| got.data.len() == 1000));
    assert_eq!(a.status().counters.data_sent_relay_udp - before, 80);
}

#[tokio::test]
async fn messages_of_every_size_arrive_whole_and_in_order_through_the_base() {
    let (_base, a, b) = relayed().await;
    let sent = of_every_size(600);
    // Cut where it has nothing to do with their sizes; a NAT's sockets hold so many.
    for part in sent.chunks(97) {
        assert_eq!(a.send_batch(b.id(), part).await, Ok(part.len()));
        let got = receive_batch(&b, part.len()).await;
        assert!(got.iter().map(|got| &got.data).eq(part));
    }
}
