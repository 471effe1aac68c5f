//! The page for people: three files that are part of the program, and the JSON that it shows.

use std::time::Duration;

use bowline_proto::base::DeviceView;
use serde_json::{Value, json};

use crate::{control::Snapshot, udp::kernel};

/// A file of the page with its type.
pub(crate) fn file(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        "/" => Some(("text/html; charset=utf-8", include_str!("page.html"))),
        "/page.css" => Some(("text/css; charset=utf-8", include_str!("page.css"))),
        "/page.js" => Some(("text/javascript; charset=utf-8", include_str!("page.js"))),
        _ => None,
    }
}

/// What the page shows. Counters are totals: the page makes rates of two answers.
pub(crate) fn status(now: &Snapshot) -> String {
    let c = &now.counters;
    let sizes = &now.sizes;
    let (used, allowed) = now.memory;
    json!({
        "id": now.id.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": now.uptime.as_secs(),
        "draining": now.draining,
        "short_of_memory": now.short_of_memory,
        "devices": { "udp": sizes.on_udp, "tcp": sizes.devices.saturating_sub(sizes.on_udp) },
        "unfinished": sizes.unfinished,
        "interests": sizes.interests,
        "memory": { "used": used, "allowed": allowed },
        "listed": now.listed.map(|(devices, _)| devices),
        "totals": {
            "registrations": c.registered + c.re_registered,
            "refused": c.register_bad_signature + c.register_over_rate + c.register_not_allowed + c.connections_refused,
            "messages_udp": c.forwarded_udp + c.forwarded_kernel,
            "messages_tcp": c.forwarded_tcp,
            "bytes_udp": c.forwarded_udp_bytes + c.forwarded_kernel_bytes,
            "bytes_tcp": c.forwarded_tcp_bytes,
            "verifications": c.registers_verified + c.nat_init_verified + c.nat_init_bad_signature,
        },
        "drops": {
            "destination not here": c.dropped_not_here,
            "no way to it": c.dropped_no_way,
            "slow device": c.dropped_queue_full,
            "sender over its rate": c.dropped_over_rate,
            "too large": c.dropped_too_large,
            "base too busy": c.dropped_busy,
            "system did not send": c.dropped_not_sent,
            "system did not receive": kernel::dropped(&now.locals),
            "unknown source": c.unknown_source,
            "malformed": c.malformed_datagrams + c.malformed_frames,
        },
        "queues": {
            "frames": now.queues.frames,
            "handshakes": now.queues.handshakes,
            "data": now.queues.data,
            "outgoing_bytes": now.queues.outgoing_bytes,
        },
        "device_list": now.devices.iter().map(|device| row(device, now)).collect::<Vec<Value>>(),
    })
    .to_string()
}

fn row(device: &DeviceView, now: &Snapshot) -> Value {
    let udp = device.udp.filter(|&(_, until)| until > now.now).map(|(address, _)| address.to_string());
    json!({
        "id": device.id.to_string(),
        "path": if udp.is_some() { "udp" } else { "tcp" },
        "address": udp.or_else(|| device.remote.map(|remote| remote.to_string())),
        "seconds": now.now.saturating_duration_since(device.since).max(Duration::ZERO).as_secs(),
        "wants": device.interests,
    })
}
