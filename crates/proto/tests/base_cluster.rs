//! One base of a cluster, with store, bus and the other bases as scripts: what late words, forged addresses and a store that begins
//! anew can do to it.

mod base_world;

use std::net::SocketAddr;

use base_world::{
    FIRST, Host, World, addr,
    cluster::{
        Other, answer_pings, blind, bus, change, data_by, data_from, finds, joined, open_udp, said, store,
    },
    ms, over_tcp, over_udp, secs, send_data,
};
use bowline_proto::{
    DeviceId,
    base::{BusInput, BusOutput, CameOver, Entry, Forward, Over, ToBase, Verdict},
    wire::{
        cluster::{BaseKey, Body, PREFIX_LEN, Want, prefix, tag},
        relay::{self, RECV_JOINED, SEND_JOINED, header},
        tcp::{self, DeviceAddresses, TAKES_JOINED},
        udp::NAT_OK_LEN,
    },
};

/// Whose a message is that comes over UDP from this address.
fn sender_at(world: &mut World, from: SocketAddr, to: DeviceId) -> Option<DeviceId> {
    let mut message = send_data(to, 10);
    let forward = world.base.handle_datagram(FIRST, from, &mut message, world.now);
    world.flush();
    (forward != Forward::Nowhere).then(|| relay::split(&message).unwrap().0)
}

/// A base that another one, at this address, is known to be reached by over UDP; with the key for what comes from there.
fn reached_over_udp(other: &Other, at: SocketAddr) -> (World, BaseKey) {
    let mut world = joined(&[]);
    let key = open_udp(&mut world);
    bus(&mut world, BusInput::Lease(&other.lease_at(vec![at])));
    answer_pings(&mut world, other, at, &key);
    (world, key)
}

#[test]
fn the_address_of_a_session_that_lingers_is_taken_by_who_receives_there_and_by_nobody_else() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let (mut victim, mut thief, mut peer) = (Host::new(1), Host::new(2), Host::new(3));
    for (host, revision) in [(&mut victim, 1), (&mut thief, 2), (&mut peer, 3)] {
        world.join(host);
        store(&mut world, host, revision);
    }
    // The victim registers at the other base; what is under way on its session here still passes.
    change(&mut world, &victim, 4, other.record(&victim, victim.attempt + 1));
    assert!(!world.base.is_registered(victim.id));
    assert_eq!(over_udp(data_from(&mut world, &other, peer.id, victim.id)), Some(victim.udp));

    // A NAT-INIT needs no more than a forged source; its answer goes to the victim.
    let (own, forged) = (thief.udp, victim.udp);
    thief.udp = forged;
    let ok = world.nat_init(&mut thief, FIRST, NAT_OK_LEN).unwrap();
    assert_eq!(sender_at(&mut world, forged, peer.id), Some(victim.id));
    assert_eq!(over_udp(data_from(&mut world, &other, peer.id, victim.id)), Some(forged));

    // Who reads the answer there is there, whoever was before: nothing of the victim's goes there any more.
    world.nat_confirm(&thief, FIRST, &ok).unwrap();
    assert_eq!(sender_at(&mut world, forged, peer.id), Some(thief.id));
    assert_eq!(over_tcp(data_from(&mut world, &other, peer.id, victim.id)), Some(victim.conn));
    assert_eq!(sender_at(&mut world, own, peer.id), None);
    world.advance(secs(41));
    assert_eq!(world.base.sizes().lingering, 0);
    assert_eq!(sender_at(&mut world, forged, peer.id), Some(thief.id));
}

