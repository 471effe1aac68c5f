//! Where a message goes, and what its sender hears when it goes nowhere.
//!
//! The way of a message is two look-ups (who sent it, where its destination is) and fifteen bytes rewritten in
//! place. Relaying does not ask for consent; only what a sender hears does: to whom the destination does not want,
//! a device that refuses looks exactly like one that is not here.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    Base, Forward, Ticket,
    config::{UNREACHABLE_PAIR, UNREACHABLE_RATE},
    registry::Link,
    routes::Way,
};
use crate::{
    bucket::Bucket,
    id::DeviceId,
    wire::{
        Malformed, relay,
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
    /// Decides where a SEND-DATA or SEND-JOINED of a device goes, and makes it what goes there.
    pub(super) fn relay(
        &mut self,
        from: DeviceId,
        message: &mut [u8],
        now: Instant,
    ) -> Result<Forward, Malformed> {
        let (to, data) = relay::split(message)?;
        let length = data.len();
        let sender = self.devices.get(&from).map(Box::as_ref).or_else(|| self.lingering(from));
        let Some(session) = sender.map(|device| Arc::clone(&device.session)) else {
            return Ok(Forward::Nowhere);
        };
        let forward = match self.routes.way(session.budget(), from, to, length, now) {
            Way::Udp { via, to, .. } => Forward::Udp { via, to },
            Way::Base(way) => Forward::Base(way),
            Way::TooLarge => {
                self.counters.dropped_too_large += 1;
                self.unreachable(from, to, UnreachableReason::TooLarge, now);
                return Ok(Forward::Nowhere);
            }
            Way::Elsewhere if self.routes.within_rate(session.budget(), length, now) => {
                match self.way_without_udp(from, to, length, now) {
                    Some(forward) => forward,
                    None => return Ok(Forward::Nowhere),
                }
            }
            Way::OverRate | Way::Elsewhere => {
                self.handle_over_rate(from, to, 1, now);
                return Ok(Forward::Nowhere);
            }
        };
        relay::rewrite(message, from)?;
        match forward {
            Forward::Udp { .. } => {
                self.counters.forwarded_udp += 1;
                self.counters.forwarded_udp_bytes += length as u64;
            }
            Forward::Base(_) => {
                self.counters.forwarded_base += 1;
                self.counters.forwarded_base_bytes += length as u64;
            }
            _ => {
                self.counters.forwarded_tcp += 1;
                self.counters.forwarded_tcp_bytes += length as u64;
            }
        }
        Ok(forward)
    }

    /// Where a message goes that UDP does not take: the connection of its destination, or another base.
    fn way_without_udp(
        &mut self,
        from: DeviceId,
        to: DeviceId,
        length: usize,
        now: Instant,
    ) -> Option<Forward> {
        match self.devices.get(&to).map(|device| device.link) {
            Some(Link::Tcp(conn)) => return Some(Forward::Tcp { conn, ticket: Ticket { from, to } }),
            Some(Link::Lost { .. }) => {
                self.counters.dropped_no_way += 1;
                self.blocked(from, to, now);
            }
            None => match self.elsewhere(from, to, length, now) {
                Some(way) => return Some(Forward::Base(way)),
                None => self.not_here(from, to, now),
            },
        }
        None
    }

    /// Messages of a device were dropped because it has had relayed what it may. A shell calls this where
    /// [`super::Reader::judge`] said so; it may say it once for many.
    pub fn handle_over_rate(&mut self, from: DeviceId, to: DeviceId, count: u64, now: Instant) {
        self.counters.dropped_over_rate += count;
        self.unreachable(from, to, UnreachableReason::Rate, now);
    }

    /// The shell dropped messages because the queue of their destination was full. It may say it once for many, and count them
    /// itself.
    pub fn handle_overflow(&mut self, ticket: Ticket, count: u64, now: Instant) {
        self.counters.dropped_queue_full += count;
        self.blocked(ticket.from, ticket.to, now);
    }

    /// The destination is not here: whom it had wanted when it left may know.
    fn not_here(&mut self, from: DeviceId, to: DeviceId, now: Instant) {
        self.counters.dropped_not_here += 1;
        if self.absent.get(&to, now).is_some_and(|wanted| wanted.binary_search(&from).is_ok()) {
            self.unreachable(from, to, UnreachableReason::NotHere, now);
        } else {
            self.unreachable_elsewhere(from, to, now);
        }
    }

    /// The destination is here, and nothing gets through to it: whom it wants may know.
    pub(super) fn blocked(&mut self, from: DeviceId, to: DeviceId, now: Instant) {
        if self.devices.get(&to).is_some_and(|device| device.interests.contains_key(&from)) {
            if self.devices.contains_key(&from) {
                self.unreachable(from, to, UnreachableReason::QueueFull, now);
            } else {
                self.blocked_elsewhere(from, to, UnreachableReason::QueueFull, now);
            }
        }
    }

    pub(super) fn unreachable(
        &mut self,
        host: DeviceId,
        about: DeviceId,
        why: UnreachableReason,
        now: Instant,
    ) {
        let Some(device) = self.devices.get_mut(&host) else { return };
        if let Some(conn) = device.link.conn()
            && device.rates().unreached.take(about, now)
        {
            self.counters.unreachable_sent += 1;
            self.write(conn, &BaseFrame::Unreachable(about, why));
        }
    }
}
