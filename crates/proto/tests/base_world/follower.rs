//! A copy of the routes, kept as a program in a kernel keeps it: told of changes, and asked nothing but for room to count in.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use bowline_proto::{
    DeviceId,
    base::{Follower, Limits, Reached, SharedBudget, SourceKey, Via},
    bucket::Rate,
    wire::{addr, relay},
};

#[derive(Debug)]
pub(crate) struct Copy(Mutex<Tables>);

#[derive(Debug, Default)]
pub(crate) struct Tables {
    sources: HashMap<[u8; 24], (DeviceId, Option<u32>)>,
    legs: HashMap<DeviceId, Reached>,
    /// Messages that the copy alone has seen.
    pub(crate) heard: HashMap<[u8; 24], Instant>,
    pub(crate) limits: Option<Limits>,
    budgets: Vec<Arc<Cells>>,
}

type Cells = [AtomicU64; 2];

/// Free when nobody else has it.
#[derive(Debug)]
struct Slot(u32, Arc<Cells>);

impl SharedBudget for Slot {
    fn full_at(&self) -> &Cells {
        &self.1
    }

    fn number(&self) -> u32 {
        self.0
    }
}

impl Copy {
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }

    /// Room to count for so many devices.
    pub(crate) fn with_room_for(devices: usize) -> Arc<Self> {
        let budgets = (0..devices).map(|_| Arc::default()).collect();
        Arc::new(Self(Mutex::new(Tables { budgets, ..Tables::default() })))
    }

    /// Where it would send a datagram, and what; `None`: that is the base's business.
    pub(crate) fn judge(
        &self,
        via: Via,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<(Reached, Vec<u8>)> {
        self.tables().judge(via, from, datagram, now, false)
    }

    /// Sends it.
    pub(crate) fn relay(
        &self,
        via: Via,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<(Reached, Vec<u8>)> {
        self.tables().judge(via, from, datagram, now, true)
    }
}

impl Tables {
    fn judge(
        &self,
        via: Via,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        take: bool,
    ) -> Option<(Reached, Vec<u8>)> {
        if !datagram.first().is_some_and(|&kind| relay::is_sent(kind)) || from.port() == 0 {
            return None;
        }
        let (to, data) = relay::split(datagram).ok()?;
        let source = SourceKey::new(via.socket, addr::canonical(from));
        let (device, budget) = self.sources.get(source.as_bytes())?;
        let leg = self.legs.get(&to).filter(|leg| leg.until > now && data.len() <= leg.limit)?;
        if let (Some(limits), Some(budget)) = (self.limits, budget) {
            let now = now.saturating_duration_since(limits.start).as_nanos() as u64;
            let costs = [(limits.messages, 1), (limits.units, data.len() / limits.unit + 1)];
            let full_at: Option<Vec<u64>> = self.budgets[*budget as usize]
                .iter()
                .zip(costs)
                .map(|(cell, (rate, n))| after(cell.load(Relaxed), rate, n as u64, now))
                .collect();
            let full_at = full_at?;
            let cells = self.budgets[*budget as usize].iter().zip(full_at);
            cells.filter(|_| take).for_each(|(cell, full_at)| cell.store(full_at, Relaxed));
        }
        let mut message = datagram.to_vec();
        relay::rewrite(&mut message, *device).ok()?;
        Some((*leg, message))
    }
}

/// When it would be full again after `n` more, if there are as many.
fn after(full_at: u64, rate: Option<Rate>, n: u64, now: u64) -> Option<u64> {
    let Some(rate) = rate else { return Some(full_at) };
    let every = rate.every.as_nanos() as u64;
    let full_at = full_at.max(now) + n * every;
    (full_at - now <= every * u64::from(rate.burst)).then_some(full_at)
}

impl Follower for Copy {
    fn budget(&self) -> Option<Box<dyn SharedBudget>> {
        let mut tables = self.tables();
        let number = tables.budgets.iter().position(|cells| Arc::strong_count(cells) == 1)?;
        tables.budgets[number] = Arc::default();
        Some(Box::new(Slot(number as u32, Arc::clone(&tables.budgets[number]))))
    }

    fn seized(&self, source: &SourceKey, device: DeviceId, budget: Option<u32>) {
        self.tables().sources.insert(*source.as_bytes(), (device, budget));
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
