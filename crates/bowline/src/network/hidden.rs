//! The network where the system does not let it be seen: in sandboxes without netlink (a systemd unit with `RestrictAddressFamilies=`,
//! apps on Android).
//!
//! What can be asked there is which address a datagram to far away would leave from, in each family. So a change of that is noticed, up
//! to [`NETWORK_POLL`] late, and told to others; interfaces are not known, and devices on the link are not heard.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use bowline_proto::host::Interface;
use tokio::time::sleep;

use crate::config::NETWORK_POLL;

/// Far away, in each family: addresses that nobody has (RFC 5737, RFC 3849). Nothing is sent there.
const AFAR: [(&str, &str); 2] = [("0.0.0.0:0", "198.51.100.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// What there is to see: one interface without name or number, by which everything leaves.
pub(super) fn look() -> Vec<Interface> {
    let addresses: Vec<_> = AFAR.into_iter().filter_map(|(from, to)| source(from, to)).collect();
    vec![Interface {
        index: 0,
        name: String::new(),
        loopback: false,
        multicast: false,
        default_v4: addresses.iter().any(IpAddr::is_ipv4),
        default_v6: addresses.iter().any(IpAddr::is_ipv6),
        preferred: true,
        // Nothing else is known to be on the link.
        addresses: addresses.into_iter().map(|ip| (ip, if ip.is_ipv4() { 32 } else { 128 })).collect(),
        routes: Vec::new(),
    }]
}

/// Waits until it is time to look again.
pub(super) async fn changed() -> Vec<Interface> {
    sleep(NETWORK_POLL).await;
    look()
}

fn source(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().as_ref().map(SocketAddr::ip)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::testns::{inside, sh};

    #[test]
    fn the_addresses_that_lead_out_are_seen_and_those_alone() {
        let setup = "sysctl -qw net.ipv6.conf.default.accept_dad=0 && ip link add v0 type veth peer name v1 && ip link set v0 up";
        let setup = format!(
            "{setup} && ip link set v1 up && ip addr add 192.0.2.7/24 dev v0 && ip addr add fd00::7/64 dev v0"
        );
        if !inside("network::hidden::tests::the_addresses_that_lead_out_are_seen_and_those_alone", &setup) {
            return;
        }
        let seen = || look().pop().map(|i| (i.default_v4, i.default_v6, i.addresses)).unwrap();
        assert_eq!(seen(), (false, false, Vec::new()));
        sh("ip route add default via 192.0.2.1 dev v0");
        let v4 = ([192, 0, 2, 7].into(), 32);
        assert_eq!(seen(), (true, false, vec![v4]));
        sh("ip route add default via fd00::1 dev v0");
        assert_eq!(seen(), (true, true, vec![v4, ("fd00::7".parse().unwrap(), 128)]));
    }
}
