//! Issue row 14, from the base's side: whatever comes, in whatever order, the machine neither panics nor grows
//! beyond its bounds, lets time pass, and serves a well-behaved host afterwards as before.

mod base_world;

use base_world::{FIRST, Host, SECOND, World, addr, ms, send_data};
use bowline_proto::{
    base::{BaseConfig, ConnId, Ticket, Via},
    bucket::Rate,
    wire::{
        Malformed,
        tcp::{self, GetCookie, Info},
        udp::{NAT_OK_LEN, NatConfirm, PADDED_LEN},
    },
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};

const HOSTS: u8 = 6;
const CONNS: usize = 8;

/// One thing that may happen. Hosts and connections are picked by number, so that steps meet one another.
#[derive(Debug, Clone)]
enum Step {
    Connect {
        source: u8,
    },
    GetCookie {
        conn: usize,
        version: u8,
    },
    Register {
        host: u8,
        boot: u8,
        attempt: u32,
        conn: usize,
    },
    /// A whole, well-behaved registration.
    Join {
        host: u8,
        boot: u8,
    },
    /// Two hosts ask for each other.
    Befriend {
        a: u8,
        b: u8,
    },
    Info {
        conn: usize,
        number: u64,
        own: u8,
    },
    Request {
        conn: usize,
        about: u8,
    },
    Release {
        conn: usize,
        about: u8,
    },
    Leave {
        conn: usize,
    },
    Data {
        conn: usize,
        to: u8,
        length: usize,
    },
    Frame {
        conn: usize,
        bytes: Vec<u8>,
    },
    FramingLost {
        conn: usize,
    },
    Closed {
        conn: usize,
    },
    NatInit {
        host: u8,
        second: bool,
        port: u16,
        seq: Option<u64>,
        padded: bool,
    },
    NatConfirm {
        host: u8,
        port: u16,
    },
    DataUdp {
        port: u16,
        host: u8,
        to: u8,
        length: usize,
    },
    Datagram {
        port: u16,
        bytes: Vec<u8>,
    },
    Overflow {
        from: u8,
        to: u8,
    },
    Wait {
        ms: u64,
    },
    Drain {
        seconds: u16,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = || 0..HOSTS;
    let conn = || 0..CONNS;
    let port = || prop_oneof![3 => Just(1), 1 => 1..6u16];
    let seq = || prop_oneof![8 => 0..60u64, 1 => Just(u64::MAX)];
    let length = || prop_oneof![Just(0), Just(500), Just(1_200), Just(1_201), Just(16_001), 0..2_000usize];
    let bytes = || prop::collection::vec(any::<u8>(), 0..120);
    let typed = |types: &'static [u8]| {
        (prop::sample::select(types), bytes()).prop_map(|(kind, mut bytes)| {
            bytes.insert(0, kind);
            bytes
        })
    };
    const TCP: &[u8] = &[0, 1, 2, 3, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x19, 0x20, 0x21, 0x77];
    const UDP: &[u8] = &[0x20, 0x21, 0x30, 0x31, 0x32, 0x33, 0];
    let step = prop_oneof![
        2 => (0..4u8).prop_map(|source| Step::Connect { source }),
        2 => (conn(), 0..3u8).prop_map(|(conn, version)| Step::GetCookie { conn, version }),
        3 => (host(), 0..3u8, 0..4u32, conn())
            .prop_map(|(host, boot, attempt, conn)| Step::Register { host, boot, attempt, conn }),
        12 => (host(), prop_oneof![5 => Just(0), 1 => 1..3u8]).prop_map(|(host, boot)| Step::Join { host, boot }),
        6 => (host(), host()).prop_map(|(a, b)| Step::Befriend { a, b }),
        3 => (conn(), seq(), 0..4u8).prop_map(|(conn, number, own)| Step::Info { conn, number, own }),
        6 => (conn(), 0..2 * HOSTS).prop_map(|(conn, about)| Step::Request { conn, about }),
        2 => (conn(), host()).prop_map(|(conn, about)| Step::Release { conn, about }),
        1 => conn().prop_map(|conn| Step::Leave { conn }),
        3 => (conn(), host(), length()).prop_map(|(conn, to, length)| Step::Data { conn, to, length }),
        1 => (conn(), prop_oneof![bytes(), typed(TCP)]).prop_map(|(conn, bytes)| Step::Frame { conn, bytes }),
        1 => conn().prop_map(|conn| Step::FramingLost { conn }),
        2 => conn().prop_map(|conn| Step::Closed { conn }),
        10 => (host(), any::<bool>(), port(), prop_oneof![4 => Just(None), 1 => seq().prop_map(Some)], any::<bool>())
            .prop_map(|(host, second, port, seq, padded)| Step::NatInit { host, second, port, seq, padded }),
        8 => (host(), port()).prop_map(|(host, port)| Step::NatConfirm { host, port }),
        3 => (port(), host(), host(), length())
            .prop_map(|(port, host, to, length)| Step::DataUdp { port, host, to, length }),
        2 => (port(), prop_oneof![bytes(), typed(UDP)]).prop_map(|(port, bytes)| Step::Datagram { port, bytes }),
        1 => (host(), host()).prop_map(|(from, to)| Step::Overflow { from, to }),
        5 => prop_oneof![20 => 0..300u64, 10 => 0..12_000u64, 3 => 0..70_000u64, 1 => Just(700_000)].prop_map(|ms| Step::Wait { ms }),
        1 => prop_oneof![30 => Just(u16::MAX), 1 => 0..60u16].prop_map(|seconds| Step::Drain { seconds }),
    ];
    prop::collection::vec(step, 1..160)
}

