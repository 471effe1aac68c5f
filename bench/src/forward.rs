//! `forward`: a TCP connection through `bowline forward`, beside plain TCP and beside OpenSSH's own forwarding.
//!
//! Two machines on one veth. A sink on one counts what comes; a source on the other writes into it: straight, through `bowline forward` and
//! `bowline serve`, or through `ssh -L` and `sshd`. Both encrypt.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bowline_lab::{Node, Process};

use crate::{
    direct::Cable,
    netns::Links,
    report::{Goal, Options, Report, in_turn},
};

const PATIENCE: Duration = Duration::from_secs(20);
const TARGET: &str = "10.9.0.2:9000";
const HERE: &str = "127.0.0.1:9001";
const BLOCK: usize = 256 << 10;
const WARM_UP: Duration = Duration::from_secs(1);
const SSHD: &str = "/usr/sbin/sshd";
const UNIT: &str = "Gbit/s";

pub(crate) fn run(options: &Options, report: &mut Report) {
    let (turn, rounds) =
        if options.quick { (Duration::from_secs(1), 2) } else { (Duration::from_secs(4), 5) };
    let cable = Cable::new(options);
    cable.set(Links::Super);
    let sink = Sink::new(&cable.receiver);
    let ours = || {
        let _forward = bowline(&cable);
        flow(&cable.sender, HERE, &sink, turn)
    };
    let plain = in_turn(rounds, ours, || flow(&cable.sender, TARGET, &sink, turn));
    report.pairs("beside plain TCP", "Gbit/s (reference: not encrypted)", &plain, Goal::None);
    match Ssh::new(&cable) {
        Ok(ssh) => {
            let theirs = || {
                let _forward = ssh.forward(&cable.sender);
                flow(&cable.sender, HERE, &sink, turn)
            };
            report.pairs(
                "beside ssh -L",
                "Gbit/s (reference: OpenSSH)",
                &in_turn(rounds, ours, theirs),
                Goal::AtLeast(1.0),
            );
        }
        Err(why) => report.missing("beside ssh -L", UNIT, Goal::AtLeast(1.0), &why),
    }
}

/// Counts what comes to [`TARGET`].
struct Sink {
    bytes: Arc<AtomicU64>,
}

impl Sink {
    fn new(node: &Node) -> Self {
        let listener = node.enter(|| TcpListener::bind(TARGET)).expect("the namespace is new");
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                thread::spawn(move || {
                    let mut block = vec![0; BLOCK];
                    while let Ok(read @ 1..) = socket.read(&mut block) {
                        counted.fetch_add(read as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { bytes }
    }
}

/// Writes to that address, and measures what arrives.
fn flow(from: &Node, address: &str, sink: &Sink, turn: Duration) -> f64 {
    let address: SocketAddr = address.parse().expect("written above");
    let began = Instant::now();
    let mut socket = loop {
        match from.enter(|| TcpStream::connect(address)) {
            Ok(socket) => break socket,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{address}: {error}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let writer = thread::spawn(move || {
        let block = vec![0x5a; BLOCK];
        while !ended.load(Ordering::Relaxed) && socket.write_all(&block).is_ok() {}
    });
    thread::sleep(WARM_UP);
    let before = (Instant::now(), sink.bytes.load(Ordering::Relaxed));
    thread::sleep(turn);
    let bytes = sink.bytes.load(Ordering::Relaxed) - before.1;
    let rate = bytes as f64 * 8.0 / 1e9 / before.0.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let _ = writer.join();
    rate
}

/// `bowline serve` there and `bowline forward` here.
fn bowline(cable: &Cable) -> [Process; 2] {
    let ids = introduce(cable);
    let start = |node: &Node, words: &[&str]| node.spawn(program(), &words_of(node, words));
    let serve = start(&cable.receiver, &["serve", "--allow", &ids[0], "--target", TARGET]);
    serve.wait("ID", PATIENCE, 0, |line| line.text.contains("listening as").then_some(()));
    let forward = start(&cable.sender, &["forward", "-L", &format!("{HERE}:{TARGET}"), &ids[1]]);
    forward.wait("listener", PATIENCE, 0, |line| line.text.starts_with(HERE).then_some(()));
    [serve, forward]
}

pub(crate) fn program() -> String {
    std::env::var("BOWLINE_BIN").expect("bench/run names the program")
}

/// The IDs of both ends of a cable. There is no base: the program's configuration on each says where the other is.
pub(crate) fn introduce(cable: &Cable) -> [String; 2] {
    let ends = [(&cable.sender, 7001), (&cable.receiver, 7002)];
    let ids = ends.map(|(node, _)| {
        let key = node.home().join("key").display().to_string();
        let shown = node.command(program()).args(["id", "--json", "--key", &key]).output().expect("it runs");
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        shown["id"].as_str().expect("an ID").to_owned()
    });
    for (at, (node, port)) in ends.iter().enumerate() {
        let (other, address) = (&ids[1 - at], ["10.9.0.2:7002", "10.9.0.1:7001"][at]);
        let config = format!("link_local = false\nport = {port}\n[given]\n{other} = [\"{address}\"]\n");
        fs::write(node.home().join("config.toml"), config).expect("the run's folder can be written to");
    }
    ids
}

/// A command with the key and the configuration of that end.
pub(crate) fn words_of(node: &Node, words: &[&str]) -> Vec<String> {
    let [key, config] = ["key", "config.toml"].map(|name| node.home().join(name).display().to_string());
    words.iter().copied().chain(["--key", &key, "--config", &config]).map(str::to_owned).collect()
}

/// An SSH server there.
struct Ssh {
    _server: Process,
    key: String,
}

impl Ssh {
    fn new(cable: &Cable) -> Result<Self, String> {
        if !Path::new(SSHD).exists() {
            return Err("openssh-server is not installed".to_owned());
        }
        let folder = cable.receiver.home().join("ssh");
        let made = fs::create_dir(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)));
        made.map_err(|error| error.to_string())?;
        for name in ["host_key", "user_key"] {
            let status = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(name))
                .status();
            if !status.is_ok_and(|status| status.success()) {
                return Err("ssh-keygen makes no key".to_owned());
            }
        }
        let config = format!(
            "Port 2222\nHostKey {0}/host_key\nAuthorizedKeysFile {0}/user_key.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\n",
            folder.display()
        );
        fs::write(folder.join("config"), config).map_err(|error| error.to_string())?;
        let _ = fs::create_dir_all("/run/sshd"); // where root runs it, it wants that
        let config = folder.join("config").display().to_string();
        let server = cable.receiver.spawn(SSHD, &["-D", "-e", "-f", &config]);
        Ok(Self { _server: server, key: folder.join("user_key").display().to_string() })
    }

    fn forward(&self, node: &Node) -> Process {
        let forward = format!("{HERE}:{TARGET}");
        let mut words = vec!["-N", "-p", "2222", "-i", &self.key, "-L", &forward];
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "ConnectionAttempts=20",
        ] {
            words.extend(["-o", option]);
        }
        words.push("root@10.9.0.2");
        node.spawn("ssh", &words)
    }
}
