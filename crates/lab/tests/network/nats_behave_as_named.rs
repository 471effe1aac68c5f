//! The ground under all other tests here: each kind of NAT maps and filters as its name says, in the words of RFC 4787.
//!
//! A server with two addresses and two ports each tells where a client's datagrams come from (mapping), and answers from all
//! four although the client wrote to one (filtering).

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
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
fn an_address_restricted_router_maps_one_port_and_filters_by_address_alone() {
    in_network(|lab| {
        let world = World::new(lab, Nat::AddressRestricted);
        let (mapped, open) = world.probe();
        assert_eq!(distinct(&mapped), 1, "{mapped:?}");
        assert_eq!(open, [true, true, false, false]);
    });
}

#[test]
fn a_port_pool_maps_one_port_that_is_not_the_one_inside_and_another_after_a_restart() {
    in_network(|lab| {
        let world = World::new(lab, Nat::PortPool);
        let (mapped, open) = world.probe();
        assert_eq!(distinct(&mapped), 1, "{mapped:?}");
        assert!(mapped.iter().all(|address| (20_000..30_000).contains(&address.port())), "{mapped:?}");
        assert_eq!(open, [true, false, false, false]);

        // From the first port that a system gives to a socket to the last.
        for inside in [5070, 32_768, 40_000, 45_000, 49_999, 60_999] {
            let socket = world.client.udp(SocketAddr::from(([0, 0, 0, 0], inside)));
            let before = world.observe(&socket, 0).expect("UDP passes");
            assert_ne!(before.port(), inside);
            world.home.reboot(Nat::PortPool);
            assert_ne!(
                world.observe(&socket, 0),
                Some(before),
                "one of ten thousand would be the same by chance"
            );
        }
    });
}

