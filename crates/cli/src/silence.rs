//! A peer that says nothing: told of as soon as a person would wonder, long before its connection is given up.
//!
//! An idle connection is silent, too, and that is well. So silence counts from the first packet that asks for an answer and gets none.

use std::time::{Duration, Instant};

use bowline_quic::{
    IDLE,
    quinn::{Connection, ConnectionStats},
};

use crate::{notes::note, output::age, progress};

/// Silence that is told of.
const SILENT: Duration = Duration::from_secs(5);
/// Between two looks: what was asked before something was heard for the last time does not count, so the shorter the better.
const LOOK: Duration = Duration::from_millis(250);

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Silent,
    /// It answers again, after so long.
    Back(Duration),
}

/// What was sent and heard up to the last look.
#[derive(Debug, Default)]
struct Silence {
    heard: u64,
    /// Of what asks for an answer, how much had been sent when something was heard last.
    asked: u64,
    since: Option<Instant>,
    told: bool,
}

impl Silence {
    fn look(&mut self, heard: u64, asked: u64, now: Instant) -> Option<Told> {
        if heard != self.heard {
            let before = std::mem::replace(self, Self { heard, asked, since: None, told: false });
            let since = before.since.filter(|_| before.told)?;
            return Some(Told::Back(now.saturating_duration_since(since)));
        }
        if asked == self.asked {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if self.told || now.saturating_duration_since(since) < SILENT {
            return None;
        }
        self.told = true;
        Some(Told::Silent)
    }
}

/// Packets received, and frames sent that the other end has to answer.
const fn figures(stats: &ConnectionStats) -> (u64, u64) {
    let sent = &stats.frame_tx;
    let asked = sent.stream + sent.ping + sent.reset_stream + sent.stop_sending + sent.max_data;
    (stats.udp_rx.datagrams, asked + sent.max_stream_data)
}

/// Tells of a device's silences until its connection ends.
pub(crate) fn watch(name: String, connection: &Connection) {
    let connection = connection.clone();
    tokio::spawn(async move {
        let mut silence = Silence::default();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = connection.closed() => return,
                _ = looks.tick() => {}
            }
            let (heard, asked) = figures(&connection.stats());
            match silence.look(heard, asked, Instant::now()) {
                None => {}
                Some(Told::Silent) => {
                    let (silent, most) = (SILENT.as_secs(), IDLE.as_secs());
                    let sentence = format!("{name} has been silent for {silent} s; waiting (up to {most} s)");
                    note(&sentence);
                    progress::show_silence();
                }
                Some(Told::Back(after)) => note(&format!("{name} answers again, after {}", age(after))),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_without_an_answer_make_a_silence_and_it_is_told_once() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let mut look =
            |heard, asked, seconds: u64| silence.look(heard, asked, start + Duration::from_secs(seconds));
        assert_eq!(look(10, 10, 0), None);
        // Nothing is asked: that may go on for ever.
        assert_eq!(look(10, 10, 100), None);
        assert_eq!(look(10, 11, 101), None);
        assert_eq!(look(10, 12, 105), None);
        assert_eq!(look(10, 12, 106), Some(Told::Silent));
        assert_eq!(look(10, 13, 120), None);
        assert_eq!(look(11, 13, 121), Some(Told::Back(Duration::from_secs(20))));
        // An answer in time begins anew.
        assert_eq!(look(11, 14, 122), None);
        assert_eq!(look(12, 14, 125), None);
        assert_eq!(look(12, 15, 126), None);
        assert_eq!(look(12, 15, 130), None);
    }
}
