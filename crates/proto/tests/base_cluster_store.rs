//! One base of a cluster, with store, bus and the other bases as scripts: what it asks the store, how often, and where messages go
//! meanwhile.

mod base_world;

use std::{collections::BTreeSet, time::Duration};

use base_world::{
    Host, World, addr,
    cluster::{Other, blind, bus, change, finds, joined, joined_with, store},
    ms, secs,
};
use bowline_proto::{
    DeviceId,
    base::{BaseConfig, BusInput, Entry, Forward, Over, ToBase},
    wire::tcp,
};

/// One of many devices.
fn numbered(kind: u8, n: u16) -> DeviceId {
    let mut bytes = [kind; 14];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    DeviceId::from_bytes(bytes)
}

/// The base that a message goes to, if it is known which.
fn way_of(forward: Forward) -> Option<DeviceId> {
    match forward {
        Forward::Base(ToBase { over: Over::Bus(base), .. }) => Some(base),
        _ => None,
    }
}

/// A store that says no at once to whatever it is asked, for a while; when it was asked.
fn refuse(world: &mut World, time: Duration) -> Vec<Duration> {
    let start = world.now;
    let mut asked = Vec::new();
    while world.now < start + time {
        for round in 0.. {
            let questions = finds(world);
            if questions.is_empty() {
                break;
            }
            assert!(round < 5, "asked again and again in one moment");
            for device in questions {
                asked.push(world.now - start);
                bus(world, BusInput::Failed { device });
            }
        }
        world.advance(ms(10));
    }
    asked
}

#[test]
fn a_store_that_fails_is_asked_ever_more_rarely_and_all_that_waited_when_it_answers() {
    let mut world = joined(&[]);
    let mut hosts: Vec<Host> = (1..=50).map(Host::new).collect();
    for host in &mut hosts {
        world.register(host);
    }
    let keep = |world: &mut World, hosts: &mut [Host]| hosts.iter_mut().for_each(|host| world.info(host));
    let first = refuse(&mut world, secs(10));
    assert_eq!(first.iter().filter(|at| at.is_zero()).count(), 50, "each once, before anything is known");
    assert!((4..10).contains(&(first.len() - 50)), "{first:?}");
    let mut failures = first.len();
    for _ in 0..2 {
        keep(&mut world, &mut hosts);
        failures += refuse(&mut world, secs(40)).len();
    }
    keep(&mut world, &mut hosts);
    let later = refuse(&mut world, secs(40));
    assert!((1..=3).contains(&later.len()), "{later:?}");
    assert_eq!(world.base.counters().store_failures, (failures + later.len()) as u64);

    // It can be read again and not written yet, as a store is that has lost its majority: one is tried, no more.
    keep(&mut world, &mut hosts);
    world.advance(secs(30));
    let [tried] = finds(&mut world)[..] else { panic!("one question") };
    bus(&mut world, BusInput::Found { device: tried, entry: None });
    assert_eq!(finds(&mut world), []);
    bus(&mut world, BusInput::Failed { device: tried });
    assert_eq!(finds(&mut world), []);

    // It takes a lease: perhaps it answers again.
    bus(&mut world, BusInput::LeaseWritten);
    let [tried] = finds(&mut world)[..] else { panic!("one question") };
    bus(&mut world, BusInput::LeaseWritten);
    assert_eq!(finds(&mut world), [], "it is being asked");
    bus(&mut world, BusInput::Failed { device: tried });
    world.advance(secs(30));

    let mut stored = BTreeSet::new();
    for _ in 0..2 {
        for device in finds(&mut world) {
            bus(&mut world, BusInput::Found { device, entry: None });
            bus(&mut world, BusInput::Stored { device, revision: 1 });
            stored.insert(device);
        }
    }
    assert_eq!(stored, hosts.iter().map(|host| host.id).collect());
}