struct Chaos {
    world: World,
    hosts: Vec<Host>,
    conns: Vec<ConnId>,
    /// The last NAT-OK of each host.
    challenges: Vec<Option<(Via, NatConfirm)>>,
    drained: bool,
}

impl Chaos {
    fn new() -> Self {
        let config = BaseConfig {
            max_devices: 4,
            max_unfinished: 4,
            max_unfinished_per_source: 3,
            max_interests: 3,
            max_interests_in_all: 8,
            max_absent_interests: 4,
            max_replaced_boots: 3,
            max_sources: 5,
            register_rate: Rate { burst: 6, every: ms(500) },
            relay_rate: Some(4_000),
            relay_messages: Some(50),
            frame_rate: Rate { burst: 20, every: ms(100) },
            ..BaseConfig::default()
        };
        Self {
            world: World::with(config),
            hosts: (1..=HOSTS).map(Host::new).collect(),
            conns: vec![ConnId(u64::MAX); CONNS],
            challenges: vec![None; usize::from(HOSTS)],
            drained: false,
        }
    }

    /// The first connections are those of the hosts, the others come and go.
    fn remember(&mut self, conn: ConnId) {
        let others = &mut self.conns[usize::from(HOSTS)..];
        others.rotate_right(1);
        others[0] = conn;
    }

    fn from(&self, host: u8, port: u16) -> std::net::SocketAddr {
        // Two hosts share each address: they fight for it.
        addr(&format!("192.0.2.{}:{port}", host / 2 + 1))
    }

    fn apply(&mut self, step: Step) {
        let id = self.world.id;
        match step {
            Step::Connect { source } => {
                let conn = self.world.connect(addr(&format!("192.0.2.{source}:1")));
                self.remember(conn);
            }
            Step::GetCookie { conn, version: 0 } => self.send(conn, |out| out.extend([0, 2, 0, 0])),
            Step::GetCookie { conn, version } => {
                self.send(conn, |out| GetCookie { highest_version: version, capabilities: 0 }.write(out));
            }
            Step::Register { host, boot, attempt, conn } => {
                let host = Host { boot: [boot; 8], attempt, ..self.hosts[usize::from(host)].clone() };
                self.send(conn, |out| host.register().write(out, &host.key, id, &host.cookie));
            }
            Step::Join { host, boot } => self.join(usize::from(host), boot),
            Step::Befriend { a, b } => {
                for (from, about) in [(a, b), (b, a)] {
                    let about = self.hosts[usize::from(about)].id;
                    self.send(usize::from(from), |out| tcp::write_request_info(out, about));
                }
            }
            Step::Info { conn, number, own } => {
                let own = (0..own).map(|n| addr(&format!("10.0.0.{n}:1"))).collect();
                self.send(conn, |out| Info { number, master_key: [own_key(number); 16], own }.write(out));
            }
            Step::Request { conn, about } => {
                // Some of them never come.
                let about = Host::new(about + 1).id;
                self.send(conn, |out| tcp::write_request_info(out, about));
            }
            Step::Release { conn, about } => {
                let about = self.hosts[usize::from(about)].id;
                self.send(conn, |out| tcp::write_release_info(out, about));
            }
            Step::Leave { conn } => self.send(conn, tcp::write_leave),
            Step::Data { conn, to, length } => {
                let mut message = send_data(self.hosts[usize::from(to)].id, length);
                self.world.frame(self.conns[conn], &mut message);
            }
            Step::Frame { conn, mut bytes } => {
                self.world.frame(self.conns[conn], &mut bytes);
            }
            Step::FramingLost { conn } => {
                self.world.base.handle_malformed(self.conns[conn], Malformed::TooLong, self.world.now);
            }
            Step::Closed { conn } => self.world.base.handle_closed(self.conns[conn], self.world.now),
            Step::NatInit { host, second, port, seq, padded } => {
                let (from, at) = (self.from(host, port), usize::from(host));
                let via = if second { SECOND } else { FIRST };
                self.hosts[at].next_number();
                let number = seq.map_or(self.hosts[at].number, |seq| seq.saturating_sub(1));
                let mut sender = Host { number, ..self.hosts[at].clone() };
                let length = if padded { PADDED_LEN } else { NAT_OK_LEN };
                let bytes = self.world.nat_init_bytes(&mut sender, via, length);
                if let Some(ok) = self.world.exchange(via, from, &bytes) {
                    let confirm = NatConfirm { cookie: ok.cookie, seq: ok.seq, challenge: ok.challenge };
                    self.challenges[at] = Some((via, confirm));
                }
            }
            Step::NatConfirm { host, port } => {
                if let Some((via, confirm)) = self.challenges[usize::from(host)] {
                    self.world.exchange(via, self.from(host, port), &confirm.encode());
                }
            }
            Step::DataUdp { port, host, to, length } => {
                let message = send_data(self.hosts[usize::from(to)].id, length);
                self.world.datagram(FIRST, self.from(host, port), &message);
            }
            Step::Datagram { port, bytes } => {
                self.world.exchange(FIRST, addr(&format!("192.0.2.200:{port}")), &bytes);
            }
            Step::Overflow { from, to } => {
                let [from, to] = [from, to].map(|n| self.hosts[usize::from(n)].id);
                self.world.base.handle_overflow(Ticket { from, to }, 1, self.world.now);
            }
            Step::Wait { ms: wait } => self.world.advance(ms(wait)),
            // Rarely: nothing much happens afterwards.
            Step::Drain { seconds: u16::MAX } => {}
            Step::Drain { seconds } => {
                self.world.base.drain(seconds, self.world.now);
                self.drained = true;
            }
        }
        self.world.flush();
    }

