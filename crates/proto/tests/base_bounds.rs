//! Issue row 13, from the base's side: every bound is reached here, and does what [`BaseConfig`] says it does.

mod base_world;

use std::net::SocketAddr;

use base_world::{Host, World, addr, ms, secs};
use bowline_proto::{
    base::BaseConfig,
    bucket::Rate,
    wire::tcp::{self, BaseFrame, ErrorCode, NoticeCode},
};

/// A rate that nobody gets anything of.
const NOTHING: Rate = Rate { burst: 0, every: secs(1) };

fn with(change: impl FnOnce(&mut BaseConfig)) -> World {
    let mut config = BaseConfig::default();
    change(&mut config);
    World::with(config)
}

#[test]
fn one_device_too_many_gets_error_6_and_those_here_can_still_return() {
    let mut world = with(|c| c.max_devices = 2);
    let (mut a, mut b, mut c) = (Host::new(1), Host::new(2), Host::new(3));
    world.register(&mut a);
    world.register(&mut b);
    world.try_register(&mut c);
    assert_eq!(world.error(c.conn), (ErrorCode::Busy, 10));
    world.register(&mut a);
    assert_eq!(world.base.sizes().devices, 2);
}

#[test]
fn too_many_unfinished_connections_of_one_source_end_its_oldest_with_error_5() {
    let mut world = with(|c| c.max_unfinished_per_source = 3);
    let conns: Vec<_> = (1..=3).map(|port| world.connect(addr(&format!("192.0.2.1:{port}")))).collect();
    let elsewhere = world.connect(addr("192.0.2.2:1"));
    // What it has asked for does not save it: a cookie is free.
    world.cookie(conns[0]);
    let newcomer = world.connect(addr("192.0.2.1:4"));
    assert_eq!(world.error(conns[0]), (ErrorCode::SourceLimit, 10));
    world.cookie(newcomer);
    world.cookie(elsewhere);
    assert_eq!(world.base.sizes().unfinished, 4);
}

#[test]
fn idle_connections_keep_nobody_out_who_shares_their_address() {
    let mut world = World::new();
    let mut host = Host::new(1);
    for port in 1..=300 {
        world.connect(SocketAddr::new(host.tcp.ip(), port));
    }
    world.register(&mut host);
    assert_eq!(world.base.sizes().unfinished, 255);
}

#[test]
fn of_ipv6_a_slash_64_is_one_source_and_a_slash_48_is_limited_too() {
    let mut world = with(|c| c.max_unfinished_per_source = 2);
    let mut connect = |net: u16, host: u16| {
        let conn = world.connect(addr(&format!("[2001:db8:1:{net:x}::{host:x}]:1")));
        assert!(!world.closed.contains(&conn));
        (conn, world.closed.clone())
    };
    let (first, _) = connect(0, 1);
    let (second, closed) = connect(0, 2);
    assert!(closed.is_empty());
    let (_, closed) = connect(0, 3);
    assert_eq!(closed, [first].into(), "the oldest of the /64");
    let closed = (1..=6).map(|net| connect(net, 1).1).last().unwrap();
    assert_eq!(closed.len(), 1, "eight of the /48 in all");
    let (_, closed) = connect(7, 1);
    assert_eq!(closed, [first, second].into(), "the oldest of the /48");
}

#[test]
fn too_many_unfinished_connections_in_all_end_the_oldest_with_error_6() {
    let mut world = with(|c| c.max_unfinished = 3);
    let conns: Vec<_> = (1..=4).map(|n| world.connect(addr(&format!("192.0.2.{n}:1")))).collect();
    assert_eq!(world.error(conns[0]).0, ErrorCode::Busy);
    assert_eq!(world.base.sizes().unfinished, 3);
    let mut host = Host::new(9);
    world.register(&mut host);
}

#[test]
fn registrations_of_one_source_are_limited_and_told_when_to_return() {
    let mut world =
        with(|c| (c.register_rate, c.register_spare) = (Rate { burst: 2, every: secs(30) }, NOTHING));
    let mut hosts: Vec<Host> = (1..=3).map(Host::new).collect();
    for host in &mut hosts {
        host.tcp = addr("192.0.2.7:1");
    }
    world.register(&mut hosts[0]);
    world.register(&mut hosts[1]);
    world.try_register(&mut hosts[2]);
    let (code, retry_after) = world.error(hosts[2].conn);
    assert_eq!((code, retry_after), (ErrorCode::SourceLimit, 30));
    world.advance(secs(30));
    world.register(&mut hosts[2]);
    world.register(&mut Host::new(4));
}

