//! The agent's own words: to the Linux log of a machine, else to standard error.
//!
//! Terse on purpose: in a machine each line may pass a slow serial console.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::OnceLock;

static LINUX_LOG: OnceLock<File> = OnceLock::new();

/// Sends all further lines to the Linux log. Needs `/dev`.
pub(crate) fn to_linux_log() {
    if let Ok(file) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // A second call leaves the first file in place, which is as good.
        drop(LINUX_LOG.set(file));
    }
}

/// Something that an operator needs to know.
pub(crate) fn warn(line: fmt::Arguments<'_>) {
    write('4', line);
}

/// Something that helps when looking for a fault.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    write('6', line);
}

fn write(level: char, line: fmt::Arguments<'_>) {
    // Nobody is left to be told when this fails.
    drop(match LINUX_LOG.get() {
        Some(mut file) => file.write_all(format!("<{level}>vmrepl-agent: {line}\n").as_bytes()),
        None => std::io::stderr().write_all(format!("vmrepl-agent: {line}\n").as_bytes()),
    });
}
