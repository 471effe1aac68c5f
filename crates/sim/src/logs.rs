//! What is logged as an error fails the run: a machine says so only of what must not happen.
//!
//! The first world of a process installs the watch for all of them. A world runs on one thread, and so does what it logs.

use std::{cell::RefCell, fmt, sync::Once};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber,
};

thread_local! {
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on errors are kept for [`take`]. A program that has a subscriber of its own keeps that one instead.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(subscriber::set_global_default(Watch)));
}

/// What was logged as an error on this thread since the last call.
#[must_use]
pub fn take() -> Vec<String> {
    ERRORS.with(|errors| if errors.borrow().is_empty() { Vec::new() } else { errors.take() })
}

struct Watch;

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(event.metadata().target().to_owned());
        event.record(&mut text);
        ERRORS.with(|errors| errors.borrow_mut().push(text.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The fields of an event, one after the other.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_kept_and_a_warning_is_not() {
        watch();
        tracing::warn!("a warning");
        tracing::error!(what = 7, "an error");
        let errors = take();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("an error") && errors[0].contains("what=7"), "{errors:?}");
        assert!(take().is_empty());
    }
}
