//! A NATS server and bases of a cluster, as real processes.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

use bowline::BaseName;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Home, Running, ask};

/// Every device of these tests comes from one address.
const LIMITS: &str =
    "registrations_per_second = 5000\nregistrations_burst = 5000\nunfinished_per_source = 4096\n";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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

/// A base of the cluster, with a port that it keeps.
pub(crate) struct Member {
    pub(crate) home: Home,
    /// The address that it listens on.
    pub(crate) listen: &'static str,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    pub(crate) running: Option<Running>,
}

impl Member {
    pub(crate) fn new(servers: &str, more: &str) -> Self {
        let home = Home::new();
        home.configure(&format!(
            "[base.limits]\n{LIMITS}\n[base.cluster]\nservers = [\"{servers}\"]\n{more}"
        ));
        Self { home, listen: "127.0.0.1", port: 0, admin: free_port(), running: None }
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
        let line = running.stdout.line_with("base ");
        self.port = line.rsplit(':').next().unwrap().parse().unwrap();
        self.running = Some(running);
    }

    /// Whether its metrics say this, word for word.
    pub(crate) fn shows(&self, metric: &str) -> bool {
        let address = ([127, 0, 0, 1], self.admin).into();
        let (_, text) = ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        text.lines().any(|line| line == metric)
    }

    pub(crate) fn name(&self) -> BaseName {
        format!("127.0.0.1:{}", self.port).parse().unwrap()
    }
}

pub(crate) fn cluster(nats: &Nats, count: usize, more: &str) -> Vec<Member> {
    (0..count).map(|_| Member::new(&format!("nats://127.0.0.1:{}", nats.port), more).start()).collect()
}
