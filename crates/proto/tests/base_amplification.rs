//! Nothing that comes over UDP draws more bytes over UDP than it has, whoever sends it and whatever it is.

mod base_world;

use base_world::{FIRST, Host, SECOND, World, addr, secs, send_data};
use bowline_proto::{
    base::{Forward, Verdict},
    wire::udp::{NAT_CONFIRM, NAT_INIT, NAT_OK, NAT_OK_LEN, NAT_UNKNOWN, NatConfirm, PADDED_LEN},
};

/// Sends a datagram and sums what it draws on UDP: answers, and the message itself where it is relayed there.
fn drawn(
    world: &mut World,
    via: bowline_proto::base::Via,
    from: std::net::SocketAddr,
    bytes: &[u8],
) -> usize {
    world.datagrams.clear();
    let forward = world.datagram(via, from, bytes);
    let relayed = if matches!(forward, Forward::Udp { .. }) { bytes.len() } else { 0 };
    relayed + world.datagrams.iter().map(|(_, _, payload)| payload.len()).sum::<usize>()
}

#[test]
fn no_datagram_draws_more_bytes_than_it_has() {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    host.own = (0..12).map(|n| addr(&format!("10.0.0.{n}:1"))).collect();
    world.join(&mut host);
    world.join(&mut peer);
    world.befriend(&host, &peer);

    let mut sent = 0;
    let mut answered = 0;
    for round in 0..200u32 {
        let own: Vec<Vec<u8>> = [0, NAT_OK_LEN, 500, PADDED_LEN, 1_400]
            .iter()
            .map(|&length| world.nat_init_bytes(&mut host, FIRST, length))
            .collect();
        let mut datagrams = own;
        datagrams.push(send_data(peer.id, 400));
        datagrams.push(send_data(peer.id, 1_200));
        datagrams.push(send_data(Host::new(9).id, 0));
        datagrams.push(NatConfirm { cookie: host.cookie, seq: 1, challenge: [0; 8] }.encode());
        for kind in [NAT_INIT, NAT_OK, NAT_CONFIRM, NAT_UNKNOWN, 0x20, 0x21, 0x22, 0x23, 0x00, 0xff] {
            datagrams.push(vec![kind; 1 + round as usize % 100]);
        }
        for datagram in &datagrams {
            // The host itself, and a stranger who moves through ports.
            let stranger = addr(&format!("203.0.113.66:{}", 1_000 + round));
            for (via, from) in [(FIRST, host.udp), (SECOND, host.udp), (FIRST, stranger)] {
                let drawn = drawn(&mut world, via, from, datagram);
                assert!(drawn <= datagram.len(), "type {:#x}: {} drew {drawn}", datagram[0], datagram.len());
                sent += datagram.len();
                answered += drawn;
            }
        }
        if round % 10 == 0 {
            world.advance(secs(1));
            world.info(&mut host);
            world.info(&mut peer);
        }
    }
    assert!(answered > 0 && answered < sent);
}

/// Every type byte there is, at the lengths that some message of ours has and those beside them, from an address that has proven nothing.
/// A worker judges it first, as in a real base: what it calls a stranger's is all the machine hears of it.
#[test]
fn before_an_address_is_proven_no_type_of_message_draws_more_bytes_than_were_sent() {
    let mut world = World::new();
    let (mut host, mut peer) = (Host::new(1), Host::new(2));
    world.join(&mut peer);
    world.register(&mut host);
    world.befriend(&host, &peer);
    let lengths = [1, 9, 15, 16, 26, 43, 44, 45, 81, 82, 83, 500, PADDED_LEN - 1, PADDED_LEN, 1_500];
    let routes = world.base.routes();
    let mut total = [[0; 2]; 256];
    for kind in 0..=255u8 {
        for (n, &length) in lengths.iter().enumerate() {
            let mut datagram = vec![kind; length];
            // Half of them under a cookie that is alive: whoever saw one may send such.
            if n % 2 == 0 && length > 8 {
                datagram[1..9].copy_from_slice(&host.cookie);
            }
            let stranger = addr(&format!("203.0.113.{kind}:{}", 1_000 + n));
            let drawn = match routes.reader().judge(FIRST, stranger, &mut datagram.clone(), world.now) {
                Verdict::Stranger => {
                    world.datagrams.clear();
                    world.base.handle_stranger(FIRST, stranger, world.now);
                    world.flush();
                    world.datagrams.iter().map(|(_, _, payload)| payload.len()).sum()
                }
                Verdict::Handshake | Verdict::Data => drawn(&mut world, FIRST, stranger, &datagram),
                Verdict::Refused | Verdict::Malformed => 0,
                other => panic!("{other:?} for a stranger"),
            };
            assert!(drawn <= length, "type {kind:#x}, {length} bytes: {drawn} drawn");
            total[usize::from(kind)][0] += length;
            total[usize::from(kind)][1] += drawn;
        }
    }
    // The host's own handshake, signed, with all that it may say, to the moment it is proven.
    host.own = (0..12).map(|n| addr(&format!("10.0.0.{n}:1"))).collect();
    for length in [0, NAT_OK_LEN, 500, PADDED_LEN, 1_400] {
        let init = world.nat_init_bytes(&mut host, FIRST, length);
        total[usize::from(NAT_INIT)][0] += init.len();
        total[usize::from(NAT_INIT)][1] += drawn(&mut world, FIRST, host.udp, &init);
    }
    for (kind, [sent, drawn]) in total.iter().enumerate() {
        assert!(drawn <= sent, "type {kind:#x}: {sent} bytes drew {drawn}");
    }
    let answered: Vec<usize> = (0..256).filter(|&kind| total[kind][1] > 0).collect();
    assert_eq!(answered, [0x20, 0x22, usize::from(NAT_INIT)], "nothing else is answered at all");
    let tcp = world.read(host.conn);
    assert!(tcp.is_empty(), "nor does any of it draw something over TCP: {tcp:?}");
}

#[test]
fn an_empty_datagram_draws_nothing() {
    let mut world = World::new();
    assert_eq!(drawn(&mut world, FIRST, addr("203.0.113.66:1"), &[]), 0);
}
