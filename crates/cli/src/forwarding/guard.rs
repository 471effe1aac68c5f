//! What `serve` allows: nothing, but for what is listed.
//!
//! A request is compared with the list as it was written: `localhost:22` allows `localhost:22` and not `127.0.0.1:22`, and names
//! are looked up only once they are allowed. A listed port `*` stands for every port of that host.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error};

use super::{
    spec::{Place, listening},
    wire::Answer,
};

/// A target that is allowed: a place, or a host with all its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Place(Place),
    Host(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix(":*") {
            Some(host) => match format!("{host}:0").parse()? {
                Place::Tcp { host, .. } => Ok(Self::Host(host)),
                Place::Unix(_) => Err(format!("'{text}': a Unix socket has no ports")),
            },
            None => Ok(Self::Place(text.parse()?)),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Target {
    fn allows(&self, place: &Place) -> bool {
        match (self, place) {
            (Self::Place(listed), place) => listed == place,
            (Self::Host(listed), Place::Tcp { host, .. }) => listed == host,
            (Self::Host(_), Place::Unix(_)) => false,
        }
    }
}

/// A place that others may have this device listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening(pub(crate) Place);

impl FromStr for Listening {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        listening(text).map(Self)
    }
}

impl<'de> Deserialize<'de> for Listening {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Both lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    pub(crate) targets: Vec<Target>,
    pub(crate) listens: Vec<Listening>,
}

impl Guard {
    /// Whether it may be connected to; if not, the answer.
    pub(crate) fn connect(&self, place: &Place) -> Result<(), Answer> {
        if self.targets.iter().any(|target| target.allows(place)) {
            return Ok(());
        }
        Err(Answer::Refused(format!("refused {place}: not in its allow list (serve --target {place})")))
    }

    /// Whether it may be listened at; if not, the answer.
    pub(crate) fn listen(&self, place: &Place) -> Result<(), Answer> {
        if self.listens.iter().any(|listed| listed.0 == *place) {
            return Ok(());
        }
        Err(Answer::Refused(format!(
            "refused to listen at {place}: not in its allow list (serve --listen {place})"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(targets: &[&str], place: &str) -> bool {
        let targets = targets.iter().map(|target| target.parse().unwrap()).collect();
        Guard { targets, listens: Vec::new() }.connect(&place.parse().unwrap()).is_ok()
    }

    #[test]
    fn nothing_is_allowed_but_what_is_listed() {
        assert!(!allows(&[], "localhost:22"));
        assert!(allows(&["localhost:22"], "localhost:22"));
        assert!(!allows(&["localhost:22"], "localhost:23"));
        assert!(!allows(&["localhost:22"], "127.0.0.1:22"));
        assert!(allows(&["localhost:*"], "localhost:23"));
        assert!(!allows(&["localhost:*"], "localhost.example:23"));
        assert!(!allows(&["localhost:*"], "/run/app.sock"));
        assert!(allows(&["/run/app.sock"], "/run/app.sock"));
        assert!(!allows(&["/run/app.sock"], "/run/../run/app.sock"));
        assert!("/run/app.sock:*".parse::<Target>().is_err() && "*".parse::<Target>().is_err());
    }

    #[test]
    fn a_refusal_says_what_would_allow_it() {
        let Err(Answer::Refused(why)) = Guard::default().connect(&"localhost:22".parse().unwrap()) else {
            panic!()
        };
        assert_eq!(why, "refused localhost:22: not in its allow list (serve --target localhost:22)");
        let Err(Answer::Refused(why)) = Guard::default().listen(&listening("80").unwrap()) else { panic!() };
        assert!(why.contains("serve --listen localhost:80"), "{why}");
    }
}