    fn join(&mut self, at: usize, boot: u8) {
        let mut host = self.hosts[at].clone();
        let conn = self.world.connect(host.tcp);
        self.conns[at] = conn;
        host.boot = [boot; 8];
        host.number = 0;
        self.world.write(conn, |out| GetCookie { highest_version: 1, capabilities: 0 }.write(out));
        let frames = self.world.read(conn);
        let [tcp::BaseFrame::BaseHello(hello)] = &frames[..] else { return };
        host.cookie = hello.cookie;
        host.attempt += 1;
        let id = self.world.id;
        self.world.write(conn, |out| host.register().write(out, &host.key, id, &host.cookie));
        self.hosts[at] = host;
    }

    fn send(&mut self, conn: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.world.write(self.conns[conn], write);
    }

    fn check(&self) {
        let sizes = self.world.base.sizes();
        assert!(sizes.devices <= 4, "{sizes:?}");
        assert!(sizes.cookies == sizes.devices, "{sizes:?}");
        assert!(sizes.unfinished <= 4, "{sizes:?}");
        assert!(sizes.connections <= sizes.devices + sizes.unfinished, "{sizes:?}");
        // Four bindings a session, and four of the one before.
        assert!(sizes.bound_addresses <= 8 * sizes.devices, "{sizes:?}");
        assert!(sizes.interests <= 8, "{sizes:?}");
        assert!(sizes.absent_interests <= 4, "{sizes:?}");
        assert!(sizes.replaced_boots <= 3, "{sizes:?}");
        assert!(sizes.sources <= 3 * 5, "{sizes:?}");
        let things = sizes.devices + sizes.unfinished + sizes.interests + 2;
        assert!(sizes.deadlines <= things, "{sizes:?}");
        assert_eq!(sizes.outputs, 0, "{sizes:?}");
    }
}

fn own_key(number: u64) -> u8 {
    (number % 3) as u8
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn anything_in_any_order_is_survived_within_bounds(steps in steps()) {
        let mut chaos = Chaos::new();
        for step in steps {
            chaos.apply(step);
            chaos.check();
        }
        // Every timer runs out, nothing is left behind, and the base still works.
        chaos.world.advance(base_world::secs(1_400));
        chaos.check();
        let sizes = chaos.world.base.sizes();
        prop_assert_eq!((sizes.devices, sizes.connections, sizes.interests), (0, 0, 0));
        prop_assert_eq!((sizes.bound_addresses, sizes.absent_interests, sizes.replaced_boots), (0, 0, 0));
        if !chaos.drained {
            let (mut a, mut b) = (Host::new(101), Host::new(102));
            chaos.world.join(&mut a);
            chaos.world.join(&mut b);
            chaos.world.befriend(&a, &b);
            prop_assert_eq!(base_world::over_udp(chaos.world.data_tcp(&a, b.id, 1_200)), Some(b.udp));
        }
    }
}
