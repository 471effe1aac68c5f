//! A machine of a test network: one namespace, and what its administrator would type.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::{nat::Nat, process::Process};

/// A network namespace. Clones are the same machine; it lives as long as the test.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    home: PathBuf,
}

impl Node {
    pub(crate) fn new(name: &str, home: PathBuf) -> Self {
        fs::create_dir_all(&home).expect("the test's folder can be written to");
        let node = Self { name: name.to_owned(), home };
        run(Command::new("ip").args(["netns", "add", name]));
        node.sysctl("net.ipv6.conf.all.accept_dad=0");
        node.sysctl("net.ipv6.conf.default.accept_dad=0");
        node.ip("link set dev lo up");
        node
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The home folder of what runs on it.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `ip` with these words, on this machine.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(words.split_whitespace()))
    }

    /// Several `ip` commands as one, so that they happen in one moment.
    #[track_caller]
    pub fn ip_batch(&self, commands: &[&str]) {
        let batch = commands.iter().map(|command| format!("{command}\n")).collect::<String>();
        run_with(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &batch);
    }

    /// Sets a kernel parameter, `name=value`.
    #[track_caller]
    pub fn sysctl(&self, assignment: &str) {
        run(self.command("sysctl").args(["-qw", assignment]));
    }

    /// Gives an interface an address with its prefix length, usable at once.
    #[track_caller]
    pub fn address(&self, interface: &str, address: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {interface} {nodad}"));
    }

    /// Adds a route.
    #[track_caller]
    pub fn route(&self, route: &str) {
        let family = if route.contains(':') { "-6" } else { "-4" };
        run(Command::new("ip")
            .args([family, "-n", &self.name, "route", "add"])
            .args(route.split_whitespace()));
    }

    /// Makes a bridge. Its traffic bypasses the machine's own packet filter, as in a switch.
    #[track_caller]
    pub fn bridge(&self, name: &str) {
        // Where the kernel has no br_netfilter, bridged traffic bypasses the filter anyway.
        for family in ["iptables", "ip6tables"] {
            let _ = self
                .command("sysctl")
                .args(["-qw", &format!("net.bridge.bridge-nf-call-{family}=0")])
                .output();
        }
        // Without learning the topology first: a port forwards at once.
        self.ip(&format!("link add name {name} type bridge forward_delay 0 mcast_snooping 0"));
        self.ip(&format!("link set dev {name} up"));
    }

    /// Loads nft rules beside those that are there.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        run_with(self.command("nft").args(["-f", "-"]), rules);
    }

    /// Makes it translate and filter as this kind does between `lan` and `wan`, whatever it did before, and forgets all
    /// mappings. `wan` has its address by then. Rules that a test has loaded beside stay.
    #[track_caller]
    pub fn set_nat(&self, nat: Nat) {
        self.nft(&nat.rules(self.ipv4("wan").unwrap_or(Ipv4Addr::UNSPECIFIED)));
        self.flush_conntrack();
    }

    /// Forgets all connections and mappings, as a router does that restarts. A kind of NAT that filters by itself has more
    /// to forget: `Home::reboot`.
    #[track_caller]
    pub fn flush_conntrack(&self) {
        run(self.command("conntrack").arg("-F"));
    }

    /// The ports outside of what it translates at present: UDP over IPv4 from this address.
    #[track_caller]
    #[must_use]
    pub fn mapped_ports(&self, inside: Ipv4Addr) -> BTreeSet<u16> {
        let listed =
            run(self.command("conntrack").args(["-L", "-p", "udp", "--orig-src", &inside.to_string()]));
        // The answer's destination stands last in each line.
        let port =
            |flow: &str| flow.split(' ').rev().find_map(|word| word.strip_prefix("dport=")?.parse().ok());
        listed.lines().filter_map(port).collect()
    }

    /// A command of this machine, with a home folder and an environment of its own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).current_dir(&self.home);
        for variable in
            ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "BOWLINE_BASE"]
        {
            command.env_remove(variable);
        }
        command.env("HOME", &self.home).stdin(Stdio::null());
        command
    }

    /// Starts a program on this machine.
    #[track_caller]
    #[must_use]
    pub fn spawn<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, arguments: &[S]) -> Process {
        Process::start(&self.name, self.command(program).args(arguments))
    }

    /// Does something of this test's own inside the machine's network, on a thread of its own. Sockets made there
    /// stay there for life.
    #[track_caller]
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).expect("the namespace exists");
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(namespace, CloneFlags::CLONE_NEWNET).expect("a test may enter its own namespaces");
                    body()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A UDP socket of this test's own, inside the machine's network.
    #[track_caller]
    #[must_use]
    pub fn udp(&self, address: SocketAddr) -> UdpSocket {
        self.enter(|| UdpSocket::bind(address))
            .unwrap_or_else(|e| panic!("{}: bind {address}: {e}", self.name))
    }

    /// The number of an interface.
    #[track_caller]
    #[must_use]
    pub fn interface_index(&self, interface: &str) -> u32 {
        self.enter(|| nix::net::if_::if_nametoindex(interface)).expect("the interface exists")
    }

    /// The first IPv4 address of an interface.
    #[track_caller]
    #[must_use]
    pub fn ipv4(&self, interface: &str) -> Option<Ipv4Addr> {
        let listed = self.ip(&format!("-4 -o addr show dev {interface}"));
        let address = listed.split_whitespace().skip_while(|word| *word != "inet").nth(1)?;
        address.split('/').next()?.parse().ok()
    }

    /// The link-local IPv6 address of an interface.
    #[track_caller]
    #[must_use]
    pub fn link_local(&self, interface: &str) -> IpAddr {
        let listed = self.ip(&format!("-6 -o addr show dev {interface} scope link"));
        let address = listed.split_whitespace().skip_while(|word| *word != "inet6").nth(1);
        let address = address.and_then(|address| address.split('/').next()?.parse().ok());
        address.unwrap_or_else(|| panic!("{} has no link-local address on {interface}: {listed}", self.name))
    }
}

/// A cable between two machines, by interface names.
#[track_caller]
pub fn connect(one: &Node, one_interface: &str, other: &Node, other_interface: &str) {
    run(Command::new("ip")
        .args(["link", "add", "name", one_interface, "netns", one.name(), "type", "veth"])
        .args(["peer", "name", other_interface, "netns", other.name()]));
    one.ip(&format!("link set dev {one_interface} up"));
    other.ip(&format!("link set dev {other_interface} up"));
}

/// Runs a command to its end and returns its output.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {}: {}", done.status, words.trim());
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// As [`run`], with `input` on standard input.
#[track_caller]
fn run_with(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("standard input was asked for");
    stdin.write_all(input.as_bytes()).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    drop(stdin);
    let done = child.wait_with_output().expect("a child can be waited for");
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {}: {}\n{input}", done.status, words.trim());
}
