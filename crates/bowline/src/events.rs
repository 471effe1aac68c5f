//! Events for whoever asks for them.

use bowline_proto::host::Event;

/// An item of [`Events`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// Something happened.
    Event(Event),
    /// The reader was too slow: so many events, the oldest ones, were lost before the next item.
    Lost(u64),
}

/// A stream of events, from [`crate::Endpoint::events`].
#[derive(Debug)]
pub struct Events {}

impl Events {
    /// The next event; `None` once the endpoint is closed and all events have been taken.
    pub async fn next(&mut self) -> Option<EventItem> {
        todo!()
    }
}
