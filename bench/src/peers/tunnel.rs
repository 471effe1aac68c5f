//! Peers that give a machine one more network device: datagrams of ordinary sockets go in on one side and come out on the other.
//!
//! One core for each end: the tunnel's process and the program that sends, or receives, share it, and all four are billed. All of them
//! encrypt; none of them can be told not to. Each packet is read from the device by a call of its own. The devices cut a run into packets
//! as a card does.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bowline_lab::{Node, Process};

use super::{
    load::{Billed, Tuned, Turn, Way},
    tools::{self, PATIENCE},
};
use crate::{cpu, direct::Cable, host::Wire, netns::Net};

/// Addresses inside of a tunnel: of the one that sends, and of the one that receives; a relay has the third.
pub(super) const IP: [&str; 3] = ["10.66.0.1", "10.66.0.2", "10.66.0.3"];
const DEVICE: &str = "/dev/net/tun";

pub(super) struct Tunnel {
    _processes: Vec<Process>,
    way: Way,
    tuned: Tuned,
}

impl Tunnel {
    /// A tunnel whose processes were just started; returns once it carries packets.
    pub(super) fn over(cable: &Cable, billed: Vec<u32>, processes: Vec<Process>) -> Result<Self, String> {
        let (from, into) = (&cable.sender, &cable.receiver);
        Self::between(from, into, [cpu::BASE_CORE, cpu::GEAR_CORE], Billed::Ends(billed), processes)
    }

    fn between(
        from: &Node,
        into: &Node,
        cores: [usize; 2],
        billed: Billed,
        processes: Vec<Process>,
    ) -> Result<Self, String> {
        let (from, into) = (Arc::new(Wire::new(from)), Arc::new(Wire::new(into)));
        let ip: Ipv4Addr = IP[1].parse().expect("written above");
        let to = SocketAddrV4::new(ip, into.port());
        let way = Way { from, to, into, cores, billed };
        way.open(&[0x5a; 100], PATIENCE)?;
        Ok(Self { _processes: processes, way, tuned: Tuned::default() })
    }

    pub(super) fn turn(&mut self, size: usize, time: Duration) -> Turn {
        let (way, datagram) = (&self.way, vec![0x5a; size]);
        let window = self.tuned.window(size, |window, time| way.turn(&datagram, window, time));
        way.turn(&datagram, window, time)
    }
}

/// Whether programs of ours may make such devices.
pub(super) fn possible() -> Result<(), String> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|error| format!("{DEVICE}: {error}; only root may make tunnels"))
}

// --- WireGuard in user space -------------------------------------------------------------------------------------------

pub(super) fn wireguard_version() -> Result<String, String> {
    let program = tools::installed("wireguard-go", "wireguard-go")?;
    tools::installed("wg", "wireguard-tools")?;
    Ok(format!("wireguard-go {}", tools::version(&program, &["--version"])))
}

/// wireguard-go on both ends; ChaCha20-Poly1305.
pub(super) fn wireguard(cable: &Cable) -> Result<Tunnel, String> {
    const PORT: u16 = 51_820;
    wireguard_version()?;
    possible()?;
    let nodes = [&cable.sender, &cable.receiver];
    let mut processes = Vec::new();
    let mut public = Vec::new();
    for (end, node) in nodes.into_iter().enumerate() {
        let key = tools::run(node.command("wg").arg("genkey"))?;
        let file = node.home().join("wg.key");
        fs::write(&file, &key).map_err(|error| error.to_string())?;
        let file = fs::File::open(&file).map_err(|error| error.to_string())?;
        public.push(tools::run(node.command("wg").arg("pubkey").stdin(Stdio::from(file)))?);
        // In one /run: their control sockets need names of their own.
        let mut process =
            node.spawn("taskset", &["-c", &end.to_string(), "wireguard-go", "-f", &format!("wg{end}")]);
        let shown = || node.command("wg").args(["show", &format!("wg{end}")]).output();
        tools::until("wireguard-go's device", || shown().is_ok_and(|output| output.status.success()))
            .map_err(|why| if process.is_running() { why } else { "wireguard-go has ended".to_owned() })?;
        processes.push(process);
    }
    for (end, node) in nodes.into_iter().enumerate() {
        let (name, other) = (format!("wg{end}"), 1 - end);
        let key = node.home().join("wg.key").display().to_string();
        let endpoint = format!("10.9.0.{}:{PORT}", other + 1);
        tools::run(node.command("wg").args([
            "set",
            &name,
            "listen-port",
            &PORT.to_string(),
            "private-key",
            &key,
            "peer",
            public[other].trim(),
            "endpoint",
            &endpoint,
            "allowed-ips",
            &format!("{}/32", IP[other]),
        ]))?;
        node.address(&name, &format!("{}/24", IP[end]));
        node.ip(&format!("link set dev {name} mtu 1420 up"));
    }
    let billed = processes.iter().map(Process::pid).collect();
    Tunnel::over(cable, billed, processes)
}

