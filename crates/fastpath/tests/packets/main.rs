//! Packets on real links, past a real kernel: what goes on by itself, and what comes to the base's sockets as if there were no fast path.

#![cfg(target_os = "linux")]

mod frames;
mod limits;
mod tables;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_fastpath::{Counts, Error, FastPath, Setup};
use bowline_lab::{Lab, Node, connect, in_network_as_root};
use bowline_proto::{
    DeviceId,
    base::{Follower as _, Limits, Reached, SharedBudget, SocketId, SourceKey, Via},
    wire::relay,
};
use quinn_udp::{Transmit, UdpSocketState};

/// As many as the base of a [`World`] may have.
const DEVICES: usize = 100;
const PORT: u16 = 4477;
const PATIENCE: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(3_600);
/// What no message begins with: the base's socket sees whatever begins so.
const MARK: &[u8] = &[0x7f];

/// Two devices, a base's machine between them, and a socket in the place of its workers.
struct World {
    left: Node,
    middle: Node,
    right: Node,
    fast_path: Arc<FastPath>,
    worker: UdpSocket,
    a: Device,
    b: Device,
}

struct Device {
    id: DeviceId,
    socket: UdpSocket,
    /// Where the base is, for it.
    base: SocketAddr,
    /// Where there are limits.
    budget: Option<Box<dyn SharedBudget>>,
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn ip(self, link: u8, end: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, link, 0, end).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, link.into(), 0, 0, 0, 0, 0, end.into()).into(),
        }
    }
}

impl Device {
    fn new(node: &Node, family: Family, link: u8) -> Self {
        let socket = node.udp(SocketAddr::new(family.ip(link, 2), 0));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            id: DeviceId::of_public_key(&[link; 32]),
            socket,
            base: SocketAddr::new(family.ip(link, 1), PORT),
            budget: None,
        }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn source(&self) -> SourceKey {
        SourceKey::new(SocketId(0), self.address())
    }

    fn leg(&self) -> Reached {
        let via = Via { socket: SocketId(0), ip: Some(self.base.ip()) };
        Reached { via, to: self.address(), limit: 1_200, until: Instant::now() + LONG }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.base).unwrap();
    }

    /// All of these, which have one size but for the last, in one call.
    fn send_run(&self, datagrams: &[Vec<u8>]) {
        let (size, contents) = (datagrams[0].len(), datagrams.concat());
        let state = UdpSocketState::new((&self.socket).into()).unwrap();
        let transmit = Transmit {
            destination: self.base,
            ecn: None,
            contents: &contents,
            segment_size: Some(size),
            src_ip: None,
        };
        state.try_send((&self.socket).into(), &transmit).unwrap();
        self.socket.set_nonblocking(false).unwrap();
    }

    /// What comes next, which has to come from the base.
    fn receive(&self) -> Vec<u8> {
        let mut datagram = vec![0; 2_000];
        let (length, from) = self.socket.recv_from(&mut datagram).expect("a message");
        assert_eq!(from, self.base);
        datagram.truncate(length);
        datagram
    }
}

impl World {
    fn new(lab: &Lab, family: Family) -> Self {
        Self::with(lab, family, None)
    }

    fn with(lab: &Lab, family: Family, limits: Option<Limits>) -> Self {
        let (left, middle, right) = (lab.node("left"), lab.node("middle"), lab.node("right"));
        for (node, port, link) in [(&left, "l0", 1), (&right, "r0", 2)] {
            connect(node, "eth0", &middle, port);
            let length = if family.ip(link, 1).is_ipv4() { 24 } else { 64 };
            node.address("eth0", &format!("{}/{length}", family.ip(link, 2)));
            middle.address(port, &format!("{}/{length}", family.ip(link, 1)));
        }
        let any = if family.ip(1, 1).is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let sockets = [SocketAddr::new(any, PORT)];
        let worker = middle.udp(sockets[0]);
        worker.set_read_timeout(Some(PATIENCE)).unwrap();
        frames::make_tap(&middle);
        let interfaces = ["l0", "r0", frames::TAP].map(str::to_owned);
        let setup = Setup { interfaces: &interfaces, sockets: &sockets, devices: DEVICES, limits };
        let fast_path = middle.enter(|| FastPath::start(setup)).unwrap();
        let (a, b) = (Device::new(&left, family, 1), Device::new(&right, family, 2));
        let mut world = Self { left, middle, right, fast_path, worker, a, b };
        for device in [&mut world.a, &mut world.b] {
            device.budget = world.fast_path.budget();
        }
        for device in [&world.a, &world.b] {
            // As a base answers whoever registers an address: the kernel knows its neighbours from then on.
            world.worker.send_to(MARK, device.address()).unwrap();
            assert_eq!(device.receive(), MARK);
            let budget = device.budget.as_ref().map(|budget| budget.number());
            world.fast_path.seized(&device.source(), device.id, budget);
            world.fast_path.placed(device.id, Some(device.leg()));
        }
        world
    }

