//! Row 1 of the issue about streams: a file is on its way while its sender's address changes, the direct path is lost and regained, the
//! other end is suspended, and the base dies. The same bytes arrive, in one go.
//!
//! How much and how long is small here. The whole of it, 1 GiB and 30 s, takes four minutes:
//!
//! ```sh
//! BOWLINE_LAB_SECONDS=900 BOWLINE_TRANSFER_MIB=1024 BOWLINE_SUSPENDED_SECONDS=30 \
//!   cargo test -p bowline-lab --test network a_transfer
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bowline_lab::{
    Internet, Nat, eventually,
    program::{self, Base},
    with_bowline,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{A_ROUND, BASE, SOON};

/// What the sender's router lets through, so that there is a middle of the transfer for things to happen in.
const RATE: &str = "table ip rate {
  chain forward { type filter hook forward priority filter - 2; policy accept;
    ip saddr 10.0.0.0/8 limit rate over 6 mbytes/second burst 600 kbytes drop
  }
}";
const HOLE: &str = "table ip hole {
  chain forward { type filter hook forward priority filter - 1; policy accept;
    ip saddr 203.0.113.1 drop
    ip daddr 203.0.113.1 drop
  }
}";

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// How much of the file has come.
fn progress(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("the test made it").filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).max().unwrap_or_default()
}

/// Waits until so many bytes more have come.
fn goes_on(what: &str, folder: &Path, bytes: u64, within: Duration) -> Duration {
    let (began, before) = (Instant::now(), progress(folder));
    eventually(what, within, || (progress(folder) >= before + bytes).then_some(()));
    began.elapsed()
}

fn write_file(path: &PathBuf, mib: u64) -> Vec<u8> {
    let bytes: Vec<u8> =
        (0..mib << 20).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    fs::write(path, &bytes).expect("there is room");
    bytes
}

#[test]
fn an_address_that_changes_a_path_that_is_lost_a_peer_that_sleeps_and_a_base_that_dies_cost_no_byte() {
    let mib = number("BOWLINE_TRANSFER_MIB", 48);
    let asleep = Duration::from_secs(number("BOWLINE_SUSPENDED_SECONDS", 4));
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let mut base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let (receiver, sender) = (left.device_v4(lab, "receiver", 2), right.device_v4(lab, "sender", 2));
        right.router.nft(RATE);

        let folder = receiver.home().join("in");
        fs::create_dir(&folder).expect("the home is new");
        let (key, folder_name) = (receiver.home().join("receiver.key"), folder.display().to_string());
        let receive = ["receive", &folder_name, "--once", "--key", &key.display().to_string()];
        let mut receiving = program::start(&receiver, &[&receive[..], &["--base", base.names()[0]]].concat());
        let id = receiving.wait("its ID", SOON * 2, 0, |line| {
            line.text.strip_prefix("bowline: listening as ").map(str::to_owned)
        });

        let file = sender.home().join("file");
        let bytes = write_file(&file, mib);
        let (key, name) = (sender.home().join("sender.key"), file.display().to_string());
        let send = ["send-file", &name, &id, "--json", "--key", &key.display().to_string()];
        let mut sending = program::start(&sender, &[&send[..], &["--base", base.names()[0]]].concat());
        let step = (mib << 20) / 12;
        goes_on("it begins", &folder, step, SOON * 4);

        sender.ip("addr del 10.2.0.2/24 dev eth0");
        right.address_v4(&sender, "eth0", 9);
        let took = goes_on("on with another address", &folder, step, A_ROUND);
        lab.measured(&format!("another address: a twelfth more after {took:?}"));

        right.router.nft(HOLE);
        let took = goes_on("on without the direct path", &folder, step, A_ROUND);
        lab.measured(&format!("direct path lost: a twelfth more after {took:?}"));
        right.router.nft("delete table ip hole");
        let took = goes_on("on with the direct path", &folder, step, A_ROUND);
        lab.measured(&format!("direct path regained: a twelfth more after {took:?}"));

        // Its kernel still answers; it does not.
        receiving.signal(Signal::SIGSTOP);
        std::thread::sleep(asleep);
        receiving.signal(Signal::SIGCONT);
        let took = goes_on("on after the sleep", &folder, step, A_ROUND);
        lab.measured(&format!("suspended for {asleep:?}: a twelfth more after {took:?}"));

        base.process.kill();
        let within = A_ROUND + Duration::from_secs(mib);
        assert!(sending.wait_end(within).success(), "{:?}", sending.lines(0));
        assert!(receiving.wait_end(SOON * 2).success(), "{:?}", receiving.lines(0));
        let sent =
            sending.wait("what was sent", SOON, 0, |line| serde_json::from_str::<Value>(&line.text).ok());
        assert_eq!(sent["resumed_from"], 0, "in one go");
        lab.measured(&format!(
            "{} bytes in {} s, at the end {}",
            sent["bytes"], sent["seconds"], sent["path"]
        ));
        assert!(fs::read(folder.join("file")).expect("it has its name") == bytes, "other bytes");
    });
}