// --- Nebula ------------------------------------------------------------------------------------------------------------

const NEBULA_PORT: u16 = 4242;

pub(super) fn nebula_version() -> Result<String, String> {
    let program = tools::installed("nebula", "nebula")?;
    tools::installed("nebula-cert", "nebula")?;
    Ok(format!("Nebula {}", tools::version(&program, &["-version"])))
}

/// Nebula on both ends, which know each other's address; AES-256-GCM.
pub(super) fn nebula_direct(cable: &Cable) -> Result<Tunnel, String> {
    let nodes = [&cable.sender, &cable.receiver];
    nebula_authority(nodes[0].home())?;
    let mut processes = Vec::new();
    for (end, node) in nodes.into_iter().enumerate() {
        let other = 1 - end;
        let known =
            format!("static_host_map:\n  \"{}\": [\"10.9.0.{}:{NEBULA_PORT}\"]\n", IP[other], other + 1);
        processes.push(nebula_start(node, nodes[0].home(), end, end, &known)?);
    }
    let billed = processes.iter().map(Process::pid).collect();
    Tunnel::over(cable, billed, processes)
}

/// Two hosts that reach each other through a third alone, which is lighthouse and relay.
pub(super) fn nebula_relay(net: &Net) -> Result<Tunnel, String> {
    let authority = net.middle.home();
    nebula_authority(authority)?;
    let relay = "lighthouse:\n  am_lighthouse: true\nrelay:\n  am_relay: true\n  use_relays: false\n";
    let mut processes = vec![nebula_start(&net.middle, authority, 2, cpu::BASE_CORE, relay)?];
    for (end, node) in [&net.left, &net.right].into_iter().enumerate() {
        let lighthouse =
            format!("static_host_map:\n  \"{}\": [\"10.{}.0.1:{NEBULA_PORT}\"]\n", IP[2], end + 1);
        let host = format!(
            "{lighthouse}lighthouse:\n  am_lighthouse: false\n  interval: 1\n  hosts: [\"{0}\"]\n\
             relay:\n  relays: [\"{0}\"]\n  am_relay: false\n  use_relays: true\n",
            IP[2]
        );
        processes.push(nebula_start(node, authority, end, cpu::GEAR_CORE, &host)?);
    }
    let billed = Billed::Relay(processes[0].pid());
    Tunnel::between(&net.left, &net.right, [cpu::GEAR_CORE; 2], billed, processes)
}

fn nebula_authority(folder: &Path) -> Result<(), String> {
    nebula_version()?;
    possible()?;
    for file in ["ca.crt", "ca.key"] {
        let _ = fs::remove_file(folder.join(file)); // of an earlier tunnel
    }
    tools::run(std::process::Command::new("nebula-cert").args(["ca", "-name", "bench"]).current_dir(folder))
        .map(drop)
}

