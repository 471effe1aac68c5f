//! Issue rows 3 to 5, from the host's side: which base it takes, when it comes back, and what of its word it believes.

mod host_world;

use std::time::Duration;

use bowline_proto::{
    host::{CloseReason, Event, HostConfig, Interface, Network, Route, config},
    wire::{
        tcp::{BaseFrame, BaseHello, Error, ErrorCode},
        udp::{NAT_INIT, NAT_OK_LEN, NatOk, PADDED_LEN},
    },
};
use host_world::{BASE, COOKIE, Told, World, addr, key, ms, secs};

const UDP: &str = "203.0.113.9:4477";
const OTHER: &str = "203.0.113.9:4478";

fn refusal(code: ErrorCode, retry_after: u16) -> BaseFrame<'static> {
    BaseFrame::Error(Error { code, retry_after, text: String::new() })
}

#[test]
fn a_base_that_names_another_id_than_the_one_written_is_left() {
    for (written, taken) in [(BASE, true), (key(9).device_id(), false)] {
        let mut world = World::greeted(HostConfig::default(), &format!("{written}@203.0.113.9"));
        assert_eq!(world.closed.is_empty(), taken);
        world.welcomed(vec![]);
        assert_eq!(world.host.is_registered(), taken);
    }
}

#[test]
fn what_a_base_has_said_is_told_and_not_that_it_is_not_at_another_port_as_well() {
    let bases = ["base.example", "other.example"].map(|name| name.parse().unwrap()).to_vec();
    let mut world = World::new(HostConfig { bases, link_local: false, ..HostConfig::default() });
    world.resolved(1, Ok(vec![addr("203.0.113.77:4477")]));
    let other = world.conn.expect("it connects");
    world.greet();
    world.hand_over(&refusal(ErrorCode::NotAllowed, 0));
    world.host.handle_closed(other, CloseReason::Refused("refused".to_owned()), world.now);
    world.advance(secs(1));
    let tried = |to: &str| world.connects.iter().filter(|(_, at)| *at == addr(to)).count();
    assert_eq!((tried("203.0.113.9:4477"), tried("203.0.113.9:443")), (1, 0), "it has answered");
    assert_eq!(tried("203.0.113.77:443"), 1, "the other one has not");
    let why = world.host.status(world.now).why_no_base.unwrap();
    assert!(why.contains("base.example") && why.contains(&ErrorCode::NotAllowed.to_string()), "{why}");
}

#[test]
fn after_races_that_nobody_won_the_next_begin_ever_later_and_after_a_minute_at_most() {
    let bases = vec!["base.example".parse().unwrap()];
    let mut world = World::new(HostConfig { bases, link_local: false, ..HostConfig::default() });
    let mut waits = Vec::new();
    for _ in 0..12 {
        let lost = world.now;
        let before = world.lookups.len();
        world.resolved(0, Err("no such name".to_owned()));
        assert_eq!(world.lookups.len(), before, "nothing in the same instant");
        world.advance(config::RACE_BACKOFF.1);
        assert_eq!(world.lookups.len(), before + 1, "one within a minute");
        waits.push(world.lookups[before].0 - lost);
    }
    assert!(waits[0] <= config::RACE_BACKOFF.0, "{waits:?}");
    let (early, late): (Duration, Duration) = (waits[..4].iter().sum(), waits[8..].iter().sum());
    assert!(late > early * 3, "{waits:?}");
}

#[test]
fn a_base_that_names_a_time_to_come_back_is_left_alone_until_then() {
    let mut world = World::greeted(HostConfig::default(), "203.0.113.9");
    world.hand_over(&refusal(ErrorCode::SourceLimit, 30));
    assert_eq!(world.lookups.len(), 1);
    world.advance(secs(30) - ms(1));
    assert_eq!(world.lookups.len(), 1);
    world.advance(secs(31));
    assert_eq!(world.lookups.len(), 2);
}

