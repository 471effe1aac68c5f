//! The devices' budgets, in memory that the program counts in, too.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering},
};

use aya::maps::{Map, MapData};
use bowline_proto::base::SharedBudget;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::Error;

/// One device's.
type Cells = [AtomicU64; 2];

/// All of them, those that nobody has included.
#[derive(Debug)]
pub(crate) struct Budgets {
    cells: Mapping,
    free: Mutex<Free>,
}

/// The one that has been free for longest goes first: a core that stands still in the middle of a message counts it against whoever has the
/// budget when it goes on.
#[derive(Debug)]
struct Free {
    /// Those from here on nobody has had.
    fresh: u32,
    returned: VecDeque<u32>,
}

/// A session's.
#[derive(Debug)]
pub(crate) struct Slot {
    budgets: Arc<Budgets>,
    number: u32,
}

impl Budgets {
    /// Those in the program's table, which has so many.
    pub(crate) fn of(map: Map, count: u32) -> Result<Arc<Self>, Error> {
        let failed = |error: String| Error::Kernel { doing: "sharing its budgets", error };
        let Map::Array(table) = map else { return Err(failed("no array".to_owned())) };
        let cells = Mapping::of(&table, count as usize).map_err(|error| failed(error.to_string()))?;
        let free = Mutex::new(Free { fresh: 0, returned: VecDeque::new() });
        Ok(Arc::new(Self { cells, free }))
    }

    /// One that is full.
    pub(crate) fn give(self: &Arc<Self>) -> Option<Slot> {
        let mut free = self.free();
        let number = if (free.fresh as usize) < self.cells.all().len() {
            free.fresh += 1;
            free.fresh - 1
        } else {
            free.returned.pop_front()?
        };
        let slot = Slot { budgets: Arc::clone(self), number };
        slot.full_at().iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
        Some(slot)
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // Each change is one.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedBudget for Slot {
    fn full_at(&self) -> &Cells {
        &self.budgets.cells.all()[self.number as usize]
    }

    fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.budgets.free().returned.push_back(self.number);
    }
}

/// A table of the kernel's in this process's memory. The only unsafe code there is: what two sides count at once has to lie in memory that
/// both have, and no safe call shares any.
#[derive(Debug)]
struct Mapping {
    first: NonNull<Cells>,
    count: usize,
}

#[allow(unsafe_code, reason = "memory that is shared with the kernel is mapped, and behind a pointer")]
mod shared {
    use super::*;

    // SAFETY: It is the address of atomics that live as long as it does, and nothing else.
    unsafe impl Send for Mapping {}
    // SAFETY: The same.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        pub(super) fn of(table: &MapData, count: usize) -> nix::Result<Self> {
            let length = NonZeroUsize::new(count * size_of::<Cells>()).ok_or(nix::Error::EINVAL)?;
            let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: A new mapping, wherever there is room. The kernel refuses a length that is more than the table has.
            let first = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, table.fd().as_fd(), 0) }?;
            Ok(Self { first: first.cast(), count })
        }

        pub(super) fn all(&self) -> &[Cells] {
            // SAFETY: So many were mapped, from the start of a page on, and stay so until `self` is dropped. The kernel, too, changes them by
            // atomic operations alone; any bytes are a number.
            unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: This was mapped, with this length, and nobody has a reference to it any more.
            let _ = unsafe { munmap(self.first.cast(), self.count * size_of::<Cells>()) };
        }
    }
}