#[test]
fn bases_whose_store_fails_do_not_come_back_in_step() {
    let course = |past: u8| {
        let mut world = joined(&[]);
        // What it has drawn so far makes it another base.
        for n in 0..past {
            let conn = world.connect(addr("192.0.2.9:1"));
            world.cookie(conn);
            world.base.handle_closed(conn, world.now + ms(u64::from(n)));
        }
        world.register(&mut Host::new(1));
        refuse(&mut world, secs(50))
    };
    let (one, two) = (course(0), course(1));
    assert!(one.len() > 4 && one.iter().zip(&two).skip(1).all(|(a, b)| a != b), "{one:?} {two:?}");
}

#[test]
fn the_first_messages_to_a_device_whose_entry_is_on_its_way_go_to_all_bases_that_may_have_it() {
    let (old, new) = (Other::new(0x0b), Other::new(0x0c));
    let mut world = joined(&[&old, &new]);
    let mut sender = Host::new(1);
    world.join(&mut sender);
    store(&mut world, &sender, 1);
    let (late, nobody) = (Host::new(2), Host::new(3));

    // It has registered at its base, which has not written that yet.
    assert_eq!(blind(&mut world, &sender, late.id), 16);
    bus(&mut world, BusInput::Found { device: late.id, entry: None });
    assert_eq!(blind(&mut world, &sender, late.id), 0, "no more than that");
    change(&mut world, &late, 2, old.record(&late, 1));
    let way = world.data_tcp(&sender, late.id, 10);
    assert!(matches!(way, Forward::Base(ToBase { over: Over::Bus(base), .. }) if base == old.id), "{way:?}");

    // Its base goes; it may have registered at another one already.
    bus(&mut world, BusInput::LeaseEnded(old.id));
    assert_eq!(blind(&mut world, &sender, late.id), 16);

    // Of who is nowhere there is nothing to wait for.
    world.data_tcp(&sender, nobody.id, 10);
    bus(&mut world, BusInput::Found { device: nobody.id, entry: None });
    world.advance(ms(1_900));
    assert_eq!(blind(&mut world, &sender, nobody.id), 15);
    world.data_tcp(&sender, Host::new(4).id, 10);
    bus(&mut world, BusInput::Found { device: Host::new(4).id, entry: None });
    world.advance(secs(2));
    assert_eq!(world.data_tcp(&sender, Host::new(4).id, 10), Forward::Nowhere);
}

#[test]
fn a_device_whose_coming_was_not_heard_of_is_found_by_the_messages_that_go_on() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let mut sender = Host::new(1);
    world.join(&mut sender);
    store(&mut world, &sender, 1);
    let late = Host::new(2);
    world.data_tcp(&sender, late.id, 10);
    bus(&mut world, BusInput::Found { device: late.id, entry: None });
    finds(&mut world);

    // The CHANGE that says where it is was lost.
    let mut asked = 0;
    for tenth in 1..=60 {
        world.advance(ms(100));
        let way = world.data_tcp(&sender, late.id, 10);
        assert!(tenth < 20 || way == Forward::Nowhere, "not once more to all bases that may have it");
        if finds(&mut world).contains(&late.id) {
            asked += 1;
            bus(&mut world, BusInput::Found { device: late.id, entry: None });
        }
    }
    assert!((2..=4).contains(&asked), "every two seconds, and with the turn of its shard: {asked}");
    world.advance(secs(2));
    world.data_tcp(&sender, late.id, 10);
    let record = other.record(&late, 1).encode();
    let entry = Entry { record: &record, revision: 2, age: secs(3) };
    bus(&mut world, BusInput::Found { device: late.id, entry: Some(entry) });
    let way = world.data_tcp(&sender, late.id, 10);
    assert!(
        matches!(way, Forward::Base(ToBase { over: Over::Bus(base), .. }) if base == other.id),
        "{way:?}"
    );
}

