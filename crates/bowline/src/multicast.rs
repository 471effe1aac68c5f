//! Hearing the announcements of devices on local links (protocol section 10).
//!
//! One socket on the multicast port, shared with all other programs that listen there, and joined to the group on
//! every interface that can multicast; announcements are *sent* from the unicast socket, so that their source is the
//! address to answer. This file takes no notice of who announces: whether source, hop limit and length are as they
//! must be is the machine's to check, and so is knowing its own announcements. Linux only so far: elsewhere there is
//! no safe way to read the hop limit, and other devices are not heard on the link (they still hear this one).

use std::{
    collections::HashSet,
    io::{self, IoSliceMut},
    net::{Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use bowline_proto::{host::Interface, id::DEVICE_ID_LEN, wire::announce};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

/// Bytes that are read of an announcement: one more than it has, so that longer ones show.
const READ: usize = DEVICE_ID_LEN + 1;
/// Receives before the driver looks at anything else.
const PER_WAKE: usize = 32;

#[derive(Debug)]
pub(crate) struct Multicast {
    io: UdpSocket,
    /// Interfaces on which the group was joined.
    joined: HashSet<u32>,
    /// Room for the hop limit of a datagram.
    control: Vec<u8>,
}

/// What came to the group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// Its source; the scope is the interface it came by.
    pub(crate) from: SocketAddr,
    pub(crate) hop_limit: u8,
    pub(crate) payload: Vec<u8>,
}

impl Multicast {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        // With this option, and on all sockets of all programs this one and no other, every one gets every multicast.
        socket.set_reuse_address(true)?;
        // Else a socket hears what any program of the machine has joined, on any interface.
        socket.set_multicast_all_v6(false)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, announce::PORT)).into())?;
        let io = UdpSocket::from_std(socket.into())?;
        Ok(Self { io, joined: HashSet::new(), control: nix::cmsg_space!(i32) })
    }

    /// Joins on what is new, leaves what is gone. An interface that was replaced has another number, and so is new.
    pub(crate) fn set_interfaces(&mut self, interfaces: &[Interface]) {
        let wanted: HashSet<u32> = interfaces.iter().filter(|i| i.multicast).map(|i| i.index).collect();
        for &index in self.joined.difference(&wanted) {
            // It fails where the interface no longer exists, which is the same as having left.
            let _ = self.io.leave_multicast_v6(&announce::GROUP, index);
        }
        self.joined.retain(|index| wanted.contains(index));
        for &index in &wanted {
            if self.joined.contains(&index) {
                continue;
            }
            match self.io.join_multicast_v6(&announce::GROUP, index) {
                Ok(()) => {
                    self.joined.insert(index);
                }
                // Interfaces without IPv6 refuse; the next change of the network tries again.
                Err(error) => tracing::debug!(interface = index, "cannot listen on the link: {error}"),
            }
        }
    }

    /// Waits until something may have come.
    pub(crate) async fn readable(&self) {
        // An error shows at the next receive.
        let _ = self.io.readable().await;
    }

    /// What has come, a bounded number at a time.
    pub(crate) fn receive(&mut self) -> Vec<Announcement> {
        let mut received = Vec::new();
        for _ in 0..PER_WAKE {
            let Self { io, control, .. } = self;
            match io.try_io(Interest::READABLE, || receive_one(io, control)) {
                Ok(Some(announcement)) => received.push(announcement),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!("cannot receive announcements: {error}");
                    break;
                }
            }
        }
        received
    }
}

/// One datagram; `None` if it has no IPv6 source or no hop limit.
fn receive_one(io: &UdpSocket, control: &mut [u8]) -> io::Result<Option<Announcement>> {
    let mut payload = [0; READ];
    let mut slices = [IoSliceMut::new(&mut payload)];
    let message = recvmsg::<SockaddrIn6>(io.as_raw_fd(), &mut slices, Some(control), MsgFlags::empty())?;
    let hop_limit = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6HopLimit(limit) => u8::try_from(limit).ok(),
        _ => None,
    });
    let (from, length) = (message.address, message.bytes);
    let (Some(from), Some(hop_limit)) = (from, hop_limit) else { return Ok(None) };
    let from = std::net::SocketAddrV6::new(from.ip(), from.port(), 0, from.scope_id());
    Ok(Some(Announcement { from: from.into(), hop_limit, payload: payload[..length].to_vec() }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        network,
        testns::{inside, sh},
        udp::Udp,
    };

    async fn hear(multicast: &mut Multicast) -> Option<Announcement> {
        let heard = async {
            loop {
                multicast.readable().await;
                if let Some(first) = multicast.receive().into_iter().next() {
                    return first;
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(500), heard).await.ok()
    }

    /// The pair of interfaces, once both have their link-local addresses.
    async fn interfaces(watch: &mut network::Watch) -> Vec<Interface> {
        let ready = watch.interfaces.wait_for(|interfaces| {
            interfaces.iter().filter(|i| i.multicast && !i.addresses.is_empty()).count() == 2
        });
        tokio::time::timeout(Duration::from_secs(5), ready).await.unwrap().unwrap().to_vec()
    }

    #[tokio::test]
    async fn announcements_reach_every_program_on_the_link_with_their_hop_limit_and_scope() {
        let pair = "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up";
        let setup = format!("sysctl -qw net.ipv6.conf.default.accept_dad=0 && {pair}");
        let name = "announcements_reach_every_program_on_the_link_with_their_hop_limit_and_scope";
        if !inside(&format!("multicast::tests::{name}"), &setup) {
            return;
        }
        let mut watch = network::watch().unwrap();
        let udp = Udp::bind(0, network::Interfaces::default()).await.unwrap();
        let mut programs = [Multicast::open().unwrap(), Multicast::open().unwrap()];
        for round in 0..2 {
            let known = interfaces(&mut watch).await;
            let (v0, v1) = (&known[known.len() - 2], &known[known.len() - 1]);
            // Each end hears what the other sends; what one sends itself is not counted here.
            for program in &mut programs {
                program.set_interfaces(std::slice::from_ref(v1));
            }
            udp.announce(v0.index, b"fourteen bytes").unwrap();
            for program in &mut programs {
                let heard = hear(program).await.expect("nothing was heard");
                let SocketAddr::V6(from) = heard.from else { panic!("{heard:?}") };
                assert_eq!(heard.hop_limit, 255);
                assert_eq!(heard.payload, b"fourteen bytes");
                assert_eq!(from.scope_id(), v1.index);
                assert_eq!(from.port(), udp.v6.as_ref().unwrap().port);
                assert!(v0.addresses.contains(&((*from.ip()).into(), 64)));
            }
            if round == 0 {
                // Interfaces that are replaced have new numbers and must be joined anew.
                sh(&format!("ip link del v0 && {pair}"));
                watch.interfaces.wait_for(|all| all.iter().all(|i| i.index != v0.index)).await.unwrap();
            }
        }
        for program in &mut programs {
            program.set_interfaces(&[]);
        }
        udp.announce(interfaces(&mut watch).await[1].index, b"fourteen bytes").unwrap();
        assert_eq!(hear(&mut programs[0]).await, None, "an interface that was left is not heard");
    }
}
