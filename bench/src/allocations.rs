//! Counts heap allocations, all of them and those of the media thread.
//!
//! Counting costs an atomic increment each; it is the same for every candidate that is compared.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// The system allocator, counted. Make it the `#[global_allocator]` of a benchmark program.
pub struct Counting;

static ALL: AtomicU64 = AtomicU64::new(0);
static MARKED: AtomicU64 = AtomicU64::new(0);

/// Bytes that marked threads allocated, less what they freed.
static LIVE: AtomicI64 = AtomicI64::new(0);

/// What the names of threads begin with whose allocations count as marked (Linux cuts names off after 15 bytes).
const MARKED_THREAD: &[u8] = b"media";
/// A thread gets its name shortly after it starts; it is asked for up to here, then remembered.
const ASK_UP_TO: u32 = 64;

thread_local! {
    // Const-initialised: reading it allocates nothing, so the allocator may.
    static THREAD: Cell<(u32, bool)> = const { Cell::new((0, false)) };
}

/// Allocations so far in this process, reallocations included.
pub fn all() -> u64 {
    ALL.load(Ordering::Relaxed)
}

/// Bytes that threads named `media*` allocated and did not free. What they free for others and others for
/// them (requests and events, a few kilobytes each) makes it inexact by about that.
pub fn live_in_media_threads() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

/// Allocations so far in threads named `media*`.
pub fn in_media_threads() -> u64 {
    MARKED.load(Ordering::Relaxed)
}

fn count(bytes: i64, allocates: bool) {
    ALL.fetch_add(u64::from(allocates), Ordering::Relaxed);
    // A thread that is ending has no thread-locals any more.
    if THREAD.try_with(is_marked).unwrap_or(false) {
        MARKED.fetch_add(u64::from(allocates), Ordering::Relaxed);
        LIVE.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn is_marked(thread: &Cell<(u32, bool)>) -> bool {
    let (asked, marked) = thread.get();
    if asked >= ASK_UP_TO {
        return marked;
    }
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, its NUL included.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let marked = name.starts_with(MARKED_THREAD);
    thread.set((asked + 1, marked));
    marked
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64, true);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64), false);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64, true);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