    /// What the base's socket sees next.
    fn passed_up(&self) -> Vec<u8> {
        let mut datagram = vec![0; 2_000];
        let (length, _) = self.worker.recv_from(&mut datagram).expect("a datagram for the base");
        datagram.truncate(length);
        datagram
    }

    /// The base's socket has seen nothing that is not said here.
    fn nothing_was_passed_up(&self) {
        self.a.send(MARK);
        assert_eq!(self.passed_up(), MARK);
    }

    fn goes_on(&self, message: &[u8]) {
        self.a.send(message);
        assert_eq!(self.b.receive(), relayed(message, self.a.id));
        self.nothing_was_passed_up();
    }

    fn comes_to_the_base(&self, message: &[u8]) {
        let before = self.fast_path.counts().messages;
        self.a.send(message);
        assert_eq!(self.passed_up(), message);
        assert_eq!(self.fast_path.counts().messages, before);
    }
}

fn message(kind: u8, to: DeviceId, length: usize, seed: u8) -> Vec<u8> {
    let data = (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed));
    relay::header(kind, to).into_iter().chain(data).collect()
}

fn to(device: &Device, length: usize) -> Vec<u8> {
    message(relay::SEND_DATA, device.id, length, 7)
}

fn relayed(sent: &[u8], from: DeviceId) -> Vec<u8> {
    let mut message = sent.to_vec();
    relay::rewrite(&mut message, from).unwrap();
    message
}

/// What an interface does for the kernel, "on" or "off".
fn offload(node: &Node, interface: &str, what: &str, how: &str) {
    let done = node.command("ethtool").args(["-K", interface, what, how]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

fn each_offload(world: &World, mut check: impl FnMut(&str)) {
    for left in ["on", "off"] {
        for middle in ["on", "off"] {
            // Who sums up what is sent: the card, so that the packet comes with half a checksum, or the sender.
            offload(&world.left, "eth0", "tx", left);
            // Off: what is left of a checksum is made here, and the receiver looks at it.
            offload(&world.middle, "r0", "tx", middle);
            check(&format!("left {left}, middle {middle}"));
        }
    }
}

fn messages_go_on(lab: &Lab, family: Family) {
    let world = World::new(lab, family);
    let mut all = Counts::default();
    each_offload(&world, |_| {
        for kind in [relay::SEND_DATA, relay::SEND_JOINED] {
            for length in [0, 1, 2, 3, 100, 1_199, 1_200] {
                world.goes_on(&message(kind, world.b.id, length, length as u8));
                all.messages += 1;
                all.bytes += length as u64;
            }
        }
    });
    assert_eq!(world.fast_path.counts(), all);
    let back = to(&world.a, 500);
    world.b.send(&back);
    assert_eq!(world.a.receive(), relayed(&back, world.b.id));
    let own = to(&world.a, 300);
    world.a.send(&own);
    assert_eq!(world.a.receive(), relayed(&own, world.a.id));
    world.nothing_was_passed_up();
}

#[test]
fn messages_go_on_over_ipv4() {
    in_network_as_root(|lab| messages_go_on(lab, Family::V4));
}

#[test]
fn messages_go_on_over_ipv6() {
    in_network_as_root(|lab| messages_go_on(lab, Family::V6));
}

fn merged_messages_go_on(lab: &Lab, family: Family) {
    let world = World::new(lab, family);
    each_offload(&world, |case| {
        for (count, length, last) in [(40, 1_200, 1_200), (64, 100, 100), (3, 700, 33), (2, 9, 0)] {
            let of = |n: usize| {
                message(relay::SEND_DATA, world.b.id, if n + 1 < count { length } else { last }, n as u8)
            };
            let run: Vec<_> = (0..count).map(of).collect();
            let before = world.fast_path.counts();
            world.a.send_run(&run);
            for sent in &run {
                assert_eq!(world.b.receive(), relayed(sent, world.a.id), "{case}");
            }
            world.nothing_was_passed_up();
            let after = world.fast_path.counts();
            let bytes = length * (count - 1) + last;
            assert_eq!(
                (after.messages - before.messages, after.bytes - before.bytes),
                (count as u64, bytes as u64)
            );
        }
    });
}

#[test]
fn merged_messages_go_on_over_ipv4() {
    in_network_as_root(|lab| merged_messages_go_on(lab, Family::V4));
}

#[test]
fn merged_messages_go_on_over_ipv6() {
    in_network_as_root(|lab| merged_messages_go_on(lab, Family::V6));
}

#[test]
fn merged_messages_to_several_devices_come_to_the_base() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let other = DeviceId::of_public_key(&[9; 32]);
        for odd in [0, 1, 7] {
            // All of one size, one of them to somebody else, or of another kind.
            for stranger in
                [message(relay::SEND_DATA, other, 200, 1), message(relay::SEND_JOINED, world.b.id, 200, 1)]
            {
                let mut run = vec![to(&world.b, 200); 8];
                run[odd] = stranger;
                world.a.send_run(&run);
                for sent in &run {
                    assert_eq!(&world.passed_up(), sent);
                }
            }
        }
        // A last one that is no message at all.
        let run = [to(&world.b, 200), vec![relay::SEND_DATA; 14]];
        world.a.send_run(&run);
        run.iter().for_each(|sent| assert_eq!(&world.passed_up(), sent));
        assert_eq!(world.fast_path.counts(), Counts::default());
    });
}

