//! What an operator sets, as a TOML table; every key has a default.
//!
//! Keys that are not known are errors: a limit that was misspelt would otherwise not limit anything. Reading the
//! file is the program's work.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use bowline_cluster::ClusterConfig;
use bowline_proto::{DeviceId, base::BaseConfig, bucket::Rate};
use serde::{Deserialize, Deserializer, de::Error};

/// TCP and UDP port of a base (protocol section 3).
pub const DEFAULT_PORT: u16 = 4477;
/// The second UDP port is as many above the first.
pub const SECOND_PORT_OFFSET: u16 = 2;

/// The base server's part of the configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `listen = ["0.0.0.0:4477", "[::]:4477"]`: addresses to listen on, TCP and UDP, with a second UDP socket two
    /// ports above. Port 0 takes any free ports. Default (empty): port 4477 on every address, IPv6 where the system
    /// has it.
    pub listen: Vec<SocketAddr>,
    /// `state = "/var/lib/bowline"`: the folder of the base's key. Used by the program; default: the user's state
    /// folder.
    pub state: Option<PathBuf>,
    /// `advertise = ["192.0.2.1", "2001:db8::1"]`: IP addresses at which hosts reach the UDP ports, one of each
    /// family, where they differ from the address that TCP connections come to. Default: the same address.
    pub advertise: Vec<IpAddr>,
    /// `workers = 4`: threads that forward messages over UDP, each with sockets of its own. Default: one for each core; one on
    /// systems that do not spread what comes over several sockets.
    pub workers: Option<NonZeroUsize>,
    /// `fast_path = ["eth0"]`: interfaces on which the Linux kernel itself forwards messages between devices on UDP, by a program that the base
    /// loads (it takes root). Such messages pass by whatever else the machine has behind the interface: packet filters, reverse path filters
    /// (rp_filter), sniffers, and those that change packets, NAT and IPsec. Where the base's own packets need the latter, leave it out: devices
    /// would get messages from addresses that they do not know, or in the clear. Default: none.
    pub fast_path: Vec<String>,
    /// `allow = ["7k2m-…"]`: the devices that may register here; all others are refused. Default: every device.
    #[serde(deserialize_with = "device_ids")]
    pub allow: Option<HashSet<DeviceId>>,
    /// `allow_file = "/etc/bowline/allow"`: a file with more of them, one ID a line, read again when it changes ([`crate::allow`]).
    pub allow_file: Option<PathBuf>,
    /// The table `[hook]`: a service that knows about devices which are on neither list.
    pub hook: Option<HookConfig>,
    /// `admin = "127.0.0.1:4480"`: where metrics and the page for people are served over HTTP. Default: nowhere.
    pub admin: Option<SocketAddr>,
    /// The table `[limits]`.
    pub limits: Limits,
    /// The table `[cluster]`: other bases that this one is one service with.
    pub cluster: ClusterConfig,
}

/// The table `[hook]` ([`crate::hook`]).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// `url = "https://devices.example.net/may-register"`: asked with `?device=<ID>` behind it.
    pub url: String,
    /// `token_file = "/etc/bowline/hook-token"`: its one line is sent as a bearer token. Default: none.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// `cache_seconds = 300`: how long a yes counts, and how soon a no reaches a device that is here.
    #[serde(default = "five_minutes")]
    pub cache_seconds: u32,
    /// `refused_cache_seconds = 30`: how long a no counts.
    #[serde(default = "half_a_minute")]
    pub refused_cache_seconds: u32,
}

fn five_minutes() -> u32 {
    300
}

fn half_a_minute() -> u32 {
    30
}