#[test]
fn devices_that_are_looked_for_again_count_as_those_that_are_looked_for_first() {
    let mut world = joined(&[]);
    let mut sender = Host::new(1);
    world.join(&mut sender);
    store(&mut world, &sender, 1);
    world.bus.clear();
    let none = |world: &mut World| {
        let mut asked = 0;
        for device in finds(world) {
            asked += 1;
            bus(world, BusInput::Found { device, entry: None });
        }
        asked
    };
    let each_gets_a_message = |world: &mut World| -> usize {
        let ids =
            (0..1_024_u16).map(|n| DeviceId::from_bytes(std::array::from_fn(|i| n.to_be_bytes()[i % 2])));
        ids.map(|to| (world.data_tcp(&sender, to, 10), none(world)).1).sum()
    };
    assert_eq!(each_gets_a_message(&mut world), 1_024);
    world.advance(secs(3));
    while none(&mut world) > 0 {}
    assert_eq!(each_gets_a_message(&mut world), 60, "20 a second");
}

#[test]
fn of_the_devices_that_messages_have_looked_for_only_those_that_are_not_found_count() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let mut sender = Host::new(1);
    world.join(&mut sender);
    store(&mut world, &sender, 1);
    for n in 0..3_000 {
        let device = numbered(0x2a, n);
        assert!(matches!(world.data_tcp(&sender, device, 10), Forward::Base(_)), "device {n}");
        let record = other.record(&sender, 1).encode();
        let entry = Entry { record: &record, revision: u64::from(n) + 2, age: secs(1) };
        bus(&mut world, BusInput::Found { device, entry: Some(entry) });
    }
    let missed = (0..3_000).take_while(|&n| {
        let device = numbered(0x2b, n);
        let went = world.data_tcp(&sender, device, 10) != Forward::Nowhere;
        bus(&mut world, BusInput::Found { device, entry: None });
        went
    });
    assert_eq!(missed.count(), 1_024);
    assert_eq!(world.base.counters().remotes_refused, 1);
}

#[test]
fn requests_have_no_more_looked_for_than_messages_do() {
    let mut world = joined(&[]);
    let mut asker = Host::new(1);
    world.join(&mut asker);
    store(&mut world, &asker, 1);
    world.bus.clear();
    let mut sought = 0;
    for n in 0..1_500 {
        let device = numbered(0x2b, n);
        world.write(asker.conn, |out| tcp::write_request_info(out, device));
        world.write(asker.conn, |out| tcp::write_release_info(out, device));
        for device in finds(&mut world) {
            sought += 1;
            bus(&mut world, BusInput::Found { device, entry: None });
        }
    }
    assert_eq!(sought, 1_024);
    assert_eq!(world.base.sizes().remote_devices, 1_024);
}

#[test]
fn whoever_looks_for_what_nobody_has_takes_no_place_from_others() {
    let other = Other::new(0x0b);
    let mut world = joined_with(BaseConfig { max_remote_devices: 10, ..BaseConfig::default() }, &[&other]);
    let (mut liar, mut honest) = (Host::new(1), Host::new(2));
    for (host, revision) in [(&mut liar, 1), (&mut honest, 2)] {
        world.join(host);
        store(&mut world, host, revision);
    }
    let flood = |world: &mut World, kind| {
        for n in 0..100 {
            world.data_tcp(&liar, numbered(kind, n), 10);
            for device in finds(world) {
                bus(world, BusInput::Found { device, entry: None });
            }
        }
        assert_eq!(world.base.sizes().remote_devices, 10);
    };
    flood(&mut world, 0x2a);
    // What there is is found, and stays.
    let (here, late) = (Host::new(3), Host::new(4));
    world.request(&honest, &late);
    world.data_tcp(&honest, here.id, 10);
    let record = other.record(&here, 1).encode();
    let entry = Entry { record: &record, revision: 3, age: secs(1) };
    bus(&mut world, BusInput::Found { device: here.id, entry: Some(entry) });
    flood(&mut world, 0x2b);
    assert_eq!(way_of(world.data_tcp(&honest, here.id, 10)), Some(other.id));
    // One that was wanted and gave way is found when it comes.
    assert_eq!(way_of(world.data_tcp(&honest, late.id, 10)), None);
    flood(&mut world, 0x2c);
    change(&mut world, &late, 4, other.record(&late, 1));
    assert_eq!(way_of(world.data_tcp(&honest, late.id, 10)), Some(other.id));
}
