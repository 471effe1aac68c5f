//! Logs: on standard error, for whoever wants to see inside. Without `-v` and `RUST_LOG` only warnings appear.
//!
//! Whatever a stranger can cause is written no more often than [`OFTEN`] from one place of the program: an attack fills counters, not
//! disks. What was left out is told every [`REPORT`].
//!
//! A thread of its own writes: who reads standard error may stop reading (a journal whose disk hangs, a pager), and nothing else stops
//! with him.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use bowline_proto::bucket::{Bucket, Rate};
use tracing::{Event, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, Filter, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Lines from one place of the program.
const OFTEN: Rate = Rate { burst: 100, every: Duration::from_millis(100) };
/// How often it is told what was left out.
const REPORT: Duration = Duration::from_secs(10);

/// Lines that wait to be written; one more is left out.
const WAITING: usize = 1_024;
/// How long those that wait when the program ends may take.
const PARTING: Duration = Duration::from_secs(1);

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

static LIMIT: OnceLock<Limit> = OnceLock::new();
static LINES: OnceLock<Lines> = OnceLock::new();
/// Lines that there was no room for.
static UNREAD: AtomicU64 = AtomicU64::new(0);

/// From here on, what the crates log is shown; `verbose` counts the `-v`s, `RUST_LOG` has precedence.
pub(crate) fn start(verbose: u8, format: Format) {
    // What a person should know of NATS, bowline says itself, and once.
    let by_count = match verbose {
        0 => "warn,async_nats=off",
        1 => "info,async_nats=off",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(by_count));
    let limit = LIMIT.get_or_init(Limit::default).clone();
    let writer = LINES.get_or_init(Lines::start).clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => registry.with(lines.with_ansi(ansi).with_filter(limit)).init(),
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            registry.with(lines.with_filter(limit)).init();
        }
    }
}

/// Waits until what was logged is written, for a moment at most.
pub(crate) fn finish() {
    let Some(Lines(lines)) = LINES.get() else { return };
    let (written, all) = channel();
    if lines.try_send(Line::Last(written)).is_ok() {
        let _ = all.recv_timeout(PARTING);
    }
}

/// Tells what was left out, for as long as it is polled.
pub(crate) async fn tell_left_out() {
    let Some(limit) = LIMIT.get() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(REPORT).await;
        for (place, count) in limit.left_out() {
            tracing::warn!(place, count, "lines like this were left out");
        }
        let count = UNREAD.swap(0, Relaxed);
        if count > 0 {
            tracing::warn!(count, "lines were left out: nobody read standard error");
        }
    }
}

/// On their way to standard error.
#[derive(Debug, Clone)]
struct Lines(SyncSender<Line>);

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    /// Whoever waits is to hear that all before it is written.
    Last(Sender<()>),
}

impl Lines {
    fn start() -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        // Without it, whoever logs writes.
        let _ = thread::Builder::new().name("logs".to_owned()).spawn(|| write_all(waiting));
        Self(lines)
    }
}

fn write_all(lines: Receiver<Line>) {
    for line in lines {
        match line {
            // Where standard error is closed or its disk is full there is nobody to tell.
            Line::Text(text) => {
                let _ = io::stderr().write_all(&text);
            }
            Line::Last(written) => {
                let _ = written.send(()); // nobody waits that long
            }
        }
    }
}

impl Write for Lines {
    /// A whole line, as they are written here.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.try_send(Line::Text(line.to_owned())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                UNREAD.fetch_add(1, Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A rate for each place of the program that logs: their number is bounded by the program.
#[derive(Debug, Clone, Default)]
struct Limit(Arc<Mutex<HashMap<Identifier, Place>>>);

#[derive(Debug, Default)]
struct Place {
    bucket: Bucket,
    left_out: u64,
    name: String,
}

impl Limit {
    fn allows(&self, metadata: &Metadata<'_>, now: Instant) -> bool {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(metadata.callsite()).or_default();
        if place.bucket.take(OFTEN, now) {
            return true;
        }
        if place.name.is_empty() {
            let line = metadata.line().unwrap_or_default();
            place.name = format!("{}:{line}", metadata.module_path().unwrap_or("?"));
        }
        place.left_out += 1;
        false
    }

    fn left_out(&self) -> Vec<(String, u64)> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let some = places.values_mut().filter(|place| place.left_out > 0);
        some.map(|place| (place.name.clone(), std::mem::take(&mut place.left_out))).collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.allows(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_logs_without_end_is_cut_and_told_of_and_others_are_not() {
        let limit = Limit::default();
        let shown = Arc::new(Mutex::new(0));
        struct Count(Arc<Mutex<u32>>);
        impl<S: Subscriber> Layer<S> for Count {
            fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let layer = Count(Arc::clone(&shown)).with_filter(limit.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let start = Instant::now();
            for _ in 0..10_000 {
                tracing::warn!("an attack");
            }
            tracing::warn!("something else");
            let earned = (start.elapsed().as_millis() / OFTEN.every.as_millis()) as u32;
            let shown = *shown.lock().unwrap();
            assert!((OFTEN.burst + 1..=OFTEN.burst + 2 + earned).contains(&shown), "{shown}");
            let left_out = limit.left_out();
            assert!(
                matches!(&left_out[..], [(place, count)] if place.contains("logs") && *count == 10_001 - u64::from(shown))
            );
            assert!(limit.left_out().is_empty(), "it is told once");
        });
    }
}
