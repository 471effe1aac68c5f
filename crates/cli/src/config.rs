//! The configuration file: TOML, one for hosts and base server. `bowline.example.toml` at the root of the repository
//! explains every key; a test holds the two together.
//!
//! Only reading and meaning are here. What overrules what is decided where a value is used: the command line, then
//! the environment, then this file, then the defaults.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use bowline::{BaseName, DeviceId};
use serde::{Deserialize, Deserializer, de::Error};

use crate::{WrongUse, commands::serve::Lists, places};

/// The whole file. A key that is not known is an error: a misspelt `allow` would leave a device open.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Base servers; all are tried, the first to answer is used.
    #[serde(deserialize_with = "parse_each")]
    pub(crate) bases: Vec<BaseName>,
    /// The key file of this device, for the commands that run as it (`id`, `listen`).
    pub(crate) key: Option<PathBuf>,
    /// Who may talk to this device. Absent: everyone. An empty list: nobody.
    #[serde(deserialize_with = "parse_each_if_any")]
    pub(crate) allow: Option<Vec<DeviceId>>,
    /// Whether direct paths are tried.
    pub(crate) direct: bool,
    /// Whether ports of symmetric NATs are guessed.
    pub(crate) guess_ports: bool,
    /// Whether the router is asked for a port.
    pub(crate) port_mapping: bool,
    /// Whether UDP to the base is used.
    pub(crate) relay_udp: bool,
    /// Whether devices on the same link are looked for.
    pub(crate) link_local: bool,
    /// The UDP port; 0: any.
    pub(crate) port: u16,
    /// Interfaces that are not used, by pattern.
    pub(crate) exclude_interfaces: Vec<String>,
    /// Addresses of peers that are known otherwise, by device ID.
    #[serde(deserialize_with = "parse_given")]
    pub(crate) given: Vec<(DeviceId, SocketAddr)>,
    /// What `bowline serve` allows.
    pub(crate) serve: Lists,
    /// The base server.
    pub(crate) base: bowline_base::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bases: Vec::new(),
            key: None,
            allow: None,
            direct: true,
            guess_ports: true,
            port_mapping: true,
            relay_udp: true,
            link_local: true,
            port: 0,
            exclude_interfaces: Vec::new(),
            given: Vec::new(),
            serve: Lists::default(),
            base: bowline_base::Config::default(),
        }
    }
}

impl Config {
    /// The file that `--config` names, which must be there, or the default one, which need not.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, WrongUse> {
        if let Some(path) = named {
            return Self::read(path)?.ok_or_else(|| {
                WrongUse(format!("the configuration file {} does not exist", path.display()))
            });
        }
        // Without a home folder there is no default file either.
        let Ok(path) = places::config_file() else { return Ok(Self::default()) };
        Ok(Self::read(&path)?.unwrap_or_default())
    }

    fn read(path: &Path) -> Result<Option<Self>, WrongUse> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let path = path.display();
                return Err(WrongUse(format!("the configuration file {path} cannot be read: {error}")));
            }
        };
        Self::parse(&text)
            .map(Some)
            .map_err(|what| WrongUse(format!("the configuration file {} is wrong {what}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("in line {line}: {}", error.message().trim().replace('\n', ", "))
        })
    }
}

fn parse_each<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| text.parse().map_err(|error| D::Error::custom(format!("'{text}': {error}"))))
        .collect()
}

fn parse_each_if_any<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    parse_each(deserializer).map(Some)
}

fn parse_given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(DeviceId, SocketAddr)>, D::Error> {
    let table = BTreeMap::<String, Vec<SocketAddr>>::deserialize(deserializer)?;
    let mut given = Vec::new();
    for (id, addresses) in table {
        let id = id.parse().map_err(|error| D::Error::custom(format!("'{id}': {error}")))?;
        given.extend(addresses.into_iter().map(|address| (id, address)));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../bowline.example.toml");

    /// The example with every `#key = …` line made a setting.
    fn uncommented() -> String {
        let setting = |line: &str| {
            let is_setting = line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
            if is_setting { line[1..].to_owned() } else { line.to_owned() }
        };
        EXAMPLE.lines().map(setting).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_file_parses_as_it_is_and_with_every_setting_taken_up() {
        Config::parse(EXAMPLE).unwrap();
        let full = Config::parse(&uncommented()).unwrap();
        assert!(!full.bases.is_empty() && full.allow.is_some() && !full.given.is_empty());
    }

    #[test]
    fn the_example_file_names_every_key_there_is() {
        let table: toml::Table = uncommented().parse().unwrap();
        let named: Vec<&str> = table.keys().map(String::as_str).collect();
        let mut known = keys_of::<Config>();
        known.sort_unstable();
        assert_eq!(named, known);
        let serve = table["serve"].as_table().unwrap();
        for key in keys_of::<Lists>() {
            assert!(serve.contains_key(key), "[serve] {key} is not explained");
        }
        let base = table["base"].as_table().unwrap();
        for key in keys_of::<bowline_base::Config>() {
            assert!(base.contains_key(key), "[base] {key} is not explained");
        }
        let limits = base["limits"].as_table().unwrap();
        for key in keys_of::<bowline_base::config::Limits>() {
            assert!(limits.contains_key(key), "[base.limits] {key} is not explained");
        }
        let hook = base["hook"].as_table().unwrap();
        for key in keys_of::<bowline_base::config::HookConfig>() {
            assert!(hook.contains_key(key), "[base.hook] {key} is not explained");
        }
    }

    /// The keys that a struct's own deserializer asks for.
    fn keys_of<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
        let mut keys = Vec::new();
        let _ = T::deserialize(Asked(&mut keys));
        assert!(!keys.is_empty());
        keys
    }

    /// A deserializer that gives nothing and remembers which fields it was asked for.
    struct Asked<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Asked<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_struct<V: serde::de::Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend(fields);
            Err(Error::custom("asked"))
        }

        fn deserialize_any<V: serde::de::Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("not a struct"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    #[test]
    fn a_misspelt_key_or_a_wrong_value_is_told_with_its_line() {
        for (text, line, what) in [
            ("# fine\nalow = []\n", "line 2", "alow"),
            ("bases = [\"base.example\", \"nobody@base.example\"]\n", "line 1", "nobody"),
            ("\n\nport = 70000\n", "line 3", "70000"),
            ("allow = [\"7k2m\"]\n", "line 1", "7k2m"),
            ("[given]\n\"7k2m\" = [\"192.0.2.1:1\"]\n", "line 1", "7k2m"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(
                error.contains(line) && error.contains(what) && !error.contains('\n'),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn an_empty_allow_list_is_not_the_same_as_none() {
        assert_eq!(Config::parse("").unwrap().allow, None);
        assert_eq!(Config::parse("allow = []").unwrap().allow, Some(Vec::new()));
    }
}
