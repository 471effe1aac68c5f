//! Where received files are put: one folder, and nothing outside of it.
//!
//! A file is written beside its name, as `.<name>.<sender>.part`, which only its sender goes on with; it gets its name when it is whole,
//! verified and on the disk. What has that name already stays, unless it is to be replaced.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use bowline::DeviceId;

use super::stored::Stored;

/// The longest name that is taken, in bytes: the part's name is longer, and has to fit into 255.
const NAME: usize = 200;
/// How much of the sender's ID tells its parts from those of others.
const SENDER: usize = 9;

/// A folder for received files.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: PathBuf,
    replace: bool,
    hidden: bool,
    stored: Stored,
}

/// A file that is being received.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) file: File,
    /// What it holds already.
    pub(crate) have: u64,
    path: PathBuf,
    to: PathBuf,
    replace: bool,
}

impl Store {
    /// That folder; it is made if only the one above it is there.
    pub(crate) fn new(folder: &Path, replace: bool) -> Result<Self, String> {
        if !folder.exists() {
            fs::create_dir(folder).map_err(|error| {
                let folder = folder.display();
                format!("the folder {folder} is not there and cannot be made ({error}): make it, or name another one")
            })?;
        }
        let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
        if !folder.is_dir() {
            return Err(format!("{} is not a folder", folder.display()));
        }
        // Shows now, and not to the first who sends something.
        #[cfg(unix)]
        nix::unistd::access(&folder, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)
            .map_err(|error| {
                format!("nothing can be written into the folder {}: {}", folder.display(), error.desc())
            })?;
        Ok(Self { folder, replace, hidden: true, stored: Stored::default() })
    }

    /// Takes no files whose names begin with a dot: in a home folder they are programs' settings, and some are run at the next login.
    pub(crate) fn without_hidden(self) -> Self {
        Self { hidden: false, ..self }
    }

    /// The hash of a file that came from that device and stays as it is: only the same may come under its name again.
    pub(crate) fn hash_of(&self, name: &str, length: u64, from: DeviceId) -> Option<String> {
        if self.replace { None } else { self.stored.hash_of(from, name, length) }
    }

    /// A file of that name has come from that device.
    pub(crate) fn note(&self, name: &str, from: DeviceId, hash: &str) {
        self.stored.note(from, name, self.folder.join(name), hash);
    }

    /// Opens what there is of a file, or begins one.
    pub(crate) fn begin(&self, name: &str, length: u64, from: DeviceId) -> Result<Part, String> {
        check(name)?;
        if !self.hidden && name.starts_with('.') {
            return Err("takes hidden files only from devices that it names (receive --from)".to_owned());
        }
        let to = self.folder.join(name);
        if !self.replace && fs::symlink_metadata(&to).is_ok() {
            return Err(taken(name));
        }
        let path = self.folder.join(format!(".{name}.{}.part", &from.to_string()[..SENDER]));
        let mut file = open(&path).map_err(|error| format!("cannot write '{name}': {error}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(format!("is receiving '{name}' already")),
            Err(TryLockError::Error(error)) => return Err(format!("cannot lock '{name}': {error}")),
        }
        let failed = |error: io::Error| format!("cannot write '{name}': {error}");
        let mut have = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if have > length {
            file.set_len(0).map_err(failed)?;
            have = 0;
        }
        if let Some(free) = self.free().filter(|free| *free < length - have) {
            if have == 0 {
                let _ = fs::remove_file(&path);
            }
            let needed = length - have;
            return Err(format!("has no room for '{name}': {needed} bytes are needed, {free} are free"));
        }
        Ok(Part { file, have, path, to, replace: self.replace })
    }

    /// Bytes that this user may still write.
    #[cfg(unix)]
    #[allow(clippy::useless_conversion, reason = "on some systems these are narrower")]
    fn free(&self) -> Option<u64> {
        let found = nix::sys::statvfs::statvfs(&self.folder).ok()?;
        Some(u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size())))
    }

    #[cfg(not(unix))]
    fn free(&self) -> Option<u64> {
        None
    }
}

impl Part {
    /// The hash of what it holds.
    pub(crate) fn hash(&mut self) -> io::Result<blake3::Hasher> {
        let mut hasher = blake3::Hasher::new();
        self.file.seek(SeekFrom::Start(0))?;
        hasher.update_reader((&self.file).take(self.have))?;
        Ok(hasher)
    }