#[test]
fn of_many_who_are_refused_at_one_address_each_is_told_a_turn_of_its_own_within_a_minute() {
    let mut world =
        with(|c| (c.register_rate, c.register_spare) = (Rate { burst: 2, every: ms(500) }, NOTHING));
    let refused = |world: &mut World, count: u8| -> Vec<u16> {
        let mut told = Vec::new();
        for n in 1..=count {
            let mut host = Host::new(n);
            host.tcp = addr("192.0.2.7:1");
            world.try_register(&mut host);
            if world.closed.contains(&host.conn) {
                told.push(world.error(host.conn).1);
            }
        }
        told
    };
    let told = refused(&mut world, 202);
    // Two a second, as many as there will be.
    assert_eq!(told[..8], [1, 1, 2, 2, 3, 3, 4, 4]);
    assert!(told.is_sorted() && told[119..].iter().all(|&wait| wait == 60), "{told:?}");
    // A flood is forgotten as soon as it is over.
    world.advance(secs(60));
    assert_eq!(refused(&mut world, 4), [1, 1]);
}

#[test]
fn a_site_of_three_hundred_devices_is_back_at_once_and_leaves_half_of_the_base_to_others() {
    let at_once = |change: fn(&mut BaseConfig)| {
        let mut world = with(change);
        for n in 0..700 {
            let mut host = Host::of_many(n);
            host.tcp = addr("192.0.2.7:1");
            world.try_register(&mut host);
        }
        world.register(&mut Host::new(9));
        world.base.sizes().devices - 1
    };
    assert_eq!(at_once(|_| ()), 64 + 500);
    assert_eq!(at_once(|c| c.max_devices = 600), 300);
    assert_eq!(at_once(|c| c.register_spare = NOTHING), 64);
}

#[test]
fn a_flood_of_registrations_from_everywhere_costs_a_bounded_number_of_verifications() {
    let mut world = with(|c| c.verify_rate = Rate { burst: 4, every: secs(1) });
    let mut errors = Vec::new();
    for n in 1..=10 {
        let mut host = Host::new(n);
        world.try_register(&mut host);
        if world.closed.contains(&host.conn) {
            errors.push(world.error(host.conn).0);
        }
    }
    assert_eq!(errors, [ErrorCode::Busy; 6]);
    assert_eq!(world.base.sizes().devices, 4);
}

#[test]
fn one_interest_too_many_is_ignored_with_notice_2() {
    for change in [|c: &mut BaseConfig| c.max_interests = 3, |c: &mut BaseConfig| c.max_interests_in_all = 3]
    {
        let mut world = with(change);
        let mut host = Host::new(1);
        world.register(&mut host);
        for n in 10..20 {
            world.request(&host, &Host::new(n));
        }
        let frames = world.read(host.conn);
        let [BaseFrame::Notice(notice)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(notice.code, NoticeCode::Limit);
        assert_eq!(world.base.sizes().interests, 3);
        world.release(&host, &Host::new(10));
        world.request(&host, &Host::new(15));
        assert_eq!(world.base.sizes().interests, 3);
    }
}

#[test]
fn interests_go_with_their_device() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.register(&mut host);
    for n in 10..20 {
        world.request(&host, &Host::new(n));
    }
    world.base.handle_closed(host.conn, world.now);
    let sizes = world.base.sizes();
    assert_eq!((sizes.interests, sizes.absent_interests), (0, 10));
    world.advance(secs(601) + secs(10));
    assert_eq!(world.base.sizes().absent_interests, 0);
}

