//! Figures about a session's guest, for people.

use std::fmt::Write as _;

use vmrepl_wire::control::{ControlReply, ControlRequest};
use vmrepl_wire::stats::{LogLevel, LogLine, Stats, Tally};

use crate::error::SessionError;
use crate::session::Session;

impl Session {
    /// The last lines of the guest agent's log.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn logs(&mut self) -> Result<Vec<LogLine>, SessionError> {
        self.ask_control(&ControlRequest::Logs, |reply| match reply {
            ControlReply::Logs { lines } => Some(lines),
            _ => None,
        })
    }

    /// Has the guest's agent keep log lines of this level, and those that weigh more, from now on.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn set_log_level(&mut self, level: LogLevel) -> Result<(), SessionError> {
        self.ask_control(&ControlRequest::LogLevel { level }, |reply| match reply {
            ControlReply::LogLevel { .. } => Some(()),
            _ => None,
        })
    }
}

/// All figures as text, one a line, then a table of what was asked for.
#[must_use]
pub fn stats_text(stats: &Stats) -> String {
    let mut text = String::new();
    let mib = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let lines = [
        ("linux", stats.linux.clone()),
        ("agent", stats.agent_version.clone()),
        ("up", format!("{:.1} s", stats.uptime_ms as f64 / 1000.0)),
        ("memory", mib(stats.mem_total_bytes)),
        ("available", mib(stats.mem_available_bytes)),
        ("interpreter", mib(stats.runner_rss_bytes)),
        (
            "agent's own",
            format!(
                "{}, {} of it in no file",
                mib(stats.agent_rss_bytes),
                mib(stats.agent_anon_bytes)
            ),
        ),
    ];
    for (name, value) in lines {
        // Writing to a string cannot fail.
        let (Ok(()) | Err(_)) = writeln!(text, "{name:>12}  {value}");
    }
    if !stats.requests.is_empty() {
        text.push_str(
            "\nrequests since the guest booted   count       ok      p50      p99  longest\n",
        );
    }
    for tally in &stats.requests {
        let Tally {
            kind,
            count,
            succeeded,
            longest_us,
            ..
        } = tally;
        let [p50, p99] = [50, 99].map(|percent| time(tally.percentile_us(percent)));
        let longest = time(*longest_us);
        let (Ok(()) | Err(_)) = writeln!(
            text,
            "{kind:<31} {count:>7}  {succeeded:>7}  {p50:>7}  {p99:>7}  {longest:>7}"
        );
    }
    text
}

/// A line of the log as text.
#[must_use]
pub fn log_text(line: &LogLine) -> String {
    let level = match line.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    let seconds = line.uptime_ms as f64 / 1000.0;
    format!(
        "{seconds:>10.3}  {level:<5}  {}: {}",
        line.part, line.message
    )
}

fn time(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        let text = stats_text(&Stats {
            mem_total_bytes: 1_500_000,
            requests: vec![Tally {
                kind: "cell".to_owned(),
                count: 3,
                succeeded: 2,
                total_us: 9,
                longest_us: 2_500_000,
                histogram: vec![0, 0, 2, 0, 1],
            }],
            ..Stats::default()
        });
        assert!(text.contains("      memory  1.5 MB\n"), "{text}");
        let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(row, ["cell", "3", "2", "4", "us", "16", "us", "2.5", "s"]);
    }
}
