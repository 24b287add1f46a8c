//! Limits on what QEMU, and through it the guest, may hand us.

use std::time::Duration;

/// Bytes of one guest page.
pub const PAGE_BYTES: usize = 4096;
/// The largest device state taken from QEMU. The real one is about 10 KB.
pub const STATE_BYTES_MAX: u64 = 16 << 20;
/// The longest QMP line read. Greetings and answers are under 4 KB.
pub(crate) const QMP_LINE_BYTES_MAX: usize = 256 << 10;
/// How long QMP may take to answer one command on a crowded host.
pub(crate) const QMP_DEADLINE: Duration = Duration::from_secs(60);
/// How much of QEMU's stderr and of the boot console is kept for an error's text.
pub(crate) const TAIL_BYTES: usize = 4096;
/// Bytes of emulation code cache. Pinned: its size is part of the machine's behaviour under load.
pub(crate) const CODE_CACHE_MIB: u32 = 256;
/// The oldest QEMU whose ways are known.
pub(crate) const OLDEST: (u32, u32) = (7, 2);
