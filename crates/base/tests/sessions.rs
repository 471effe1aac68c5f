//! Connections that end: shutdown, silence, nonsense, hosts that do not read.

mod client;

use std::time::Duration;

use bowline_base::{Config, Shutdown, config::Limits};
use bowline_proto::wire::tcp::{BaseFrame, ErrorCode, UnreachableReason, write_request_info};
use client::{Client, Running, on_loopback};
use tokio::{io::AsyncWriteExt, time::timeout};

#[tokio::test]
async fn a_base_that_shuts_down_says_goaway_then_error_7_and_ends() {
    let mut base = Running::start(on_loopback()).await;
    let mut host = Client::register(&base, 1).await;
    base.stop(Shutdown::Drain(1));
    assert_eq!(host.read().await.decode(), BaseFrame::GoAway(1));
    let mut late = Client::connect(&base, 2).await;
    let mut get_cookie = Vec::new();
    bowline_proto::wire::tcp::GetCookie { highest_version: 1, capabilities: 0 }.write(&mut get_cookie);
    late.write(&get_cookie).await;
    assert_eq!(late.read_error_code().await, ErrorCode::Draining);
    assert_eq!(host.read_error_code().await, ErrorCode::Draining);
    drop((host, late));
    base.ended().await;
}

#[tokio::test]
async fn a_base_whose_hosts_have_left_does_not_wait_for_the_time_to_pass() {
    let mut base = Running::start(on_loopback()).await;
    let mut host = Client::register(&base, 1).await;
    base.stop(Shutdown::Drain(3_600));
    assert_eq!(host.read().await.decode(), BaseFrame::GoAway(3_595));
    drop(host);
    base.ended().await;
}

#[tokio::test]
async fn a_base_with_nobody_on_it_stops_at_once() {
    let mut base = Running::start(on_loopback()).await;
    base.stop(Shutdown::Drain(3_600));
    base.ended().await;
}

#[tokio::test]
async fn a_connection_that_stays_silent_is_ended_with_error_10() {
    let limits = Limits { setup_timeout: Duration::from_millis(50), ..Limits::default() };
    let base = Running::start(Config { limits, ..on_loopback() }).await;
    let mut silent = Client::connect(&base, 1).await;
    assert_eq!(silent.read_error_code().await, ErrorCode::Silent);
    let mut half = Client::connect(&base, 1).await;
    half.get_cookie().await;
    assert_eq!(half.read_error_code().await, ErrorCode::Silent);
}

#[tokio::test]
async fn nonsense_is_answered_with_error_1_and_the_base_goes_on() {
    let base = Running::start(on_loopback()).await;
    let mut good = Client::register(&base, 1).await;
    for nonsense in [&b"GET / HTTP/1.1\r\nHost: base\r\n\r\n"[..], &[0, 0], &[0xff; 40_000], &[0, 1, 0x77]] {
        let mut bad = Client::connect(&base, 2).await;
        // The base may have closed before all of it was written.
        let _ = bad.tcp.write_all(nonsense).await;
        assert_eq!(bad.read_error_code().await, ErrorCode::Malformed);
    }
    for nonsense in [&[][..], &[0x20], &[0x30; 81], &[0x31; 44], &[0x32; 44], &[0xff; 60_000]] {
        good.udp.send_to(nonsense, base.address).await.unwrap();
    }
    good.ping().await;
    good.confirm_udp().await;
}

/// A base with small queues: what the system buffers is more than enough to have to wait for.
fn small_queues() -> Config {
    let limits = Limits { data_queue_bytes: 32 << 10, control_queue_bytes: 32 << 10, ..Limits::default() };
    Config { limits, ..on_loopback() }
}

#[tokio::test]
async fn a_slow_reader_loses_data_and_stops_nobody_else() {
    let base = Running::start(small_queues()).await;
    let mut sender = Client::register(&base, 1).await;
    let slow = Client::register(&base, 2).await;
    let mut quick = Client::register(&base, 3).await;
    // Far more than all queues and socket buffers on the way hold: without a bound, the sender would be stopped.
    let data = vec![0; 16_000];
    for _ in 0..4_000 {
        sender.send_tcp(slow.id, &data).await;
    }
    sender.send_tcp(quick.id, b"still here").await;
    assert_eq!(quick.recv_tcp().await, (sender.id, b"still here".to_vec()));
    sender.ping().await;
}

#[tokio::test]
async fn those_who_do_not_read_are_cut_off_when_their_queues_take_what_others_need() {
    let mut config = on_loopback();
    config.limits.queues_bytes = 1 << 20;
    let base = Running::start(config).await;
    let mut sender = Client::register(&base, 1).await;
    let mut hogs = Vec::new();
    for n in 2..10 {
        hogs.push(Client::register(&base, n).await);
    }
    let mut honest = Client::register(&base, 20).await;
    let data = vec![0; 16_000];
    // What the system holds for each is full, and then all queues together.
    for _ in 0..600 {
        for hog in &hogs {
            sender.send_tcp(hog.id, &data).await;
        }
    }
    sender.ping().await;
    let mut arrived = false;
    client::until(async || {
        sender.send_tcp(honest.id, b"hello").await;
        let came = timeout(Duration::from_millis(50), honest.recv_tcp()).await;
        arrived |= came.is_ok();
        arrived
    })
    .await;
}

#[tokio::test]
async fn the_sender_hears_of_a_full_queue_if_the_slow_device_wants_it() {
    let base = Running::start(small_queues()).await;
    let mut sender = Client::register(&base, 1).await;
    let mut slow = Client::register(&base, 2).await;
    let mut wants = Vec::new();
    write_request_info(&mut wants, sender.id);
    slow.write(&wants).await;
    slow.ping().await;
    assert_eq!(sender.read().await.decode(), BaseFrame::Wanted(slow.id));
    let data = vec![0; 16_000];
    for _ in 0..4_000 {
        sender.send_tcp(slow.id, &data).await;
    }
    let full = BaseFrame::Unreachable(slow.id, UnreachableReason::QueueFull);
    assert_eq!(sender.read().await.decode(), full);
}

#[tokio::test]
async fn a_host_that_never_reads_its_control_messages_is_cut_off() {
    let mut config = small_queues();
    // As many frames as it likes, or there would be no answers to not read.
    (config.limits.frames_per_second, config.limits.frames_burst) = (1_000_000, 1_000_000);
    let base = Running::start(config).await;
    let mut deaf = Client::register(&base, 1).await;
    let mut info = Vec::new();
    bowline_proto::wire::tcp::Info { number: 1, master_key: [0; 16], own: vec![] }.write(&mut info);
    let infos = info.repeat(1_000);
    // Each draws a PONG that nobody reads: first the system's buffers fill, then the queue, then it is over.
    client::until(async || deaf.tcp.write_all(&infos).await.is_err()).await;
    let mut other = Client::register(&base, 2).await;
    other.ping().await;
}
