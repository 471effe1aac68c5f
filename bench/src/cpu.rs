//! CPU seconds of a process, and which core it may use.
//!
//! A packet's way through the kernel is paid by whoever runs at that moment; with base and gear on a core each, what the base's process is
//! charged with is the whole price of its packets: receive call, its own work, send call, and the veth behind it.

use std::{
    fs,
    num::NonZero,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// The core that the base, or the forwarder in its place, has for itself.
pub(crate) const BASE_CORE: usize = 0;
/// The core of senders and receivers.
pub(crate) const GEAR_CORE: usize = 1;

/// Seconds that a process has run, all its threads together. Nanoseconds precise (`schedstat`); threads that have ended do not count.
pub(crate) fn seconds(pid: u32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return f64::NAN };
    let of_task = |path: std::path::PathBuf| -> Option<f64> {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let nanos: f64 = tasks.flatten().filter_map(|task| of_task(task.path())).sum();
    nanos / 1e9
}

/// Resident memory of a process, bytes.
#[allow(dead_code, reason = "for benchmarks of memory")]
pub(crate) fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0)
}

/// Keeps the calling thread on one core, where there are two.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// Nanoseconds that a cache line takes from one of the two cores to the other. A host may move a virtual machine's cores between caches:
/// 40 to 60 where they share one, three times that and more where they do not.
pub(crate) fn distance() -> f64 {
    const TURNS: u32 = 20_000;
    if thread::available_parallelism().map_or(1, NonZero::get) < 2 {
        return f64::NAN;
    }
    let line = AtomicU32::new(0);
    let pass = |core, mine: u32| {
        pin(core);
        for turn in (mine..2 * TURNS).step_by(2) {
            while line.load(Ordering::Acquire) != turn {
                std::hint::spin_loop();
            }
            line.store(turn + 1, Ordering::Release);
        }
    };
    thread::scope(|scope| {
        let began = Instant::now();
        let ends = [(BASE_CORE, 0), (GEAR_CORE, 1)].map(|(core, mine)| scope.spawn(move || pass(core, mine)));
        ends.into_iter().for_each(|end| drop(end.join()));
        began.elapsed().as_secs_f64() * 1e9 / f64::from(2 * TURNS)
    })
}
