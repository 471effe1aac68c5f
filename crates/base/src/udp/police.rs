//! Who fills a lane is kept from crowding out those who share it.
//!
//! The system gives every sender one lane, and many senders each lane. One who sends more than the worker can take fills the lane's
//! queue, and everybody else there loses what he loses. So a lane whose queue stays more than half full is looked at: who sends most of
//! it? If there are others, the system is asked to let only a share of those few senders' datagrams into the queue (a *policer*, RFC 2475):
//!
//! ```text
//! share = (what the worker takes − what others send) / what they send        less while the queue is long, a little more while it is empty
//! ```
//!
//! All three are measured: the system counts what it drops, by the policer, too. Nothing here costs a lane whose queue is short anything,
//! nor one that a single sender fills: what he loses is his own. What the system has merged is one datagram here, as it is in its counts.
//!
//! A pure machine: it is told what came and how the queue stands, and says what to ask of the system.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::listen::UDP_BUFFER;

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// Looks in a row at which the queue was more than half full: from so many on it is counted who sends, and at each so many it is judged.
const COUNTED: u32 = 2;
const JUDGED: u32 = 5;
/// Senders that one lane's policer knows, at most; whoever sends less than a 16th of all is none of them, and so much of what the worker
/// takes is theirs, whatever others send.
const SENDERS: usize = 8;
const LEAST_SHARE: f64 = 1.0 / 16.0;
/// Others that were met in a lane may come again for so long: a NAT mapping is refreshed twice meanwhile.
const OTHERS: Duration = Duration::from_secs(60);
/// The part of a queue that is to stay filled, so that the worker is never without work.
const FILLED: f64 = 0.03;
/// Bytes of a queue: twice what was asked for; and what a datagram takes of them beside its own, about.
const BUFFER: f64 = 2.0 * UDP_BUFFER as f64;
const OVERHEAD: f64 = 768.0;
/// How much a new measurement counts beside what was measured before.
const NEW: f64 = 0.3;
/// A share that differs by less from the one that the system has is not worth a call.
const SAME: f64 = 0.03;
/// Looks in a row at which everything was let in: the policer goes.
const CALM: u32 = 200;
/// Time between two messages to people about one lane.
const TOLD: Duration = Duration::from_secs(60);

/// How a lane's queue stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Queue {
    /// How much of its room is taken, of one.
    pub(super) filled: f64,
    /// Datagrams that the system dropped, for lack of room and by the policer: a count that goes round.
    pub(super) dropped: u32,
}

/// What to ask of the system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order<'a> {
    /// Let this share of these senders' datagrams in, and all of everybody else's.
    Police(&'a [SocketAddr], f64),
    /// Let everything in.
    Release,
}

/// What is known of one lane.
#[derive(Debug, Default)]
pub(super) struct Police {
    /// Whether it had more when it was read last.
    more: bool,
    /// Looks in a row at which its queue was more than half full.
    full: u32,
    /// Since the last look.
    came: u64,
    bytes: usize,
    of_others: u64,
    /// The last look: when it was, and what had been dropped by then.
    last: Option<(Instant, u32)>,
    /// Who sent since it is counted.
    counts: Counts,
    /// When somebody else than those who fill it was met.
    others: Option<Instant>,
    policer: Option<Policer>,
    told: Option<Instant>,
}

/// Whose datagrams are let in in part. What it has measured is datagrams a second.
#[derive(Debug)]
struct Policer {
    senders: Vec<SocketAddr>,
    /// What the worker takes while there is always more.
    taken: f64,
    /// What others send.
    others: f64,
    /// What all send.
    offered: f64,
    /// How much of the queue's room was taken at the last look.
    filled: f64,
    /// What the system lets in.
    share: f64,
    /// Looks in a row at which that was everything.
    calm: u32,
}

impl Police {
    /// The lane was read: whether it has more, and what came, from whom and how long.
    pub(super) fn read(&mut self, more: bool, came: impl Iterator<Item = (SocketAddr, usize)>) {
        self.more = more;
        let is_counted = self.full >= COUNTED;
        if !is_counted && self.policer.is_none() {
            return;
        }
        for (from, bytes) in came {
            self.came += 1;
            self.bytes += bytes;
            if self.policer.as_ref().is_some_and(|policer| !policer.senders.contains(&from)) {
                self.of_others += 1;
            }
            if is_counted {
                self.counts.add(from);
            }
        }
    }

