//! The owner's side of the cluster: the link, if there is one, and where other bases reach this one over UDP.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bowline_cluster::{Bus, Next};
use bowline_proto::{
    base::{BusOutput, Over, SocketId, UdpAddress},
    wire::cluster::PREFIX_LEN,
};

use crate::{config::Config, listen::leaves_from};

/// How long the last words to store and bus may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The link to the cluster, or none.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    bus: Option<Bus>,
    /// Taken, and not dealt with yet.
    next: Option<Next>,
    /// What the operator says, in order of preference; ports may be missing.
    address: Option<SocketAddr>,
    advertise: Vec<IpAddr>,
    /// This machine's address as the NATS server sees it, once there was one.
    seen: Option<IpAddr>,
    udp: bool,
    /// The main UDP socket of each listening address.
    mains: Vec<(SocketId, SocketAddr)>,
    dropped: u64,
}

impl Cluster {
    pub(crate) fn new(bus: Option<Bus>, config: &Config, mains: Vec<(SocketId, SocketAddr)>) -> Self {
        let (address, udp) = (config.cluster.address, config.cluster.udp);
        let advertise = config.advertise.clone();
        Self { bus, next: None, address, advertise, seen: None, udp, mains, dropped: 0 }
    }

    /// The next thing that came; never, where there is no cluster.
    pub(crate) async fn next(&mut self) -> Next {
        if let Some(next) = self.next.take() {
            return next;
        }
        match &mut self.bus {
            Some(bus) => bus.next().await,
            None => std::future::pending().await,
        }
    }

    /// What else has come.
    pub(crate) fn more(&mut self) -> Option<Next> {
        let bus = self.bus.as_mut()?;
        bus.more().map(Next::Heard).or_else(|| bus.more_data().map(Next::Data))
    }

    pub(crate) fn put_back(&mut self, next: Next) {
        self.next = Some(next);
    }

    pub(crate) fn say(&self, output: BusOutput) {
        if let Some(bus) = &self.bus {
            bus.say(output);
        }
    }

    /// Sends a message over the bus, or drops it where it has no room.
    pub(crate) fn send(&mut self, over: Over, prefix: &[u8; PREFIX_LEN], message: &[u8]) {
        if self.bus.as_ref().is_some_and(|bus| !bus.send(over, prefix, message)) {
            self.dropped += 1;
        }
    }

    /// Messages that the bus had no room for.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) async fn finish(&mut self) {
        if let Some(bus) = self.bus.take() {
            bus.finish(LAST_WORDS).await;
        }
    }

    /// The NATS server sees this machine at this address.
    pub(crate) fn set_seen(&mut self, seen: Option<IpAddr>) {
        self.seen = seen.map(|ip| ip.to_canonical());
    }

    /// Where other bases reach this one over UDP, at present.
    pub(crate) fn udp_addresses(&self) -> Vec<UdpAddress> {
        if !self.udp {
            return Vec::new();
        }
        // A server on this machine sees it where others would find themselves.
        let seen = |v4| match self.seen {
            Some(ip) if ip.is_loopback() => leaves_from(v4).or(Some(ip)),
            other => other,
        };
        let mut list: Vec<UdpAddress> = Vec::new();
        for &(socket, local) in &self.mains {
            let fits = |ip: &IpAddr| ip.is_ipv4() == local.is_ipv4();
            let address = self.address.filter(|address| fits(&address.ip())).or_else(|| {
                let concrete = Some(local.ip()).filter(|ip| !ip.is_unspecified());
                let advertised = self.advertise.iter().copied().find(fits);
                let ip = advertised.or(concrete).or_else(|| seen(local.is_ipv4()).filter(fits))?;
                Some(SocketAddr::new(ip, local.port()))
            });
            // One of each family: every address that is listened on leads to the same machine.
            let new = list.iter().all(|udp| udp.address.is_ipv4() != local.is_ipv4());
            if let Some(address) = address.filter(|_| new) {
                list.push(UdpAddress { address, socket });
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn addresses(config: &str, mains: &[&str], seen: &str) -> Vec<String> {
        let config: Config = toml::from_str(config).unwrap();
        let mains = (0..).zip(mains).map(|(n, main)| (SocketId(n), main.parse().unwrap())).collect();
        let mut cluster = Cluster::new(None, &config, mains);
        cluster.set_seen(seen.parse().ok());
        cluster.udp_addresses().iter().map(|udp| udp.address.to_string()).collect()
    }

    #[test]
    fn the_operator_s_word_counts_first_then_what_is_listened_on_then_what_nats_sees() {
        let any = ["0.0.0.0:4477", "[::]:4477"];
        assert_eq!(addresses("", &any, "192.0.2.9"), ["192.0.2.9:4477"]);
        assert_eq!(addresses("", &["10.0.0.1:4477", "10.0.0.1:443"], "192.0.2.9"), ["10.0.0.1:4477"]);
        assert_eq!(
            addresses("advertise = ['192.0.2.1', '2001:db8::1']", &any, ""),
            ["192.0.2.1:4477", "[2001:db8::1]:4477"]
        );
        assert_eq!(
            addresses("advertise = ['192.0.2.1']\n[cluster]\naddress = '10.0.0.5:5000'", &any, ""),
            ["10.0.0.5:5000"]
        );
        assert_eq!(addresses("[cluster]\nudp = false", &any, "192.0.2.9"), [""; 0]);
    }

    #[test]
    fn a_base_beside_its_nats_server_is_where_the_machine_is_and_not_on_the_loopback() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // A machine that reaches nobody has no other base to be told.
        if socket.connect("198.51.100.1:9").is_err() {
            return;
        }
        let machine = SocketAddr::new(socket.local_addr().unwrap().ip(), 4477).to_string();
        for seen in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(addresses("", &["0.0.0.0:4477"], seen), [machine.as_str()], "{seen}");
        }
        assert_eq!(addresses("", &["127.0.0.1:4477"], "127.0.0.1"), ["127.0.0.1:4477"], "nowhere else");
    }
}
