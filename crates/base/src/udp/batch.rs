//! The datagrams of one round of a worker: received into buffers that stay, judged one by one, rewritten where they lie, and
//! put together into runs.
//!
//! A run is one destination and one size (its last datagram may be shorter), whatever came between its datagrams: the system takes it in
//! one call and cuts it where it leaves. Nothing is copied: a run is a list of pieces of the receive buffers, and what the system
//! had merged on receipt is one piece. Datagrams to one destination keep their order.
//!
//! ```text
//! buffers   [A→x][A→x][B→y][A→x][C→z] …     each 64 KiB apart, for what GRO may merge
//! runs      x: 1 2 4    y: 3    z: 5
//! ```

use std::{io::IoSliceMut, net::SocketAddr, ops::Range};

use bowline_proto::{
    base::{SocketId, Via},
    wire::cluster::PREFIX_LEN,
};
use quinn_udp::{BATCH_SIZE, RecvMeta};

use super::Port;

/// What goes before datagrams on their way to another base lies behind the buffers.
const PREFIXES: usize = BATCH_SIZE * RECEIVES * SEGMENTS * PREFIX_LEN;
/// Datagrams that the system merges on receipt, at most.
const SEGMENTS: usize = 64;
/// Room for all that one receive may bring: the largest datagram, or what the system merged.
const BUFFER: usize = 1 << 16;
/// Buffers begin so far apart: were it a power of two, all their first lines would fall into one set of the cache.
const STRIDE: usize = BUFFER + 4 * 64 + 2 * 1_024;
/// Receive calls of a round: more datagrams find others for the same destination.
const RECEIVES: usize = 4;
/// The most that one send call takes, with IP and UDP headers under 64 KiB.
const LARGEST_RUN: usize = 65_000;
/// Places of the index of open runs: a power of two, several for each datagram that came by itself.
const INDEX: usize = 512;
const NONE: u32 = u32::MAX;

/// The buffers, and what came in the last round.
#[derive(Debug)]
pub(crate) struct Batch {
    buffer: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    received: Vec<Received>,
    pub(crate) runs: Runs,
}

/// Where a datagram goes, and what of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Onward {
    pub(crate) via: Via,
    pub(crate) to: SocketAddr,
    /// So many bytes at its front do not go on.
    pub(crate) skip: usize,
    /// These go before it.
    pub(crate) prefix: Option<[u8; PREFIX_LEN]>,
}

/// What a socket had when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Had {
    /// Nothing, or an error.
    Nothing,
    /// Less than there was room for: it is probably empty now.
    Some,
    /// As much as there was room for: it probably has more.
    More,
}

/// One receive: a datagram, or several of one sender that the system merged.
#[derive(Debug, Clone)]
struct Received {
    at: usize,
    length: usize,
    /// The size of each but a shorter last one.
    stride: usize,
    from: SocketAddr,
    via: Via,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // Zeros that the system gives take memory where something is written: of most buffers, the first page.
        let mut buffer = vec![0; STRIDE * BATCH_SIZE * RECEIVES + PREFIXES];
        buffer.truncate(STRIDE * BATCH_SIZE * RECEIVES);
        Self {
            buffer,
            metas: [RecvMeta::default(); BATCH_SIZE],
            received: Vec::with_capacity(BATCH_SIZE * RECEIVES),
            runs: Runs::new(),
        }
    }

    /// Whether there is room for another receive.
    pub(crate) fn has_room(&self) -> bool {
        self.received.len() + BATCH_SIZE <= BATCH_SIZE * RECEIVES
    }

    /// Receives once from a socket, beside what the round has already.
    pub(crate) fn receive(&mut self, id: SocketId, port: &Port) -> Had {
        let first = self.received.len();
        let mut chunks = self.buffer[first * STRIDE..].chunks_mut(STRIDE).map(|chunk| &mut chunk[..BUFFER]);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = match port.receive(&mut slices, &mut self.metas) {
            Ok(count) => count,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "UDP receive");
                }
                return Had::Nothing;
            }
        };
        for (place, meta) in self.metas[..count].iter().enumerate() {
            self.received.push(Received {
                at: (first + place) * STRIDE,
                length: meta.len.min(BUFFER),
                stride: meta.stride.max(1),
                from: meta.addr,
                via: Via { socket: id, ip: meta.dst_ip },
            });
        }
        if count < BATCH_SIZE { Had::Some } else { Had::More }
    }

    /// Senders of what came, from this place of the round on, and how many datagrams of theirs.
    pub(crate) fn senders(&self, from: usize) -> impl Iterator<Item = (SocketAddr, usize)> {
        self.received[from..]
            .iter()
            .map(|received| (received.from, received.length.div_ceil(received.stride)))
    }

    /// How many came so far, those that the system merged as one.
    pub(crate) fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether anything came.
    pub(crate) fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Hands over each datagram; what `judge` gives a destination joins the runs.
    pub(crate) fn each(
        &mut self,
        most_segments: usize,
        mut judge: impl FnMut(Via, SocketAddr, &mut [u8]) -> Option<Onward>,
    ) {
        self.runs.clear();
        self.buffer.truncate(STRIDE * BATCH_SIZE * RECEIVES);
        for received in self.received.drain(..) {
            let mut start = received.at;
            let end = received.at + received.length;
            loop {
                // An empty datagram is one, too.
                let next = (start + received.stride).min(end);
                let datagram = &mut self.buffer[start..next];
                if let Some(Onward { via, to, skip, prefix }) = judge(received.via, received.from, datagram) {
                    let bytes = start + skip.min(next - start)..next;
                    if let Some(prefix) = prefix {
                        let at = self.buffer.len();
                        self.buffer.extend_from_slice(&prefix);
                        self.runs.push(via, to, [at..at + prefix.len(), bytes], most_segments);
                    } else {
                        self.runs.push(via, to, [bytes], most_segments);
                    }
                }
                start = next;
                if start >= end {
                    break;
                }
            }
        }
    }

    /// The bytes that runs speak of.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

