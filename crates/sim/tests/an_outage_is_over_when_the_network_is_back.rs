//! Nothing gets through for a while, and no system says so (a tunnel, a switch without power): how soon messages arrive afterwards, and
//! go directly.

mod common;

use std::time::Duration;

use bowline_sim::{fabric::NetId, packet::NodeId, world::World};
use common::*;

/// Lets nothing through these networks for a while; both hosts go on sending.
fn outage(world: &mut World, nets: &[NetId], a: NodeId, b: NodeId, lasts: Duration) {
    let before: Vec<_> = nets.iter().map(|&net| world.fabric.net_mut(net).up.profile).collect();
    for &net in nets {
        let net = world.fabric.net_mut(net);
        (net.up.profile.loss, net.down.profile.loss) = (1.0, 1.0);
    }
    let until = world.now() + lasts;
    while world.now() < until {
        let _ = (world.send(a, b), world.send(b, a));
        world.run_for(50 * MS);
    }
    for (&net, profile) in nets.iter().zip(before) {
        let net = world.fabric.net_mut(net);
        (net.up.profile, net.down.profile) = (profile, profile);
    }
}

/// Both hosts go on sending: when messages arrive, each way.
fn back(world: &mut World, a: NodeId, b: NodeId, limit: Duration) -> Duration {
    let start = world.now();
    let mut numbers = Vec::new();
    loop {
        assert!(world.now() < start + limit, "{}", world.trace.diagram(start, world.now()));
        for (from, to) in [(a, b), (b, a)] {
            if let Ok((number, _)) = world.send(from, to) {
                numbers.push((from, to, number));
            }
        }
        world.run_for(50 * MS);
        let came = |way| numbers.iter().any(|&(f, t, n)| f == way && world.arrival(f, t, n).is_some());
        if came(a) && came(b) {
            return world.now() - start;
        }
    }
}

#[test]
fn two_devices_that_were_direct_are_direct_again_within_a_second() {
    for lasts in [5, 10, 30, 70] {
        for ends in [1, 2] {
            let mut pair = Pair::behind(CONE, CONE);
            pair.make_direct();
            let Pair { mut world, a, b, net_a, net_b, .. } = pair;
            outage(&mut world, &[net_a, net_b][..ends], a, b, lasts * SECOND);
            let after = back(&mut world, a, b, 10 * SECOND);
            assert!(after <= 1200 * MS, "{lasts} s at {ends} of two: messages after {after:?}");
            let direct = world.wait(SECOND, |world| world.is_direct(a, b) && world.is_direct(b, a));
            assert!(
                direct.is_some(),
                "{lasts} s at {ends} of two: {:?}, {:?}",
                world.peer(a, b),
                world.peer(b, a)
            );
            world.assert_held();
        }
    }
}
