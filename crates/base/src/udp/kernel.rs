//! What is asked of the system about UDP sockets beyond sending and receiving. Where it cannot be asked, nothing happens.

use std::net::{SocketAddr, UdpSocket};

/// The time of every datagram's arrival is paid for by every datagram, and nobody here asks.
#[cfg(target_os = "linux")]
pub(crate) fn spare_timestamps(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    let timestamps = setsockopt(socket, sockopt::ReceiveTimestampns, &false);
    // Nor for what the network was told of congestion.
    let marks = match socket.local_addr() {
        Ok(SocketAddr::V4(_)) => setsockopt(socket, sockopt::IpRecvTos, &false),
        _ => setsockopt(socket, sockopt::Ipv6RecvTClass, &false),
    };
    if let Err(error) = timestamps.and(marks) {
        tracing::debug!(%error, "socket options");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn spare_timestamps(_: &UdpSocket) {}

/// Datagrams that the system dropped before anybody could read them because a socket's buffer was full, summed over the
/// sockets on these addresses.
#[cfg(target_os = "linux")]
pub(crate) fn dropped(locals: &[SocketAddr]) -> u64 {
    let of_family = |path: &str, v4: bool| -> u64 {
        let table = std::fs::read_to_string(path).unwrap_or_default();
        let ours = |port: u16| locals.iter().any(|local| local.is_ipv4() == v4 && local.port() == port);
        let lines = table.lines().skip(1).filter_map(|line| drops_of(line).filter(|&(port, _)| ours(port)));
        lines.map(|(_, drops)| drops).sum()
    };
    of_family("/proc/self/net/udp", true) + of_family("/proc/self/net/udp6", false)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn dropped(_: &[SocketAddr]) -> u64 {
    0
}

/// Local port and drops of a line of proc_net_udp(5): the second word is `address:port` in hexadecimal, the last one counts.
#[cfg(any(target_os = "linux", test))]
fn drops_of(line: &str) -> Option<(u16, u64)> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, line.split_whitespace().next_back()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_system_s_table() {
        let line = " 1021: 00000000:117D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7 2 x 42";
        assert_eq!(drops_of(line), Some((4477, 42)));
        assert_eq!(drops_of("nonsense"), None);
    }
}