#[test]
fn hosts_that_are_refused_at_once_come_back_one_after_the_other() {
    for wait in [1, 10] {
        let back = |seed| {
            let bases = vec!["203.0.113.9".parse().unwrap()];
            let mut world =
                World::seeded(HostConfig { bases, link_local: false, ..HostConfig::default() }, seed);
            world.greet();
            let refused = world.now;
            world.hand_over(&refusal(ErrorCode::Busy, wait));
            world.advance(secs(60));
            world.lookups[1].0 - refused
        };
        let (wait, mut slots) = (secs(wait.into()), [0; 10]);
        for after in (0..100).map(back) {
            assert!(after >= wait && after < wait * 2, "{after:?} after {wait:?}");
            slots[((after - wait).as_nanos() * 10 / wait.as_nanos()) as usize] += 1;
        }
        // Ten in each tenth of the time would be even.
        assert!(slots.iter().all(|slot| (1..=25).contains(slot)), "{slots:?}");
    }
}

#[test]
fn a_host_that_was_replaced_stays_away_for_a_minute_whatever_the_network_does() {
    let mut world = World::registered(HostConfig::default());
    world.hand_over(&refusal(ErrorCode::Replaced, 0));
    world.advance(secs(30));
    world.resume();
    world.advance(secs(30) - ms(1));
    assert_eq!(world.lookups.len(), 1);
    world.advance(ms(1));
    assert_eq!(world.lookups.len(), 2);
}

#[test]
fn a_session_that_died_young_is_followed_by_a_wait_and_an_old_one_by_a_race_at_once() {
    for (age, at_once) in [(secs(1), false), (config::STABLE_SESSION, true)] {
        let mut world = World::registered(HostConfig::default());
        world.advance(age);
        world.reset();
        assert_eq!(world.lookups.len() == 2, at_once);
    }
}

#[test]
fn whom_a_host_wants_is_told_to_each_base_anew() {
    let mut world = World::registered(HostConfig::default());
    let _ = world.send(2, 10);
    world.reset();
    world.advance(config::RACE_BACKOFF.0);
    world.greet();
    world.welcomed(vec![]);
    assert_eq!(world.told, [Told::Request(key(2).device_id()); 2]);
}

#[test]
fn error_8_that_overtakes_the_answer_to_our_own_register_is_no_replacement() {
    let mut world = World::registered(HostConfig::default());
    let first = world.conn.unwrap();
    world.resume();
    world.greet();
    assert!(!world.hand_over_on(first, &refusal(ErrorCode::Replaced, 0)));
    world.welcomed(vec![]);
    assert!(world.host.is_registered());
    assert!(!world.events.iter().any(|event| matches!(event, Event::Replaced)));
}

#[test]
fn what_still_comes_on_the_connection_before_is_taken_until_35_seconds_later() {
    let mut world = World::registered(HostConfig::default());
    let first = world.conn.unwrap();
    world.resume();
    world.greet();
    world.welcomed(vec![]);
    let message = BaseFrame::RecvData(key(2).device_id(), b"late");
    assert!(world.hand_over_on(first, &message));
    world.advance(config::OLD_SESSION);
    assert!(!world.hand_over_on(first, &message));
}

#[test]
fn a_lost_connection_leaves_udp_as_it_was_and_an_error_does_not() {
    for refused in [false, true] {
        let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
        let seen = addr("198.51.100.1:4000");
        let ok = NatOk { cookie: COOKIE, seq: 1, challenge: [3; 8], confirmed: true, seen };
        world.datagram(addr(UDP), &ok.encode(NAT_OK_LEN));
        assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
        if refused {
            world.hand_over(&refusal(ErrorCode::Malformed, 0));
        } else {
            world.reset();
        }
        assert_eq!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))), !refused);
    }
}

