//! Buffers to receive into, used again and again.
//!
//! A buffer that holds several datagrams is handed on as it is, without copying; the last of them that the caller lets go of
//! brings it back here. Spare ones are kept, [`SPARE_BUFFERS`] at most. A message that is kept for long therefore keeps its
//! whole buffer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::config::{RECEIVE_BUFFER, SPARE_BUFFERS};

/// The spare buffers of an endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Pool {
    /// A buffer of [`RECEIVE_BUFFER`] bytes with whatever was in it.
    pub(super) fn take(&self) -> Box<[u8]> {
        let spare = self.lock().pop();
        spare.unwrap_or_else(|| vec![0; RECEIVE_BUFFER].into_boxed_slice())
    }

    /// The first `length` bytes of a buffer, to be shared; it comes back when nobody has any of them.
    pub(super) fn share(&self, buffer: Box<[u8]>, length: usize) -> Bytes {
        Bytes::from_owner(Shared { buffer, length, pool: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        // Nothing panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    buffer: Box<[u8]>,
    length: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut spare = self.pool.lock();
        if spare.len() < SPARE_BUFFERS {
            spare.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_the_last_of_its_messages_and_few_are_kept() {
        let pool = Pool::default();
        let mut all = pool.share(pool.take(), 3000);
        let first = all.split_to(1000);
        drop(all);
        assert_eq!(pool.lock().len(), 0, "a message is still held");
        drop(first);
        assert_eq!(pool.lock().len(), 1);
        let many: Vec<_> = (0..2 * SPARE_BUFFERS).map(|_| pool.share(pool.take(), 1)).collect();
        drop(many);
        assert_eq!(pool.lock().len(), SPARE_BUFFERS);
    }
}