#[test]
fn what_an_old_base_says_of_a_device_that_has_moved_on_is_not_believed() {
    let (mut old, mut new) = (Other::new(0x0b), Other::new(0x0c));
    let mut world = joined(&[&old, &new]);
    let (mut asker, mover) = (Host::new(1), Host::new(2));
    world.join(&mut asker);
    store(&mut world, &asker, 1);
    world.request(&asker, &mover);
    change(&mut world, &mover, 2, old.record(&mover, 1));
    let addresses = |online, port| DeviceAddresses {
        online,
        reflexive: vec![addr(&format!("198.51.100.1:{port}"))],
        ..DeviceAddresses::gone(mover.id)
    };
    let to = asker.id;
    let online =
        |revision, port| Body::Addresses { to, revision, left: false, addresses: addresses(true, port) };
    let gone =
        || Body::Addresses { to, revision: u64::MAX, left: true, addresses: DeviceAddresses::gone(mover.id) };
    old.says(&mut world, online(2, 1));
    assert_eq!(world.told(&asker), [addresses(true, 1)]);

    change(&mut world, &mover, 3, new.record(&mover, 2));
    new.says(&mut world, online(3, 2));
    assert_eq!(world.told(&asker), [addresses(true, 2)]);
    // It notices the end of a connection, and has not heard yet where the device is.
    old.says(&mut world, gone());
    assert_eq!(world.told(&asker), []);
    // The new base knows.
    new.says(&mut world, gone());
    assert_eq!(world.told(&asker), [DeviceAddresses::gone(mover.id)]);
}

/// Half a minute and some in which the other base and a device here say that they are there.
fn half_a_minute(world: &mut World, other: &Other, host: &mut Host) {
    for _ in 0..9 {
        world.advance(secs(4));
        bus(world, BusInput::Lease(&other.lease()));
        world.info(host);
    }
}

#[test]
fn addresses_that_were_lost_between_bases_are_sent_again_when_the_interest_is_stated_again() {
    let mut other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let (mut device, asker) = (Host::new(1), Host::new(2));
    world.register(&mut device);
    world.info(&mut device);
    store(&mut world, &device, 1);
    world.request(&device, &asker);
    let ids = (asker.id, device.id);
    let want = |heard| {
        let (asker, about) = ids;
        Body::Wants(vec![Want { asker, revision: 2, about, heard, on: true, again: false }])
    };
    let numbers = |world: &mut World, other: &Other| -> Vec<u64> {
        let said = said(world, other).into_iter();
        said.filter(|(_, body)| matches!(body, Body::Addresses { .. })).map(|(number, _)| number).collect()
    };
    other.says(&mut world, want(0));
    let [first] = numbers(&mut world, &other)[..] else { panic!("addresses are told once") };
    half_a_minute(&mut world, &other, &mut device);
    other.says(&mut world, want(first));
    assert_eq!(numbers(&mut world, &other), [], "they have come");
    // It moves, and what is said of that is lost.
    device.own = vec![addr("192.0.2.7:7")];
    world.info(&mut device);
    let [second] = numbers(&mut world, &other)[..] else { panic!("a change is told once") };
    half_a_minute(&mut world, &other, &mut device);
    other.says(&mut world, want(first));
    let [third] = numbers(&mut world, &other)[..] else { panic!("what was lost is told once more") };
    assert!(first < second && second < third);
    other.says(&mut world, want(third));
    // It no longer wants the other, and that is lost as well.
    world.release(&device, &asker);
    let [gone] = numbers(&mut world, &other)[..] else { panic!("its end is told once") };
    half_a_minute(&mut world, &other, &mut device);
    other.says(&mut world, want(third));
    let again = said(&mut world, &other);
    let is_gone = |body: &Body| matches!(body, Body::Addresses { addresses, .. } if !addresses.online);
    assert!(again.iter().any(|(number, body)| *number > gone && is_gone(body)), "{again:?}");
}

#[test]
fn a_statement_says_which_addresses_came_last() {
    let mut other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let (mut asker, device) = (Host::new(1), Host::new(2));
    world.join(&mut asker);
    store(&mut world, &asker, 1);
    world.request(&asker, &device);
    change(&mut world, &device, 2, other.record(&device, 1));
    let heard = |world: &mut World, other: &Other| -> Option<u64> {
        let mut wants = said(world, other).into_iter().filter_map(|(_, body)| match body {
            Body::Wants(wants) => wants.last().map(|want| want.heard),
            _ => None,
        });
        wants.next_back()
    };
    assert_eq!(heard(&mut world, &other), Some(0));
    let addresses = DeviceAddresses { online: true, ..DeviceAddresses::gone(device.id) };
    other.seq = 6;
    other.says(&mut world, Body::Addresses { to: asker.id, revision: 2, left: false, addresses });
    half_a_minute(&mut world, &other, &mut asker);
    assert_eq!(heard(&mut world, &other), Some(7));
    // Who asks anew may have missed it all.
    world.request(&asker, &device);
    assert_eq!(heard(&mut world, &other), Some(0));
}

