//! Names to addresses, A and AAAA, by the system's resolver.
//!
//! Nothing is cached and nothing retried here: the machine decides when to ask again. Where there is no way to any of them but through a
//! NAT64, what that has them as comes with them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use bowline_proto::host::Nat64;
use tokio::sync::oneshot;

use crate::config::{LOOKUPS, NAT64, NAT64_NAME, RESOLVE, RESOLVED_ADDRESSES};

/// The addresses of a name (or of an IP address in its text form), in the system's order, or the reason in words.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let lookup = async {
        let mut addresses = look_up(host, port).await?;
        if addresses.iter().all(|&address| is_cut_off(address)) {
            addresses.extend(through_nat64(&addresses).await);
        }
        io::Result::Ok(addresses)
    };
    let addresses = tokio::time::timeout(RESOLVE, lookup)
        .await
        .map_err(|_| format!("no answer within {} s", RESOLVE.as_secs()))?
        .map_err(|error| error.to_string())?;
    let mut unique = Vec::new();
    for address in addresses {
        if !unique.contains(&address) && unique.len() < RESOLVED_ADDRESSES {
            unique.push(address);
        }
    }
    if unique.is_empty() { Err("the name has no address".to_owned()) } else { Ok(unique) }
}

/// Whether this is an IPv4 address and the system has no way to any such. Nothing is sent.
fn is_cut_off(address: SocketAddr) -> bool {
    let way = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.connect(address);
    address.is_ipv4() && way().is_err()
}

/// The network's NAT64, if it has one: by what its name servers make of a name that has no IPv6 address.
pub(crate) async fn nat64() -> io::Result<Option<Nat64>> {
    let made = tokio::time::timeout(NAT64, look_up(NAT64_NAME, 0)).await??;
    Ok(made.iter().find_map(|made| match made.ip() {
        IpAddr::V6(made) => Nat64::of(made),
        IpAddr::V4(_) => None,
    }))
}

/// What the network's NAT64, if it has one, has these as.
async fn through_nat64(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Ok(Some(nat64)) = nat64().await else { return Vec::new() };
    let translated = addresses.iter().filter_map(|address| match address {
        SocketAddr::V4(v4) => Some(SocketAddr::new(nat64.address(*v4.ip()).into(), v4.port())),
        SocketAddr::V6(_) => None,
    });
    translated.collect()
}

/// The system asks name servers that do not answer for half a minute, and nothing ends that. So it does in a thread of its own: a
/// runtime would wait for its threads when it ends, and others need them meanwhile.
async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let going_on = GoingOn::one_more()?;
    let (tell, told) = oneshot::channel();
    let host = host.to_owned();
    thread::Builder::new().name("bowline-resolve".to_owned()).spawn(move || {
        // It fails when nobody waits for it any longer.
        let _ = tell.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
        drop(going_on);
    })?;
    told.await.unwrap_or_else(|_| Err(io::Error::other("the system's resolver broke off")))
}

/// A lookup of this process.
struct GoingOn;

static GOING_ON: AtomicUsize = AtomicUsize::new(0);

impl GoingOn {
    fn one_more() -> io::Result<Self> {
        let more = |count| (count < LOOKUPS).then_some(count + 1);
        match GOING_ON.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(Self),
            Err(_) => Err(io::Error::other("too many names are still being looked up")),
        }
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        GOING_ON.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn addresses_resolve_to_themselves_and_nonsense_to_a_reason() {
        assert_eq!(resolve("192.0.2.7", 4477).await, Ok(vec!["192.0.2.7:4477".parse().unwrap()]));
        assert_eq!(resolve("2001:db8::1", 1).await, Ok(vec!["[2001:db8::1]:1".parse().unwrap()]));
        assert_eq!(resolve("[2001:db8::1]", 1).await, Ok(vec!["[2001:db8::1]:1".parse().unwrap()]));
        assert!(resolve("nonsense.invalid", 1).await.is_err_and(|reason| !reason.is_empty()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_runtime_ends_while_a_name_is_still_being_looked_up() {
        let routes = "ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo";
        let name = "resolve::tests::a_runtime_ends_while_a_name_is_still_being_looked_up";
        if !crate::testns::inside(name, routes) {
            return;
        }
        let _silent = UdpSocket::bind("[::]:53").unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let looked_up = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(500), resolve("base.example", 1)).await
        });
        assert!(looked_up.is_err(), "no name server answers: {looked_up:?}");
        let asked = Instant::now();
        drop(runtime);
        assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
    }

    #[cfg(target_os = "linux")]
    /// The answer of a name server behind a NAT64 to whatever it is asked: an IPv6 address for ipv4only.arpa, and nothing else.
    fn dns64(question: &[u8]) -> Vec<u8> {
        const HEADER: usize = 12;
        const AAAA: &[u8] = &[0, 28, 0, 1];
        let name = b"\x08ipv4only\x04arpa\x00";
        let known = question[HEADER..].starts_with(name) && question[HEADER + name.len()..].starts_with(AAAA);
        let asked =
            &question[HEADER..HEADER + question[HEADER..].iter().position(|&byte| byte == 0).unwrap() + 5];
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
        answer.extend(asked);
        if known {
            answer.extend([0xc0, HEADER as u8, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
            answer.extend("64:ff9b::192.0.0.170".parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
        answer
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_ipv4_address_is_reached_through_the_nat64_of_a_network_that_has_ipv6_alone() {
        let name_servers = "sed -n 's/^nameserver *//p' /etc/resolv.conf";
        let routes = format!("for n in $({name_servers}); do ip route add local $n dev lo || true; done");
        let name =
            "resolve::tests::an_ipv4_address_is_reached_through_the_nat64_of_a_network_that_has_ipv6_alone";
        if !crate::testns::inside(name, &routes) {
            return;
        }
        let server = UdpSocket::bind("[::]:53").unwrap();
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut question) {
                let _ = server.send_to(&dns64(&question[..length]), from);
            }
        });
        let there = ["192.0.2.7:4477", "[64:ff9b::192.0.2.7]:4477"].map(|text| text.parse().unwrap());
        assert_eq!(resolve("192.0.2.7", 4477).await, Ok(there.to_vec()));
        crate::testns::sh("ip route add 192.0.2.0/24 dev lo");
        assert_eq!(resolve("192.0.2.7", 4477).await, Ok(there[..1].to_vec()), "there is a way to it");
    }
}
