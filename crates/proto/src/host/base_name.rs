//! How a base is written: `[<base ID>@]host[:port]`, IPv6 addresses in brackets.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use super::config::BASE_PORT;
use crate::id::{DeviceId, ParseIdError};

/// A base as the user writes it: `[<base ID>@]host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseName {
    /// The ID it must have, if one was written.
    pub id: Option<DeviceId>,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port, 4477 where none was written.
    pub port: u16,
}

impl BaseName {
    /// `host:port`, the name under which its ID is remembered.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for BaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "{id}@")?;
        }
        f.write_str(&self.authority())
    }
}

/// Why a text names no base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseBaseError {
    /// What stands before the `@` is no ID.
    #[error("'{text}' is not a base ID: {error}")]
    Id {
        /// The text.
        text: String,
        /// What is wrong with it.
        error: ParseIdError,
    },
    /// There is no host.
    #[error("'{0}' names no host; write [<base ID>@]host[:port]")]
    NoHost(String),
    /// The port is none.
    #[error("'{0}' is not a port (1 to 65535)")]
    Port(String),
    /// An IPv6 address without brackets, or brackets without an IPv6 address.
    #[error("'{0}' is not a host; an IPv6 address is written in brackets, as in [2001:db8::1]:4477")]
    Host(String),
}

impl FromStr for BaseName {
    type Err = ParseBaseError;

    fn from_str(text: &str) -> Result<Self, ParseBaseError> {
        let (id, authority) = match text.split_once('@') {
            None => (None, text),
            Some((id, rest)) => {
                let parsed = id.parse().map_err(|error| ParseBaseError::Id { text: id.to_owned(), error })?;
                (Some(parsed), rest)
            }
        };
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| ParseBaseError::Host(authority.to_owned()))?;
            host.parse::<Ipv6Addr>().map_err(|_| ParseBaseError::Host(authority.to_owned()))?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(ParseBaseError::Host(authority.to_owned())),
            }
        } else {
            match authority.split_once(':') {
                Some((_, rest)) if rest.contains(':') => {
                    return Err(ParseBaseError::Host(authority.to_owned()));
                }
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            }
        };
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(ParseBaseError::NoHost(text.to_owned()));
        }
        let port = match port {
            None => BASE_PORT,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(ParseBaseError::Port(port.to_owned())),
            },
        };
        Ok(Self { id, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written() {
        let id = DeviceId::from_bytes([7; 14]);
        for (text, written) in [
            ("base.example", "base.example:4477"),
            ("base.example:443", "base.example:443"),
            ("192.0.2.1", "192.0.2.1:4477"),
            ("[2001:db8::1]", "[2001:db8::1]:4477"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(text.parse::<BaseName>().unwrap().to_string(), written);
            let with_id = format!("{id}@{text}").parse::<BaseName>().unwrap();
            assert_eq!(with_id.id, Some(id));
            assert_eq!(with_id.to_string(), format!("{id}@{written}"));
        }
    }

    #[test]
    fn what_is_no_base_is_an_error() {
        for text in
            ["", ":4477", "x@host", "host:0", "host:70000", "host:x", "2001:db8::1", "[host]:1", "a b"]
        {
            assert!(text.parse::<BaseName>().is_err(), "{text:?}");
        }
    }
}
