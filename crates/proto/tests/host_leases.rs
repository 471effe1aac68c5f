//! Leases: a shell that uses a path by itself and reports later has the same host as one that asks about every message.

mod host_world;

use std::time::Instant;

use bowline_proto::host::{Event, Hop, HostConfig, Lease, Path, Route, SendError, Traffic};
use host_world::{World, addr, key, ms, secs};

const PEER: &str = "192.0.2.1:4000";
const OWN: &str = "198.51.100.1";
const OTHER: &str = "203.0.113.1";

/// A shell that uses leases.
struct Shell {
    world: World,
    lease: Option<Lease>,
    notes: Option<Traffic>,
    /// Calls into the machine that its user's messages cost.
    asked: usize,
}

impl Shell {
    fn new(world: World) -> Self {
        Self { world, lease: None, notes: None, asked: 0 }
    }

    fn peer() -> bowline_proto::DeviceId {
        key(2).device_id()
    }

    /// Any call into the machine: a report before it, a look at the lease after it.
    fn call<R>(&mut self, call: impl FnOnce(&mut World) -> R) -> R {
        self.report();
        let result = call(&mut self.world);
        self.look();
        result
    }

    fn report(&mut self) {
        if let Some(traffic) = self.notes.take() {
            self.world.host.handle_traffic(Self::peer(), &traffic);
            // As after every call, the driver sets its timer.
            self.world.drain();
        }
    }

    fn look(&mut self) {
        while let Some(peer) = self.world.host.poll_revoked() {
            assert_eq!(peer, Self::peer());
            self.lease = self.world.host.lease(peer);
        }
    }

    fn note(&mut self, lease: &Lease, now: Instant) -> &mut Traffic {
        let fresh =
            Traffic { hop: lease.hop, sent: 0, received: 0, last: now, heard: None, unanswered: None };
        let notes = self.notes.get_or_insert(fresh);
        notes.last = now;
        notes
    }

    fn send(&mut self, length: usize) -> Result<Route, SendError> {
        let now = self.world.now;
        if let Some(lease) = self.lease.filter(|lease| lease.wanted && length <= lease.limit) {
            let notes = self.note(&lease, now);
            notes.sent += 1;
            notes.unanswered.get_or_insert(now);
            if !lease.watched {
                self.asked += 1;
                self.call(|world| world.advance(ms(0)));
            }
            return Ok(Route::Direct(lease.hop));
        }
        self.asked += 1;
        let route = self.call(|world| world.send(2, length));
        if let Ok(Route::Direct(_)) = route {
            self.lease = self.world.host.lease(Self::peer());
        }
        route
    }

    fn data(&mut self) {
        self.data_at(OWN);
    }

    fn data_at(&mut self, own: &str) {
        let now = self.world.now;
        let came_by = Hop { source: Some(own.parse().unwrap()), ..Hop::anywhere(addr(PEER)) };
        match self.lease.filter(|l| l.hop.to == addr(PEER) && l.source_until.is_some_and(|until| until > now))
        {
            Some(lease) => {
                let notes = self.note(&lease, now);
                notes.received += 1;
                if lease.hop.leads_back(&came_by) {
                    notes.heard = Some(now);
                    notes.unanswered = None;
                }
            }
            None => {
                self.asked += 1;
                self.call(|world| world.datagram_at(own, addr(PEER), b"data"));
            }
        }
    }
}

/// The same pseudo-random choices for both.
struct Choices(u64);

impl Choices {
    fn one_in(&mut self, n: u64) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33).is_multiple_of(n)
    }
}

fn changes(world: &World) -> Vec<Event> {
    world.events.iter().filter(|event| matches!(event, Event::PathChanged { .. })).cloned().collect()
}

