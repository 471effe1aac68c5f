//! The ground under all other tests here: each kind of NAT maps and filters as its name says, in the words of RFC 4787.
//!
//! A server with two addresses and two ports each tells where a client's datagrams come from (mapping), and answers from all
//! four although the client wrote to one (filtering).

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use bowline_lab::{Home, Internet, Lab, Nat, Node, in_network};

/// An answer inside this machine takes well under a millisecond; on two busy cores, more.
const ANSWER: Duration = Duration::from_millis(300);

#[test]
fn an_ordinary_home_router_maps_one_port_and_filters_by_address_and_port() {
    in_network(|lab| {
        let world = World::new(lab, Nat::Home);
        let (mapped, open) = world.probe();
        assert_eq!(distinct(&mapped), 1, "one external port for all destinations: {mapped:?}");
        assert!(mapped.iter().all(|address| address.ip().to_string() == "203.0.113.1"), "{mapped:?}");
        assert_eq!(open, [true, false, false, false]);
    });
}

#[test]
fn a_full_cone_router_maps_one_port_and_filters_nothing() {
    in_network(|lab| {
        let world = World::new(lab, Nat::FullCone);
        let (mapped, open) = world.probe();
        assert_eq!(distinct(&mapped), 1, "{mapped:?}");
        assert_eq!(open, [true, true, true, true]);
    });
}

#[test]
fn a_symmetric_router_maps_another_port_for_every_destination() {
    in_network(|lab| {
        let world = World::new(lab, Nat::Symmetric);
        let (mapped, open) = world.probe();
        assert_eq!(distinct(&mapped), 4, "{mapped:?}");
        assert_eq!(open, [true, false, false, false]);
    });
}

#[test]
fn a_router_that_blocks_udp_lets_none_out_until_its_rules_change() {
    in_network(|lab| {
        let world = World::new(lab, Nat::UdpBlocked);
        let socket = world.client.udp(any());
        assert_eq!(world.observe(&socket, 0), None);
        world.home.router.set_nat(Nat::Home);
        assert!(world.observe(&socket, 0).is_some());
    });
}

#[test]
fn a_packet_that_comes_first_does_not_spoil_the_mapping_towards_its_sender() {
    in_network(|lab| {
        let world = World::new(lab, Nat::Home);
        let socket = world.client.udp(any());
        let mapped = world.observe(&socket, 0).expect("UDP passes");
        world.servers[2].send_to(b"early", mapped).expect("sent");
        assert!(!answered(&socket), "a home router drops what was not asked for");
        assert_eq!(
            world.observe(&socket, 2),
            Some(mapped),
            "punching towards the early sender keeps the port"
        );
    });
}

#[test]
fn an_ipv6_home_has_a_firewall_and_no_translation() {
    in_network(|lab| {
        let world = World::new(lab, Nat::Home);
        let server = world.server.udp("[2001:db8:113::10]:3478".parse().expect("an address"));
        let stranger = world.server.udp("[2001:db8:113::10]:3479".parse().expect("an address"));
        let socket = world.client.udp("[::]:0".parse().expect("an address"));
        timeouts(&[&server, &socket]);
        socket.send_to(b"?", server.local_addr().expect("bound")).expect("sent");
        let (_, seen) = server.recv_from(&mut [0; 16]).expect("IPv6 passes outwards");
        assert_eq!(seen.ip().to_string(), "2001:db8:1::2");
        stranger.send_to(b"!", seen).expect("sent");
        assert!(!answered(&socket), "the firewall drops what was not asked for");
        server.send_to(b"!", seen).expect("sent");
        assert!(answered(&socket), "and lets answers in");
    });
}

#[test]
fn a_router_that_forgets_its_mappings_lets_nothing_in_until_the_inside_speaks_again() {
    in_network(|lab| {
        let world = World::new(lab, Nat::Home);
        let socket = world.client.udp(any());
        let mapped = world.observe(&socket, 0).expect("UDP passes");
        world.home.router.flush_conntrack();
        world.servers[0].send_to(b"late", mapped).expect("sent");
        assert!(!answered(&socket));
        assert!(world.observe(&socket, 0).is_some());
    });
}

