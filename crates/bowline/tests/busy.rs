//! A receiver that had much to do hears of the little that comes later.

mod common;

use std::time::Duration;

use bowline::Endpoint;
use bytes::Bytes;
use common::{base, become_direct, online, receive, soon};
use tokio::time::timeout;

/// After so long one that was dropped is sent again.
const RETRY: Duration = Duration::from_millis(20);

async fn until(endpoint: &Endpoint, message: &[u8]) {
    while receive(endpoint).await.data != message {}
}

#[tokio::test]
async fn after_a_flood_each_single_message_arrives_directly_and_through_the_base() {
    let base = base().await;
    let (a, b) = (online(1, &base).await, online(2, &base).await);
    become_direct(&a, &b).await;
    // Each longer than the one before: none shares a system call, and nothing is merged on the way.
    let flood: Vec<_> = (600..856).map(|length| Bytes::from(vec![b'.'; length])).collect();
    for round in 0..3_u8 {
        a.set_direct(round != 1);
        if round != 1 {
            become_direct(&a, &b).await;
        }
        for _ in 0..40 {
            assert_eq!(a.send_batch(b.id(), &flood).await, Ok(256));
            // As fast as it can, and with little waiting: what does not fit may be dropped.
            while b.try_recv_segments().is_ok_and(|some| some.is_some()) {}
            tokio::task::yield_now().await;
        }
        // What waits still is taken, until one of these has found room.
        let end = [round, 255];
        soon("through", async {
            while timeout(RETRY, until(&b, &end)).await.is_err() {
                a.send(b.id(), &end).await.unwrap();
            }
        })
        .await;
        for number in 0..20 {
            let message = [round, number];
            a.send(b.id(), &message).await.unwrap();
            soon("received", until(&b, &message)).await;
        }
    }
}
