//! Path MTU: what a direct path carries is found by padded HELLOs, told, and found anew when it changes (protocol section 8).

mod host_world;

use std::{io, time::Duration};

use bowline_proto::{
    host::{Event, HostConfig, Path, Route, SendError, config},
    wire::{
        ANY_PATH_DATA, MAX_DATA,
        peer::{HELLO_LEN, HelloReply, PADDED_HELLO_LEN, PREFIX_LEN},
    },
};
use host_world::{World, addr, key, ms, secs};

const PEER: &str = "192.0.2.1:4000";
const PEER_V6: &str = "[2001:db8::1]:4000";
/// Bytes of IPv4 and UDP headers.
const HEADERS: usize = 28;

/// A host, and a peer that answers each HELLO that fits through the path.
struct Link {
    world: World,
    mtu: usize,
    seen: usize,
}

impl Link {
    fn new(mtu: usize) -> Self {
        let mut link = Self { world: World::with_given(&[PEER]), mtu, seen: 0 };
        let _ = link.world.send(2, 10);
        link.run(secs(1));
        assert!(matches!(link.world.send(2, 10), Ok(Route::Direct(_))));
        link
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.world.advance(ms(5));
            self.answer();
        }
    }

    /// As [`Self::run`], with data coming in all the time.
    fn run_hearing(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.run(ms(100));
            self.world.datagram(addr(PEER), b"data");
        }
    }

    fn answer(&mut self) {
        while let Some(hello) = self.world.hellos.get(self.seen).copied() {
            self.seen += 1;
            if hello.length + HEADERS <= self.mtu {
                let reply = HelloReply::encode(key(1).device_id(), hello.token, &key(2));
                self.world.datagram(addr(PEER), &reply);
            }
        }
    }

    fn limit(&self) -> usize {
        self.world.host.max_direct(key(2).device_id()).expect("a direct path")
    }

    fn told(&self) -> Vec<usize> {
        let size = |event: &Event| match event {
            Event::DirectSize { size, .. } => Some(*size),
            _ => None,
        };
        self.world.events.iter().filter_map(size).collect()
    }

    /// The most bytes of HELLOs that left within a minute.
    fn busiest_minute(&self) -> usize {
        let hellos = &self.world.hellos;
        let within = |from: usize| {
            hellos[from..].iter().take_while(|h| h.at < hellos[from].at + secs(60)).map(|h| h.length).sum()
        };
        (0..hellos.len()).map(within).max().unwrap_or_default()
    }

    fn too_large(&mut self) {
        let Ok(Route::Direct(hop)) = self.world.send(2, 10) else { panic!("no direct path") };
        let error = io::Error::from_raw_os_error(if cfg!(target_os = "linux") { 90 } else { 40 });
        self.world.host.handle_send_error(hop, &error, self.world.now);
        self.world.drain();
    }
}

/// The largest message that an IPv4 link of this MTU carries whatever it begins with.
fn data(mtu: usize) -> usize {
    mtu - HEADERS - PREFIX_LEN
}

#[test]
fn who_never_sends_large_messages_draws_no_probes_beyond_1200_bytes() {
    let mut link = Link::new(9_000);
    for _ in 0..120 {
        let _ = link.world.send(2, 500);
        link.run_hearing(secs(1));
    }
    assert!(link.world.hellos.iter().all(|hello| hello.length <= PADDED_HELLO_LEN));
    assert_eq!(link.limit(), ANY_PATH_DATA);
}

#[test]
fn what_the_path_carries_is_found_and_told_within_the_budget() {
    for (mtu, carries) in
        [(1_280, 1_280), (1_400, 1_400), (1_450, 1_440), (1_500, 1_500), (1_600, 1_500), (9_000, 9_000)]
    {
        let mut link = Link::new(mtu);
        let _ = link.world.send(2, 1_200);
        link.run(secs(30));
        assert_eq!(link.limit(), data(carries), "MTU {mtu}");
        assert_eq!(link.told().last(), Some(&data(carries)), "MTU {mtu}");
        assert_eq!(link.world.host.max_datagram(key(2).device_id()), data(carries));
        assert!(matches!(link.world.send(2, data(carries)), Ok(Route::Direct(_))));
        let refused = link.world.send(2, data(carries) + 1);
        assert_eq!(refused, Err(SendError::TooLarge { length: data(carries) + 1, limit: data(carries) }));
        link.run_hearing(secs(300));
        assert_eq!(link.limit(), data(carries), "MTU {mtu}: it stays");
        let busiest = link.busiest_minute();
        assert!(busiest <= config::PEER_BYTES.burst as usize, "MTU {mtu}: {busiest} bytes in a minute");
    }
}

#[test]
fn a_path_without_a_limit_carries_the_largest_message() {
    let mut link = Link::new(65_536);
    let _ = link.world.send(2, 1_200);
    link.run_hearing(secs(90));
    assert_eq!(link.limit(), MAX_DATA);
    assert!(matches!(link.world.send(2, MAX_DATA), Ok(Route::Direct(_))));
}

