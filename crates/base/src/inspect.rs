//! What the owner does for those beside it: says what there is, takes new lists and answers, looks at its memory once a second.

use std::{collections::HashSet, sync::Arc, time::Instant};

use bowline_fastpath::FastPath;
use bowline_proto::{
    DeviceId,
    base::{Answer, ConnId, Counters, Delays},
};

use crate::{
    config::Config,
    control::{Cluster, Control, Queues, Snapshot},
    listen::LANES,
    owner::{Owner, max_connections},
    resources,
    udp::worker::Counts,
};

/// What is known beside the machine.
#[derive(Debug)]
pub(crate) struct Inspector {
    started: Instant,
    waits: Delays,
    /// The devices that the configuration itself allows; those of the file come on top.
    written: Option<HashSet<DeviceId>>,
    pub(crate) listed: Option<(usize, u64)>,
    memory: (u64, u64),
    short_of_memory: bool,
    /// What there is, and what the limits come to.
    pub(crate) descriptors: (u64, u64),
    pub(crate) fast_path: Option<Arc<FastPath>>,
}

impl Inspector {
    pub(crate) fn new(config: &Config) -> Self {
        let allowed = config.limits.memory_bytes.or_else(resources::memory_allowed);
        Self {
            started: Instant::now(),
            waits: Delays::default(),
            written: config.allow.clone(),
            listed: None,
            memory: (0, allowed.unwrap_or(u64::MAX)),
            short_of_memory: false,
            descriptors: (0, resources::descriptors_for(max_connections(config), config.sockets(LANES))),
            fast_path: None,
        }
    }

    /// A batch of a worker had waited since then.
    pub(crate) fn waited(&mut self, since: Option<Instant>, now: Instant) {
        if let Some(since) = since {
            self.waits.add(now.saturating_duration_since(since));
        }
    }

    /// Measures the memory; tells whether the answer to "is there enough?" is another than before.
    fn look_at_memory(&mut self) -> bool {
        let Some(used) = resources::memory_used() else { return false };
        self.memory.0 = used;
        let short = used >= self.memory.1;
        std::mem::replace(&mut self.short_of_memory, short) != short
    }
}

impl Owner {
    /// Once a second.
    pub(crate) fn tick(&mut self) {
        if self.inspector.look_at_memory() {
            let (short, (used, allowed)) = (self.inspector.short_of_memory, self.inspector.memory);
            self.base.set_short_of_memory(short);
            if short {
                tracing::warn!(used, allowed, "short of memory: no new devices are taken");
            } else {
                tracing::info!(used, allowed, "there is memory for new devices again");
            }
        }
        if let Some(hook) = &mut self.hook {
            hook.confirm(|device| self.base.is_registered(device), Instant::now());
        }
        // The machine may have its address only now, or another.
        self.base.set_cluster_udp(self.cluster.udp_addresses(), Instant::now());
    }

    /// Somebody asks or tells something.
    pub(crate) fn control(&mut self, control: Control, workers: &[Arc<Counts>], queues: Queues) {
        let now = Instant::now();
        match control {
            Control::Inspect(devices, answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(self.snapshot(devices, workers, queues, now));
            }
            Control::Listed(Ok(listed)) => self.listed(listed, now),
            Control::Listed(Err(error)) => {
                tracing::error!("{error}; the list as it was stays in force");
                if let Some((_, errors)) = &mut self.inspector.listed {
                    *errors += 1;
                }
            }
            Control::Answered { conn, device, answer } => {
                if let Some(hook) = &mut self.hook {
                    hook.answered(device, answer, now);
                }
                self.base.handle_answer(conn, answer, now);
            }
            Control::Confirmed { device, answer } => {
                if self.hook.as_mut().is_some_and(|hook| hook.confirmed(device, answer, now)) {
                    self.base.send_away(device, now);
                }
            }
        }
    }

    /// The machine wants to know about a device.
    pub(crate) fn ask(&mut self, conn: ConnId, device: DeviceId) {
        let now = Instant::now();
        let answer = match &mut self.hook {
            Some(hook) => hook.ask(conn, device, now),
            None => Some(Answer::Unknown),
        };
        if let Some(answer) = answer {
            self.base.handle_answer(conn, answer, now);
        }
    }

    fn listed(&mut self, listed: HashSet<DeviceId>, now: Instant) {
        let devices = listed.len();
        let mut allow = self.inspector.written.clone().unwrap_or_default();
        allow.extend(listed);
        if let Some(hook) = &mut self.hook {
            let doubted = self.base.devices().filter(|device| !allow.contains(&device.id));
            doubted.for_each(|device| hook.doubt(device.id, now));
        }
        let gone = self.base.set_allow(Some(allow), now);
        if let Some((count, _)) = &mut self.inspector.listed {
            *count = devices;
        }
        tracing::info!(devices, gone, "the list of allowed devices was read again");
    }

    /// What was counted by the machine and by all workers.
    pub(crate) fn counters(&self, workers: &[Arc<Counts>]) -> Counters {
        let mut counters = *self.base.counters();
        workers.iter().for_each(|counts| counts.add_to(&mut counters));
        self.plane.add_to(&mut counters);
        if let Some(fast_path) = &self.inspector.fast_path {
            let counts = fast_path.counts();
            counters.forwarded_kernel += counts.messages;
            counters.forwarded_kernel_bytes += counts.bytes;
            counters.dropped_over_rate += counts.over_rate;
            counters.fast_path_no_way += counts.no_way;
        }
        counters.dropped_not_sent += self.sender.dropped();
        counters.dropped_busy += self.cluster.dropped();
        counters
    }

    fn cluster_view(&self, now: Instant) -> Option<Cluster> {
        let bus_is_up = self.base.bus_is_up()?;
        let members = self.base.members(now);
        let over_udp = members.iter().filter(|(_, udp)| *udp).count();
        Some(Cluster { bus_is_up, bases: (members.len(), over_udp) })
    }

    fn snapshot(&self, devices: usize, workers: &[Arc<Counts>], queues: Queues, now: Instant) -> Snapshot {
        let inspector = &self.inspector;
        Snapshot {
            id: self.base.id(),
            uptime: now.saturating_duration_since(inspector.started),
            now,
            counters: self.counters(workers),
            sizes: self.base.sizes(),
            queues: Queues { outgoing_bytes: self.all_queues.bytes(), ..queues },
            waits: inspector.waits,
            draining: self.base.is_draining(),
            memory: inspector.memory,
            short_of_memory: inspector.short_of_memory,
            descriptors: inspector.descriptors,
            listed: inspector.listed,
            cluster: self.cluster_view(now),
            devices: self.base.devices().take(devices).collect(),
            locals: self.ports.iter().map(|lanes| lanes.local_addr()).collect(),
        }
    }
}
