//! Flows as fast as they go, for `bench/run peers`: each end says "ready" once data can flow, and answers every line on its standard input with
//! how many datagrams it has handled (see `bench/src/peers/ends.rs`).
//!
//! `relayed` uses the relay's own client and nothing above it: so many datagrams in a message, 40 between two flushes. The receiver says
//! now and then what has come, by way of the relay, and the sender keeps a window; what is silent for long is taken for lost. `datagrams`
//! and `stream` (counted in pieces of that size) go over a QUIC connection, direct, without any relay. `pipe` is what dumbpipe does with an
//! endpoint: standard input and output, copied to and from one bidirectional stream; it is ready when it says so on standard error.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use iroh::{
    Endpoint, EndpointAddr, RelayMode, RelayUrl,
    dns::DnsResolver,
    endpoint::{Connection, presets},
};
use iroh_relay::{
    client::{Client, ClientBuilder},
    protos::relay::{ClientToRelayMsg, Datagrams, RelayToClientMsg},
    server::{AllowAll, RelayConfig, Server, ServerConfig},
    tls::{CaTlsConfig, default_provider},
};
use n0_future::{SinkExt as _, StreamExt as _};

use tokio::{sync::watch, time::timeout};

use crate::{ALPN, key};

const SENDER: u64 = 1;
const RECEIVER: u64 = 2;
/// The receiver's port where there is no relay.
const PORT: u16 = 7002;
const HTTP: u16 = 80;
/// Datagrams between two flushes, at least.
const FLUSH: usize = 40;
/// Datagrams between two words of the receiver's.
const REPORT: u64 = 64;
/// Longer than any queue here takes.
const LOST_AFTER: Duration = Duration::from_millis(20);
/// What is written to a stream at once.
const BLOCK: usize = 64 << 10;

/// A relay over plain HTTP, without address discovery; until its standard input ends.
pub async fn relay() {
    let mut relay = RelayConfig::new(([0; 4], HTTP));
    relay.key_cache_capacity = Some(1024);
    relay.access = Arc::new(AllowAll);
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    let _server = Server::spawn(config).await.expect("the relay starts");
    println!("ready");
    std::future::pending().await
}

/// Counts, and answers whoever asks, in units of so much.
fn counter(unit: u64) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for _line in std::io::stdin().lines().map_while(Result::ok) {
            println!("{}", counted.load(Ordering::Relaxed) / unit);
        }
        std::process::exit(0);
    });
    count
}

async fn client(own: u64, url: &str) -> Client {
    let url: RelayUrl = url.parse().expect("a URL");
    let tls = CaTlsConfig::insecure_skip_verify().client_config(default_provider()).expect("a configuration");
    let builder = ClientBuilder::new(url, key(own), DnsResolver::new()).tls_client_config(tls);
    builder.connect().await.expect("the relay is there")
}

pub async fn relayed(role: &str, url: &str, size: usize, batch: usize, window: u64) -> ExitCode {
    let count = counter(1);
    let sends = role == "sender";
    let client = client(if sends { SENDER } else { RECEIVER }, url).await;
    println!("ready");
    if sends {
        relayed_send(client, size, batch, window, &count).await
    } else {
        relayed_receive(client, size, &count).await
    }
}

