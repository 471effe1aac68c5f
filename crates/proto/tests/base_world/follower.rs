//! A copy of the routes, kept as a program in a kernel keeps it: told of changes, and asked nothing.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use bowline_proto::{
    DeviceId,
    base::{Follower, Reached, SourceKey, Via},
    wire::{addr, relay},
};

#[derive(Debug, Default)]
pub(crate) struct Copy(Mutex<Tables>);

#[derive(Debug, Default)]
pub(crate) struct Tables {
    sources: HashMap<[u8; 24], DeviceId>,
    legs: HashMap<DeviceId, Reached>,
    /// Messages that the copy alone has seen.
    pub(crate) heard: HashMap<[u8; 24], Instant>,
}

impl Copy {
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }

    /// Where it would send a datagram, and what; `None`: that is the base's business.
    pub(crate) fn judge(
        &self,
        via: Via,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<(Reached, Vec<u8>)> {
        if !datagram.first().is_some_and(|&kind| relay::is_sent(kind)) || from.port() == 0 {
            return None;
        }
        let (to, data) = relay::split(datagram).ok()?;
        let tables = self.tables();
        let device = tables.sources.get(SourceKey::new(via.socket, addr::canonical(from)).as_bytes())?;
        let leg = tables.legs.get(&to).filter(|leg| leg.until > now && data.len() <= leg.limit)?;
        let mut message = datagram.to_vec();
        relay::rewrite(&mut message, *device).ok()?;
        Some((*leg, message))
    }
}

impl Follower for Copy {
    fn seized(&self, source: &SourceKey, device: DeviceId) {
        self.tables().sources.insert(*source.as_bytes(), device);
    }

    fn let_go(&self, source: &SourceKey) {
        self.tables().sources.remove(source.as_bytes());
    }

    fn placed(&self, device: DeviceId, leg: Option<Reached>) {
        match leg {
            Some(leg) => self.tables().legs.insert(device, leg),
            None => self.tables().legs.remove(&device),
        };
    }

    fn lives(&self, device: DeviceId, leg: Reached) {
        let mut tables = self.tables();
        if let Some(known) = tables.legs.get_mut(&device)
            && (known.via, known.to) == (leg.via, leg.to)
        {
            known.until = known.until.max(leg.until);
        }
    }

    fn heard(&self, source: &SourceKey) -> Option<Instant> {
        self.tables().heard.get(source.as_bytes()).copied()
    }
}
