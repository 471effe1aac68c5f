//! Where small chunks are copied together, to be handed on.
//!
//! What a receive brings in single datagrams is some tens of KiB. Memory for that, asked of the allocator for each receive and given
//! back, goes back to the system as well and costs page faults when it comes again. So it is copied into blocks, each of which is used
//! again once nobody has any of its messages. A receive has a block to itself: a message that is kept for long keeps what came
//! with it. Where little has come, it is copied into as much memory as it needs.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::config::{COPY_BELOW, RECEIVE_BUFFER, SPARE_BLOCKS};

#[derive(Debug, Default)]
pub(super) struct Copied {
    /// What was copied since the last [`Self::take`], and the room behind it.
    bytes: BytesMut,
    is_block: bool,
    /// Blocks that were copied into, the oldest first.
    blocks: VecDeque<BytesMut>,
}

impl Copied {
    /// Before chunks of so many bytes are copied, none of them together with any from before.
    pub(super) fn make_room(&mut self, bytes: usize) {
        if self.is_block {
            // If the oldest ones are still held after so many others, they are held for long.
            if self.blocks.len() == SPARE_BLOCKS {
                self.blocks.pop_front();
            }
            self.blocks.push_back(std::mem::take(&mut self.bytes));
        }
        // A message never keeps more than a few times what came with it.
        self.is_block = bytes >= COPY_BELOW;
        self.bytes = if self.is_block { self.block() } else { BytesMut::with_capacity(bytes) };
    }

    fn block(&mut self) -> BytesMut {
        if let Some(oldest) = self.blocks.front_mut()
            && oldest.try_reclaim(RECEIVE_BUFFER)
        {
            return self.blocks.pop_front().unwrap_or_default();
        }
        BytesMut::with_capacity(RECEIVE_BUFFER)
    }

    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What was copied since this was called last.
    pub(super) fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a receive of so many bytes brings, and where it lies.
    fn receive(copied: &mut Copied, bytes: usize) -> (Bytes, *const u8) {
        copied.make_room(bytes);
        copied.push(&vec![7; bytes]);
        let taken = copied.take();
        let place = taken.as_ptr();
        (taken, place)
    }

    #[test]
    fn a_block_is_used_again_once_nobody_has_any_of_its_messages() {
        let mut copied = Copied::default();
        let (mut first, place) = receive(&mut copied, COPY_BELOW);
        let message = first.split_to(100);
        drop(first);
        let (second, another) = receive(&mut copied, COPY_BELOW);
        assert_ne!(another, place, "a message is still held");
        drop(message);
        assert_eq!(receive(&mut copied, RECEIVE_BUFFER).1, place);
        drop(second);
        assert_eq!(receive(&mut copied, COPY_BELOW).1, another);
    }

    #[test]
    fn blocks_that_are_held_for_long_are_let_go_of_and_others_used_again() {
        let mut copied = Copied::default();
        let held: Vec<_> = (0..2 * SPARE_BLOCKS).map(|_| receive(&mut copied, COPY_BELOW).0).collect();
        assert_eq!(copied.blocks.len(), SPARE_BLOCKS);
        let before: Vec<_> = (0..SPARE_BLOCKS + 2).map(|_| receive(&mut copied, COPY_BELOW).1).collect();
        assert!(before.contains(&receive(&mut copied, COPY_BELOW).1));
        drop(held);
    }

    #[test]
    fn little_takes_no_block() {
        let mut copied = Copied::default();
        let (taken, _) = receive(&mut copied, 100);
        assert_eq!(taken.len(), 100);
        let (_, _) = receive(&mut copied, COPY_BELOW);
        assert!(copied.blocks.is_empty());
    }
}