#[test]
fn a_store_that_has_begun_anew_is_read_before_anything_is_said_under_its_revisions() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let (mut asker, device) = (Host::new(1), Host::new(2));
    world.join(&mut asker);
    store(&mut world, &asker, 12);
    world.request(&asker, &device);
    change(&mut world, &device, 13, other.record(&device, 1));
    let revisions = |world: &mut World, other: &Other| -> Vec<u64> {
        let said = said(world, other).into_iter();
        let wants =
            said.filter_map(|(_, body)| if let Body::Wants(wants) = body { Some(wants) } else { None });
        wants.flatten().map(|want| want.revision).collect()
    };
    assert_eq!(revisions(&mut world, &other), [12]);
    bus(&mut world, BusInput::Down);
    bus(&mut world, BusInput::Lease(&other.lease()));
    bus(&mut world, BusInput::Up);
    assert_eq!(revisions(&mut world, &other), []);
    world.bus.clear();
    store(&mut world, &asker, 3);
    assert_eq!(revisions(&mut world, &other), [3]);
}

#[test]
fn a_store_that_has_begun_anew_takes_no_device_away_from_a_base_that_lives() {
    let mut other = Other::new(0x0b);
    let at = addr("[2001:db8::11]:4477");
    let (mut world, _) = reached_over_udp(&other, at);
    let (mut sender, device) = (Host::new(1), Host::new(2));
    world.join(&mut sender);
    store(&mut world, &sender, 12);
    world.data_tcp(&sender, device.id, 10);
    let record = other.record(&device, 1);
    let entry = Entry { record: &record.encode(), revision: 13, age: secs(60) };
    bus(&mut world, BusInput::Found { device: device.id, entry: Some(entry) });
    let goes_over_udp = |world: &mut World| {
        let forward = world.data_tcp(&sender, device.id, 10);
        matches!(forward, Forward::Base(ToBase { over: Over::Udp { to, .. }, .. }) if to == at)
    };
    assert!(goes_over_udp(&mut world));

    // This base is back first: the other one, which the bus does not reach yet, has written nothing.
    bus(&mut world, BusInput::Down);
    assert!(goes_over_udp(&mut world));
    world.bus.clear();
    bus(&mut world, BusInput::Up);
    assert!(finds(&mut world).contains(&device.id));
    assert!(goes_over_udp(&mut world));
    bus(&mut world, BusInput::Found { device: device.id, entry: None });
    assert!(goes_over_udp(&mut world));

    // Whether the device is there the other base knows, and what that says counts.
    other.says(&mut world, Body::NotHere { device: device.id, from: sender.id });
    assert_eq!(finds(&mut world), [device.id]);
    bus(&mut world, BusInput::Found { device: device.id, entry: None });
    assert_eq!(blind(&mut world, &sender, device.id), 16);
    change(&mut world, &device, 1, record);
    assert!(goes_over_udp(&mut world));
}

#[test]
fn data_of_a_base_whose_lease_is_on_its_way_is_taken_from_the_bus_and_from_nowhere_else() {
    let new = Other::new(0x0b);
    let mut world = joined(&[]);
    let mut host = Host::new(1);
    world.join(&mut host);
    store(&mut world, &host, 1);
    let (from, nobody) = (Host::new(2).id, Host::new(3).id);
    assert!(matches!(data_from(&mut world, &new, from, host.id), Forward::Udp { .. } | Forward::Tcp { .. }));
    world.bus.clear();
    assert_eq!(data_from(&mut world, &new, from, nobody), Forward::Nowhere);
    assert!(world.bus.is_empty(), "{:?}", world.bus);
    let came = CameOver::Udp(addr("192.0.2.11:4477"));
    assert_eq!(data_by(&mut world, came, new.incarnation, (from, host.id)), Forward::Nowhere);
}

