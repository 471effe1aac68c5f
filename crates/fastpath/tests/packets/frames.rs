//! Frames that no socket sends, made byte by byte: what the kernel would not hand to the base's sockets must not go on either.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
};

use bowline_fastpath::{Counts, FastPath, Setup};
use bowline_lab::{Lab, Node, eventually, in_network_as_root};
use bowline_proto::{
    DeviceId,
    base::{Follower as _, Reached, SocketId, SourceKey, Via},
    wire::relay,
};

use crate::{Family, PATIENCE, PORT, World, message, offload, relayed, to};

/// An interface of the base's machine whose far end is the test.
pub(crate) const TAP: &str = "t0";
const TAP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ETHERNET: usize = 14;
const UDP: usize = 8;

pub(crate) fn make_tap(node: &Node) {
    let mac = TAP_MAC.map(|byte| format!("{byte:02x}")).join(":");
    node.ip(&format!("tuntap add dev {TAP} mode tap vnet_hdr"));
    node.ip(&format!("link set dev {TAP} address {mac} up"));
}

pub(crate) struct Tap(File);

impl Tap {
    pub(crate) fn of(node: &Node) -> Self {
        Self(node.enter(|| {
            let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
            attach(&file);
            file
        }))
    }

    /// The frame comes in, its checksums made.
    fn put(&self, frame: &[u8]) {
        self.put_with([0; 10], frame);
    }

    /// Datagrams that the far end has merged: how many it does not say, as a virtual machine does not.
    pub(crate) fn put_merged(&self, frame: &[u8], size: usize) {
        const NEEDS_CHECKSUM: u8 = 1;
        const GSO_UDP_L4: u8 = 5;
        let udp = ETHERNET + ip_len(frame);
        let mut header = [NEEDS_CHECKSUM, GSO_UDP_L4, 0, 0, 0, 0, 0, 0, 6, 0];
        header[2..4].copy_from_slice(&((udp + UDP) as u16).to_le_bytes());
        header[4..6].copy_from_slice(&(size as u16).to_le_bytes());
        header[6..8].copy_from_slice(&(udp as u16).to_le_bytes());
        let mut frame = frame.to_vec();
        let pseudo = folded(pseudo_header(&frame));
        frame[udp + 6..udp + 8].copy_from_slice(&pseudo.to_be_bytes());
        self.put_with(header, &frame);
    }

    fn put_with(&self, header: [u8; 10], frame: &[u8]) {
        let whole = [&header, frame].concat();
        assert_eq!((&self.0).write(&whole).unwrap(), whole.len());
    }
}

#[allow(
    unsafe_code,
    reason = "the one way to a tap: an ioctl that reads what it is given, and keeps no pointer to it"
)]
fn attach(tun: &File) {
    const TUNSETIFF: nix::libc::Ioctl = 0x4004_54ca;
    const TAP_WITHOUT_INFO_BUT_OFFLOADS: u16 = 0x0002 | 0x1000 | 0x4000;
    let mut request = [0_u8; 40];
    request[..TAP.len()].copy_from_slice(TAP.as_bytes());
    request[16..18].copy_from_slice(&TAP_WITHOUT_INFO_BUT_OFFLOADS.to_ne_bytes());
    // SAFETY: `request` is as long as a `struct ifreq`.
    let done = unsafe { nix::libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn ip_len(frame: &[u8]) -> usize {
    if frame[ETHERNET] >> 4 == 4 { 20 } else { 40 }
}

/// Sum of 16-bit words.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_header(frame: &[u8]) -> u64 {
    let ip = &frame[ETHERNET..];
    let (ips, protocol) = if ip_len(frame) == 20 { (&ip[12..20], ip[9]) } else { (&ip[8..40], ip[6]) };
    let length = frame.len() - ETHERNET - ip_len(frame);
    sum(ips) + u64::from(protocol) + length as u64
}

/// Of these addresses, each as it is: an IPv4 one that is mapped goes into an IPv6 header.
pub(crate) fn frame(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = (UDP + payload.len()) as u16;
    let kind: u16 = if from.is_ipv4() { 0x0800 } else { 0x86dd };
    let mut frame = [&TAP_MAC[..], &FAR_MAC, &kind.to_be_bytes()].concat();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            sum_up_header(&mut frame);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("of two families: {from} and {to}"),
    }
    let udp = frame.len();
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    let check = !folded(pseudo_header(&frame) + sum(&frame[udp..]));
    frame[udp + 6..udp + 8].copy_from_slice(&check.to_be_bytes());
    frame
}