#[test]
fn what_is_not_plain_comes_to_the_base() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let (a, b) = (&world.a, &world.b);
        world.goes_on(&to(b, 10));
        // To nobody who is known, too short, too long for its destination, and larger than a packet.
        world.comes_to_the_base(&message(relay::SEND_DATA, DeviceId::of_public_key(&[9; 32]), 10, 0));
        world.comes_to_the_base(&to(b, 10)[..14]);
        world.comes_to_the_base(&to(b, 1_201));
        world.comes_to_the_base(&to(b, 1_900));
        for kind in (0..=255).filter(|&kind| kind != relay::SEND_DATA && kind != relay::SEND_JOINED) {
            world.comes_to_the_base(&message(kind, b.id, 10, 0));
        }
        // From an address that is nobody's.
        let stranger = Device {
            id: a.id,
            socket: world.left.udp(SocketAddr::new(a.address().ip(), 0)),
            base: a.base,
            budget: None,
        };
        stranger.send(&to(b, 10));
        assert_eq!(world.passed_up(), to(b, 10));
        // To another port of the machine, where no base is.
        let other = world.middle.udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT + 1)));
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        a.socket.send_to(&to(b, 10), SocketAddr::new(a.base.ip(), PORT + 1)).unwrap();
        assert_eq!(other.recv(&mut [0; 100]).unwrap(), 25);
        // To whoever cannot be sent to at once: the next hop is not known.
        let nowhere = Reached { to: "10.2.0.77:1".parse().unwrap(), ..b.leg() };
        world.fast_path.placed(b.id, Some(nowhere));
        world.comes_to_the_base(&to(b, 10));
        assert_eq!(world.fast_path.counts().no_way, 1);
        // By an address of the other family.
        world.fast_path.placed(b.id, Some(Reached { to: "[fd00::7]:1".parse().unwrap(), ..b.leg() }));
        world.comes_to_the_base(&to(b, 10));
    });
}

#[test]
fn a_link_with_a_smaller_mtu_is_left_to_the_base() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        world.middle.ip("link set r0 mtu 1000");
        // 28 bytes of IP and UDP, 15 of the message.
        world.goes_on(&to(&world.b, 957));
        world.comes_to_the_base(&to(&world.b, 958));
        assert_eq!(world.fast_path.counts().no_way, 1);
    });
}

