//! What bounds what.

use std::time::Duration;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Guest memory: at least what a Linux needs to start, at most what one file of a snapshot can hold.
pub(crate) const MEMORY_BYTES_MIN: u64 = 16 << 20;
pub(crate) const MEMORY_BYTES_MAX: u64 = 1 << 40;

/// Extents of pages that are mapped ahead of a restore.
pub(crate) const HOT_EXTENTS: usize = 16 << 10;

/// Virtual processors.
pub(crate) const VCPUS_MAX: u8 = 32;

/// Entries of one virtqueue.
pub(crate) const QUEUE_SIZE: u16 = 256;

/// What is kept of the console's end.
pub(crate) const CONSOLE_BYTES: usize = 64 << 10;

/// Moments that a machine can go back to in place, beside the oldest.
pub(crate) const MARKS_MAX: usize = 32;
/// Pages that they hold together (128 MB), unless the newest alone has more.
pub(crate) const MARK_PAGES_MAX: usize = 32 << 10;

/// Entries of CPUID that a snapshot may have.
pub(crate) const CPUID_ENTRIES: usize = 256;
/// Model-specific registers that a snapshot may have.
pub(crate) const MSR_ENTRIES: usize = 1024;
/// The largest extended state of a processor (AMX included) that a snapshot may have.
pub(crate) const XSAVE_BYTES: usize = 64 << 10;
/// The whole state of a machine without its memory.
pub(crate) const STATE_BYTES: usize = 4 << 20;

/// How long a worker's answer to one order is waited for. It takes milliseconds; this is for hosts that emulate and
/// are busy.
pub(crate) const WORKER_ANSWER: Duration = Duration::from_secs(60);
/// What a slow disk or a busy host moves at least; an order about all of memory is waited for longer.
pub(crate) const SLOW_BYTES_PER_SECOND: u64 = 16 << 20;