#[test]
fn what_is_remembered_of_absent_devices_is_bounded_and_the_first_to_leave_is_forgotten() {
    let mut world = with(|c| c.max_absent_interests = 5);
    let mut sender = Host::new(1);
    world.register(&mut sender);
    let mut gone = Vec::new();
    for n in 10..16 {
        let mut host = Host::new(n);
        world.register(&mut host);
        world.request(&host, &sender);
        world.base.handle_closed(host.conn, world.now);
        gone.push(host);
    }
    assert_eq!(world.base.sizes().absent_interests, 5);
    world.read(sender.conn);
    for host in &gone {
        world.data_tcp(&sender, host.id, 1);
    }
    let heard: Vec<_> = world.unreachable(&sender).into_iter().map(|(id, _)| id).collect();
    assert_eq!(heard, gone[1..].iter().map(|h| h.id).collect::<Vec<_>>());
}

#[test]
fn replaced_boots_are_remembered_in_bounded_number() {
    let mut world = with(|c| c.max_replaced_boots = 3);
    let mut host = Host::new(1);
    for boot in 0..10 {
        host.boot = [boot; 8];
        world.register(&mut host);
        assert!(world.base.sizes().replaced_boots <= 3);
    }
    // The oldest are forgotten: such a boot replaces once more. A remembered one does not.
    host.boot = [8; 8];
    world.try_register(&mut host);
    assert_eq!(world.error(host.conn).0, ErrorCode::Cloned);
    host.boot = [0; 8];
    world.register(&mut host);
}

#[test]
fn wanted_comes_fifty_times_a_second_and_1024_wait_at_most() {
    let mut world = World::new();
    let mut popular = Host::new(0);
    world.register(&mut popular);
    let mut askers: Vec<Host> = (1..=1_200).map(Host::of_many).collect();
    for asker in &mut askers {
        world.register(asker);
        world.request(asker, &popular);
    }
    let at_once = world.wanted(&popular);
    assert_eq!(at_once, askers[..64].iter().map(|a| a.id).collect::<Vec<_>>());
    world.advance(ms(950));
    assert_eq!(world.wanted(&popular).len(), 47);
    world.advance(secs(30));
    let all = 64 + 1_024;
    assert_eq!(world.base.counters().wanted_sent, all);
    assert_eq!(world.base.counters().wanted_dropped, 1_200 - all);
    assert_eq!(world.wanted(&popular).last(), Some(&askers[1_199].id), "the oldest were dropped");
}

#[test]
fn sources_of_nat_unknown_are_remembered_in_bounded_number_and_forgotten_with_time() {
    let mut world = with(|c| c.max_sources = 100);
    let host = Host::new(1);
    for port in 1..=1_000 {
        let from = SocketAddr::from(([203, 0, 113, 66], port));
        world.datagram(base_world::FIRST, from, &base_world::send_data(host.id, 1));
        assert!(world.base.sizes().sources <= 100);
    }
    world.advance(secs(30));
    assert_eq!(world.base.sizes().sources, 0);
}

#[test]
fn an_idle_base_holds_nothing_after_everyone_has_left() {
    let mut world = World::new();
    let mut hosts: Vec<Host> = (1..=5).map(Host::new).collect();
    for host in &mut hosts {
        world.join(host);
    }
    for a in &hosts {
        for b in &hosts {
            world.request(a, b);
        }
    }
    for host in &hosts {
        world.write(host.conn, tcp::write_leave);
    }
    world.advance(secs(700));
    let sizes = world.base.sizes();
    assert_eq!(sizes, bowline_proto::base::Sizes { deadlines: 1, ..Default::default() });
}

#[test]
fn draining_tells_everyone_and_then_ends_everyone() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.join(&mut host);
    let waiting = world.connect(addr("192.0.2.9:1"));
    world.cookie(waiting);
    world.base.drain(30, world.now);
    world.flush();
    assert_eq!(world.read(host.conn), [BaseFrame::GoAway(25)], "a little earlier than it ends");
    let late = world.connect(addr("192.0.2.9:2"));
    world.write(late, |out| tcp::GetCookie { highest_version: 1, capabilities: 0 }.write(out));
    assert_eq!(world.error(late).0, ErrorCode::Draining);
    world.advance(secs(9));
    world.advance(secs(21));
    assert_eq!(world.error(host.conn).0, ErrorCode::Draining);
    let sizes = world.base.sizes();
    assert_eq!((sizes.connections, sizes.devices, sizes.bound_addresses), (0, 0, 0));
}
