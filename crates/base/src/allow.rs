//! The file with the devices that may register: read at the start, again when it changes, and when somebody says so (SIGHUP).
//!
//! One device ID a line; what follows a `#` is a remark. A file that is missing or wrong at the start is an error: a base that should be
//! closed is never open. Later the list as it was goes on, and whoever watches is told.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bowline_proto::DeviceId;
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_blocking,
    time::timeout,
};

use crate::control::Control;

/// How often the file's length and date are looked at. Editors and tools replace files rather than write them, and not every file
/// system tells of changes: looking works everywhere.
const LOOK: Duration = Duration::from_secs(1);
/// A file system that does not answer for as long (one over a network) is told of. It is waited for, on a thread of its own.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file cannot be read.
    #[error("the list of allowed devices {path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// A line is no device ID.
    #[error("the list of allowed devices {path} is wrong in line {line}: '{text}': {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The devices in a file.
///
/// # Errors
/// When it cannot be read, or a line of it is no device ID.
pub fn read(path: &Path) -> Result<HashSet<DeviceId>, ListError> {
    let bytes = fs::read(path).map_err(|error| ListError::Unreadable { path: path.to_owned(), error })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut devices = HashSet::new();
    // Some editors on Windows begin all text with a mark of their own.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (at, line) in text.lines().enumerate() {
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let device = text.parse().map_err(|why: bowline_proto::id::ParseIdError| ListError::Wrong {
            path: path.to_owned(),
            line: at + 1,
            text: text.chars().take(60).collect(),
            why: why.to_string(),
        })?;
        devices.insert(device);
    }
    Ok(devices)
}

/// What shows that a file is another than before, or may be read by another: when it was written, its length, which file it is, and when
/// who may read it changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark(Option<(SystemTime, u64, u64, (i64, i64))>);

impl Mark {
    pub(crate) fn of(path: &Path) -> Self {
        let mark = |data: fs::Metadata| {
            #[cfg(unix)]
            let (inode, changed) = {
                use std::os::unix::fs::MetadataExt as _;
                (data.ino(), (data.ctime(), data.ctime_nsec()))
            };
            #[cfg(not(unix))]
            let (inode, changed) = (0, (0, 0));
            Some((data.modified().ok()?, data.len(), inode, changed))
        };
        Self(fs::metadata(path).ok().and_then(mark))
    }
}

/// The file as it was looked at last.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    mark: Mark,
    /// What hindered reading may pass without a trace on the file: no descriptors, a folder that was closed, a file system that was away.
    unread: bool,
}

impl Watched {
    /// Looks again; the list, or what is wrong, where there is something new. May take as long as the file system does.
    fn look(&mut self, asked: bool) -> Option<Result<HashSet<DeviceId>, ListError>> {
        // Looked at before it is read: what is written meanwhile shows at the next look.
        let now = Mark::of(&self.path);
        let again = !asked && now == self.mark;
        if again && !self.unread {
            return None;
        }
        self.mark = now;
        let listed = read(&self.path);
        self.unread = matches!(listed, Err(ListError::Unreadable { .. }));
        // What was told already is not told again.
        (!again || !self.unread).then_some(listed)
    }
}

/// Tells the owner of every change of the file, until the base ends. `mark` is the file's as it was read.
pub(crate) async fn watch(path: PathBuf, mark: Mark, reload: Arc<Notify>, owner: mpsc::Sender<Control>) {
    let mut watched = Watched { path: path.clone(), mark, unread: false };
    loop {
        let asked = tokio::select! {
            () = reload.notified() => true,
            () = tokio::time::sleep(LOOK) => false,
            () = owner.closed() => return,
        };
        let mut look = spawn_blocking(move || {
            let listed = watched.look(asked);
            (watched, listed)
        });
        let looked = match timeout(LOOK_PATIENCE, &mut look).await {
            Ok(looked) => looked,
            Err(_) => {
                let silent =
                    format!("the list of allowed devices {} cannot be looked at: no answer", path.display());
                if owner.send(Control::Listed(Err(silent))).await.is_err() {
                    return;
                }
                tokio::select! {
                    looked = &mut look => looked,
                    () = owner.closed() => return,
                }
            }
        };
        let Ok((back, listed)) = looked else { return };
        watched = back;
        if let Some(listed) = listed
            && owner.send(Control::Listed(listed.map_err(|error| error.to_string()))).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_remarks_and_empty_lines_and_names_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allow");
        let [a, b] = [1, 2].map(|n| DeviceId::of_public_key(&[n; 32]));
        fs::write(&path, format!("# robots\n\n{a} # the first\r\n  {b}\n{a}")).unwrap();
        assert_eq!(read(&path).unwrap(), [a, b].into());
        fs::write(&path, format!("\u{feff}{a}\r\n{b}\r\n")).unwrap();
        assert_eq!(read(&path).unwrap(), [a, b].into());
        fs::write(&path, format!("{a}\nrobot7\n")).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("robot7"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(ListError::Unreadable { .. })));
    }
}