#[test]
fn over_ipv6_the_larger_header_is_allowed_for() {
    let mut world = World::with_given(&[PEER_V6]);
    world.host.handle_network(
        bowline_proto::host::Network {
            interfaces: vec![bowline_proto::host::Interface {
                index: 1,
                name: "eth0".to_owned(),
                loopback: false,
                multicast: false,
                default_v4: false,
                default_v6: true,
                preferred: false,
                addresses: vec![("2001:db8::2".parse().unwrap(), 64)],
                routes: vec![],
            }],
            port_v4: None,
            port_v6: Some(4000),
        },
        world.now,
    );
    let mut seen = 0;
    for step in 0..4_000 {
        let _ = world.send(2, if step > 100 { 1_200 } else { 10 });
        world.advance(ms(5));
        while let Some(hello) = world.hellos.get(seen).copied() {
            seen += 1;
            if hello.length + 48 <= 1_500 {
                world.datagram(addr(PEER_V6), &HelloReply::encode(key(1).device_id(), hello.token, &key(2)));
            }
        }
    }
    assert_eq!(world.host.max_direct(key(2).device_id()), Some(1_500 - 48 - PREFIX_LEN));
}

#[test]
fn a_path_that_becomes_narrower_falls_back_and_loses_no_small_message() {
    let mut link = Link::new(1_500);
    let _ = link.world.send(2, 1_200);
    link.run_hearing(secs(20));
    assert_eq!(link.limit(), data(1_500));
    let changes =
        |link: &Link| link.world.events.iter().filter(|e| matches!(e, Event::PathChanged { .. })).count();
    let before = changes(&link);
    // Data keeps coming in, so that nothing else gives it away: the next confirmation shows it.
    link.mtu = 1_280;
    let narrowed = link.world.now;
    while link.limit() == data(1_500) {
        link.run_hearing(ms(100));
        assert!(matches!(link.world.send(2, 10), Ok(Route::Direct(_))), "small messages stay");
        assert!(link.world.now < narrowed + config::SIZE_CONFIRM + secs(3), "it is noticed in time");
    }
    assert_eq!(link.limit(), ANY_PATH_DATA);
    link.run_hearing(secs(20));
    assert_eq!(link.limit(), data(1_280), "and what passes now is found");
    assert_eq!(changes(&link), before);
    // Ten minutes later it is looked for again.
    link.mtu = 1_500;
    for _ in 0..62 {
        let _ = link.world.send(2, 10);
        link.run_hearing(secs(10));
    }
    assert_eq!(link.limit(), data(1_500));
}

#[test]
fn a_large_message_that_nothing_follows_makes_its_size_doubtful_at_once() {
    let mut link = Link::new(1_500);
    let _ = link.world.send(2, 1_200);
    link.run_hearing(secs(20));
    link.mtu = 1_280;
    let narrowed = link.world.now;
    // Only what fits through is answered by the peer: nothing.
    let _ = link.world.send(2, data(1_500));
    while link.limit() == data(1_500) {
        link.run(ms(20));
        assert!(link.world.now < narrowed + secs(3), "silence, a small HELLO, three large ones");
    }
    let status = link.world.host.peer_status(key(2).device_id(), link.world.now).unwrap();
    assert_eq!(status.path, Path::Direct(addr(PEER)), "the path itself is not in doubt");
}

#[test]
fn a_size_that_the_system_refuses_is_given_up_at_once() {
    // A probe: the link here is no larger, and no time is lost by waiting for answers.
    let mut link = Link::new(1_500);
    let _ = link.world.send(2, 1_200);
    let began = link.world.now;
    while link.limit() < data(1_500) {
        link.run(ms(5));
    }
    let jumbo = |link: &Link| link.world.hellos.last().is_some_and(|hello| hello.length > 1_500);
    while !jumbo(&link) {
        link.run(ms(5));
    }
    link.too_large();
    link.run(secs(5));
    assert!(link.world.hellos.iter().filter(|hello| hello.length > 1_500).count() == 1);
    assert!(link.world.now < began + secs(10));
    assert_eq!(link.limit(), data(1_500));
    // A message that passed before: the link has become narrower.
    link.mtu = 1_400;
    link.too_large();
    assert_eq!(link.limit(), config::SMALL_DATA);
    link.run(secs(10));
    assert_eq!(link.limit(), data(1_400));
}

#[test]
fn with_a_base_what_is_too_large_for_the_path_takes_the_relay() {
    let given = vec![(key(2).device_id(), addr(PEER))];
    let world = World::registered(HostConfig { given, ..HostConfig::default() });
    let mut link = Link { world, mtu: 1_500, seen: 0 };
    let _ = link.world.send(2, 10);
    link.run(secs(1));
    assert!(matches!(link.world.send(2, 1_200), Ok(Route::Direct(_))));
    assert!(matches!(link.world.send(2, data(1_500)), Ok(Route::RelayTcp(_))), "not yet known to pass");
    link.run(secs(20));
    assert!(matches!(link.world.send(2, data(1_500)), Ok(Route::Direct(_))));
    assert!(matches!(link.world.send(2, data(1_500) + 1), Ok(Route::RelayTcp(_))));
    assert!(link.world.hellos.iter().all(|hello| hello.length >= HELLO_LEN));
}
