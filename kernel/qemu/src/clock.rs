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
/// How often both clocks are read, for the two readings that lie closest together.
const TRIES: usize = 3;

/// Both clocks as of one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    counter: u64,
    clock: Instant,
    /// By how much the counter went on while the clock was read: more where this thread was put aside.
    spread: u64,
}

impl Look {
    fn now() -> Self {
        let looks = [(); TRIES].map(|()| {
            let counter = read();
            let clock = Instant::now();
            Self {
                counter,
                clock,
                spread: read().wrapping_sub(counter),
            }
        });
        let [first, ..] = looks;
        looks.into_iter().fold(first, |best, look| {
            if look.spread < best.spread {
                look
            } else {
                best
            }
        })
    }

    /// Ticks and microseconds up to a later look.
    fn until(&self, later: &Self) -> (u64, u64) {
        let took = later.clock.saturating_duration_since(self.clock);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        (later.counter.wrapping_sub(self.counter), micros)
    }
}

/// A look at the counter, for its rate later on: whoever has something else to do meanwhile waits for
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct CounterWatch {
    began: Look,
}

impl CounterWatch {
    /// Looks now.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Look::now() }
    }

    /// Whether the counter runs at `khz`, within a hundredth and what the looks themselves leave open. Too
    /// soon after the start nothing can be told, and nothing is held against it.
    #[must_use]
    pub fn agrees_with(&self, khz: u64) -> bool {
        self.agrees_at(&Look::now(), khz)
    }

    fn agrees_at(&self, now: &Look, khz: u64) -> bool {
        let (ticks, micros) = self.began.until(now);
        if u128::from(micros) < SPAN_MIN.as_micros() {
            return true;
        }
        let expected = khz.saturating_mul(micros) / 1000;
        let open = self.began.spread.saturating_add(now.spread);
        ticks.abs_diff(expected) <= (expected / 100).saturating_add(open)
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
    let began = Look::now();
    std::thread::sleep(SPAN);
    let (ticks, micros) = began.until(&Look::now());
    ticks.saturating_mul(1000) / micros.max(1)
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
    fn a_look_that_was_held_up_is_no_proof() {
        let began = Look {
            counter: 1_000_000,
            clock: Instant::now(),
            spread: 100,
        };
        let watch = CounterWatch { began };
        // A millisecond at 2 GHz; the counter was read 20 us before the clock.
        let mut now = Look {
            counter: began.counter + 1_960_000,
            clock: began.clock + Duration::from_millis(1),
            spread: 100,
        };
        assert!(!watch.agrees_at(&now, 2_000_000));
        now.spread = 40_000;
        assert!(watch.agrees_at(&now, 2_000_000));
        assert!(!watch.agrees_at(&now, 2_200_000));
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
