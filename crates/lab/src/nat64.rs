//! NAT64 and DNS64: what carriers give phones that have IPv6 alone.
//!
//! The translation is tayga's, which knows no ports; behind it the router's ordinary NAT does the rest. The name server makes an IPv6
//! address of the one name by which a network shows its prefix (RFC 7050), and answers nothing else.

use std::{fs, net::Ipv6Addr, thread};

use crate::{node::Node, process::Process, world::Home};

/// Under which a router that translates has IPv4. The well-known prefix is not for addresses of documentation.
const PREFIX: &str = "2001:db8:64::";
/// What tayga makes of IPv6 addresses, before the NAT.
const POOL: &str = "192.168.255.0/24";

impl Home {
    /// The router translates between the IPv6 of its devices and the internet's IPv4. It does so while the process lives.
    #[must_use]
    pub fn nat64(&self) -> Process {
        let router = &self.router;
        let folder = router.home().join("tayga");
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        let config = folder.join("tayga.conf");
        let words = format!(
            "tun-device nat64\nipv4-addr 192.168.255.1\nipv6-addr 2001:db8:ff::2\nprefix {PREFIX}/96\ndynamic-pool {POOL}\ndata-dir {}\n",
            folder.display()
        );
        fs::write(&config, words).expect("the test's folder can be written to");
        router.ip("tuntap add dev nat64 mode tun");
        router.ip("link set dev nat64 up");
        router.address("nat64", "192.168.254.1/32");
        router.address("nat64", "2001:db8:ff::1/128");
        for route in [POOL, "2001:db8:ff::2/128", &format!("{PREFIX}/96")] {
            router.route(&format!("{route} dev nat64"));
        }
        router.nft("insert rule inet lab forward iifname \"nat64\" accept");
        router.spawn("tayga", &["--config", &config.to_string_lossy(), "--nodetach"])
    }
}

impl Node {
    /// Whatever name server this machine's programs ask is one in this very machine, of a network that has IPv6 alone and a NAT64.
    #[track_caller]
    pub fn dns64(&self) {
        let servers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        for server in servers.lines().filter_map(|line| line.strip_prefix("nameserver")) {
            if !server.trim().starts_with("127.") && server.trim() != "::1" {
                self.route(&format!("local {} dev lo", server.trim()));
            }
        }
        let socket = self.udp("[::]:53".parse().expect("an address"));
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                // Who asked may be gone.
                let _ = socket.send_to(&answer(&question[..length]), from);
            }
        });
    }
}

fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    const NAME: &[u8] = b"\x08ipv4only\x04arpa\x00";
    const AAAA: [u8; 2] = [0, 28];
    let asked = &question[HEADER.min(question.len())..];
    let known = asked.starts_with(NAME) && asked[NAME.len()..].starts_with(&AAAA);
    let end = asked.iter().position(|&byte| byte == 0).map_or(asked.len(), |end| (end + 5).min(asked.len()));
    let mut answer = question[..2.min(question.len())].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
    answer.extend(&asked[..end]);
    if known {
        answer.extend([0xc0, HEADER as u8, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
        let prefix: Ipv6Addr = PREFIX.parse().expect("an address");
        answer.extend(&prefix.octets()[..12]);
        answer.extend([192, 0, 0, 170]);
    }
    answer
}
