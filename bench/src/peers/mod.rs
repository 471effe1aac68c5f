//! `peers`: the same work through what others have built, as far as Debian or crates.io have it.
//!
//! Relay: three machines in a row, the relay on one core, all gear on the other. Direct: two machines on one cable, a core for each end.
//! *Single* packets: what a card would carry, TCP segments included; *super* in addition where the peer speaks TCP. Ours and a peer take
//! turns; the receiver counts. [`load`] says how much is offered, [`coturn`], [`n2n`], [`iroh`] and [`tunnel`] what each peer does more
//! than bowline, or less.
//!
//! A peer that is not there, or does not start, is a row that says why.

mod coturn;
mod ends;
pub(crate) mod iroh;
pub(crate) mod load;
mod n2n;
mod ours;
mod rows;
mod tools;
mod tunnel;

use std::{cell::RefCell, time::Duration};

use bowline_lab::Node;
pub(crate) use ours::main;

use crate::{
    direct::Cable,
    netns::{Links, Net},
    report::{Options, Report},
};
use ours::Direct;
use rows::{Begin, Effort, Ours, Peer, compare};
use tunnel::Tunnel;

/// A QUIC connection has left its slow start by then.
const QUIC_WARM_UP: Duration = Duration::from_millis(600);
const SIZES: &[usize] = &[1_200, 100];
/// A stream knows no datagrams; it is counted in pieces of this size.
const PIECES: &[usize] = &[1_200];

pub(crate) fn run(options: &Options, report: &mut Report) {
    let (time, rounds) = if options.quick { (500, 2) } else { (2_000, 5) };
    let effort = Effort { time: Duration::from_millis(time), rounds };
    {
        let net = Net::new(options);
        relays(&net, effort, report);
    }
    let cable = Cable::new(options);
    cable.set(Links::Single);
    directs(&cable, effort, report);
}

fn relays(net: &Net, effort: Effort, report: &mut Report) {
    let base = match ours::Base::start(net) {
        Ok(base) => RefCell::new(base),
        Err(why) => {
            eprintln!("the base does not work: {why}");
            return;
        }
    };
    let set = |links: Links| {
        net.set(links);
        for (node, interface) in
            [(&net.left, "eth0"), (&net.middle, "l0"), (&net.middle, "r0"), (&net.right, "eth0")]
        {
            cut_tcp(node, interface, links == Links::Single);
        }
        base.borrow_mut().retune();
    };
    let one_by_one = |name, sizes| Ours {
        name,
        work: Box::new(|size, time| Ok(base.borrow_mut().turn(size, time))),
        sizes,
    };
    let batch = || Ours {
        name: "bowline",
        work: Box::new(|size, time| Ok(base.borrow_mut().turn_batch(size, time))),
        sizes: SIZES,
    };
    let tcp = || Ours {
        name: "bowline over TCP",
        work: Box::new(|size, time| Ok(base.borrow().turn_tcp(net, size, time))),
        sizes: SIZES,
    };
    set(Links::Single);
    for peer in relay_peers(net) {
        compare("relay", vec![one_by_one("bowline", SIZES)], peer, effort, report);
    }
    for links in Links::ALL {
        set(links);
        let peer = Peer {
            name: "iroh-relay",
            version: iroh::version("iroh-relay"),
            more: "TCP",
            start: Box::new(|| {
                let mut relay = iroh::Relay::start(net)?;
                Ok(Box::new(move |size, time| relay.turn(size, time)))
            }),
        };
        let kind = if links == Links::Single { "relay" } else { "relay super" };
        compare(kind, vec![batch(), tcp()], peer, effort, report);
    }
    set(Links::Single);
    let peer = Peer {
        name: "iroh-relay, one by one",
        version: iroh::version("iroh-relay"),
        more: "TCP",
        start: Box::new(|| {
            let mut relay = iroh::Relay::start_singly(net)?;
            Ok(Box::new(move |size, time| relay.turn(size, time)))
        }),
    };
    compare("relay", vec![one_by_one("bowline, one by one", &[100])], peer, effort, report);
}