/// The table `[limits]`: what is bounded, and by how much. `BaseConfig` of bowline-proto says what happens there.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// `keepalive_seconds = 25`: how often hosts refresh, 10 to 25.
    pub keepalive_seconds: u16,
    /// `devices = 65536`: registered devices; one more is told to come back later.
    pub devices: usize,
    /// `unfinished = 4096`: connections that have not registered; one more ends the oldest.
    pub unfinished: usize,
    /// `unfinished_per_source = 256`: the same of one IPv4 address or IPv6 /64; one more ends the oldest.
    pub unfinished_per_source: usize,
    /// `interests = 1024`: devices that one device may want to talk with.
    pub interests: usize,
    /// `interests_in_all = 1048576`: the same, summed over all devices.
    pub interests_in_all: usize,
    /// `remote_devices = 262144`: devices at other bases of the cluster that are remembered; one more takes the place of one
    /// that nobody has.
    pub remote_devices: usize,
    /// `registrations_per_second = 10`: of one IPv4 address or IPv6 /64 (four times as many of a /48).
    pub registrations_per_second: u32,
    /// `registrations_burst = 64`: as many at once after a quiet time.
    pub registrations_burst: u32,
    /// `registrations_spare_per_second = 250`: of all addresses together that are over that; twice as many at once.
    pub registrations_spare_per_second: u32,
    /// `verifications_per_second = 2000`: registrations looked at in all; a core does some 6,000.
    pub verifications_per_second: u32,
    /// `relay_bytes_per_second = 1000000`: what one device may have relayed. Default: no limit.
    pub relay_bytes_per_second: Option<u32>,
    /// `relay_messages_per_second = 10000`: the same in messages, whatever their size; those that hosts have joined are one. Default: no limit.
    pub relay_messages_per_second: Option<u32>,
    /// `frames_per_second = 500`: all other frames of one device; more are dropped and it is told.
    pub frames_per_second: u32,
    /// `frames_burst = 4096`: as many at once after a quiet time.
    pub frames_burst: u32,
    /// `data_queue_bytes = 262144`: data waiting for one slow host on TCP; more is dropped and its sender told.
    pub data_queue_bytes: usize,
    /// `control_queue_bytes = 1048576`: control messages waiting for one host; over it the host is cut off.
    pub control_queue_bytes: usize,
    /// `queues_bytes = 268435456`: all of that together; with as much, data for slow hosts is dropped.
    pub queues_bytes: usize,
    /// `memory_bytes = 1073741824`: of this process; with as much, devices that are not here yet are told to come back later.
    /// Default: four fifths of what its control group or the machine has.
    pub memory_bytes: Option<u64>,
    /// `setup_timeout_seconds = 10`: patience with a connection that does not register.
    #[serde(rename = "setup_timeout_seconds", deserialize_with = "seconds")]
    pub setup_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let base = BaseConfig::default();
        Self {
            keepalive_seconds: base.keepalive,
            devices: base.max_devices,
            unfinished: base.max_unfinished,
            unfinished_per_source: base.max_unfinished_per_source,
            interests: base.max_interests,
            interests_in_all: base.max_interests_in_all,
            remote_devices: base.max_remote_devices,
            registrations_per_second: 10,
            registrations_burst: base.register_rate.burst,
            registrations_spare_per_second: base.register_spare.burst / 2,
            verifications_per_second: base.verify_rate.burst,
            relay_bytes_per_second: base.relay_rate,
            relay_messages_per_second: base.relay_messages,
            frames_per_second: 500,
            frames_burst: base.frame_rate.burst,
            // 2 ms of a gigabit: enough to fill a write, little enough not to delay what is behind it.
            data_queue_bytes: 256 << 10,
            // All addresses of 1,024 wanted devices, told at once after a registration, are 340 KB.
            control_queue_bytes: 1 << 20,
            // A thousand hosts that are as slow as may be.
            queues_bytes: 256 << 20,
            memory_bytes: None,
            setup_timeout: base.setup_timeout,
        }
    }
}

/// How many times the registrations of a /64 a whole /48 may make.
const WIDE_SHARE: u32 = 4;

/// More workers than any machine this was thought for has cores.
const MAX_WORKERS: usize = 256;

impl Config {
    /// How many threads forward messages.
    pub(crate) fn workers(&self) -> usize {
        if !cfg!(target_os = "linux") {
            return 1;
        }
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.workers.map_or_else(cores, NonZeroUsize::get).min(MAX_WORKERS)
    }

    /// How many sockets listen and receive, with so many lanes.
    pub(crate) fn sockets(&self, lanes: usize) -> usize {
        // Each address has one for TCP, and two ports for UDP; without any written there are two addresses.
        let addresses = if self.listen.is_empty() { 2 } else { self.listen.len() };
        addresses * (1 + 2 * lanes * self.workers())
    }

