//! `stream`: one encrypted stream from a device to another, direct and through the relay.
//!
//! Direct: two machines on one veth, a process on each, each on a core of its own. The reference is quinn alone on the same cable: its own
//! socket, its defaults but for the windows, which are ours; a certificate in the place of the device's key. iroh: its endpoints on the
//! same cable with its defaults, each told the other's address, no relay. Through the relay: a base between two machines; without a
//! reference.
//!
//! The receiver counts the bytes that came out of the stream. What goes through pipes is counted by the system ([`crate::pipe`]).

use std::{
    io::{self, BufRead as _},
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bowline::{Allow, Endpoint, SecretKey};
use bowline_lab::{Node, Process};
use bowline_quic::{
    Listen,
    quinn::{self, Connection, TransportConfig, VarInt},
};
use data_encoding::HEXLOWER;

use crate::{
    cpu,
    direct::{Cable, key_of},
    host::BaseProcess,
    netns::{Links, Net, Side},
    peers::{iroh, load},
    pipe,
    report::{Goal, Options, Report},
    say,
};

const PATIENCE: Duration = Duration::from_secs(20);
const SENDER: &str = "10.9.0.1:7001";
const RECEIVER: &str = "10.9.0.2:7002";
const SERVICE: &str = "bench/1";
/// As `bowline-quic` has them.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// What is written at once.
const BLOCK: usize = 64 << 10;
/// Slow start and the search for the packet size are over by then.
const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Options, report: &mut Report) {
    let (turn, rounds) =
        if options.quick { (Duration::from_secs(1), 2) } else { (Duration::from_secs(4), 5) };
    {
        let cable = Cable::new(options);
        for links in Links::ALL {
            cable.set(links);
            direct(&cable, links.name(), rounds, turn, report);
        }
        cable.set(Links::Single);
        pipe::run(&cable, rounds, WARM_UP, turn, report);
    }
    let net = Net::new(options);
    let base = BaseProcess::start(&net.middle, "");
    let bases = [Side::Left, Side::Right].map(|side| format!("{}@{}", base.id, Net::base(side)));
    let rates: Vec<_> =
        (0..rounds).map(|_| measure(&net.left, &net.right, "relay", Some(&bases), turn).rate).collect();
    report.figures("through the relay, UDP", "Gbit/s", &rates, Goal::None);
}

/// Beside quinn alone, and beside iroh, in the same rounds.
fn direct(cable: &Cable, links: &str, rounds: usize, turn: Duration, report: &mut Report) {
    let one = |how: &'static str| measure(&cable.sender, &cable.receiver, how, None, turn);
    let theirs = || iroh::direct(cable, "stream", 1, WARM_UP, turn).map(Turn::of_bytes);
    let rounds: Vec<_> = (0..rounds).map(|_| (one("bowline"), one("quinn"), theirs())).collect();
    let quinn: Vec<_> = rounds.iter().map(|(ours, quinn, _)| (ours, quinn)).collect();
    rows(&format!("direct, {links}"), "quinn alone", &quinn, Goal::AtLeast(0.90), report);
    let case = format!("direct, {links}, beside iroh");
    match rounds.iter().map(|(ours, _, iroh)| Ok((ours, iroh.as_ref()?))).collect::<Result<Vec<_>, &String>>()
    {
        Ok(pairs) => {
            let version = iroh::version("iroh").unwrap_or_default();
            rows(&case, &version, &pairs, Goal::AtLeast(1.0), report);
        }
        Err(why) => report.missing(&case, "Gbit/s", Goal::AtLeast(1.0), why),
    }
}

/// What goes across in a second, and what it costs.
pub(crate) fn rows(case: &str, reference: &str, pairs: &[(&Turn, &Turn)], goal: Goal, report: &mut Report) {
    let rates: Vec<_> = pairs.iter().map(|(a, b)| (a.rate, b.rate)).collect();
    report.pairs(case, &format!("Gbit/s (reference: {reference})"), &rates, goal);
    let costs: Vec<_> = pairs.iter().map(|(a, b)| (1.0 / a.cost, 1.0 / b.cost)).collect();
    report.pairs(&format!("{case}: cost"), "Gbit per CPU-s, both ends", &costs, Goal::None);
}

pub(crate) struct Turn {
    /// Gigabits a second.
    pub(crate) rate: f64,
    /// CPU seconds of both ends for a gigabit.
    pub(crate) cost: f64,
}

impl Turn {
    /// One in which each unit was a byte.
    fn of_bytes(turn: load::Turn) -> Self {
        Self { rate: turn.rate * 8.0 / 1e9, cost: turn.cost * 1e3 / 8.0 }
    }
}

fn measure(from: &Node, to: &Node, how: &str, bases: Option<&[String; 2]>, turn: Duration) -> Turn {
    let program = std::env::current_exe().expect("a program knows its own file");
    let base = |side: usize| bases.map_or("-", |bases| &bases[side]);
    let receiver = to.spawn(&program, &["stream", "receiver", how, base(1)]);
    let certificate = receiver.wait("line that says it is ready", PATIENCE, 0, |line| {
        line.text.strip_prefix("ready ").map(str::to_owned)
    });
    let sender = from.spawn(&program, &["stream", "sender", how, base(0), &certificate]);
    sender.wait("connection", PATIENCE, 0, |line| (line.text == "connected").then_some(()));
    let mut ends = [sender, receiver];
    thread::sleep(WARM_UP);
    let before = mark(&mut ends);
    thread::sleep(turn);
    let after = mark(&mut ends);
    let gbit = (after.1 - before.1) * 8.0 / 1e9;
    Turn { rate: gbit / (after.0 - before.0).as_secs_f64(), cost: (after.2 - before.2) / gbit }
}

