//! Holds the rules of ARCHITECTURE.md that the compiler does not: who may import whom, that the protocol is pure, and who touches the machines.
//!
//! Rules about source text look at code only: comments do not count, nor do modules of tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Imports run downward only: what each crate may depend on, tests aside.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("bowline-proto", &[]),
    ("bowline-key", &["bowline-proto"]),
    ("bowline", &["bowline-proto"]),
    ("bowline-quic", &["bowline"]),
    ("bowline-cluster", &["bowline-proto"]),
    ("bowline-fastpath", &["bowline-proto"]),
    ("bowline-base", &["bowline-proto", "bowline-key", "bowline-cluster", "bowline-fastpath"]),
    ("bowline-sim", &["bowline-proto"]),
    ("bowline-fuzzing", &["bowline-proto", "bowline-sim"]),
    ("bowline-mutants", &[]),
    ("bowline-lab", &[]),
    ("bowline-model", &["bowline-proto"]),
    ("bowline-bench", &["bowline", "bowline-quic", "bowline-lab", "bowline-proto"]),
    ("bowline-cli", &["bowline", "bowline-quic", "bowline-base", "bowline-key", "bowline-proto"]),
];

/// What the pure crate may not have at all: a runtime, sockets, the system's clock or randomness, metrics.
const IMPURE_CRATES: [&str; 12] = [
    "tokio",
    "mio",
    "async-std",
    "smol",
    "socket2",
    "nix",
    "libc",
    "rustix",
    "quinn-udp",
    "getrandom",
    "metrics",
    "prometheus-client",
];

/// What the pure crate may not say.
const IMPURE_WORDS: [&str; 20] = [
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "ToSocketAddrs",
    "std::thread",
    "thread::",
    "std::fs",
    "std::env",
    "std::process",
    "io::stdout",
    "io::stderr",
    "println!",
    "thread_local!",
    "OnceLock",
    "LazyLock",
    "static mut",
    "rand::rng(",
];

#[test]
fn imports_between_our_crates_run_downward_only() {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.into_iter().collect();
    let dependencies = dependencies();
    let ours: BTreeSet<_> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "the table above names every crate of the workspace");
    for (name, imports) in &dependencies {
        for import in imports.iter().filter(|import| ours.contains(import.as_str())) {
            assert!(allowed[name.as_str()].contains(&import.as_str()), "{name} must not import {import}");
        }
    }
}

#[test]
fn the_protocol_has_no_runtime_socket_clock_or_randomness_among_its_dependencies() {
    let proto = &dependencies()["bowline-proto"];
    let impure: Vec<_> = proto.iter().filter(|name| IMPURE_CRATES.contains(&name.as_str())).collect();
    assert!(impure.is_empty(), "{impure:?}");
}