#[test]
fn a_base_that_says_goaway_is_left_for_another_within_its_seconds() {
    let bases = ["203.0.113.9", "203.0.113.10"].map(|base| base.parse().unwrap()).to_vec();
    let mut world = World::new(HostConfig { bases, link_local: false, ..HostConfig::default() });
    world.greet();
    world.welcomed(vec![]);
    world.advance(config::STABLE_SESSION);
    world.lookups.clear();
    world.hand_over(&BaseFrame::GoAway(5));
    world.advance(secs(5) + ms(500));
    let asked: Vec<usize> = world.lookups.iter().map(|lookup| lookup.1).collect();
    assert_eq!(asked, [1]);
}

#[test]
fn hosts_that_are_told_goaway_leave_at_moments_spread_over_the_time_they_have() {
    let mut left = [0; 10];
    for seed in 0..100 {
        let bases = ["203.0.113.9", "203.0.113.10"].map(|base| base.parse().unwrap()).to_vec();
        let config = HostConfig { bases, link_local: false, ..HostConfig::default() };
        let mut world = World::seeded(config, seed);
        world.greet();
        world.welcomed(vec![]);
        world.advance(config::STABLE_SESSION);
        world.lookups.clear();
        world.hand_over(&BaseFrame::GoAway(10));
        let second = (0..10).find(|_| {
            world.advance(secs(1));
            !world.lookups.is_empty()
        });
        left[second.expect("it leaves in time")] += 1;
    }
    // Ten each on average: none of the seconds has nobody, none a crowd.
    assert!(left.iter().all(|&hosts| (1..=25).contains(&hosts)), "{left:?}");
}

#[test]
fn udp_addresses_elsewhere_are_believed_only_of_a_base_whose_id_was_written() {
    let elsewhere = addr("192.0.2.66:4477");
    for (written, believed) in [(format!("{BASE}@203.0.113.9"), true), ("203.0.113.9".to_owned(), false)] {
        let mut world = World::greeted(HostConfig::default(), &written);
        world.welcomed(vec![elsewhere, addr(UDP)]);
        let went = |to| world.datagrams.iter().any(|(at, bytes)| *at == to && bytes[0] == NAT_INIT);
        assert_eq!((went(elsewhere), went(addr(UDP))), (believed, true));
    }
}

#[test]
fn a_nat_ok_counts_under_the_cookie_of_the_session_and_for_a_nat_init_that_was_sent() {
    for (cookie, seq, counts) in [(COOKIE, 1, true), ([2; 8], 1, false), (COOKIE, 77, false)] {
        let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
        let seen = addr("198.51.100.1:4000");
        let ok = NatOk { cookie, seq, challenge: [3; 8], confirmed: false, seen };
        world.datagram(addr(UDP), &ok.encode(NAT_OK_LEN));
        assert_eq!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))), counts, "{cookie:?} {seq}");
        assert_eq!(world.host.status(world.now).counters.base_stray, u64::from(!counts));
    }
}

#[test]
fn large_messages_go_over_udp_once_a_padded_nat_ok_has_come() {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
    let seen = addr("198.51.100.1:4000");
    let ok = NatOk { cookie: COOKIE, seq: 1, challenge: [3; 8], confirmed: true, seen };
    for (length, large) in [(NAT_OK_LEN, false), (PADDED_LEN, true)] {
        world.datagram(addr(UDP), &ok.encode(length));
        assert!(matches!(world.send(2, config::SMALL_DATA), Ok(Route::RelayUdp(_))));
        assert_eq!(matches!(world.send(2, 1_200), Ok(Route::RelayUdp(_))), large);
        assert!(matches!(world.send(2, 1_201), Ok(Route::RelayTcp(_))));
    }
}

#[test]
fn udp_that_brings_nothing_after_data_is_left_for_tcp_and_taken_again_when_it_does() {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
    let seen = addr("198.51.100.1:4000");
    let ok = NatOk { cookie: COOKIE, seq: 1, challenge: [3; 8], confirmed: true, seen };
    world.datagram(addr(UDP), &ok.encode(PADDED_LEN));
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    world.advance(config::UDP_SILENT - ms(1));
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
    world.advance(ms(1));
    assert!(matches!(world.send(2, 10), Ok(Route::RelayTcp(_))));
    world.datagram(addr(UDP), &ok.encode(PADDED_LEN));
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(_))));
}

