//! Names to addresses, A and AAAA, by the system's resolver.
//!
//! Nothing is cached and nothing retried here: the machine decides when to ask again.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use tokio::sync::oneshot;

use crate::config::{LOOKUPS, RESOLVE, RESOLVED_ADDRESSES};

/// The addresses of a name (or of an IP address in its text form), in the system's order, or the reason in words.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let lookup = tokio::time::timeout(RESOLVE, look_up(host, port));
    let addresses = lookup
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
    use std::{
        net::UdpSocket,
        time::{Duration, Instant},
    };

    use super::*;

    #[tokio::test]
    async fn addresses_resolve_to_themselves_and_nonsense_to_a_reason() {
        assert_eq!(resolve("192.0.2.7", 4477).await, Ok(vec!["192.0.2.7:4477".parse().unwrap()]));
        assert_eq!(resolve("2001:db8::1", 1).await, Ok(vec!["[2001:db8::1]:1".parse().unwrap()]));
        assert_eq!(resolve("[2001:db8::1]", 1).await, Ok(vec!["[2001:db8::1]:1".parse().unwrap()]));
        assert!(resolve("nonsense.invalid", 1).await.is_err_and(|reason| !reason.is_empty()));
    }

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
}