#[test]
fn data_over_udp_counts_from_an_address_of_a_living_base_and_under_the_right_tag() {
    let other = Other::new(0x0b);
    let (at, elsewhere) = (addr("[2001:db8::11]:4477"), addr("[2001:db8::12]:4477"));
    let mut world = joined(&[]);
    let key = open_udp(&mut world);
    bus(&mut world, BusInput::Lease(&other.lease_at(vec![at])));
    let mut host = Host::new(1);
    world.join(&mut host);
    store(&mut world, &host, 1);
    let pair = (Host::new(2).id, host.id);
    let comes = |world: &mut World, from, key| {
        over_udp(data_by(world, CameOver::Udp(from), tag(key, pair.0, pair.1), pair))
    };
    assert_eq!(comes(&mut world, at, &key), Some(host.udp));
    assert_eq!(comes(&mut world, at, &[0; 16]), None, "under another key");
    assert_eq!(comes(&mut world, elsewhere, &key), None, "from where no base is");
    bus(&mut world, BusInput::LeaseEnded(other.id));
    assert_eq!(comes(&mut world, at, &key), None, "from where none is any more");
    assert_eq!(world.base.counters().not_a_member, 3);
}

#[test]
fn of_a_device_elsewhere_its_base_says_whether_it_takes_joined_messages() {
    let mut other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let mut asker = Host::new(1);
    world.join(&mut asker);
    store(&mut world, &asker, 1);
    // An older base does not say so of any.
    for (device, takes) in [(Host::new(2), true), (Host::new(3), false)] {
        world.request(&asker, &device);
        change(&mut world, &device, 2, other.record(&device, 1));
        let addresses = DeviceAddresses { online: true, joined: takes, ..DeviceAddresses::gone(device.id) };
        other.says(
            &mut world,
            Body::Addresses { to: asker.id, revision: 2, left: false, addresses: addresses.clone() },
        );
        assert_eq!(world.told(&asker), [addresses]);
    }
}

