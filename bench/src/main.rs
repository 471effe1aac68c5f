//! Benchmarks of bowline against what the kernel allows, each beside its reference in the same run.
//!
//! `bench/run` builds and starts this program; it starts itself again inside network, mount and process namespaces of its own, as the
//! network tests do. One file a benchmark; what they share: [`report`] (rows, A B A B, ratios), [`cpu`] (seconds and
//! cores), [`netns`] (three machines in a row), [`gear`] (senders and receivers), [`forwarders`] (the references), [`host`] (a
//! host written by hand, and the base's process).
//!
//! Those over NATs and networks that change are in [`network`].
//!
//! Not here: assertions. A benchmark says what it measured and whether that meets the goal; it fails only where nothing could be measured.

#![cfg(target_os = "linux")]

mod cluster;
mod cpu;
mod direct;
mod fast_path;
mod flood;
mod flood_host;
mod forward;
mod forwarders;
mod gear;
mod host;
mod idle;
mod netns;
mod network;
mod overload;
mod peers;
mod pipe;
mod probe;
mod raw;
mod relay;
mod relay_latency;
mod relay_many;
mod relay_tcp;
mod report;
mod storm;
mod stream;

use std::{
    env,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use report::{Options, Report};

/// One benchmark.
struct Benchmark {
    name: &'static str,
    what: &'static str,
    run: fn(&Options, &mut Report),
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "direct",
        what: "one device to another through the library, in batches, against bare GSO and GRO",
        run: direct::run,
    },
    Benchmark {
        name: "direct-one",
        what: "the same, one message a call, against one packet a call",
        run: direct::run_one,
    },
    Benchmark {
        name: "relay",
        what: "host → base → host over UDP, one flow, against the best of four bare forwarders",
        run: relay::run,
    },
    Benchmark {
        name: "relay-many",
        what: "a thousand devices in pairs, datagrams interleaved, against the same four",
        run: relay_many::run,
    },
    Benchmark {
        name: "fast-path",
        what: "the base with the Linux kernel forwarding for it, against its workers",
        run: fast_path::run,
    },
    Benchmark {
        name: "relay-latency",
        what: "what the base adds to a packet's time at 10 % and 80 % load, against the forwarder",
        run: relay_latency::run,
    },
    Benchmark {
        name: "relay-tcp",
        what: "host → base → host over TCP, against a proxy that only copies",
        run: relay_tcp::run,
    },
    Benchmark {
        name: "cluster",
        what: "host → base → base → host, over UDP and over NATS, against one base; and what 2 and 4 carry",
        run: cluster::run,
    },
    Benchmark {
        name: "idle",
        what: "memory and refreshes of 100,000 registered devices that do nothing else",
        run: idle::run,
    },
    Benchmark {
        name: "storm",
        what: "20,000 devices register at once, against bare signature verification",
        run: storm::run,
    },
    Benchmark {
        name: "overload",
        what: "goodput and a well-behaved third flow while far too much is offered",
        run: overload::run,
    },
    Benchmark {
        name: "stream",
        what: "one encrypted stream, direct and through the relay, against quinn alone, iroh and a pipe over iroh",
        run: stream::run,
    },
    Benchmark {
        name: "forward",
        what: "a TCP connection through `bowline forward`, against plain TCP and OpenSSH's forwarding",
        run: forward::run,
    },
    Benchmark {
        name: "peers",
        what: "the same work through coturn, n2n, iroh and iroh-relay, Nebula, wireguard-go, tinc",
        run: peers::run,
    },
    Benchmark {
        name: "flood",
        what: "real traffic while 200,000 forged packets a second come",
        run: flooded,
    },
];

/// The rows of base and host.
fn flooded(options: &Options, report: &mut Report) {
    flood::run(options, report);
    flood_host::rows(options, report);
}

/// Set inside the namespaces: the run's own temporary folder.
const FOLDER: &str = "BOWLINE_BENCH_FOLDER";
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(code) = network::main(&all) {
        return code;
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|w| !w.starts_with("--")).collect();
    let options = Options {
        json: arguments.iter().any(|a| a == "--json"),
        quick: arguments.iter().any(|a| a == "--quick"),
        folder: env::var_os(FOLDER).map(PathBuf::from).unwrap_or_default(),
    };
    let unknown =
        arguments.iter().find(|a| a.starts_with("--") && !["--json", "--quick"].contains(&a.as_str()));
    match words[..] {
        _ if unknown.is_some() => usage(),
        ["list"] => {
            for benchmark in BENCHMARKS {
                say(&format!("{:14} {}", benchmark.name, benchmark.what));
            }
            for (name, what) in network::BENCHMARKS {
                say(&format!("{name:14} {what}"));
            }
            ExitCode::SUCCESS
        }
        ["forwarder", kind] => forwarders::main(kind),
        ["pieces", role, how, size] => peers::main(&[role, how, size]),
        ["direct", role, how, size] => direct::main(&[role, how, size]),
        ["stream", ref words @ ..] if !words.is_empty() => stream::main(words),
        [name] => match BENCHMARKS.iter().find(|benchmark| benchmark.name == name) {
            None => usage(),
            Some(_) if options.folder.as_os_str().is_empty() => run_inside(&arguments),
            Some(benchmark) => {
                let mut report = Report::new(benchmark.name);
                (benchmark.run)(&options, &mut report);
                let _ = std::fs::remove_dir_all(&options.folder); // what is left there, nobody needs
                report.print(options.json);
                ExitCode::SUCCESS
            }
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    let names: Vec<_> =
        BENCHMARKS.iter().map(|b| b.name).chain(network::BENCHMARKS.map(|(name, _)| name)).collect();
    eprintln!("usage: bench/run NAME [--json] [--quick], or bench/run list\nNAME: {}", names.join(", "));
    ExitCode::from(WRONG_USE)
}

/// This program again, in namespaces of its own; they and all processes in them go with it.
fn run_inside(arguments: &[String]) -> ExitCode {
    let (Ok(folder), Ok(program)) = (tempfile::tempdir(), env::current_exe()) else {
        eprintln!("no temporary folder");
        return ExitCode::FAILURE;
    };
    // Removed by the run itself, at its end.
    let folder = folder.keep();
    let mut why = String::from("unshare failed");
    for flags in ["-nmp", "-Urnmp"] {
        let unshare = |script: &str| {
            let mut command = Command::new("unshare");
            command.args([flags, "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
            command.arg(format!("mount -t tmpfs tmpfs /run && ip link set dev lo up && {script}"));
            command.arg("sh").stdin(Stdio::null());
            command
        };
        match unshare("ip netns add probe && ip netns delete probe").output() {
            Ok(probe) if probe.status.success() => {}
            Ok(probe) => {
                why = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
                continue;
            }
            Err(error) => {
                why = error.to_string();
                continue;
            }
        }
        let mut command = unshare(r#"exec "$@""#);
        command.arg(&program).args(arguments).env(FOLDER, &folder);
        // This process becomes the other one, so that whoever ends it ends all of them.
        let error = command.exec();
        eprintln!("unshare: {error}");
        return ExitCode::FAILURE;
    }
    eprintln!("the system forbids namespaces (as root it may not): {why}");
    ExitCode::FAILURE
}

/// Prints a line on standard output; whoever read it may have left.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