    /// Whether there is a policer, which wants to be looked after while nothing comes, too.
    pub(super) fn is_on(&self) -> bool {
        self.policer.is_some()
    }

    /// Looks at the lane, once in [`LOOK`]: what the system is to be asked for, if anything. How its queue stands is asked for only where
    /// that matters.
    pub(super) fn look(&mut self, now: Instant, queue: impl FnOnce() -> Queue) -> Option<Order<'_>> {
        if !self.more && self.policer.is_none() {
            self.full = 0;
            self.last = None;
            return None;
        }
        let Queue { filled, dropped } = queue();
        self.full = if filled > 0.5 { self.full + 1 } else { 0 };
        let (came, of_others) = (std::mem::take(&mut self.came), std::mem::take(&mut self.of_others));
        let size = std::mem::take(&mut self.bytes) as f64 / came.max(1) as f64;
        let (at, before) = self.last.replace((now, dropped))?;
        let seconds = now.saturating_duration_since(at).as_secs_f64().max(1e-3);
        let rate = |count: u64| count as f64 / seconds;
        let (taken, sent) = (rate(came), rate(came + u64::from(dropped.wrapping_sub(before))));
        if self.full > 0 && self.full.is_multiple_of(JUDGED) {
            self.judge(now, taken, sent);
        }
        if self.full < COUNTED {
            self.counts.clear();
        }
        if self.policer.as_ref()?.calm == CALM {
            self.policer = None;
            return Some(Order::Release);
        }
        let policer = self.policer.as_mut()?;
        policer.measure(taken, rate(of_others), sent, filled);
        let share = policer.share_at(filled, BUFFER / (size + OVERHEAD));
        policer.calm = if share == 1.0 { policer.calm + 1 } else { 0 };
        let is_same = (share / policer.share - 1.0).abs() < SAME && (share < 1.0 || policer.share == 1.0);
        if is_same {
            return None;
        }
        policer.share = share;
        Some(Order::Police(&policer.senders, share))
    }

    /// The queue has been long for a while: who makes it so?
    fn judge(&mut self, now: Instant, taken: f64, sent: f64) {
        let counts = std::mem::take(&mut self.counts);
        let heavy = counts.heavy(self.policer.as_ref());
        if counts.has_others(&heavy) {
            self.others = Some(now);
        }
        let is_alone = self.others.is_none_or(|at| now.saturating_duration_since(at) >= OTHERS);
        if heavy.is_empty() || is_alone {
            return;
        }
        let Some(policer) = &mut self.policer else {
            self.tell(&heavy, now);
            // What others sent is not known: hardly anything of it came.
            let (others, filled, share, calm) = (0.0, 1.0, f64::NAN, 0);
            self.policer =
                Some(Policer { senders: heavy, taken, others, offered: sent, filled, share, calm });
            return;
        };
        if heavy.iter().any(|sender| !policer.senders.contains(sender)) {
            // Those who send most now; then those known before.
            let before = std::mem::replace(&mut policer.senders, heavy);
            let old =
                before.into_iter().filter(|sender| !policer.senders.contains(sender)).collect::<Vec<_>>();
            policer.senders.extend(old);
            policer.senders.truncate(SENDERS);
            policer.share = f64::NAN;
        }
    }

    fn tell(&mut self, senders: &[SocketAddr], now: Instant) {
        if self.told.is_some_and(|at| now.saturating_duration_since(at) < TOLD) {
            return;
        }
        self.told = Some(now);
        let from = senders.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        tracing::warn!(
            from,
            "more datagrams come from there than a worker can take: a share of them is let in, so that others lose nothing"
        );
    }
}

impl Policer {
    fn measure(&mut self, taken: f64, others: f64, sent: f64, filled: f64) {
        let mix = |known: &mut f64, new: f64| *known += NEW * (new - *known);
        mix(&mut self.others, others);
        mix(&mut self.offered, sent);
        // Where the queue may have been empty, the worker could have taken more.
        if taken > self.taken || self.filled.min(filled) > 2.0 * FILLED {
            mix(&mut self.taken, taken);
        }
        self.filled = filled;
    }

