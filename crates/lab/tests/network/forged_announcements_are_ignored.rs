//! Row 10: an announcement that may have crossed a router is ignored: hop limit under 255, a source that is not link-local, another length.
//!
//! A device wants a peer that nobody is. Announcements in its name come from several sockets; a HELLO to a socket tells that its
//! announcement was believed.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};

use bowline_lab::{connect, eventually, program::Pinger, with_bowline};
use bowline_proto::{DeviceId, wire::announce, wire::peer};
use socket2::SockRef;

use crate::{OFTEN, SOON};

#[test]
fn only_the_announcement_that_comes_from_the_link_draws_a_hello() {
    with_bowline(|lab| {
        let (device, forger) = (lab.node("device"), lab.node("forger"));
        connect(&device, "eth0", &forger, "eth0");
        device.address("eth0", "2001:db8::1/64");
        forger.address("eth0", "2001:db8::2/64");
        let wanted = DeviceId::from_bytes([7; 14]);
        let _pinger = Pinger::start(&device, &wanted.to_string(), OFTEN, &[]);

        let id = wanted.as_bytes();
        let longer = [&id[..], &[0]].concat();
        let link = Ipv6Addr::UNSPECIFIED; // the system takes the link-local address towards the group
        let routed = "2001:db8::2".parse().expect("an address");
        let socket = |source: Ipv6Addr, hops| {
            let socket = forger.udp((source, 0).into());
            SockRef::from(&socket).set_multicast_hops_v6(hops).expect("a hop limit");
            socket.set_nonblocking(true).expect("nonblocking");
            socket
        };
        let forged = [
            ("hop limit 254", socket(link, 254), &id[..]),
            ("hop limit 1", socket(link, 1), &id[..]),
            ("a routed source", socket(routed, 255), &id[..]),
            ("15 bytes", socket(link, 255), &longer[..]),
            ("13 bytes", socket(link, 255), &id[..13]),
            ("no byte", socket(link, 255), &[]),
        ];
        let honest = socket(link, 255);

        let group = SocketAddrV6::new(announce::GROUP, announce::PORT, 0, forger.interface_index("eth0"));
        eventually("a HELLO to the honest announcement", SOON, || {
            // Forged ones first, every time: were one believed, it would be answered first.
            for (_, socket, payload) in &forged {
                socket.send_to(payload, group).expect("sent");
            }
            honest.send_to(id, group).expect("sent");
            received_hello(&honest).then_some(())
        });
        for (what, socket, _) in &forged {
            assert!(!received_hello(socket), "an announcement with {what} was believed");
        }
    });
}

fn received_hello(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 1500];
    let hello = [&peer::MAGIC[..], &[peer::HELLO]].concat();
    socket.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length].starts_with(&hello))
}
