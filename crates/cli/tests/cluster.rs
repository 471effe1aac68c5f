//! Bases of a cluster as real processes, with a real NATS server: killed, partitioned, restarted one after the other.

mod support;

use std::{
    collections::HashSet,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bowline::{BaseName, Endpoint};
use bowline_proto::{DeviceId, SecretKey};
use nix::sys::signal::Signal;
use support::{
    PATIENCE,
    cluster::{Member, Nats, cluster},
    eventually,
};
use tokio::runtime::Runtime;

/// A device that keeps to the relay.
async fn device(bases: &[BaseName]) -> Arc<Endpoint> {
    let key = SecretKey::from_seed(&rand_seed());
    let endpoint = Endpoint::builder(key).bases(bases.iter().cloned()).direct(false).link_local(false);
    Arc::new(endpoint.bind().await.unwrap())
}

fn rand_seed() -> [u8; 32] {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&NEXT.fetch_add(1, Relaxed).to_be_bytes());
    seed[8..12].copy_from_slice(&std::process::id().to_be_bytes());
    seed
}

/// A device that sends back what it gets.
async fn echo(bases: &[BaseName]) -> Arc<Endpoint> {
    let device = device(bases).await;
    let own = Arc::clone(&device);
    tokio::spawn(async move {
        while let Ok((from, data)) = own.recv().await {
            let _ = own.send(from, &data).await;
        }
    });
    device
}

/// Asks all of them again and again until each has answered to this round; how long that took.
async fn all_answer(hub: &Endpoint, devices: &[DeviceId], round: u8) -> Duration {
    let start = Instant::now();
    let mut missing: HashSet<DeviceId> = devices.iter().copied().collect();
    while !missing.is_empty() {
        assert!(start.elapsed() < PATIENCE * 2, "{} devices do not answer", missing.len());
        for &device in &missing {
            let _ = hub.send(device, &[round]).await;
        }
        let until = tokio::time::Instant::now() + Duration::from_millis(300);
        while !missing.is_empty()
            && let Ok(Ok((from, data))) = tokio::time::timeout_at(until, hub.recv()).await
        {
            if data[..] == [round] {
                missing.remove(&from);
            }
        }
    }
    start.elapsed()
}

/// A stream of numbered messages from one device to another, and what came of it.
struct Stream {
    sent: Arc<AtomicUsize>,
    came: tokio::sync::watch::Receiver<HashSet<usize>>,
    stop: tokio::sync::watch::Sender<bool>,
    sender: tokio::task::JoinHandle<()>,
}

impl Stream {
    fn start(from: &Arc<Endpoint>, to: &Arc<Endpoint>) -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let (arrived, came) = tokio::sync::watch::channel(HashSet::new());
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (source, target, id) = (Arc::clone(from), Arc::clone(to), to.id());
        let number = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((_, data)) = target.recv().await {
                let number = usize::from_be_bytes(data[..].try_into().unwrap());
                arrived.send_if_modified(|came| came.insert(number));
            }
        });
        let sender = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while !*stopped.borrow() {
                tick.tick().await;
                if source.send(id, &number.load(Relaxed).to_be_bytes()).await.is_ok() {
                    number.fetch_add(1, Relaxed);
                }
            }
        });
        Self { sent, came, stop, sender }
    }

    /// Ends it, and waits for the last message: how many were sent, and how many of them never came.
    async fn end(mut self) -> (usize, usize) {
        self.stop.send_replace(true);
        self.sender.await.unwrap();
        let sent = self.sent.load(Relaxed);
        let all = self.came.wait_for(|came| came.len() >= sent);
        let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
        let came = self.came.borrow();
        let lost: Vec<usize> = (0..sent).filter(|number| !came.contains(number)).collect();
        if !lost.is_empty() {
            println!("of {sent} messages of a stream these were lost: {lost:?}");
        }
        (sent, lost.len())
    }
}

/// Waits until so many more have come by each of them.
async fn flow(streams: &[Stream], count: usize) {
    let until: Vec<usize> = streams.iter().map(|stream| stream.came.borrow().len() + count).collect();
    for (stream, until) in streams.iter().zip(until) {
        let mut came = stream.came.clone();
        let enough = came.wait_for(|came| came.len() >= until);
        tokio::time::timeout(PATIENCE, enough).await.expect("it flows").unwrap();
    }
}

