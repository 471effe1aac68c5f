//! Row 6, as what stays on the relay: a base whose kernel forwards for it (`fast_path`) is the same to its devices, in all that they do.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use bowline_lab::{
    Internet, Nat, Node,
    program::{Base, Listener, Pinger, run_to_end},
    with_bowline_as_root,
};

use crate::{BASE, OFTEN, SOON};

const ADMIN: &str = "127.0.0.1:4480";
const FAST: [&str; 4] = ["--fast-path", "wan", "--admin", ADMIN];

/// Messages that a base has relayed by this path.
fn relayed(node: &Node, path: &str) -> u64 {
    let page = node.enter(|| {
        let mut stream = TcpStream::connect(ADMIN).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    let name = format!("bowline_relayed_messages_total{{path=\"{path}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&name));
    value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

#[test]
fn devices_talk_roam_and_come_back_while_the_kernel_forwards() {
    with_bowline_as_root(|lab| {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "base", 10);
        let base = Base::start_with(&server, &BASE, &FAST);
        let homes = [1, 2, 3].map(|number| internet.home(lab, number, Nat::Symmetric));
        let listener =
            Listener::start(&homes[0].device_v4(lab, "listener", 2), "listener", &base.names()[..1]);
        let device = homes[1].device_v4(lab, "mover", 2);
        let pinger = Pinger::start(&device, &listener.id, OFTEN, &base.names()[..1]);

        pinger.wait_path("relay-udp", SOON, 0);
        let (kernel, workers) = (relayed(&server, "kernel"), relayed(&server, "udp"));
        let mark = pinger.mark();
        let answers = pinger.wait_answers(200, SOON * 2, mark);
        assert!(answers.iter().all(|answer| answer.path == "relay-udp"), "{answers:?}");
        assert!(answers.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "{answers:?}");
        // A question and an answer each.
        assert!(relayed(&server, "kernel") >= kernel + 400);
        assert_eq!(relayed(&server, "udp"), workers, "the workers saw none of it");

        // Into another network: the kernel's copy follows.
        device.ip("link del dev eth0");
        homes[2].cable(&device, "wwan0");
        homes[2].address_v4(&device, "wwan0", 2);
        let moved = Instant::now();
        let answer = pinger.wait_answer_sent_after(moved, SOON * 2);
        let mark = pinger.mark();
        pinger.wait_path("relay-udp", SOON, mark);
        let kernel = relayed(&server, "kernel");
        pinger.wait_answers(100, SOON, pinger.mark());
        assert!(relayed(&server, "kernel") >= kernel + 200);
        lab.measured(&format!("after a move, answers came again within {:?}", answer.at - moved));
    });
}

#[test]
fn a_base_says_what_it_lacks_for_a_fast_path() {
    with_bowline_as_root(|lab| {
        let node = lab.node("base");
        let refusal = |arguments: &[&str], config: &str, text: &str| {
            let file = node.home().join("base.toml");
            std::fs::write(&file, config).unwrap();
            let config = file.display().to_string();
            let all =
                [&["--config", &config, "base", "--listen", "127.0.0.1:0", "--state", "state"], arguments]
                    .concat();
            let ended = run_to_end(&node, &all, Duration::from_secs(10));
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.notes.join(" ").contains(text), "{ended:?}");
        };
        refusal(&["--fast-path", "eth7"], "", "cannot use eth7: there is no such network interface");
        let limited = "[base]\nfast_path = [\"lo\"]\n[base.limits]\nrelay_bytes_per_second = 1000000\n";
        refusal(&[], limited, "relay_bytes_per_second");
    });
}
