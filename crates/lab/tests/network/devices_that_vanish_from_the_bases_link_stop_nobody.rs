//! Row 13: devices on the base's own link that are switched off while others send to them. What nobody answers for waits in the kernel,
//! at the cost of the socket that it was sent by; the others who are relayed by the same worker are to notice nothing.

use std::time::Duration;

use bowline_lab::{
    Internet,
    program::{Base, Listener, Pinger},
    with_bowline,
};

use crate::{BASE, OFTEN, SOON};

/// With a megabyte for each, three fill the largest send buffer that a base asks for. The kernel looks for them longer than the three seconds
/// that are usual: who sends here is slow.
const VANISHING: usize = 3;
const PATIENT: [&str; 2] =
    ["net.ipv4.neigh.wan.unres_qlen_bytes=1000000", "net.ipv4.neigh.wan.mcast_solicit=30"];
/// As often as the program does.
const FAST: Duration = Duration::from_millis(1);
/// Everybody is at the base's first UDP port.
const ONE_PORT: &str = "add table ip one; add chain ip one c { type filter hook input priority 0; }; add rule ip one c udp dport 4479 drop";
const RELAY_ALONE: &str = "direct = false\nlink_local = false\n";

#[test]
fn what_is_sent_to_them_is_not_in_the_way_of_what_is_sent_to_others() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "base", 10);
        PATIENT.iter().for_each(|setting| server.sysctl(setting));
        server.nft(ONE_PORT);
        let config = server.home().join("base.toml");
        // Whoever vanishes and who stays have one worker.
        std::fs::write(&config, "[base]\nworkers = 1\n").expect("a file");
        let base = Base::start_with(&server, &BASE[..1], &["--config", &config.display().to_string()]);
        let bases = &base.names()[..1];

        let sender = internet.server(lab, "sender", 20);
        let talk = |number: u8, interval| {
            let name = format!("device{number}");
            let node = internet.server(lab, &name, number);
            let listener = Listener::start_with(&node, &name, bases, RELAY_ALONE);
            let pinger = Pinger::start(&sender, &listener.id, interval, bases);
            pinger.wait_path("relay-udp", SOON, 0);
            (node, listener, pinger)
        };
        let staying = talk(30, OFTEN);
        let vanishing = (31..).take(VANISHING).map(|number| talk(number, FAST));
        let vanishing: Vec<_> = vanishing.collect();
        for (node, ..) in &vanishing {
            node.ip("link set dev wan down");
        }
        // As it is when the base has not heard of them for half a minute.
        server.ip("neigh flush dev wan");

        let mark = staying.2.mark();
        let answers = staying.2.wait_answers(500, SOON * 6, mark);
        let (gap, sent) = (staying.2.longest_gap(mark), answers[499].seq - answers[0].seq + 1);
        lab.measured(&format!("{sent} pings for 500 answers, {gap:?} without one"));
        assert!(gap < Duration::from_millis(500), "{gap:?}");
        assert!(sent < 550, "{sent} pings");
        let unanswered = || server.ip("neigh show nud incomplete").lines().count();
        assert!(unanswered() > 0, "nobody looks for them: {}", server.ip("neigh show"));
    });
}
