//! The credentials of a cluster, with a real NATS server that knows its users by signed tokens (operator, account, user): the right ones
//! open it, others do not, and the base says which file is at fault.

mod support;

use std::{fs, path::PathBuf, time::SystemTime};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use support::{
    cluster::{Member, Nats},
    is_installed,
};
use tempfile::TempDir;

/// A token as `nsc` signs them: who it is about, by whom, and what he may.
fn token(name: &str, about: &KeyPair, by: &KeyPair, nats: &Value, expires: Option<u64>) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let mut claims = json!({
        "jti": format!("{name} {}", about.public_key()),
        "iat": now(),
        "iss": by.public_key(),
        "sub": about.public_key(),
        "name": name,
        "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = by.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// An operator with an account for bowline, kept in the server's own configuration.
struct Authority {
    account: KeyPair,
    folder: TempDir,
}

impl Authority {
    /// With the configuration of a server that trusts it.
    fn new() -> (Self, PathBuf) {
        let (operator, system, account) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let account_may = |store: i64| {
            json!({
                "type": "account",
                "version": 2,
                "limits": {
                    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                    "conn": -1, "leaf": -1, "mem_storage": store, "disk_storage": 0, "streams": store, "consumer": store,
                },
            })
        };
        let operator_is = json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("nats.conf");
        let text = format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {}\n  {}: {}\n}}\n",
            token("operator", &operator, &operator, &operator_is, None),
            system.public_key(),
            system.public_key(),
            token("system", &system, &operator, &account_may(0), None),
            account.public_key(),
            token("bowline", &account, &operator, &account_may(-1), None),
        );
        fs::write(&file, text).unwrap();
        (Self { account, folder }, file)
    }

    /// A file of credentials for a new user, signed by this key, with these rights.
    fn credentials(&self, name: &str, by: &KeyPair, expires: Option<u64>) -> PathBuf {
        // What docs/cluster.md says that a base needs.
        let subjects = [
            "bowline.bowline.>",
            "$KV.bowline-bowline-leases.>",
            "$KV.bowline-bowline-devices.>",
            "$JS.API.>",
            "_INBOX.>",
        ];
        let user = KeyPair::new_user();
        let may = json!({
            "type": "user",
            "version": 2,
            "pub": { "allow": subjects },
            "sub": { "allow": subjects },
            "subs": -1, "data": -1, "payload": -1,
        });
        let token = token(name, &user, by, &may, expires);
        let seed = user.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let file = self.folder.path().join(format!("{name}.creds"));
        fs::write(&file, text).unwrap();
        file
    }
}

#[test]
fn right_credentials_open_the_cluster_and_wrong_ones_are_named() {
    if !is_installed("nats-server") {
        return;
    }
    let (authority, config) = Authority::new();
    let nats = Nats::start_with(|_| vec!["-c".to_owned(), config.display().to_string()]);
    let server = format!("nats://127.0.0.1:{}", nats.port);
    let with = |file: &PathBuf| Member::new(&server, &format!("credentials = \"{}\"\n", file.display()));

    // Two of them are one service: all that a base does at store and bus is within its rights.
    let right = authority.credentials("right", &authority.account, None);
    let bases = [with(&right).start(), with(&right).start()];
    support::eventually(|| bases.iter().all(|base| base.shows("bowline_cluster_bases{path=\"udp\"} 1.0")));

    let stranger = authority.credentials("stranger", &KeyPair::new_account(), None);
    let expired = authority.credentials("expired", &authority.account, Some(now() - 60));
    for file in [&stranger, &expired] {
        let mut base = with(file);
        base.run_alone();
        let line = base.running.as_mut().unwrap().stderr.line_with("refuses");
        assert!(line.contains(file.to_str().unwrap()) && line.contains("WARN"), "{line}");
        assert!(base.shows("bowline_cluster_bus_up 0.0"));
    }
    let mut without = Member::new(&server, "");
    without.run_alone();
    let line = without.running.as_mut().unwrap().stderr.line_with("refuses");
    assert!(line.contains("credentials"), "{line}");

    let broken = authority.folder.path().join("broken.creds");
    fs::write(&broken, "nothing").unwrap();
    for file in [broken, authority.folder.path().join("nowhere.creds")] {
        let ended = with(&file).home.run("base --listen 127.0.0.1:0 --state state");
        assert!(ended.failed(1).contains(file.to_str().unwrap()), "{ended:?}");
    }
}

#[test]
fn credentials_that_are_replaced_count_from_the_next_connection_on() {
    if !is_installed("nats-server") {
        return;
    }
    let (authority, config) = Authority::new();
    let nats = Nats::start_with(|_| vec!["-c".to_owned(), config.display().to_string()]);
    let server = format!("nats://127.0.0.1:{}", nats.port);
    let file = authority.credentials("short", &authority.account, Some(now() + 3));
    let mut base = Member::new(&server, &format!("credentials = \"{}\"\n", file.display())).start();
    let log = &mut base.running.as_mut().unwrap().stderr;
    log.line_with("bus is gone");
    log.line_with("refuses");
    // While it is being written it holds nothing of use.
    fs::write(&file, "").unwrap();
    log.line_with("no token");
    fs::copy(authority.credentials("next", &authority.account, None), &file).unwrap();
    log.line_with("joined the cluster's bus");
}
