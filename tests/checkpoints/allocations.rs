//! What this thread has allocated, so that a small file's great claims cannot go unseen. Tensors, which are libtorch's,
//! are not counted.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counted;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static ALL: Cell<usize> = const { Cell::new(0) };
}

fn count(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
    let _ = ALL.try_with(|all| all.set(all.get().saturating_add(size)));
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Runs `work`; the largest block that it allocated, and all of them together, freed ones too.
pub fn of<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    LARGEST.set(0);
    ALL.set(0);
    let done = work();
    (done, LARGEST.get(), ALL.get())
}
