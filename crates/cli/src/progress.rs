//! Progress of long work, on standard error, where a person looks: how much, how fast, how long still, and by which way.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use indicatif::{BinaryBytes, ProgressBar, ProgressState, ProgressStyle, style::ProgressTracker};

/// Between two drawings; the way is looked up no more often.
const TICK: Duration = Duration::from_millis(100);
/// Bytes between two looks at the way.
const LOOK: u64 = 1 << 20;

/// The rate that is shown is that of so long.
const RECENT: Duration = Duration::from_secs(3);

/// The bar that was begun last, for what is written above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn shown() -> Option<ProgressBar> {
    // Nothing panics while it holds this lock.
    BAR.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|bar| !bar.is_hidden())
}

/// Writes to standard error while no bar is in the way.
pub(crate) fn above_the_bar(write: impl FnOnce()) {
    match shown() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Shows that nothing comes, in the place of the way, until something does.
pub(crate) fn show_silence() {
    if let Some(bar) = shown() {
        bar.set_message("silent");
    }
}

/// One bar. Where standard error is no terminal, nothing is drawn.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Whether the way is shown in the colour of its worth.
    styled: bool,
    since_look: AtomicU64,
}

impl Progress {
    pub(crate) fn new(name: &str, length: u64) -> Self {
        let bar = ProgressBar::new(length);
        let style = ProgressStyle::with_template(
            "{prefix:.bold} {wide_bar:.green} {binary_bytes}/{binary_total_bytes} {recent} {eta} {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style.with_key("recent", Recent::default()));
        }
        bar.set_prefix(bowline_quic::printable(name));
        bar.enable_steady_tick(TICK);
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        let styled = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        Self { bar, styled, since_look: AtomicU64::new(LOOK) }
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
            self.bar.set_message(if self.styled {
                way()
            } else {
                anstream::adapter::strip_str(&way()).to_string()
            });
        }
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The rate of the last seconds: an average over all of it would fall slowly where nothing comes any more.
#[derive(Debug, Clone, Default)]
struct Recent(VecDeque<(Instant, u64)>);

impl Recent {
    fn note(&mut self, position: u64, now: Instant) {
        self.0.push_back((now, position));
        // One that is older stays, so that there is always a difference.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RECENT) {
            self.0.pop_front();
        }
    }

    fn rate(&self) -> f64 {
        let (Some((from, before)), Some((to, after))) = (self.0.front(), self.0.back()) else { return 0.0 };
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        if seconds > 0.0 { after.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

impl ProgressTracker for Recent {
    fn clone_box(&self) -> Box<dyn ProgressTracker> {
        Box::new(self.clone())
    }

    fn tick(&mut self, state: &ProgressState, now: Instant) {
        // Ticks come as bytes do; so many samples are enough.
        if self.0.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= TICK) {
            self.note(state.pos(), now);
        }
    }

    fn reset(&mut self, state: &ProgressState, now: Instant) {
        self.0.clear();
        self.note(state.pos(), now);
    }

    fn write(&self, _state: &ProgressState, w: &mut dyn fmt::Write) {
        let _ = w.write_str(&rate_text(self.rate()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (start, mut recent) = (Instant::now(), Recent::default());
        for second in 0..=10 {
            recent.note(second * 100, start + Duration::from_secs(second));
        }
        assert_eq!(recent.rate(), 100.0);
        for second in 11..=14 {
            recent.note(1000, start + Duration::from_secs(second));
        }
        assert_eq!(recent.rate(), 0.0);
    }
}