#[test]
fn a_connection_does_not_survive_the_restart_of_a_router_with_a_port_pool() {
    in_network(|lab| {
        let world = World::new(lab, Nat::PortPool);
        let address = SocketAddr::from(([203, 0, 113, 10], 4477));
        let listener = world.server.enter(|| TcpListener::bind(address)).expect("a free port");
        let mut stream =
            world.client.enter(|| TcpStream::connect_timeout(&address, ANSWER)).expect("TCP passes");
        let (_accepted, outside) = listener.accept().expect("it was connected");
        assert!((20_000..30_000).contains(&outside.port()), "{outside}");
        world.home.reboot(Nat::PortPool);
        stream.write_all(b"?").expect("taken by the system");
        let reset = stream.read(&mut [0]).expect_err("the server knows no such connection");
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_sequential_symmetric_router_maps_the_next_port_for_every_destination() {
    in_network(|lab| {
        let world = World::new(lab, Nat::SymmetricSequential);
        let (mapped, open) = world.probe();
        let first = mapped[0].port();
        let ports: Vec<_> = mapped.iter().map(|address| address.port() - first).collect();
        assert_eq!(ports, [0, 1, 2, 3], "{mapped:?}");
        assert_eq!(open, [true, false, false, false]);
    });
}

#[test]
fn a_hairpin_router_lets_machines_inside_meet_at_their_addresses_outside_and_others_do_not() {
    in_network(|lab| {
        let internet = Internet::new(lab);
        let server =
            internet.server(lab, "server", 100).udp("203.0.113.100:3478".parse().expect("an address"));
        timeouts(&[&server]);
        for (number, nat, possible) in
            [(1, Nat::Hairpin, true), (2, Nat::FullCone, false), (3, Nat::Home, false)]
        {
            let home = internet.home(lab, number, nat);
            let sides = [2, 3].map(|device| {
                let node = home.device_v4(lab, &format!("device{number}{device}"), device);
                home.isolate(&node, "eth0");
                let socket = node.udp(any());
                socket.send_to(b"?", server.local_addr().expect("bound")).expect("sent");
                let (_, external) = server.recv_from(&mut [0; 16]).expect("UDP passes");
                (socket, external)
            });
            assert_eq!(punch(&sides), possible, "{nat:?}");
            if possible {
                let (left, right) = (&sides[0], &sides[1]);
                drain(&right.0);
                left.0.send_to(b"hi", right.1).expect("sent");
                let (_, seen) = right.0.recv_from(&mut [0; 16]).expect("it came by the hairpin");
                assert_eq!(seen, left.1, "and seems to come from outside");
            }
        }
    });
}

#[test]
fn devices_of_a_home_that_keeps_them_apart_reach_the_router_and_not_each_other() {
    in_network(|lab| {
        let home = Internet::new(lab).home(lab, 1, Nat::Home);
        let [left, right] = [2, 3].map(|number| home.device_v4(lab, &format!("device{number}"), number));
        let sockets = [&left, &right].map(|node| node.udp(any()));
        timeouts(&sockets.each_ref());
        let port = sockets[1].local_addr().expect("bound").port();
        let inside = SocketAddr::from(([10, 1, 0, 3], port));
        sockets[0].send_to(b"?", inside).expect("sent");
        assert!(answered(&sockets[1]), "one switch");
        home.isolate(&left, "eth0");
        home.isolate(&right, "eth0");
        sockets[0].send_to(b"?", inside).expect("sent");
        assert!(!answered(&sockets[1]), "kept apart");
    });
}

#[test]
fn behind_two_routers_one_port_is_mapped_and_filtered_as_by_the_stricter() {
    in_network(|lab| {
        let internet = Internet::new(lab);
        for (number, carrier, distinct_ports) in [(1, Nat::Home, 1), (2, Nat::Symmetric, 4)] {
            let (_, home) = internet.home_behind_carrier(lab, number, carrier, Nat::Home);
            let client = home.device_v4(lab, &format!("client{number}"), 2);
            let world = World::around(lab, &internet, home, client, 100 + 2 * number);
            let (mapped, open) = world.probe();
            assert_eq!(distinct(&mapped), distinct_ports, "{carrier:?}: {mapped:?}");
            let outside = format!("203.0.113.{number}");
            assert!(mapped.iter().all(|address| address.ip().to_string() == outside), "{mapped:?}");
            assert_eq!(open, [true, false, false, false], "{carrier:?}");
        }
    });
}

#[test]
fn where_only_tcp_443_passes_other_ports_are_refused_and_udp_vanishes() {
    in_network(|lab| {
        let world = World::new(lab, Nat::Tcp443Only);
        assert_eq!(world.observe(&world.client.udp(any()), 0), None);
        let connect = |port: u16| {
            let address = SocketAddr::from(([203, 0, 113, 10], port));
            world.client.enter(|| TcpStream::connect_timeout(&address, ANSWER))
        };
        let listen = |port: u16| {
            let address = SocketAddr::from(([203, 0, 113, 10], port));
            world.server.enter(|| TcpListener::bind(address)).expect("a free port")
        };
        let _listening = (listen(443), listen(4477));
        connect(443).expect("the web's port passes");
        let refused = connect(4477).expect_err("no other does");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn without_a_router_everything_comes_through() {
    in_network(|lab| {
        let internet = Internet::new(lab);
        let home = internet.home(lab, 1, Nat::Home); // somebody else's
        let client = internet.server(lab, "client", 50);
        let world = World::around(lab, &internet, home, client, 10);
        let (mapped, open) = world.probe();
        assert_eq!(distinct(&mapped), 1, "{mapped:?}");
        assert_eq!(mapped[0].ip().to_string(), "203.0.113.50");
        assert_eq!(open, [true, true, true, true]);
    });
}

#[test]
fn a_device_with_one_family_has_no_address_of_the_other() {
    in_network(|lab| {
        let home = Internet::new(lab).home(lab, 1, Nat::Home);
        let (v4, v6) = (home.device_v4(lab, "v4", 2), home.device_v6(lab, "v6", 3));
        assert_eq!(v4.ip("-6 addr show"), "");
        assert_eq!(v6.ip("-4 addr show dev eth0"), "");
        let unreachable = v6.udp(any()).send_to(b"?", "203.0.113.10:1").expect_err("no way by IPv4");
        assert_eq!(unreachable.kind(), ErrorKind::NetworkUnreachable);
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
    use Nat::{AddressRestricted, FullCone, Hairpin, Home, PortPool, Symmetric, SymmetricSequential};
    let pairs = [
        (Home, Home, true),
        (FullCone, Home, true),
        (FullCone, Symmetric, true),
        (AddressRestricted, Home, true),
        (AddressRestricted, Symmetric, true),
        (PortPool, PortPool, true),
        (Hairpin, SymmetricSequential, true),
        (PortPool, Symmetric, false),
        (Home, Symmetric, false),
        (Home, SymmetricSequential, false),
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
    timeouts_of(&[left, right], ANSWER);
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
        let home = internet.home(lab, 1, nat);
        let client = home.device(lab, "client", 2);
        Self::around(lab, &internet, home, client, 10)
    }

    /// A world around this client, whose server has the public addresses with this number and the next.
    fn around(lab: &Lab, internet: &Internet, home: Home, client: Node, number: u8) -> Self {
        let server = internet.server(lab, &format!("server{number}"), number);
        server.address("wan", &format!("203.0.113.{}/24", number + 1));
        let sockets = [(number, 3478), (number, 3479), (number + 1, 3478), (number + 1, 3479)]
            .map(|(number, port)| server.udp(SocketAddr::from(([203, 0, 113, number], port))));
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

/// Takes what has come already.
fn drain(socket: &UdpSocket) {
    while answered(socket) {}
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
