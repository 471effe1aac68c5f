//! Notes on standard error: what a person should know while a command runs. One sentence each, after `bowline: `.
//!
//! Logs are something else: they are for whoever looks inside, and come from the crates themselves.

use std::net::SocketAddr;

use anstyle::Style;
use bowline::{BaseStatus, DeviceId, Event, EventItem};

const NAME: Style = Style::new().bold();

/// A sentence on standard error.
pub(crate) fn note(sentence: &str) {
    use std::io::Write;
    crate::progress::above_the_bar(|| {
        // Where standard error is closed there is nobody to tell.
        let _ = writeln!(anstream::stderr().lock(), "{NAME}bowline:{NAME:#} {sentence}");
    });
}

/// Tells the notable ones of an endpoint's events, and none twice in a row.
pub(crate) struct Teller {
    /// Whether coming and going of the base is of interest, or only what needs the user's hand.
    chatty: bool,
    last: Option<String>,
}

impl Teller {
    /// For a command that stays: tells of every registration and loss.
    pub(crate) const fn chatty() -> Self {
        Self { chatty: true, last: None }
    }

    /// For a command that asks one thing: tells what is wrong, no more.
    pub(crate) const fn terse() -> Self {
        Self { chatty: false, last: None }
    }

    /// Tells of one event, if it should be told.
    pub(crate) fn tell(&mut self, item: &EventItem) {
        let EventItem::Event(event) = item else { return };
        if let Some(sentence) = self.sentence(event) {
            self.say(sentence);
        }
    }

    /// Tells of a base that may have answered before anybody could listen; its event, if it still comes, says nothing
    /// new.
    pub(crate) fn tell_registered(&mut self, base: &BaseStatus) {
        if self.chatty {
            self.say(registered(&base.name, base.id, base.seen));
        }
    }

    fn say(&mut self, sentence: String) {
        if self.last.as_ref() != Some(&sentence) {
            note(&sentence);
            self.last = Some(sentence);
        }
    }

    fn sentence(&self, event: &Event) -> Option<String> {
        match event {
            Event::Registered { base, id, seen, .. } if self.chatty => Some(registered(base, *id, *seen)),
            Event::BaseLost { base, reason } => Some(format!("lost the base {base}: {reason}")),
            Event::BaseRefused { base, reason, .. } if self.chatty => {
                Some(format!("the base {base} cannot be used: {reason}"))
            }
            Event::Replaced => Some(
                "another process took over with this device's key; this one stays away for a while"
                    .to_owned(),
            ),
            Event::Notice { text, .. } => Some(format!("the base says: {text}")),
            Event::ClustersDiffer { one, other } => Some(format!(
                "the bases {} (cluster {}) and {} (cluster {}) are not of one cluster: devices on them cannot meet",
                one.0, one.1, other.0, other.1
            )),
            _ => None,
        }
    }
}

fn registered(base: &str, id: DeviceId, seen: SocketAddr) -> String {
    // With its ID, once: as it can be handed to others.
    let name = if base.contains('@') { base.to_owned() } else { format!("{id}@{base}") };
    format!("registered at {name}, which sees this device at {seen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(base: &str) -> Event {
        Event::Registered {
            base: base.to_owned(),
            id: DeviceId::from_bytes([7; 14]),
            remote: ([192, 0, 2, 1], 4477).into(),
            seen: ([192, 0, 2, 7], 5123).into(),
        }
    }

    #[test]
    fn a_base_is_told_with_its_id_once_and_as_it_can_be_pasted() {
        let id = DeviceId::from_bytes([7; 14]);
        let whole = format!("{id}@base.example:4477");
        for base in ["base.example:4477", &whole] {
            let sentence = Teller::chatty().sentence(&event(base)).unwrap();
            assert_eq!(sentence.matches(&whole).count(), 1, "{sentence}");
            assert_eq!(sentence.matches(&id.to_string()).count(), 1, "{sentence}");
        }
    }

    #[test]
    fn a_command_that_asks_one_thing_is_told_of_trouble_alone() {
        assert_eq!(Teller::terse().sentence(&event("base.example")), None);
        assert!(Teller::terse().sentence(&Event::Replaced).is_some());
    }
}
