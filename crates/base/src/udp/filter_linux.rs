//! A policer in the system: a filter on a socket (classic BPF, socket(7)) that drops some of what some senders send before it takes
//! room in the queue.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};
use socket2::{SockFilter, SockRef};

use super::police::Queue;

sockopt_impl!(
    /// What a socket's queues hold (`SK_MEMINFO_*` of linux/sock_diag.h), all in bytes but the last.
    MemInfo, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9]
);

/// Operations of the filter's machine (bpf(4), linux/filter.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Where the network header begins, and a random number: places that only the system's loads know.
const NETWORK: u32 = (-0x10_0000_i32).cast_unsigned();
const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();
/// Where the sources stand in the headers of IPv4 and IPv6. The socket's own data begin with the UDP header: the sender's port.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;
const SOURCE_PORT: u32 = 0;

/// How the queue of what came stands.
pub(super) fn queue(socket: &UdpSocket) -> Queue {
    let Ok([waits, room, .., dropped]) = getsockopt(socket, MemInfo) else { return Queue::default() };
    Queue { filled: f64::from(waits) / f64::from(room.max(1)), dropped }
}

/// Lets this share of these senders' datagrams in, and all of everybody else's.
pub(super) fn police(socket: &UdpSocket, senders: &[SocketAddr], share: f64) -> io::Result<()> {
    SockRef::from(socket).attach_filter(&program(senders, share))
}

/// Lets everything in.
pub(super) fn release(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).detach_filter()
}

fn program(senders: &[SocketAddr], share: f64) -> Vec<SockFilter> {
    let blocks: Vec<_> = senders.iter().map(|sender| (words(sender.ip()), sender.port())).collect();
    // Two operations for each word and for the port.
    let mut left: usize = blocks.iter().map(|(words, _)| 2 * words.len() + 2).sum();
    let mut program = Vec::with_capacity(left + 5);
    for (words, port) in &blocks {
        let mut in_block = 2 * words.len() + 2;
        for (offset, word) in words {
            in_block -= 2;
            left -= 2;
            program.push(SockFilter::new(LOAD_WORD, 0, 0, *offset));
            program.push(SockFilter::new(JUMP_EQUAL, 0, in_block as u8, *word));
        }
        left -= 2;
        program.push(SockFilter::new(LOAD_HALF, 0, 0, SOURCE_PORT));
        // To the end, and over the `let in` that is there for the others.
        program.push(SockFilter::new(JUMP_EQUAL, left as u8 + 1, 0, u32::from(*port)));
    }
    let threshold = (share.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
    program.extend([
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
        SockFilter::new(JUMP_NOT_LESS, 0, 1, threshold),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]);
    program
}

/// An address as the words that the filter loads: where, and what is there.
fn words(ip: IpAddr) -> Vec<(u32, u32)> {
    let (start, bytes) = match ip {
        IpAddr::V4(ip) => (SOURCE_V4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (SOURCE_V6, ip.octets().to_vec()),
    };
    let place = |number: usize| NETWORK.wrapping_add(start + 4 * number as u32);
    bytes.as_chunks().0.iter().enumerate().map(|(n, word)| (place(n), u32::from_be_bytes(*word))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn sent_and_got(from: &UdpSocket, to: &UdpSocket) -> usize {
        let mut buffer = [0; 16];
        (0..1_000)
            .filter(|_| {
                from.send_to(b"x", to.local_addr().unwrap()).unwrap();
                to.recv(&mut buffer).is_ok()
            })
            .count()
    }

    #[test]
    fn of_the_senders_named_a_share_is_let_in_and_of_others_everything() {
        for here in ["127.0.0.1:0", "[::1]:0"] {
            let to = bound(here);
            let (first, last, other) = (bound(here), bound(here), bound(here));
            let elsewhere = bound(&here.replace("127.0.0.1", "127.0.0.2"));
            // Eight at most; a name with one's port and another's address is nobody.
            let mut named: Vec<SocketAddr> =
                (1..7).map(|n| SocketAddr::new(to.local_addr().unwrap().ip(), n)).collect();
            named.insert(0, first.local_addr().unwrap());
            named.push(last.local_addr().unwrap());
            named[3] = SocketAddr::new("192.0.2.1".parse().unwrap(), other.local_addr().unwrap().port());
            if to.local_addr().unwrap().is_ipv6() {
                named[3].set_ip("::2".parse().unwrap());
            }
            for (share, fits) in [(0.25, 150..350), (0.0, 0..1), (1.0, 1_000..1_001)] {
                police(&to, &named, share).unwrap();
                for sender in [&first, &last] {
                    let got = sent_and_got(sender, &to);
                    assert!(fits.contains(&got), "{got} at {share}");
                }
                for sender in [&other, &elsewhere] {
                    assert_eq!(sent_and_got(sender, &to), 1_000, "{share}");
                }
            }
            release(&to).unwrap();
            assert_eq!(sent_and_got(&first, &to), 1_000);
        }
    }
}