#[test]
fn a_device_that_moves_or_leaves_is_followed() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let (b, fast_path) = (&world.b, &world.fast_path);
        world.goes_on(&to(b, 10));
        let before = b.leg();

        let moved = Device {
            id: b.id,
            socket: world.right.udp(SocketAddr::new(b.address().ip(), 0)),
            base: b.base,
            budget: None,
        };
        moved.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        fast_path.placed(b.id, Some(moved.leg()));
        // A worker had looked it up just before, and comes late.
        fast_path.lives(b.id, Reached { until: before.until + LONG, ..before });
        world.a.send(&to(b, 11));
        assert_eq!(moved.receive(), relayed(&to(b, 11), world.a.id));

        // Its time is over; then it shows that it lives.
        fast_path.placed(b.id, None);
        let over = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        fast_path.placed(b.id, Some(Reached { until: over, ..moved.leg() }));
        world.comes_to_the_base(&to(b, 12));
        fast_path.lives(b.id, moved.leg());
        // The machine had looked at it just before.
        fast_path.placed(b.id, Some(Reached { until: over, ..moved.leg() }));
        world.a.send(&to(b, 13));
        assert_eq!(moved.receive(), relayed(&to(b, 13), world.a.id));

        fast_path.placed(b.id, Some(moved.leg()));
        fast_path.placed(b.id, None);
        world.comes_to_the_base(&to(b, 14));
        fast_path.lives(b.id, moved.leg());
        world.comes_to_the_base(&to(b, 14));

        // The sender's address is nobody's any more, and then somebody else's.
        fast_path.placed(b.id, Some(b.leg()));
        world.goes_on(&to(b, 15));
        fast_path.let_go(&world.a.source());
        world.comes_to_the_base(&to(b, 16));
        let other = DeviceId::of_public_key(&[9; 32]);
        fast_path.seized(&world.a.source(), other, None);
        world.a.send(&to(b, 17));
        assert_eq!(b.receive(), relayed(&to(b, 17), other));
    });
}

#[test]
fn the_base_can_ask_when_a_device_was_heard() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let source = world.a.source();
        assert_eq!(world.fast_path.heard(&source), None);
        let before = Instant::now();
        world.goes_on(&to(&world.b, 10));
        let heard = world.fast_path.heard(&source).unwrap();
        // The kernel's coarse clock ticks each 10 ms at the slowest.
        assert!(heard + Duration::from_millis(20) > before && heard <= Instant::now());
        world.fast_path.let_go(&source);
        assert_eq!(world.fast_path.heard(&source), None);
    });
}

#[test]
fn addresses_that_the_base_gets_later_count_too() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let at = |ip: Ipv4Addr| {
            let via = Via { socket: SocketId(0), ip: Some(ip.into()) };
            world.fast_path.placed(world.a.id, Some(Reached { via, ..world.a.leg() }));
        };
        (1..=40).for_each(|end| at(Ipv4Addr::new(10, 9, 0, end)));
        world.middle.address("l0", "10.1.0.9/24");
        at(Ipv4Addr::new(10, 1, 0, 9));
        let sent = to(&world.b, 10);
        world.a.socket.send_to(&sent, ("10.1.0.9", PORT)).unwrap();
        assert_eq!(world.b.receive(), relayed(&sent, world.a.id));
    });
}

#[test]
fn more_devices_than_there_is_room_for_are_relayed_by_the_base() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        for n in 0..200_u8 {
            world.fast_path.placed(
                DeviceId::of_public_key(&[n, 1, 2, 3].repeat(8).try_into().unwrap()),
                Some(world.b.leg()),
            );
        }
        let late = DeviceId::of_public_key(&[199, 1, 2, 3].repeat(8).try_into().unwrap());
        world.comes_to_the_base(&message(relay::SEND_DATA, late, 10, 0));
        world.goes_on(&to(&world.b, 10));
    });
}

#[test]
fn when_the_base_ends_the_kernel_forwards_nothing() {
    in_network_as_root(|lab| {
        let World { a, b, fast_path, worker, .. } = World::new(lab, Family::V4);
        drop(fast_path);
        a.send(&to(&b, 10));
        let mut datagram = [0; 100];
        let length = worker.recv(&mut datagram).unwrap();
        assert_eq!(datagram[..length], to(&b, 10));
    });
}

#[test]
fn interfaces_that_it_cannot_use_are_named() {
    in_network_as_root(|lab| {
        let node = lab.node("base");
        let start_all = |interfaces: &[&str]| {
            let interfaces: Vec<_> = interfaces.iter().map(|&name| name.to_owned()).collect();
            let setup = Setup { interfaces: &interfaces, sockets: &[], devices: 1, limits: None };
            node.enter(|| FastPath::start(setup).map(drop))
        };
        let start = |interface| start_all(&[interface]);
        assert!(matches!(start("eth7"), Err(Error::NoInterface(name)) if name == "eth7"));
        node.ip("tuntap add dev tunnel mode tun");
        assert!(matches!(start("tunnel"), Err(Error::NotEthernet(name)) if name == "tunnel"));
        start("lo").unwrap();
        frames::make_tap(&node);
        node.ip("link property add dev t0 altname other-t0");
        start_all(&["other-t0"]).unwrap();
        start_all(&["t0", "other-t0", "t0"]).unwrap();
    });
}
