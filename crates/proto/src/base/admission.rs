//! Who may be here at all: the list of devices, which may change, and whoever keeps a list elsewhere.
//!
//! REGISTER is checked against the list before its signature is looked at. A device that is not on it can be asked about
//! ([`Output::Ask`]) once the signature holds, so that nobody can have questions asked in another's name; it waits as an
//! unfinished connection does, within the same bounds. Who is no longer allowed is sent away with ERROR 4.
//!
//! Not here: how the shell finds its answer, and for how long it remembers it.

use std::{collections::HashSet, time::Instant};

use super::{Base, ConnId, Output, conn::Failure, registry::Link};
use crate::{
    id::DeviceId,
    wire::{
        Cookie,
        tcp::{ErrorCode, Register},
    },
};

/// What the shell found out about a device that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It may register.
    Allowed,
    /// It may not: ERROR 4.
    Refused,
    /// Nobody knows at present: ERROR 6. It may not either, but may ask again.
    Unknown,
}

impl Base {
    /// Replaces the list of devices that may register. Those that are here and may not be are sent away with ERROR 4, unless the
    /// shell is asked about such devices ([`super::BaseConfig::ask`]): then they stay until it sends them away. Tells how many went.
    pub fn set_allow(&mut self, allow: Option<HashSet<DeviceId>>, now: Instant) -> usize {
        self.config.allow = allow;
        if self.config.ask {
            return 0;
        }
        let here: Vec<DeviceId> = self.devices.keys().copied().filter(|&id| !self.is_allowed(id)).collect();
        for &id in &here {
            self.send_away(id, now);
        }
        here.len()
    }

    /// Ends the registration of a device that is no longer allowed here.
    pub fn send_away(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get(&id) else { return };
        tracing::info!(device = %id, "no longer allowed here");
        match device.link {
            Link::Tcp(conn) => self.fail(conn, not_allowed(), now),
            Link::Lost { .. } => self.unregister(id, "it is no longer allowed", now),
        }
    }

    /// While set, devices that are not here yet are told to come back later (ERROR 6): the shell has no memory for more.
    pub fn set_short_of_memory(&mut self, short: bool) {
        self.short_of_memory = short;
    }

    /// Whether a device may be here as far as the machine knows by itself.
    pub(super) fn is_allowed(&self, id: DeviceId) -> bool {
        match &self.config.allow {
            Some(allow) => allow.contains(&id),
            None => !self.config.ask,
        }
    }

    /// A REGISTER that holds, of a device that the shell knows about if anybody does.
    pub(super) fn ask_shell(&mut self, conn: ConnId, cookie: Cookie, register: Register) {
        let device = register.device;
        self.counters.register_asked += 1;
        self.await_answer(conn);
        self.asked.insert(conn, (cookie, register));
        self.outputs.push_back(Output::Ask { conn, device });
    }

    /// The answer to [`Output::Ask`]. The connection may be gone meanwhile.
    pub fn handle_answer(&mut self, conn: ConnId, answer: Answer, now: Instant) {
        let Some((cookie, register)) = self.asked.remove(&conn) else { return };
        let outcome = match answer {
            Answer::Allowed => {
                self.has_room(register.device).and_then(|()| self.take_over(conn, &cookie, &register, now))
            }
            Answer::Refused => Err(not_allowed()),
            Answer::Unknown => {
                Err(Failure::busy(&self.config, "whether this device is allowed is not known at present"))
            }
        };
        if let Err(failure) = outcome {
            self.refuse(conn, failure, now);
        }
    }

    /// Whether there is room for a device, which may be here already.
    pub(super) fn has_room(&self, id: DeviceId) -> Result<(), Failure> {
        if self.devices.contains_key(&id) {
            return Ok(());
        }
        if self.devices.len() >= self.config.max_devices {
            return Err(Failure::busy(&self.config, "this base has as many devices as it takes"));
        }
        if self.short_of_memory {
            return Err(Failure::busy(&self.config, "this base has no memory for more devices"));
        }
        Ok(())
    }
}

pub(super) fn not_allowed() -> Failure {
    Failure::new(ErrorCode::NotAllowed, 0, "this device is not on the list of this base")
}
