//! Figures about the guest, and the agent's log: what the control port tells of both.

use serde::{Deserialize, Serialize};

/// Figures about the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Resident memory of the agent, in bytes.
    pub agent_rss_bytes: u64,
    /// The part of it that belongs to no file, in bytes.
    pub agent_anon_bytes: u64,
    /// Time since the guest booted, in milliseconds; stands still while frozen.
    pub uptime_ms: u64,
    /// Memory of the guest, in bytes.
    pub mem_total_bytes: u64,
    /// Memory that new processes could have, in bytes.
    pub mem_available_bytes: u64,
    /// The runner's process id in the guest.
    pub runner_pid: Option<u32>,
    /// Resident memory of the runner, in bytes.
    pub runner_rss_bytes: u64,
    /// The guest's Linux version.
    pub linux: String,
    /// The agent's version.
    pub agent_version: String,
    /// The generation of the wire that the agent speaks.
    pub wire_generation: u32,
    /// What was asked for since the guest booted, by kind; kinds that nobody asked for are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Tally>,
}

/// How requests of one kind went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// `cell`, an operation of the files port, or the language of a program.
    pub kind: String,
    /// How many have ended.
    pub count: u64,
    /// How many of them did what was asked, with the exit code 0 where there is one.
    pub succeeded: u64,
    /// The time of all together, in microseconds.
    pub total_us: u64,
    /// The time of the longest, in microseconds.
    pub longest_us: u64,
    /// How many took how long: item `n` counts those of at least 2^(n-1) and less than 2^n microseconds. Ends at the last that
    /// is not 0.
    pub histogram: Vec<u64>,
}

impl Tally {
    /// A time that so many of a hundred requests did not exceed, in microseconds, rounded up to a power of two or the longest.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> u64 {
        let wanted = self.count.saturating_mul(percent).div_ceil(100);
        let mut seen = 0;
        for (power, count) in self.histogram.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (1_u64 << power.min(63)).min(self.longest_us);
            }
        }
        self.longest_us
    }
}

/// How much a line of the log weighs, the heaviest first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something failed that the guest is there for.
    Error,
    /// Something that an operator needs to know.
    Warn,
    /// Something that helps when looking for a fault.
    #[default]
    Info,
    /// Each request and how it went.
    Debug,
}

/// A line of the agent's log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// When, in milliseconds since the guest booted.
    pub uptime_ms: u64,
    /// Its weight.
    pub level: LogLevel,
    /// The part of the agent that says it.
    pub part: String,
    /// What it says.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_no_less_than_its_share() {
        let tally = Tally {
            count: 4,
            longest_us: 900,
            // Two of 0 us, one of 2 or 3, one of 512 to 1023.
            histogram: vec![2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            ..Tally::default()
        };
        assert_eq!(tally.percentile_us(50), 1);
        assert_eq!(tally.percentile_us(75), 4);
        assert_eq!(tally.percentile_us(99), 900);
        assert_eq!(Tally::default().percentile_us(50), 0);
    }

    #[test]
    fn levels_are_in_order() {
        assert!(LogLevel::Error < LogLevel::Warn && LogLevel::Info < LogLevel::Debug);
        assert_eq!(serde_json::to_string(&LogLevel::Warn).unwrap(), "\"warn\"");
    }
}
