//! What makes a restored machine differ from its siblings: random numbers and the clock.
#![expect(unsafe_code, reason = "the ioctls of /dev/random have no safe wrapper")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd as _;

use rustix::time::{ClockId, Timespec, clock_settime};
use vmrepl_wire::limits::ENTROPY_BYTES;

/// `RNDADDENTROPY` of `random(4)`.
const RND_ADD_ENTROPY: u64 = 0x4008_5203;

/// `RNDRESEEDCRNG` of `random(4)`.
const RND_RESEED_CRNG: u64 = 0x5207;

/// `struct rand_pool_info` of `random(4)`, with its buffer.
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    buffer_bytes: i32,
    buffer: [u8; ENTROPY_BYTES],
}

/// Mixes `entropy` into Linux's generator, credits it, and makes the generator use it at once: else
/// two copies would give the same numbers until its next reseed.
pub(crate) fn add_entropy(entropy: &[u8; ENTROPY_BYTES]) -> io::Result<()> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "64"
    )]
    const BYTES: i32 = ENTROPY_BYTES as i32;
    let random = OpenOptions::new().write(true).open("/dev/random")?;
    let info = PoolInfo {
        entropy_bits: BYTES * 8,
        buffer_bytes: BYTES,
        buffer: *entropy,
    };
    // SAFETY: RNDADDENTROPY reads one rand_pool_info and as many bytes behind it as it says, which
    // is what `info` holds.
    let result = unsafe { libc::ioctl(random.as_raw_fd(), RND_ADD_ENTROPY as _, &raw const info) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: RNDRESEEDCRNG has no argument.
    let result = unsafe { libc::ioctl(random.as_raw_fd(), RND_RESEED_CRNG as _) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the wall clock, in nanoseconds since 1970. Monotonic time is left alone: it must never jump.
pub(crate) fn set_clock(realtime_ns: u64) -> io::Result<()> {
    const SECOND_NS: u64 = 1_000_000_000;
    let (seconds, rest_ns) = (realtime_ns / SECOND_NS, realtime_ns % SECOND_NS);
    let time = Timespec {
        tv_sec: i64::try_from(seconds).map_err(io::Error::other)?,
        tv_nsec: i64::try_from(rest_ns).map_err(io::Error::other)?,
    };
    clock_settime(ClockId::Realtime, time)?;
    Ok(())
}
