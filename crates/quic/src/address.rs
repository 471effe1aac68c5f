//! Devices as socket addresses, and back: QUIC implementations want those.
//!
//! The address of a device is its ID in full (`fdb0::/16` and the 14 bytes), so that there is no table to keep and nothing to
//! mix up. It means nothing to any network: only [`crate::Endpoint`]'s own socket sends to it.

use std::net::{IpAddr, SocketAddr};

use bowline::DeviceId;

use crate::config::PORT;

/// The first two bytes.
const PREFIX: [u8; 2] = [0xfd, 0xb0];

/// The address that stands for a device.
pub(crate) fn of(device: DeviceId) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(device.to_ipv6()), PORT)
}

/// The device that an address stands for.
pub(crate) fn device(address: SocketAddr) -> Option<DeviceId> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let octets = ip.octets();
    let id = octets.strip_prefix(&PREFIX)?.try_into().ok()?;
    (address.port() == PORT).then(|| DeviceId::from_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_whole_id_and_other_addresses_are_nobody() {
        let id = DeviceId::of_public_key(&[7; 32]);
        assert_eq!(device(of(id)), Some(id));
        for other in ["192.0.2.1:4477", "[2001:db8::1]:4477", "[fdb0::1]:1"] {
            assert_eq!(device(other.parse().unwrap()), None);
        }
    }
}
