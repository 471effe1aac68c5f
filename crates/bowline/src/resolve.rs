//! Names to addresses, A and AAAA, by the system's resolver.
//!
//! Nothing is cached and nothing retried here: the machine decides when to ask again.

use std::net::SocketAddr;

use crate::config::{RESOLVE, RESOLVED_ADDRESSES};

/// The addresses of a name (or of an IP address in its text form), in the system's order, or the reason in words.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let lookup = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host, port)));
    let addresses = lookup
        .await
        .map_err(|_| format!("no answer within {} s", RESOLVE.as_secs()))?
        .map_err(|error| error.to_string())?;
    let mut unique = Vec::new();
    for address in addresses {
        if !unique.contains(&address) && unique.len() < RESOLVED_ADDRESSES {
            unique.push(address);
        }
    }
    if unique.is_empty() { Err("the name has no address".to_owned()) } else { Ok(unique) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_resolve_to_themselves_and_nonsense_to_a_reason() {
        assert_eq!(resolve("192.0.2.7", 4477).await, Ok(vec!["192.0.2.7:4477".parse().unwrap()]));
        assert_eq!(resolve("2001:db8::1", 1).await, Ok(vec!["[2001:db8::1]:1".parse().unwrap()]));
        assert_eq!(resolve("[2001:db8::1]", 1).await, Ok(vec!["[2001:db8::1]:1".parse().unwrap()]));
        assert!(resolve("nonsense.invalid", 1).await.is_err_and(|reason| !reason.is_empty()));
    }
}
