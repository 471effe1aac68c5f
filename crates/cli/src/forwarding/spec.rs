//! What is forwarded where, as text: `[bind:]port:host:port`, and paths of Unix sockets in the place of either half.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Something that sockets connect to, or that listens: `host:port`, or the path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// A `-L` or `-R`: where to listen, and where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) listen: Place,
    pub(crate) connect: Place,
}

/// Where a listener is that names no address.
pub(crate) const LOOPBACK: &str = "localhost";
const HOST_LENGTH: usize = 253;
/// What a Unix socket's address holds, less its final zero.
const PATH_LENGTH: usize = 107;

impl Place {
    /// Whether it means one place, and not any port that is free.
    pub(crate) fn is_one(&self) -> bool {
        !matches!(self, Self::Tcp { port: 0, .. })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        place(&fields(text)?).map_err(|what| format!("'{}': {what}", text.escape_debug()))
    }
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        forward(&fields(text)?).map_err(|what| format!("'{}': {what}", text.escape_debug()))
    }
}

/// A place to listen at: `[bind:]port`, or a path.
pub(crate) fn listening(text: &str) -> Result<Place, String> {
    match &fields(text)?[..] {
        [only] if !only.starts_with('/') => tcp(LOOPBACK, only),
        [bind, port] if bind.is_empty() || bind == "*" => tcp("::", port),
        all => place(all),
    }
    .map_err(|what| format!("'{}': {what}", text.escape_debug()))
}

fn forward(fields: &[String]) -> Result<Forward, String> {
    let (listen, rest) = match fields {
        [path, rest @ ..] if path.starts_with('/') => (place(&fields[..1])?, rest),
        [bind, port, rest @ ..] if rest.len() == 2 || rest.len() == 1 && rest[0].starts_with('/') => {
            let bind = if bind.is_empty() || bind == "*" { "::" } else { bind };
            (tcp(bind, port)?, rest)
        }
        [port, rest @ ..] => (tcp(LOOPBACK, port)?, rest),
        [] => return Err("nothing to forward".to_owned()),
    };
    Ok(Forward { listen, connect: place(rest)? })
}

fn place(fields: &[String]) -> Result<Place, String> {
    match fields {
        [path] if path.starts_with('/') => {
            if path.len() > PATH_LENGTH {
                return Err(format!("the path of a socket has {PATH_LENGTH} bytes at most"));
            }
            if path.contains(char::is_control) {
                return Err("the path of a socket has no control characters".to_owned());
            }
            Ok(Place::Unix(path.into()))
        }
        [host, port] => tcp(host, port),
        _ => Err("neither host:port nor the absolute path of a Unix socket".to_owned()),
    }
}

fn tcp(host: &str, port: &str) -> Result<Place, String> {
    let port = port.parse().map_err(|_| format!("'{port}' is not a port"))?;
    if host.is_empty()
        || host.len() > HOST_LENGTH
        || host.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace())
    {
        return Err("not the name of a host".to_owned());
    }
    Ok(Place::Tcp { host: host.to_ascii_lowercase(), port })
}

/// The parts between colons; those in brackets belong to an IPv6 address.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            ':' if !inside => fields.push(String::new()),
            c => {
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    if inside { Err(format!("'{text}': a bracket is not closed")) } else { Ok(fields) }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        let forward: Forward = text.parse().unwrap();
        format!("{} -> {}", forward.listen, forward.connect)
    }

    #[test]
    fn forwards_are_written_as_openssh_writes_them() {
        for (text, meaning) in [
            ("8080:localhost:80", "localhost:8080 -> localhost:80"),
            ("127.0.0.1:8080:db.internal:5432", "127.0.0.1:8080 -> db.internal:5432"),
            ("[::1]:8080:[2001:db8::1]:80", "[::1]:8080 -> [2001:db8::1]:80"),
            ("*:8080:localhost:80", "[::]:8080 -> localhost:80"),
            ("8080:/run/app.sock", "localhost:8080 -> /run/app.sock"),
            ("127.0.0.2:8080:/run/app.sock", "127.0.0.2:8080 -> /run/app.sock"),
            ("/tmp/here.sock:localhost:80", "/tmp/here.sock -> localhost:80"),
            ("/tmp/here.sock:/run/there.sock", "/tmp/here.sock -> /run/there.sock"),
        ] {
            assert_eq!(parsed(text), meaning);
        }
    }

    #[test]
    fn what_is_no_forward_is_refused_with_what_is_wrong() {
        for (text, what) in [
            ("8080", "neither"),
            ("8080:80", "neither"),
            ("x:localhost:80", "not a port"),
            ("8080:localhost:99999", "not a port"),
            ("8080::80", "not the name"),
            ("[::1:8080:a:1", "bracket"),
            ("1:b:c:d:e", "neither"),
            ("8080:relative.sock", "neither"),
        ] {
            let error = text.parse::<Forward>().unwrap_err();
            assert!(error.contains(what) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_taken_or_repeated() {
        let error = "/run/\u{1b}]0;x".parse::<Place>().unwrap_err();
        assert!(error.contains("control characters") && !error.contains(char::is_control), "{error:?}");
    }

    #[test]
    fn a_place_is_the_same_whatever_the_case_of_its_host() {
        let place: Place = "LocalHost:22".parse().unwrap();
        assert_eq!(place, "localhost:22".parse().unwrap());
        assert_eq!(listening("8080").unwrap().to_string(), "localhost:8080");
    }
}
