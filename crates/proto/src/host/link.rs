//! The local link: announcing this device, and what others announced (protocol section 10).
//!
//! Announcements are not signed: they only name addresses to try. What a HELLO there answers is what counts.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;

use super::{
    Event, Output,
    config::{ANNOUNCE, ANNOUNCEMENT_LIFE, ANNOUNCEMENT_REACTION, MAX_ANNOUNCEMENTS, MAX_LINK_PER_INTERFACE},
    context::Context,
    locals::{Change, is_link_local},
};
use crate::{
    id::DeviceId,
    wire::announce::{self, HOP_LIMIT},
};

/// Announcements, ours and others'.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Per interface: the next announcement and the last.
    interfaces: BTreeMap<u32, Schedule>,
    heard: VecDeque<Heard>,
}

#[derive(Debug)]
struct Schedule {
    next: Instant,
    last: Option<Instant>,
    /// What announcements come from.
    from: Vec<IpAddr>,
}

#[derive(Debug)]
struct Heard {
    device: DeviceId,
    from: SocketAddr,
    at: Instant,
}

impl Link {
    /// The interfaces may have changed: announce now on those that have, or on all of them if the device has moved. Where there are
    /// hundreds (containers), one more of them is of no interest to the others.
    pub(super) fn restart(&mut self, change: Change, ctx: &Context, now: Instant) {
        let mut before = std::mem::take(&mut self.interfaces);
        let multicast = ctx.locals.interfaces().iter().filter(|i| i.multicast && !i.loopback);
        let usable = multicast.filter(|_| ctx.config.link_local && ctx.locals.network().port_v6.is_some());
        self.interfaces = usable
            .map(|i| {
                let of_link =
                    i.addresses.iter().map(|&(ip, _)| ip).filter(|ip| ip.is_ipv6() && is_link_local(*ip));
                let from: Vec<IpAddr> = of_link.collect();
                let known = before.remove(&i.index).filter(|s| change != Change::Moved && s.from == from);
                (i.index, known.unwrap_or(Schedule { next: now, last: None, from }))
            })
            .collect();
    }

    /// Something came to the group. A device that is new there (or has moved) is returned.
    pub(super) fn handle(
        &mut self,
        from: SocketAddr,
        hop_limit: u8,
        payload: &[u8],
        ctx: &mut Context,
        now: Instant,
    ) -> Option<DeviceId> {
        let SocketAddr::V6(v6) = from else { return None };
        let on_link = v6.ip().is_unicast_link_local() && v6.scope_id() != 0;
        let Ok(device) = announce::decode(payload) else {
            ctx.counters.malformed += 1;
            return None;
        };
        if !ctx.config.link_local || hop_limit != HOP_LIMIT || !on_link || v6.port() == 0 {
            ctx.counters.malformed += 1;
            return None;
        }
        if device == ctx.id {
            return None;
        }
        ctx.counters.announcements += 1;
        self.heard.retain(|h| h.at + ANNOUNCEMENT_LIFE > now);
        let known = self.heard.iter().position(|h| h.device == device && h.from == from);
        if let Some(at) = known {
            self.heard.remove(at);
        }
        if self.heard.len() == MAX_ANNOUNCEMENTS {
            self.heard.pop_front();
        }
        self.heard.push_back(Heard { device, from, at: now });
        if known.is_some() {
            return None;
        }
        // Who has just appeared does not know us yet, and need not wait for our next turn.
        if let Some(schedule) = self.interfaces.get_mut(&v6.scope_id()) {
            let soonest = schedule.last.map_or(now, |last| (last + ANNOUNCEMENT_REACTION).max(now));
            schedule.next = schedule.next.min(soonest);
        }
        ctx.event(Event::Announced { peer: device, from });
        Some(device)
    }

    /// Where this device announced itself: the latest two on each interface.
    pub(super) fn candidates(&self, device: DeviceId, now: Instant) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for heard in self.heard.iter().rev().filter(|h| h.device == device && h.at + ANNOUNCEMENT_LIFE > now)
        {
            let on_interface = found.iter().filter(|a| scope(**a) == scope(heard.from)).count();
            if on_interface < MAX_LINK_PER_INTERFACE {
                found.push(heard.from);
            }
        }
        found
    }

    pub(super) fn tick(&mut self, ctx: &mut Context, now: Instant) {
        for (&interface, schedule) in self.interfaces.iter_mut().filter(|(_, s)| s.next <= now) {
            schedule.last = Some(now);
            schedule.next = now + ctx.jittered(ANNOUNCE);
            ctx.push(Output::Announce { interface, payload: Bytes::copy_from_slice(ctx.id.as_bytes()) });
        }
    }

    pub(super) fn heard_count(&self) -> usize {
        self.heard.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.interfaces.values().map(|s| s.next).min()
    }
}

fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}
