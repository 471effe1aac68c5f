//! NATS's own kind of credentials: a `.creds` file as `nsc` writes them, with a signed token and the key that it is for. It is read anew for
//! each connection, so that it may be replaced while the base runs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

/// The file, whatever it holds.
#[derive(Debug)]
pub(crate) struct Credentials {
    path: PathBuf,
    /// It could not be used the last time, which somebody was told.
    failed: AtomicBool,
}

impl Credentials {
    /// One that can be used, now at least.
    pub(crate) fn new(path: &Path) -> io::Result<Arc<Self>> {
        read(path)?;
        Ok(Arc::new(Self { path: path.to_owned(), failed: AtomicBool::new(false) }))
    }

    /// Answers what a server asks, a nonce to sign, with what the file holds now.
    pub(crate) async fn answer(self: Arc<Self>, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        let answered = tokio::task::spawn_blocking(move || self.sign(&nonce));
        answered.await.map_err(AuthError::new)?.map_err(AuthError::new)
    }

    fn sign(&self, nonce: &[u8]) -> io::Result<Auth> {
        let signed = read(&self.path).and_then(|(token, key)| {
            let mut auth = Auth::new();
            auth.signature = Some(key.sign(nonce).map_err(io::Error::other)?);
            auth.jwt = Some(token);
            Ok(auth)
        });
        if let Err(error) = &signed
            && !self.failed.load(Relaxed)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot use the NATS credentials; trying on");
        }
        self.failed.store(signed.is_err(), Relaxed);
        signed
    }
}

fn read(path: &Path) -> io::Result<(String, KeyPair)> {
    let text = std::fs::read_to_string(path)?;
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut parts = parts(&text);
    let token = parts.next().ok_or_else(|| wrong("there is no token of a user in it"))?;
    let seed = parts.next().ok_or_else(|| wrong("there is no key of a user in it"))?;
    let key = KeyPair::from_seed(seed).map_err(|_| wrong("the key of the user in it is none"))?;
    Ok((token.to_owned(), key))
}

/// What stands below `-----BEGIN …-----`, each a line.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
        lines.next().filter(|line| !line.is_empty())
    })
}
