//! An iroh endpoint and its relay, driven and read exactly as `bowline-bench device` is (see `bench/src/network/device.rs` for the lines);
//! flows as fast as they go are in [`flow`].
//!
//! `bench-iroh relay IP` is a relay with TLS and QUIC address discovery; `bench-iroh device OWN PEER URL...` a device that sends 50
//! datagrams a second. The lower of the two numbers dials once it is to send, and again when its connection ends; the other accepts, and the latest
//! connection counts. Both know the other's ID and all relays beforehand, which is what an address lookup would tell them. Everything else is
//! as iroh has it by default, apart from port mapping (nobody answers in the lab) and from trusting the lab's certificates.

mod flow;

use std::{net::Ipv4Addr, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::{
    Endpoint, EndpointAddr, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey,
    endpoint::{Connection, presets},
};
use iroh_relay::{
    RelayQuicConfig,
    server::{
        AllowAll, CertConfig, QuicConfig, RelayConfig as RelayServerConfig, Server, ServerConfig, TlsConfig,
        testing::self_signed_tls_certs_and_config,
    },
    tls::CaTlsConfig,
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, stdin},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

const ALPN: &[u8] = b"bench/1";
const INTERVAL: Duration = Duration::from_millis(20);
const LENGTH: usize = 160;
const HTTPS: u16 = 443;
const QUIC: u16 = 7842;
/// Between two attempts to dial.
const REDIAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    // As many workers as cores that it may use, as their own programs have; a device has two wherever it runs.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if std::env::args().nth(1).is_some_and(|word| word == "device") {
        runtime.worker_threads(2);
    }
    runtime.enable_all().build().expect("a runtime needs nothing special").block_on(start())
}

async fn start() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["relay", ip] => relay(ip.parse().expect("an address")).await,
        ["device", own, peer, ref urls @ ..] => {
            device(own.parse().expect("a number"), peer.parse().expect("a number"), urls).await
        }
        ["relay-plain"] => flow::relay().await,
        ["relayed", role, url, size, batch, window] => {
            let (size, batch) = (size.parse().expect("a size"), batch.parse().expect("a number"));
            return flow::relayed(role, url, size, batch, window.parse().expect("a number")).await;
        }
        ["datagrams", role, ip, size] => {
            flow::datagrams(role, ip.parse().expect("an address"), size.parse().expect("a size")).await;
        }
        ["stream", role, ip, size] => {
            flow::stream(role, ip.parse().expect("an address"), size.parse().expect("a size")).await;
        }
        ["pipe", role, ip] => return flow::pipe(role, ip.parse().expect("an address")).await,
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

async fn relay(ip: Ipv4Addr) {
    let (_, certificate) = self_signed_tls_certs_and_config();
    let mut relay = RelayServerConfig::new((ip, 80));
    relay.tls = Some(TlsConfig::new((ip, HTTPS), CertConfig::Manual { server_config: certificate }));
    relay.key_cache_capacity = Some(1024);
    relay.access = Arc::new(AllowAll);
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    config.quic = Some(QuicConfig::new((ip, QUIC)));
    let _server = Server::spawn(config).await.expect("the relay starts");
    println!("relay https://{ip}:{HTTPS}/");
    let _ = BufReader::new(stdin()).lines().next_line().await; // until the end
}

fn key(number: u64) -> SecretKey {
    let mut seed = [0x62; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(&seed)
}

fn clock() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}

async fn device(own: u64, peer: u64, urls: &[&str]) {
    let urls: Vec<RelayUrl> = urls.iter().map(|url| url.parse().expect("a URL")).collect();
    let map: RelayMap =
        urls.iter().map(|url| RelayConfig::new(url.clone(), Some(RelayQuicConfig::new(QUIC)))).collect();
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(key(own))
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Custom(map))
        .ca_tls_config(CaTlsConfig::insecure_skip_verify())
        .bind()
        .await
        .expect("an endpoint");
    let boot = std::process::id();
    println!("boot {} {boot}", clock());
    let online = endpoint.clone();
    tokio::spawn(async move {
        online.online().await;
        println!("online {}", clock());
    });
    let peer_id = key(peer).public();
    let address =
        urls.iter().fold(EndpointAddr::new(peer_id), |address, url| address.with_relay_url(url.clone()));

    let (connections, current) = watch::channel(None::<Connection>);
    let (messages, mut received) = mpsc::channel::<(u64, Bytes, char)>(1024);
    let mut dialing = None;
    if own < peer {
        dialing = Some(dial(endpoint.clone(), address, connections, messages));
    } else {
        tokio::spawn(accept(endpoint.clone(), connections, messages));
    }
    let mut orders = BufReader::new(stdin()).lines();
    let (mut number, mut sending) = (0_u64, false);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            order = orders.next_line() => match order {
                Ok(Some(order)) => {
                    sending = order == "go";
                    dialing.take().map(tokio::spawn);
                    ticks.reset_immediately();
                }
                _ => std::process::exit(0),
            },
            _ = ticks.tick(), if sending => {
                println!("s {} {number}", clock());
                let connection = current.borrow().clone();
                if let Some(connection) = connection {
                    let mut message = [b'm'; LENGTH];
                    message[..4].copy_from_slice(&boot.to_be_bytes());
                    message[4..12].copy_from_slice(&number.to_be_bytes());
                    let _ = connection.send_datagram(Bytes::copy_from_slice(&message));
                }
                number += 1;
            }
            Some((at, message, way)) = received.recv() => {
                if let (Some(boot), Some(number)) = (message.first_chunk(), message.get(4..12)) {
                    let (boot, number) = (u32::from_be_bytes(*boot), u64::from_be_bytes(number.try_into().expect("eight")));
                    println!("r {at} {boot} {number} {way}");
                }
            }
        }
    }
}

/// Dials, and again whenever the connection has ended.
async fn dial(
    endpoint: Endpoint,
    address: EndpointAddr,
    connections: watch::Sender<Option<Connection>>,
    messages: mpsc::Sender<(u64, Bytes, char)>,
) {
    loop {
        if let Ok(connection) = endpoint.connect(address.clone(), ALPN).await {
            connections.send_replace(Some(connection.clone()));
            read(connection, messages.clone()).await;
            println!("path {} ended", clock());
        }
        sleep(REDIAL).await;
    }
}

/// Takes every connection; the latest is the one to send on.
async fn accept(
    endpoint: Endpoint,
    connections: watch::Sender<Option<Connection>>,
    messages: mpsc::Sender<(u64, Bytes, char)>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let (connections, messages) = (connections.clone(), messages.clone());
        tokio::spawn(async move {
            if let Ok(accepting) = incoming.accept()
                && let Ok(connection) = accepting.await
            {
                connections.send_replace(Some(connection.clone()));
                read(connection, messages).await;
                println!("path {} ended", clock());
            }
        });
    }
}

async fn read(connection: Connection, messages: mpsc::Sender<(u64, Bytes, char)>) {
    let mut said = ' ';
    while let Ok(message) = connection.read_datagram().await {
        let way = connection
            .paths()
            .iter()
            .find(|path| path.is_selected())
            .map_or('-', |path| if path.is_ip() { 'd' } else { 'r' });
        if way != said {
            said = way;
            println!("path {} {way}", clock());
        }
        let _ = messages.send((clock(), message, way)).await;
    }
}
