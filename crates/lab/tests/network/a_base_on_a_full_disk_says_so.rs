//! Row 14: a base whose disk is full when it starts says so in one sentence and leaves nothing half-written; with room it starts, and
//! once it has its key it needs no disk at all.

use std::{fs, process::Command};

use bowline_lab::{
    Internet,
    program::{Base, run_to_end},
    with_bowline,
};

use crate::SOON;

#[test]
fn without_room_for_its_key_it_ends_with_the_reason_and_with_a_key_it_starts_on_a_full_disk() {
    with_bowline(|lab| {
        let node = Internet::new(lab).server(lab, "base", 10);
        let disk = node.home().join("base");
        fs::create_dir(&disk).expect("a folder");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&disk).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a small disk");
        let filler = disk.join("filler");
        // Until it is full: the error is what is wanted.
        let _ = fs::write(&filler, vec![0; 1 << 20]);

        let state = disk.display().to_string();
        let ended = run_to_end(&node, &["base", "--listen", "203.0.113.10:4477", "--state", &state], SOON);
        assert_eq!(ended.code, Some(1));
        let [note] = &ended.notes[..] else { panic!("{ended:?}") };
        assert!(note.contains("base.key") && note.contains("No space left"), "{note}");
        let left: Vec<_> =
            fs::read_dir(&disk).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| name != "base.key"), "nothing half-written: {left:?}");

        fs::remove_file(&filler).expect("room again");
        let first = Base::start(&node, &["203.0.113.10:4477"]).id().to_owned();
        let _ = fs::write(&filler, vec![0; 1 << 20]);
        assert_eq!(Base::start(&node, &["203.0.113.10:4477"]).id(), first);
    });
}