async fn relayed_receive(client: Client, size: usize, count: &AtomicU64) -> ExitCode {
    let (mut from, mut to) = client.split();
    let mut told = 0;
    while let Some(Ok(message)) = from.next().await {
        let answer = match message {
            RelayToClientMsg::Datagrams { datagrams, .. } => {
                let come = datagrams.contents.len().div_ceil(size) as u64;
                let now = count.fetch_add(come, Ordering::Relaxed) + come;
                if now < told + REPORT {
                    continue;
                }
                told = now;
                let datagrams = Datagrams::from(now.to_be_bytes());
                ClientToRelayMsg::Datagrams { dst_endpoint_id: key(SENDER).public(), datagrams }
            }
            RelayToClientMsg::Ping(payload) => ClientToRelayMsg::Pong(payload),
            _ => continue,
        };
        if to.send(answer).await.is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

async fn relayed_send(client: Client, size: usize, batch: usize, window: u64, count: &AtomicU64) -> ExitCode {
    let (mut from, mut to) = client.split();
    let (come, mut reports) = watch::channel(0_u64);
    tokio::spawn(async move {
        while let Some(Ok(message)) = from.next().await {
            if let RelayToClientMsg::Datagrams { datagrams, .. } = message
                && let Ok(report) = datagrams.contents[..].try_into()
            {
                come.send_replace(u64::from_be_bytes(report));
            }
        }
    });
    let segment = u16::try_from(size).ok().and_then(NonZeroU16::new).filter(|_| batch > 1);
    let contents = Bytes::from(vec![0x5a; size * batch]);
    let datagrams = Datagrams { ecn: None, segment_size: segment, contents };
    let message = ClientToRelayMsg::Datagrams { dst_endpoint_id: key(RECEIVER).public(), datagrams };
    let (mut sent, mut lost) = (0_u64, 0_u64);
    loop {
        let under_way = sent.saturating_sub(lost + *reports.borrow_and_update());
        if under_way > window {
            if timeout(LOST_AFTER, reports.changed()).await.is_err() {
                lost += under_way;
            }
            continue;
        }
        for _ in 0..FLUSH.div_ceil(batch) {
            if to.feed(message.clone()).await.is_err() {
                return ExitCode::FAILURE;
            }
            sent += batch as u64;
        }
        if to.flush().await.is_err() {
            return ExitCode::FAILURE;
        }
        count.store(sent, Ordering::Relaxed);
    }
}

/// A direct connection: the sender's end, or the receiver's, with the endpoint that keeps it alive.
async fn connection(sends: bool, receiver: IpAddr, ready: fn()) -> (Endpoint, Connection) {
    let builder = Endpoint::builder(presets::Minimal)
        .secret_key(key(if sends { SENDER } else { RECEIVER }))
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Disabled);
    let port = if sends { 0 } else { PORT };
    let builder = builder.bind_addr(SocketAddr::from(([0; 4], port))).expect("an address");
    let endpoint = builder.bind().await.expect("an endpoint");
    let connection = if sends {
        let address = EndpointAddr::new(key(RECEIVER).public()).with_ip_addr((receiver, PORT).into());
        endpoint.connect(address, ALPN).await.expect("the receiver is there")
    } else {
        ready();
        let incoming = endpoint.accept().await.expect("the sender dials");
        incoming.accept().expect("it goes on").await.expect("it comes")
    };
    (endpoint, connection)
}

pub async fn datagrams(role: &str, receiver: IpAddr, size: usize) {
    let count = counter(1);
    let sends = role == "sender";
    let (_endpoint, connection) = connection(sends, receiver, || println!("ready")).await;
    if !sends {
        while connection.read_datagram().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        return;
    }
    // The size that the path carries is found while smaller packets flow.
    while connection.max_datagram_size().is_none_or(|most| most < size) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("ready");
    let message = Bytes::from(vec![0x5a; size]);
    while connection.send_datagram_wait(message.clone()).await.is_ok() {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

pub async fn stream(role: &str, receiver: IpAddr, size: usize) {
    let count = counter(size as u64);
    let sends = role == "sender";
    let (_endpoint, connection) = connection(sends, receiver, || println!("ready")).await;
    if !sends {
        let mut stream = connection.accept_uni().await.expect("the sender opens one");
        while let Ok(Some(chunk)) = stream.read_chunk(BLOCK).await {
            count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        return;
    }
    let mut stream = connection.open_uni().await.expect("the receiver takes streams");
    let block = Bytes::from(vec![0x5a; BLOCK]);
    println!("ready");
    while stream.write_chunk(block.clone()).await.is_ok() {
        count.fetch_add(BLOCK as u64, Ordering::Relaxed);
    }
}

pub async fn pipe(role: &str, receiver: IpAddr) -> ExitCode {
    let sends = role == "sender";
    let (endpoint, connection) = connection(sends, receiver, || eprintln!("ready")).await;
    // The accepting end learns of a stream with its first bytes.
    let mut hello = *b"hello";
    let opened = if sends { connection.open_bi().await } else { connection.accept_bi().await };
    let (mut send, mut receive) = opened.expect("a stream");
    if sends {
        send.write_all(&hello).await.expect("the receiver is there");
    } else {
        receive.read_exact(&mut hello).await.expect("the sender is there");
    }
    let out = async {
        let copied = tokio::io::copy(&mut tokio::io::stdin(), &mut send).await;
        let _ = send.finish();
        copied
    };
    let (mut output, mut receive) = (tokio::io::stdout(), receive);
    let copied = tokio::try_join!(out, tokio::io::copy(&mut receive, &mut output));
    endpoint.close().await;
    if copied.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
