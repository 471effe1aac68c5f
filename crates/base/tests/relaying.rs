//! Messages through a base on real sockets, over every pair of transports, in both address families.

mod client;

use bowline_base::Config;
use bowline_proto::wire::{
    frame,
    tcp::{self, BaseFrame},
};
use client::{Client, Running, on_loopback, send_data};

#[tokio::test]
async fn tcp_to_tcp_carries_every_size_up_to_16000_bytes_whole() {
    let base = Running::start(on_loopback()).await;
    let mut a = Client::register(&base, 1).await;
    let mut b = Client::register(&base, 2).await;
    for length in [0, 1, 500, 1_200, 16_000] {
        let data: Vec<u8> = (0..length).map(|i| i as u8).collect();
        a.send_tcp(b.id, &data).await;
        assert_eq!(b.recv_tcp().await, (a.id, data));
    }
}

#[tokio::test]
async fn udp_to_udp_leaves_from_the_port_that_was_confirmed() {
    let base = Running::start(on_loopback()).await;
    let mut a = Client::register(&base, 1).await;
    let mut b = Client::register(&base, 2).await;
    a.confirm_udp().await;
    b.confirm_udp().await;
    for length in [0, 1, 500, 1_200] {
        a.send_udp(b.id, &vec![7; length]).await;
        assert_eq!(b.recv_udp().await, (a.id, vec![7; length]));
    }
}

#[tokio::test]
async fn each_leg_has_its_own_transport() {
    let base = Running::start(on_loopback()).await;
    let mut a = Client::register(&base, 1).await;
    let mut b = Client::register(&base, 2).await;
    a.confirm_udp().await;
    a.send_udp(b.id, b"up over UDP, down over TCP").await;
    assert_eq!(b.recv_tcp().await, (a.id, b"up over UDP, down over TCP".to_vec()));
    b.send_tcp(a.id, b"and back").await;
    assert_eq!(a.recv_udp().await, (b.id, b"and back".to_vec()));
}

#[tokio::test]
async fn the_second_udp_port_answers_too() {
    let base = Running::start(on_loopback()).await;
    let mut a = Client::register(&base, 1).await;
    let list = a.registered.clone().unwrap().udp;
    assert_eq!(list.len(), 2);
    assert_eq!(list[0].port(), base.address.port());
    assert!(list.iter().all(|address| address.ip().is_unspecified()));
    a.nat_init(0).await;
    a.nat_init(1).await;
}

#[tokio::test]
async fn it_works_over_ipv6() {
    let listen = vec!["[::1]:0".parse().unwrap()];
    let base = Running::start(Config { listen, ..Config::default() }).await;
    let mut a = Client::register(&base, 1).await;
    let mut b = Client::register(&base, 2).await;
    b.confirm_udp().await;
    a.send_tcp(b.id, b"six").await;
    assert_eq!(b.recv_udp().await, (a.id, b"six".to_vec()));
}

#[tokio::test]
async fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let listen = vec!["0.0.0.0:0".parse().unwrap()];
    let mut base = Running::start(Config { listen, ..Config::default() }).await;
    // Not the address that the system would choose as its source.
    base.address = std::net::SocketAddr::from(([127, 0, 0, 42], base.address.port()));
    let mut a = Client::register(&base, 1).await;
    a.confirm_udp().await;
}

