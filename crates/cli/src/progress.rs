//! Progress of long work, on standard error, where a person looks: how much, how fast, how long still, and by which way.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

/// Between two drawings; the way is looked up no more often.
const TICK: Duration = Duration::from_millis(100);
/// Bytes between two looks at the way.
const LOOK: u64 = 1 << 20;

/// One bar. Where standard error is no terminal, nothing is drawn.
pub(crate) struct Progress {
    bar: ProgressBar,
    since_look: AtomicU64,
}

impl Progress {
    pub(crate) fn new(name: &str, length: u64) -> Self {
        let bar = ProgressBar::new(length);
        let style = ProgressStyle::with_template(
            "{prefix:.bold} {wide_bar:.green} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(bowline_quic::printable(name));
        bar.enable_steady_tick(TICK);
        Self { bar, since_look: AtomicU64::new(LOOK) }
    }

    /// So much was there before.
    pub(crate) fn begin(&self, from: u64) {
        self.bar.set_position(from);
        self.bar.reset_eta();
    }

    pub(crate) fn advance(&self, bytes: u64, way: &impl Fn() -> String) {
        self.bar.inc(bytes);
        if self.since_look.fetch_add(bytes, Relaxed) + bytes >= LOOK && !self.bar.is_hidden() {
            self.since_look.store(0, Relaxed);
            self.bar.set_message(way());
        }
    }

    /// Something that a person should know, above the bar.
    pub(crate) fn say(&self, sentence: &str) {
        self.bar.suspend(|| crate::notes::note(sentence));
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `1.50 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// `1.50 MiB/s`.
pub(crate) fn rate_text(bytes_per_second: f64) -> String {
    format!("{}/s", BinaryBytes(bytes_per_second as u64))
}
