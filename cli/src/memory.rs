//! How much memory that was given back this process keeps for the next that asks.
//!
//! Batches come and go, each up to some MiB. The C library of GNU gives such blocks back to the system as soon as they are free, and the
//! system hands out others, page by page, each cleared. A cluster that takes batches of 1 MiB takes a
//! seventh more of them where that is not so.

#![allow(unsafe_code, reason = "the C library's allocator has no safe form of this")]

/// Blocks up to this size are kept, the largest that the library takes: batches and frames are below it.
#[cfg(target_env = "gnu")]
const KEPT_BLOCK_BYTES_MAX: libc::c_int = 32 << 20;

/// Bytes at the end of each heap that are kept.
#[cfg(target_env = "gnu")]
const KEPT_BYTES_MAX: libc::c_int = 64 << 20;

/// Has memory kept. To be called first of all; another C library does as it likes.
pub(crate) fn keep_freed() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES_MAX), (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX)]
    {
        // SAFETY: it takes two numbers and keeps one. What it refuses stays as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}