#[test]
fn a_lost_nat_confirm_is_sent_again_twice_before_the_handshake_starts_over() {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
    let ok = NatOk {
        cookie: COOKIE,
        seq: 1,
        challenge: [3; 8],
        confirmed: false,
        seen: addr("198.51.100.1:4000"),
    };
    world.datagrams.clear();
    world.datagram(addr(UDP), &ok.encode(NAT_OK_LEN));
    world.advance(config::NAT_CONFIRM_GAPS[0] + config::NAT_CONFIRM_GAPS[1]);
    let confirms =
        world.datagrams.iter().filter(|(_, bytes)| bytes[0] == bowline_proto::wire::udp::NAT_CONFIRM);
    assert_eq!(confirms.count(), 3);
}

#[test]
fn where_udp_does_not_come_through_one_short_nat_init_a_keepalive_asks_whether_it_does_now() {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
    let ladder: Duration = config::NAT_INIT_GAPS.iter().sum();
    world.advance(ladder);
    assert_eq!(seqs(&world, UDP).len(), 1 + config::NAT_INIT_GAPS.len());
    world.datagrams.clear();
    world.advance(10 * config::KEEPALIVE.1);
    let lengths: Vec<usize> = world.datagrams.iter().map(|(_, bytes)| bytes.len()).collect();
    assert!((10..=12).contains(&lengths.len()), "{lengths:?}");
    assert!(lengths.iter().all(|&length| length < 200), "{lengths:?}");

    // It does: the size is proven within the second, not a keepalive later.
    let seq = *seqs(&world, UDP).last().unwrap();
    world.datagrams.clear();
    world.datagram(addr(UDP), &nat_ok(seq, true).encode(NAT_OK_LEN));
    world.advance(secs(1));
    assert!(world.datagrams.iter().any(|(_, bytes)| bytes[0] == NAT_INIT && bytes.len() == PADDED_LEN));
}

#[test]
fn when_the_address_in_use_falls_silent_the_base_s_other_one_takes_over() {
    let mut world = answered_at_both();
    world.advance(secs(5));
    let udp_to = |world: &mut World| match world.send(2, 10) {
        Ok(Route::RelayUdp(hop)) => Some(hop.to),
        _ => None,
    };
    assert_eq!(udp_to(&mut world), Some(addr(UDP)));
    world.datagrams.clear();
    world.advance(config::UDP_QUIET);
    assert_eq!((seqs(&world, UDP).len(), seqs(&world, OTHER).len()), (1, 0), "only what is used is asked");
    world.advance(config::UDP_QUIET_INFO - config::UDP_QUIET);
    let seq = *seqs(&world, OTHER).last().expect("the other is asked when that one does not answer");
    world.datagram(addr(OTHER), &nat_ok(seq, false).encode(NAT_OK_LEN));
    assert_eq!(udp_to(&mut world), Some(addr(OTHER)));
    let confirms = |(to, bytes): &(_, bytes::Bytes)| {
        *to == addr(OTHER) && bytes[0] == bowline_proto::wire::udp::NAT_CONFIRM
    };
    assert!(world.datagrams.iter().any(confirms), "and it is confirmed");
}

