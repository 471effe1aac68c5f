//! Marks of congestion (ECN, RFC 3168): on direct paths each message arrives with its own, through a base with none.

mod common;

use bowline::{Ecn, Endpoint, Path};
use bytes::Bytes;
use common::{base, become_direct, online, receive, with};

const MARKS: [Ecn; 4] = [Ecn::Ect0, Ecn::NotEct, Ecn::Ce, Ecn::Ect1];

/// Messages that begin with their number; what mark each has depends on it.
fn batch(count: u8, mark: impl Fn(u8) -> Ecn) -> Vec<(Bytes, Ecn)> {
    (0..count).map(|number| (Bytes::from(vec![number; 1000]), mark(number))).collect()
}

/// So many messages that came directly, by what they hold. On a busy machine some come through the base as well, or instead of an
/// answer that is late: those have no mark.
async fn directly(endpoint: &Endpoint, count: usize) -> Vec<(Bytes, Ecn)> {
    let mut got = Vec::new();
    while got.len() < count {
        let datagram = receive(endpoint).await;
        if let Path::Direct(_) = datagram.path {
            got.push((datagram.data, datagram.ecn));
        } else {
            assert_eq!(datagram.ecn, Ecn::NotEct, "{}", datagram.path);
        }
    }
    got.sort_by(|a, b| a.0.cmp(&b.0));
    got
}

#[tokio::test]
async fn on_a_direct_path_each_message_of_a_batch_arrives_with_its_mark() {
    let base = base().await;
    let (a, b) = (online(1, &base).await, online(2, &base).await);
    b.read_ecn(true);
    become_direct(&a, &b).await;
    // In turn, and in runs that the system cuts into datagrams and brings together again.
    for length in [1, 7, 60] {
        let sent = batch(200, |number| MARKS[usize::from(number) / length % 4]);
        assert_eq!(a.send_batch_marked(b.id(), &sent).await, Ok(200));
        assert_eq!(directly(&b, 200).await, sent);
    }
    // What goes without does so among the others, too.
    a.send(b.id(), &[0; 1000]).await.unwrap();
    a.send_batch_marked(b.id(), &[(Bytes::from(vec![1; 1000]), Ecn::Ce)]).await.unwrap();
    a.send(b.id(), &[2; 1000]).await.unwrap();
    let sent = batch(3, |number| if number == 1 { Ecn::Ce } else { Ecn::NotEct });
    assert_eq!(directly(&b, 3).await, sent);
}

#[tokio::test]
async fn a_message_that_looks_like_the_protocols_own_keeps_its_mark() {
    let base = base().await;
    let (a, b) = (online(3, &base).await, online(4, &base).await);
    b.read_ecn(true);
    become_direct(&a, &b).await;
    let message = b"\x0bbowline\x01 a HELLO?";
    a.try_send_segments_marked(b.id(), message, message.len(), Ecn::Ect0).unwrap();
    assert_eq!(directly(&b, 1).await, [(Bytes::from_static(message), Ecn::Ect0)]);
}

#[tokio::test]
async fn nobody_sees_marks_who_has_not_asked_for_them() {
    let base = base().await;
    let (a, b) = (online(5, &base).await, online(6, &base).await);
    become_direct(&a, &b).await;
    for asked in [false, true, false] {
        b.read_ecn(asked);
        a.try_send_segments_marked(b.id(), &[1; 3000], 1000, Ecn::Ce).unwrap();
        let seen = if asked { Ecn::Ce } else { Ecn::NotEct };
        assert!(directly(&b, 3).await.iter().all(|&(_, ecn)| ecn == seen));
    }
}

#[tokio::test]
async fn through_a_base_there_are_no_marks() {
    let base = base().await;
    for (numbers, udp) in [([7, 8], true), ([9, 10], false)] {
        let endpoint =
            |number| with(number, |builder| builder.base(base.clone()).direct(false).relay_udp(udp));
        let (a, b) = (endpoint(numbers[0]).await, endpoint(numbers[1]).await);
        b.read_ecn(true);
        let sent = batch(20, |number| MARKS[usize::from(number) % 4]);
        assert_eq!(a.send_batch_marked(b.id(), &sent).await, Ok(20));
        for _ in &sent {
            let got = receive(&b).await;
            assert_eq!(
                (&got.data, got.ecn),
                (&sent[usize::from(got.data[0])].0, Ecn::NotEct),
                "{}",
                got.path
            );
        }
    }
}
