//! How many messages leave in one system call, and in which datagrams.
//!
//! Messages of one size share a call where the system cuts it into datagrams (GSO). Short ones share datagrams, too, where the
//! peer takes them joined (protocol section 6): packets cost, not bytes.

use std::io::IoSlice;

use bowline_proto::wire::peer::{JOINED_HEADER_LEN, joined_count, joined_header};

use crate::{
    batch::{Batch, run_length},
    config::{MAX_PARTS, MAX_SEGMENTED_BYTES},
};

/// How messages of a size are sent by a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    size: usize,
    /// Messages in a datagram; 1: they travel bare.
    each: usize,
    /// Messages in a call.
    most: usize,
}

/// Messages of a batch that leave in one call.
#[derive(Debug)]
pub(crate) struct Packed {
    packing: Packing,
    pub(crate) count: usize,
    header: [u8; JOINED_HEADER_LEN],
}

impl Default for Packing {
    /// Each message by itself.
    fn default() -> Self {
        Self { size: 1, each: 1, most: 1 }
    }
}

impl Packing {
    /// For messages of `size` bytes, by a way where the system takes `segments` datagrams a call, and joined ones of `joined` bytes
    /// are let through if any are.
    pub(crate) fn new(size: usize, segments: usize, joined: Option<usize>) -> Self {
        let each = match joined {
            Some(length) if u16::try_from(size).is_ok() => joined_count(size, length),
            _ => 1,
        };
        let datagram = if each > 1 { JOINED_HEADER_LEN + each * size } else { size };
        let datagrams = segments.min(MAX_SEGMENTED_BYTES / datagram.max(1)).max(1);
        Self { size, each, most: datagrams * each }
    }

    /// Messages in a call at most.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// The size of each message but the last.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The messages of a batch from `at` on that share a call.
    pub(crate) fn pack<B>(self, batch: &B, at: usize) -> Packed
    where
        B: Batch + ?Sized,
    {
        let calls = MAX_PARTS / (1 + batch.pieces(self.each));
        let most = if self.each > 1 { self.most.min(calls * self.each) } else { self.most };
        let count = run_length(batch, at, most, 0, |_| true);
        // Longer ones are not joined.
        let header = joined_header(u16::try_from(self.size).unwrap_or(u16::MAX));
        Packed { packing: self, count, header }
    }
}

impl Packed {
    /// Whether messages share datagrams.
    pub(crate) fn is_joined(&self) -> bool {
        self.packing.each > 1 && self.count > 1
    }

    /// Their bytes, as the system takes them.
    pub(crate) fn parts<'a, B>(&'a self, batch: &'a B, at: usize) -> Vec<IoSlice<'a>>
    where
        B: Batch + ?Sized,
    {
        if !self.is_joined() {
            return batch.parts(at, self.count);
        }
        let each = self.packing.each;
        let mut parts = Vec::with_capacity(self.count.div_ceil(each) * (1 + batch.pieces(each)));
        for first in (0..self.count).step_by(each) {
            parts.push(IoSlice::new(&self.header));
            parts.extend(batch.parts(at + first, each.min(self.count - first)));
        }
        parts
    }

    /// The length of each datagram but the last, where there are several.
    pub(crate) fn segment(&self) -> Option<usize> {
        if self.is_joined() {
            let length = JOINED_HEADER_LEN + self.packing.each * self.packing.size;
            (self.count > self.packing.each).then_some(length)
        } else {
            (self.count > 1).then_some(self.packing.size)
        }
    }
}

#[cfg(test)]
mod tests {
    use bowline_proto::wire::peer::PADDED_HELLO_LEN;
    use bytes::Bytes;

    use super::*;
    use crate::{Ecn, batch::Segments};

    fn joined(size: usize, segments: usize) -> Packing {
        Packing::new(size, segments, Some(PADDED_HELLO_LEN))
    }

    fn bytes(parts: &[IoSlice<'_>]) -> usize {
        parts.iter().map(|part| part.len()).sum()
    }

    #[test]
    fn eleven_messages_of_100_bytes_share_a_datagram_and_as_many_datagrams_a_call_as_the_system_takes() {
        let packing = joined(100, 64);
        assert_eq!((packing.each, packing.most()), (11, 58 * 11), "58 of 1,111 bytes are what a call takes");
        let data = [7; 100 * 1000];
        let batch = Segments::new(&data, 100, Ecn::NotEct);
        let packed = packing.pack(&batch, 0);
        assert_eq!((packed.count, packed.segment()), (638, Some(1111)));
        assert_eq!(bytes(&packed.parts(&batch, 0)), 58 * 1111);
        // What is left, of which the last datagram is not full.
        let packed = packing.pack(&batch, 638);
        assert_eq!((packed.count, packed.is_joined()), (362, true));
        assert_eq!(bytes(&packed.parts(&batch, 638)), 36_200 + 33 * JOINED_HEADER_LEN);
    }

    #[test]
    fn few_messages_are_one_datagram_and_one_is_bare() {
        let data = [7; 500];
        let batch = Segments::new(&data, 100, Ecn::NotEct);
        let packed = joined(100, 64).pack(&batch, 0);
        assert_eq!((packed.count, packed.segment()), (5, None));
        assert_eq!(packed.parts(&batch, 0).len(), 2);
        let packed = joined(100, 64).pack(&batch, 4);
        assert_eq!((packed.count, packed.is_joined()), (1, false));
        assert_eq!(bytes(&packed.parts(&batch, 4)), 100);
    }

    #[test]
    fn messages_that_leave_no_room_for_another_are_not_joined() {
        let packing = joined(600, 64);
        assert_eq!((packing.each, packing.most()), (1, 64));
        assert_eq!(Packing::new(100, 64, None).each, 1);
    }

    #[test]
    fn where_the_system_does_not_segment_one_datagram_leaves_at_a_time() {
        assert_eq!(joined(100, 1).most(), 11);
        assert_eq!(Packing::new(100, 1, None).most(), 1);
    }

    #[test]
    fn a_call_has_no_more_pieces_of_memory_than_the_system_takes() {
        let batch: Vec<Bytes> = (0..5000).map(|_| Bytes::from_static(b"x")).collect();
        let packed = joined(1, 64).pack(&batch[..], 0);
        let parts = packed.parts(&batch[..], 0).len();
        assert!((MAX_PARTS - 65..=MAX_PARTS).contains(&parts), "{parts}");
    }
}
