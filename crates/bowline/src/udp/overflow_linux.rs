//! How many datagrams a socket lost because its buffer was full: the kernel counts them, and shows them in `/proc/net/udp`.
//!
//! Read only when somebody asks; it costs nothing otherwise.

use std::{fs, os::fd::AsRawFd, os::unix::fs::MetadataExt as _};

/// The columns of a line in `/proc/net/udp` that tell which socket it is and what it lost.
const INODE: usize = 9;
const DROPS: usize = 12;

pub(super) fn drops(socket: &impl AsRawFd) -> u64 {
    let Ok(metadata) = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())) else { return 0 };
    let inode = metadata.ino().to_string();
    // The thread's own network namespace: mostly the one that the socket was made in.
    ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
        .iter()
        .filter_map(|table| drops_in(&fs::read_to_string(table).ok()?, &inode))
        .sum()
}

fn drops_in(table: &str, inode: &str) -> Option<u64> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|columns| columns.get(INODE) == Some(&inode))?;
    line.get(DROPS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_does_not_fit_into_the_buffer_is_counted() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        socket2::SockRef::from(&b).set_recv_buffer_size(4096).unwrap();
        assert_eq!(drops(&b), 0);
        for _ in 0..100 {
            a.send_to(&[0; 1000], b.local_addr().unwrap()).unwrap();
        }
        let dropped = drops(&b);
        assert!((50..100).contains(&dropped), "{dropped}");
        assert_eq!(drops(&a), 0);
    }
}