fn nebula_start(
    node: &Node,
    authority: &Path,
    end: usize,
    core: usize,
    more: &str,
) -> Result<Process, String> {
    let home = node.home();
    let (name, ip) = (format!("host{end}"), format!("{}/24", IP[end]));
    for kind in ["crt", "key"] {
        let _ = fs::remove_file(home.join(format!("{name}.{kind}")));
    }
    tools::run(
        node.command("nebula-cert")
            .args(["sign", "-name", &name, "-ip", &ip, "-ca-crt"])
            .arg(authority.join("ca.crt"))
            .arg("-ca-key")
            .arg(authority.join("ca.key")),
    )?;
    let config = format!(
        "pki:\n  ca: {0}/ca.crt\n  cert: {1}/{name}.crt\n  key: {1}/{name}.key\nlisten:\n  host: 0.0.0.0\n  port: {NEBULA_PORT}\n\
         punchy:\n  punch: true\ncipher: aes\ntun:\n  dev: nebula0\n  mtu: 1300\n  tx_queue: 500\nlogging:\n  level: warning\n\
         firewall:\n  outbound:\n    - {{port: any, proto: any, host: any}}\n  inbound:\n    - {{port: any, proto: any, host: any}}\n{more}",
        authority.display(),
        home.display(),
    );
    let file = home.join("nebula.yml");
    fs::write(&file, config).map_err(|error| error.to_string())?;
    Ok(node.spawn("taskset", &["-c", &core.to_string(), "nebula", "-config", &file.display().to_string()]))
}

// --- tinc --------------------------------------------------------------------------------------------------------------

pub(super) fn tinc_version() -> Result<String, String> {
    let program = tools::installed("tincd", "tinc")?;
    Ok(format!("tinc {}", tools::version(&program, &["--version"])))
}

/// tinc on both ends; AES-256 and SHA-1, as its own default (Blowfish) is no longer to be had from the system's library.
pub(super) fn tinc(cable: &Cable) -> Result<Tunnel, String> {
    tinc_version()?;
    possible()?;
    let nodes = [&cable.sender, &cable.receiver];
    let folders = nodes.map(|node| node.home().join("tinc"));
    let write = |file: &Path, text: &str| fs::write(file, text).map_err(|error| error.to_string());
    for (end, folder) in folders.iter().enumerate() {
        fs::create_dir_all(folder.join("hosts")).map_err(|error| error.to_string())?;
        let dial = if end == 0 { "ConnectTo = end1\n" } else { "" };
        write(
            &folder.join("tinc.conf"),
            &format!("Name = end{end}\nDeviceType = tun\nInterface = tinc0\n{dial}"),
        )?;
        let own = format!(
            "Address = 10.9.0.{}\nSubnet = {}/32\nCipher = aes-256-cbc\nDigest = sha1\n",
            end + 1,
            IP[end]
        );
        write(&folder.join("hosts").join(format!("end{end}")), &own)?;
        let up = format!("#!/bin/sh\nip addr add {}/24 dev $INTERFACE\nip link set $INTERFACE up\n", IP[end]);
        write(&folder.join("tinc-up"), &up)?;
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder.join("tinc-up"), fs::Permissions::from_mode(0o755))
            .map_err(|error| error.to_string())?;
        // With nobody at the terminal, it takes the default names.
        tools::run(nodes[end].command("tincd").arg("-c").arg(folder).args(["-K", "2048"]))?;
    }
    for end in 0..2 {
        let name = format!("end{end}");
        fs::copy(folders[end].join("hosts").join(&name), folders[1 - end].join("hosts").join(&name))
            .map_err(|error| error.to_string())?;
    }
    let mut processes = Vec::new();
    for end in [1, 0] {
        let folder = folders[end].display().to_string();
        let pid = format!("{folder}/pid");
        processes.push(
            nodes[end]
                .spawn("taskset", &["-c", &end.to_string(), "tincd", "-D", "-c", &folder, "--pidfile", &pid]),
        );
    }
    let billed = processes.iter().map(Process::pid).collect();
    Tunnel::over(cable, billed, processes)
}
