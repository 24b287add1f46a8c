//! The rate of the host's time stamp counter, which an emulated guest sees as its own.
//!
//! Linux finds that rate by watching the emulated interval timer. On a busy host the watching is
//! disturbed, Linux gives the counter up, has no other clock on this machine, and hangs. So the rate is
//! measured here, against the host's clock, and told on the guest's command line.
#![expect(unsafe_code, reason = "the counter has no safe door in std")]

use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_millis(10);
const ROUNDS: usize = 5;

/// The counter's rate in kHz: the median of a few short measurements (50 ms in all).
#[must_use]
pub fn counter_khz() -> u64 {
    let mut rates: Vec<u64> = (0..ROUNDS).map(|_| measure()).collect();
    rates.sort_unstable();
    rates[ROUNDS / 2]
}

fn measure() -> u64 {
    let (from, began) = (read(), Instant::now());
    std::thread::sleep(SPAN);
    let (to, took) = (read(), began.elapsed());
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    to.wrapping_sub(from).saturating_mul(1000) / micros
}

fn read() -> u64 {
    // SAFETY: every x86-64 processor has this instruction, and it touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_stable() {
        let (first, second) = (counter_khz(), counter_khz());
        assert!(first > 100_000, "{first} kHz");
        assert!(
            first.abs_diff(second) * 50 < first,
            "{first} and {second} kHz"
        );
    }
}