#[test]
fn what_is_reported_later_is_as_if_the_machine_had_been_asked_each_time() {
    let mut by_lease = 0;
    for seed in 0..6 {
        let given = || vec![(key(2).device_id(), addr(PEER))];
        let world = || {
            let mut world = World::registered(HostConfig { given: given(), ..HostConfig::default() });
            world.is_at(&[OWN, OTHER]);
            world
        };
        let (mut asking, mut leasing) = (world(), Shell::new(world()));
        let mut choices = Choices(seed);
        let (mut sends, mut hears, mut answers, mut elsewhere) = (true, true, true, false);
        let mut messages = 0;
        for step in 0..20_000 {
            for flag in [&mut sends, &mut hears, &mut answers, &mut elsewhere] {
                *flag ^= choices.one_in(1_500);
            }
            if sends && choices.one_in(7) {
                messages += 1;
                let kind = |route: Result<Route, SendError>| {
                    route.map(|route| (std::mem::discriminant(&route), matches!(route, Route::Direct(_))))
                };
                assert_eq!(kind(asking.send(2, 10)), kind(leasing.send(10)), "seed {seed}, {step} ms");
            }
            if hears && choices.one_in(7) {
                messages += 1;
                let own = if elsewhere { OTHER } else { OWN };
                asking.datagram_at(own, addr(PEER), b"data");
                leasing.data_at(own);
            }
            if answers && asking.hellos.last().is_some_and(|hello| asking.now - hello.at < ms(4)) {
                asking.answer(2, addr(PEER));
                leasing.call(|world| world.answer(2, addr(PEER)));
            }
            asking.advance(ms(1));
            leasing.call(|world| world.advance(ms(1)));
            let hellos = |world: &World| {
                let since = |at: Instant| (at - world.start).as_micros();
                world.hellos.iter().rev().take(3).map(|h| (since(h.at), h.to, h.length)).collect::<Vec<_>>()
            };
            assert_eq!(hellos(&asking), hellos(&leasing.world), "seed {seed}, {step} ms");
            assert_eq!(asking.hellos.len(), leasing.world.hellos.len(), "seed {seed}, {step} ms");
        }
        leasing.report();
        assert_eq!(changes(&asking), changes(&leasing.world), "seed {seed}");
        let counters = |world: &World| world.host.status(world.now).counters;
        assert_eq!(counters(&asking), counters(&leasing.world), "seed {seed}");
        by_lease += messages - leasing.asked;
    }
    // Half of the time these paths are dead or in doubt.
    assert!(by_lease > 3_000, "{by_lease} messages did not ask the machine");
}

#[test]
fn a_peer_in_use_by_its_lease_alone_does_not_fall_idle() {
    let mut world = World::with_given(&[PEER]);
    let _ = world.send(2, 10);
    world.advance(ms(20));
    world.answer(2, addr(PEER));
    let mut shell = Shell::new(world);
    assert!(matches!(shell.send(10), Ok(Route::Direct(_))));
    for _ in 0..300 {
        let _ = shell.send(10);
        shell.call(|world| world.advance(secs(1)));
        if shell.world.hellos.last().is_some_and(|hello| hello.at + secs(1) >= shell.world.now) {
            shell.call(|world| world.answer(2, addr(PEER)));
        }
        shell.data();
    }
    shell.report();
    let status = shell.world.host.peer_status(Shell::peer(), shell.world.now).unwrap();
    assert_eq!(status.path, Path::Direct(addr(PEER)));
    assert_eq!(shell.world.host.status(shell.world.now).counters.data_sent_direct, 301);
    // Then it does, two minutes after the last message.
    shell.call(|world| world.advance(secs(121)));
    assert_eq!(shell.lease, None);
}

#[test]
fn a_lease_ends_with_the_host_and_with_direct_paths() {
    let stand = || {
        let mut world = World::with_given(&[PEER]);
        let _ = world.send(2, 10);
        world.advance(ms(20));
        world.answer(2, addr(PEER));
        assert!(world.host.lease(key(2).device_id()).is_some());
        while world.host.poll_revoked().is_some() {}
        assert!(world.host.lease(key(2).device_id()).is_some());
        world
    };
    let mut world = stand();
    world.host.set_direct(false, world.now);
    assert_eq!(world.host.poll_revoked(), Some(key(2).device_id()));
    assert_eq!(world.host.lease(key(2).device_id()), None);
    let mut world = stand();
    world.host.close(world.now);
    assert_eq!(world.host.poll_revoked(), Some(key(2).device_id()));
    assert_eq!(world.host.lease(key(2).device_id()), None);
}