#[test]
fn a_hole_can_be_punched_by_hand_exactly_where_two_kinds_of_nat_allow_it() {
    use Nat::{FullCone, Home, Symmetric};
    let pairs = [
        (Home, Home, true),
        (FullCone, Home, true),
        (FullCone, Symmetric, true),
        (Home, Symmetric, false),
        (Symmetric, Symmetric, false),
    ];
    in_network(|lab| {
        let internet = Internet::new(lab);
        let server =
            internet.server(lab, "server", 100).udp("203.0.113.100:3478".parse().expect("an address"));
        timeouts(&[&server]);
        for (number, (one, other, possible)) in (1..).step_by(2).zip(pairs) {
            let sides = [(number, one), (number + 1, other)].map(|(number, nat)| {
                let device = internet.home(lab, number, nat).device_v4(lab, &format!("device{number}"), 2);
                let socket = device.udp(any());
                socket.send_to(b"?", server.local_addr().expect("bound")).expect("sent");
                let (_, external) = server.recv_from(&mut [0; 16]).expect("UDP passes");
                (socket, external)
            });
            assert_eq!(punch(&sides), possible, "{one:?} and {other:?}");
        }
    });
}

/// Both sides write to the address that the other is known by outside, a few times in turn.
fn punch(sides: &[(UdpSocket, SocketAddr); 2]) -> bool {
    const TRIES: usize = 4;
    let [(left, left_outside), (right, right_outside)] = sides;
    timeouts_of(&[left, right], ANSWER / 6);
    let mut through = [false; 2];
    for _ in 0..TRIES {
        left.send_to(b"punch", right_outside).expect("sent");
        right.send_to(b"punch", left_outside).expect("sent");
        through = [through[0] || answered(left), through[1] || answered(right)];
    }
    // Where one side's real port differs from the one that was told, the other can answer what did come in.
    through.contains(&true)
}

struct World {
    home: Home,
    client: Node,
    server: Node,
    servers: [UdpSocket; 4],
}

impl World {
    fn new(lab: &Lab, nat: Nat) -> Self {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "server", 10);
        server.address("wan", "203.0.113.11/24");
        let home = internet.home(lab, 1, nat);
        let client = home.device(lab, "client", 2);
        let sockets = ["203.0.113.10:3478", "203.0.113.10:3479", "203.0.113.11:3478", "203.0.113.11:3479"]
            .map(|address| server.udp(address.parse().expect("an address")));
        timeouts(&sockets.each_ref());
        Self { home, client, server, servers: sockets }
    }

    /// The external addresses towards the four servers, and from which of them a socket that wrote to the first is reached.
    fn probe(&self) -> (Vec<SocketAddr>, [bool; 4]) {
        let socket = self.client.udp(any());
        let mapped = (0..4).map(|server| self.observe(&socket, server).expect("UDP passes")).collect();

        let socket = self.client.udp(any());
        let external = self.observe(&socket, 0).expect("UDP passes");
        let open = self.servers.each_ref().map(|server| {
            server.send_to(b"!", external).expect("sent");
            answered(&socket)
        });
        (mapped, open)
    }

    /// Where a datagram from this socket to a server seems to come from.
    fn observe(&self, socket: &UdpSocket, server: usize) -> Option<SocketAddr> {
        socket.set_read_timeout(Some(ANSWER)).expect("a timeout");
        let server = &self.servers[server];
        socket.send_to(b"?", server.local_addr().expect("bound")).expect("sent");
        server.recv_from(&mut [0; 16]).ok().map(|(_, from)| from)
    }
}

fn answered(socket: &UdpSocket) -> bool {
    match socket.recv_from(&mut [0; 16]) {
        Ok(_) => true,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

fn timeouts(sockets: &[&UdpSocket]) {
    timeouts_of(sockets, ANSWER);
}

fn timeouts_of(sockets: &[&UdpSocket], timeout: Duration) {
    for socket in sockets {
        socket.set_read_timeout(Some(timeout)).expect("a timeout");
    }
}

fn any() -> SocketAddr {
    "0.0.0.0:0".parse().expect("an address")
}

fn distinct(addresses: &[SocketAddr]) -> usize {
    addresses.iter().collect::<std::collections::HashSet<_>>().len()
}