/// The checksum of an IPv4 header.
fn sum_up_header(frame: &mut [u8]) {
    let header = &mut frame[ETHERNET..ETHERNET + 20];
    header[10..12].fill(0);
    let check = !folded(sum(header));
    header[10..12].copy_from_slice(&check.to_be_bytes());
}

impl World {
    /// As the first device would send it.
    fn frame(&self, length: usize) -> Vec<u8> {
        frame(self.a.address(), self.a.base, &to(&self.b, length))
    }

    /// The frame is neither sent on nor handed to the base.
    fn is_dropped(&self, tap: &Tap, frame: &[u8], case: &str) {
        let before = self.fast_path.counts().messages;
        tap.put(frame);
        self.goes_on(&to(&self.b, 100));
        assert_eq!(self.fast_path.counts().messages, before + 1, "{case}");
    }
}

#[test]
fn what_is_for_another_machine_is_left_alone() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let tap = Tap::of(&world.middle);
        let mut frame = world.frame(10);
        tap.put(&frame);
        assert_eq!(world.b.receive(), relayed(&to(&world.b, 10), world.a.id));
        // As a switch floods it, or as a sniffer has the card take it.
        frame[5] = 9;
        world.is_dropped(&tap, &frame, "another MAC address");
        // The kernel leaves it to the receiver whether he takes what is for all.
        frame[..6].fill(0xff);
        let before = world.fast_path.counts();
        tap.put(&frame);
        assert_eq!(world.passed_up(), to(&world.b, 10));
        assert_eq!(world.fast_path.counts(), before);
    });
}

#[test]
fn an_ipv4_address_counts_in_ipv4_alone() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V6);
        let tap = Tap::of(&world.middle);
        // A device on IPv4, and where it has found the base.
        let [device, base] = [2, 1].map(|end| Ipv4Addr::new(10, 9, 0, end));
        let at = SocketAddr::from((device, 1_000));
        let id = DeviceId::of_public_key(&[9; 32]);
        let via = Via { socket: SocketId(0), ip: Some(base.into()) };
        world.fast_path.seized(&SourceKey::new(SocketId(0), at), id, None);
        world.fast_path.placed(id, Some(Reached { via, to: at, ..world.a.leg() }));
        let [from, to_base] =
            [(device, 1_000), (base, PORT)].map(|(ip, port)| SocketAddr::from((ip.to_ipv6_mapped(), port)));
        world.is_dropped(&tap, &frame(from, to_base, &to(&world.b, 10)), "mapped addresses");
    });
}

#[test]
fn merged_messages_of_a_virtual_machine_are_looked_at_one_by_one() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let tap = Tap::of(&world.middle);
        let run = |datagrams: &[Vec<u8>]| {
            tap.put_merged(&frame(world.a.address(), world.a.base, &datagrams.concat()), datagrams[0].len());
        };
        let alike = [to(&world.b, 200), to(&world.b, 200), to(&world.b, 50)];
        run(&alike);
        for sent in &alike {
            assert_eq!(world.b.receive(), relayed(sent, world.a.id));
        }
        assert_eq!(world.fast_path.counts(), Counts { messages: 3, bytes: 450, ..Counts::default() });
        // As if the base had relayed the second for somebody else.
        let forged = message(relay::RECV_DATA, DeviceId::of_public_key(&[9; 32]), 200, 1);
        let mixed = [to(&world.b, 200), forged];
        run(&mixed);
        for sent in &mixed {
            assert_eq!(&world.passed_up(), sent);
        }
        assert_eq!(world.fast_path.counts().messages, 3);
    });
}

fn lengths_have_to_be_true(lab: &Lab, family: Family) {
    let world = World::new(lab, family);
    let tap = Tap::of(&world.middle);
    let good = world.frame(10);
    let of_packet = ETHERNET + if family.ip(1, 1).is_ipv4() { 3 } else { 5 };
    let of_datagram = ETHERNET + ip_len(&good) + 5;
    for at in [of_packet, of_datagram] {
        for by in [1, 0xff] {
            let mut lies = good.clone();
            lies[at] = lies[at].wrapping_add(by);
            if family.ip(1, 1).is_ipv4() {
                sum_up_header(&mut lies);
            }
            world.is_dropped(&tap, &lies, &format!("{by} more at {at}"));
        }
    }
}

#[test]
fn lengths_have_to_be_true_over_ipv4() {
    in_network_as_root(|lab| lengths_have_to_be_true(lab, Family::V4));
}

