//! What whoever reads a connection does with its frames by himself, beside the machine.
//!
//! A connection that speaks for a device has a [`Speaker`], by which its reader finds that device's [`Session`]. With it and the
//! routes he decides about each frame ([`Talk::judge`]): a message whose destination is known to the table goes on at once, an INFO with
//! nothing new in it is answered. Everything else is the machine's, from that frame on: what comes after it may depend on it. A reader that
//! has given frames to the machine gives it all further ones until those have been dealt with, so that nothing is overtaken.
//!
//! Not here: connections that do not speak for a device (or linger), what senders are told of drops.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{
    Forward, Over, Ticket, ToBase,
    config::SMALL_DATA,
    location::Session,
    routes::{Pinned, Place, RemotePlace, Routes, Way},
};
use crate::{
    id::DeviceId,
    wire::{
        relay::{self, HEADER_LEN},
        tcp::{HostFrame, INFO},
    },
};

/// For whom a connection speaks, as its reader knows it. The machine says it.
#[derive(Debug, Default)]
pub struct Speaker(Mutex<Option<Arc<Session>>>);

impl Speaker {
    pub(super) fn speak(&self, session: Option<Arc<Session>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A relayed message with its header rewritten goes there: `Nowhere` it never is, and never to the bus of a cluster.
    Forward(Forward),
    /// A message of a device that has had relayed what it may: drop it. The machine tells it now and then
    /// ([`super::Base::handle_over_rate`]).
    OverRate(Ticket),
    /// An INFO with nothing new in it: answer it with PONG, under this number.
    Pong(u64),
    /// It is the machine's, as it came, and so are all after it until the machine has dealt with them.
    Machine,
}

/// The table as frames of one connection that came in at once see it.
#[derive(Debug)]
pub struct Talk<'a> {
    routes: &'a Routes,
    session: Arc<Session>,
    places: Pinned<'a, DeviceId, Place>,
    remotes: Pinned<'a, DeviceId, RemotePlace>,
    now: Instant,
    last: Option<Last>,
}

/// The last message that went on. Nothing has happened since, so one that looks the same goes the same way.
#[derive(Debug)]
pub(super) struct Last {
    came: [u8; HEADER_LEN],
    left: [u8; HEADER_LEN],
    length: usize,
    forward: Forward,
}

impl Last {
    /// A message whose header came like this, as it leaves.
    pub(super) fn new(came: Option<[u8; HEADER_LEN]>, frame: &[u8], forward: Forward) -> Option<Self> {
        let (came, left) = (came?, *frame.first_chunk()?);
        Some(Self { came, left, length: frame.len(), forward })
    }

    /// Where one goes that looks the same, with its header rewritten.
    pub(super) fn take(&self, frame: &mut [u8]) -> Option<Forward> {
        if frame.len() != self.length || !frame.starts_with(&self.came) {
            return None;
        }
        frame[..HEADER_LEN].copy_from_slice(&self.left);
        Some(self.forward)
    }
}

impl Routes {
    /// For frames that have come over a connection; `None` if it speaks for nobody, or no longer: all of them are the machine's.
    #[must_use]
    pub fn talk(&self, speaker: &Speaker, now: Instant) -> Option<Talk<'_>> {
        let session = speaker.session()?;
        let (places, remotes) = (self.places.pin(), self.remotes.pin());
        Some(Talk { routes: self, session, places, remotes, now, last: None })
    }
}

impl Talk<'_> {
    /// Decides about a frame (type and body). Only a message that goes on is changed.
    pub fn judge(&mut self, frame: &mut [u8]) -> Step {
        match frame.first() {
            Some(&kind) if relay::is_sent(kind) => self.judge_data(frame),
            Some(&INFO) => self.judge_info(frame),
            _ => Step::Machine,
        }
    }

    fn judge_info(&self, frame: &[u8]) -> Step {
        let Ok(HostFrame::Info(info)) = HostFrame::decode(frame) else { return Step::Machine };
        let mut location = self.session.location();
        // One that is over the rate takes nothing here: the machine refuses it, and says so.
        let mut within = location.frames;
        if within.take(self.routes.frame_rate, self.now)
            && location.live_on(&info, self.now + self.routes.info_timeout)
        {
            location.frames = within;
            return Step::Pong(info.number);
        }
        Step::Machine
    }

    fn judge_data(&mut self, frame: &mut [u8]) -> Step {
        if let Some(forward) = self.last.as_ref().and_then(|last| last.take(frame)) {
            return Step::Forward(forward);
        }
        let Ok((to, data)) = relay::split(frame) else { return Step::Machine };
        let (from, length) = (self.session.device(), data.len());
        if length <= SMALL_DATA && self.session.location().is_in_doubt(self.now) {
            return Step::Machine;
        }
        let (ticket, budget) = (Ticket { from, to }, self.session.budget());
        let way = self.routes.way_by(&self.places, &self.remotes, budget, (from, to), length, self.now);
        let forward = match way {
            Way::Udp { via, to, .. } => Forward::Udp { via, to },
            Way::Base(way @ ToBase { over: Over::Udp { .. }, .. }) => Forward::Base(way),
            Way::Elsewhere => match self.places.get(&to).and_then(|place| place.conn) {
                None => return Step::Machine,
                Some(_) if !self.routes.within_rate(budget, length, self.now) => {
                    return Step::OverRate(ticket);
                }
                Some(conn) => Forward::Tcp { conn, ticket },
            },
            Way::OverRate => return Step::OverRate(ticket),
            Way::Base(_) | Way::TooLarge => return Step::Machine,
        };
        let came = frame.first_chunk().copied();
        if relay::rewrite(frame, from).is_err() {
            return Step::Machine;
        }
        // Where there are budgets, each message is counted.
        self.last = if self.routes.has_rates() { None } else { Last::new(came, frame, forward) };
        Step::Forward(forward)
    }
}
