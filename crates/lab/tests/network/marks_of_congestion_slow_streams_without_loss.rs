//! Row 2 of the issue about streams, ECN where the path has it: QUIC marks what goes directly, a router's marks slow it down though nothing is
//! lost, and it does without where a path takes marks off. A connection that begins through the base, or goes by it for a while, loses
//! nothing by it.
//!
//! What QUIC makes of the marks is seen from inside alone, so the two ends are the library, in this process; the base is the program.

use std::thread;

use bowline_lab::{Home, Internet, Nat, Node, program::Base, with_bowline};
use bowline_quic::{
    Endpoint, Listen,
    bowline::{self, Allow, BaseName, DeviceId, Path, SecretKey},
    quinn::Connection,
};
use tokio::{
    runtime,
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{A_ROUND, BASE, OFTEN, SOON};

const SERVICE: &str = "echo/1";
/// What goes there and back in one piece: less than any buffer on the way, so that nothing is lost for want of room.
const PIECE: usize = 32 * 1024;
const PIECES: u32 = 30;

/// What leaves the home of the one who sends, by its mark and where it goes; counted before anything is changed.
const COUNT: &str = "table ip count {
  counter marked { }
  counter marked_to_base { }
  chain forward { type filter hook forward priority filter - 2; policy accept;
    ip daddr 203.0.113.1 meta l4proto udp ip ecn ect0 counter name marked
    ip daddr 203.0.113.10 ip ecn != not-ect counter name marked_to_base
  }
}";

/// A router on the way that is congested all the time.
const CONGESTED: &str = "table ip change {
  chain forward { type filter hook forward priority filter - 1; policy accept;
    ip daddr 203.0.113.1 ip ecn ect0 ip ecn set ce
  }
}";

/// One that takes marks off.
const BLEACHES: &str = "table ip change {
  chain forward { type filter hook forward priority filter - 1; policy accept;
    ip daddr 203.0.113.1 ip ecn set not-ect
  }
}";

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

/// Does something with an endpoint on that machine.
fn on<T: Send>(node: &Node, number: u8, base: &BaseName, body: impl AsyncFnOnce(Endpoint) -> T + Send) -> T {
    node.enter(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let builder = bowline::Endpoint::builder(key(number)).link_local(false).base(base.clone());
            let bowline = builder.direct(number == 1).bind().await.expect("sockets can be had");
            timeout(SOON, bowline.online()).await.expect("registered").expect("not closed");
            body(Endpoint::new(bowline, &key(number)).expect("a key of its own")).await
        })
    })
}

/// Sends back all that comes.
async fn echo(endpoint: Endpoint) {
    let listen = Listen::new([SERVICE]).allow(Allow::Everyone);
    let mut listener = endpoint.listen(listen).expect("nobody listens yet");
    let accepted = listener.accept().await.expect("not closed");
    while let Ok((mut send, mut receive)) = accepted.connection.accept_bi().await {
        let all = receive.read_to_end(PIECE).await.expect("a piece");
        send.write_all(&all).await.expect("taken");
        send.finish().expect("once");
    }
}

async fn there_and_back(connection: &Connection, pieces: u32) {
    for _ in 0..pieces {
        let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
        send.write_all(&[7; PIECE]).await.expect("taken");
        send.finish().expect("once");
        let back = timeout(A_ROUND, receive.read_to_end(PIECE)).await.expect("in time").expect("an answer");
        assert_eq!(back.len(), PIECE);
    }
}

/// The one who sends.
struct Sender<'a> {
    endpoint: Endpoint,
    connection: Connection,
    peer: DeviceId,
    home: &'a Home,
}