/// When, how many bytes have come, and CPU seconds of both ends.
fn mark(ends: &mut [Process; 2]) -> (Instant, f64, f64) {
    let receiver = &mut ends[1];
    let mark = receiver.mark();
    receiver.write(b"\n");
    let bytes = receiver.wait("count", PATIENCE, mark, |line| line.text.parse().ok());
    (Instant::now(), bytes, ends.iter().map(|end| cpu::seconds(end.pid())).sum())
}

// --- The workers -------------------------------------------------------------------------------------------------------

pub(crate) fn main(words: &[&str]) -> ExitCode {
    let [role, how, base, rest @ ..] = words else { return ExitCode::from(2) };
    let sends = *role == "sender";
    cpu::pin(usize::from(!sends));
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for _line in io::stdin().lock().lines().map_while(Result::ok) {
            say(&counted.load(Ordering::Relaxed).to_string());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs nothing special").block_on(async {
        match (sends, *how) {
            (true, "quinn") => send(dial_quinn(rest.first().copied().unwrap_or_default()).await).await,
            (false, "quinn") => receive(accept_quinn().await, &count).await,
            (true, how) => send(dial(how, base).await).await,
            (false, how) => receive(accept(how, base).await, &count).await,
        }
    });
    ExitCode::SUCCESS
}

/// What keeps a connection alive, and the connection.
pub(crate) type Held = (Box<dyn std::any::Any>, Connection);

async fn send((_held, connection): Held) {
    say("connected");
    let mut stream = connection.open_uni().await.expect("the receiver takes streams");
    let block = bytes::Bytes::from(vec![0x5a; BLOCK]);
    while stream.write_chunk(block.clone()).await.is_ok() {}
}

async fn receive((_held, connection): Held, count: &AtomicU64) {
    let mut stream = connection.accept_uni().await.expect("the sender opens one");
    while let Ok(Some(chunk)) = stream.read_chunk(BLOCK, true).await {
        count.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
    }
}

async fn endpoint(sends: bool, how: &str, base: &str) -> (bowline_quic::Endpoint, SecretKey) {
    let (own, other) = if sends { (SENDER, RECEIVER) } else { (RECEIVER, SENDER) };
    let address = |text: &str| text.parse::<SocketAddr>().expect("written above");
    let key = key_of(sends);
    let mut builder = Endpoint::builder(key.clone()).link_local(false).port(address(own).port());
    builder = if how == "relay" {
        builder.direct(false).base(base.parse().expect("the base said so"))
    } else {
        builder.given(key_of(!sends).device_id(), address(other))
    };
    let endpoint = builder.bind().await.expect("the namespace is new");
    if how == "relay" {
        endpoint.online().await.expect("the base is there");
    }
    (bowline_quic::Endpoint::new(endpoint, &key).expect("a good key"), key)
}

pub(crate) async fn dial(how: &str, base: &str) -> Held {
    let (endpoint, _) = endpoint(true, how, base).await;
    let device = key_of(false).device_id();
    let connection = endpoint.connect(device, SERVICE.as_bytes()).await.expect("the receiver listens");
    (Box::new(endpoint), connection)
}

pub(crate) async fn accept(how: &str, base: &str) -> Held {
    let (endpoint, _) = endpoint(false, how, base).await;
    let mut listener =
        endpoint.listen(Listen::new([SERVICE]).allow(Allow::Everyone)).expect("it does not listen yet");
    say("ready -");
    let accepted = listener.accept().await.expect("the sender dials");
    let connection = accepted.connection.clone();
    (Box::new((endpoint, listener, accepted)), connection)
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into());
    Arc::new(config)
}

/// As large buffers as the library asks for.
fn quinn_endpoint(address: &str, server: Option<quinn::ServerConfig>) -> quinn::Endpoint {
    let address: SocketAddr = address.parse().expect("written above");
    let socket = std::net::UdpSocket::bind(("0.0.0.0", address.port())).expect("the namespace is new");
    let sizes = socket2::SockRef::from(&socket);
    let _ = sizes.set_recv_buffer_size(4 << 20);
    let _ = sizes.set_send_buffer_size(4 << 20);
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime)
        .expect("a socket just made")
}

async fn dial_quinn(certificate: &str) -> Held {
    let certificate = HEXLOWER.decode(certificate.as_bytes()).expect("the receiver wrote it");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.into()).expect("a certificate");
    let mut config = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).expect("one is there");
    config.transport_config(transport());
    let endpoint = quinn_endpoint(SENDER, None);
    let receiver = RECEIVER.parse().expect("written above");
    let connecting = endpoint.connect_with(config, receiver, "receiver").expect("a good configuration");
    let connection = connecting.await.expect("the receiver listens");
    (Box::new(endpoint), connection)
}

async fn accept_quinn() -> Held {
    let made = rcgen::generate_simple_self_signed(["receiver".to_owned()]).expect("a random source");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate = made.cert.der().clone();
    let shown = HEXLOWER.encode(&certificate);
    let mut config = quinn::ServerConfig::with_single_cert(vec![certificate], key.into())
        .expect("a certificate just made");
    config.transport_config(transport());
    let endpoint = quinn_endpoint(RECEIVER, Some(config));
    say(&format!("ready {shown}"));
    let incoming = endpoint.accept().await.expect("the sender dials");
    let connection = incoming.await.expect("the sender dials");
    (Box::new(endpoint), connection)
}
