//! Counts heap allocations and the bytes that are in use, of the whole process and of its media threads.
//!
//! Counting costs an atomic increment each; it is the same for every candidate that is compared.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The system allocator, counted. Make it the `#[global_allocator]` of a benchmark program.
pub struct Counting;

static ALL: AtomicU64 = AtomicU64::new(0);
static MARKED: AtomicU64 = AtomicU64::new(0);

/// Bytes in use.
static LIVE: AtomicI64 = AtomicI64::new(0);
/// Bytes that marked threads allocated, less what they freed.
static MARKED_LIVE: AtomicI64 = AtomicI64::new(0);

/// What the names of threads begin with whose allocations count as marked (Linux cuts names off after 15 bytes).
const MARKED_THREAD: &[u8] = b"media";
/// A thread gets its name shortly after it starts; it is asked for up to here, then remembered.
const ASK_UP_TO: u32 = 64;

/// Whether allocations of marked threads are written down with where they were made.
static TRACED: AtomicBool = AtomicBool::new(false);
static TRACES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Who allocates per packet shows in a few; each takes milliseconds to write down.
const TRACES_KEPT: usize = 8;

thread_local! {
    // Const-initialised: reading it allocates nothing, so the allocator may.
    static THREAD: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    /// This thread is writing down a trace, which allocates too.
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

/// Allocations so far in this process, reallocations included.
pub fn all() -> u64 {
    ALL.load(Ordering::Relaxed)
}

/// Bytes that are in use: asked for and not given back. What an allocator needs on top is not among them.
pub fn live() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

/// Bytes that threads named `media*` allocated and did not free. What they free for others and others for
/// them (requests and events, a few kilobytes each) makes it inexact by about that.
pub fn live_in_media_threads() -> i64 {
    MARKED_LIVE.load(Ordering::Relaxed)
}

/// Allocations so far in threads named `media*`.
pub fn in_media_threads() -> u64 {
    MARKED.load(Ordering::Relaxed)
}

/// From now on the first allocations in threads named `media*` are written down; see [`traces`].
pub fn trace() {
    TRACES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    TRACED.store(true, Ordering::Relaxed);
}

/// Where the allocations since [`trace`] were made, which it ends.
pub fn traces() -> Vec<String> {
    TRACED.store(false, Ordering::Relaxed);
    std::mem::take(&mut TRACES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Writes down where it was called from. What that allocates itself is not counted.
#[cold]
fn write_down() {
    TRACING.set(true);
    let trace = Backtrace::force_capture().to_string();
    let mut traces = TRACES.lock().unwrap_or_else(PoisonError::into_inner);
    if traces.len() < TRACES_KEPT {
        traces.push(trace);
    } else {
        TRACED.store(false, Ordering::Relaxed);
    }
    drop(traces);
    TRACING.set(false);
}

fn count(bytes: i64, allocates: bool) {
    if TRACING.try_with(Cell::get).unwrap_or(false) {
        return;
    }
    ALL.fetch_add(u64::from(allocates), Ordering::Relaxed);
    LIVE.fetch_add(bytes, Ordering::Relaxed);
    // A thread that is ending has no thread-locals any more.
    if THREAD.try_with(is_marked).unwrap_or(false) {
        MARKED.fetch_add(u64::from(allocates), Ordering::Relaxed);
        MARKED_LIVE.fetch_add(bytes, Ordering::Relaxed);
        if allocates && TRACED.load(Ordering::Relaxed) {
            write_down();
        }
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
