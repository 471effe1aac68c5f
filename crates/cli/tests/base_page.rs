//! The page for people, as a real browser shows it: Chromium without a screen, from Debian (`./test` installs it). Where it is missing,
//! the test says SKIPPED, and fails where CI=true.

#![cfg(unix)]

mod support;

use std::process::{Command, Stdio};

use support::{Home, eventually, is_installed};

#[test]
fn a_browser_shows_devices_and_drops_and_goes_on_asking() {
    if !is_installed("chromium") {
        return;
    }
    let home = Home::new();
    let mut base = home.start("base --listen 127.0.0.1:0 --state state --admin 127.0.0.1:0 --drain 0");
    let name = base.stdout.line_with("base ")["base ".len()..].to_owned();
    let page = base.stderr.line_with("page for people").split_once("http://").unwrap().1.to_owned();
    let device = Home::new();
    let mut listening = device.start(&format!("listen --base {name}"));
    listening.stderr.line_with("registered at");

    let (id, base_id) = (device.id(), name.split('@').next().unwrap());
    // It renders whatever there is when its patience ends: on a busy machine not much, so it is asked again.
    eventually(|| {
        let shown = dom(&home, &page);
        let answers = shown
            .split("data-answers=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next()?.parse::<u32>().ok());
        shown.contains(base_id)
            && shown.contains(&id)
            && shown.contains("destination not here")
            && shown.contains(">ready<")
            && answers.is_some_and(|answers| answers >= 3)
    });
}

/// The document after some seconds of the browser's own time.
fn dom(home: &Home, page: &str) -> String {
    let done = Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=6000"])
        .arg(format!("--user-data-dir={}", home.path().join("browser").display()))
        .args(["--dump-dom", &format!("http://{page}")])
        .env("HOME", home.path())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned()
}
