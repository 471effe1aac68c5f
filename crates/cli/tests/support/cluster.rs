//! A NATS server and bases of a cluster, as real processes.

use std::{
    net::{TcpListener, UdpSocket},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use bowline::BaseName;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Home, Running, ask};

/// Every device of these tests comes from one address.
const LIMITS: &str =
    "registrations_per_second = 5000\nregistrations_burst = 5000\nunfinished_per_source = 4096\n";

/// A port that the system gives to nobody by itself, so that a server that is started anew finds it free. The next three are free as
/// well: a base takes a second one for UDP.
fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    const STEP: u16 = 4;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in several processes at once: each begins elsewhere.
    let begin = (std::process::id() % 300) as u16 * 64;
    let is_free = |&port: &u16| {
        (port..port + STEP).all(|port| {
            TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok()
        })
    };
    let mut ports = std::iter::repeat_with(|| FIRST + (begin + NEXT.fetch_add(STEP, Relaxed)) % PORTS);
    ports.find(is_free).unwrap()
}

/// A NATS server with JetStream.
pub(crate) struct Nats {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    pub(crate) running: Option<Running>,
    pub(crate) arguments: Vec<String>,
}

impl Nats {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    pub(crate) fn start_with(arguments: impl FnOnce(&TempDir) -> Vec<String>) -> Self {
        let folder = TempDir::new().unwrap();
        let arguments = arguments(&folder);
        let mut nats = Self { port: free_port(), folder, running: None, arguments };
        nats.run();
        nats
    }

    /// Three servers with one store between them.
    pub(crate) fn start_three() -> [Self; 3] {
        let routes = [(); 3].map(|()| format!("nats://127.0.0.1:{}", free_port()));
        [0, 1, 2].map(|n| {
            let others: Vec<&str> = (0..3).filter(|&m| m != n).map(|m| routes[m].as_str()).collect();
            let cluster =
                format!("-n s{n} --cluster_name c --cluster {} --routes {}", routes[n], others.join(","));
            Self::start_with(|_| cluster.split(' ').map(str::to_owned).collect())
        })
    }

    pub(crate) fn run(&mut self) {
        let mut command = Command::new("nats-server");
        command.args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"]);
        command.arg(self.folder.path()).args(&self.arguments);
        let mut running = Running::start(command.stdin(Stdio::null()));
        running.stderr.line_with("Server is ready");
        self.running = Some(running);
    }

    pub(crate) fn kill(&mut self) {
        self.running.take().unwrap().end_by(Signal::SIGKILL);
    }
}

/// What a base has logged explains what a test does not understand.
impl Drop for Member {
    fn drop(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|_| std::thread::panicking()) {
            println!("--- base at port {}:\n{}", self.port, running.stderr.so_far());
        }
    }
}

/// A base of the cluster, with a port that it keeps.
pub(crate) struct Member {
    pub(crate) home: Home,
    /// The address that it listens on.
    listen: &'static str,
    port: u16,
    admin: u16,
    pub(crate) running: Option<Running>,
}

impl Member {
    pub(crate) fn new(servers: &str, more: &str) -> Self {
        let home = Home::new();
        home.configure(&format!(
            "[base.limits]\n{LIMITS}\n[base.cluster]\nservers = [\"{servers}\"]\n{more}"
        ));
        Self { home, listen: "127.0.0.1", port: free_port(), admin: free_port(), running: None }
    }

    pub(crate) fn listening_on(mut self, listen: &'static str) -> Self {
        self.listen = listen;
        self
    }

    pub(crate) fn start(mut self) -> Self {
        self.run();
        self
    }

    /// Runs it, and waits until it is one of the cluster.
    pub(crate) fn run(&mut self) -> &mut Running {
        self.run_alone();
        let running = self.running.as_mut().unwrap();
        running.stderr.line_with("joined the cluster's bus");
        running
    }

    /// Runs it, whether the cluster is there or not.
    pub(crate) fn run_alone(&mut self) {
        let (listen, port, admin) = (self.listen, self.port, self.admin);
        let args = format!("base --listen {listen}:{port} --admin 127.0.0.1:{admin} --state state --drain 6");
        let mut command = self.home.bowline(&args);
        let mut running = Running::start(command.env("RUST_LOG", "info"));
        running.stdout.line_with("base ");
        self.running = Some(running);
    }

    /// Whether its metrics say this, word for word.
    pub(crate) fn shows(&self, metric: &str) -> bool {
        self.metrics().lines().any(|line| line == metric)
    }

    /// The devices that are registered there.
    pub(crate) fn devices(&self) -> usize {
        let metrics = self.metrics();
        let counts = metrics.lines().filter(|line| line.starts_with("bowline_devices{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize).sum()
    }

    fn metrics(&self) -> String {
        let address = ([127, 0, 0, 1], self.admin).into();
        ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").1
    }

    pub(crate) fn name(&self) -> BaseName {
        format!("127.0.0.1:{}", self.port).parse().unwrap()
    }
}

pub(crate) fn cluster(nats: &Nats, count: usize, more: &str) -> Vec<Member> {
    (0..count).map(|_| Member::new(&format!("nats://127.0.0.1:{}", nats.port), more).start()).collect()
}
