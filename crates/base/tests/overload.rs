//! More than a base can take: ten times as many registrations as it verifies, and malformed messages as fast as they can be sent. Those
//! who are here notice nothing.

mod client;

use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::{
    io::IoSlice,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bowline_base::{Config, config::Limits};
use bowline_proto::wire::{
    frame::LENGTH_LEN,
    tcp::{BaseFrame, ErrorCode},
};
use client::{Client, Running, SOON, on_loopback, until};
#[cfg(target_os = "linux")]
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};

/// Registrations verified in a second, and ten times as many.
const VERIFIED: u32 = 60;
const STORM: u32 = 10 * VERIFIED;

/// A frame of a type that nobody knows, with nothing in it.
const SMALLEST: [u8; 3] = [0, 1, 0x7e];

/// Nobody is told apart by where he comes from: all are on the loopback.
fn open_to_one_source() -> Limits {
    Limits {
        unfinished_per_source: 10_000,
        registrations_per_second: 100_000,
        registrations_burst: 100_000,
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_of_registrations_everybody_gets_an_answer_and_those_here_lose_nothing() {
    let limits = Limits { verifications_per_second: VERIFIED, ..open_to_one_source() };
    let base = Arc::new(Running::start(Config { limits, ..on_loopback() }).await);
    let (mut a, mut b) = (Client::register(&base, 1).await, Client::register(&base, 2).await);
    let mut storm = JoinSet::new();
    for n in 0..STORM {
        let base = Arc::clone(&base);
        storm.spawn(async move {
            let seed = [&n.to_be_bytes()[..], &[0x57; 28]].concat();
            let mut client = Client::connect_with(&base, seed.try_into().unwrap()).await;
            client.send_register().await;
            match client.read().await.decode() {
                BaseFrame::Registered(_) => None,
                BaseFrame::Error(error) => Some((error.code, error.retry_after)),
                other => panic!("{other:?}"),
            }
        });
    }
    for n in 0..200u8 {
        a.send_tcp(b.id, &[n]).await;
        assert_eq!(b.recv_tcp().await, (a.id, vec![n]));
        a.ping().await;
    }
    let answers = timeout(SOON, storm.join_all()).await.expect("nobody is left without an answer");
    let refused: Vec<_> = answers.into_iter().flatten().collect();
    assert!(refused.iter().all(|&answer| answer == (ErrorCode::Busy, 10)), "{refused:?}");
    let taken = STORM as usize - refused.len();
    assert!(taken >= VERIFIED as usize / 2 && !refused.is_empty(), "{taken} taken");
    let counters = base.handle.inspect(0).await.unwrap().counters;
    assert_eq!(counters.register_over_rate as usize, refused.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_refused_and_are_held_open_keep_nobody_out() {
    let limits = Limits { devices: 1, unfinished: 1, ..open_to_one_source() };
    let base = Running::start(Config { limits, ..on_loopback() }).await;
    // Each ends the one before it, and none of them closes its side: more than a base with these limits has connections.
    let mut refused = Vec::new();
    for _ in 0..1_500 {
        refused.push(TcpStream::connect(base.address).await.unwrap());
    }
    Client::register(&base, 1).await.ping().await;
    // Each was told why, whenever it looks.
    for stream in &mut refused {
        let mut told = Vec::new();
        timeout(SOON, stream.read_to_end(&mut told)).await.expect("the base has closed its side").unwrap();
        let BaseFrame::Error(error) = BaseFrame::decode(&told[LENGTH_LEN..]).unwrap() else {
            panic!("no ERROR")
        };
        assert_eq!(error.code, ErrorCode::Busy);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_the_smallest_frames_fills_no_queue_that_others_wait_in() {
    let base = Running::start(on_loopback()).await;
    let mut other = Client::register(&base, 1).await;
    let mut flooding = Client::register(&base, 2).await;
    let flood = tokio::spawn(async move {
        let frames = SMALLEST.repeat(100_000);
        while flooding.tcp.write_all(&frames).await.is_ok() {}
    });
    let now = async || base.handle.inspect(0).await.unwrap();
    until(async || now().await.counters.frames_over_rate > 0).await;
    for n in 0..200 {
        let waits = now().await.queues.frames;
        assert!(waits < 16, "{waits} reads of one connection wait at look {n}");
        other.ping().await;
    }
    flood.abort();
}

#[tokio::test]
async fn of_the_smallest_frames_none_is_lost_however_many_come_at_once() {
    let limits = Limits { frames_per_second: 1_000_000, frames_burst: 1_000_000, ..Limits::default() };
    let base = Running::start(Config { limits, ..on_loopback() }).await;
    let mut client = Client::register(&base, 1).await;
    // The first INFO has news, so it is dealt with where the others are, and after them.
    client.write(&SMALLEST.repeat(50_000)).await;
    client.ping().await;
    assert_eq!(base.handle.inspect(0).await.unwrap().counters.unknown_frames, 50_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_as_fast_as_they_can_be_sent_cost_those_here_nothing() {
    let base = Running::start(Config { limits: open_to_one_source(), ..on_loopback() }).await;
    let (mut a, mut b) = (Client::register(&base, 1).await, Client::register(&base, 2).await);
    let address = base.address;
    let flood = tokio::spawn(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for n in 0..100_000u32 {
            let bytes = [n as u8, 0xff, 0xff];
            // The system may have no room for one; the next has.
            let _ = socket.try_send_to(&bytes[..(n % 4) as usize], address);
            if n % 1_000 == 0 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let _ = stream.write_all(&[0, 0]).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut exchanged = 0;
    while !flood.is_finished() || exchanged < 100 {
        a.send_tcp(b.id, b"still here").await;
        assert_eq!(b.recv_tcp().await, (a.id, b"still here".to_vec()));
        a.ping().await;
        exchanged += 1;
    }
    flood.await.unwrap();
    until(async || {
        let counters = base.handle.inspect(0).await.unwrap().counters;
        counters.malformed_frames == 100 && counters.malformed_datagrams > 1_000
    })
    .await;
}

/// Datagrams that the system dropped in the sockets of a port: the last column of proc_net_udp(5).
#[cfg(target_os = "linux")]
fn lost_at(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/self/net/udp").unwrap();
    let of_port = format!(":{port:04X}");
    let lines =
        table.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&of_port)));
    lines.filter_map(|line| line.split_whitespace().next_back()?.parse::<u64>().ok()).sum()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_a_base_over_udp_takes_nothing_from_those_whose_messages_wait_in_the_same_queues() {
    const FLOODS: usize = 8;
    const OTHERS: u8 = 32;
    const MESSAGES: u8 = 5;
    // Sixteen queues: of so many others, several share one with a flood.
    let config = Config { workers: std::num::NonZero::new(1), limits: open_to_one_source(), ..on_loopback() };
    let base = Running::start(config).await;
    let mut sink = Client::register(&base, 200).await;
    sink.confirm_udp().await;
    let mut others = Vec::new();
    for n in 0..OTHERS {
        let mut other = Client::register(&base, n).await;
        other.confirm_udp().await;
        others.push(other);
    }
    let flooding = Arc::new(AtomicBool::new(true));
    // So many at once that the worker gets too little of the machine's time to take it all, too.
    let floods: Vec<_> = (0..FLOODS)
        .map(|_| {
            let (to, flooding) = (SockaddrStorage::from(base.address), Arc::clone(&flooding));
            std::thread::spawn(move || {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                // As many as one call takes.
                let (bytes, control) =
                    ([IoSlice::new(&[0xff; 64 * 3])], [ControlMessage::UdpGsoSegments(&3)]);
                while flooding.load(Relaxed) {
                    // The system may have no room for these; it has for the next.
                    let _ = sendmsg(socket.as_raw_fd(), &bytes, &control, MsgFlags::empty(), Some(&to));
                }
            })
        })
        .collect();
    until(async || lost_at(base.address.port()) > 10_000).await;
    // It takes a moment until it is known who floods. From then on all arrives, though the floods go on.
    let mut round = 0;
    until(async || {
        round += 1;
        for n in 0..MESSAGES {
            for (number, other) in others.iter_mut().enumerate() {
                other.send_udp(sink.id, &[round, number as u8, n]).await;
            }
            tokio::task::yield_now().await;
        }
        let mut came = std::collections::HashSet::new();
        while came.len() < usize::from(OTHERS * MESSAGES)
            && let Ok((_, message)) = timeout(Duration::from_millis(500), sink.recv_udp()).await
        {
            came.extend((message[0] == round).then_some(message));
        }
        came.len() == usize::from(OTHERS * MESSAGES)
    })
    .await;
    let before = lost_at(base.address.port());
    until(async || lost_at(base.address.port()) > before + 10_000).await;
    flooding.store(false, Relaxed);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
}