#[test]
fn lengths_have_to_be_true_over_ipv6() {
    in_network_as_root(|lab| lengths_have_to_be_true(lab, Family::V6));
}

#[test]
fn a_damaged_ipv4_header_does_not_go_on() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let tap = Tap::of(&world.middle);
        let mut damaged = world.frame(10);
        damaged[ETHERNET + 11] ^= 1;
        world.is_dropped(&tap, &damaged, "a wrong checksum");
    });
}

#[test]
fn nobody_speaks_from_outside_for_an_ipv4_device_on_the_machine_itself() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        let tap = Tap::of(&world.middle);
        for ip in [world.a.base.ip(), world.b.base.ip(), Ipv4Addr::LOCALHOST.into()] {
            let device = SocketAddr::new(ip, 1_000);
            world.fast_path.seized(
                &SourceKey::new(SocketId(0), device),
                DeviceId::of_public_key(&[9; 32]),
                None,
            );
            world.is_dropped(&tap, &frame(device, world.a.base, &to(&world.b, 10)), &format!("from {ip}"));
        }
    });
}

#[test]
fn nobody_speaks_from_outside_for_an_ipv6_device_on_the_machine_itself() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V6);
        let tap = Tap::of(&world.middle);
        for ip in [world.a.base.ip(), Ipv6Addr::LOCALHOST.into()] {
            let device = SocketAddr::new(ip, 1_000);
            world.fast_path.seized(
                &SourceKey::new(SocketId(0), device),
                DeviceId::of_public_key(&[9; 32]),
                None,
            );
            let before = world.fast_path.counts();
            tap.put(&frame(device, world.a.base, &to(&world.b, 10)));
            assert_eq!(world.fast_path.counts(), before, "from {ip}");
        }
    });
}

/// The kernel may keep what it merges as a list of packets, each with its checksum. Older ones cannot send such a list on once it has been
/// made one piece, which takes looking at all of it.
#[test]
fn messages_merged_as_a_list_come_to_the_base() {
    in_network_as_root(|lab| {
        let world = World::new(lab, Family::V4);
        // Single packets, each with its checksum.
        offload(&world.left, "eth0", "tx", "off");
        offload(&world.left, "eth0", "tx-udp-segmentation", "off");
        offload(&world.middle, "l0", "rx-gro-list", "on");
        offload(&world.middle, "l0", "gro", "on");
        for length in [1, 14, 200] {
            let run = vec![to(&world.b, length); 32];
            let before = world.fast_path.counts().messages;
            world.a.send_run(&run);
            let mut here = 0;
            // Those that came alone go on.
            world.a.send(crate::MARK);
            while world.passed_up() != crate::MARK {
                here += 1;
            }
            let gone = world.fast_path.counts().messages - before;
            for _ in 0..gone {
                assert_eq!(world.b.receive(), relayed(&run[0], world.a.id));
            }
            assert_eq!(here + gone, 32);
            assert!(here > 1, "none was merged, or the list was taken apart");
        }
    });
}

#[test]
fn default_routes_that_routers_advertise_stay() {
    in_network_as_root(|lab| {
        let node = lab.node("base");
        make_tap(&node);
        let tap = Tap::of(&node);
        let default_route = || Some(node.ip("-6 route show default")).filter(|routes| !routes.is_empty());
        // A router advertisement that lasts 1,800 s.
        let (router, all) =
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        let mut frame = frame(SocketAddr::from((router, 0)), SocketAddr::from((all, 0)), &[0; 8]);
        frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        (frame[ETHERNET + 6], frame[ETHERNET + 7]) = (58, 255);
        let advertisement = ETHERNET + 40;
        frame[advertisement..].copy_from_slice(&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        let check = !folded(pseudo_header(&frame) + sum(&frame[advertisement..]));
        frame[advertisement + 2..advertisement + 4].copy_from_slice(&check.to_be_bytes());
        eventually("a default route", PATIENCE, || {
            tap.put(&frame);
            default_route()
        });
        let accepts = || std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{TAP}/accept_ra")).unwrap();
        let before = node.enter(accepts);
        let interfaces = [TAP.to_owned()];
        let setup = Setup { interfaces: &interfaces, sockets: &[], devices: 1, limits: None };
        let _fast_path = node.enter(|| FastPath::start(setup)).unwrap();
        assert!(default_route().is_some(), "the machine has lost its way out");
        assert_eq!(node.enter(accepts), before);
    });
}
