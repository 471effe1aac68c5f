//! Row 8: a direct datagram carries the caller's bytes and nothing else, seen on the wire; data that begins with the magic survives.

use bowline_lab::{
    Capture, Datagram, connect, eventually,
    program::{Listener, Sender},
    with_bowline,
};
use bowline_proto::wire::peer;

use crate::SOON;

#[test]
fn what_crosses_the_wire_is_the_data_and_data_that_looks_like_ours_is_escaped() {
    with_bowline(|lab| {
        let (left, right) = (lab.node("left"), lab.node("right"));
        connect(&left, "eth0", &right, "eth0");
        // As from a card: datagrams that leave with one call cross one by one, and not, as a veth would have it, as one.
        right.ip("link set dev eth0 gso_max_segs 1");
        let listener = Listener::start(&left, "listener", &[]);
        let mut sender = Sender::start(&right, &listener.id, &[]);
        let capture = Capture::start(&left);

        let plain = b"just the data, nothing else";
        let magical = b"\x0bbowline and more";
        for data in [&plain[..], &magical[..]] {
            let text = String::from_utf8_lossy(data).into_owned();
            let mark = listener.process.mark();
            // Before the two have met, there is no way at all: once a line has come, all do.
            eventually("the line arrives", SOON, || {
                sender.line(&text);
                listener.process.lines(mark).iter().any(|line| line.text.contains(&text)).then_some(())
            });
        }

        let escaped = [&peer::MAGIC[..], &[peer::ESCAPED_DATA], magical].concat();
        let seen = capture.seen();
        for (words, on_the_wire) in [("just the data", &plain[..]), ("and more", &escaped)] {
            let holds = |seen: &&Datagram| seen.payload.windows(words.len()).any(|w| w == words.as_bytes());
            let datagrams: Vec<_> = seen.iter().filter(holds).collect();
            assert!(!datagrams.is_empty());
            assert!(datagrams.iter().all(|datagram| datagram.payload == on_the_wire), "{datagrams:?}");
        }
    });
}
