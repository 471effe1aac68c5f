//! Row 6: over links that carry no more than IPv6 demands (1,280 bytes), every message arrives: directly, and through the base.

use bowline_lab::{
    Internet, Nat, Node,
    program::{Base, Listener, Sender},
    with_bowline,
};

use crate::SOON;

/// Small, the most that every path carries, and what only TCP does.
const SIZES: [usize; 4] = [10, 500, 1_200, 15_000];

fn narrow(node: &Node, interface: &str) {
    node.ip(&format!("link set {interface} mtu 1280"));
}

#[test]
fn messages_of_every_size_arrive() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let machine = internet.server(lab, "base", 10);
        narrow(&machine, "wan");
        let base = Base::start(&machine, &["203.0.113.10:4477"]);
        let open = internet.server(lab, "open", 20);
        narrow(&open, "wan");
        // Two that can only meet through the base, and one that is reached directly.
        let homes = [1, 2].map(|number| internet.home(lab, number, Nat::Symmetric));
        homes.iter().for_each(|home| narrow(&home.router, "wan"));
        let listeners = [
            Listener::start(&homes[0].device_v4(lab, "inside", 2), "inside", &base.names()),
            Listener::start(&open, "outside", &base.names()),
        ];
        let sending = homes[1].device_v4(lab, "sender", 2);
        for listener in &listeners {
            let mut sender = Sender::start(&sending, &listener.id, &base.names());
            // Twice: over the relay at once, and by what has been found until then.
            for round in 0..2 {
                for size in SIZES {
                    let text = format!("{round}{}", "x".repeat(size - 1));
                    sender.line(&text);
                    let what = format!("a message of {size} bytes");
                    listener.process.wait(&what, SOON, 0, |line| line.text.contains(&text).then_some(()));
                }
            }
        }
    });
}

/// Where UDP is not let through either, all that is sent takes the connection to the base.
#[test]
fn a_router_that_does_not_say_how_narrow_its_link_is_stops_no_connection() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &["203.0.113.10:4477"]);
        let home = internet.home(lab, 1, Nat::UdpBlocked);
        narrow(&home.router, "wan");
        home.router.nft(
            "table ip silent { chain output { type filter hook output priority filter; policy accept; meta l4proto icmp drop; }\n}",
        );
        let outside = internet.server(lab, "outside", 20);
        let listener = Listener::start(&outside, "outside", &base.names());
        let mut sender = Sender::start(&home.device_v4(lab, "sender", 2), &listener.id, &base.names());
        for size in SIZES {
            let text = "x".repeat(size);
            sender.line(&text);
            let what = format!("a message of {size} bytes");
            listener.process.wait(&what, SOON, 0, |line| line.text.contains(&text).then_some(()));
        }
    });
}
