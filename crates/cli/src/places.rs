//! Where files are when nobody says otherwise. Nothing is read or made here.

use std::path::PathBuf;

use etcetera::{BaseStrategy, choose_base_strategy};

const FOLDER: &str = "bowline";
/// A base server started by the system keeps its state here.
#[cfg(unix)]
const SYSTEM_STATE: &str = "/var/lib/bowline";

/// There is no home folder, so the defaults are nowhere.
#[derive(Debug, thiserror::Error)]
#[error("there is no home folder to find {what} in: say where it is with {option}")]
pub(crate) struct NoHome {
    what: &'static str,
    option: &'static str,
}

/// `bowline/config.toml` in the user's configuration folder.
pub(crate) fn config_file() -> Result<PathBuf, NoHome> {
    Ok(config_folder("the configuration", "--config FILE")?.join("config.toml"))
}

/// `bowline/key` in the user's configuration folder.
pub(crate) fn key_file() -> Result<PathBuf, NoHome> {
    Ok(config_folder("the key", "--key FILE")?.join("key"))
}

/// `bowline/peers.toml` in the user's configuration folder.
pub(crate) fn peers_file() -> Result<PathBuf, NoHome> {
    Ok(config_folder("the names of devices", "device IDs instead")?.join("peers.toml"))
}

fn config_folder(what: &'static str, option: &'static str) -> Result<PathBuf, NoHome> {
    let strategy = choose_base_strategy().map_err(|_| NoHome { what, option })?;
    Ok(strategy.config_dir().join(FOLDER))
}

/// The folder of a base server: the system's for root, the user's for anybody else.
pub(crate) fn base_state() -> Result<PathBuf, NoHome> {
    #[cfg(unix)]
    if nix::unistd::geteuid().is_root() {
        return Ok(SYSTEM_STATE.into());
    }
    let nowhere = || NoHome { what: "the base's state", option: "--state DIR" };
    let strategy = choose_base_strategy().map_err(|_| nowhere())?;
    Ok(strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join(FOLDER))
}
