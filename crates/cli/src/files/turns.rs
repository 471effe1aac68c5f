//! Whose turn it is to write a file: one stream at a time has it, for each sender and name.
//!
//! A sender that was killed leaves a stream behind that looks alive for a while. When it sends the file again, the new stream takes the
//! turn from the one that stands still, and goes on from what that one has written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline::DeviceId;
use tokio::{
    sync::{Notify, OwnedMutexGuard},
    time::{Instant, timeout},
};

/// A stream on which nothing has come for so long stands still.
const STILL: Duration = Duration::from_secs(2);
/// How long the one before may take to write what it has.
const HANDING_OVER: Duration = Duration::from_secs(10);

/// All files that are being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Places>>);

/// By sender and name.
type Places = HashMap<(DeviceId, String), Arc<Place>>;

#[derive(Debug)]
struct Place {
    turn: Arc<tokio::sync::Mutex<()>>,
    heard: Mutex<Instant>,
    wanted: Notify,
}

/// The turn of one stream.
#[derive(Debug)]
pub(crate) struct Turn {
    place: Arc<Place>,
    _turn: OwnedMutexGuard<()>,
}

impl Turns {
    /// Takes the turn; `None` while another stream has it and goes on.
    pub(crate) async fn take(&self, from: DeviceId, name: &str) -> Option<Turn> {
        let place = self.place(from, name);
        let still = || place.last_heard().elapsed() >= STILL;
        let turn = || Arc::clone(&place.turn).lock_owned();
        // Who has it may have been killed a moment ago: that shows once what had come from him by then is written.
        let deadline = Instant::now() + 2 * STILL;
        let turn = loop {
            let patience = STILL.saturating_sub(place.last_heard().elapsed());
            match timeout(patience, turn()).await {
                Ok(turn) => break turn,
                Err(_) if still() => {
                    place.wanted.notify_waiters();
                    break timeout(HANDING_OVER, turn()).await.ok()?;
                }
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => {}
            }
        };
        let turn = Turn { place, _turn: turn };
        turn.goes_on();
        Some(turn)
    }

    fn place(&self, from: DeviceId, name: &str) -> Arc<Place> {
        // Nothing panics while it holds this lock.
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| Arc::strong_count(place) > 1);
        let place = places.entry((from, name.to_owned())).or_insert_with(|| {
            let heard = Mutex::new(Instant::now());
            Arc::new(Place { turn: Arc::default(), heard, wanted: Notify::new() })
        });
        Arc::clone(place)
    }
}

impl Turn {
    /// Something has come.
    pub(crate) fn goes_on(&self) {
        *self.place.last_heard() = Instant::now();
    }

    /// Waits until another stream wants the turn, while this one stands still.
    pub(crate) async fn is_wanted(&self) {
        self.place.wanted.notified().await;
    }
}

impl Place {
    fn last_heard(&self) -> MutexGuard<'_, Instant> {
        // Nothing panics while it holds this lock.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: DeviceId = DeviceId::from_bytes([7; 14]);

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_keeps_its_turn_and_one_that_stands_still_hands_it_over() {
        let turns = Turns::default();
        let first = turns.take(SENDER, "x").await.unwrap();
        assert!(turns.take(DeviceId::from_bytes([8; 14]), "x").await.is_some());
        assert!(turns.take(SENDER, "y").await.is_some());
        let going_on = async {
            for _ in 0..5 {
                tokio::time::sleep(STILL / 2).await;
                first.goes_on();
            }
        };
        let ((), refused) = tokio::join!(going_on, turns.take(SENDER, "x"));
        assert!(refused.is_none());
        let handing = async {
            first.is_wanted().await;
            drop(first);
        };
        let ((), second) = tokio::join!(handing, turns.take(SENDER, "x"));
        assert!(second.is_some());
        drop(second);
        assert!(turns.take(SENDER, "x").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_hand_over_keeps_its_turn() {
        let turns = Turns::default();
        let _first = turns.take(SENDER, "x").await.unwrap();
        assert!(turns.take(SENDER, "x").await.is_none());
    }
}