#[test]
fn of_addresses_of_the_base_that_see_us_at_the_same_place_one_is_kept_alive() {
    const ELSEWHERE: &str = "198.51.100.1:4001";
    // What each sees us as, and the NAT-INITs to each in ten minutes.
    let a_keepalive_each = |n: usize| (24..=28).contains(&n);
    for (at, rests) in [("198.51.100.1:4000", true), (ELSEWHERE, false)] {
        let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP), addr(OTHER)]);
        let mut answered = std::collections::BTreeSet::new();
        let mut answer = |world: &mut World, address, seen: &str| {
            for seq in seqs(world, address).into_iter().filter(|&seq| answered.insert(seq)) {
                let ok = NatOk { seen: addr(seen), ..nat_ok(seq, true) }.encode(PADDED_LEN);
                // The answer to its NAT-INIT, and the one to NAT-CONFIRM.
                world.datagram(addr(address), &ok);
                world.datagram(addr(address), &ok);
            }
        };
        let mut live = |world: &mut World, time: Duration, first: &str| {
            let end = world.now + time;
            while world.now < end {
                answer(world, UDP, first);
                answer(world, OTHER, at);
                world.advance(ms(100));
            }
        };
        live(&mut world, secs(1), "198.51.100.1:4000");
        world.datagrams.clear();
        live(&mut world, secs(600), "198.51.100.1:4000");
        let (first, other) = (seqs(&world, UDP).len(), seqs(&world, OTHER).len());
        assert!(a_keepalive_each(first), "{first}");
        assert!(if rests { other <= 1 } else { a_keepalive_each(other) }, "{other}");

        // Seen elsewhere at the first, what is seen at the other is asked at once, and again at each keepalive.
        world.datagrams.clear();
        live(&mut world, secs(60), "198.51.100.1:4002");
        assert!((2..=4).contains(&seqs(&world, OTHER).len()), "{rests}: {}", seqs(&world, OTHER).len());
    }
}

#[test]
fn an_address_of_the_base_that_rests_is_asked_when_the_one_in_use_fails() {
    let mut world = answered_at_both();
    world.datagrams.clear();
    let ladder: Duration = config::NAT_INIT_GAPS.iter().sum();
    world.advance(config::KEEPALIVE.1 + ladder);
    assert_eq!(seqs(&world, UDP).len(), 1 + config::NAT_INIT_GAPS.len(), "none is answered");
    let asked = seqs(&world, OTHER);
    assert!(!asked.is_empty());
    world.datagram(addr(OTHER), &nat_ok(asked[0], false).encode(NAT_OK_LEN));
    assert!(matches!(world.send(2, 10), Ok(Route::RelayUdp(hop)) if hop.to == addr(OTHER)));
}

#[test]
fn a_network_that_comes_up_step_by_step_is_acted_on_at_each_step() {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
    world.advance(secs(20));
    let steps: [(&[&str], bool, usize); 5] = [
        (&[], false, 1),
        (&["198.51.100.7"], false, 1),
        // What was sent before there was a way out has gone nowhere.
        (&["198.51.100.7"], true, 1),
        // Of another address the base is told; what is known already is nothing new.
        (&["198.51.100.7", "192.0.2.7"], true, 1),
        (&["198.51.100.7", "192.0.2.7"], true, 0),
    ];
    for (addresses, default_v4, expected) in steps {
        let eth = Interface {
            index: 1,
            name: "eth0".to_owned(),
            loopback: false,
            multicast: false,
            default_v4,
            default_v6: false,
            preferred: false,
            addresses: addresses.iter().map(|ip| (ip.parse().unwrap(), 24)).collect(),
            routes: vec![],
        };
        world.datagrams.clear();
        let network = Network { interfaces: vec![eth], port_v4: Some(4000), port_v6: None };
        world.host.handle_network(network, world.now);
        world.drain();
        assert_eq!(seqs(&world, UDP).len(), expected, "{addresses:?}, default route: {default_v4}");
    }
}

