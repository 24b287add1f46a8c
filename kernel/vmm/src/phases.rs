//! When the parts of a restore were done, on the clock that parent and worker share.

use serde::{Deserialize, Serialize};

/// Moments of the host's monotonic clock, in nanoseconds, in the order in which they come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// The parent began.
    pub begun_ns: u64,
    /// The restore was asked for: later than all up to `built_ns` when the worker was a spare one.
    pub asked_ns: u64,
    /// The worker's process was made.
    pub spawned_ns: u64,
    /// The worker ran its first line.
    pub started_ns: u64,
    /// It was in its jail.
    pub jailed_ns: u64,
    /// The machine's shell stood: KVM's machine, memory's slot, processors.
    pub built_ns: u64,
    /// The order to restore had come.
    pub ordered_ns: u64,
    /// Memory was mapped and the pages over it were laid.
    pub mapped_ns: u64,
    /// Processors and devices had their state.
    pub set_ns: u64,
    /// The processors' threads were let run.
    pub run_ns: u64,
}

/// The host's monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
