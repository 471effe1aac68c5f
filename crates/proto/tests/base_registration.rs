//! Issue row 4, from the base's side: a registration is bound to the cookie and to the base, and to the key.

mod base_world;

use base_world::{Host, World, addr, secs};
use bowline_proto::{
    DeviceId,
    base::{BaseConfig, ConnId},
    wire::{
        addr as wire_addr,
        tcp::{self, BaseFrame, ErrorCode, GetCookie, Info},
    },
};

#[test]
fn a_host_learns_its_address_the_keepalive_and_the_udp_addresses() {
    let mut world = World::new();
    let mut host = Host::new(1);
    host.tcp = addr("[::ffff:192.0.2.1]:40000");
    let registered = world.register(&mut host);
    assert_eq!(registered.seen, wire_addr::canonical(host.tcp));
    assert_eq!(registered.keepalive, 25);
    assert_eq!(registered.udp, [addr("[::]:4477"), addr("[::]:4479")]);
    assert!(world.base.is_registered(host.id));
}

/// Sends a REGISTER made by `forge` for a fresh cookie and says how the connection ended.
fn forged(forge: impl FnOnce(&Host, DeviceId, [u8; 8], &mut Vec<u8>)) -> ErrorCode {
    let mut world = World::new();
    let host = Host { attempt: 1, ..Host::new(1) };
    let conn = world.connect(host.tcp);
    let cookie = world.cookie(conn);
    let id = world.id;
    world.write(conn, |out| forge(&host, id, cookie, out));
    assert!(!world.base.is_registered(host.id));
    assert_eq!(world.base.sizes().devices, 0);
    world.error(conn).0
}

#[test]
fn another_devices_id_is_refused() {
    let error = forged(|host, base, cookie, out| {
        let mut register = host.register();
        register.device = Host::new(2).id;
        register.write(out, &host.key, base, &cookie);
    });
    assert_eq!(error, ErrorCode::Signature);
}

#[test]
fn another_devices_id_and_key_without_its_signature_are_refused() {
    let error = forged(|host, base, cookie, out| {
        Host::new(2).register().write(out, &host.key, base, &cookie);
    });
    assert_eq!(error, ErrorCode::Signature);
}

#[test]
fn a_signature_for_another_base_is_refused() {
    let error = forged(|host, _, cookie, out| {
        host.register().write(out, &host.key, Host::new(9).id, &cookie);
    });
    assert_eq!(error, ErrorCode::Signature);
}

#[test]
fn a_replayed_registration_is_refused() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.register(&mut host);
    let mut captured = Vec::new();
    host.register().write(&mut captured, &host.key, world.id, &host.cookie);

    let thief = world.connect(addr("203.0.113.66:1"));
    world.cookie(thief);
    world.send(thief, &captured);
    assert_eq!(world.error(thief).0, ErrorCode::Signature);
    assert!(world.base.is_registered(host.id));
    assert!(!world.closed.contains(&host.conn));
}

#[test]
fn an_altered_registration_is_refused_whichever_bit_it_is() {
    let host = Host { attempt: 1, ..Host::new(1) };
    let mut clean = Vec::new();
    host.register().write(&mut clean, &host.key, host.id, &[0; 8]);
    for at in (3..clean.len()).step_by(7) {
        let error = forged(|host, base, cookie, out| {
            host.register().write(out, &host.key, base, &cookie);
            out[at] ^= 0x10;
        });
        assert!(matches!(error, ErrorCode::Signature | ErrorCode::Malformed), "byte {at}: {error:?}");
    }
}