    /// The share of theirs that fits, with the queue so long and with room for so many in it.
    fn share_at(&self, filled: f64, room: f64) -> f64 {
        // A queue that the worker empties between two looks must not be filled anew by what is meant to correct it.
        let strength = (room / (self.taken * LOOK.as_secs_f64())).min(2.0);
        let corrected = (1.0 + strength * (FILLED - filled)).max(0.1);
        let theirs = ((self.taken - self.others) * corrected).max(self.taken * LEAST_SHARE);
        let share = theirs / (self.offered - self.others).max(1.0);
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 }
    }
}

/// Who sent how much: exact for up to [`SENDERS`] senders; of more, everybody with more than a ninth is among them (Misra and Gries).
#[derive(Debug, Default)]
struct Counts {
    total: u64,
    list: Vec<(SocketAddr, u64)>,
    /// Whether there were more than the list holds.
    many: bool,
}

impl Counts {
    fn clear(&mut self) {
        (self.total, self.many) = (0, false);
        self.list.clear();
    }

    fn add(&mut self, from: SocketAddr) {
        self.total += 1;
        if let Some((_, known)) = self.list.iter_mut().find(|(sender, _)| *sender == from) {
            *known += 1;
        } else if self.list.len() < SENDERS {
            self.list.push((from, 1));
        } else {
            self.many = true;
            self.list.iter_mut().for_each(|(_, known)| *known -= 1);
            self.list.retain(|&(_, known)| known > 0);
        }
    }

    /// Those who sent much of all: of those who are policed, more was sent than came.
    fn heavy(&self, policer: Option<&Policer>) -> Vec<SocketAddr> {
        let let_in = |sender| {
            let policer = policer.filter(|policer| policer.senders.contains(sender));
            policer.map_or(1.0, |policer| policer.share.max(1e-6))
        };
        let sent: Vec<_> =
            self.list.iter().map(|(sender, count)| (*sender, *count as f64 / let_in(sender))).collect();
        let came: u64 = self.list.iter().map(|&(_, count)| count).sum();
        let all = self.total.saturating_sub(came) as f64 + sent.iter().map(|&(_, sent)| sent).sum::<f64>();
        let heavy = sent.into_iter().filter(|&(_, sent)| sent > all * LEAST_SHARE);
        heavy.map(|(sender, _)| sender).collect()
    }