async fn online(device: &Endpoint) {
    tokio::time::timeout(PATIENCE, device.online()).await.expect("it registers").unwrap();
}

#[test]
fn devices_at_two_bases_reach_each_other_over_udp_between_them_or_over_nats_alone() {
    let runtime = Runtime::new().unwrap();
    let nats = Nats::start();
    for (listen, more) in [("127.0.0.1", ""), ("0.0.0.0", ""), ("127.0.0.1", "udp = false\n")] {
        let server = format!("nats://127.0.0.1:{}", nats.port);
        let member = || Member::new(&server, more).listening_on(listen).start();
        let bases = [member(), member()];
        let path = if more.is_empty() { "udp" } else { "bus" };
        eventually(|| bases[0].shows(&format!("bowline_cluster_bases{{path=\"{path}\"}} 1.0")));
        runtime.block_on(async {
            let hub = device(&[bases[0].name()]).await;
            let there = echo(&[bases[1].name()]).await;
            online(&hub).await;
            online(&there).await;
            all_answer(&hub, &[there.id()], 1).await;
            // What is too large for UDP between bases goes over the bus.
            let large = vec![7; 16_000];
            hub.send(there.id(), &large).await.unwrap();
            let (_, back) = tokio::time::timeout(PATIENCE, hub.recv()).await.unwrap().unwrap();
            assert_eq!(back.len(), large.len());
            // And what comes and goes over UDP, as it does after a moment, takes the way between the workers of two bases.
            let target = device(&[bases[1].name()]).await;
            online(&target).await;
            let stream = Stream::start(&hub, &target);
            flow(std::slice::from_ref(&stream), 100).await;
            let (sent, lost) = stream.end().await;
            assert_eq!(lost, 0, "of {sent} messages, on {listen} {more}");
        });
    }
}

#[test]
fn a_base_with_a_copied_key_stays_out_of_the_cluster_and_takes_nothing_from_the_one_that_is_there() {
    let runtime = Runtime::new().unwrap();
    let nats = Nats::start();
    let mut bases = cluster(&nats, 2, "");
    let mut copied = Member::new(&format!("nats://127.0.0.1:{}", nats.port), "");
    let key = |member: &Member| member.home.path().join("state/base.key");
    std::fs::create_dir(copied.home.path().join("state")).unwrap();
    std::fs::copy(key(&bases[0]), key(&copied)).unwrap();
    runtime.block_on(async {
        let source = device(&[bases[1].name()]).await;
        let target = device(&[bases[0].name()]).await;
        online(&source).await;
        online(&target).await;
        let streams = [Stream::start(&source, &target)];
        // Longer than a lease: the first base is one that is there.
        flow(&streams, 600).await;
        copied.run().stderr.line_with("stays out of the cluster");
        assert!(copied.shows("bowline_cluster_bus_up 0.0"));
        flow(&streams, 400).await;
        let [stream] = streams;
        let (sent, lost) = stream.end().await;
        // In the moment in which the newcomer is taken for a start anew.
        assert!(lost < sent / 50, "of {sent} messages {lost} were lost");

        // It takes over when the other one is gone.
        bases[0].running.take().unwrap().end_by(Signal::SIGKILL);
        eventually(|| copied.shows("bowline_cluster_bus_up 1.0"));
        let target = echo(&[copied.name()]).await;
        all_answer(&source, &[target.id()], 1).await;
    });
}

#[test]
fn a_base_without_its_nats_server_serves_its_devices_and_joins_when_it_is_there() {
    let runtime = Runtime::new().unwrap();
    let mut nats = Nats::start();
    nats.kill();
    let server = format!("nats://127.0.0.1:{}", nats.port);
    let mut bases = [Member::new(&server, ""), Member::new(&server, "")];
    bases.iter_mut().for_each(Member::run_alone);
    runtime.block_on(async {
        let hub = device(&[bases[0].name()]).await;
        let [here, there] = [echo(&[bases[0].name()]).await, echo(&[bases[1].name()]).await];
        for device in [&hub, &here, &there] {
            online(device).await;
        }
        all_answer(&hub, &[here.id()], 1).await;
        assert!(bases[0].shows("bowline_cluster_bus_up 0.0"));
        nats.run();
        all_answer(&hub, &[here.id(), there.id()], 2).await;
        assert!(bases[0].shows("bowline_cluster_bus_up 1.0"));
        assert!(bases[0].shows("bowline_cluster_devices_elsewhere 1.0"));
    });
}

