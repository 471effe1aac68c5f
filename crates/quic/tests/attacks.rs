//! Who is in between, or pretends to be another: refused, with the reason.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline::{Allow, DeviceId};
use bowline_quic::{Accepted, ConnectError, Endpoint, Listen, SetupError, quinn::Connection};
use common::{
    Liar, SERVICE, accept, base, bowline, by_tcp, bytes, echo, endpoint, id, key, listen, soon, swap,
    unchanged,
};

const VICTIM: u8 = 2;
const MALLORY: u8 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_hands_the_handshake_to_another_device_is_found_out_by_the_key() {
    let (name, address) = base().await;
    let mallory = by_tcp(MALLORY, &name).await;
    echo(listen(&mallory));
    let liar = Liar::new(&name, address, swap(id(VICTIM), id(MALLORY)), swap(id(MALLORY), id(VICTIM))).await;
    let a = by_tcp(1, &liar.name).await;
    let refused = soon("refused", a.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap_err();
    let ConnectError::OtherKey { device, shown } = refused else { panic!("{refused}") };
    assert_eq!((device, shown), (id(VICTIM), id(MALLORY)));
    let sentence = ConnectError::OtherKey { device, shown }.to_string();
    assert!(
        sentence.contains(&id(VICTIM).to_string()) && sentence.contains("nothing was sent"),
        "{sentence}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_agrees_in_all_but_its_last_byte_is_not_the_one_that_was_dialled() {
    let (name, address) = base().await;
    let mut bytes = *id(MALLORY).as_bytes();
    bytes[13] ^= 0x80;
    let similar = DeviceId::from_bytes(bytes);
    let mallory = by_tcp(MALLORY, &name).await;
    echo(listen(&mallory));
    let liar = Liar::new(&name, address, swap(similar, id(MALLORY)), swap(id(MALLORY), similar)).await;
    let a = by_tcp(1, &liar.name).await;
    let refused = soon("refused", a.connect(similar, SERVICE.as_bytes())).await.unwrap_err();
    assert!(matches!(refused, ConnectError::OtherKey { shown, .. } if shown == id(MALLORY)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_changed_on_the_way_never_arrive() {
    let (name, address) = base().await;
    let victim = by_tcp(VICTIM, &name).await;
    echo(listen(&victim));
    let (count, changed) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&changed);
    let flip: common::Change = Arc::new(move |frame| {
        // Data, not control; each tenth of them.
        if frame.len() > 200 && count.fetch_add(1, Relaxed) % 10 == 9 {
            let at = frame.len() - 30;
            frame[at] ^= 0x55;
            counted.fetch_add(1, Relaxed);
        }
    });
    let liar = Liar::new(&name, address, flip, unchanged()).await;
    let a = by_tcp(1, &liar.name).await;
    let connection = soon("connected", a.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let data = bytes(300_000);
    let sent = data.clone();
    tokio::spawn(async move {
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
    });
    assert!(soon("echoed", receive.read_to_end(1_000_000)).await.unwrap() == data);
    assert!(changed.load(Relaxed) > 10, "only {} frames were changed", changed.load(Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_opens_nothing_when_it_is_played_again() {
    let (name, address) = base().await;
    let victim = by_tcp(VICTIM, &name).await;
    let mut listener = listen(&victim);
    let liar = Liar::new(&name, address, unchanged(), unchanged()).await;
    let a = by_tcp(1, &liar.name).await;
    let connection = soon("connected", a.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(b"open the door").await.unwrap();
    let accepted = accept(&mut listener).await;
    let (_, mut command) = soon("opened", accepted.connection.accept_bi()).await.unwrap();
    soon("read", command.read_chunk(100, true)).await.unwrap().unwrap();
    connection.close(0u32.into(), b"");
    soon("ended", accepted.connection.closed()).await;

    let recorded = liar.seen.lock().unwrap().clone();
    assert!(recorded.len() > 3);
    for frame in recorded.iter().filter(|frame| frame.windows(14).any(|part| part == id(VICTIM).as_bytes())) {
        liar.put_in(frame.clone());
    }
    // What comes in order behind the replay is the first that is accepted.
    let honest = endpoint(4, &name).await;
    let _connection = soon("connected", honest.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
    assert_eq!(accept(&mut listener).await.device, id(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_in_the_allow_list_opens_no_stream_and_is_told_why() {
    let (name, _) = base().await;
    let (victim, friend, stranger) =
        (endpoint(VICTIM, &name).await, endpoint(1, &name).await, endpoint(MALLORY, &name).await);
    let only = Listen::new([SERVICE]).allow(Allow::Only([id(1)].into()));
    let mut listener = victim.listen(only).unwrap();
    // The handshake of who dials is over before its key is looked at.
    let reason = match soon("refused", stranger.connect(id(VICTIM), SERVICE.as_bytes())).await {
        Err(error) => error.to_string(),
        Ok(connection) => stranger.explain(id(VICTIM), &soon("refused", connection.closed()).await),
    };
    assert!(reason.contains("allow list") && reason.contains(&id(MALLORY).to_string()), "{reason}");
    let _connection = soon("connected", friend.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
    assert_eq!(accept(&mut listener).await.device, id(1), "and not the stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_can_be_refused_before_it_costs_a_handshake() {
    let (name, _) = base().await;
    let (victim, stranger) = (endpoint(VICTIM, &name).await, endpoint(MALLORY, &name).await);
    let only = Listen::new([SERVICE]).allow(Allow::Only([id(1)].into())).under_own_id(true);
    let _listener = victim.listen(only).unwrap();
    let refused = soon("refused", stranger.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap_err();
    assert!(refused.to_string().contains("refused the connection"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dials_may_run_under_another_id_and_is_known_by_its_key() {
    let (name, _) = base().await;
    let victim = endpoint(VICTIM, &name).await;
    let mut listener = victim.listen(Listen::new([SERVICE]).allow(Allow::Only([id(1)].into()))).unwrap();
    let passing = Endpoint::new(bowline(99, &name, |builder| builder).await, &key(1)).unwrap();
    let _connection = soon("connected", passing.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
    assert_eq!(accept(&mut listener).await.device, id(1));
    // But nobody who dials it would accept that key.
    assert!(matches!(passing.listen(Listen::new([SERVICE])), Err(SetupError::OtherKey { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_come_in_unless_it_is_said_who() {
    let (name, _) = base().await;
    let (victim, other) = (endpoint(VICTIM, &name).await, endpoint(1, &name).await);
    let _listener = victim.listen(Listen::new([SERVICE])).unwrap();
    let reason = match soon("refused", other.connect(id(VICTIM), SERVICE.as_bytes())).await {
        Err(error) => error.to_string(),
        Ok(connection) => other.explain(id(VICTIM), &soon("refused", connection.closed()).await),
    };
    assert!(reason.contains("allow list"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_said_to_be_not_there() {
    let (name, _) = base().await;
    let (victim, other) = (endpoint(VICTIM, &name).await, endpoint(1, &name).await);
    let _listener = listen(&victim);
    let refused = soon("refused", other.connect(id(VICTIM), b"another/1")).await.unwrap_err();
    assert!(refused.to_string().contains("does not offer this"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_answer_is_told_with_what_is_known_of_the_way() {
    let (name, _) = base().await;
    let a = endpoint(1, &name).await;
    let within = Duration::from_secs(1);
    let refused = soon("given up", a.connect_within(within, id(77), SERVICE.as_bytes())).await.unwrap_err();
    assert!(refused.to_string().contains("did not answer within 1 s"), "{refused}");
    assert!(refused.to_string().contains(&id(77).to_string()), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_sixty_four_connections_and_takes_nobody_elses() {
    let (name, _) = base().await;
    let (victim, greedy) = (endpoint(VICTIM, &name).await, endpoint(MALLORY, &name).await);
    let mut listener = listen(&victim);
    let mut held = Vec::new();
    for _ in 0..64 {
        let connection = soon("connected", greedy.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
        held.push((connection, accept(&mut listener).await));
    }
    let within = Duration::from_secs(2);
    let one_more = greedy.connect_within(within, id(VICTIM), SERVICE.as_bytes()).await;
    assert!(matches!(one_more, Err(ConnectError::NoAnswer { .. })), "{one_more:?}");
    let modest = endpoint(1, &name).await;
    let _connection = soon("connected", modest.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
    assert_eq!(accept(&mut listener).await.device, id(1));
    // And what was given back can be had again.
    held.clear();
    soon("connected", greedy.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_ever_more_connections_has_less_held_for_each() {
    const MIB: usize = 1024 * 1024;
    let (name, _) = base().await;
    let (victim, greedy) = (endpoint(VICTIM, &name).await, endpoint(MALLORY, &name).await);
    let mut listener = listen(&victim);
    let mut held = Vec::new();
    for _ in 0..17 {
        let connection = soon("connected", greedy.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
        held.push((connection, accept(&mut listener).await));
    }
    // Nobody reads. The sender has to wait on the last, and not on the first.
    let send = async |connection: &Connection| {
        let mut stream = connection.open_uni().await.unwrap();
        tokio::spawn(async move {
            let _ = stream.write_all(&vec![0x5a; 4 * MIB]).await;
            let _ = stream.stopped().await;
        });
    };
    let received = |accepted: &Accepted| accepted.connection.stats().udp_rx.bytes as usize;
    let (first, last) = (&held[0], held.last().unwrap());
    send(&last.0).await;
    let wait = async {
        while last.0.stats().frame_tx.data_blocked == 0 || received(&last.1) < MIB / 2 {
            tokio::task::yield_now().await;
        }
    };
    soon("blocked", wait).await;
    send(&first.0).await;
    let wait = async {
        while received(&first.1) < 4 * MIB {
            tokio::task::yield_now().await;
        }
    };
    soon("received", wait).await;
    assert!(received(&last.1) < MIB, "{}", received(&last.1));
    assert_eq!(first.0.stats().frame_tx.data_blocked, 0);
    // Once it is read, all of it comes.
    let mut stream = last.1.connection.accept_uni().await.unwrap();
    let read = soon("read", stream.read_exact(&mut vec![0; 4 * MIB])).await;
    assert!(read.is_ok(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_keeps_no_friend_out() {
    let (name, _) = base().await;
    let victim = endpoint(VICTIM, &name).await;
    let mut listener = victim.listen(Listen::new([SERVICE]).allow(Allow::Only([id(1)].into()))).unwrap();
    for number in 10..14 {
        let stranger = endpoint(number, &name).await;
        for _ in 0..100 {
            let stranger = stranger.clone();
            tokio::spawn(async move {
                let _ = stranger.connect(id(VICTIM), SERVICE.as_bytes()).await;
            });
        }
    }
    let friend = endpoint(1, &name).await;
    let _connection = soon("connected", friend.connect(id(VICTIM), SERVICE.as_bytes())).await.unwrap();
    assert_eq!(accept(&mut listener).await.device, id(1));
}
