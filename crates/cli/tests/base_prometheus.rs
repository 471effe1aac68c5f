//! The metrics of a base as a real Prometheus sees them; the dashboard and the alarms that come with bowline ask for what there is.
//!
//! Prometheus comes from Debian (`./test` installs it). Where it is missing, the test says SKIPPED, and fails where CI=true.

#![cfg(unix)]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use support::{Home, Process, eventually, is_installed};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, content) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, content.to_owned()))
}

fn json(address: SocketAddr, path: &str) -> Value {
    get(address, path).and_then(|(_, content)| serde_json::from_str(&content).ok()).unwrap_or_default()
}

/// What may stand in a URL's query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Every expression that the dashboard asks for.
fn expressions() -> Vec<String> {
    let text = fs::read_to_string(format!("{ROOT}/dist/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn prometheus_takes_the_metrics_and_finds_all_that_the_dashboard_and_the_alarms_ask_for() {
    if !is_installed("prometheus") || !is_installed("promtool") {
        return;
    }
    let alerts = fs::canonicalize(format!("{ROOT}/dist/alerts.yml")).unwrap();
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&alerts).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let (home, listener) = (Home::new(), Home::new());
    // With a list, there is what an alarm wants to know of it.
    let list = home.path().join("allow");
    fs::write(&list, listener.id()).unwrap();
    home.configure(&format!("[base]\nallow_file = {list:?}\n"));
    let mut base = home.start("base --listen 127.0.0.1:0 --state state --admin 127.0.0.1:0 --drain 0");
    let name = base.stdout.line_with("base ")["base ".len()..].to_owned();
    let admin = base
        .stderr
        .line_with("page for people")
        .split_once("http://")
        .unwrap()
        .1
        .trim_end_matches('/')
        .to_owned();
    let mut listening = listener.start(&format!("listen --base {name}"));
    listening.stderr.line_with("registered at");

    let (prometheus, _process) = start_prometheus(home.path(), &admin, &alerts);
    let target = || json(prometheus, "/api/v1/targets")["data"]["activeTargets"][0].clone();
    eventually(|| target()["health"] == "up");
    assert_eq!(target()["lastError"], "");
    // The page of targets for people: Debian's has the older one, which is made by the server.
    let pages = ["/classic/targets", "/targets"].map(|path| get(prometheus, path).unwrap());
    let page = pages.iter().find(|(status, _)| *status == 200).unwrap_or_else(|| panic!("{pages:?}"));
    assert!(
        page.1.contains("<html") && (page.1.contains(&admin) || page.1.contains("<script")),
        "{}",
        page.1
    );

    for expression in expressions() {
        let asked = expression.replace("$__rate_interval", "30s").replace("$instance", ".*");
        let path = format!("/api/v1/query?query={}", escaped(&asked));
        eventually(|| has_answer(&json(prometheus, &path), &asked));
    }
    // Without a bucket for all, no share of a histogram is ever a number.
    let everything = escaped("bowline_owner_wait_seconds_bucket{le=\"+Inf\"} > 0");
    eventually(|| has_answer(&json(prometheus, &format!("/api/v1/query?query={everything}")), "buckets"));
    let rules = json(prometheus, "/api/v1/rules");
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 8 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
    let operations = fs::read_to_string(format!("{ROOT}/docs/operations.md")).unwrap();
    for rule in rules {
        // What it compares is there, and can be compared; how the two compare does not matter here.
        let expression = rule["query"].as_str().unwrap();
        let (left, right) = expression.split_once(" > ").or_else(|| expression.split_once(" == ")).unwrap();
        let asked = format!("({left}) - ({right})");
        if !left.contains("bowline_cluster") {
            let path = format!("/api/v1/query?query={}", escaped(&asked));
            eventually(|| has_answer(&json(prometheus, &path), &asked));
        }
        let name = rule["name"].as_str().unwrap();
        assert!(operations.contains(&format!("`{name}`")), "docs/operations.md does not explain {name}");
    }
}

/// Whether Prometheus found something; an error ends the test.
fn has_answer(answer: &Value, asked: &str) -> bool {
    assert_ne!(answer["status"], "error", "{asked}: {answer}");
    answer["data"]["result"].as_array().is_some_and(|found| !found.is_empty())
}

/// A Prometheus that looks at one base every second.
fn start_prometheus(folder: &Path, admin: &str, alerts: &Path) -> (SocketAddr, Process) {
    let config = folder.join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{alerts:?}]\n\
         scrape_configs:\n  - job_name: bowline\n    static_configs:\n      - targets: [{admin:?}]\n"
    );
    fs::write(&config, text).unwrap();
    // It wants to know its port: one that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=error")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    eventually(|| get(address, "/-/ready").is_some_and(|(status, _)| status == 200));
    (address, process)
}
