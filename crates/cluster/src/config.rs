//! What an operator sets about the cluster, as a TOML table, and what can be wrong with it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{ConnectOptions, ReconnectToServer, Server, ServerAddr};
use serde::Deserialize;

use crate::credentials::Credentials;

/// The table `[base.cluster]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// `servers = ["nats://10.0.0.1:4222"]`: the NATS servers, JetStream on, the nearest first; `tls://` requires TLS. Empty: no cluster.
    pub servers: Vec<String>,
    /// `name = "bowline"`: bases of one name are one service; several may share the NATS servers.
    pub name: String,
    /// `credentials = "/etc/bowline/nats.creds"`: as `nsc` writes them. A user and password, or a token, may also stand in the address.
    pub credentials: Option<PathBuf>,
    /// `ca = "/etc/bowline/nats-ca.pem"`: who vouches for the NATS servers, instead of those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// `certificate = "…"`, `key = "…"`: this base's own, where the servers ask for one. PEM.
    pub certificate: Option<PathBuf>,
    /// See [`ClusterConfig::certificate`].
    pub key: Option<PathBuf>,
    /// `address = "10.0.0.5:4477"`: where other bases send this one data over UDP. Default: an advertised address, one that
    /// is listened on, or the one that the NATS server sees, with the base's port.
    pub address: Option<SocketAddr>,
    /// `udp = true`: whether data goes from base to base over UDP where that is open, or through NATS alone.
    pub udp: bool,
    /// `replicas = 1`: copies of the store in a cluster of NATS servers.
    pub replicas: usize,
}

/// How often each server was tried since one was there. The client counts failures, but none of a name that cannot be resolved.
#[derive(Debug, Default)]
pub(crate) struct Tried(Mutex<HashMap<String, usize>>);

impl Tried {
    /// The nearest that has failed, and was tried, least.
    fn next(&self, servers: &[Server]) -> Option<ServerAddr> {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |server: &Server| format!("{}:{}", server.addr.host(), server.addr.port());
        let times = |server: &Server| tried.get(&name(server)).copied().unwrap_or(0);
        let next = servers.iter().min_by_key(|server| times(server).max(server.failed_attempts))?;
        *tried.entry(name(next)).or_default() += 1;
        Some(next.addr.clone())
    }

    /// One is there.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            name: "bowline".to_owned(),
            credentials: None,
            ca: None,
            certificate: None,
            key: None,
            address: None,
            udp: true,
            replicas: 1,
        }
    }
}

/// Why the cluster cannot be joined as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The address of a server.
    #[error("{0:?} is no address of a NATS server ({1}): write it as nats://host:4222 or tls://host:4222")]
    Server(String, String),
    /// The name.
    #[error("{0:?} cannot be the name of a cluster: letters, digits, - and _ make one, 32 at most")]
    Name(String),
    /// A file.
    #[error("cannot use {what} {path}: {why}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate without a key, or the other way round.
    #[error("`certificate` and `key` go together: set both or neither in [base.cluster]")]
    HalfACertificate,
    /// Everything else.
    #[error("cannot prepare the link to the NATS servers: {0}")]
    Client(String),
}

/// A server that does not answer within this time is as good as none.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Pings to the server: two unanswered ones end the connection.
const PING_EVERY: Duration = Duration::from_secs(3);
/// Between attempts to connect, from the first to the longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Messages that wait for us on a subscription; more are dropped.
const SUBSCRIPTION: usize = 65_536;

impl ClusterConfig {
    /// Whether a cluster is wanted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.servers.is_empty()
    }

    pub(crate) fn addresses(&self) -> Result<Vec<ServerAddr>, ConfigError> {
        let read = |server: &String| {
            server.parse().map_err(|e: std::io::Error| ConfigError::Server(server.clone(), e.to_string()))
        };
        self.servers.iter().map(read).collect()
    }

    /// By what a server knows this base, for whoever has to put it right.
    pub(crate) fn identity(&self) -> String {
        let has_user = |address: &ServerAddr| address.username().is_some();
        let addresses = self.addresses().unwrap_or_default();
        match (&self.credentials, &self.certificate) {
            (Some(file), _) => format!("the credentials in {}", file.display()),
            (None, _) if addresses.iter().any(has_user) => "user and password in `servers`".to_owned(),
            (None, Some(file)) => format!("the certificate in {}", file.display()),
            (None, None) => {
                "no credentials (`credentials` in [base.cluster], or a user in `servers`)".to_owned()
            }
        }
    }

    pub(crate) fn checked_name(&self) -> Result<&str, ConfigError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (1..=32).contains(&self.name.len()) && self.name.chars().all(fits) {
            Ok(&self.name)
        } else {
            Err(ConfigError::Name(self.name.clone()))
        }
    }

    pub(crate) fn options(&self, client: String, tried: &Arc<Tried>) -> Result<ConnectOptions, ConfigError> {
        let mut options = match &self.credentials {
            Some(path) => {
                let file = Credentials::new(path);
                let file = file.map_err(|why| unusable("the NATS credentials", path, &why))?;
                ConnectOptions::with_auth_callback(move |nonce| Arc::clone(&file).answer(nonce))
            }
            None => ConnectOptions::new(),
        };
        options = options
            .name(client)
            .no_echo()
            .retry_on_initial_connect()
            // Its own choice would never come past a server that refuses us.
            .reconnect_to_server_callback({
                let tried = Arc::clone(tried);
                move |servers, _| {
                    let addr = tried.next(&servers);
                    async { Some(ReconnectToServer { addr: addr?, delay: None }) }
                }
            })
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connection_timeout(REQUEST_TIMEOUT)
            .ping_interval(PING_EVERY)
            .subscription_capacity(SUBSCRIPTION)
            .reconnect_delay_callback(|attempt| {
                RECONNECT.0.saturating_mul(1 << attempt.min(8)).min(RECONNECT.1)
            });
        // The client does not take them from the address itself.
        let addresses = self.addresses()?;
        let named = addresses.iter().find_map(|address| Some((address.username()?, address.password())));
        options = match named {
            Some((user, Some(password))) => options.user_and_password(decoded(user), decoded(password)),
            Some((token, None)) => options.token(decoded(token)),
            None => options,
        };
        if let Some(path) = &self.ca {
            readable("the certificates of NATS's authority", path)?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        match (&self.certificate, &self.key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                readable("the certificate for NATS", certificate)?;
                readable("the key for NATS", key)?;
                options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
            }
            _ => return Err(ConfigError::HalfACertificate),
        }
        Ok(options)
    }
}

/// A part of an address as it is meant: `%40` stands for `@`.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let digit = |at: usize| others.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        let escaped = digit(0).zip(digit(1)).filter(|_| first == b'%');
        bytes.push(escaped.map_or(first, |(high, low)| (16 * high + low) as u8));
        rest = if escaped.is_some() { &others[2..] } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn readable(what: &'static str, path: &PathBuf) -> Result<(), ConfigError> {
    std::fs::read(path).map(drop).map_err(|why| unusable(what, path, &why))
}

fn unusable(what: &'static str, path: &std::path::Path, why: &std::io::Error) -> ConfigError {
    ConfigError::File { what, path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_cannot_hold_is_written_with_percent_signs() {
        for (written, meant) in
            [("secret", "secret"), ("p%40ss%3Aw%2fo", "p@ss:w/o"), ("100%", "100%"), ("%zz%4", "%zz%4")]
        {
            assert_eq!(decoded(written), meant);
        }
    }
}
