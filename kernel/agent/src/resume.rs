//! What makes a restored machine differ from its siblings: random numbers, the clock, a name.
#![expect(unsafe_code, reason = "the ioctls of /dev/random have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

use rustix::system::sethostname;
use rustix::time::{ClockId, Timespec, clock_settime};
use vmrepl_wire::limits::ENTROPY_BYTES;

use crate::log;

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

/// What this copy of the machine has been made different with. It keeps its file open: what a resume
/// does not have to look up, no first cell waits for.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    random: Option<File>,
}

impl Identity {
    /// Becomes a copy of its own. Order matters: entropy first, so that nothing that follows draws from
    /// the generator that the siblings share.
    pub(crate) fn renew(
        &mut self,
        entropy: &[u8; ENTROPY_BYTES],
        realtime_ns: u64,
        hostname: Option<&str>,
    ) -> Result<(), String> {
        self.add_entropy(entropy)
            .map_err(|error| format!("entropy: {error}"))?;
        set_clock(realtime_ns).map_err(|error| format!("clock {realtime_ns} ns: {error}"))?;
        if let Some(name) = hostname {
            // A name is a convenience; a copy without a new one still differs.
            if let Err(error) = set_hostname(name) {
                log::warn(format_args!("hostname {name:?}: {error}"));
            }
        }
        Ok(())
    }

    /// Mixes `entropy` into Linux's generator, credits it, and makes the generator use it at once: else
    /// two copies would give the same numbers until its next reseed.
    fn add_entropy(&mut self, entropy: &[u8; ENTROPY_BYTES]) -> io::Result<()> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "64"
        )]
        const BYTES: i32 = ENTROPY_BYTES as i32;
        let random = match self.random.take() {
            Some(random) => random,
            None => OpenOptions::new().write(true).open("/dev/random")?,
        };
        let random = self.random.insert(random);
        let info = PoolInfo {
            entropy_bits: BYTES * 8,
            buffer_bytes: BYTES,
            buffer: *entropy,
        };
        // SAFETY: RNDADDENTROPY reads one rand_pool_info and as many bytes behind it as it says, which
        // is what `info` holds.
        let result =
            unsafe { libc::ioctl(random.as_raw_fd(), RND_ADD_ENTROPY as _, &raw const info) };
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
}

/// Names the machine. What resolves the name asks Linux for it, so no file is to be written.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(valid) {
        return Err(io::Error::other("it is not valid"));
    }
    Ok(sethostname(name.as_bytes())?)
}

/// Sets the wall clock, in nanoseconds since 1970. Monotonic time is left alone: it must never jump.
fn set_clock(realtime_ns: u64) -> io::Result<()> {
    const SECOND_NS: u64 = 1_000_000_000;
    let (seconds, rest_ns) = (realtime_ns / SECOND_NS, realtime_ns % SECOND_NS);
    let time = Timespec {
        tv_sec: i64::try_from(seconds).map_err(io::Error::other)?,
        tv_nsec: i64::try_from(rest_ns).map_err(io::Error::other)?,
    };
    clock_settime(ClockId::Realtime, time)?;
    Ok(())
}
