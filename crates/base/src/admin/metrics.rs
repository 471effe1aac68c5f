//! `/metrics`: what a snapshot says, as OpenMetrics. Names and meanings stand here once; `docs/operations.md` explains what to watch.

use std::fmt;

use bowline_proto::base::Delays;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use crate::{control::Snapshot, udp::kernel};

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole page.
pub(crate) fn text(now: &Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("bowline");
    registry.register_collector(Box::new(Page(now.clone())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Page(Snapshot);

/// A label with a value for each of several numbers.
type Labelled<'a> = (&'a str, &'a [(&'a str, u64)]);

impl Collector for Page {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.info(&mut to)?;
        self.devices(&mut to)?;
        self.registrations(&mut to)?;
        self.relay(&mut to)?;
        self.control(&mut to)?;
        self.cluster(&mut to)?;
        self.resources(&mut to)
    }
}

impl Page {
    fn info(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labels = [("id", self.0.id.to_string()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
        let mut metric = to.encode_descriptor("base", "This base server", None, MetricType::Info)?;
        metric.encode_info(&labels)?;
        gauge(to, "uptime_seconds", "Since the start", self.0.uptime.as_secs_f64())?;
        gauge(to, "draining", "1 when devices have been told to leave", f64::from(u8::from(self.0.draining)))
    }

    fn devices(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sizes = &self.0.sizes;
        let paths =
            [("udp", sizes.on_udp as u64), ("tcp", sizes.devices.saturating_sub(sizes.on_udp) as u64)];
        gauges(
            to,
            "devices",
            "Registered devices, by the path on which messages reach them",
            ("path", &paths),
        )?;
        gauge(
            to,
            "connections_unfinished",
            "TCP connections that have not registered",
            sizes.unfinished as f64,
        )?;
        gauge(to, "interests", "Devices that devices want to talk with, summed", sizes.interests as f64)?;
        gauge(
            to,
            "bound_addresses",
            "Source addresses on UDP that stand for a device",
            sizes.bound_addresses as f64,
        )?;
        if let Some((listed, errors)) = self.0.listed {
            gauge(to, "allow_list_devices", "Devices in the file of allowed ones", listed as f64)?;
            counter(to, "allow_list_errors", "Changes of that file that could not be read", errors)?;
        }
        Ok(())
    }

    fn registrations(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = &self.0.counters;
        let results = [
            ("new", c.registered.saturating_sub(c.replaced)),
            ("again", c.re_registered),
            ("replaced", c.replaced),
            ("cloned", c.cloned),
            ("bad_signature", c.register_bad_signature),
            ("busy", c.register_over_rate),
            ("not_allowed", c.register_not_allowed),
        ];
        counters(to, "registrations", "What became of registrations", ("result", &results))?;
        counter(to, "registrations_ended", "Devices that left or were lost", c.lost)?;
        counter(
            to,
            "hook_questions",
            "Registrations that the operator's service was needed for",
            c.register_asked,
        )?;
        let connections = [("accepted", c.connections_accepted), ("refused", c.connections_refused)];
        counters(to, "connections", "TCP connections", ("result", &connections))?;
        let bound = c.nat_init_verified + c.nat_init_bad_signature;
        let verified = [("register", c.registers_verified), ("nat_init", bound)];
        counters(to, "verifications", "Signatures that were looked at", ("of", &verified))
    }

    fn relay(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = &self.0.counters;
        let messages = [("udp", c.forwarded_udp), ("kernel", c.forwarded_kernel), ("tcp", c.forwarded_tcp)];
        counters(
            to,
            "relayed_messages",
            "Messages forwarded, joined ones as one, by the path they left on",
            ("path", &messages),
        )?;
        let bytes = [
            ("udp", c.forwarded_udp_bytes),
            ("kernel", c.forwarded_kernel_bytes),
            ("tcp", c.forwarded_tcp_bytes),
        ];
        counters(to, "relayed_bytes", "Their data", ("path", &bytes))?;
        counter(
            to,
            "fast_path_left",
            "Packets that the fast path left to the workers because the kernel had no way for them",
            c.fast_path_no_way,
        )?;
        let reasons = [
            ("not_here", c.dropped_not_here),
            ("no_way", c.dropped_no_way),
            ("queue_full", c.dropped_queue_full),
            ("over_rate", c.dropped_over_rate),
            ("too_large", c.dropped_too_large),
            ("busy", c.dropped_busy),
            ("not_sent", c.dropped_not_sent),
            ("not_received", kernel::dropped(&self.0.locals)),
            ("unknown_source", c.unknown_source),
            ("malformed", c.malformed_datagrams),
        ];
        counters(to, "dropped", "Datagrams and messages that went nowhere", ("reason", &reasons))
    }

    fn control(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = &self.0.counters;
        let frames = [
            ("over_rate", c.frames_over_rate),
            ("malformed", c.malformed_frames),
            ("unknown", c.unknown_frames),
        ];
        counters(to, "frames_refused", "Frames over TCP that had no effect", ("reason", &frames))?;
        let nat_inits = [
            ("verified", c.nat_init_verified),
            ("known", c.nat_init_unverified),
            ("replayed", c.nat_init_replayed),
            ("bad_signature", c.nat_init_bad_signature),
            ("over_rate", c.nat_init_over_rate),
        ];
        counters(to, "nat_inits", "What became of NAT-INITs", ("result", &nat_inits))?;
        let sent = [
            ("device_addresses", c.addresses_sent),
            ("wanted", c.wanted_sent),
            ("unreachable", c.unreachable_sent),
            ("notice", c.notices_sent),
            ("nat_unknown", c.nat_unknown_sent),
        ];
        counters(to, "told", "What devices were told unasked", ("what", &sent))?;
        counter(to, "interests_refused", "REQUEST-INFOs over a limit", c.interests_refused)?;
        let pushes = "From a change of a device to the DEVICE-ADDRESSES that tell of it";
        histogram(to, "push_delay_seconds", pushes, &c.push_delay)?;
        histogram(
            to,
            "owner_wait_seconds",
            "How long batches of datagrams waited for the owner",
            &self.0.waits,
        )
    }

    fn cluster(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cluster) = self.0.cluster else { return Ok(()) };
        let (c, sizes) = (&self.0.counters, &self.0.sizes);
        gauge(to, "cluster_bus_up", "1 while NATS is there", f64::from(u8::from(cluster.bus_is_up)))?;
        let (all, over_udp) = cluster.bases;
        let bases = [("udp", over_udp as u64), ("bus", all.saturating_sub(over_udp) as u64)];
        gauges(to, "cluster_bases", "Other bases that live, by the path that data takes", ("path", &bases))?;
        let elsewhere = sizes.remote_devices as f64;
        gauge(to, "cluster_devices_elsewhere", "Devices at other bases that somebody here wants", elsewhere)?;
        let messages = [("to", c.forwarded_base), ("from", c.from_bases)];
        counters(
            to,
            "cluster_messages",
            "Messages to and from other bases, joined ones as one",
            ("way", &messages),
        )?;
        counter(to, "cluster_claims_stored", "Entries of devices that were written", c.claims_stored)?;
        counter(to, "cluster_store_failures", "Questions that the store did not answer", c.store_failures)?;
        counter(to, "cluster_bases_lost", "Other bases whose lease ran out", c.bases_lost)?;
        let refused = [("malformed", c.malformed_bus), ("not_a_member", c.not_a_member)];
        counters(
            to,
            "cluster_refused",
            "What came from no base of the cluster, or was none",
            ("reason", &refused),
        )
    }

    fn resources(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let queues = &self.0.queues;
        let depths = [
            ("frames", queues.frames as u64),
            ("handshakes", queues.handshakes as u64),
            ("data", queues.data as u64),
            ("notes", queues.notes as u64),
        ];
        gauges(to, "queue_depth", "Batches that wait for the owner", ("queue", &depths))?;
        gauge(to, "outgoing_bytes", "Bytes that wait for hosts over TCP", queues.outgoing_bytes as f64)?;
        let ((used, allowed), (descriptors, needed)) = (self.0.memory, self.0.descriptors);
        gauge(to, "memory_bytes", "Memory of the process", used as f64)?;
        gauge(to, "memory_limit_bytes", "Memory at which no new devices are taken", allowed as f64)?;
        gauge(to, "descriptors_limit", "File descriptors that the process may have", descriptors as f64)?;
        gauge(to, "descriptors_needed", "File descriptors that the configured limits come to", needed as f64)
    }
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    to.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn gauges(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    (label, values): Labelled<'_>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for &(of, value) in values {
        metric.encode_family(&[(label, of)])?.encode_gauge(&(value as f64))?;
    }
    Ok(())
}

fn counter(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn counters(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    (label, values): Labelled<'_>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for &(of, value) in values {
        metric.encode_family(&[(label, of)])?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

fn histogram(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, delays: &Delays) -> fmt::Result {
    let bounds = Delays::BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(delays.counts).collect();
    let count = delays.counts.iter().sum();
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(delays.sum.as_secs_f64(), count, &buckets, None)
}
