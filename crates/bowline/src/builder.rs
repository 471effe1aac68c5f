//! How an endpoint is set up.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId, SecretKey,
    host::{Allow, BaseName, Host, HostConfig},
    wire::announce,
};

use crate::{
    BindError, Endpoint, coalesce,
    driver::{Driver, Machine, Setup, Shared},
    multicast::Multicast,
    network,
    port_mapping::PortMapping,
    udp::Udp,
};

/// Sets up an [`Endpoint`]; from [`Endpoint::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    key: SecretKey,
    config: HostConfig,
    port: u16,
    excluded: Vec<String>,
    port_mapping: bool,
}

impl Builder {
    pub(crate) fn new(key: SecretKey) -> Self {
        Self { key, config: HostConfig::default(), port: 0, excluded: Vec::new(), port_mapping: false }
    }

    /// Adds a base. All are tried at once; the first to answer is used.
    pub fn base(mut self, name: BaseName) -> Self {
        self.config.bases.push(name);
        self
    }

    /// Adds several bases.
    pub fn bases(mut self, names: impl IntoIterator<Item = BaseName>) -> Self {
        self.config.bases.extend(names);
        self
    }

    /// Who may talk to this device; everyone, unless told otherwise.
    pub fn allow(mut self, allow: Allow) -> Self {
        self.config.allow = allow;
        self
    }

    /// Whether direct paths are tried at all (default: yes). Without them nothing is asked of a base about a peer, not even whether it
    /// takes short messages of a batch together.
    pub fn direct(mut self, on: bool) -> Self {
        self.config.direct = on;
        self
    }

    /// Whether ports of symmetric NATs are guessed, where no direct path comes to stand otherwise (default: yes). It takes a
    /// few hundred sockets for some seconds on the side behind such a NAT.
    pub fn guess_ports(mut self, on: bool) -> Self {
        self.config.guess_ports = on;
        self
    }

    /// Whether the router is asked for a port that is open to everybody (PCP, NAT-PMP, UPnP; default: no). It is told to
    /// others once the base has shown that it leads here, renewed, and given back at the end.
    #[cfg(feature = "port-mapping")]
    pub fn port_mapping(mut self, on: bool) -> Self {
        self.port_mapping = on;
        self
    }

    /// Whether UDP to the base is used (default: yes).
    pub fn relay_udp(mut self, on: bool) -> Self {
        self.config.relay_udp = on;
        self
    }

    /// Whether this device announces itself and listens on local links (default: yes).
    pub fn link_local(mut self, on: bool) -> Self {
        self.config.link_local = on;
        self
    }

    /// The own UDP port, the same for IPv4 and IPv6; 0 (the default) lets the system choose.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// An address of a peer that is known otherwise; may be called several times.
    pub fn given(mut self, peer: DeviceId, address: SocketAddr) -> Self {
        self.config.given.push((peer, address));
        self
    }

    /// Interfaces that are not to be used, by shell-like patterns (`docker*`, `veth?`).
    pub fn exclude_interfaces(mut self, patterns: impl IntoIterator<Item = String>) -> Self {
        self.excluded.extend(patterns);
        self
    }

    /// The program and its version, told to bases: `my-program/1.2`.
    pub fn agent(mut self, agent: String) -> Self {
        self.config.agent = agent;
        self
    }

    /// IDs of bases by `host:port`, remembered from an earlier run: a base that has another one is refused.
    pub fn remembered_bases(mut self, remembered: Vec<(String, DeviceId)>) -> Self {
        self.config.remembered = remembered;
        self
    }

    /// Opens the sockets and starts to work; does not wait for a base ([`Endpoint::online`] does).
    ///
    /// # Errors
    /// When a socket cannot be had; the error says which and why.
    ///
    /// # Panics
    /// When the runtime was built without I/O or without timers ([`enable_all`](tokio::runtime::Builder::enable_all) has both), with Tokio's
    /// words.
    pub async fn bind(self) -> Result<Endpoint, BindError> {
        let Self { key, config, port, excluded, port_mapping } = self;
        if let Err(error) = tokio::runtime::Handle::try_current() {
            return Err(BindError::Runtime(error.to_string()));
        }
        // Without timers this says so, here, and not some task that nobody looks at.
        drop(tokio::time::sleep(Duration::ZERO));
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| BindError::Random(error.to_string()))?;
        let network = network::watch().map_err(BindError::Network)?;
        let interfaces = Arc::clone(&network.interfaces.borrow());
        let udp = Udp::bind(port, interfaces).await?;
        let multicast = if config.link_local { listen_on_links(&udp) } else { None };
        let id = key.device_id();
        let host = Host::new(config, key, seed, Instant::now());
        let shared = Arc::new(Shared::new(Machine::new(host), udp));
        let mapping = port_mapping.then(|| PortMapping::of(&shared)).flatten();
        let driver = Driver::new(Arc::clone(&shared), Setup { network, multicast, excluded, mapping });
        tokio::spawn(driver.run());
        tokio::spawn(coalesce::run(Arc::clone(&shared)));
        Ok(Endpoint::new(id, shared))
    }
}

/// The socket for announcements. Without it, devices on the link are not heard, and all else works.
fn listen_on_links(udp: &Udp) -> Option<Multicast> {
    if udp.v6.is_none() {
        // Whoever runs a system without IPv6 knows it.
        tracing::info!("the system has no IPv6: devices on the link are not heard");
        return None;
    }
    Multicast::open()
        .inspect_err(|error| {
            tracing::warn!("cannot listen on UDP port {} for devices on the link: {error}", announce::PORT);
        })
        .ok()
}
