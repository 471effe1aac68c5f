//! Interfaces on systems whose notifications this crate does not know: looked at every few seconds.
//!
//! So a change is noticed up to [`NETWORK_POLL`](crate::config::NETWORK_POLL) late. What such a system does not tell,
//! default routes above all, is guessed to the safe side: every interface with a global address may have one.

use std::{collections::BTreeMap, io, net::IpAddr};

use bowline_proto::host::Interface;

pub(crate) struct Watcher;

impl Watcher {
    #[allow(clippy::unnecessary_wraps, reason = "the same shape as on Linux")]
    pub(crate) fn new() -> io::Result<(Self, Vec<Interface>)> {
        Ok((Self, read()?))
    }

    /// Waits until it is time to look again.
    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn changed(&mut self) -> Vec<Interface> {
        loop {
            tokio::time::sleep(crate::config::NETWORK_POLL).await;
            match read() {
                Ok(interfaces) => return interfaces,
                Err(error) => tracing::warn!("cannot read the network interfaces: {error}"),
            }
        }
    }
}

/// Whether it is not for want of something that will be there later.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}

fn read() -> io::Result<Vec<Interface>> {
    let mut interfaces = BTreeMap::<u32, Interface>::new();
    for found in if_addrs::get_if_addrs()? {
        let Some(index) = found.index else { continue };
        let interface = interfaces.entry(index).or_insert_with(|| Interface {
            index,
            name: found.name.clone(),
            loopback: found.is_loopback(),
            multicast: !found.is_loopback(),
            default_v4: false,
            default_v6: false,
            preferred: false,
            addresses: Vec::new(),
            routes: Vec::new(),
        });
        let (address, prefix) = match &found.addr {
            if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        match address {
            IpAddr::V4(v4) => interface.default_v4 |= !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => interface.default_v6 |= !v6.is_loopback() && !v6.is_unicast_link_local(),
        }
        interface.addresses.push((address, prefix));
    }
    Ok(interfaces.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let (_, interfaces) = Watcher::new().unwrap();
        let lo = interfaces.iter().find(|interface| interface.loopback).unwrap();
        assert!(lo.addresses.contains(&(IpAddr::from([127, 0, 0, 1]), 8)));
        assert!(!lo.default_v4 && !lo.multicast);
    }
}