#[test]
fn when_a_base_of_three_is_killed_its_devices_are_reachable_at_the_others() {
    const DEVICES: usize = 1_000;
    let runtime = Runtime::new().unwrap();
    let nats = Nats::start();
    let [mut first, mut second, mut doomed] =
        [(); 3].map(|()| Member::new(&format!("nats://127.0.0.1:{}", nats.port), ""));
    let names = [&first, &second, &doomed].map(Member::name);
    // All devices know all bases; for now there is one.
    doomed.run();
    runtime.block_on(async {
        let mut devices = Vec::new();
        for _ in 0..DEVICES {
            devices.push(echo(&names).await);
        }
        for device in &devices {
            online(device).await;
        }
        first.run();
        second.run();
        let hub = device(&names[..1]).await;
        online(&hub).await;
        let ids: Vec<DeviceId> = devices.iter().map(|device| device.id()).collect();
        let took = all_answer(&hub, &ids, 1).await;
        println!("{DEVICES} devices answered within {took:?}");
        assert_eq!(doomed.devices(), DEVICES, "all are at the base that is killed");
        doomed.running.take().unwrap().end_by(Signal::SIGKILL);
        let took = all_answer(&hub, &ids, 2).await;
        println!("after the kill of their base, all {DEVICES} devices answered within {took:?}");
    });
}

#[test]
fn while_nats_is_gone_devices_of_one_base_lose_nothing_and_when_it_is_back_all_is_as_before() {
    let runtime = Runtime::new().unwrap();
    let mut nats = Nats::start();
    let bases = cluster(&nats, 2, "");
    runtime.block_on(async {
        let (first, second) = ([bases[0].name()], [bases[1].name()]);
        let [a, b] = [device(&first).await, device(&first).await];
        let [c, d] = [device(&first).await, device(&second).await];
        let hub = device(&first).await;
        for device in [&a, &b, &c, &d, &hub] {
            online(device).await;
        }
        let streams = [Stream::start(&a, &b), Stream::start(&c, &d)];
        flow(&streams, 50).await;
        eventually(|| bases[0].shows("bowline_cluster_bases{path=\"udp\"} 1.0"));
        nats.kill();
        // Registered while there is no bus.
        let late = echo(&second).await;
        online(&late).await;
        // For longer than a lease.
        flow(&streams, 600).await;
        nats.run();
        let took = all_answer(&hub, &[late.id()], 1).await;
        println!("a device that came while NATS was gone answered {took:?} after it was back");
        let [one_base, two_bases] = streams;
        let (sent, lost) = one_base.end().await;
        assert_eq!(lost, 0, "of {sent} messages at one base");
        // Over UDP between the bases, which needs no NATS.
        let (sent, lost) = two_bases.end().await;
        assert_eq!(lost, 0, "of {sent} messages between two bases");
    });
}

#[test]
fn one_of_three_nats_servers_may_be_killed_and_nothing_is_lost_or_missing_afterwards() {
    let runtime = Runtime::new().unwrap();
    let mut nats = Nats::start_three();
    let servers = nats.each_ref().map(|nats| format!("nats://127.0.0.1:{}", nats.port)).join("\", \"");
    let bases = [(); 2].map(|()| Member::new(&servers, "replicas = 3\n").start());
    let at_udp = || bases.iter().all(|base| base.shows("bowline_cluster_bases{path=\"udp\"} 1.0"));
    eventually(at_udp);
    runtime.block_on(async {
        let (first, second) = ([bases[0].name()], [bases[1].name()]);
        let (a, b) = (device(&first).await, device(&second).await);
        online(&a).await;
        online(&b).await;
        let stream = Stream::start(&a, &b);
        flow(std::slice::from_ref(&stream), 50).await;
        nats[0].kill();
        // What comes now has to be written by a store that may have to agree on another leader first.
        let late = echo(&second).await;
        online(&late).await;
        let took = all_answer(&a, &[late.id()], 1).await;
        println!("a device that came after a server was killed answered within {took:?}");
        nats[0].run();
        flow(std::slice::from_ref(&stream), 50).await;
        let (sent, lost) = stream.end().await;
        assert_eq!(lost, 0, "of {sent} messages");
        assert!(at_udp() && bases.iter().all(|base| base.shows("bowline_cluster_bus_up 1.0")));
    });
}