/// The runs of a round, in the order in which they began.
#[derive(Debug)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    pieces: Vec<Piece>,
    /// The latest run to a destination, by a hash of it.
    index: Box<[u32; INDEX]>,
}

/// Datagrams to one destination, all of one size but for a shorter last one.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) via: Via,
    pub(crate) to: SocketAddr,
    pub(crate) size: usize,
    pub(crate) count: usize,
    bytes: usize,
    first: u32,
    last: u32,
}

/// Bytes that lie together, and the piece of the same run that comes next.
#[derive(Debug, Clone)]
struct Piece {
    bytes: Range<usize>,
    next: u32,
}

impl Runs {
    fn new() -> Self {
        Self { runs: Vec::new(), pieces: Vec::new(), index: Box::new([NONE; INDEX]) }
    }

    fn clear(&mut self) {
        self.runs.clear();
        self.pieces.clear();
        self.index.fill(NONE);
    }

    /// A datagram, of one piece or several.
    fn push<const N: usize>(
        &mut self,
        via: Via,
        to: SocketAddr,
        parts: [Range<usize>; N],
        most_segments: usize,
    ) {
        let length = parts.iter().map(Range::len).sum();
        // Linear probing; a full table only means that a datagram leaves by itself.
        let mut slot = place_of(to);
        let mut found = None;
        for _ in 0..8 {
            match self.index[slot] {
                NONE => break,
                at if self.runs[at as usize].to == to && self.runs[at as usize].via == via => {
                    found = Some(at as usize);
                    break;
                }
                _ => slot = (slot + 1) % INDEX,
            }
        }
        match found {
            Some(at) if self.runs[at].takes(length, most_segments) => {
                self.runs[at].count += 1;
                self.runs[at].bytes += length;
                for bytes in parts {
                    self.extend(at, bytes);
                }
            }
            _ => {
                let at = self.runs.len();
                self.index[slot] = at as u32;
                let (first, last) = (NONE, NONE);
                self.runs.push(Run { via, to, size: length, count: 1, bytes: length, first, last });
                for bytes in parts {
                    self.extend(at, bytes);
                }
            }
        }
    }

    fn extend(&mut self, at: usize, bytes: Range<usize>) {
        let run = &mut self.runs[at];
        let piece = self.pieces.len() as u32;
        match self.pieces.get_mut(run.last as usize) {
            Some(last) if last.bytes.end == bytes.start => {
                last.bytes.end = bytes.end;
                return;
            }
            Some(last) => last.next = piece,
            None => run.first = piece,
        }
        run.last = piece;
        self.pieces.push(Piece { bytes, next: NONE });
    }

    pub(crate) fn all(&self) -> &[Run] {
        &self.runs
    }

