//! Events for whoever asks for them: each subscriber has a bounded stream of its own.
//!
//! A subscriber that does not read holds nobody up: it loses the oldest events and is told how many. The first stream that
//! is asked for begins with the endpoint, so that nobody misses the beginning; nothing is kept for those who come later:
//! the status tells what has become of the past.

use std::sync::{Mutex, PoisonError};

use bowline_proto::host::Event;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::config::EVENTS;

/// An item of [`Events`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// Something happened.
    Event(Event),
    /// The reader was too slow: so many events, the oldest ones, were lost before the next item.
    Lost(u64),
}

/// A stream of events, from [`crate::Endpoint::events`]. It holds 1,024 events; a reader that is slower loses the
/// oldest and gets [`EventItem::Lost`] in their place.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` once the endpoint is closed and all events have been taken.
    ///
    /// Cancel safe: an event is taken only when this returns.
    pub async fn next(&mut self) -> Option<EventItem> {
        match self.0.recv().await {
            Ok(event) => Some(EventItem::Event(event)),
            Err(RecvError::Lagged(lost)) => Some(EventItem::Lost(lost)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Where events are published.
#[derive(Debug)]
pub(crate) struct Publisher(Mutex<Streams>);

#[derive(Debug)]
struct Streams {
    /// Until the endpoint is closed.
    sender: Option<broadcast::Sender<Event>>,
    /// Until somebody asks for it: what has happened since the start.
    first: Option<Events>,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        let (sender, first) = broadcast::channel(EVENTS);
        Self(Mutex::new(Streams { sender: Some(sender), first: Some(Events(first)) }))
    }

    pub(crate) fn publish(&self, event: Event) {
        if let Some(sender) = &self.lock().sender {
            // It fails when nobody listens, which is fine.
            let _ = sender.send(event);
        }
    }

    /// The first time: a stream from the start on.
    pub(crate) fn subscribe(&self) -> Events {
        let first = self.lock().first.take();
        first.unwrap_or_else(|| self.subscribe_from_now())
    }

    /// A stream from now on; an ended one after [`Publisher::close`].
    pub(crate) fn subscribe_from_now(&self) -> Events {
        Events(match &self.lock().sender {
            Some(sender) => sender.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        })
    }

    /// Ends all streams behind what they hold.
    pub(crate) fn close(&self) {
        self.lock().sender = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Streams> {
        // Nothing panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let publisher = Publisher::new();
        let mut events = publisher.subscribe();
        for number in 0..EVENTS + 3 {
            publisher.publish(Event::RelayUdp(number == EVENTS + 2));
        }
        publisher.close();
        assert_eq!(events.next().await, Some(EventItem::Lost(3)));
        let mut last = None;
        let mut count = 0;
        while let Some(item) = events.next().await {
            last = Some(item);
            count += 1;
        }
        assert_eq!(count, EVENTS);
        assert_eq!(last, Some(EventItem::Event(Event::RelayUdp(true))));
    }

    #[tokio::test]
    async fn a_stream_asked_for_after_the_end_is_at_its_end() {
        let publisher = Publisher::new();
        publisher.close();
        assert_eq!(publisher.subscribe().next().await, None);
    }
}
