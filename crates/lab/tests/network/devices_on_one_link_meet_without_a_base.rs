//! Row 10: two devices on one link find each other by multicast and talk, with no base and no address but the link-local one.

use bowline_lab::{
    Capture, Lab, Node, connect, in_network,
    program::{Listener, Pinger},
    with_bowline,
};
use bowline_proto::wire::announce;

use crate::{OFTEN, SOON};

/// A switch with two machines on it, none with an address of its own choosing.
fn link(lab: &Lab) -> [Node; 2] {
    let switch = lab.node("switch");
    switch.bridge("br");
    ["left", "right"].map(|name| {
        let node = lab.node(name);
        connect(&node, "eth0", &switch, name);
        switch.ip(&format!("link set dev {name} master br"));
        node
    })
}

#[test]
fn two_devices_find_each_other_and_talk() {
    with_bowline(|lab| {
        let [left, right] = link(lab);
        let listener = Listener::start(&left, "listener", &[]);
        let pinger = Pinger::start(&right, &listener.id, OFTEN, &[]);
        let answer = pinger.wait_path("direct", SOON, 0);
        let address = answer.address.expect("a direct path has an address");
        assert_eq!(address.ip(), left.link_local("eth0"), "the way is the link-local one");
        pinger.wait_answers(50, SOON, 0);
    });
}

#[test]
fn several_programs_on_one_machine_share_the_multicast_port() {
    with_bowline(|lab| {
        let [left, right] = link(lab);
        let first = Listener::start(&left, "first", &[]);
        let second = Listener::start(&left, "second", &[]);
        let third = Listener::start(&right, "third", &[]);
        // From another machine to both, and from the same machine to its neighbours: all four share ports as they go.
        let pingers =
            [&first, &second, &third].map(|listener| Pinger::start(&right, &listener.id, OFTEN, &[]));
        for pinger in &pingers {
            assert_eq!(pinger.wait_answers(10, SOON, 0)[9].path, "direct");
        }
    });
}

#[test]
fn announcements_are_the_bare_id_with_hop_limit_255_from_the_link_local_address() {
    with_bowline(|lab| {
        let [left, right] = link(lab);
        let capture = Capture::start(&right);
        let listener = Listener::start(&left, "listener", &[]);
        let id: bowline_proto::DeviceId = listener.id.parse().expect("an ID");
        let seen = bowline_lab::eventually("an announcement", SOON, || {
            capture.seen().into_iter().find(|seen| seen.to == (announce::GROUP, announce::PORT).into())
        });
        assert_eq!(seen.payload, id.as_bytes());
        assert_eq!(seen.hop_limit, announce::HOP_LIMIT);
        assert_eq!(seen.from.ip(), left.link_local("eth0"));
    });
}

#[test]
fn the_link_itself_carries_multicast() {
    // If this fails, the other tests here say nothing about bowline.
    in_network(|lab| {
        let [left, right] = link(lab);
        let (from, to) = (left.interface_index("eth0"), right.interface_index("eth0"));
        let receiver = right.udp("[::]:4478".parse().expect("an address"));
        receiver.join_multicast_v6(&announce::GROUP, to).expect("joined");
        receiver.set_read_timeout(Some(OFTEN)).expect("a timeout");
        let sender = left.udp("[::]:0".parse().expect("an address"));
        let group = std::net::SocketAddrV6::new(announce::GROUP, announce::PORT, 0, from);
        let mut buffer = [0; 8];
        let began = std::time::Instant::now();
        // The other machine's group is known to the link a moment after it has joined.
        let (length, source) = loop {
            sender.send_to(b"here", group).expect("sent");
            match receiver.recv_from(&mut buffer) {
                Ok(received) => break received,
                Err(error) => assert!(began.elapsed() < SOON, "{error}"),
            }
        };
        assert_eq!((&buffer[..length], source.ip()), (&b"here"[..], left.link_local("eth0")));
    });
}
