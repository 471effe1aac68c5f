//! The fast path of a base: a program in the Linux kernel that forwards messages between devices on UDP before any socket sees them.
//!
//! `bpf/relay.bpf.c` is the program. It is attached where packets come in (tc, by a TCX link, so it is gone when the process is), forwards by
//! a copy of the base's table, and leaves to the sockets all it does not know or cannot send by itself. [`FastPath`] loads it, and keeps the
//! copy: it is the [`Follower`](bowline_proto::base::Follower) of the base's routes.
//!
//! Not here: what is in the table, and everything else that a base does with a datagram.

#[cfg(target_os = "linux")]
mod budgets;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
mod system;

use std::net::SocketAddr;

use bowline_proto::base::Limits;
pub use system::FastPath;

/// What the fast path is made from.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The interfaces by which messages come in.
    pub interfaces: &'a [String],
    /// Where the base's sockets are bound, by their numbers.
    pub sockets: &'a [SocketAddr],
    /// Devices at most; those beyond go by the sockets.
    pub devices: usize,
    /// What each of them may have relayed.
    pub limits: Option<Limits>,
}

/// What it has forwarded, over all cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Their data.
    pub bytes: u64,
    /// Messages that were dropped because their sender has had relayed what he may.
    pub over_rate: u64,
    /// Packets that were left to the sockets because the routing or the neighbour table had no way for them, or they were too large for it.
    pub no_way: u64,
}

/// Why there is no fast path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another system, or an old one.
    #[error(
        "the fast path needs Linux 6.6 or later; this is {0}. Leave out `fast_path`: messages then go by the sockets"
    )]
    System(String),
    /// An interface that this machine does not have.
    #[error("the fast path cannot use {0}: there is no such network interface; `ip link` lists them")]
    NoInterface(String),
    /// An interface whose packets begin with something else.
    #[error("the fast path cannot use {0}: it is no Ethernet interface; leave it out of `fast_path`")]
    NotEthernet(String),
    /// The process may not.
    #[error(
        "not permitted to load the fast path into the kernel: it takes root, or the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN \
         (AmbientCapabilities= in a systemd unit)"
    )]
    NotPermitted,
    /// The kernel would not look up ways.
    #[error(
        "the fast path cannot look up ways: net.{family}.conf.lo.forwarding is 0 and cannot be set ({error}); \
         set it to 1 (sysctl, or `--sysctl` of a container). It makes no router of the machine: nothing is forwarded from lo"
    )]
    Ways {
        /// "ipv4" or "ipv6".
        family: &'static str,
        /// The system's words.
        error: std::io::Error,
    },
    /// Everything else that the kernel may say.
    #[error("the kernel does not take the fast path ({doing}): {error}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// Its words.
        error: String,
    },
}
