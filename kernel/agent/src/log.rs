//! The agent's own words, each line a JSON object: to the Linux log of a machine, else to standard error; the last of them stay
//! for whoever asks on the control port.
//!
//! Terse on purpose: in a machine each line may pass a slow serial console.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::panic::Location;
use std::sync::OnceLock;

use vmrepl_wire::stats::{LogLevel, LogLine};

use crate::{ledger, processes};

static LINUX_LOG: OnceLock<File> = OnceLock::new();

/// Sends all further lines to the Linux log. Needs `/dev`.
pub(crate) fn to_linux_log() {
    if let Ok(file) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // A second call leaves the first file in place, which is as good.
        drop(LINUX_LOG.set(file));
    }
}

/// Something that the agent is there for has failed.
#[track_caller]
pub(crate) fn error(message: fmt::Arguments<'_>) {
    write(LogLevel::Error, message);
}

/// Something that an operator needs to know.
#[track_caller]
pub(crate) fn warn(message: fmt::Arguments<'_>) {
    write(LogLevel::Warn, message);
}

/// Something that helps when looking for a fault.
#[track_caller]
pub(crate) fn note(message: fmt::Arguments<'_>) {
    write(LogLevel::Info, message);
}

/// A request and how it went.
#[track_caller]
pub(crate) fn debug(message: fmt::Arguments<'_>) {
    if ledger::level() >= LogLevel::Debug {
        write(LogLevel::Debug, message);
    }
}

/// The lines that are kept, the oldest first.
pub(crate) fn lines() -> Vec<LogLine> {
    let lines = ledger::lines();
    let parsed = lines.iter().map(|line| serde_json::from_slice(line));
    parsed.filter_map(Result::ok).collect()
}

#[track_caller]
fn write(level: LogLevel, message: fmt::Arguments<'_>) {
    if level > ledger::level() {
        return;
    }
    let line = LogLine {
        uptime_ms: processes::uptime_ms(),
        level,
        part: part(Location::caller().file()),
        message: message.to_string(),
    };
    let text = fitting(line);
    ledger::keep_line(text.as_bytes());
    // The numbers of `syslog(2)`.
    let number = match level {
        LogLevel::Error => 3,
        LogLevel::Warn => 4,
        LogLevel::Info => 6,
        LogLevel::Debug => 7,
    };
    // Nobody is left to be told when this fails.
    drop(match LINUX_LOG.get() {
        Some(mut file) => file.write_all(format!("<{number}>vmrepl-agent: {text}\n").as_bytes()),
        None => std::io::stderr().write_all(format!("{text}\n").as_bytes()),
    });
}

/// The name of a source file as that of a part: `workers`, `files.put`.
fn part(file: &str) -> String {
    let inner = file.rsplit_once("src/").map_or(file, |(_, inner)| inner);
    inner.trim_end_matches(".rs").replace('/', ".")
}

/// A line as JSON that has a place in the ledger, its message shortened if need be.
fn fitting(mut line: LogLine) -> String {
    loop {
        let text = serde_json::to_string(&line).unwrap_or_default();
        let length = line.message.chars().count();
        if text.len() <= ledger::TEXT_BYTES || length == 0 {
            return text;
        }
        line.message = line.message.chars().take(length * 3 / 4).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_source_file() {
        assert_eq!(part("kernel/agent/src/files/put.rs"), "files.put");
        assert_eq!(part("main.rs"), "main");
        assert_eq!(part(Location::caller().file()), "log");
    }

    #[test]
    fn a_long_line_is_shortened_and_stays_json() {
        let text = fitting(LogLine {
            message: "\"é\u{1}".repeat(4000),
            ..LogLine::default()
        });
        assert!(text.len() <= ledger::TEXT_BYTES);
        let line: LogLine = serde_json::from_str(&text).unwrap();
        assert!(line.message.starts_with("\"é\u{1}"));
    }
}
