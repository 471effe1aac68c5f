//! How many messages leave in one system call, and in which datagrams.
//!
//! Messages of one size share a call where the system cuts it into datagrams (GSO). Short ones share datagrams, too, where the
//! peer takes them joined (protocol section 6): packets cost, not bytes.

use std::io::IoSlice;

use bowline_proto::{
    DeviceId,
    wire::{
        joined, peer,
        relay::{self, HEADER_LEN, SEND_DATA},
    },
};

use crate::{
    batch::{Batch, run_length},
    config::{MAX_PARTS, MAX_SEGMENTED_BYTES},
};

/// By which way messages go: what goes before them depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    /// Over UDP through a base, to this device.
    Relayed(DeviceId),
}

/// How messages of a size are sent by a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    way: Way,
    size: usize,
    /// Messages in a datagram; 1: they travel bare.
    each: usize,
    /// Messages in a call.
    most: usize,
}

/// Messages of a batch that leave in one call.
#[derive(Debug)]
pub(crate) struct Packed {
    size: usize,
    each: usize,
    pub(crate) count: usize,
    header: Header,
}

/// What goes before the messages of a datagram.
#[derive(Debug, Clone, Copy)]
struct Header {
    bytes: [u8; relay::JOINED_HEADER_LEN],
    length: usize,
}

