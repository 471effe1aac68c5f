//! What is read from TCP connections lies in blocks, which many connections use in turn.
//!
//! What is large enough of a block's frames goes from the connection that read them into the queues of others without a copy. Dropped,
//! a block is used again: memory that has just been read into is in the cache, and costs no page fault.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// What a connection reads into until it has filled one: most connections have only a few bytes to say.
pub(crate) const SMALL: usize = 4 << 10;
/// The same, for a connection that brings more.
pub(crate) const BLOCK: usize = 64 << 10;
/// The same, for a connection that fills those: fewer calls for what it brings, each of which wakes others. The
/// best of 256 KiB to 1 MiB where a core's second cache has 1 MiB; why was not traced.
pub(crate) const LARGE: usize = 768 << 10;
/// Blocks of each size that are kept while nobody uses them: a few for each core.
const KEPT: usize = 16;

/// Blocks that nobody uses at present.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    small: Kept,
    blocks: Kept,
    large: Kept,
}

type Kept = Mutex<Vec<Box<[u8]>>>;

impl Pool {
    /// An empty block of at least so many bytes; [`LARGE`] is the most that can be asked for.
    pub(crate) fn take(self: &Arc<Self>, least: usize) -> Block {
        let size = size_for(least);
        let kept = self.kept(size).lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = kept.unwrap_or_else(|| vec![0; size].into());
        Block { memory, filled: 0, pool: Arc::clone(self) }
    }

    /// A block with these bytes, as many as one takes.
    pub(crate) fn copy(self: &Arc<Self>, bytes: &[u8]) -> Block {
        let mut block = self.take(bytes.len());
        block.put(bytes);
        block
    }

    fn kept(&self, size: usize) -> &Kept {
        match size {
            SMALL => &self.small,
            BLOCK => &self.blocks,
            _ => &self.large,
        }
    }
}

/// The size of the blocks that have room for so much.
fn size_for(least: usize) -> usize {
    [SMALL, BLOCK].into_iter().find(|size| least <= *size).unwrap_or(LARGE)
}

/// Memory with whole frames at its front, or about to have them.
#[derive(Debug)]
pub(crate) struct Block {
    memory: Box<[u8]>,
    filled: usize,
    pool: Arc<Pool>,
}

impl Block {
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// Bytes that there is room for in all.
    pub(crate) fn size(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.memory.len()
    }

    /// Where more may be read to; [`Block::fill`] says how much was.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled..]
    }

    pub(crate) fn fill(&mut self, read: usize) {
        self.filled = (self.filled + read).min(self.memory.len());
    }

    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Puts this at the end; what there is no room for is left out.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let room = self.room();
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        self.fill(length);
    }

    /// The same in a block of the size for `least` bytes, or for what it has.
    pub(crate) fn resized(mut self, pool: &Arc<Pool>, least: usize) -> Self {
        if size_for(least.max(self.filled + 1)) == self.size() {
            return self;
        }
        self.split_rest(0, pool, least).unwrap_or(self)
    }

    /// Leaves the part after `front` alone, in a block that has room for more: this one, if it is as large as it has to be.
    pub(crate) fn into_rest(mut self, front: usize, pool: &Arc<Pool>, least: usize) -> Option<Self> {
        let rest = front.min(self.filled)..self.filled;
        if size_for(least.max(rest.len() + 1)) != self.size() {
            return self.split_rest(front, pool, least);
        }
        self.memory.copy_within(rest.clone(), 0);
        self.filled = rest.len();
        (self.filled > 0).then_some(self)
    }

    /// Takes the part after `front` out, into a block of `pool` that has room for more.
    pub(crate) fn split_rest(&mut self, front: usize, pool: &Arc<Pool>, least: usize) -> Option<Self> {
        let rest: Range<usize> = front.min(self.filled)..self.filled;
        if rest.is_empty() {
            return None;
        }
        // The rest of a frame may be longer than a small block.
        let mut next = pool.take(least.max(rest.len() + 1));
        next.put(&self.memory[rest]);
        self.filled = front;
        Some(next)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.filled]
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.filled]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut kept = self.pool.kept(self.memory.len()).lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_and_few_are_kept() {
        let pool = Arc::new(Pool::default());
        let block = pool.take(BLOCK);
        let at = block.as_ref().as_ptr();
        drop(block);
        assert_eq!(pool.take(BLOCK).as_ref().as_ptr(), at);
        let many: Vec<Block> = (0..2 * KEPT).map(|_| pool.take(BLOCK)).collect();
        drop(many);
        assert_eq!(pool.blocks.lock().unwrap().len(), KEPT);
    }

    #[test]
    fn the_rest_of_a_frame_stays_in_a_large_block_only_while_much_comes() {
        let pool = Arc::new(Pool::default());
        let mut block = pool.take(BLOCK);
        let at = block.as_ref().as_ptr();
        block.put(&[[1; 100], [2; 100]].concat());
        let rest = block.into_rest(100, &pool, BLOCK).unwrap();
        assert_eq!((rest.as_ref(), rest.as_ref().as_ptr()), (&[2; 100][..], at));
        let mut rest = rest.into_rest(99, &pool, 0).unwrap();
        assert_eq!(rest.as_ref(), [2]);
        assert_eq!(rest.room().len(), SMALL - 1);
        assert!(rest.into_rest(1, &pool, BLOCK).is_none());
        assert_eq!(pool.blocks.lock().unwrap().len(), 1, "the large one is used again");
    }

    #[test]
    fn the_rest_of_a_frame_moves_on_and_leaves_the_front() {
        let pool = Arc::new(Pool::default());
        let mut block = pool.take(1);
        block.put(&[1; 4_000]);
        let mut rest = block.split_rest(100, &pool, 1).unwrap();
        assert_eq!((block.len(), rest.len()), (100, 3_900));
        assert!(!rest.is_full());
        rest.put(&[2; BLOCK]);
        assert!(rest.is_full());
        assert!(rest.split_rest(rest.len(), &pool, 1).is_none());
    }

    #[test]
    fn a_block_is_as_large_as_what_is_asked_for_and_each_size_is_used_again() {
        let pool = Arc::new(Pool::default());
        for (least, size) in [(0, SMALL), (SMALL, SMALL), (SMALL + 1, BLOCK), (BLOCK + 1, LARGE)] {
            assert_eq!(pool.take(least).size(), size);
        }
        let kept = |kept: &Kept| kept.lock().unwrap().len();
        assert_eq!((kept(&pool.small), kept(&pool.blocks), kept(&pool.large)), (1, 1, 1));
    }

    #[test]
    fn what_waits_for_the_rest_of_a_frame_moves_where_it_holds_little_and_back() {
        let pool = Arc::new(Pool::default());
        let mut block = pool.take(LARGE);
        block.put(&[1; 100]);
        let small = block.resized(&pool, 0);
        assert_eq!((small.as_ref(), small.size()), (&[1; 100][..], SMALL));
        let large = small.resized(&pool, LARGE);
        assert_eq!((large.as_ref(), large.size()), (&[1; 100][..], LARGE));
        let at = large.as_ref().as_ptr();
        assert_eq!(large.resized(&pool, LARGE).as_ref().as_ptr(), at, "it fits already");
        let empty = pool.take(LARGE).resized(&pool, 0);
        assert_eq!(empty.len(), 0);
    }
}
