//! The other bases of the cluster: who lives, by the leases in the store, and whether data goes there over UDP.
//!
//! A lease that is not renewed ends within [`LEASE_LIFE`], and with it all that its base has stored; a minute later, if the base still answers
//! over UDP. While the bus is gone, or the
//! store takes no leases (its servers have no leader), nobody's silence there means anything: who answers over UDP lives, and data goes on;
//! what is known of the others holds for a while.
//!
//! UDP between bases is used as long as it answers: BASE-PING and BASE-PONG, as long as the largest message that goes there, each under a tag
//! that only who knows the receiver's key can make. What is not answered goes over the bus.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use rand::{Rng, RngExt};

use super::{Base, Link, Standing, socket_towards};
use crate::{
    base::{
        Output, Via,
        config::{
            BASE_PING_EVERY, BASE_PING_UNANSWERED, BASE_REPLY_RATE, BASE_UDP_FRESH, BUS_GRACE, LEASE_LIFE,
            LEASE_RENEW, MAX_MEMBERS, RIVAL_ANSWER,
        },
        routes::BaseLeg,
    },
    bucket::Bucket,
    id::DeviceId,
    wire::{
        addr,
        cluster::{BASE_PING, BASE_PONG, BaseKey, Incarnation, Lease, Probe},
    },
};

/// Another base.
#[derive(Debug)]
pub(in crate::base) struct Member {
    pub(super) incarnation: Incarnation,
    connection: u32,
    key: BaseKey,
    addresses: Vec<SocketAddr>,
    /// Its lease ends then, if nothing is heard.
    pub(super) until: Instant,
    /// What data over UDP goes by; shared with those who forward.
    leg: Option<Arc<BaseLeg>>,
    ping: Ping,
    /// Answers to what it need not have sent.
    pub(super) replies: Bucket,
}

/// The last BASE-PING, and the next one.
#[derive(Debug)]
struct Ping {
    nonce: [u8; 8],
    at: Instant,
}

impl Member {
    pub(super) fn hears_udp(&self, now: Instant) -> bool {
        self.leg.as_ref().is_some_and(|leg| leg.until() > now)
    }

    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }
}

impl Base {
    pub(super) fn handle_lease(&mut self, lease: Lease, now: Instant) {
        let own = self.id;
        let Some(cluster) = &mut self.cluster else { return };
        if lease.base == own {
            if lease.incarnation != cluster.incarnation {
                self.handle_rival(now);
            }
            return;
        }
        if matches!(cluster.standing, Standing::Yielded { .. }) {
            return;
        }
        let known = cluster.members.get_mut(&lease.base);
        match known {
            Some(member) if member.incarnation == lease.incarnation => {
                if lease.connection < member.connection {
                    return;
                }
                member.until = now + LEASE_LIFE;
                let again = lease.connection > member.connection;
                member.connection = lease.connection;
                if member.addresses != lease.addresses || member.key != lease.key {
                    self.set_addresses(&lease, now);
                }
                if again {
                    self.say_again(lease.base, now);
                }
            }
            Some(_) => {
                self.lose_member(lease.base, "it has started anew", now);
                self.add_member(&lease, now);
            }
            None => self.add_member(&lease, now),
        }
    }

    /// A lease under this base's ID that this process has not written.
    fn handle_rival(&mut self, now: Instant) {
        let patience = LEASE_LIFE + LEASE_LIFE.mul_f64(self.rng.random());
        let Some(cluster) = &mut self.cluster else { return };
        match &mut cluster.standing {
            Standing::Yielded { until, .. } => *until = now + patience,
            Standing::New { others: 0, .. } => {
                cluster.standing = Standing::New { since: now, others: 1 };
            }
            Standing::New { .. } => {
                tracing::error!(
                    base = %self.id,
                    "another process in the cluster has the key of this base, and was there before: this one stays out of the \
                     cluster while that one is there; give each base a key of its own"
                );
                cluster.standing = Standing::Yielded { until: now + patience, bus: cluster.is_up() };
                cluster.link = Link::Down { until: now };
                cluster.questions.clear();
                cluster.wants.clear();
            }
            Standing::Settled => {
                tracing::warn!(
                    base = %self.id,
                    "another process in the cluster has the key of this base: give each base a key of its own"
                );
                // The others are to know at once who is meant; two who are both sure do not outdo each other.
                if cluster.is_up() && now + LEASE_RENEW >= cluster.lease_at + RIVAL_ANSWER {
                    self.renew_lease(now);
                }
            }
        }
    }