    /// The same for the machine.
    #[must_use]
    pub fn base_config(&self) -> BaseConfig {
        let limits = &self.limits;
        let each = Duration::from_secs(1) / limits.registrations_per_second.max(1);
        let burst = limits.registrations_burst.max(1);
        let spare = limits.registrations_spare_per_second.max(1);
        BaseConfig {
            keepalive: limits.keepalive_seconds,
            allow: self.allow.clone(),
            ask: self.hook.is_some(),
            max_devices: limits.devices,
            max_unfinished: limits.unfinished,
            max_unfinished_per_source: limits.unfinished_per_source,
            max_interests: limits.interests,
            max_interests_in_all: limits.interests_in_all,
            max_remote_devices: limits.remote_devices,
            register_rate: Rate { burst, every: each },
            register_rate_wide: Rate { burst: burst.saturating_mul(WIDE_SHARE), every: each / WIDE_SHARE },
            register_spare: Rate { burst: spare.saturating_mul(2), every: Duration::from_secs(1) / spare },
            verify_rate: Rate::per_second(limits.verifications_per_second.max(1)),
            relay_rate: limits.relay_bytes_per_second,
            relay_messages: limits.relay_messages_per_second,
            frame_rate: Rate {
                burst: limits.frames_burst.max(1),
                every: Duration::from_secs(1) / limits.frames_per_second.max(1),
            },
            setup_timeout: limits.setup_timeout,
            ..BaseConfig::default()
        }
    }
}

fn device_ids<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HashSet<DeviceId>>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    let id = |text: &String| text.parse().map_err(|e| D::Error::custom(format!("{text}: {e}")));
    texts.iter().map(id).collect::<Result<_, _>>().map(Some)
}

fn seconds<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    u32::deserialize(d).map(|s| Duration::from_secs(s.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let id = DeviceId::of_public_key(&[1; 32]);
        let config: Config = toml::from_str(&format!(
            r#"
            listen = ["127.0.0.1:0", "[::1]:4477"]
            state = "/var/lib/bowline"
            advertise = ["192.0.2.1"]
            workers = 3
            fast_path = ["eth0"]
            allow = ["{id}"]
            allow_file = "/etc/bowline/allow"
            admin = "127.0.0.1:4480"
            [hook]
            url = "http://127.0.0.1:1/"
            [limits]
            keepalive_seconds = 20
            devices = 1
            unfinished = 2
            unfinished_per_source = 3
            interests = 4
            interests_in_all = 5
            registrations_per_second = 6
            registrations_burst = 7
            verifications_per_second = 8
            relay_bytes_per_second = 9
            data_queue_bytes = 10
            control_queue_bytes = 11
            setup_timeout_seconds = 12
            relay_messages_per_second = 13
            frames_per_second = 14
            frames_burst = 15
            queues_bytes = 16
            memory_bytes = 17
            registrations_spare_per_second = 18
            "#
        ))
        .unwrap();
        assert_eq!(config.workers(), if cfg!(target_os = "linux") { 3 } else { 1 });
        assert_eq!(config.fast_path, ["eth0"]);
        let base = config.base_config();
        assert_eq!(base.allow, Some([id].into()));
        assert_eq!((base.keepalive, base.max_devices, base.max_unfinished), (20, 1, 2));
        assert_eq!((base.max_unfinished_per_source, base.max_interests), (3, 4));
        assert_eq!((base.max_interests_in_all, base.register_rate.burst), (5, 7));
        assert_eq!((base.verify_rate.burst, base.relay_rate), (8, Some(9)));
        assert_eq!((base.register_spare.burst, base.register_spare.every), (36, Duration::from_secs(1) / 18));
        assert_eq!(base.setup_timeout, Duration::from_secs(12));
        assert_eq!((base.relay_messages, base.frame_rate.burst, base.ask), (Some(13), 15, true));
        assert_eq!((config.limits.queues_bytes, config.limits.memory_bytes), (16, Some(17)));
        assert_eq!(config.hook.unwrap().cache_seconds, 300);
    }

    #[test]
    fn unknown_keys_and_mistyped_ids_are_errors() {
        assert!(toml::from_str::<Config>("lissen = []").is_err());
        assert!(toml::from_str::<Config>("[limits]\ndevice = 1").is_err());
        assert!(toml::from_str::<Config>("allow = [\"7k2m\"]").unwrap_err().to_string().contains("7k2m"));
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config: Config = toml::from_str("").unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
}