    /// Goes on behind the first so many bytes.
    pub(crate) fn go_on(&mut self, from: u64) -> io::Result<()> {
        self.file.set_len(from)?;
        self.file.seek(SeekFrom::Start(from))?;
        Ok(())
    }

    /// It is whole: gives it its name. Where something else has that by now it is thrown away.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.replace {
            fs::rename(&self.path, &self.to)?;
        } else {
            // Unlike a rename, a link never replaces what came there meanwhile.
            match fs::hard_link(&self.path, &self.to) {
                Ok(()) => fs::remove_file(&self.path)?,
                // A file system without links.
                Err(_) if !self.to.exists() => fs::rename(&self.path, &self.to)?,
                Err(_) => {
                    self.discard();
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
            }
        }
        if let Some(folder) = self.to.parent() {
            // Some systems do not do this to folders, and need it not.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }

    /// Nothing of it is of use.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// There is a file of that name.
pub(crate) fn taken(name: &str) -> String {
    format!("has a file '{name}' already, and does not replace it (receive --replace does)")
}

/// A name that stays in the folder, on every system.
fn check(name: &str) -> Result<(), String> {
    let device = |part: &str| ["con", "nul", "aux", "prn"].contains(&part.to_ascii_lowercase().as_str());
    let wrong = if name.is_empty() || name == "." || name == ".." {
        "it is none"
    } else if name.len() > NAME {
        "it is too long"
    } else if name.contains(['/', '\\', ':']) {
        "it would leave the folder"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if name.starts_with('.') && name.ends_with(".part") || name.split('.').next().is_some_and(device) {
        "it is taken by the system"
    } else {
        return Ok(());
    };
    Err(format!("does not take a file of that name: {wrong}"))
}

/// Never through a link that somebody laid there.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits());
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("something that is not a file is in the way"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::new(folder.path(), false).unwrap();
        (folder, store)
    }

    const SENDER: DeviceId = DeviceId::from_bytes([7; 14]);

    #[test]
    fn names_that_would_leave_the_folder_or_hide_something_are_refused() {
        let (folder, store) = store();
        let long = "x".repeat(NAME + 1);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "c:x",
            "a\nb",
            "a\0b",
            "NUL.txt",
            ".x.part",
            &long,
        ] {
            assert!(store.begin(name, 1, SENDER).is_err(), "{name:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        for name in ["x", ".hidden", "a b", "naïve.txt", "x.part"] {
            store.begin(name, 1, SENDER).unwrap().discard();
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_part_is_not_followed() {
        let (folder, store) = store();
        let outside = folder.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        let part = store.begin("x", 1, SENDER).unwrap();
        let path = part.path.clone();
        part.discard();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&outside, path).unwrap();
        assert!(store.begin("x", 1, SENDER).is_err());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    }

    #[test]
    fn a_part_is_one_senders_and_is_written_by_one_stream_at_a_time() {
        let (_folder, store) = store();
        let mut part = store.begin("x", 10, SENDER).unwrap();
        part.file.write_all(b"12345").unwrap();
        assert!(store.begin("x", 10, SENDER).unwrap_err().contains("already"));
        assert_eq!(store.begin("x", 10, DeviceId::from_bytes([8; 14])).unwrap().have, 0);
        drop(part);
        assert_eq!(store.begin("x", 10, SENDER).unwrap().have, 5);
    }

    #[test]
    fn what_came_under_that_name_meanwhile_stays() {
        let (folder, store) = store();
        let part = store.begin("x", 0, SENDER).unwrap();
        fs::write(folder.path().join("x"), "mine").unwrap();
        assert_eq!(part.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what nobody can use takes no room");
        assert_eq!(fs::read_to_string(folder.path().join("x")).unwrap(), "mine");
        assert!(store.begin("x", 0, SENDER).unwrap_err().contains("--replace"));
        assert!(store.clone().without_hidden().begin(".profile", 1, SENDER).is_err());
        Store { replace: true, ..store }.begin("x", 0, SENDER).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("x")).unwrap(), "");
    }

    #[test]
    fn a_file_that_cannot_fit_is_refused_before_it_begins() {
        let (folder, store) = store();
        let refused = store.begin("x", u64::MAX / 2, SENDER).unwrap_err();
        assert!(refused.contains("no room") && refused.contains("free"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
