//! The user (Ctrl-C, or by closing the terminal) or the system (SIGTERM) wants this process to end, or a base to read its files again (SIGHUP).

use std::io;

/// Catches signals from its making on. Once caught they never do again what the system does by default, so a command
/// holds one for as long as it runs.
#[cfg(unix)]
pub(crate) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// The terminal was closed, or SSH has no use for its ProxyCommand any more.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hangup = if ends_with_its_terminal() { Some(signal(SignalKind::hangup())?) } else { None };
        Ok(Self { hangup, ..Self::without_hangup()? })
    }

    /// For a base, to which SIGHUP says something else ([`Reload`]).
    pub(crate) fn without_hangup() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: None })
    }

    /// Waits for the next signal.
    pub(crate) async fn wait(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether SIGHUP is not ignored, as `nohup` has it.
#[cfg(target_os = "linux")]
fn ends_with_its_terminal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let hangup = tokio::signal::unix::SignalKind::hangup().as_raw_value();
    ignored.is_some_and(|mask| mask & (1 << (hangup - 1)) == 0)
}

/// Where it cannot be told, the system does what it does by default.
#[cfg(all(unix, not(target_os = "linux")))]
fn ends_with_its_terminal() -> bool {
    false
}

/// The user wants a base's files read again (SIGHUP); on systems without that, nobody ever does.
pub(crate) struct Reload {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Reload {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            hangup: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn wait(&mut self) {
        #[cfg(unix)]
        self.hangup.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}

#[cfg(not(unix))]
pub(crate) struct Stop;

#[cfg(not(unix))]
impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn without_hangup() -> io::Result<Self> {
        Self::new()
    }

    /// Waits for the next Ctrl-C.
    pub(crate) async fn wait(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
