//! What a cell may take, and how it is said: `memory=512M`.

use std::fmt;
use std::time::Duration;

use vmrepl_wire::cell::CellLimits;

/// Limits of a cell; what is `None` only the machine itself bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Wall time.
    pub time: Option<Duration>,
    /// Processor time of all its processes together.
    pub cpu: Option<Duration>,
    /// Memory that all processes of cells may hold together, in bytes.
    pub memory_bytes: Option<u64>,
    /// What it may write to both streams together, in bytes.
    pub output_bytes: Option<u64>,
    /// Processes and threads at once, the interpreter's own included.
    pub processes: Option<u64>,
}

/// Words that set no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "limit {wish:?}: {problem}; say time=10, cpu=10, memory=512M, output=100M or processes=64, or NAME=none"
)]
pub struct LimitError {
    wish: String,
    problem: String,
}

/// The least memory that leaves the interpreter alive, in bytes.
const MEMORY_MIN_BYTES: u64 = 32 << 20;
/// The interpreter's own threads and some more.
const PROCESSES_MIN: u64 = 8;

impl Limits {
    /// For whoever works in a session for long: nothing but output without end is stopped.
    pub const SESSION: Self = Self {
        time: None,
        cpu: None,
        memory_bytes: None,
        output_bytes: Some(128 << 20),
        processes: None,
    };

    /// Sets one limit by its name, or takes it away: `cpu=10`, `memory=512M`, `time=none`. Times are in seconds; sizes
    /// in bytes, or with K, M or G in units of 1024.
    ///
    /// # Errors
    /// When the name is not known, or the value is none that it can have.
    pub fn set(&mut self, wish: &str) -> Result<(), LimitError> {
        let wrong = |problem: String| LimitError {
            wish: wish.to_owned(),
            problem,
        };
        let (name, value) = wish
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
            .ok_or_else(|| wrong("it has no value".to_owned()))?;
        let none = value == "none";
        let least = |least: u64, found: Result<u64, String>| match found {
            Ok(count) if count < least => Err(format!("the least is {least}")),
            other => other,
        };
        match name {
            "time" => self.time = unless(none, || seconds(value)).map_err(wrong)?,
            "cpu" => self.cpu = unless(none, || seconds(value)).map_err(wrong)?,
            "memory" => {
                self.memory_bytes =
                    unless(none, || least(MEMORY_MIN_BYTES, bytes(value))).map_err(wrong)?;
            }
            "output" => {
                self.output_bytes = unless(none, || bytes(value)).map_err(wrong)?;
            }
            "processes" => {
                let count = || value.parse().map_err(|_| "not a whole number".to_owned());
                self.processes = unless(none, || least(PROCESSES_MIN, count())).map_err(wrong)?;
            }
            _ => return Err(wrong("there is no limit of this name".to_owned())),
        }
        Ok(())
    }

    /// As the guest is told. Wall time is a field of its own there.
    pub(crate) fn on_the_wire(&self) -> Option<CellLimits> {
        let limits = CellLimits {
            output_bytes: None,
            written_bytes: self.output_bytes,
            cpu_ms: self.cpu.map(milliseconds),
            memory_bytes: self.memory_bytes,
            processes: self.processes,
        };
        (limits != CellLimits::default()).then_some(limits)
    }
}

/// A time as the wire counts it.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unless<T>(none: bool, value: impl FnOnce() -> Result<T, String>) -> Result<Option<T>, String> {
    if none { Ok(None) } else { value().map(Some) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "not a number of seconds".to_owned())
}

/// A size as people write it: `512M`.
///
/// # Errors
/// When it is none, as words for whoever wrote it.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim_end_matches(['B', 'b']);
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1_u64),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .ok_or_else(|| "not a size such as 512M".to_owned())
}

/// A size in the largest unit that it is a whole number of.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes > 0 && bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: Option<Duration>| time.map(|time| time.as_secs_f64().to_string());
        let parts = [
            ("time", time(self.time)),
            ("cpu", time(self.cpu)),
            ("memory", self.memory_bytes.map(size)),
            ("output", self.output_bytes.map(size)),
            ("processes", self.processes.map(|count| count.to_string())),
        ];
        for (at, (name, value)) in parts.into_iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{name}={}", value.as_deref().unwrap_or("none"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(wishes: &[&str]) -> Result<String, LimitError> {
        let mut limits = Limits::default();
        wishes.iter().try_for_each(|wish| limits.set(wish))?;
        Ok(limits.to_string())
    }

    #[test]
    fn what_is_set_is_told() {
        let all = [
            "time=10",
            "cpu=0.5s",
            "memory=512M",
            "output=1g",
            "processes=64",
        ];
        let told = "time=10 cpu=0.5 memory=512M output=1G processes=64";
        assert_eq!(made(&all).unwrap(), told);
        assert_eq!(
            made(&["output=1025"]).unwrap().split(' ').nth(3),
            Some("output=1025")
        );
        assert_eq!(
            made(&["output=100KB"]).unwrap().split(' ').nth(3),
            Some("output=100K")
        );
        let none = "time=none cpu=none memory=none output=none processes=none";
        assert_eq!(made(&["time = 10", "time=none"]).unwrap(), none);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (wish, problem) in [
            ("memory", "it has no value"),
            ("ram=1G", "there is no limit of this name"),
            ("memory=lots", "not a size"),
            ("memory=1M", "the least is 33554432"),
            ("memory=99999999999999G", "not a size"),
            ("time=-1", "not a number of seconds"),
            ("time=0", "not a number of seconds"),
            ("cpu=inf", "not a number of seconds"),
            ("processes=2", "the least is 8"),
            ("processes=1.5", "not a whole number"),
        ] {
            let error = made(&[wish]).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(wish), "{error}");
        }
    }
}
