//! Short messages of a batch share datagrams with a peer that takes them so, and with no other.

mod common;

use std::net::SocketAddr;

use bowline::{Endpoint, SecretKey};
use bowline_proto::wire::peer::{
    Hello, HelloReply, IntroductionKey, PeerDatagram, SAYING_HELLO_LEN, TAKES_JOINED,
};
use bytes::Bytes;
use common::{base, become_direct, key, of_every_size, online, receive_batch, soon};
use tokio::net::UdpSocket;

/// The other end of a direct path as it is on the wire.
struct Bare {
    socket: UdpSocket,
    key: SecretKey,
    of: SocketAddr,
}

impl Bare {
    /// An endpoint and its peer, which says in its HELLO what it takes. The endpoint has a path for messages of 1,200 bytes.
    async fn connected(takes: u8) -> (Endpoint, Self) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let peer = key(100);
        let endpoint = Endpoint::builder(key(101))
            .link_local(false)
            .given(peer.device_id(), socket.local_addr().unwrap())
            .bind()
            .await
            .unwrap();
        let mut events = endpoint.events();
        endpoint.want(peer.device_id()).unwrap();
        let of = (std::net::Ipv4Addr::LOCALHOST, endpoint.ports().0.unwrap()).into();
        let bare = Self { socket, key: peer, of };
        let hello =
            Hello::encode(endpoint.id(), [5; 16], &IntroductionKey::NONE, &bare.key, takes, SAYING_HELLO_LEN);
        bare.socket.send_to(&hello, bare.of).await.unwrap();
        let mut is_heard = false;
        soon("direct", async {
            while !is_heard || endpoint.max_direct(bare.key.device_id()) < Some(1200) {
                tokio::select! {
                    datagram = bare.receive() => {
                        is_heard |= matches!(PeerDatagram::decode(&datagram), Ok(PeerDatagram::HelloReply(_)));
                    }
                    // Perhaps that the path carries more.
                    _ = events.next() => {}
                }
            }
        })
        .await;
        (endpoint, bare)
    }

    /// The next datagram. HELLOs are answered.
    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
        buffer.truncate(length);
        if let Ok(PeerDatagram::Hello(hello)) = PeerDatagram::decode(&buffer) {
            let claim = hello.claim();
            let reply = HelloReply::encode(claim.initiator, claim.token, &self.key);
            self.socket.send_to(&reply, from).await.unwrap();
        }
        assert_eq!(from, self.of);
        buffer
    }

    /// So many messages, and in how many datagrams they came.
    async fn messages(&self, count: usize) -> (Vec<Vec<u8>>, usize) {
        let (mut messages, mut datagrams) = (Vec::new(), 0);
        while messages.len() < count {
            let datagram = soon("received", self.receive()).await;
            let before = messages.len();
            match PeerDatagram::decode(&datagram).unwrap() {
                PeerDatagram::Data(data) => messages.push(data.to_vec()),
                PeerDatagram::Joined { size, data } => messages.extend(data.chunks(size).map(<[u8]>::to_vec)),
                _ => {}
            }
            datagrams += usize::from(messages.len() > before);
            assert!(datagram.len() <= 1209, "{} bytes, more than the path is known to carry", datagram.len());
        }
        (messages, datagrams)
    }
}

/// Messages that can be told apart.
fn numbered(count: u32, size: usize) -> Vec<Vec<u8>> {
    let number = |number: u32| [&number.to_be_bytes()[..], &[b'.'].repeat(size - 4)].concat();
    (0..count).map(number).collect()
}

/// Sends 100 messages in every form that the library has; in so many datagrams each is to leave.
async fn sends(takes: u8, forms: [(&str, usize); 3]) {
    let (a, b) = Bare::connected(takes).await;
    let sent = numbered(100, 100);
    let batch: Vec<Bytes> = sent.iter().cloned().map(Bytes::from).collect();
    let to = b.key.device_id();
    // The first message of all asks for the way, and leaves by itself.
    a.send(to, b"first").await.unwrap();
    assert_eq!(b.messages(1).await, (vec![b"first".to_vec()], 1));
    for (form, expected) in forms {
        match form {
            "batch" => assert_eq!(a.send_batch(to, &batch).await, Ok(100)),
            "segments" => assert_eq!(a.send_segments(to, &sent.concat(), 100).await, Ok(100)),
            _ => {
                for message in &sent {
                    a.send(to, message).await.unwrap();
                }
            }
        }
        let (got, datagrams) = b.messages(100).await;
        assert_eq!(got, sent, "{form}");
        assert_eq!(datagrams, expected, "{form}");
    }
}

#[tokio::test]
async fn to_a_peer_that_takes_them_so_eleven_of_100_bytes_of_a_batch_leave_in_one_datagram() {
    sends(TAKES_JOINED, [("batch", 10), ("segments", 10), ("one by one", 100)]).await;
}

#[tokio::test]
async fn to_a_peer_that_has_not_said_so_each_leaves_by_itself() {
    sends(0, [("batch", 100), ("segments", 100), ("one by one", 100)]).await;
}

#[tokio::test]
async fn messages_of_every_size_arrive_whole_and_in_order() {
    let base = base().await;
    let (a, b) = (online(1, &base).await, online(2, &base).await);
    become_direct(&a, &b).await;
    let sent = of_every_size(600);
    assert_eq!(a.send_batch(b.id(), &sent).await, Ok(600));
    let got = receive_batch(&b, 600).await;
    assert!(got.iter().map(|got| &got.data).eq(&sent));
    // Each by itself, and what must not be joined among them.
    for message in &sent {
        a.send(b.id(), message).await.unwrap();
    }
    let got = receive_batch(&b, 600).await;
    assert!(got.iter().map(|got| &got.data).eq(&sent));
    assert_eq!(b.status().counters.malformed, 0);
}