/// Those that speak UDP.
fn relay_peers(net: &Net) -> [Peer<'_>; 3] {
    [
        Peer {
            name: "coturn",
            version: coturn::Coturn::version(),
            more: "4 bytes of header, the receiver is no client",
            start: Box::new(|| {
                let mut coturn = coturn::Coturn::start(net)?;
                Ok(Box::new(move |size, time| Ok(coturn.turn(size, time))))
            }),
        },
        Peer {
            name: "n2n supernode",
            version: n2n::version(),
            more: "84 bytes of header",
            start: Box::new(|| {
                let mut supernode = n2n::Supernode::start(net)?;
                Ok(Box::new(move |size, time| Ok(supernode.turn(size, time))))
            }),
        },
        Peer {
            name: "Nebula relay",
            version: tunnel::nebula_version(),
            more: "authenticates each packet; its hosts, who encrypt, share the gear's core",
            start: Box::new(|| {
                let mut tunnel = tunnel::nebula_relay(net)?;
                Ok(Box::new(move |size, time| Ok(tunnel.turn(size, time))))
            }),
        },
    ]
}

/// Whether TCP leaves an interface in segments, or in pieces of up to 64 KiB.
fn cut_tcp(node: &Node, interface: &str, cut: bool) {
    let how = if cut { "off" } else { "on" };
    let mut command = node.command("ethtool");
    let set =
        command.args(["-K", interface, "tx-tcp-segmentation", how, "tx-tcp6-segmentation", how]).output();
    let done = set.as_ref().is_ok_and(|output| output.status.success());
    assert!(done, "ethtool cannot switch segmentation on {interface}: {set:?}");
}

fn directs(cable: &Cable, effort: Effort, report: &mut Report) {
    let ours = |how: Direct| Ours {
        name: how.name(),
        work: Box::new(move |size, time| how.turn(cable, size, time)),
        sizes: if how == Direct::Plain { SIZES } else { PIECES },
    };
    let both = || vec![ours(Direct::Plain), ours(Direct::Encrypted)];
    let iroh = |name, how: &'static str, more| Peer {
        name,
        version: iroh::version("iroh"),
        more,
        start: Box::new(move || {
            Ok(Box::new(move |size, time| iroh::direct(cable, how, size, QUIC_WARM_UP, time)))
        }),
    };
    let datagrams = iroh("iroh datagrams", "datagrams", "QUIC: encrypted, congestion control");
    compare("direct", vec![ours(Direct::Plain)], datagrams, effort, report);
    let stream = iroh("iroh stream", "stream", "QUIC on both sides");
    compare("direct", vec![ours(Direct::Encrypted)], stream, effort, report);
    for peer in tunnels(cable) {
        compare("direct", both(), peer, effort, report);
    }
}

fn tunnels(cable: &Cable) -> [Peer<'_>; 4] {
    let start = |start: fn(&Cable) -> Result<Tunnel, String>| -> Begin<'_> {
        Box::new(move || {
            let mut tunnel = start(cable)?;
            Ok(Box::new(move |size, time| Ok(tunnel.turn(size, time))))
        })
    };
    let more = "encrypted, a TUN device";
    [
        Peer {
            name: "wireguard-go",
            version: tunnel::wireguard_version(),
            more,
            start: start(tunnel::wireguard),
        },
        Peer { name: "Nebula", version: tunnel::nebula_version(), more, start: start(tunnel::nebula_direct) },
        Peer {
            name: "n2n",
            version: n2n::version(),
            more: "encrypted, a TAP device",
            start: start(n2n::direct),
        },
        Peer { name: "tinc", version: tunnel::tinc_version(), more, start: start(tunnel::tinc) },
    ]
}