#[test]
fn another_base_is_told_of_a_device_here_whether_it_takes_joined_messages() {
    let mut other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let asker = Host::new(1);
    for (n, capabilities) in [(2, TAKES_JOINED), (3, 0)] {
        let mut device = Host { capabilities, ..Host::new(n) };
        world.join(&mut device);
        store(&mut world, &device, u64::from(n));
        world.request(&device, &asker);
        let want = Want { asker: asker.id, revision: 9, about: device.id, heard: 0, on: true, again: false };
        other.says(&mut world, Body::Wants(vec![want]));
        let told = said(&mut world, &other).into_iter().filter_map(|(_, body)| match body {
            Body::Addresses { addresses, .. } => Some((addresses.device, addresses.online, addresses.joined)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [(device.id, true, capabilities == TAKES_JOINED)]);
    }
}

#[test]
fn joined_messages_go_from_base_to_base_as_data_of_their_length_does() {
    let other = Other::new(0x0b);
    let at = addr("[2001:db8::11]:4477");
    let (mut world, key) = reached_over_udp(&other, at);
    let (mut here, elsewhere) = (Host::new(1), Host::new(2));
    world.register(&mut here);
    store(&mut world, &here, 1);
    let body = b"\0\x04one.two.thr";

    // To a device here, which has TCP alone for a while.
    let tag = tag(&key, elsewhere.id, here.id);
    let mut came = [&prefix(here.id, tag)[..], &header(RECV_JOINED, elsewhere.id), body].concat();
    let comes = |world: &mut World| {
        let forward = world.base.handle_base_data(CameOver::Udp(at), &came, world.now);
        world.flush();
        forward
    };
    assert_eq!(over_tcp(comes(&mut world)), Some(here.conn));
    world.confirm_udp(&mut here);
    assert_eq!(over_udp(comes(&mut world)), Some(here.udp));
    let verdict = world.base.routes().reader().judge(FIRST, at, &mut came, world.now);
    assert!(
        matches!(verdict, Verdict::Deliver { to, skip: PREFIX_LEN, .. } if to == here.udp),
        "{verdict:?}"
    );

    // From it, over TCP and UDP.
    let message = || [&header(SEND_JOINED, elsewhere.id)[..], body].concat();
    world.frame(here.conn, &mut message());
    change(&mut world, &elsewhere, 2, other.record(&elsewhere, 1));
    let goes_there =
        |forward| matches!(forward, Forward::Base(ToBase { over: Over::Udp { to, .. }, .. }) if to == at);
    let mut sent = message();
    assert!(goes_there(world.frame(here.conn, &mut sent)));
    assert_eq!(sent, [&header(RECV_JOINED, here.id)[..], body].concat());
    let mut sent = message();
    let verdict = world.base.routes().reader().judge(FIRST, here.udp, &mut sent, world.now);
    assert!(matches!(verdict, Verdict::ToBase { to, .. } if to == at), "{verdict:?}");
    assert_eq!(sent, [&header(RECV_JOINED, here.id)[..], body].concat());
}

#[test]
fn what_all_bases_hear_is_denied_by_none_of_them() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let mut host = Host::new(1);
    world.join(&mut host);
    store(&mut world, &host, 1);
    world.bus.clear();
    let (from, nobody) = (Host::new(2).id, Host::new(3).id);
    let tag = other.incarnation;
    assert_eq!(over_udp(data_by(&mut world, CameOver::All, tag, (from, host.id))), Some(host.udp));
    assert_eq!(data_by(&mut world, CameOver::All, tag, (from, nobody)), Forward::Nowhere);
    assert!(world.bus.is_empty(), "{:?}", world.bus);
    // What was sent to this base alone is.
    assert_eq!(data_by(&mut world, CameOver::Bus, tag, (from, nobody)), Forward::Nowhere);
    let denied = Body::NotHere { device: nobody, from };
    assert!(said(&mut world, &other).iter().any(|(_, body)| *body == denied));
}

#[test]
fn a_device_elsewhere_is_remembered_for_as_long_as_messages_go_to_it_and_a_minute_more() {
    let other = Other::new(0x0b);
    let at = addr("[2001:db8::11]:4477");
    let (mut world, key) = reached_over_udp(&other, at);
    let (mut sender, device) = (Host::new(1), Host::new(2));
    world.join(&mut sender);
    store(&mut world, &sender, 1);
    world.data_tcp(&sender, device.id, 10);
    let entry = Entry { record: &other.record(&device, 1).encode(), revision: 2, age: secs(60) };
    bus(&mut world, BusInput::Found { device: device.id, entry: Some(entry) });
    world.bus.clear();
    let time_passes = |world: &mut World, sender: &mut Host| {
        for _ in 0..2 {
            world.advance(secs(4));
            answer_pings(world, &other, at, &key);
        }
        bus(world, BusInput::Lease(&other.lease_at(vec![at])));
        world.info(sender);
    };
    // A worker forwards them; the machine sees none.
    for _ in 0..40 {
        let mut message = send_data(device.id, 10);
        let verdict = world.base.routes().reader().judge(FIRST, sender.udp, &mut message, world.now);
        assert!(matches!(verdict, Verdict::ToBase { to, .. } if to == at), "{verdict:?} at {:?}", world.now);
        time_passes(&mut world, &mut sender);
    }
    assert_eq!(finds(&mut world), [], "the store may not be there");
    (0..12).for_each(|_| time_passes(&mut world, &mut sender));
    assert_eq!(world.base.sizes().remote_devices, 0);
}

/// How long another base counts after its last lease, to the second.
fn lifetime(world: &mut World, mut each_tenth: impl FnMut(&mut World)) -> u64 {
    let start = world.now;
    while !world.base.members(world.now).is_empty() {
        world.advance(ms(100));
        each_tenth(world);
        assert!(world.now < start + secs(200), "it counts for ever");
    }
    (world.now - start).as_secs()
}

#[test]
fn a_lease_ends_after_ten_seconds_and_a_minute_later_if_its_base_answers_over_udp() {
    let other = Other::new(0x0b);
    assert_eq!(lifetime(&mut joined(&[&other]), |_| {}), 10);

    let at = addr("[2001:db8::11]:4477");
    let (mut world, key) = reached_over_udp(&other, at);
    assert!((70..=71).contains(&lifetime(&mut world, |world| answer_pings(world, &other, at, &key))));
}

#[test]
fn a_base_that_answers_over_udp_counts_however_long_the_bus_or_a_store_that_takes_leases_is_gone() {
    let other = Other::new(0x0b);
    let at = addr("[2001:db8::11]:4477");
    for gone in [BusInput::Down, BusInput::LeaseFailed] {
        let (mut world, key) = reached_over_udp(&other, at);
        for _ in 0..3_000 {
            bus(&mut world, gone);
            world.advance(ms(100));
            answer_pings(&mut world, &other, at, &key);
        }
        assert_eq!(world.base.members(world.now), [(other.id, true)], "{gone:?}");
        let silent_for = lifetime(&mut world, |_| {});
        assert!(silent_for <= 6, "{gone:?}: {silent_for} s without an answer");
    }
}

#[test]
fn without_the_bus_or_a_store_that_takes_leases_other_bases_count_for_a_minute() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    bus(&mut world, BusInput::Down);
    assert_eq!(lifetime(&mut world, |_| {}), 60);

    let mut world = joined(&[&other]);
    bus(&mut world, BusInput::LeaseFailed);
    assert_eq!(world.base.counters().store_failures, 1, "an alarm asks for it");
    assert_eq!(lifetime(&mut world, |world| bus(world, BusInput::LeaseFailed)), 60);

    // It takes them again: the other one's is on its way.
    let mut world = joined(&[&other]);
    bus(&mut world, BusInput::LeaseFailed);
    world.advance(secs(30));
    bus(&mut world, BusInput::LeaseWritten);
    assert_eq!(lifetime(&mut world, |_| {}), 10);
}