#[test]
fn the_protocol_never_reads_a_clock_or_touches_the_system() {
    let found = search("crates/proto/src", |_| true, &IMPURE_WORDS);
    assert!(
        found.is_empty(),
        "time, randomness and the network are arguments of the protocol:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_base_knows_no_time_of_day() {
    // It would jump; what is due counts from a clock that only goes forward.
    let found = search("crates/base/src", |_| true, &["SystemTime::now"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_two_machines_of_the_protocol_do_not_know_each_other() {
    let found = [
        search("crates/proto/src/host", |_| true, &["crate::base", "base::Base"]),
        search("crates/proto/src/base", |_| true, &["crate::host", "host::Host"]),
    ]
    .concat();
    assert!(found.is_empty(), "host and base share the wire format and nothing else:\n{}", found.join("\n"));
}

#[test]
fn the_wire_format_knows_neither_machine() {
    let found = search("crates/proto/src/wire", |_| true, &["crate::base", "crate::host"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_driver_is_the_only_part_of_the_library_that_touches_the_host_machine() {
    let is_driver = |path: &Path| path.iter().any(|part| part == "driver" || part == "driver.rs");
    let mut found = search("crates/bowline/src", |path| !is_driver(path), &["Host"]);
    // The builder makes one, for the driver to own.
    found.retain(|line| {
        !line.contains("builder.rs") || (!line.contains("Host::new(") && !line.contains("host::{"))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!search("crates/bowline/src", is_driver, &["Host"]).is_empty(), "the driver has moved");
}

#[test]
fn every_network_test_is_part_of_the_test_program_and_says_what_it_holds() {
    let folder = root().join("crates/lab/tests/network");
    let main = fs::read_to_string(folder.join("main.rs")).expect("the test program has a main file");
    for path in sources(&folder) {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("file names are UTF-8");
        if name == "main" {
            continue;
        }
        assert!(main.contains(&format!("mod {name};")), "{name}.rs is never compiled");
        let text = fs::read_to_string(&path).expect("sources are UTF-8");
        let comment = text.lines().take_while(|line| line.starts_with("//!")).collect::<String>();
        let says = comment.contains("Row ")
            || comment.contains("Rows ")
            || comment.contains("other tests")
            || comment.contains("instruments");
        assert!(says, "{name}.rs does not say which row it holds");
    }
}

#[test]
fn every_command_of_the_page_about_faults_runs_a_test() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).expect("the page about faults");
    let commands = page.split('`').filter(|text| text.starts_with("cargo test -p bowline-"));
    let mut count = 0;
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        let (package, name, filter) = match words[3..] {
            [package, "--test", test] => (package, format!("tests/{test}"), ""),
            [package, "--test", test, filter] => (package, format!("tests/{test}"), filter),
            [package, "--lib", filter] => (package, "src".to_owned(), filter),
            _ => panic!("{command}: this test does not know its form"),
        };
        let folder = root().join("crates").join(package.trim_start_matches("bowline-"));
        let (file, folder) = (folder.join(format!("{name}.rs")), folder.join(name));
        let files = if file.exists() { vec![file] } else { sources(&folder) };
        let runs = |path: &PathBuf| {
            let text = fs::read_to_string(path).expect("sources are UTF-8");
            let is_test = |line: &str| line.trim_start().contains("fn ") && line.contains(filter);
            text.contains("#[test]") | text.contains("#[tokio::test")
                && (path.to_string_lossy().contains(filter) || text.lines().any(is_test))
        };
        assert!(files.iter().any(runs), "`{command}` runs nothing");
        count += 1;
    }
    assert!(count >= 15, "{count} commands: the page has another form");
}

#[test]
fn the_search_itself_finds_code_and_skips_comments_and_tests() {
    let text = "#[cfg(test)]\nmod far;\nuse a::Host; // SystemTime\n/// SystemTime\nSystemTime::now();\n\
                #[cfg(test)]\nmod tests {\nSystemTime\n}\n";
    let lines = |word| {
        code(text).into_iter().filter(|(_, line)| holds(line, word)).map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(lines("SystemTime"), [5]);
    assert_eq!(lines("Host"), [3]);
    assert!(holds("x: Option<Host>,", "Host") && !holds("HostConfig", "Host") && !holds("LocalHost", "Host"));
    assert!(holds("self.start.elapsed()", ".elapsed()") && !holds("some_thread::x", "thread::"));
}

/// The normal and build dependencies of every crate of the workspace, by name.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--no-deps"]).current_dir(root());
    let done = command.output().expect("cargo runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let metadata: Value = serde_json::from_slice(&done.stdout).expect("cargo writes JSON");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("a list");
    let imports = |package: &Value| {
        let all = package["dependencies"].as_array().expect("a list");
        all.iter().filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    };
    packages.iter().map(|package| (name(package), imports(package))).collect()
}

/// Lines of code under a folder that contain one of the words, as `file:line: text`.
fn search(folder: &str, wanted: impl Fn(&Path) -> bool, words: &[&str]) -> Vec<String> {
    let files = sources(&root().join(folder));
    assert!(!files.is_empty(), "{folder} has moved");
    let mut found = Vec::new();
    for path in files.iter().filter(|path| wanted(path)) {
        let text = fs::read_to_string(path).expect("sources are UTF-8");
        for (at, line) in
            code(&text).into_iter().filter(|(_, line)| words.iter().any(|word| holds(line, word)))
        {
            found.push(format!("{}:{at}: {}", path.display(), line.trim()));
        }
    }
    found
}

/// Whether `word` stands in `line`, not as a part of a longer name.
fn holds(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let joins = |edge: Option<char>, beyond: Option<char>| {
            edge.is_some_and(is_name) && beyond.is_some_and(is_name)
        };
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !joins(word.chars().next(), before) && !joins(word.chars().next_back(), after)
    })
}

/// Numbered lines without comments, up to the module of tests that ends a file.
fn code(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<_> = text.lines().collect();
    let tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(tests).unwrap_or(lines.len());
    lines[..end]
        .iter()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
        .collect()
}

/// All Rust files under a folder, but for those that hold nothing but tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if name == "tests" || name.ends_with("_tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace is where this crate was built")
}
