//! Two processes on one key get a clear error, not a fight.

#![cfg(unix)]

mod support;

use nix::sys::signal::Signal;
use support::{Base, Home, NOBODY};

#[test]
fn a_second_listener_with_the_same_key_is_refused_and_the_first_goes_on() {
    let base = Base::start();
    let (home, mut first, id) = base.listener("");
    let reason = home.run(&format!("listen --base {}", base.name)).failed(1);
    assert!(reason.contains("in use by another process"), "{reason}");
    assert!(reason.contains(home.key().to_str().unwrap()), "{reason}");
    Home::new().run(&format!("send {id} still there --base {}", base.name)).ok();
    first.stdout.line_with("still there");
    first.end_by(Signal::SIGINT).ok();
    // The lock went with its process.
    let mut next = home.start(&format!("listen --base {}", base.name));
    next.stderr.line_with("registered at");
}

#[test]
fn reaching_out_with_a_key_claims_it_too_and_looking_at_it_does_not() {
    let base = Base::start();
    let (home, _listener, _) = base.listener("");
    let key = home.key();
    let reason = home.run(&format!("ping {NOBODY} --key {} --base {}", key.display(), base.name)).failed(1);
    assert!(reason.contains("in use by another process"), "{reason}");
    home.run("id").ok();
    // With a fresh key there is nothing to fight over.
    home.run(&format!("send {NOBODY} hello --base {}", base.name)).ok();
}

#[test]
fn a_second_base_with_the_same_state_is_refused() {
    let base = Base::start();
    let reason = base.home.run("base --listen 127.0.0.1:0 --state state").failed(1);
    assert!(reason.contains("in use by another process") && reason.contains("base.key"), "{reason}");
}
