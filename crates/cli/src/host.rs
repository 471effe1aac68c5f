//! Running as a device: which key, which bases, and the patience until a message can leave.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use bowline::{Allow, BaseName, BaseStatus, DeviceId, Endpoint, Event, EventItem, Events, Path, SendError};
use bowline_key::{KeyFile, KeyLock};
use bowline_proto::wire::tcp::ErrorCode;
use tokio::time::Instant;

use crate::{WrongUse, args::HostArgs, config::Config, notes::note, places};

/// Bases, where the command line names none.
const BASE_VARIABLE: &str = "BOWLINE_BASE";
/// How long leaving may take: the base forgets a silent device by itself.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// As whom a command runs when no `--key` says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// As this device: with its key file.
    Device,
    /// As nobody in particular: with a key that ends with the process.
    Fresh,
}

/// An endpoint, and the claim to its key for as long as it runs.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) bases: Vec<BaseName>,
    identity: Identity,
    _lock: Option<KeyLock>,
}

impl Host {
    /// Claims the key and opens the sockets; does not wait for a base.
    pub(crate) async fn start(args: &HostArgs, config: &Config, identity: Identity) -> anyhow::Result<Self> {
        let bases = bases(args, config)?;
        let identity = if args.key.is_some() { Identity::Device } else { identity };
        let (key, lock) = match key_path(args, config, identity)? {
            None => (bowline_key::generate(), None),
            Some(path) => {
                let file = open_key(args, path)?;
                let lock = file.lock()?;
                (file.key().clone(), Some(lock))
            }
        };
        let allow = match &config.allow {
            None => Allow::Everyone,
            Some(devices) => Allow::Only(devices.iter().copied().collect()),
        };
        let mut builder = Endpoint::builder(key)
            .bases(bases.iter().cloned())
            .allow(allow)
            .direct(config.direct)
            .guess_ports(config.guess_ports && !args.no_guess_ports)
            .port_mapping(config.port_mapping && !args.no_port_mapping)
            .relay_udp(config.relay_udp)
            .link_local(config.link_local)
            .port(config.port)
            .exclude_interfaces(config.exclude_interfaces.iter().cloned());
        for &(peer, address) in &config.given {
            builder = builder.given(peer, address);
        }
        let endpoint = builder.bind().await?;
        tokio::spawn(log(endpoint.events(), endpoint.status().base));
        Ok(Self { endpoint, bases, identity, _lock: lock })
    }

    /// Repeats an attempt that fails for want of a way, whenever something has changed, until the patience is over.
    pub(crate) async fn patiently<T>(
        &self,
        patience: Duration,
        mut attempt: impl AsyncFnMut(&Endpoint) -> Result<T, SendError>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        let mut events = self.endpoint.events();
        loop {
            match attempt(&self.endpoint).await {
                Err(SendError::NoBase | SendError::UnknownDevice) => {}
                result => return Ok(result?),
            }
            match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(SendError::Closed.into()),
                Err(_) => return Err(self.no_way(patience)),
            }
        }
    }

    /// Why there is no way to anybody.
    fn no_way(&self, patience: Duration) -> anyhow::Error {
        let seconds = patience.as_secs_f64();
        if self.bases.is_empty() {
            return anyhow::anyhow!(
                "no base is configured (--base, {BASE_VARIABLE} or the configuration file), and the device was not \
                 seen on a local link within {seconds} s"
            );
        }
        let why = self.endpoint.status().why_no_base;
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        self.advise(anyhow::anyhow!("no base could be used within {seconds} s{why}"))
    }

    /// Says what to do where a base lets only those in whom it knows.
    pub(crate) fn advise(&self, error: anyhow::Error) -> anyhow::Error {
        let text = error.to_string();
        let everywhere = |name: &&BaseName| name.host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
        if let Some(base) = self.bases.iter().find(everywhere)
            && self.endpoint.status().base.is_none()
        {
            let host = &base.host;
            return anyhow::anyhow!(
                "{text}; {host} is where a base listens, and leads to this machine alone: say <base ID>@<its host name>"
            );
        }
        if self.identity == Identity::Device || !text.contains(&ErrorCode::NotAllowed.to_string()) {
            return error;
        }
        anyhow::anyhow!(
            "{text}; this command runs under an ID of its own, which no list has: name the key of a device that is allowed \
             there (--key FILE)"
        )
    }

    /// Why a device may be silent, in words.
    pub(crate) fn why_silent(&self, device: DeviceId) -> String {
        let status = self.endpoint.status();
        match self.endpoint.peer(device) {
            Some(peer) if matches!(peer.path, Path::Direct(_)) => {
                "it is reachable, but answers no pings: is `bowline listen` running there?".to_owned()
            }
            Some(peer) if status.base.is_some() && !peer.why.is_empty() => peer.why,
            _ => status.why_no_base.unwrap_or_else(|| "nothing is known of it".to_owned()),
        }
    }

    /// Refuses to talk to oneself: it would only show that memory works.
    pub(crate) fn refuse_oneself(&self, device: DeviceId) -> Result<(), WrongUse> {
        if device != self.endpoint.id() {
            return Ok(());
        }
        Err(WrongUse(format!("{device} is the device that this command itself runs as")))
    }

    /// Leaves the base, so that it need not find out by itself.
    pub(crate) async fn leave(self) {
        let _ = tokio::time::timeout(LEAVE_PATIENCE, self.endpoint.close()).await;
    }
}

