//! What can be wrong with a key file. Every error is one sentence that names the file and, where there is one, the
//! remedy. None of them ever shows a part of the key.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::MAX_FILE_LEN;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system refused an operation: no such file, disk full, read-only, not permitted.
    #[error("the key file {} cannot be {action}: {}", path.display(), words(source))]
    System {
        /// What was tried.
        action: Action,
        /// The file (or the folder above it).
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder, FIFO, socket or device.
    #[error("the key file {} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Its mode gives rights to others than its owner.
    #[error("the key file {} is open to others (mode {mode:04o}): close it with `chmod 600 {}`", path.display(), shell_word(path))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It belongs to another user, who can read and replace it.
    #[error("the key file {} belongs to user {owner}, this process runs as user {user}: run it as the owner, or give the file away with `chown {user} {}`", path.display(), shell_word(path))]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Larger than any key file.
    #[error("the key file {} is larger than {MAX_FILE_LEN} bytes: it is something else", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Open to others, and no key: mostly a file that was named by mistake.
    #[error("the file {} is no key file (its first line does not begin with \"bowline-key-1\"): name another one", path.display())]
    SomethingElse {
        /// The file.
        path: PathBuf,
    },
    /// Its content is not a key.
    #[error("the key file {} is malformed: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: Malformed,
    },
    /// Another process runs with this key.
    #[error("the key file {} is in use by another process: stop that one, or use another key file", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Between reading and locking, another file took its name.
    #[error("the key file {} was replaced just now: start again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// Its name is taken, and yet there is no file.
    #[error("the key file {} is a link to a file that does not exist, or something keeps removing it", path.display())]
    Unsteady {
        /// The file.
        path: PathBuf,
    },
}

impl KeyError {
    pub(crate) fn failed(action: Action, path: &Path, source: io::Error) -> Self {
        Self::System { action, path: path.to_owned(), source }
    }

    /// Whether there is simply no file of this name yet.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System { action: Action::Read, source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What was tried with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reading it.
    Read,
    /// Making it.
    Create,
    /// Locking it.
    Lock,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Create => "created",
            Self::Lock => "locked",
        })
    }
}

/// What is wrong with the content of a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not text.
    #[error("line {line} is not text")]
    NotText {
        /// From 1.
        line: usize,
    },
    /// A line that is neither a comment nor a key.
    #[error("line {line} does not begin with \"bowline-key-1\"")]
    NotAKey {
        /// From 1.
        line: usize,
    },
    /// A key of a format that this program does not know.
    #[error("line {line} is a key of another version than 1: a newer bowline made it")]
    Version {
        /// From 1.
        line: usize,
    },
    /// Not 64 digits.
    #[error("the key in line {line} has {found} characters, not 64 hexadecimal digits")]
    Length {
        /// From 1.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// Something else than a hexadecimal digit.
    #[error("character {position} of the key in line {line} is not a hexadecimal digit")]
    Digit {
        /// From 1.
        line: usize,
        /// From 1, counted in the key.
        position: usize,
    },
    /// Something after the key.
    #[error("there is something after the key in line {line}")]
    Trailing {
        /// From 1.
        line: usize,
    },
    /// A second key.
    #[error("line {line} is a second key, there must be one")]
    Second {
        /// From 1.
        line: usize,
    },
    /// No key at all.
    #[error("it holds no key")]
    Empty,
}

/// The system's words without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%:,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
