//! The network as this device has it: its interfaces, and word of every change.
//!
//! On Linux the kernel tells of changes over netlink (`linux.rs`); elsewhere the interfaces are looked at every few
//! seconds (`portable.rs`), and so is what there is to see where the system hides them (`hidden.rs`). All give a whole
//! picture each time, never a difference: a lost notification costs nothing lasting. What a change means is the
//! machine's to decide.

mod egress;
mod hidden;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod linux_parse;
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "only its tests run on Linux"))]
mod portable;

use std::{io, sync::Arc};

use bowline_proto::host::Interface;
pub(crate) use egress::interface_for;
#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use portable as system;
use tokio::{sync::watch, task::JoinHandle};

/// All interfaces that are up, excluded ones, too.
pub(crate) type Interfaces = Arc<Vec<Interface>>;

/// The present network and its changes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) interfaces: watch::Receiver<Interfaces>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to watch the network. Sockets are opened here and now: the caller's
/// network namespace is the one that is watched.
pub(crate) fn watch() -> io::Result<Watch> {
    let (mut watcher, first) = match system::Watcher::new() {
        Ok((watcher, first)) => (Some(watcher), first),
        Err(error) if system::is_forbidden(&error) => {
            // Whoever runs this in a sandbox knows it.
            tracing::info!(
                "the system does not tell of network interfaces ({error}): devices on the link are not heard"
            );
            (None, hidden::look())
        }
        Err(error) => return Err(error),
    };
    let (sender, receiver) = watch::channel(Arc::new(first));
    let task = tokio::spawn(async move {
        loop {
            let interfaces = match &mut watcher {
                Some(watcher) => watcher.changed().await,
                None => hidden::changed().await,
            };
            sender.send_if_modified(|known| {
                let changed = **known != interfaces;
                if changed {
                    tracing::debug!("the network changed");
                    *known = Arc::new(interfaces);
                }
                changed
            });
        }
    });
    Ok(Watch { interfaces: receiver, task })
}

/// Those interfaces that no pattern of the user's excludes.
pub(crate) fn included(interfaces: &[Interface], excluded: &[String]) -> Vec<Interface> {
    let is_excluded =
        |name: &str| excluded.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
    interfaces.iter().filter(|interface| !is_excluded(&interface.name)).cloned().collect()
}

/// Shell-like: `*` is any run of characters, `?` any one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            // Stars in a row are one.
            let rest = &rest[rest.iter().take_while(|&&c| c == b'*').count()..];
            (0..=name.len()).any(|skip| matches(rest, &name[skip..]))
        }
        (Some((b'?', rest)), Some((_, name))) => matches(rest, name),
        (Some((c, rest)), Some((d, name))) => c == d && matches(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("docker*", "docker0", true),
            ("docker*", "docker", true),
            ("veth?", "veth1", true),
            ("veth?", "veth12", false),
            ("*", "anything", true),
            ("e*0", "eth0", true),
            ("e*0", "eth1", false),
            ("**0", "eth0", true),
            ("", "eth0", false),
            ("eth0", "eth0", true),
            ("eth", "eth0", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn excluded_interfaces_are_left_out() {
        let interface = |name: &str| Interface {
            index: 1,
            name: name.to_owned(),
            loopback: false,
            multicast: true,
            default_v4: false,
            default_v6: false,
            preferred: false,
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        let all = [interface("eth0"), interface("docker0"), interface("veth12")];
        let left = included(&all, &["docker*".to_owned(), "veth*".to_owned()]);
        assert_eq!(left, [interface("eth0")]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn changes_of_addresses_links_and_default_routes_are_told_as_they_happen() {
        use crate::testns::sh;
        if !crate::testns::inside(
            "network::tests::changes_of_addresses_links_and_default_routes_are_told_as_they_happen",
            "ip link add v0 type veth peer name v1 && ip link set v1 up",
        ) {
            return;
        }
        let mut watch = watch().unwrap();
        let find = |interfaces: &[Interface]| interfaces.iter().find(|i| i.name == "v0").cloned();
        assert_eq!(find(&watch.interfaces.borrow()), None, "it is down");
        type Check = fn(Option<Interface>) -> bool;
        let steps: [(&str, Check); 8] = [
            ("ip link set v0 up", |v0| v0.is_some_and(|v0| v0.multicast)),
            ("ip addr add 192.0.2.7/24 dev v0", |v0| {
                v0.is_some_and(|v0| v0.addresses.contains(&([192, 0, 2, 7].into(), 24)))
            }),
            ("ip route add default via 192.0.2.1 dev v0", |v0| v0.is_some_and(|v0| v0.default_v4)),
            ("ip route del default && ip route add 0.0.0.0/1 via 192.0.2.1", |v0| {
                v0.is_some_and(|v0| !v0.default_v4)
            }),
            ("ip route add 128.0.0.0/1 via 192.0.2.1", |v0| v0.is_some_and(|v0| v0.default_v4)),
            ("ip route add 198.51.100.0/24 via 192.0.2.1 && ip addr del 192.0.2.7/24 dev v0", |v0| {
                v0.is_some_and(|v0| !v0.default_v4 && !v0.addresses.iter().any(|(ip, _)| ip.is_ipv4()))
            }),
            ("ip link set v1 down", |v0| v0.is_none()),
            ("ip link set v1 up", |v0| v0.is_some()),
        ];
        for (command, check) in steps {
            sh(command);
            let told = watch.interfaces.wait_for(|interfaces| check(find(interfaces)));
            let told = tokio::time::timeout(std::time::Duration::from_secs(5), told).await.is_ok();
            assert!(told, "after {command}: {:?}", find(&watch.interfaces.borrow()));
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_way_that_the_system_prefers_is_told_whatever_makes_it_prefer_it() {
        use crate::testns::sh;
        if !crate::testns::inside(
            "network::tests::the_way_that_the_system_prefers_is_told_whatever_makes_it_prefer_it",
            "for n in 1 2; do ip link add v$n type veth peer name w$n && ip link set v$n up && ip link set w$n up && \
             ip addr add 10.0.$n.2/24 dev v$n; done; ip route add default via 10.0.1.1 metric 100",
        ) {
            return;
        }
        let mut watch = watch().unwrap();
        for (command, preferred) in [
            ("ip route add default via 10.0.2.1 metric 600", "v1"),
            // A manager of networks found that the first leads nowhere.
            ("ip route add default via 10.0.1.1 metric 20100 && ip route del default metric 100", "v2"),
            // A tunnel that covers everything by two halves.
            ("ip route add 128.0.0.0/1 via 10.0.1.1", "v1"),
            // One that has rules.
            ("ip route add default via 10.0.2.1 table 77 && ip rule add table 77 priority 9", "v2"),
            ("ip rule del table 77", "v1"),
            ("ip link set v1 down", "v2"),
        ] {
            sh(command);
            let is_told = |interfaces: &Interfaces| {
                let names = interfaces.iter().filter(|i| i.preferred).map(|i| i.name.as_str());
                names.collect::<Vec<_>>() == [preferred]
            };
            let told = watch.interfaces.wait_for(is_told);
            let told = tokio::time::timeout(std::time::Duration::from_secs(5), told).await.is_ok();
            assert!(told, "after {command}: {:?}", watch.interfaces.borrow());
        }
    }
}
