//! Over real sockets on loopback.

use std::{
    io::IoSlice,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::*;

async fn bind() -> Udp {
    Udp::bind(0, Interfaces::default()).await.unwrap()
}

fn own(udp: &Udp, v6: bool) -> SocketAddr {
    if v6 {
        (Ipv6Addr::LOCALHOST, udp.v6.as_ref().unwrap().port).into()
    } else {
        (Ipv4Addr::LOCALHOST, udp.v4.as_ref().unwrap().port).into()
    }
}

/// So many datagrams, each with its sender and the address it was sent to.
async fn receive(socket: &Socket, count: usize) -> Vec<(SocketAddr, Option<IpAddr>, Vec<u8>)> {
    receive_as(socket, count, |chunk, datagram| (chunk.from, chunk.local, datagram.to_vec())).await
}

async fn receive_as<T>(socket: &Socket, count: usize, read: impl Fn(&Chunk<'_>, &[u8]) -> T) -> Vec<T> {
    let mut receiver = Receiver::new();
    let mut got = Vec::new();
    let all = async {
        while got.len() < count {
            socket.readable().await;
            if let Ok(filled) = receiver.receive(socket) {
                for chunk in (0..filled).map(|at| receiver.chunk(at)) {
                    got.extend(chunk.datagrams().map(|datagram| read(&chunk, datagram)));
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), all).await.expect("not all datagrams came");
    got
}

#[tokio::test]
async fn datagrams_are_gathered_from_parts_and_tell_both_addresses() {
    let (a, b) = (bind().await, bind().await);
    for v6 in [false, true] {
        let hop = Hop::anywhere(own(&b, v6));
        a.try_send(hop, &[IoSlice::new(b"head"), IoSlice::new(b"tail")], None, Ecn::NotEct).unwrap();
        let socket = if v6 { &b.v6 } else { &b.v4 };
        let got = receive(socket.as_ref().unwrap(), 1).await;
        assert_eq!(got, [(own(&a, v6), Some(own(&b, v6).ip()), b"headtail".to_vec())]);
    }
}

#[tokio::test]
async fn the_source_address_is_the_one_asked_for_and_must_be_an_own_one() {
    let (a, b) = (bind().await, bind().await);
    let source = IpAddr::from([127, 0, 0, 77]);
    let hop = Hop { source: Some(source), ..Hop::anywhere(own(&b, false)) };
    a.try_send(hop, &[IoSlice::new(b"x")], None, Ecn::NotEct).unwrap();
    assert_eq!(receive(b.v4.as_ref().unwrap(), 1).await[0].0.ip(), source);

    let gone = Hop { source: Some([192, 0, 2, 1].into()), ..Hop::anywhere(own(&b, false)) };
    let before = a.max_segments(gone);
    a.try_send(gone, &[IoSlice::new(b"x")], None, Ecn::NotEct).unwrap_err();
    assert_eq!(a.max_segments(gone), before, "an address that has gone does not switch segmentation off");
}

#[tokio::test]
async fn a_batch_is_cut_into_datagrams_of_equal_size_and_a_rest() {
    let (a, b) = (bind().await, bind().await);
    let messages: Vec<_> = (0..40u8).map(|i| vec![i; if i == 39 { 100 } else { 1200 }]).collect();
    let parts: Vec<_> = messages.iter().map(|message| IoSlice::new(message)).collect();
    let hop = Hop { source: Some([127, 0, 0, 1].into()), ..Hop::anywhere(own(&b, false)) };
    assert!(a.max_segments(hop) >= 40);
    a.try_send(hop, &parts, Some(1200), Ecn::NotEct).unwrap();
    let got = receive(b.v4.as_ref().unwrap(), 40).await;
    assert!(got.iter().map(|(_, _, data)| data).eq(&messages));
}

#[tokio::test]
async fn an_empty_datagram_is_received_as_one() {
    let (a, b) = (bind().await, bind().await);
    a.try_send(Hop::anywhere(own(&b, false)), &[IoSlice::new(b"")], None, Ecn::NotEct).unwrap();
    assert_eq!(receive(b.v4.as_ref().unwrap(), 1).await[0].2, b"");
}

#[tokio::test]
async fn a_datagram_larger_than_the_link_is_refused_not_fragmented() {
    if !crate::testns::inside(
        "udp::tests::a_datagram_larger_than_the_link_is_refused_not_fragmented",
        "ip link add v0 mtu 1400 type veth peer name v1 && ip link set v0 up && ip link set v1 up \
         && ip addr add 192.0.2.1/24 dev v0",
    ) {
        return;
    }
    let a = bind().await;
    let hop = Hop::anywhere("192.0.2.2:9".parse().unwrap());
    a.try_send(hop, &[IoSlice::new(&[0; 1372])], None, Ecn::NotEct).unwrap();
    let error = a.try_send(hop, &[IoSlice::new(&[0; 1373])], None, Ecn::NotEct).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMSGSIZE as i32));
}

#[tokio::test]
async fn with_two_default_routes_a_datagram_leaves_by_the_interface_of_its_source() {
    if !crate::testns::inside(
        "udp::tests::with_two_default_routes_a_datagram_leaves_by_the_interface_of_its_source",
        "for i in 0 1; do ip link add a$i type veth peer name b$i; ip link set a$i up; ip link set b$i up; \
           ip addr add 10.$i.0.2/24 dev a$i; ip neigh add 10.$i.0.1 lladdr 02:00:00:00:00:01 dev a$i; \
           ip route add default via 10.$i.0.1 dev a$i metric 10$i; done",
    ) {
        return;
    }
    let watch = network::watch().unwrap();
    let interfaces = Arc::clone(&watch.interfaces.borrow());
    let a = Udp::bind(0, Arc::clone(&interfaces)).await.unwrap();
    // Counted where they come out: at the other ends, by the kernel.
    let received = |name: &str| {
        let all = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = all.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    for (source, by, not_by) in [("10.0.0.2", "b0", "b1"), ("10.1.0.2", "b1", "b0")] {
        let before = (received(by), received(not_by));
        let hop =
            Hop { source: Some(source.parse().unwrap()), ..Hop::anywhere("203.0.113.9:9".parse().unwrap()) };
        for _ in 0..20 {
            a.try_send(hop, &[IoSlice::new(&[0; 1000])], None, Ecn::NotEct).unwrap();
        }
        assert!(received(by) - before.0 >= 20_000, "by {by}: {} bytes", received(by) - before.0);
        assert!(received(not_by) - before.1 < 10_000, "by {not_by}: {} bytes", received(not_by) - before.1);
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = bind().await.v4.unwrap();
    let Err(BindError::PortInUse { port }) = Udp::bind(taken.port, Interfaces::default()).await else {
        panic!("the port was taken twice")
    };
    assert_eq!(port, taken.port);
}

#[tokio::test]
async fn marks_of_congestion_arrive_in_both_families_where_they_are_asked_for() {
    let (a, b) = (bind().await, bind().await);
    let sent = [Ecn::Ect0, Ecn::NotEct, Ecn::Ce, Ecn::Ect1];
    for v6 in [false, true] {
        let socket = if v6 { &b.v6 } else { &b.v4 }.as_ref().unwrap();
        let source = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let hop = Hop { source: Some(source), ..Hop::anywhere(own(&b, v6)) };
        for asked in [false, true, false] {
            b.read_marks(asked);
            for (number, ecn) in (0..).zip(sent) {
                // One alone, and several with one call.
                a.try_send(hop, &[IoSlice::new(&[number; 10])], None, ecn).unwrap();
                a.try_send(hop, &[IoSlice::new(&[number; 25])], Some(10), ecn).unwrap();
            }
            let seen = |ecn| if asked { ecn } else { Ecn::NotEct };
            let expected: Vec<_> = (0..).zip(sent).flat_map(|(n, ecn)| [(n, seen(ecn)); 4]).collect();
            let got = receive_as(socket, 16, |chunk, datagram| (datagram[0], chunk.ecn)).await;
            assert_eq!(got, expected);
        }
    }
}