/// Every event, for whoever wants to see inside (`-v`). A base may have answered before anybody could listen.
async fn log(mut events: Events, base: Option<BaseStatus>) {
    if let Some(base) = base {
        tracing::info!("Registered already: {base:?}");
    }
    while let Some(item) = events.next().await {
        match item {
            EventItem::Event(event @ (Event::Unreachable { .. } | Event::Announced { .. })) => {
                tracing::debug!("{event:?}");
            }
            EventItem::Event(event) => tracing::info!("{event:?}"),
            EventItem::Lost(count) => tracing::info!("{count} events came too fast to be logged"),
        }
    }
}

/// The key file of a command that runs as this device.
pub(crate) fn device_key_path(option: Option<&PathBuf>, config: &Config) -> anyhow::Result<PathBuf> {
    match option.or(config.key.as_ref()) {
        Some(path) => Ok(path.clone()),
        None => places::key_file().context("the key file is nowhere"),
    }
}

/// Opens a key file, or makes it: one that was named on the command line may be a slip, and so is not made silently.
pub(crate) fn open_key(args: &HostArgs, path: PathBuf) -> anyhow::Result<KeyFile> {
    let file = KeyFile::open_or_create(path)?;
    if file.was_created() && args.key.is_some() {
        let (path, id) = (file.path().display(), file.key().device_id());
        note(&format!("made a new key, that of {id}: {path} was not there"));
    }
    Ok(file)
}

fn key_path(args: &HostArgs, config: &Config, identity: Identity) -> anyhow::Result<Option<PathBuf>> {
    match (&args.key, identity) {
        (None, Identity::Fresh) => Ok(None),
        (option, _) => device_key_path(option.as_ref(), config).map(Some),
    }
}

/// The command line overrules the environment, which overrules the configuration file.
fn bases(args: &HostArgs, config: &Config) -> Result<Vec<BaseName>, WrongUse> {
    if !args.base.is_empty() {
        return Ok(args.base.clone());
    }
    match std::env::var(BASE_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => parse_bases(&text),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(config.bases.clone()),
        Err(error) => Err(WrongUse(format!("{BASE_VARIABLE}: {error}"))),
    }
}

fn parse_bases(text: &str) -> Result<Vec<BaseName>, WrongUse> {
    let names = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error| WrongUse(format!("{BASE_VARIABLE}: {error}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_separates_bases_by_spaces_or_commas() {
        let names = |text| parse_bases(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = ["a.example:4477", "[2001:db8::1]:4477", "192.0.2.1:1"];
        assert_eq!(names("a.example [2001:db8::1] 192.0.2.1:1"), expected);
        assert_eq!(names(" a.example,[2001:db8::1]:4477 ,\n192.0.2.1:1,"), expected);
    }

    #[test]
    fn a_wrong_base_in_the_variable_is_told_with_the_variable() {
        let error = parse_bases("a.example, nobody@b.example").unwrap_err().to_string();
        assert!(error.contains(BASE_VARIABLE) && error.contains("nobody"), "{error}");
    }
}
