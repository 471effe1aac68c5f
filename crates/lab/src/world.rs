//! The worlds most tests live in: an internet with public addresses, and homes behind routers.
//!
//! ```text
//! internet: 203.0.113.0/24, 2001:db8:113::/64, one switch; its own .254 routes between homes
//!   ├─ server N      203.0.113.N, 2001:db8:113::N
//!   └─ home N        router 203.0.113.N, 2001:db8:113::N
//!        └─ lan      10.N.0.1/24, 2001:db8:N::1/64;  device K: 10.N.0.K, 2001:db8:N::K
//! ```
//! A home may stand behind its carrier's router as well: carrier 203.0.113.N, lan 100.64.N.1/24; router 100.64.N.2, IPv4 alone.
//! Numbers in IPv6 addresses are written in decimal digits, so that they read alike.

use crate::{
    frame::Lab,
    nat::Nat,
    node::{Node, connect},
};

/// The number of the internet's own router on its switch.
const GATEWAY: u8 = 254;

/// A switch that all servers and home routers hang on.
#[derive(Debug)]
pub struct Internet {
    core: Node,
}

impl Internet {
    /// An internet with nobody on it.
    #[must_use]
    pub fn new(lab: &Lab) -> Self {
        let core = lab.node("internet");
        forward(&core);
        core.bridge("net");
        core.address("net", &format!("203.0.113.{GATEWAY}/24"));
        core.address("net", &format!("2001:db8:113::{GATEWAY}/64"));
        Self { core }
    }

    /// A machine with public addresses on interface `wan`.
    #[must_use]
    pub fn server(&self, lab: &Lab, name: &str, number: u8) -> Node {
        let node = lab.node(name);
        self.attach(&node, number);
        node
    }

    /// A home behind a router with this kind of NAT.
    #[must_use]
    pub fn home(&self, lab: &Lab, number: u8, nat: Nat) -> Home {
        let router = lab.node(&format!("router{number}"));
        forward(&router);
        self.attach(&router, number);
        router.bridge("lan");
        router.address("lan", &format!("10.{number}.0.1/24"));
        router.address("lan", &format!("2001:db8:{number}::1/64"));
        router.set_nat(nat);
        self.core.route(&format!("2001:db8:{number}::/64 via 2001:db8:113::{number}"));
        Home { router, number }
    }

    /// A home behind a router that is itself behind its carrier's: NAT twice, and no IPv6 outwards. The carrier's router comes with it.
    #[must_use]
    pub fn home_behind_carrier(&self, lab: &Lab, number: u8, carrier: Nat, nat: Nat) -> (Node, Home) {
        let outer = lab.node(&format!("carrier{number}"));
        forward(&outer);
        self.attach(&outer, number);
        outer.bridge("lan");
        outer.address("lan", &format!("100.64.{number}.1/24"));
        outer.set_nat(carrier);

        let router = lab.node(&format!("router{number}"));
        forward(&router);
        connect(&router, "wan", &outer, "to-router");
        outer.ip("link set dev to-router master lan");
        router.address("wan", &format!("100.64.{number}.2/24"));
        router.route(&format!("default via 100.64.{number}.1"));
        router.bridge("lan");
        router.address("lan", &format!("10.{number}.0.1/24"));
        router.address("lan", &format!("2001:db8:{number}::1/64"));
        router.set_nat(nat);
        (outer, Home { router, number })
    }

    /// Gives a home's router another IPv4 address outside, 9.1.N.1: some programs refuse to map ports of those that are reserved
    /// for documentation.
    pub fn renumber(&self, home: &Home, nat: Nat) {
        let number = home.number;
        self.core.address("net", &format!("9.1.{number}.254/24"));
        home.router.ip(&format!("address del 203.0.113.{number}/24 dev wan"));
        home.router.address("wan", &format!("9.1.{number}.1/24"));
        home.router.route(&format!("default via 9.1.{number}.254"));
        home.router.set_nat(nat);
    }

    fn attach(&self, node: &Node, number: u8) {
        let port = format!("to-{}", node.name());
        connect(node, "wan", &self.core, &port);
        self.core.ip(&format!("link set dev {port} master net"));
        node.address("wan", &format!("203.0.113.{number}/24"));
        node.address("wan", &format!("2001:db8:113::{number}/64"));
        node.route(&format!("default via 203.0.113.{GATEWAY}"));
        node.route(&format!("default via 2001:db8:113::{GATEWAY}"));
    }
}

/// A LAN behind a router.
#[derive(Debug)]
pub struct Home {
    /// The router, with interfaces `lan` and `wan`.
    pub router: Node,
    number: u8,
}

impl Home {
    /// A device in this home, on interface `eth0`, with IPv4 and IPv6.
    #[must_use]
    pub fn device(&self, lab: &Lab, name: &str, number: u8) -> Node {
        let node = lab.node(name);
        self.cable(&node, "eth0");
        self.address_v4(&node, "eth0", number);
        self.address_v6(&node, "eth0", number);
        node
    }

    /// As [`Home::device`], without any IPv6.
    #[must_use]
    pub fn device_v4(&self, lab: &Lab, name: &str, number: u8) -> Node {
        let node = lab.node(name);
        node.sysctl("net.ipv6.conf.all.disable_ipv6=1");
        node.sysctl("net.ipv6.conf.default.disable_ipv6=1");
        self.cable(&node, "eth0");
        self.address_v4(&node, "eth0", number);
        node
    }

    /// As [`Home::device`], without any IPv4 address.
    #[must_use]
    pub fn device_v6(&self, lab: &Lab, name: &str, number: u8) -> Node {
        let node = lab.node(name);
        self.cable(&node, "eth0");
        self.address_v6(&node, "eth0", number);
        node
    }

    /// Connects a machine to this home's LAN by a new interface, without addresses.
    pub fn cable(&self, node: &Node, interface: &str) {
        let port = format!("{}-{interface}", node.name());
        connect(node, interface, &self.router, &port);
        self.router.ip(&format!("link set dev {port} master lan"));
    }

    /// The number in its addresses.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Restarts the router as this kind of NAT: every mapping is gone, and whom a mapping let in is forgotten.
    #[track_caller]
    pub fn reboot(&self, nat: Nat) {
        self.router.set_nat(nat);
    }

    /// Keeps the devices of this home apart, as guest networks do: they reach the router and not each other.
    #[track_caller]
    pub fn isolate(&self, node: &Node, interface: &str) {
        let port = format!("{}-{interface}", node.name());
        self.router.ip(&format!("link set dev {port} type bridge_slave isolated on"));
    }

    /// Gives an interface the home's IPv4 address with this number, and the default route.
    pub fn address_v4(&self, node: &Node, interface: &str, number: u8) {
        let home = self.number;
        node.address(interface, &format!("10.{home}.0.{number}/24"));
        node.route(&format!("default via 10.{home}.0.1 dev {interface}"));
    }

    fn address_v6(&self, node: &Node, interface: &str, number: u8) {
        let home = self.number;
        node.address(interface, &format!("2001:db8:{home}::{number}/64"));
        node.route(&format!("default via 2001:db8:{home}::1 dev {interface}"));
    }
}

fn forward(node: &Node) {
    node.sysctl("net.ipv4.ip_forward=1");
    node.sysctl("net.ipv6.conf.all.forwarding=1");
    // Machines of one switch that are told to go through the router must keep doing so.
    node.sysctl("net.ipv4.conf.all.send_redirects=0");
    node.sysctl("net.ipv4.conf.default.send_redirects=0");
}