impl Sender<'_> {
    /// Allows direct paths or not, and waits until the connection's packets go accordingly.
    async fn go(&self, direct: bool) {
        let bowline = self.endpoint.bowline();
        bowline.set_direct(direct);
        let there = async {
            while (bowline.max_direct(self.peer) >= Some(1200)) != direct {
                there_and_back(&self.connection, 1).await;
                sleep(OFTEN).await;
            }
        };
        let path = || bowline.peer(self.peer).map_or(Path::None, |peer| peer.path);
        timeout(A_ROUND, there).await.unwrap_or_else(|_| panic!("not direct: {direct}, but {}", path()));
        // What was on its way before has come.
        there_and_back(&self.connection, 2).await;
    }

    /// Packets that one of the counters has seen since it was asked last.
    fn count(&self, counter: &str) -> u64 {
        let mut command = self.home.router.command("nft");
        let output = command.args(["reset", "counter", "ip", "count", counter]).output().expect("nft runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let number = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no count in {text:?}"))
    }

    /// Marked packets while so many pieces go there and back; the congestion and the losses that QUIC has met meanwhile.
    async fn exchange(&self) -> (u64, u64, u64) {
        let (before, _) = (self.connection.stats().path, self.count("marked"));
        there_and_back(&self.connection, PIECES).await;
        let after = self.connection.stats().path;
        let losses = after.lost_packets - before.lost_packets;
        (self.count("marked"), after.congestion_events - before.congestion_events, losses)
    }
}

#[test]
fn quic_marks_its_packets_on_direct_paths_and_a_router_that_marks_them_slows_it_without_loss() {
    with_bowline(|lab| {
        let internet = Internet::new(lab);
        let base = Base::start(&internet.server(lab, "base", 10), &BASE[..1]);
        let name: BaseName = base.names()[0].parse().expect("a name");
        let [left, right] = [1, 2].map(|number| internet.home(lab, number, Nat::Home));
        let (receiver, sender) = (left.device_v4(lab, "receiver", 2), right.device_v4(lab, "sender", 2));
        right.router.nft(COUNT);
        thread::scope(|scope| {
            let (going_on, ended) = oneshot::channel::<()>();
            let echo = async |endpoint| {
                tokio::select! {
                    () = echo(endpoint) => {}
                    // However the sender ends.
                    _ = ended => {}
                }
            };
            scope.spawn(|| on(&receiver, 1, &name, echo));
            on(&sender, 2, &name, async |endpoint| {
                let _going_on = going_on;
                let peer = key(1).device_id();
                let connection = endpoint.connect(peer, SERVICE.as_bytes()).await.expect("connected");
                let sender = Sender { endpoint, connection, peer, home: &right };

                let (marked, ..) = sender.exchange().await;
                assert_eq!(
                    (marked, sender.count("marked_to_base")),
                    (0, 0),
                    "through the base there are none"
                );

                sender.go(true).await;
                let (marked, events, losses) = sender.exchange().await;
                lab.measured(&format!("direct: {marked} marked, {events} times congested, {losses} lost"));
                assert!(marked >= u64::from(PIECES), "begun through the base, it marks what goes directly");
                assert!(events <= losses, "nobody said that there is congestion");

                right.router.nft(CONGESTED);
                let (marked, events, losses) = sender.exchange().await;
                lab.measured(&format!("congested: {marked} marked, {events} times congested, {losses} lost"));
                assert!(events > losses, "it has heard of the congestion without a loss");
                right.router.nft("delete table ip change");

                sender.go(false).await;
                let (marked, ..) = sender.exchange().await;
                assert_eq!(
                    (marked, sender.count("marked_to_base")),
                    (0, 0),
                    "through the base there are none"
                );
                sender.go(true).await;
                let (marked, ..) = sender.exchange().await;
                assert!(
                    marked >= u64::from(PIECES),
                    "{marked}: a while through the base has taken nothing away"
                );

                right.router.nft(BLEACHES);
                there_and_back(&sender.connection, 2).await;
                let (marked, ..) = sender.exchange().await;
                assert_eq!(marked, 0, "a path that takes marks off is used without");
                sender.endpoint.close().await;
            });
        });
    });
}
