//! For tests that need a network of their own: the test runs again, in a fresh network namespace.

#![allow(dead_code, reason = "unit tests and integration tests share it, and need different parts")]

use std::process::Command;

const INSIDE: &str = "BOWLINE_TEST_NAMESPACE";

/// Whether this is the run inside. Outside, runs the test with this (full) name again after `setup`, a line of shell,
/// in a user and network namespace of its own, which needs no privileges; panics if it fails there.
pub(crate) fn inside(test: &str, setup: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let again = format!("ip link set lo up && {setup} && exec \"$0\" --exact {test} --nocapture");
    let output = Command::new("unshare")
        .args(["-Urn", "--fork", "--kill-child", "sh", "-c", &again])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) is needed for this test");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "in the namespace:\n{text}");
    false
}

/// Runs a line of shell.
pub(crate) fn sh(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
