//! What was received and is still there: where its sender sends it again, nothing of it has to be carried.
//!
//! A sender that was interrupted between two files sends the first one again; one whose connection was lost with the last word does not know
//! that its file is there. Who did not send a file learns nothing of it: of the others' this says nothing, nor of what was there before.

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bowline::DeviceId;

/// Files that are remembered. One more, and all are forgotten.
const FILES: usize = 16_384;

/// What this process has received. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored(Arc<Mutex<Files>>);

/// By sender and name.
type Files = HashMap<(DeviceId, String), Known>;

#[derive(Debug)]
struct Known {
    path: PathBuf,
    state: State,
    hash: String,
}

/// What shows that somebody has written to a file.
#[derive(Debug, PartialEq, Eq)]
struct State {
    length: u64,
    modified: SystemTime,
}

impl Stored {
    /// It is there, whole.
    pub(crate) fn note(&self, from: DeviceId, name: &str, path: PathBuf, hash: &str) {
        let Ok(state) = state(&path) else { return };
        let mut files = self.files();
        if files.len() >= FILES {
            files.clear();
        }
        files.insert((from, name.to_owned()), Known { path, state, hash: hash.to_owned() });
    }

    /// The hash of a file of that name and length that came from that device and is there as it came.
    pub(crate) fn hash_of(&self, from: DeviceId, name: &str, length: u64) -> Option<String> {
        let files = self.files();
        let known = files.get(&(from, name.to_owned())).filter(|known| known.state.length == length)?;
        state(&known.path).is_ok_and(|now| now == known.state).then(|| known.hash.clone())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Nothing panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state(path: &PathBuf) -> io::Result<State> {
    let found = fs::symlink_metadata(path)?;
    Ok(State { length: found.len(), modified: found.modified()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_to_its_sender_for_as_long_as_it_is_as_it_came_and_no_more_are_remembered_than_may_be()
    {
        let (folder, stored) = (tempfile::TempDir::new().unwrap(), Stored::default());
        let (sender, other) = (DeviceId::from_bytes([7; 14]), DeviceId::from_bytes([8; 14]));
        let path = folder.path().join("x");
        fs::write(&path, "four").unwrap();
        stored.note(sender, "x", path.clone(), "hash");
        assert_eq!(stored.hash_of(sender, "x", 4).as_deref(), Some("hash"));
        assert_eq!(stored.hash_of(sender, "x", 5), None);
        assert_eq!(stored.hash_of(other, "x", 4), None);
        let later = SystemTime::now() + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(stored.hash_of(sender, "x", 4), None);
        for number in 0..2 * FILES {
            stored.note(sender, &number.to_string(), path.clone(), "hash");
            assert!(stored.files().len() <= FILES);
        }
    }
}
