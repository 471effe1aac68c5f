//! A standing direct path and whether it still lives (protocol section 8).
//!
//! Probes promote, only lost data demotes: silence counts only after data went out. A path is watched in steps: data
//! out and nothing in for a while → a HELLO, once more, → suspect (data takes the relay, too) → dropped. Only a reply
//! clears suspicion. Where both sides were talking, silence means more: data takes the relay, too, from the first HELLO on.

use std::time::{Duration, Instant};

use super::{
    Hop,
    config::{PROBE_EVERY, PROOF_LIFE, SILENCE_MIN, SILENCE_TALKING, SIZE_GAPS, SUSPECT_MIN, TALKING},
    context::{Rtt, earlier},
};

const UNCONFIRMED: &str = "nothing confirmed it for 75 seconds";

/// A path that stands.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) hop: Hop,
    /// The last sign of life on it.
    pub(super) heard: Instant,
    pub(super) health: Health,
    /// The last data that came in on it.
    data_heard: Option<Instant>,
    /// The last HELLO that silence caused.
    probed: Option<Instant>,
    /// The next padded HELLO, and how many there were.
    size_probe: Option<(Instant, usize)>,
}

/// What is known of a path's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing is waited for.
    Quiet,
    /// Data went out at this moment and nothing has come since.
    Awaiting(Instant),
    /// A HELLO was sent because of that …
    Probing { first: Instant, again: bool, talking: bool },
    /// … and nothing answers: both ways at once until a reply, or the end.
    Suspect(Instant),
}

/// What a tick asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// A HELLO on this path; `talking`: both sides were sending data on it.
    Probe {
        talking: bool,
    },
    /// A padded HELLO on this path.
    ProbeSize,
    /// It has become suspect: HELLO to all pairs. Before the data that nothing followed, nothing had come for so long.
    Suspect {
        unused: Duration,
    },
    /// It is dropped, for this reason.
    Drop(&'static str),
}