#[test]
fn a_way_out_that_the_system_no_longer_prefers_is_one_that_was_left() {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP)]);
    let network = |preferred: u32| {
        let interfaces = [1, 2].map(|index| Interface {
            index,
            name: format!("eth{index}"),
            loopback: false,
            multicast: false,
            default_v4: true,
            default_v6: false,
            preferred: index == preferred,
            addresses: vec![([10, 0, index as u8, 2].into(), 24)],
            routes: vec![],
        });
        Network { interfaces: interfaces.to_vec(), port_v4: Some(4000), port_v6: None }
    };
    for (preferred, acted) in [(1, true), (1, false), (2, true), (2, false), (1, true)] {
        world.advance(secs(8));
        world.datagrams.clear();
        let races = world.lookups.len();
        world.host.handle_network(network(preferred), world.now);
        world.drain();
        assert_eq!(seqs(&world, UDP).len(), usize::from(acted), "NAT-INIT at once");
        assert_eq!(
            world.lookups.len() - races,
            usize::from(acted),
            "and a race: the old connection is of the old way"
        );
        world.resolved(0, Ok(vec![addr("203.0.113.9:4477")]));
    }
}

/// Registered at a base with two UDP addresses, both of which have answered; the first is in use.
fn answered_at_both() -> World {
    let mut world = World::registered_with_udp(HostConfig::default(), vec![addr(UDP), addr(OTHER)]);
    // Of the first there are two: the answer to its NAT-INIT and the one to NAT-CONFIRM.
    for address in [UDP, UDP, OTHER] {
        let seq = seqs(&world, address)[0];
        world.datagram(addr(address), &nat_ok(seq, true).encode(PADDED_LEN));
    }
    world
}

/// The numbers of the NAT-INITs that went there.
fn seqs(world: &World, to: &str) -> Vec<u64> {
    let inits = world.datagrams.iter().filter(|(at, bytes)| *at == addr(to) && bytes[0] == NAT_INIT);
    inits.map(|(_, bytes)| u64::from_be_bytes(*bytes[9..].first_chunk().unwrap())).collect()
}

fn nat_ok(seq: u64, confirmed: bool) -> NatOk {
    NatOk { cookie: COOKIE, seq, challenge: [3; 8], confirmed, seen: addr("198.51.100.1:4000") }
}

#[test]
fn a_base_that_is_far_away_is_waited_for_where_no_other_has_answered() {
    let far = config::REGISTER_TIMEOUT + secs(1);
    let mut world = World::greeted(HostConfig::default(), "203.0.113.9");
    world.advance(far);
    world.stops_answering();
    world.welcomed(vec![]);
    assert!(world.host.is_registered());
    // What it sent took as long: silence for less than that says nothing.
    assert!(matches!(world.send(2, 10), Ok(Route::RelayTcp(_))));
    let lookups = world.lookups.len();
    world.advance(config::PONG_TIMEOUT + secs(1));
    assert_eq!(world.lookups.len(), lookups, "no race for another one");
    world.advance(secs(30));
    assert!(world.lookups.len() > lookups);
}

#[test]
fn a_base_that_does_not_answer_register_is_given_up_as_soon_as_another_has_answered() {
    let bases = ["203.0.113.9", "203.0.113.10"].map(|base| base.parse().unwrap()).to_vec();
    let mut world = World::new(HostConfig { bases, link_local: false, ..HostConfig::default() });
    world.greet();
    let first = world.conn.unwrap();
    world.advance(config::REGISTER_TIMEOUT + secs(1));
    assert!(!world.closed.contains(&first), "there is no other yet");
    world.resolved(1, Ok(vec![addr("203.0.113.10:4477")]));
    let second = world.conn.unwrap();
    world.host.handle_connected(second, world.now);
    let hello = BaseHello { version: 1, cookie: COOKIE, base: BASE, cluster: BASE, capabilities: 0 };
    world.hand_over(&BaseFrame::BaseHello(hello));
    assert!(world.closed.contains(&first));
    world.welcomed(vec![]);
    assert!(world.host.is_registered());
}

#[test]
fn a_lone_base_that_does_not_answer_register_is_tried_anew() {
    let mut world = World::greeted(HostConfig::default(), "203.0.113.9");
    world.advance(config::CONNECT_TIMEOUT + config::RACE_BACKOFF.0);
    assert_eq!(world.lookups.len(), 2);
}

