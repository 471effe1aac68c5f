//! `bowline demo`: the whole layer on this machine.

#![cfg(unix)]

mod support;

use support::{Home, names};

const PATHS: [&str; 3] = ["relay-tcp", "relay-udp", "direct"];

#[test]
fn it_shows_all_three_paths_in_order_and_succeeds() {
    let shown = Home::new().run("demo").ok();
    let order: Vec<usize> = ["relay tcp", "relay udp", "ms  direct "]
        .iter()
        .map(|path| shown.stdout.find(path).unwrap_or_else(|| panic!("no {path} in {shown:?}")))
        .collect();
    assert!(order.is_sorted());
    assert!(shown.stdout.lines().last().unwrap().contains("0 wrongly"), "{shown:?}");
    assert!(shown.stderr.is_empty(), "{shown:?}");
}

#[test]
fn json_is_one_object_with_the_steps_and_the_counts() {
    let objects = Home::new().run("demo --json").ok().json();
    assert_eq!(objects.len(), 1);
    let steps = objects[0]["steps"].as_array().unwrap();
    let paths: Vec<_> = steps.iter().map(|step| step["path"].as_str().unwrap()).collect();
    assert_eq!(paths, PATHS);
    let moments: Vec<_> = steps.iter().map(|step| step["at_ms"].as_f64().unwrap()).collect();
    assert!(moments[0] > 0.0 && moments.is_sorted(), "{moments:?}");
    let (sent, received) = (objects[0]["sent"].as_u64().unwrap(), objects[0]["received"].as_u64().unwrap());
    assert!(received >= 3 && received <= sent);
    assert_eq!(names(&objects[0]), ["received", "sent", "steps", "wrong"]);
}

#[test]
fn it_leaves_nothing_behind_in_the_home() {
    let home = Home::new();
    home.run("demo").ok();
    let names: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["config"]);
    assert!(!home.key().exists());
}
