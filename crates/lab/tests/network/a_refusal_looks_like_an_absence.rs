//! Row 9: addresses are pushed only where both sides want each other; whoever is not allowed cannot tell a device that refuses from one that is
//! not there.

use std::time::Duration;

use bowline_lab::{
    Capture, Internet, Node,
    program::{Base, Ended, Listener, run_to_end},
    with_bowline,
};
use bowline_proto::DeviceId;

use crate::{BASE, SOON};

#[test]
fn a_stranger_sees_the_same_of_a_device_that_refuses_as_of_one_that_is_not_there() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let hermit = internet.server(lab, "hermit", 20);
        let refuses = Listener::start_with(&hermit, "hermit", &base.names(), "allow = []\n");
        let absent = DeviceId::from_bytes([9; 14]).to_string();

        let stranger = internet.server(lab, "stranger", 21);
        let everything = [Capture::start(&hermit), Capture::start(&stranger)];
        let of_refusal = ping(&stranger, &refuses.id, base.names()[0]);
        let of_absence = ping(&stranger, &absent, base.names()[0]);
        assert_eq!(of_refusal.code, Some(1), "nothing was answered: {of_refusal:?}");
        assert_eq!(without(of_refusal, &refuses.id), without(of_absence, &absent));

        // Nor does a packet cross between the two, or a packet to a third tell where the other is.
        let addresses = [20, 21].map(|number: u8| std::net::IpAddr::from([203, 0, 113, number]));
        for capture in everything {
            let mut seen = capture.seen().into_iter();
            let between =
                seen.find(|seen| addresses.contains(&seen.from.ip()) && addresses.contains(&seen.to.ip()));
            assert_eq!(between, None);
        }
        drop(refuses);
    });
}

#[test]
fn a_device_that_is_allowed_gets_through_to_one_that_refuses_all_others() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let friend = Listener::start(&internet.server(lab, "friend", 21), "friend", &base.names());
        let config = format!("allow = [\"{}\"]\n", friend.id);
        let hermit =
            Listener::start_with(&internet.server(lab, "hermit", 20), "hermit", &base.names(), &config);
        drop(friend); // its key is free now

        let key = lab.folder().join("friend/friend.key").display().to_string();
        let node = internet.server(lab, "again", 22);
        let arguments =
            ["ping", &hermit.id, "--key", &key, "-c", "50", "-i", "0.02", "--base", base.names()[0]];
        let ended = run_to_end(&node, &arguments, SOON * 2);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.output.iter().any(|line| line.starts_with("seq=") && line.contains(" direct ")),
            "{ended:?}"
        );
    });
}

fn ping(node: &Node, device: &str, base: &str) -> Ended {
    const PATIENCE: Duration = Duration::from_secs(1);
    let patience = PATIENCE.as_secs().to_string();
    let arguments =
        ["ping", device, "--json", "-c", "20", "-i", "0.05", "--timeout", &patience, "--base", base];
    run_to_end(node, &arguments, SOON + PATIENCE)
}

/// What was seen, but for the name of the device itself.
fn without(ended: Ended, device: &str) -> Ended {
    let hide = |lines: Vec<String>| lines.into_iter().map(|line| line.replace(device, "DEVICE")).collect();
    Ended { output: hide(ended.output), notes: hide(ended.notes), ..ended }
}
