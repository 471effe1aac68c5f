//! Short names for devices: `peers.toml`, beside the configuration file. Every command takes a name where it takes an ID.
//!
//! ```toml
//! robot = "93kz-a462-42sk-d06c-7gh2-3ksw"
//! ```
//!
//! A name is the user's own and nobody else's: it is looked up here, on this machine, and nothing of it is ever sent.

use std::{collections::BTreeMap, fs, io, path::Path};

use bowline::DeviceId;

use crate::places;

/// The device that an argument means: an ID, or a name from `peers.toml`.
pub(crate) fn device(text: &str) -> Result<DeviceId, String> {
    let not_an_id = match text.parse::<DeviceId>() {
        Ok(id) => return Ok(id),
        Err(error) => error,
    };
    let file = places::peers_file().map_err(|_| not_an_id.to_string())?;
    match read(&file)?.get(text) {
        Some(&id) => Ok(id),
        None => Err(format!("{not_an_id}; nor is it a name in {}", file.display())),
    }
}

/// How a person knows a device: by its name if it has one, else by its ID.
pub(crate) fn name_of(device: DeviceId) -> String {
    let named = places::peers_file().ok().and_then(|file| read(&file).ok());
    let found = named.and_then(|names| names.into_iter().find(|(_, id)| *id == device));
    found.map_or_else(|| device.to_string(), |(name, _)| name)
}

/// All names; none where there is no file.
fn read(file: &Path) -> Result<BTreeMap<String, DeviceId>, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
    };
    parse(&text).map_err(|what| format!("{} is wrong: {what}", file.display()))
}

fn parse(text: &str) -> Result<BTreeMap<String, DeviceId>, String> {
    let table: BTreeMap<String, String> =
        toml::from_str(text).map_err(|error| error.message().trim().replace('\n', ", "))?;
    table
        .into_iter()
        .map(|(name, id)| {
            if name.parse::<DeviceId>().is_ok() {
                return Err(format!("'{name}' is a device ID, and cannot be the name of another device"));
            }
            let id =
                id.parse().map_err(|error| format!("'{name}' is not the name of a device ID: {error}"))?;
            Ok((name, id))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "93kz-a462-42sk-d06c-7gh2-3ksw";

    #[test]
    fn names_are_read_and_what_is_wrong_is_told_with_the_name() {
        let names = parse(&format!("robot = \"{ID}\"\n\"the laptop\" = \"{ID}\"\n")).unwrap();
        assert_eq!(names["robot"].to_string(), ID);
        assert_eq!(names["the laptop"].to_string(), ID);
        for (text, what) in [("robot = \"93kz\"", "robot"), ("robot = 1", "string"), ("robot", "=")] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(what) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_id_cannot_be_made_to_mean_another_device() {
        let text = format!("\"{ID}\" = \"{}\"", DeviceId::from_bytes([1; 14]));
        assert!(parse(&text).unwrap_err().contains("cannot be the name"));
    }
}
