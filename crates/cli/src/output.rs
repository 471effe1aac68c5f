//! Standard output: text for people, JSON for programs, bytes for pipes. Colours only where a terminal shows them.
//!
//! Writing happens away from the runtime's threads, so that a reader who pauses stops nobody but the one command
//! that waits for its output. What goes to standard error is in `notes`.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use bowline::Path;
use serde::Serialize;
use tokio::io::{AsyncWriteExt, Stdout};

/// Nobody reads our output any more.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output is gone")]
pub(crate) struct ReaderGone;

/// IDs and headings.
pub(crate) const STRONG: Style = Style::new().bold();
/// What matters less.
pub(crate) const WEAK: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const FAIR: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// Standard output of this process.
pub(crate) struct Output {
    stdout: Stdout,
    styled: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let choice = anstream::AutoStream::choice(&io::stdout());
        Self { stdout: tokio::io::stdout(), styled: choice != anstream::ColorChoice::Never }
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// A line (or several) of text; styles are taken out where they would be noise.
    pub(crate) async fn line(&mut self, text: &str) -> anyhow::Result<()> {
        let mut text =
            if self.styled { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() };
        text.push('\n');
        self.bytes(text.as_bytes()).await
    }

    /// One JSON object on a line of its own.
    pub(crate) async fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        self.bytes(&text).await
    }

    /// Bytes as they are.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = async {
            self.stdout.write_all(bytes).await?;
            self.stdout.flush().await
        };
        written.await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => ReaderGone.into(),
            _ => anyhow::anyhow!("the output cannot be written: {error}"),
        })
    }
}

/// A text in a style.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A path in the colour of its worth.
pub(crate) fn path(path: Path) -> String {
    let style = match path {
        Path::Direct(_) | Path::Local => GOOD,
        Path::RelayUdp | Path::RelayTcp => FAIR,
        Path::None => BAD,
    };
    paint(style, path)
}

/// A path as JSON names it.
pub(crate) const fn path_name(path: Path) -> &'static str {
    match path {
        Path::None => "none",
        Path::RelayTcp => "relay-tcp",
        Path::RelayUdp => "relay-udp",
        Path::Direct(_) => "direct",
        Path::Local => "local",
    }
}

/// The address of a direct path.
pub(crate) const fn path_address(path: Path) -> Option<std::net::SocketAddr> {
    match path {
        Path::Direct(address) => Some(address),
        _ => None,
    }
}

/// Milliseconds with as many digits as mean something: `0.084`, `3.12`, `45.1`, `1204`.
pub(crate) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    let digits = match millis {
        m if m < 1.0 => 3,
        m if m < 10.0 => 2,
        m if m < 100.0 => 1,
        _ => 0,
    };
    format!("{millis:.digits$}")
}

/// Milliseconds for JSON, to the microsecond.
pub(crate) fn json_millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// How long something has lasted, in the largest unit that fits: `4 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn age(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_digits_that_mean_something() {
        let shown = [84, 3_120, 45_100, 1_204_000].map(|micros| millis(Duration::from_micros(micros)));
        assert_eq!(shown, ["0.084", "3.12", "45.1", "1204"]);
        let shown = [0, 119, 120, 7_200, 200_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