impl Standing {
    pub(super) fn new(hop: Hop, full_size: bool, now: Instant) -> Self {
        Self {
            hop,
            heard: now,
            health: Health::Quiet,
            data_heard: None,
            probed: None,
            size_probe: (!full_size).then_some((now, 0)),
        }
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.health, Health::Suspect(_))
    }

    /// Whether an answer to data is waited for: a timer runs.
    pub(super) fn is_watched(&self) -> bool {
        self.health != Health::Quiet
    }

    /// Whether data is to take the relay as well: what goes out here may be lost.
    pub(super) fn needs_relay(&self) -> bool {
        matches!(self.health, Health::Suspect(_) | Health::Probing { talking: true, .. })
    }

    /// Data goes out on it.
    pub(super) fn note_sent(&mut self, now: Instant) {
        if self.health == Health::Quiet {
            self.health = Health::Awaiting(now);
        }
    }

    /// Data came in on it.
    pub(super) fn note_data(&mut self, now: Instant) {
        self.data_heard = self.data_heard.max(Some(now));
        self.note_heard(now);
    }

    /// Data or a HELLO came in on it.
    pub(super) fn note_heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
        match self.health {
            Health::Suspect(_) => {}
            // Reported late: what went out after it still waits.
            Health::Awaiting(since) if since > now => {}
            _ => self.health = Health::Quiet,
        }
    }

    /// A reply came in on it: whatever was suspected is not so.
    pub(super) fn note_reply(&mut self, now: Instant) {
        self.heard = now;
        self.health = Health::Quiet;
    }

    pub(super) fn note_full_size(&mut self) {
        self.size_probe = None;
    }

    /// Nothing is known any more of what passes: the padded HELLOs begin anew.
    pub(super) fn restart_size(&mut self, now: Instant) {
        self.size_probe = Some((now, 0));
    }

    /// Whether a HELLO was sent because of silence, and nothing has come since.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self.health, Health::Probing { .. })
    }

    /// The padded HELLO goes out with the next round again.
    pub(super) fn retry_size(&mut self, now: Instant) {
        if let Some((next, tries)) = &mut self.size_probe
            && *tries > SIZE_GAPS.len()
        {
            (*next, *tries) = (now, SIZE_GAPS.len());
        }
    }

    pub(super) fn suspect(&mut self, now: Instant) {
        if !self.is_suspect() {
            self.health = Health::Suspect(now);
        }
    }

    /// `relay`: when something last came from the base.
    pub(super) fn tick(&mut self, rtt: &Rtt, relay: Option<Instant>, now: Instant) -> Act {
        let patience = self.patience(rtt);
        if let Some((next, tries)) = self.size_probe
            && next <= now
            && tries <= SIZE_GAPS.len()
            && !self.is_suspect()
        {
            let again = SIZE_GAPS.get(tries).map_or(now, |&gap| now + gap);
            self.size_probe = Some((again, tries + 1));
            return Act::ProbeSize;
        }
        match self.health {
            Health::Awaiting(since) if now >= self.probe_at(since, patience) => {
                let talking = self.was_talking(since);
                self.probed = Some(now);
                self.health = Health::Probing { first: now, again: false, talking };
                Act::Probe { talking }
            }
            Health::Probing { first, again: false, talking } if now >= first + patience / 2 => {
                self.health = Health::Probing { first, again: true, talking };
                Act::Probe { talking }
            }
            Health::Probing { first, again: true, .. } if now >= first + patience => {
                self.health = Health::Suspect(now);
                Act::Suspect { unused: first.saturating_duration_since(self.heard) }
            }
            Health::Suspect(since) if now >= since + suspect_life(rtt) => {
                if relay.is_some_and(|heard| heard >= since) {
                    Act::Drop("it does not answer")
                } else if now >= self.heard + PROOF_LIFE {
                    Act::Drop(UNCONFIRMED)
                } else if now >= self.suspect_at(since, rtt) {
                    // Nothing is better at present: whatever is in the way may pass.
                    self.probed = Some(now);
                    Act::Probe { talking: false }
                } else {
                    Act::Nothing
                }
            }
            Health::Quiet if now >= self.heard + PROOF_LIFE => Act::Drop(UNCONFIRMED),
            _ => Act::Nothing,
        }
    }

    /// Whether it has brought nothing for two round trips in the middle of a talk.
    pub(super) fn is_overdue(&self, rtt: &Rtt, now: Instant) -> bool {
        match self.health {
            Health::Awaiting(since) => {
                let two = rtt.smoothed().map(|rtt| rtt * 2);
                self.was_talking(since) && two.is_some_and(|two| now >= since + two)
            }
            Health::Probing { talking, .. } => talking,
            Health::Quiet | Health::Suspect(_) => false,
        }
    }

    /// Whether both sides were sending data when this began.
    fn was_talking(&self, since: Instant) -> bool {
        self.data_heard.is_some_and(|at| at + TALKING >= since)
    }

    /// How long silence lasts before it is followed up.
    fn patience(&self, rtt: &Rtt) -> Duration {
        let talking = match self.health {
            Health::Awaiting(since) => self.was_talking(since),
            Health::Probing { talking, .. } => talking,
            Health::Quiet | Health::Suspect(_) => false,
        };
        rtt.patience(if talking { SILENCE_TALKING } else { SILENCE_MIN })
    }

    /// When a suspect path is dropped, or asked once more where there is nothing else.
    fn suspect_at(&self, since: Instant, rtt: &Rtt) -> Instant {
        let life = since + suspect_life(rtt);
        self.probed.map_or(life, |at| life.max(at + PROBE_EVERY))
    }

    /// One HELLO a second at most is sent because of silence: one-way flows draw no more.
    fn probe_at(&self, since: Instant, patience: Duration) -> Instant {
        self.probed.map_or(since + patience, |at| (at + PROBE_EVERY).max(since + patience))
    }

    pub(super) fn deadline(&self, rtt: &Rtt) -> Option<Instant> {
        let patience = self.patience(rtt);
        let health = match self.health {
            Health::Quiet => self.heard + PROOF_LIFE,
            Health::Awaiting(since) => self.probe_at(since, patience),
            Health::Probing { first, again: false, .. } => first + patience / 2,
            Health::Probing { first, again: true, .. } => first + patience,
            Health::Suspect(since) => self.suspect_at(since, rtt),
        };
        let size = self.size_probe.filter(|&(_, tries)| tries <= SIZE_GAPS.len() && !self.is_suspect());
        earlier(Some(health), size.map(|(next, _)| next))
    }
}

fn suspect_life(rtt: &Rtt) -> Duration {
    SUSPECT_MIN.max(rtt.smoothed().unwrap_or_default() * 3)
}