impl Header {
    fn new(header: &[u8]) -> Self {
        let mut bytes = [0; relay::JOINED_HEADER_LEN];
        bytes[..header.len()].copy_from_slice(header);
        Self { bytes, length: header.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Default for Packing {
    /// Each message by itself.
    fn default() -> Self {
        Self { way: Way::Direct, size: 1, each: 1, most: 1 }
    }
}

impl Way {
    /// The length of what goes before a message by itself.
    fn bare_len(self) -> usize {
        match self {
            Self::Direct => 0,
            Self::Relayed(_) => HEADER_LEN,
        }
    }

    fn joined_len(self) -> usize {
        match self {
            Self::Direct => peer::JOINED_HEADER_LEN,
            Self::Relayed(_) => relay::JOINED_HEADER_LEN,
        }
    }

    fn bare(self) -> Header {
        match self {
            Self::Direct => Header::new(&[]),
            Self::Relayed(to) => Header::new(&relay::header(SEND_DATA, to)),
        }
    }

    fn joined(self, size: u16) -> Header {
        match self {
            Self::Direct => Header::new(&peer::joined_header(size)),
            Self::Relayed(to) => Header::new(&relay::joined_header(to, size)),
        }
    }
}

impl Packing {
    /// For messages of `size` bytes, where the system takes `segments` datagrams a call, and joined ones of `length` bytes
    /// are let through if any are.
    pub(crate) fn new(way: Way, size: usize, segments: usize, length: Option<usize>) -> Self {
        let each = match length {
            Some(length) if u16::try_from(size).is_ok() => {
                joined::count(size, length.saturating_sub(way.joined_len()))
            }
            _ => 1,
        };
        let datagram = if each > 1 { way.joined_len() + each * size } else { way.bare_len() + size };
        let datagrams = segments.min(MAX_SEGMENTED_BYTES / datagram.max(1)).max(1);
        Self { way, size, each, most: datagrams * each }
    }

    /// Messages in a call at most.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// The size of each message but the last.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The messages of a batch from `at` on that share a call: of those that go `together` with the first.
    pub(crate) fn pack<B>(self, batch: &B, at: usize, together: impl Fn(usize) -> bool) -> Packed
    where
        B: Batch + ?Sized,
    {
        let Self { way, size, each, most } = self;
        let datagrams = MAX_PARTS / (1 + batch.pieces(each));
        let count = run_length(batch, at, most.min(datagrams * each), way.bare_len(), together);
        match u16::try_from(size) {
            Ok(joined) if each > 1 && count > 1 => Packed { size, each, count, header: way.joined(joined) },
            _ => Packed { size, each: 1, count, header: way.bare() },
        }
    }
}

impl Packed {
    /// Whether messages share datagrams.
    pub(crate) fn is_joined(&self) -> bool {
        self.each > 1
    }

    /// Their bytes, as the system takes them.
    pub(crate) fn parts<'a, B>(&'a self, batch: &'a B, at: usize) -> Vec<IoSlice<'a>>
    where
        B: Batch + ?Sized,
    {
        let Self { each, count, header, .. } = self;
        if header.length == 0 {
            return batch.parts(at, *count);
        }
        let mut parts = Vec::with_capacity(count.div_ceil(*each) * (1 + batch.pieces(*each)));
        for first in (0..*count).step_by(*each) {
            parts.push(IoSlice::new(header.bytes()));
            parts.extend(batch.parts(at + first, (*each).min(count - first)));
        }
        parts
    }

    /// The length of each datagram but the last, where there are several.
    pub(crate) fn segment(&self) -> Option<usize> {
        (self.count > self.each).then_some(self.header.length + self.each * self.size)
    }
}

#[cfg(test)]
mod tests {
    use bowline_proto::{id::DEVICE_ID_LEN, wire::peer::PADDED_HELLO_LEN};
    use bytes::Bytes;

    use super::*;
    use crate::{Ecn, batch::Segments};

    fn joined(size: usize, segments: usize) -> Packing {
        Packing::new(Way::Direct, size, segments, Some(PADDED_HELLO_LEN))
    }

    fn pack(packing: Packing, batch: &Segments<'_>, at: usize) -> Packed {
        packing.pack(batch, at, |_| true)
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
        let packed = pack(packing, &batch, 0);
        assert_eq!((packed.count, packed.segment()), (638, Some(1111)));
        assert_eq!(bytes(&packed.parts(&batch, 0)), 58 * 1111);
        // What is left, of which the last datagram is not full.
        let packed = pack(packing, &batch, 638);
        assert_eq!((packed.count, packed.is_joined()), (362, true));
        assert_eq!(bytes(&packed.parts(&batch, 638)), 36_200 + 33 * peer::JOINED_HEADER_LEN);
    }

    #[test]
    fn few_messages_are_one_datagram_and_one_is_bare() {
        let data = [7; 500];
        let batch = Segments::new(&data, 100, Ecn::NotEct);
        let packed = pack(joined(100, 64), &batch, 0);
        assert_eq!((packed.count, packed.segment()), (5, None));
        assert_eq!(packed.parts(&batch, 0).len(), 2);
        let packed = pack(joined(100, 64), &batch, 4);
        assert_eq!((packed.count, packed.is_joined()), (1, false));
        assert_eq!(bytes(&packed.parts(&batch, 4)), 100);
    }

    #[test]
    fn messages_that_leave_no_room_for_another_are_not_joined() {
        let packing = joined(600, 64);
        assert_eq!((packing.each, packing.most()), (1, 64));
        assert_eq!(Packing::new(Way::Direct, 100, 64, None).each, 1);
    }

    #[test]
    fn where_the_system_does_not_segment_one_datagram_leaves_at_a_time() {
        assert_eq!(joined(100, 1).most(), 11);
        assert_eq!(Packing::new(Way::Direct, 100, 1, None).most(), 1);
    }

    #[test]
    fn through_a_base_each_datagram_names_the_peer_and_those_of_joined_messages_their_size() {
        let peer = DeviceId::from_bytes([9; DEVICE_ID_LEN]);
        let data = [7; 100 * 30];
        let batch = Segments::new(&data, 100, Ecn::NotEct);
        let packing = |length| Packing::new(Way::Relayed(peer), 100, 64, length);
        let packed = pack(packing(Some(HEADER_LEN + 1200)), &batch, 0);
        assert_eq!((packed.count, packed.segment()), (30, Some(relay::JOINED_HEADER_LEN + 11 * 100)));
        let parts = packed.parts(&batch, 0);
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [17, 1100, 17, 1100, 17, 800]);
        assert_eq!(*parts[4], relay::joined_header(peer, 100));
        let packed = pack(packing(None), &batch, 28);
        assert_eq!((packed.count, packed.segment()), (2, Some(115)));
        let parts = packed.parts(&batch, 28);
        assert_eq!((parts.len(), &*parts[2]), (4, &relay::header(SEND_DATA, peer)[..]));
        // One that is left goes as it always does.
        let packed = pack(packing(Some(HEADER_LEN + 1200)), &batch, 29);
        assert_eq!((packed.count, packed.is_joined(), packed.segment()), (1, false, None));
        assert_eq!(bytes(&packed.parts(&batch, 29)), 115);
    }

    #[test]
    fn only_what_goes_together_shares_a_call() {
        let data = [7; 100 * 30];
        let batch = Segments::new(&data, 100, Ecn::NotEct);
        assert_eq!(joined(100, 64).pack(&batch, 0, |at| at < 15).count, 15);
    }

    #[test]
    fn a_call_has_no_more_pieces_of_memory_than_the_system_takes() {
        let batch: Vec<Bytes> = (0..5000).map(|_| Bytes::from_static(b"x")).collect();
        let packed = joined(1, 64).pack(&batch[..], 0, |_| true);
        let parts = packed.parts(&batch[..], 0).len();
        assert!((MAX_PARTS - 65..=MAX_PARTS).contains(&parts), "{parts}");
    }
}