    /// While another process has this base's place, the bus is only remembered; whether that is so.
    pub(super) fn note_bus_while_yielded(&mut self, there: bool) -> bool {
        match self.cluster.as_mut().map(|cluster| &mut cluster.standing) {
            Some(Standing::Yielded { bus, .. }) => {
                *bus = there;
                true
            }
            _ => false,
        }
    }

    /// Time passes for who has this base's place.
    pub(super) fn standing_due(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        match cluster.standing {
            Standing::New { since, .. } if cluster.is_up() && since + LEASE_LIFE <= now => {
                cluster.standing = Standing::Settled;
            }
            Standing::Yielded { until, bus: true } if now >= until => {
                cluster.standing = Standing::New { since: now, others: 0 };
                self.bus_up(now);
            }
            _ => {}
        }
    }

    fn add_member(&mut self, lease: &Lease, now: Instant) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.members.len() < MAX_MEMBERS)
        else {
            tracing::warn!(base = %lease.base, "not taken into the cluster: it has {MAX_MEMBERS} bases already");
            return;
        };
        let member = Member {
            incarnation: lease.incarnation,
            connection: lease.connection,
            key: lease.key,
            addresses: Vec::new(),
            until: now + LEASE_LIFE,
            leg: None,
            ping: Ping { nonce: [0; 8], at: now },
            replies: Bucket::default(),
        };
        cluster.members.insert(lease.base, member);
        cluster.incarnations.insert(lease.incarnation, lease.base);
        tracing::info!(base = %lease.base, "a base of the cluster is there");
        self.set_addresses(lease, now);
        self.say_again(lease.base, now);
    }

    fn set_addresses(&mut self, lease: &Lease, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        let others = cluster.members.iter().filter(|(id, _)| **id != lease.base);
        let held: Vec<SocketAddr> = others.flat_map(|(_, other)| other.addresses.iter().copied()).collect();
        let Some(member) = cluster.members.get_mut(&lease.base) else { return };
        for &address in &member.addresses {
            if !held.contains(&address) {
                self.routes.forget_base(address);
            }
        }
        member.addresses = lease.addresses.iter().map(|&address| addr::canonical(address)).collect();
        member.addresses.retain(|address| address.port() != 0 && !address.ip().is_unspecified());
        member.key = lease.key;
        member.leg = None;
        member.ping.at = now;
        for &address in &member.addresses {
            self.routes.know_base(address);
        }
        self.publish_member(lease.base);
        self.ping_members(now);
    }

    /// A base is no more: what it stored is void, and whoever knew of its devices hears so unless they come back.
    pub(super) fn lose_member(&mut self, base: DeviceId, why: &str, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(member) = cluster.members.remove(&base) else { return };
        cluster.incarnations.remove(&member.incarnation);
        cluster.wants.remove(&base);
        for address in member.addresses {
            // A base that came back with another key may be there by now.
            if !cluster.members.values().any(|other| other.is_at(address)) {
                self.routes.forget_base(address);
            }
        }
        tracing::warn!(%base, why, "a base of the cluster is gone");
        self.counters.bases_lost += 1;
        self.publish_member(base);
        self.unsettle(base, now);
    }

    /// The store has taken this base's lease, and so can take those of others.
    pub(super) fn lease_written(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.leases_rest.take().is_some() {
            tracing::info!("the cluster's store takes leases again");
            for member in cluster.members.values_mut() {
                member.until = member.until.max(now + LEASE_LIFE);
            }
        }
        // Who takes a lease may answer again, too.
        self.store_rested();
    }

    /// The store takes no leases: those of the others are not missing there because their bases are dead.
    pub(super) fn lease_failed(&mut self, now: Instant) {
        self.counters.store_failures += 1;
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.leases_rest.is_none() {
            tracing::warn!(
                "the cluster's store does not take this base's lease; other bases count as they did for a minute"
            );
            cluster.leases_rest = Some(now + BUS_GRACE);
        }
    }

    pub(super) fn members_due(&mut self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let over = |member: &Member| match (cluster.link, cluster.leases_rest) {
            // Whose lease is missing here cannot be known; who answers lives, however long that lasts.
            (Link::Down { .. }, _) | (Link::Up, Some(_)) if member.hears_udp(now) => false,
            (Link::Down { until }, _) => until <= now,
            (Link::Up, Some(rest)) => rest.max(member.until) <= now,
            // Who answers has lost the bus alone, or was shut out of it: it counts for a while.
            (Link::Up, None) if member.hears_udp(now) => member.until + BUS_GRACE <= now,
            (Link::Up, None) => member.until <= now,
        };
        let gone: Vec<DeviceId> =
            cluster.members.iter().filter(|(_, member)| over(member)).map(|(&id, _)| id).collect();
        for base in gone {
            self.lose_member(base, "its lease was not renewed", now);
        }
        self.ping_members(now);
    }

    fn ping_members(&mut self, now: Instant) {
        let own = self.id;
        let Some(cluster) = &mut self.cluster else { return };
        let mut pings = Vec::new();
        for member in cluster.members.values_mut().filter(|member| member.ping.at <= now) {
            self.rng.fill_bytes(&mut member.ping.nonce);
            let fresh = member.hears_udp(now);
            member.ping.at = now + if fresh { BASE_PING_EVERY } else { BASE_PING_UNANSWERED };
            let probe = Probe { kind: BASE_PING, base: own, nonce: member.ping.nonce };
            for &to in &member.addresses {
                if let Some(socket) = socket_towards(&cluster.udp, to) {
                    pings.push((Via { socket, ip: None }, to, probe.encode(&member.key)));
                }
            }
        }
        for (via, to, payload) in pings {
            self.outputs.push_back(Output::Transmit { via, to, payload });
        }
    }

    /// A BASE-PING or BASE-PONG came in.
    pub(in crate::base) fn handle_probe(
        &mut self,
        via: Via,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        let own = self.id;
        let member = self.cluster.as_mut().and_then(|cluster| {
            let probe = Probe::decode(datagram, &cluster.key)?;
            let member = cluster.members.get_mut(&probe.base).filter(|m| m.addresses.contains(&from))?;
            Some((probe, member))
        });
        let Some((probe, member)) = member else {
            self.counters.not_a_member += 1;
            return;
        };
        match probe.kind {
            BASE_PING => {
                if member.replies.take(BASE_REPLY_RATE, now) {
                    let pong = Probe { kind: BASE_PONG, base: own, nonce: probe.nonce };
                    let payload = pong.encode(&member.key);
                    self.outputs.push_back(Output::Transmit { via, to: from, payload });
                }
            }
            _ if probe.nonce != member.ping.nonce => {}
            _ => {
                let until = now + BASE_UDP_FRESH;
                match &member.leg {
                    Some(leg) if leg.is(from) => leg.prolong(until),
                    // The first address that answers; another one when that is silent.
                    Some(leg) if leg.until() > now => {}
                    _ => {
                        let via = Via { socket: via.socket, ip: None };
                        member.leg = Some(self.routes.base_leg(via, from, member.key, until));
                        tracing::info!(base = %probe.base, address = %from, "data goes there over UDP");
                        self.publish_member(probe.base);
                    }
                }
            }
        }
    }

    /// What data to this base's devices goes by over UDP.
    pub(super) fn leg_of(&self, base: DeviceId, incarnation: Incarnation) -> Option<Arc<BaseLeg>> {
        let member = self.cluster.as_ref()?.members.get(&base)?;
        member.leg.clone().filter(|_| member.incarnation == incarnation)
    }
}
