//! What the lines of devices say: when messages were sent and came, how long none came, which are missing, which came twice.

use std::{collections::BTreeMap, time::Duration};

use bowline_lab::Line;

use super::device::clock;

/// What one run of a device wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// Tells this start of the device from others.
    pub(crate) boot: u32,
    pub(crate) online: Option<u64>,
    /// Ways messages take, and since when.
    pub(crate) paths: Vec<(u64, String)>,
    pub(crate) sent: Vec<(u64, u64)>,
    pub(crate) received: Vec<Received>,
    /// The most peers and address pairs there was state for.
    pub(crate) state: (u64, u64),
}

/// A message came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) at: u64,
    /// Which start of the sender's process it is from.
    pub(crate) boot: u32,
    pub(crate) number: u64,
    /// `d` directly, `u` over the relay's UDP, `t` over its TCP, `r` over a relay.
    pub(crate) way: char,
}

impl Log {
    pub(crate) fn read(lines: &[Line]) -> Self {
        let mut log = Self::default();
        for line in lines.iter().filter(|line| !line.error) {
            let words: Vec<&str> = line.text.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            let Some(at) = number(1) else { continue };
            match words[0] {
                "boot" => log.boot = number(2).unwrap_or_default() as u32,
                "online" => log.online = log.online.or(Some(at)),
                "path" => log.paths.push((at, words.get(2).copied().unwrap_or_default().to_owned())),
                "m" => {
                    let (peers, pairs) = log.state;
                    log.state = (peers.max(number(2).unwrap_or(0)), pairs.max(number(3).unwrap_or(0)));
                }
                "s" => log.sent.extend(number(2).map(|number| (at, number))),
                "r" => {
                    let way = words.get(4).and_then(|way| way.chars().next());
                    if let (Some(boot), Some(number), Some(way)) = (number(2), number(3), way) {
                        log.received.push(Received { at, boot: boot as u32, number, way });
                    }
                }
                _ => {}
            }
        }
        log
    }

    /// Whether so many messages at the end came this way.
    pub(crate) fn ends_with(&self, way: char, count: usize) -> bool {
        let last: Vec<_> = self.received.iter().rev().take(count).collect();
        last.len() == count && last.iter().all(|message| message.way == way)
    }

    /// Whether the last messages, for so long, all came this way.
    pub(crate) fn settled(&self, way: char, since: Duration) -> bool {
        let from = clock().saturating_sub(since.as_nanos() as u64);
        let recent: Vec<_> = self.received.iter().rev().take_while(|message| message.at >= from).collect();
        recent.len() as u128 * super::device::INTERVAL.as_nanos() >= since.as_nanos() * 3 / 4
            && recent.iter().all(|message| message.way == way)
    }
}

/// What became of the messages in one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flow {
    /// The longest time without a new message.
    pub(crate) gap: Duration,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Whether anything came towards the end of the time looked at.
    pub(crate) back: bool,
}

/// The time that is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// The event. Gaps that end after it count in full, unless `from_here`.
    pub(crate) event: u64,
    /// Gaps are measured from the event at the earliest: the receiver could not have noticed anything before.
    pub(crate) from_here: bool,
    pub(crate) end: u64,
}

/// Messages under way at the event may be lost because of it; those at the end may not have come yet.
const UNDER_WAY: u64 = 100_000_000;
/// Messages later than this before the end are not expected to have come.
const TAIL: u64 = 500_000_000;

/// Joins what a sender's runs say with what the receiver's runs say. Runs are in order: later ones are restarts.
pub(crate) fn flow(senders: &[Log], receivers: &[Log], window: Window) -> Flow {
    let Window { event, from_here, end } = window;
    // First arrivals, by message; the second number counts its copies.
    let mut arrivals: BTreeMap<(u32, u64), (u64, u64)> = BTreeMap::new();
    for message in receivers.iter().flat_map(|log| &log.received) {
        let entry = arrivals.entry((message.boot, message.number)).or_insert((message.at, 0));
        entry.0 = entry.0.min(message.at);
        entry.1 += 1;
    }
    let mut times: Vec<u64> = arrivals.values().map(|&(at, _)| at).filter(|&at| at <= end).collect();
    times.sort_unstable();
    let before = times.iter().copied().take_while(|&at| at <= event).last().unwrap_or(event);
    let start = if from_here { event } else { before };
    let mut moments = vec![start];
    moments.extend(times.iter().copied().filter(|&at| at > event));
    moments.push(end);
    let gap = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();

    let mut flow = Flow {
        gap: Duration::from_nanos(gap),
        back: times.last().is_some_and(|&at| at + TAIL >= end),
        ..Flow::default()
    };
    for log in senders {
        let expected = |at: u64| at + UNDER_WAY >= event && at + TAIL <= end;
        for &(_, number) in log.sent.iter().filter(|&&(at, _)| expected(at)) {
            flow.sent += 1;
            match arrivals.get(&(log.boot, number)) {
                None => flow.lost += 1,
                Some(&(_, copies)) => flow.doubled += copies - 1,
            }
        }
    }
    flow
}
