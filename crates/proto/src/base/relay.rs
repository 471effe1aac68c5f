//! Where a message goes, and what its sender hears when it goes nowhere.
//!
//! The way of a message is two look-ups (who sent it, where its destination is) and fifteen bytes rewritten in
//! place. Relaying does not ask for consent; only what a sender hears does: to whom the destination does not want,
//! a device that refuses looks exactly like one that is not here.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Base, Forward, Ticket,
    config::{RELAY_UNIT, UNREACHABLE_PAIR, UNREACHABLE_RATE},
    registry::Link,
};
use crate::{
    bucket::{Bucket, Rate},
    id::DeviceId,
    wire::{
        MAX_DATA, Malformed, relay,
        tcp::{BaseFrame, UnreachableReason},
    },
};

/// The UNREACHABLEs that one host got lately.
#[derive(Debug, Default)]
pub(super) struct Unreached {
    rate: Bucket,
    /// Within [`UNREACHABLE_PAIR`]; its length is bounded by [`UNREACHABLE_RATE`].
    recent: VecDeque<(Instant, DeviceId)>,
}

impl Unreached {
    fn take(&mut self, about: DeviceId, now: Instant) -> bool {
        while self.recent.front().is_some_and(|&(at, _)| at + UNREACHABLE_PAIR <= now) {
            self.recent.pop_front();
        }
        if self.recent.iter().any(|&(_, recent)| recent == about) || !self.rate.take(UNREACHABLE_RATE, now) {
            return false;
        }
        self.recent.push_back((now, about));
        true
    }
}

impl Base {
    /// Decides where a SEND-DATA of a device goes, and makes it the RECV-DATA that goes there.
    pub(super) fn relay(
        &mut self,
        from: DeviceId,
        message: &mut [u8],
        now: Instant,
    ) -> Result<Forward, Malformed> {
        let (to, data) = relay::split(message)?;
        let length = data.len();
        if length > MAX_DATA {
            self.counters.dropped_too_large += 1;
            self.unreachable(from, to, UnreachableReason::TooLarge, now);
            return Ok(Forward::Nowhere);
        }
        if let Some(limit) = self.config.relay_rate
            && !self.within_rate(from, length, limit, now)
        {
            self.counters.dropped_over_rate += 1;
            self.unreachable(from, to, UnreachableReason::Rate, now);
            return Ok(Forward::Nowhere);
        }
        let Some(device) = self.devices.get(&to) else {
            self.not_here(from, to, now);
            return Ok(Forward::Nowhere);
        };
        let forward = match (device.location.leg(length, now), device.link) {
            (Some((via, to)), _) => Forward::Udp { via, to },
            (None, Link::Tcp(conn)) => Forward::Tcp { conn, ticket: Ticket { from, to } },
            (None, Link::Lost { .. }) => {
                self.counters.dropped_no_way += 1;
                self.blocked(from, to, now);
                return Ok(Forward::Nowhere);
            }
        };
        relay::rewrite(message, from)?;
        match forward {
            Forward::Udp { .. } => {
                self.counters.forwarded_udp += 1;
                self.counters.forwarded_udp_bytes += length as u64;
            }
            _ => {
                self.counters.forwarded_tcp += 1;
                self.counters.forwarded_tcp_bytes += length as u64;
            }
        }
        Ok(forward)
    }

    /// Whether a device may have so many more bytes relayed. A message costs at least one unit.
    fn within_rate(&mut self, from: DeviceId, length: usize, limit: u32, now: Instant) -> bool {
        let units = (length / RELAY_UNIT + 1) as u32;
        // A burst below the largest message would never let that one pass.
        let burst = (limit / RELAY_UNIT as u32).max((MAX_DATA / RELAY_UNIT + 1) as u32);
        let every = Duration::from_nanos(1_000_000_000 * RELAY_UNIT as u64 / u64::from(limit.max(1)));
        let Some(device) = self.devices.get_mut(&from) else { return false };
        device.relay_rate.take_many(units, Rate { burst, every }, now)
    }

    /// The shell dropped a message because the queue of its destination was full.
    pub fn handle_overflow(&mut self, ticket: Ticket, now: Instant) {
        self.counters.dropped_queue_full += 1;
        self.blocked(ticket.from, ticket.to, now);
    }

    /// The destination is not here: whom it had wanted when it left may know.
    fn not_here(&mut self, from: DeviceId, to: DeviceId, now: Instant) {
        self.counters.dropped_not_here += 1;
        if self.absent.get(&to, now).is_some_and(|wanted| wanted.binary_search(&from).is_ok()) {
            self.unreachable(from, to, UnreachableReason::NotHere, now);
        }
    }

    /// The destination is here, and nothing gets through to it: whom it wants may know.
    fn blocked(&mut self, from: DeviceId, to: DeviceId, now: Instant) {
        if self.devices.get(&to).is_some_and(|device| device.interests.contains_key(&from)) {
            self.unreachable(from, to, UnreachableReason::QueueFull, now);
        }
    }

    fn unreachable(&mut self, host: DeviceId, about: DeviceId, why: UnreachableReason, now: Instant) {
        let Some(device) = self.devices.get_mut(&host) else { return };
        if let Some(conn) = device.link.conn()
            && device.unreached.take(about, now)
        {
            self.counters.unreachable_sent += 1;
            self.write(conn, &BaseFrame::Unreachable(about, why));
        }
    }
}
