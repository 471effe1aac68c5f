//! Asking the router for a port outside (PCP, NAT-PMP, UPnP), for as long as the endpoint lives.
//!
//! A task of its own speaks with the router by way of `portmapper`, which also renews what it got, and tells the machine what the
//! router says. Whether that is true is the machine's to find out. Where a router has no such service, or promises what does not
//! hold, it is asked ever more rarely, until the network changes.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use portmapper::{Client, Config};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    config::{MAPPING_GRACE, MAPPING_RELEASE, MAPPING_RETRY},
    driver::Shared,
};

/// The task, from outside.
#[derive(Debug)]
pub(crate) struct PortMapping {
    wishes: Arc<Wishes>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Wishes {
    renew: Notify,
    moved: Notify,
    end: Notify,
}

impl PortMapping {
    /// For the IPv4 socket; `None` without one.
    pub(crate) fn of(shared: &Arc<Shared>) -> Option<Self> {
        let port = NonZeroU16::new(shared.udp.v4.as_ref()?.port)?;
        let wishes = Arc::new(Wishes::default());
        let task = tokio::spawn(run(Arc::clone(shared), port, Arc::clone(&wishes)));
        Some(Self { wishes, task: Some(task) })
    }

    /// What the router gave does not lead here: it is asked anew.
    pub(crate) fn renew(&self) {
        self.wishes.renew.notify_one();
    }

    /// The network has changed: perhaps it is another router.
    pub(crate) fn moved(&self) {
        self.wishes.moved.notify_one();
    }

    /// Gives the port back.
    pub(crate) async fn release(mut self) {
        self.wishes.end.notify_one();
        if let Some(task) = &mut self.task {
            let _ = timeout(MAPPING_RELEASE, task).await;
        }
    }
}

impl Drop for PortMapping {
    fn drop(&mut self) {
        // An endpoint whose driver ended otherwise asks no more.
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn run(shared: Arc<Shared>, port: NonZeroU16, wishes: Arc<Wishes>) {
    let client = Client::new(Config::default());
    let mut outside = client.watch_external_address();
    let mut pause = Pause::default();
    let mut ask_at = Some(Instant::now());
    // Whether it knows the port: it asks at once when it hears of one, and again when told to.
    let mut is_set = false;
    loop {
        tokio::select! {
            () = async {
                match ask_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            } => {
                // Which services there are; without this it would try UPnP alone. It takes a second where nothing answers, for which nobody
                // waits in the end.
                tokio::select! {
                    _ = client.probe() => {}
                    () = wishes.end.notified() => break,
                }
                if std::mem::replace(&mut is_set, true) {
                    client.procure_mapping();
                } else {
                    client.update_local_port(port);
                }
                ask_at = Some(pause.next());
            }
            changed = outside.changed() => {
                if changed.is_err() {
                    return;
                }
                let mapping = *outside.borrow_and_update();
                tracing::debug!(?mapping, "the router has mapped a port");
                shared.machine.call(|host, now| host.handle_port_mapping(mapping.map(SocketAddr::V4), now));
                if mapping.is_some() {
                    ask_at = None;
                }
            }
            () = wishes.renew.notified() => {
                client.deactivate();
                is_set = false;
                ask_at = Some(pause.next());
            }
            () = wishes.moved.notified() => {
                client.deactivate();
                is_set = false;
                pause = Pause::default();
                ask_at = Some(pause.next());
            }
            () = wishes.end.notified() => break,
        }
    }
    if outside.borrow_and_update().is_some() {
        client.deactivate();
        let _ = outside.changed().await;
        // It says so first and tells the router then.
        sleep(MAPPING_GRACE).await;
    }
}

/// Between two times that the router is asked in vain, doubling; from the beginning after a long time without.
#[derive(Debug)]
struct Pause {
    length: Duration,
    last: Instant,
}

impl Default for Pause {
    fn default() -> Self {
        Self { length: MAPPING_RETRY.0, last: Instant::now() }
    }
}

impl Pause {
    fn next(&mut self) -> Instant {
        let now = Instant::now();
        if now > self.last + MAPPING_RETRY.1 * 2 {
            *self = Self::default();
        }
        let at = now + self.length;
        (self.length, self.last) = ((self.length * 2).min(MAPPING_RETRY.1), now);
        at
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::{Duration, Instant};

    use crate::{Endpoint, SecretKey, config::MAPPING_RELEASE, testns::inside};

    /// Datagrams that have left by an interface.
    fn left_by(name: &str) -> u64 {
        let all = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = all.lines().find_map(|line| line.trim_start().strip_prefix(name)).unwrap();
        line.split_whitespace().nth(9).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_router_that_does_not_answer_holds_nobody_up_in_the_end() {
        let name = "port_mapping::tests::a_router_that_does_not_answer_holds_nobody_up_in_the_end";
        let link = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 && ip link add v0 type veth peer name v1";
        let up = "ip link set v0 up && ip link set v1 up && ip addr add 192.0.2.7/24 dev v0";
        let router =
            "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev v0 && ip route add default via 192.0.2.1";
        if !inside(name, &format!("{link} && {up} && {router}")) {
            return;
        }
        let before = left_by("v0:");
        let key = SecretKey::from_seed(&[7; 32]);
        let endpoint = Endpoint::builder(key).port_mapping(true).link_local(false).bind().await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while left_by("v0:") == before {
            assert!(Instant::now() < deadline, "the router is not asked");
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        endpoint.close().await;
        assert!(began.elapsed() < MAPPING_RELEASE / 2, "{:?}", began.elapsed());
    }
}