    fn has_others(&self, heavy: &[SocketAddr]) -> bool {
        self.many || self.list.iter().any(|(sender, _)| !heavy.contains(sender))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A lane's queue, and a worker who takes from it: steps of a tenth of a millisecond.
    struct Lane {
        police: Police,
        queue: VecDeque<usize>,
        /// What the worker takes in a step.
        taken: usize,
        /// By sender: how many a step, how many were sent, how many came.
        senders: Vec<(f64, f64, usize)>,
        policed: Vec<SocketAddr>,
        share: f64,
        orders: usize,
        dropped: u32,
        start: Instant,
        steps: u32,
        random: u64,
    }

    const ROOM: usize = (BUFFER / OVERHEAD) as usize / 5;

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 1_000 + number as u16))
    }

    impl Lane {
        /// Senders by how many datagrams they send in a step.
        fn new(taken: usize, rates: &[f64]) -> Self {
            Self {
                police: Police::default(),
                queue: VecDeque::new(),
                taken,
                senders: rates.iter().map(|&rate| (rate, 0.0, 0)).collect(),
                policed: vec![],
                share: 1.0,
                orders: 0,
                dropped: 0,
                start: Instant::now(),
                steps: 0,
                random: 1,
            }
        }

        fn chance(&mut self) -> f64 {
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.random >> 40) as f64 / (1 << 24) as f64
        }

        fn step(&mut self) {
            let before: Vec<f64> = self.senders.iter().map(|sender| sender.1).collect();
            let most = self.senders.iter().map(|sender| sender.0.ceil() as usize).max().unwrap_or(0);
            // What comes in a step comes mixed.
            for part in 1..=most {
                // Nobody is always the first to find room.
                let first = (self.chance() * self.senders.len() as f64) as usize;
                for place in 0..self.senders.len() {
                    let number = (first + place) % self.senders.len();
                    let due = (before[number] + self.senders[number].0 * part as f64 / most as f64).floor();
                    while self.senders[number].1.floor() < due {
                        self.senders[number].1 += 1.0;
                        let let_in = !self.policed.contains(&address(number)) || self.chance() < self.share;
                        if let_in && self.queue.len() < ROOM {
                            self.queue.push_back(number);
                        } else {
                            self.dropped += 1;
                        }
                    }
                }
            }
            for (sender, before) in self.senders.iter_mut().zip(before) {
                sender.1 = before + sender.0;
            }
            let came: Vec<usize> = self.queue.drain(..self.taken.min(self.queue.len())).collect();
            came.iter().for_each(|&number| self.senders[number].2 += 1);
            self.police.read(!self.queue.is_empty(), came.iter().map(|&number| (address(number), 1)));
            self.steps += 1;
            if self.steps.is_multiple_of(50) {
                let now = self.start + self.steps * Duration::from_micros(100);
                let queue = Queue { filled: self.queue.len() as f64 / ROOM as f64, dropped: self.dropped };
                match self.police.look(now, || queue) {
                    Some(Order::Police(senders, share)) => {
                        (self.policed, self.share) = (senders.to_vec(), share);
                    }
                    Some(Order::Release) => (self.policed, self.share) = (vec![], 1.0),
                    None => return,
                }
                self.orders += 1;
            }
        }

        /// What share of each one's datagrams came in so many seconds, and how much of what the worker could take.
        fn run(&mut self, seconds: f64) -> (Vec<f64>, f64) {
            self.senders.iter_mut().for_each(|sender| (sender.1, sender.2) = (0.0, 0));
            let steps = (seconds * 1e4) as usize;
            (0..steps).for_each(|_| self.step());
            let came = self.senders.iter().map(|&(_, sent, came)| came as f64 / sent).collect();
            let all: usize = self.senders.iter().map(|sender| sender.2).sum();
            (came, all as f64 / (steps * self.taken) as f64)
        }
    }

    #[test]
    fn who_floods_a_lane_loses_what_does_not_fit_and_others_lose_nothing() {
        for (taken, floods) in
            [(8, vec![80.0]), (8, vec![12.0]), (1, vec![10.0]), (8, vec![40.0, 20.0, 15.0])]
        {
            let mut lane = Lane::new(taken, &[&floods[..], &[0.1, 0.01]].concat());
            lane.run(0.5);
            let (came, used) = lane.run(3.0);
            let others = &came[floods.len()..];
            assert!(others.iter().all(|&came| came > 0.99), "{floods:?} of {taken}: {came:?}");
            assert!(used > 0.95, "{floods:?} of {taken}: {used}");
            // In peace nobody is policed any more.
            lane.senders[..floods.len()].iter_mut().for_each(|sender| sender.0 = 0.05);
            lane.run(2.0);
            assert!(lane.policed.is_empty());
            assert!(lane.run(1.0).0.iter().all(|&came| came > 0.98));
        }
    }

    #[test]
    fn a_flood_that_begins_takes_from_others_for_a_moment_only() {
        let mut lane = Lane::new(8, &[80.0, 0.2]);
        let (came, _) = lane.run(2.0);
        assert!(came[1] > 0.94, "{came:?}");
    }

    #[test]
    fn who_is_alone_in_a_lane_is_not_policed_nor_are_many_of_whom_none_stands_out() {
        for rates in [vec![80.0], vec![0.5; 100]] {
            let mut lane = Lane::new(8, &rates);
            let (_, used) = lane.run(2.0);
            assert!(lane.orders == 0 && used > 0.99, "{} orders, {used}", lane.orders);
        }
    }

    #[test]
    fn nobody_is_policed_where_the_lane_gets_empty() {
        let mut lane = Lane::new(8, &[7.6, 0.1]);
        lane.run(2.0);
        assert_eq!(lane.orders, 0);
    }

    #[test]
    fn who_sends_most_gets_as_much_as_others_where_these_alone_are_too_many() {
        let mut lane = Lane::new(8, &[&[40.0][..], &[0.1; 100]].concat());
        lane.run(0.5);
        let (came, used) = lane.run(5.0);
        let (most, other) = (came[0] * 40.0, came[1] * 0.1);
        assert!(used > 0.99 && most > other, "{most} and {other} a step, {used}");
        assert!(came[1..].iter().all(|&came| came > 0.6), "{came:?}");
    }
}
