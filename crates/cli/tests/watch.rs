//! `bowline watch`: what is known of a peer, and why.

#![cfg(unix)]

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Base, Home, NOBODY};

#[test]
fn once_shows_base_reflexive_address_candidates_and_the_direct_path() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let shown = Home::new().run(&format!("watch {id} --once --base {}", base.name)).ok().stdout;
    for expected in [
        format!("device      {id}"),
        format!("base        {}", base.name),
        "sees this device at 127.0.0.1:".to_owned(),
        "path        direct ".to_owned(),
        "candidates  ".to_owned(),
        "answered ".to_owned(),
    ] {
        assert!(shown.contains(&expected), "no {expected:?} in\n{shown}");
    }
}

#[test]
fn json_is_an_object_per_change_until_ctrl_c() {
    let base = Base::start();
    let (_home, _listener, id) = base.listener("");
    let mut watch = Home::new().start(&format!("watch {id} --json --base {}", base.name));
    // The peer and the base answer in either order.
    let direct = watch.stdout.line_with(r#""path":"direct""#);
    if !direct.contains(r#""confirmed":true"#) {
        watch.stdout.line_with(r#""confirmed":true"#);
    }
    let objects = watch.end_by(Signal::SIGINT).ok().json();
    let last = objects.last().unwrap();
    assert_eq!(last["device"], id.as_str());
    assert!(last["base"]["id"].is_string());
    assert!(last["base"]["udp"].as_array().unwrap().iter().any(|binding| binding["confirmed"] == true));
    let answered = |pair: &Value| pair["answered"].as_u64().unwrap() > 0;
    assert!(last["peer"]["pairs"].as_array().unwrap().iter().any(answered), "{last}");
    for pair in objects.windows(2) {
        assert_ne!(pair[0], pair[1], "the same twice");
    }
}

#[test]
fn it_notices_when_the_base_is_gone_and_says_why() {
    let base = Base::start();
    let mut watch = Home::new().start(&format!("watch {NOBODY} --json --base {}", base.name));
    watch.stdout.line_with(r#""base":{"#);
    base.running.end_by(Signal::SIGTERM).ok();
    let line = watch.stdout.line_with(r#""base":null"#);
    let view: Value = serde_json::from_str(&line).unwrap();
    assert!(view["why_no_base"].is_string(), "{line}");
}

#[test]
fn without_a_base_once_is_an_error_with_the_reason() {
    let ended = Home::new().run(&format!("watch {NOBODY} --once --timeout 0.5 --base 127.0.0.1:1"));
    let reason = ended.failed(1);
    assert!(reason.contains("refused"), "{reason}");
    assert!(ended.stdout.contains("base        none: "), "{ended:?}");
}