#[test]
fn what_comes_out_of_order_ends_the_connection() {
    let host = Host { attempt: 1, ..Host::new(1) };
    let mut register = Vec::new();
    host.register().write(&mut register, &host.key, host.id, &[0; 8]);
    let mut info = Vec::new();
    Info { number: 1, master_key: [0; 16], own: vec![] }.write(&mut info);
    let mut get_cookie = Vec::new();
    GetCookie { highest_version: 1, capabilities: 0 }.write(&mut get_cookie);
    let mut request = Vec::new();
    tcp::write_request_info(&mut request, host.id);
    let unknown = [0, 1, 0x77];
    let wrong_side = [0, 9, 0x11, 0, 0, 0, 0, 0, 0, 0, 1];

    for first in [&register[..], &info, &request, &unknown, &wrong_side] {
        let mut world = World::new();
        let conn = world.connect(host.tcp);
        world.send(conn, first);
        assert_eq!(world.error(conn).0, ErrorCode::Malformed);
    }
    for second in [&get_cookie[..], &info, &request, &unknown, &wrong_side] {
        let mut world = World::new();
        let conn = world.connect(host.tcp);
        world.cookie(conn);
        world.send(conn, second);
        assert_eq!(world.error(conn).0, ErrorCode::Malformed);
    }
    for later in [&get_cookie[..], &register, &wrong_side] {
        let mut world = World::new();
        let mut host = Host::new(1);
        world.register(&mut host);
        world.send(host.conn, later);
        assert_eq!(world.error(host.conn).0, ErrorCode::Malformed);
        assert!(!world.base.is_registered(host.id), "an ERROR ends the registration");
    }
}

#[test]
fn unknown_frames_are_skipped_once_registered() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.register(&mut host);
    world.send(host.conn, &[0, 3, 0x77, 1, 2]);
    world.info(&mut host);
    assert_eq!(world.read(host.conn), [BaseFrame::Pong(1)]);
    assert_eq!(world.base.counters().unknown_frames, 1);
}

#[test]
fn a_device_that_is_not_on_the_list_of_a_closed_base_gets_error_4() {
    let allow = Some([Host::new(1).id].into());
    let mut world = World::with(BaseConfig { allow, ..BaseConfig::default() });
    world.register(&mut Host::new(1));
    let mut stranger = Host::new(2);
    world.try_register(&mut stranger);
    assert_eq!(world.error(stranger.conn).0, ErrorCode::NotAllowed);
}

#[test]
fn connections_that_stay_silent_are_ended_after_ten_seconds_each_step() {
    let mut world = World::new();
    let never = world.connect(addr("192.0.2.1:1"));
    let half = world.connect(addr("192.0.2.2:1"));
    world.advance(secs(9));
    world.cookie(half);
    world.advance(secs(1));
    assert_eq!(world.error(never).0, ErrorCode::Silent);
    assert!(!world.closed.contains(&half));
    world.advance(secs(9));
    assert_eq!(world.error(half).0, ErrorCode::Silent);
    assert_eq!(world.base.sizes().connections, 0);
}

#[test]
fn a_registered_host_without_info_for_60_seconds_is_dropped() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.register(&mut host);
    world.advance(secs(50));
    world.info(&mut host);
    assert_eq!(world.read(host.conn), [BaseFrame::Pong(1)]);
    world.advance(secs(59));
    assert!(world.base.is_registered(host.id));
    world.advance(secs(1));
    assert_eq!(world.error(host.conn).0, ErrorCode::Silent);
    assert!(!world.base.is_registered(host.id));
}

#[test]
fn leave_forgets_a_device_at_once_though_udp_is_confirmed() {
    let mut world = World::new();
    let mut host = Host::new(1);
    world.join(&mut host);
    world.write(host.conn, tcp::write_leave);
    assert!(world.closed.contains(&host.conn));
    let sizes = world.base.sizes();
    assert_eq!((sizes.devices, sizes.connections, sizes.cookies, sizes.bound_addresses), (0, 0, 0, 0));
}

#[test]
fn frames_for_connections_that_are_gone_are_ignored() {
    let mut world = World::new();
    world.send(ConnId(99), &[0, 1, 0x19]);
    world.base.handle_closed(ConnId(99), world.now);
    assert_eq!(world.base.sizes().connections, 0);
}
