//! Row 7b: a port that the router maps (PCP, NAT-PMP, UPnP; a real miniupnpd) is told to others once the base has reached it there. It
//! makes direct what could not be so: two devices behind symmetric NATs.

use std::{fs, net::SocketAddr, time::Duration};

use bowline_lab::{
    Home, Internet, Lab, Nat, Process, eventually,
    program::{Base, Listener, Pinger},
    with_bowline,
};
use nix::sys::signal::Signal;

use crate::{A_ROUND, BASE, OFTEN, SOON};

/// Finding the router's services takes a second, asking for a port another, and so does the base.
const MAPPED: Duration = Duration::from_secs(15);
/// A router that restarted: noticed by what goes silent, then the same again.
const MAPPED_ANEW: Duration = Duration::from_secs(40);

/// What miniupnpd changes, and the way into the LAN for what it maps.
const TABLES: &str = r#"
table inet upnp {
  chain mapped { }
  chain pre { type nat hook prerouting priority dstnat; policy accept; jump to_inside; }
  chain post { type nat hook postrouting priority srcnat + 1; policy accept; jump from_inside; }
  chain to_inside { }
  chain from_inside { }
}
insert rule inet lab forward iifname "wan" ct status dnat accept
"#;

fn config(services: &str) -> String {
    format!(
        "ext_ifname=wan\nlistening_ip=lan\nhttp_port=5555\nsecure_mode=yes\nsystem_uptime=yes\n\
         uuid=00000000-0000-4000-8000-000000000001\nupnp_table_name=upnp\nupnp_nat_table_name=upnp\n\
         upnp_forward_chain=mapped\nupnp_nat_chain=to_inside\nupnp_nat_postrouting_chain=from_inside\n\
         allow 1024-65535 10.0.0.0/8 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n{services}\n"
    )
}

/// Two homes with symmetric NATs; in the first, a router that maps ports.
struct World {
    home: Home,
    other: Home,
    base: Base,
    router: Option<Process>,
    services: &'static str,
}

impl World {
    fn new(lab: &Lab, services: &'static str) -> Self {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE);
        let [home, other] = [1, 2].map(|number| internet.home(lab, number, Nat::Symmetric));
        internet.renumber(&home, Nat::Symmetric);
        let mut world = Self { home, other, base, router: None, services };
        world.start_router();
        world
    }

    fn start_router(&mut self) {
        self.home.router.nft("table inet upnp\ndelete table inet upnp\n");
        self.home.router.nft(TABLES);
        let file = self.home.router.home().join("miniupnpd.conf");
        fs::write(&file, config(self.services)).expect("the test's folder can be written to");
        let pid = self.home.router.home().join("miniupnpd.pid");
        let arguments = ["-d", "-f", &file.to_string_lossy(), "-P", &pid.to_string_lossy()];
        self.router = Some(self.home.router.spawn("miniupnpd", &arguments));
    }

    /// The router loses all mappings, those of its service too.
    fn reboot_router(&mut self) {
        self.router = None;
        self.home.reboot(Nat::Symmetric);
        self.start_router();
    }

    /// The mapped ports, as the router's rules have them.
    fn rules(&self) -> String {
        let listed =
            self.home.router.command("nft").args(["list", "chain", "inet", "upnp", "to_inside"]).output();
        String::from_utf8_lossy(&listed.expect("nft runs").stdout).into_owned()
    }

    fn listener(&self, lab: &Lab) -> Listener {
        Listener::start(&self.home.device_v4(lab, "listener", 2), "listener", &self.base.names()[..1])
    }

    fn pinger(&self, lab: &Lab, listener: &Listener) -> Pinger {
        Pinger::start(&self.other.device_v4(lab, "pinger", 2), &listener.id, OFTEN, &self.base.names()[..1])
    }
}

fn mapped(listener: &Listener, mark: usize, within: Duration) -> SocketAddr {
    listener.process.wait("a mapped port", within, mark, |line| {
        let (_, rest) = line.text.split_once("PortMapped(Some(")?;
        rest.split(')').next()?.parse().ok()
    })
}

fn is_direct_by_the_mapping(lab: &Lab, services: &'static str) {
    let world = World::new(lab, services);
    let mut listener = world.listener(lab);
    let address = mapped(&listener, 0, MAPPED);
    assert_eq!(address.ip().to_string(), "9.1.1.1", "the router's address outside");
    let pinger = world.pinger(lab, &listener);
    assert_eq!(pinger.wait_path("direct", SOON, 0).address, Some(address));
    let answers = pinger.wait_answers(100, SOON, pinger.mark());
    assert!(answers.iter().all(|answer| answer.path == "direct"), "{answers:?}");

    // At the end it is given back.
    assert!(world.rules().contains(&address.port().to_string()), "{}", world.rules());
    listener.process.signal(Signal::SIGTERM);
    let _ = listener.process.wait_end(SOON);
    eventually("the port to be given back", SOON, || {
        (!world.rules().contains(&address.port().to_string())).then_some(())
    });
}

#[test]
fn a_port_mapped_by_pcp_or_nat_pmp_is_open_to_everybody_and_given_back() {
    with_bowline(|lab| is_direct_by_the_mapping(lab, "enable_natpmp=yes\nenable_upnp=no"));
}

#[test]
fn a_port_mapped_by_upnp_is_open_to_everybody_and_given_back() {
    with_bowline(|lab| is_direct_by_the_mapping(lab, "enable_natpmp=no\nenable_upnp=yes"));
}

#[test]
fn a_router_that_restarted_is_asked_again() {
    with_bowline(|lab| {
        let mut world = World::new(lab, "enable_natpmp=yes\nenable_upnp=no");
        let listener = world.listener(lab);
        mapped(&listener, 0, MAPPED);
        let pinger = world.pinger(lab, &listener);
        pinger.wait_path("direct", SOON, 0);
        let (mark, heard) = (listener.process.mark(), pinger.mark());
        world.reboot_router();
        let address = mapped(&listener, mark, MAPPED_ANEW);
        assert!(world.rules().contains(&address.port().to_string()), "{}", world.rules());
        pinger.wait_answer(SOON, heard);
        // The same address as before: it is asked again with the next round at the latest.
        assert_eq!(pinger.wait_path("direct", A_ROUND, pinger.mark()).address, Some(address));
    });
}

#[test]
fn a_port_that_leads_nowhere_is_not_told_to_anybody() {
    with_bowline(|lab| {
        let world = World::new(lab, "enable_natpmp=yes\nenable_upnp=no");
        // The router promises, and another filter drops what comes.
        world.home.router.nft("insert rule inet lab forward iifname \"wan\" ct status dnat drop");
        let listener = world.listener(lab);
        eventually("a promise of the router", MAPPED, || world.rules().contains("dnat").then_some(()));
        let pinger = world.pinger(lab, &listener);
        let answers = pinger.wait_answers(300, SOON * 3, 0);
        assert!(answers.iter().all(|answer| answer.path != "direct"), "{answers:?}");
        assert!(listener.process.lines(0).iter().all(|line| !line.text.contains("PortMapped(Some(")));
    });
}
