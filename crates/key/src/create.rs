//! Making a key file: whole or not at all, and never over an existing one.
//!
//! The content is written to a file beside the final one and flushed to the disk; then a hard link gives it the final
//! name, which fails where that name is taken. A crash in between leaves at most a file named
//! `.<name>.<random>.new`, readable by its owner alone and never read again.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bowline_proto::SecretKey;

use crate::{Action, KeyError, text};

/// Makes the file. `false`: there is one of this name already, and it was not touched.
pub(crate) fn create(path: &Path, key: &SecretKey) -> Result<bool, KeyError> {
    let failed = |source| KeyError::failed(Action::Create, path, source);
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        return Err(KeyError::NotAFile { path: path.to_owned() });
    };
    private_folders(folder).map_err(failed)?;

    let draft = Draft::write(folder, name.to_owned(), text::write(key).as_bytes()).map_err(failed)?;
    match fs::hard_link(&draft.path, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(failed(error)),
    }
    drop(draft);
    sync_folder(folder).map_err(failed)?;
    Ok(true)
}

/// The file under its preliminary name, which goes when this is dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(folder: &Path, name: OsString, content: &[u8]) -> io::Result<Self> {
        let mut draft_name = OsString::from(".");
        draft_name.push(name);
        draft_name.push(format!(".{:016x}.new", getrandom::u64()?));
        let path = folder.join(draft_name);

        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        let draft = Self { path };
        file.write_all(content)?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // what cannot be removed is harmless, see above
    }
}

fn private_folders(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes the new name survive a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
