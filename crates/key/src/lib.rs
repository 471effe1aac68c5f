//! Key files: where a device (or a base server) keeps its secret key.
//!
//! A key file is text. Everything from a `#` to the end of its line is a comment; besides comments and blank lines
//! there is exactly one line,
//!
//! ```text
//! bowline-key-1 <64 hexadecimal digits: the 32-byte seed of the Ed25519 key, RFC 8032>
//! ```
//!
//! The rules (protocol section 2):
//!
//! - A file is made whole or not at all: written beside its final name, flushed to the disk, and only then linked to
//!   that name. An existing file is never overwritten; of two processes that make the same file at the same time,
//!   one wins and both use its key.
//! - It is made with mode 0600, its missing parent folders with 0700. A file that group or others have any right
//!   to, or that belongs to another user, is refused.
//! - One process at a time *runs* as the device: it holds a [`KeyLock`]. Reading the key needs no lock.
//!
//! What is done with the key is not decided here, nor which file it is in.

mod create;
mod error;
mod text;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Read,
    path::{Path, PathBuf},
};

use bowline_proto::SecretKey;
pub use error::{Action, KeyError, Malformed};
use zeroize::Zeroizing;

/// The largest key file that is read. The one line that counts has 78 bytes; the rest is room for comments.
pub const MAX_FILE_LEN: usize = 4096;

/// How often a file that came and went between two looks is looked for again.
const ATTEMPTS: u32 = 16;

/// A new key from the system's random source.
///
/// # Panics
/// When the system has no random source at all: no key made without one would be a secret.
#[must_use]
pub fn generate() -> SecretKey {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).expect("a system with a random source: nothing else makes a secret key");
    SecretKey::from_seed(&seed)
}

/// A key and the file it came from.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    key: SecretKey,
    created: bool,
    identity: Identity,
}

impl KeyFile {
    /// Reads a key file.
    ///
    /// # Errors
    /// When there is none, or one that breaks a rule: see [`KeyError`], each variant is one rule.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let file = open_regular(path)?;
        refuse_what_others_reach(path, &file)?;
        Ok(Self {
            path: path.to_owned(),
            key: read_key(path, &file)?,
            created: false,
            identity: Identity::of(path, &file)?,
        })
    }

    /// Reads a key file, or makes it with a new key (and the folders above it) where there is none.
    ///
    /// # Errors
    /// As [`KeyFile::open`], and when the file cannot be made.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        for _ in 0..ATTEMPTS {
            match Self::open(path) {
                Err(error) if error.is_missing() => {}
                result => return result,
            }
            if create::create(path, &generate())? {
                return Ok(Self { created: true, ..Self::open(path)? });
            }
        }
        Err(KeyError::Unsteady { path: path.to_owned() })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was made just now.
    #[must_use]
    pub const fn was_created(&self) -> bool {
        self.created
    }

    /// Claims the key for this process until the lock is dropped (or the process ends, however it ends).
    ///
    /// # Errors
    /// [`KeyError::InUse`] when another lock on it is held, in this process or in another one;
    /// [`KeyError::Replaced`] when the path names another file than the one that was read.
    pub fn lock(&self) -> Result<KeyLock, KeyError> {
        let failed = |source| KeyError::failed(Action::Lock, &self.path, source);
        // A file description of its own, so that two locks in one process exclude each other, too. Locks on some
        // network file systems need one that may write; a key file that is read-only gets along without.
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.or_else(|_| File::open(&self.path)).map_err(failed)?;
        if Identity::of(&self.path, &file)? != self.identity {
            return Err(KeyError::Replaced { path: self.path.clone() });
        }
        match file.try_lock() {
            Ok(()) => Ok(KeyLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(KeyError::InUse { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// As long as this lives, no other process runs with the key. An advisory lock of the system on the key file: it
/// ends with the process and leaves nothing behind.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub struct KeyLock {
    _file: File,
}

/// Opens a file for reading without waiting for whoever might be at the other end of a FIFO.
fn open_regular(path: &Path) -> Result<File, KeyError> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    }
    let not_a_file = || KeyError::NotAFile { path: path.to_owned() };
    let file = options.open(path).map_err(|source| match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => not_a_file(), // a socket cannot even be opened
        _ => KeyError::failed(Action::Read, path, source),
    })?;
    let found = file.metadata().map_err(|source| KeyError::failed(Action::Read, path, source))?;
    if found.is_file() { Ok(file) } else { Err(not_a_file()) }
}

/// A secret that others can read (or replace) is none.
#[cfg(unix)]
fn refuse_what_others_reach(path: &Path, file: &File) -> Result<(), KeyError> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata().map_err(|source| KeyError::failed(Action::Read, path, source))?;
    let (owner, user) = (found.uid(), nix::unistd::geteuid().as_raw());
    if owner != user && owner != 0 {
        return Err(KeyError::Owner { path: path.to_owned(), owner, user });
    }
    if found.mode() & 0o077 != 0 {
        // Whoever names the wrong file is not told to change its rights.
        match read_key(path, file) {
            Err(KeyError::Malformed {
                what: Malformed::NotAKey { .. } | Malformed::NotText { .. },
                path,
            }) => {
                return Err(KeyError::SomethingElse { path });
            }
            Err(error @ KeyError::TooLarge { .. }) => return Err(error),
            _ => {}
        }
        return Err(KeyError::Exposed { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    Ok(())
}

/// Rights are not modes here; the folder of the user's profile keeps others out.
#[cfg(not(unix))]
fn refuse_what_others_reach(_path: &Path, _file: &File) -> Result<(), KeyError> {
    Ok(())
}

fn read_key(path: &Path, file: &File) -> Result<SecretKey, KeyError> {
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 1));
    file.take(MAX_FILE_LEN as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|source| KeyError::failed(Action::Read, path, source))?;
    if content.len() > MAX_FILE_LEN {
        return Err(KeyError::TooLarge { path: path.to_owned() });
    }
    text::parse(&content).map_err(|what| KeyError::Malformed { path: path.to_owned(), what })
}

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path, file: &File) -> Result<Self, KeyError> {
        use std::os::unix::fs::MetadataExt;
        let found = file.metadata().map_err(|source| KeyError::failed(Action::Read, path, source))?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }

    /// The standard library has no stable answer here: the name has to do.
    #[cfg(not(unix))]
    fn of(_path: &Path, _file: &File) -> Result<Self, KeyError> {
        Ok(Self { device: 0, inode: 0 })
    }
}
