//! The rate of the host's time stamp counter, which an emulated guest sees as its own.
//!
//! Linux finds that rate by watching the emulated interval timer. On a busy host the watching is
//! disturbed, Linux gives the counter up, has no other clock on this machine, and hangs. So the rate is
//! measured here, against the host's clock, and told on the guest's command line.
#![expect(unsafe_code, reason = "the counter has no safe door in std")]

use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_millis(10);
const ROUNDS: usize = 5;

/// The shortest span that tells a rate well enough: reading both clocks takes well under a microsecond.
const SPAN_MIN: Duration = Duration::from_micros(500);

/// A look at the counter, for its rate later on: whoever has something else to do meanwhile waits for
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct CounterWatch {
    from: u64,
    began: Instant,
}

impl CounterWatch {
    /// Looks now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            from: read(),
            began: Instant::now(),
        }
    }

    /// Whether the counter runs at `khz`, within a hundredth. Too soon after the start nothing can be
    /// told, and nothing is held against it.
    #[must_use]
    pub fn agrees_with(&self, khz: u64) -> bool {
        let (to, took) = (read(), self.began.elapsed());
        if took < SPAN_MIN {
            return true;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let found = to.wrapping_sub(self.from).saturating_mul(1000) / micros;
        found.abs_diff(khz) <= khz / 100
    }
}

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
    fn another_rate_is_noticed() {
        let (watch, khz) = (CounterWatch::start(), counter_khz());
        assert!(watch.agrees_with(khz));
        assert!(!watch.agrees_with(khz * 11 / 10));
        assert!(!watch.agrees_with(khz * 9 / 10));
        assert!(CounterWatch::start().agrees_with(1), "too soon to tell");
    }

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
