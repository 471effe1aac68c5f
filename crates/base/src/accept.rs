//! Accepts connections and hands them to the owner. When the system has no more descriptors it waits instead of
//! spinning: those that are served go on meanwhile.

use std::{io, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, time::sleep};

use crate::owner::Event;

/// The first pause after an error that another connection would meet, too; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn accept(listener: TcpListener, listening: usize, events: mpsc::Sender<Event>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                pause = FIRST_PAUSE;
                if events.send(Event::Accepted { stream, remote, listening }).await.is_err() {
                    return;
                }
            }
            Err(error) if is_of_the_connection(&error) => tracing::debug!(%error, "accept"),
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// An error that is over with the connection that caused it.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