#[test]
fn nobody_keeps_a_host_away_from_its_base_for_long_or_from_another_network() {
    for code in [ErrorCode::SourceLimit, ErrorCode::NotAllowed] {
        let longest = u16::MAX;
        // Whoever is on the way may say so in the base's place.
        let mut world = World::greeted(HostConfig::default(), "203.0.113.9");
        world.hand_over(&refusal(code, longest));
        world.advance(config::RETRY_AFTER_MAX - ms(1));
        assert_eq!(world.lookups.len(), 1);
        world.advance(config::RACE_BACKOFF.1);
        assert_eq!(world.lookups.len(), 2);

        let mut world = World::greeted(HostConfig::default(), "203.0.113.9");
        world.hand_over(&refusal(code, longest));
        world.moves_to("198.51.100.2");
        assert_eq!(world.lookups.len(), 2);
    }
}

#[test]
fn a_base_whose_name_can_no_longer_be_resolved_is_tried_where_it_was() {
    let at = |world: &World, to: &str| world.connects.iter().filter(|(_, at)| *at == addr(to)).count();
    let mut world = World::registered(HostConfig::default());
    world.advance(config::STABLE_SESSION);
    world.reset();
    assert_eq!((world.lookups.len(), at(&world, UDP)), (2, 1));
    world.resolved(0, Err("no name server answers".to_owned()));
    assert_eq!(at(&world, UDP), 2);
    world.host.handle_connected(world.conn.unwrap(), world.now);
    let hello = BaseHello { version: 1, cookie: COOKIE, base: BASE, cluster: BASE, capabilities: 0 };
    world.hand_over(&BaseFrame::BaseHello(hello));
    world.welcomed(vec![]);
    assert!(world.host.is_registered());
}

#[test]
fn a_base_whose_name_takes_long_to_resolve_is_tried_where_it_was_and_then_where_it_is() {
    let at = |world: &World, to: &str| world.connects.iter().filter(|(_, at)| *at == addr(to)).count();
    let mut world = World::registered(HostConfig::default());
    world.advance(config::STABLE_SESSION);
    world.reset();
    world.advance(config::RESOLVE_PATIENCE - ms(1));
    assert_eq!(at(&world, UDP), 1);
    world.advance(ms(1));
    assert_eq!(at(&world, UDP), 2);
    // Nobody is there any more: the race is not lost while the answer may still come.
    for _ in 0..2 {
        let refused = CloseReason::Refused("refused".to_owned());
        world.host.handle_closed(world.conn.unwrap(), refused, world.now);
        world.drain();
    }
    world.advance(secs(5));
    assert_eq!(world.lookups.len(), 2);
    world.resolved(0, Ok(vec![addr(UDP), addr("203.0.113.10:4477")]));
    assert_eq!((at(&world, UDP), at(&world, "203.0.113.10:4477")), (2, 1), "where it is now comes next");
}

#[test]
fn a_key_in_two_places_keeps_a_host_away_for_longer_each_time_and_for_a_minute_again_after_an_hour_in_peace()
{
    let mut world = World::greeted(HostConfig::default(), "203.0.113.9");
    // How long it stays away when a base says so, in seconds.
    let mut away = || {
        world.hand_over(&refusal(ErrorCode::Cloned, 0));
        let lookups = world.lookups.len();
        let since = world.now;
        while world.lookups.len() == lookups {
            world.advance(secs(1));
        }
        world.greet();
        (world.now - since).as_secs()
    };
    assert_eq!([(); 8].map(|()| away()), [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    world.welcomed(vec![]);
    world.advance(config::CLONED_BACKOFF.1);
    world.hand_over(&refusal(ErrorCode::Cloned, 0));
    let lookups = world.lookups.len();
    world.advance(secs(59));
    assert_eq!(world.lookups.len(), lookups);
    world.advance(secs(1));
    assert_eq!(world.lookups.len(), lookups + 1);
}