#[test]
fn a_base_that_drains_has_its_lease_until_the_end_and_none_afterwards() {
    let mut world = joined(&[]);
    let leases = |world: &mut World| {
        let (written, ended) = (|o: &&BusOutput| matches!(o, BusOutput::Lease(_)), BusOutput::EndLease);
        let counts = (world.bus.iter().filter(written).count(), world.bus.contains(&ended));
        world.bus.clear();
        counts
    };
    world.base.drain(20, world.now);
    world.advance(secs(19));
    let (written, ended) = leases(&mut world);
    assert!((5..=7).contains(&written) && !ended, "{written} {ended}");
    world.advance(secs(1));
    assert!(leases(&mut world).1);
    world.advance(secs(60));
    assert_eq!(leases(&mut world), (0, false));
}

#[test]
fn the_entry_of_a_device_that_left_while_there_was_no_bus_is_taken_back_when_a_message_comes_for_it() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let mut host = Host::new(1);
    world.join(&mut host);
    bus(&mut world, BusInput::Found { device: host.id, entry: None });
    let written = world.bus.iter().find_map(|output| match output {
        BusOutput::Store { record, .. } => Some(record.clone()),
        _ => None,
    });
    bus(&mut world, BusInput::Stored { device: host.id, revision: 7 });
    bus(&mut world, BusInput::Down);
    world.write(host.conn, tcp::write_leave);
    world.bus.clear();
    bus(&mut world, BusInput::Up);
    bus(&mut world, BusInput::Lease(&other.lease()));
    assert!(!world.bus.iter().any(|output| matches!(output, BusOutput::Erase { .. })));

    assert_eq!(data_from(&mut world, &other, Host::new(2).id, host.id), Forward::Nowhere);
    assert_eq!(finds(&mut world), [host.id]);
    let entry = Entry { record: &written.unwrap(), revision: 7, age: secs(60) };
    bus(&mut world, BusInput::Found { device: host.id, entry: Some(entry) });
    assert!(world.bus.contains(&BusOutput::Erase { device: host.id, revision: 7 }), "{:?}", world.bus);
}
