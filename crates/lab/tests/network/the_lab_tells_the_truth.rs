//! The tests' own instruments: a failing body fails, captured bytes are the bytes that were sent.

use bowline_lab::{Capture, connect, eventually, in_network};

use crate::SOON;

#[test]
#[should_panic = "did not run to its end"]
fn a_body_that_fails_fails_its_test() {
    // The inner run expects this panic and is content; the outer one sees that the body has not come to its end.
    in_network(|_| panic!("did not run to its end"));
}

#[test]
fn a_capture_holds_the_very_bytes_that_crossed_the_wire() {
    in_network(|lab| {
        let (one, other) = (lab.node("one"), lab.node("other"));
        connect(&one, "eth0", &other, "eth0");
        for (node, number) in [(&one, 1), (&other, 2)] {
            node.address("eth0", &format!("192.0.2.{number}/24"));
            node.address("eth0", &format!("2001:db8::{number}/64"));
        }
        let capture = Capture::start(&other);
        for (from, to) in [("192.0.2.1:5000", "192.0.2.2:5001"), ("[2001:db8::1]:5000", "[2001:db8::2]:5001")]
        {
            let (from, to) = (from.parse().expect("an address"), to.parse().expect("an address"));
            let socket = one.udp(from);
            for length in [0, 1, 5, 1200] {
                let sent = vec![0x5a; length];
                socket.send_to(&sent, to).expect("sent");
                eventually("the datagram is seen", SOON, || {
                    capture
                        .seen()
                        .into_iter()
                        .find(|seen| seen.from == from && seen.to == to && seen.payload == sent)
                });
            }
        }
    });
}