    /// The pieces of a run, in order.
    pub(crate) fn pieces(&self, run: &Run) -> impl Iterator<Item = Range<usize>> {
        let mut next = run.first;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next as usize)?;
            next = piece.next;
            Some(piece.bytes.clone())
        })
    }

    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "others send one by one"))]
    pub(crate) fn count_of_pieces(&self) -> usize {
        self.pieces.len()
    }
}

impl Run {
    /// A run of which nothing but its shape matters.
    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn of(via: Via, to: SocketAddr, size: usize, count: usize) -> Self {
        Self { via, to, size, count, bytes: size * count, first: NONE, last: NONE }
    }

    fn takes(&self, length: usize, most_segments: usize) -> bool {
        let all_full = self.bytes == self.size * self.count;
        let fits = self.count < most_segments && self.bytes + length <= LARGEST_RUN;
        all_full && fits && (1..=self.size).contains(&length)
    }
}

/// Where a destination is looked for first: its bits mixed, no more. A clash costs a comparison.
fn place_of(to: SocketAddr) -> usize {
    let low = match to {
        SocketAddr::V4(v4) => u64::from(u32::from(*v4.ip())),
        SocketAddr::V6(v6) => v6.ip().to_bits() as u64 ^ (v6.ip().to_bits() >> 64) as u64,
    };
    let mixed = (low ^ u64::from(to.port()) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % INDEX
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of places, some with one")]
mod tests {
    use super::*;

    const VIA: Via = Via { socket: SocketId(0), ip: None };

    fn to(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 4_000))
    }

    /// Destination, size, and where each piece lies.
    fn runs_of(datagrams: &[(u8, Range<usize>)]) -> Vec<(u8, usize, Vec<Range<usize>>)> {
        let mut runs = Runs::new();
        for (n, bytes) in datagrams {
            runs.push(VIA, to(*n), [bytes.clone()], 64);
        }
        let of = |run: &Run| {
            let SocketAddr::V4(to) = run.to else { unreachable!() };
            (to.ip().octets()[3], run.size, runs.pieces(run).collect())
        };
        runs.all().iter().map(of).collect()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_worker_that_has_nothing_to_do_takes_next_to_no_memory() {
        let before = crate::resources::memory_used().unwrap();
        // As on a large machine, in a group that may have little.
        let batches: Vec<Batch> = (0..64).map(|_| Batch::new()).collect();
        let taken = crate::resources::memory_used().unwrap().saturating_sub(before);
        assert!(taken < 64 << 20, "{taken} bytes for {} workers", batches.len());
    }

    #[test]
    fn one_destination_is_one_run_whatever_comes_between() {
        let runs = runs_of(&[(1, 0..100), (2, 500..600), (1, 1_000..1_100), (2, 1_500..1_600)]);
        assert_eq!(runs, [(1, 100, vec![0..100, 1_000..1_100]), (2, 100, vec![500..600, 1_500..1_600])]);
    }

    #[test]
    fn what_lies_together_is_one_piece() {
        assert_eq!(runs_of(&[(1, 0..100), (1, 100..200), (1, 200..250)]), [(1, 100, vec![0..250])]);
    }

    #[test]
    fn a_shorter_datagram_ends_its_run_and_a_longer_one_begins_another_in_order() {
        let runs = runs_of(&[(1, 0..100), (1, 200..250), (1, 300..350), (1, 400..500)]);
        assert_eq!(
            runs,
            [(1, 100, vec![0..100, 200..250]), (1, 50, vec![300..350]), (1, 100, vec![400..500])]
        );
    }

    #[test]
    fn what_goes_before_a_datagram_is_a_piece_of_it() {
        let mut runs = Runs::new();
        runs.push(VIA, to(1), [900..910, 0..100], 64);
        runs.push(VIA, to(1), [910..920, 100..200], 64);
        let run = &runs.all()[0];
        assert_eq!((run.size, run.count), (110, 2));
        assert_eq!(runs.pieces(run).collect::<Vec<_>>(), [900..910, 0..100, 910..920, 100..200]);
    }

    #[test]
    fn an_empty_datagram_is_a_run_of_its_own() {
        assert_eq!(runs_of(&[(1, 0..0), (1, 0..0)]).len(), 2);
    }

    #[test]
    fn a_run_ends_at_what_the_system_takes_in_one_call() {
        let datagrams: Vec<_> = (0..200).map(|n| (1, n * 1_215..(n + 1) * 1_215)).collect();
        let lengths: Vec<_> = runs_of(&datagrams).iter().map(|run| run.2[0].len() / 1_215).collect();
        assert_eq!(lengths, [53, 53, 53, 41]);
    }
}