#[test]
fn a_rolling_restart_of_all_bases_loses_no_message() {
    let runtime = Runtime::new().unwrap();
    let nats = Nats::start();
    let mut bases = cluster(&nats, 3, "");
    runtime.block_on(async {
        let names: Vec<BaseName> = bases.iter().map(Member::name).collect();
        let mut streams = Vec::new();
        let mut devices = Vec::new();
        for _ in 0..12 {
            let (a, b) = (device(&names).await, device(&names).await);
            online(&a).await;
            online(&b).await;
            streams.push(Stream::start(&a, &b));
            devices.push((a, b));
        }
        flow(&streams, 50).await;
        for base in &mut bases {
            let running = base.running.take().unwrap();
            running.signal(Signal::SIGTERM);
            let ended = tokio::task::spawn_blocking(move || running.end()).await.unwrap();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            base.run();
            flow(&streams, 50).await;
        }
        let (mut sent, mut lost) = (0, 0);
        for stream in streams {
            let of_one = stream.end().await;
            sent += of_one.0;
            lost += of_one.1;
        }
        println!("{lost} of {sent} messages were lost");
        assert_eq!(lost, 0, "of {sent}");
    });
}

#[test]
fn a_base_that_nobody_is_at_takes_its_leave_when_it_ends_before_its_time() {
    let nats = Nats::start();
    let mut bases = cluster(&nats, 2, "");
    eventually(|| bases[0].shows("bowline_cluster_bases{path=\"udp\"} 1.0"));
    bases[1].running.take().unwrap().end_by(Signal::SIGTERM).ok();
    let told = bases[0].running.as_mut().unwrap().stderr.line_with("is gone");
    assert!(told.contains("it left"), "{told}");
}

#[test]
fn a_nats_server_that_refuses_a_base_keeps_it_from_none_of_the_others() {
    let user = |password: &str| vec!["--user=base".to_owned(), format!("--pass={password}")];
    // As while a password is changed on one server after the other; and one that an address cannot hold as it is.
    let servers = ["another", "p@ss:w/o rd"].map(|password| Nats::start_with(|_| user(password)));
    let login = "nats://base:p%40ss%3Aw%2Fo%20rd";
    let addresses = servers.each_ref().map(|nats| format!("{login}@127.0.0.1:{}", nats.port));
    // Nor does one whose name nobody knows.
    let unknown = format!("{login}@nats.invalid:4222");
    Member::new(&[&[unknown][..], &addresses].concat().join("\", \""), "").start();
}

#[test]
fn tls_and_a_password_open_the_cluster_and_a_wrong_authority_does_not() {
    let nats = Nats::start_with(|folder| {
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1", "-subj", "/CN=nats"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        vec![
            "--tls".to_owned(),
            format!("--tlscert={}", text(&cert)),
            format!("--tlskey={}", text(&key)),
            "--user=base".to_owned(),
            "--pass=secret".to_owned(),
        ]
    });
    let ca = nats.folder.path().join("cert.pem");
    let server = |user: &str| format!("nats://{user}127.0.0.1:{}", nats.port);
    let with_ca = format!("ca = \"{}\"\n", ca.display());
    Member::new(&server("base:secret@"), &with_ca).start();
    for (user, more) in [("base:secret@", ""), ("base:wrong@", with_ca.as_str())] {
        let mut base = Member::new(&server(user), more);
        base.run_alone();
        let joined = base.running.as_mut().unwrap().stderr.line_with_within("joined", Duration::from_secs(3));
        assert_eq!(joined, None, "{user} {more}");
    }
    let missing = Member::new(&server(""), "ca = \"/nowhere/ca.pem\"\n");
    let ended = missing.home.run("base --listen 127.0.0.1:0 --state state");
    assert!(ended.failed(1).contains("/nowhere/ca.pem"), "{ended:?}");
}