#[tokio::test]
async fn a_burst_arrives_whole_and_in_order() {
    // As many as any system's socket buffers hold.
    const BURST: u16 = 60;
    let base = Running::start(on_loopback()).await;
    let mut a = Client::register(&base, 1).await;
    let mut b = Client::register(&base, 2).await;
    let mut c = Client::register(&base, 3).await;
    for host in [&mut a, &mut b, &mut c] {
        host.confirm_udp().await;
    }
    // Two flows that alternate, of sizes that change: what is merged on the way must come apart again.
    for n in 0..BURST {
        let mut data = n.to_be_bytes().to_vec();
        data.resize(2 + usize::from(n % 5) * 100, n as u8);
        a.send_udp(b.id, &data).await;
        a.send_udp(c.id, &data).await;
    }
    for host in [&mut b, &mut c] {
        for n in 0..BURST {
            let (from, data) = host.recv_udp().await;
            assert_eq!(from, a.id);
            assert_eq!(data[..2], n.to_be_bytes());
            assert_eq!(data.len(), 2 + usize::from(n % 5) * 100);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_tcp_nothing_overtakes_whether_the_owner_of_the_machine_deals_with_it_or_not() {
    const MESSAGES: u32 = 4_000;
    // A queue takes all of it, however slow a receiver is.
    let mut config = on_loopback();
    config.limits.data_queue_bytes = 16 << 20;
    let base = Running::start(config).await;
    let mut a = Client::register(&base, 1).await;
    let receivers = [Client::register(&base, 2).await, Client::register(&base, 3).await];
    let ids = receivers.each_ref().map(|host| host.id);
    let mut stream = Vec::new();
    for n in 0..MESSAGES {
        let mut data = n.to_be_bytes().to_vec();
        data.resize(4 + [0, 30, 700][n as usize % 3], n as u8);
        for (place, id) in ids.iter().enumerate() {
            // Flows alternate, and come in runs of their own.
            if (n / 50) % 3 != place as u32 {
                frame::write(&mut stream, |out| out.extend_from_slice(&send_data(*id, &data)));
            }
        }
        if n % 97 == 0 {
            // A type that nobody knows, and a wish: the owner's, both.
            frame::write(&mut stream, |out| out.extend_from_slice(&[0x7e, 1, 2]));
            tcp::write_request_info(&mut stream, ids[0]);
        }
    }
    let readers = receivers.map(|mut host| {
        let (sender, place) = (a.id, u32::from(host.id != ids[0]));
        tokio::spawn(async move {
            for n in (0..MESSAGES).filter(|n| (n / 50) % 3 != place) {
                let (from, data) = loop {
                    match host.read().await.decode() {
                        BaseFrame::RecvData(from, data) => break (from, data.to_vec()),
                        BaseFrame::Wanted(_) => {}
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!((from, data[..4].to_vec()), (sender, n.to_be_bytes().to_vec()));
                assert_eq!(data.len(), 4 + [0, 30, 700][n as usize % 3]);
            }
        })
    });
    // Cut at places of no meaning, so that frames come in parts.
    for part in stream.chunks(4_999) {
        a.write(part).await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn messages_leave_a_wildcard_socket_from_the_address_that_was_confirmed() {
    for (listen, ip) in [("0.0.0.0:0", "127.0.0.42"), ("[::]:0", "::1")] {
        let listen = vec![listen.parse().unwrap()];
        let mut base = Running::start(Config { listen, ..Config::default() }).await;
        base.address.set_ip(ip.parse().unwrap());
        let mut a = Client::register(&base, 1).await;
        let mut b = Client::register(&base, 2).await;
        a.confirm_udp().await;
        b.confirm_udp().await;
        a.send_udp(b.id, b"one way").await;
        assert_eq!(b.recv_udp().await, (a.id, b"one way".to_vec()));
        b.send_udp(a.id, b"and the other").await;
        assert_eq!(a.recv_udp().await, (b.id, b"and the other".to_vec()));
    }
}

#[tokio::test]
async fn whichever_worker_gets_a_message_it_goes_where_it_should() {
    // Senders are spread by their ports: with so many, no worker is left out but by a rare chance.
    const HOSTS: u8 = 24;
    let workers = std::num::NonZeroUsize::new(3);
    let base = Running::start(Config { workers, ..on_loopback() }).await;
    let mut hosts = Vec::new();
    for n in 1..=HOSTS {
        let mut host = Client::register(&base, n).await;
        host.confirm_udp().await;
        hosts.push(host);
    }
    let ids: Vec<_> = hosts.iter().map(|host| host.id).collect();
    for (n, host) in hosts.iter_mut().enumerate() {
        host.send_udp(ids[(n + 1) % ids.len()], &[n as u8]).await;
    }
    for (n, host) in hosts.iter_mut().enumerate() {
        let before = (n + ids.len() - 1) % ids.len();
        assert_eq!(host.recv_udp().await, (ids[before], vec![before as u8]));
    }
}
