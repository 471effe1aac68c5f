//! Two bases of a cluster with one key, as on machines that were copied: who was there first goes on, the other one stays out of the cluster
//! for as long as that is so.

mod base_world;

use base_world::{
    World,
    cluster::{Other, bus, joined},
    secs,
};
use bowline_proto::base::{BusInput, BusOutput, LEASE_LIFE};

/// Another process with the key of this base.
fn rival(world: &World) -> Other {
    Other { id: world.id, ..Other::new(0x0c) }
}

fn reads_lease_of(world: &mut World, other: &Other) {
    bus(world, BusInput::Lease(&other.lease()));
}

/// Leases that the base has written since this was asked last.
fn leases(world: &mut World) -> usize {
    std::mem::take(&mut world.bus).iter().filter(|said| matches!(said, BusOutput::Lease(_))).count()
}

#[test]
fn a_base_that_finds_another_with_its_key_stays_out_of_the_cluster_until_that_one_is_gone() {
    let other = Other::new(0x0b);
    let mut world = joined(&[&other]);
    let rival = rival(&world);
    for _ in 0..20 {
        reads_lease_of(&mut world, &rival);
        reads_lease_of(&mut world, &other);
        world.advance(secs(3));
    }
    assert_eq!(world.base.members(world.now), []);
    // It was written once more before it was known that the other one lives.
    assert!(leases(&mut world) <= 1);
    assert_eq!(world.base.bus_is_up(), Some(false));
    // The bus comes and goes, which changes nothing.
    bus(&mut world, BusInput::Down);
    bus(&mut world, BusInput::Up);
    assert_eq!((leases(&mut world), world.base.bus_is_up()), (0, Some(false)));
    world.base.drain(0, world.now);
    world.flush();
    assert!(
        !world.bus.iter().any(|said| matches!(said, BusOutput::EndLease)),
        "the other one's is not ended"
    );

    let mut world = joined(&[]);
    (0..2).for_each(|_| reads_lease_of(&mut world, &rival));
    world.advance(LEASE_LIFE - secs(1));
    assert_eq!(world.base.bus_is_up(), Some(false));
    world.advance(LEASE_LIFE + secs(2));
    assert_eq!(world.base.bus_is_up(), Some(true));
    assert!(leases(&mut world) > 0);
}

#[test]
fn what_a_base_left_behind_before_it_was_started_again_is_no_other_base() {
    let mut world = joined(&[]);
    let before = rival(&world);
    reads_lease_of(&mut world, &before);
    world.advance(secs(30));
    assert!(leases(&mut world) >= 10);
    assert_eq!(world.base.bus_is_up(), Some(true));
}

#[test]
fn a_base_that_is_there_already_says_so_at_once_and_goes_on() {
    let mut world = joined(&[]);
    // The last lease was written two seconds ago.
    world.advance(LEASE_LIFE + secs(1));
    leases(&mut world);
    let rival = rival(&world);
    reads_lease_of(&mut world, &rival);
    assert_eq!(leases(&mut world), 1);
    // Two who are both sure write no more often than this.
    (0..100).for_each(|_| reads_lease_of(&mut world, &rival));
    assert_eq!(leases(&mut world), 0);
    world.advance(secs(30));
    assert!(leases(&mut world) >= 10);
    // Neither the end of the bus nor its return makes it a newcomer.
    bus(&mut world, BusInput::Down);
    bus(&mut world, BusInput::Up);
    (0..5).for_each(|_| reads_lease_of(&mut world, &rival));
    assert_eq!(world.base.bus_is_up(), Some(true));
}
