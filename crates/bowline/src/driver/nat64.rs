//! The NAT64 of a network that has IPv6 alone, looked for whenever the network has become such a one.

use std::net::IpAddr;

use bowline_proto::host::Interface;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::Input;
use crate::{
    config::{NAT64_AGAIN, NAT64_RETRY},
    resolve::nat64,
};

/// The search in the present network.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// By which interfaces and addresses IPv6 leads out, where IPv4 does not.
    ways: Vec<(u32, IpAddr)>,
    /// One at most.
    task: JoinSet<()>,
}

impl Search {
    /// The network has (or has become) these.
    pub(super) fn look_at(&mut self, interfaces: &[Interface], reports: &mpsc::Sender<Input>) {
        let ways = ways(interfaces);
        if self.ways == ways {
            return;
        }
        self.ways = ways;
        self.task.abort_all();
        while self.task.try_join_next().is_some() {}
        if !self.ways.is_empty() {
            self.task.spawn(search(reports.clone()));
        }
    }
}

/// The name servers of a network that has just come up may not be there yet.
async fn search(reports: mpsc::Sender<Input>) {
    let mut failed = 0;
    loop {
        let found = nat64().await;
        match &found {
            // It fails when the driver has ended, which needs no answer.
            Ok(found) => drop(reports.send(Input::Nat64(*found)).await),
            Err(error) => tracing::debug!("whether the network has a NAT64 is not known: {error}"),
        }
        if found.is_ok() {
            return;
        }
        if failed == NAT64_RETRY.len() {
            // What another network had says nothing of this one.
            let _ = reports.send(Input::Nat64(None)).await;
        }
        sleep(NAT64_RETRY.get(failed).copied().unwrap_or(NAT64_AGAIN)).await;
        failed += 1;
    }
}

fn ways(interfaces: &[Interface]) -> Vec<(u32, IpAddr)> {
    if interfaces.iter().any(|interface| interface.default_v4) {
        return Vec::new();
    }
    let exits = interfaces.iter().filter(|interface| interface.default_v6);
    let addresses = exits.flat_map(|i| i.addresses.iter().map(move |&(address, _)| (i.index, address)));
    addresses.filter(|(_, address)| address.is_ipv6()).collect()
}
