//! Reads choices from a fuzzer's bytes. Past the end everything is zero, so any bytes are a whole run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The bytes that are left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (head, tail) = self.0.split_at(N.min(self.0.len()));
        self.0 = tail;
        let mut array = [0; N];
        array[..head.len()].copy_from_slice(head);
        array
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.u8()) % from.len()]
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.u8()) % n.max(1)
    }

    /// A length byte and at most that many bytes.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.u8()).min(self.0.len());
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        head
    }

    /// An address: mostly of a small set, so that different steps meet at the same one.
    pub(crate) fn addr(&mut self) -> SocketAddr {
        let kind = self.u8();
        let port = [4000, 4001, 443, 4477, 0, 80, 40_000, 65_535][usize::from(kind >> 5)];
        let ip: IpAddr = match kind & 0x1f {
            n @ 0..6 => Ipv4Addr::new(192, 0, 2, n).into(),
            n @ 6..10 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into(),
            n @ 10..13 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n.into()).into(),
            n @ 13..16 => Ipv4Addr::new(10, 0, 0, n).into(),
            16 => Ipv4Addr::LOCALHOST.into(),
            17 => Ipv6Addr::LOCALHOST.into(),
            18 => Ipv4Addr::UNSPECIFIED.into(),
            19 => Ipv6Addr::UNSPECIFIED.into(),
            20 => Ipv4Addr::BROADCAST.into(),
            21 => Ipv4Addr::new(224, 0, 0, 1).into(),
            22 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            23 => Ipv6Addr::new(0xfdb0, 1, 2, 3, 4, 5, 6, 7).into(),
            24 => Ipv4Addr::new(100, 64, 0, 1).into(),
            25 => Ipv4Addr::new(169, 254, 1, 1).into(),
            26..29 => Ipv4Addr::from(self.array::<4>()).into(),
            _ => Ipv6Addr::from(self.array::<16>()).into(),
        };
        SocketAddr::new(ip, port)
    }

    /// An address that a datagram can come from, or that a connection can be opened to: the system sees to that.
    pub(crate) fn unicast(&mut self) -> SocketAddr {
        let addr = self.addr();
        let never = match addr.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => match ip.to_canonical() {
                IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
                IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
            },
        };
        if never { SocketAddr::new(Ipv4Addr::new(192, 0, 2, 200).into(), addr.port()) } else { addr }
    }

    /// Up to `most` addresses.
    pub(crate) fn addrs(&mut self, most: usize) -> Vec<SocketAddr> {
        (0..self.below(most + 1)).map(|_| self.addr()).collect()
    }
}
