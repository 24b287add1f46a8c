//! Running a program with its input and, if wanted, a terminal: the operation `exec` of the files port.
//!
//! After the request both sides speak at once. The client sends [`Tag::Stdin`](crate::files::Tag::Stdin) frames, an end frame
//! when there is no more, and [`ExecInput`] objects; the guest sends output frames and at last one
//! [`FilesReply`](crate::files::FilesReply).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::languages::Language;

/// The code of a program that took too long.
pub const TIMED_OUT: i32 = 124;

/// The code of a program that is there and cannot be run, or not in this folder or as this user.
pub const CANNOT_RUN: i32 = 126;

/// The code of a program that is not there.
pub const NOT_FOUND: i32 = 127;

/// Added to the number of the signal that ended a program.
pub const BY_SIGNAL: i32 = 128;

/// What to run, and how.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExecStart {
    /// The program and its arguments; the user's login shell when empty.
    #[serde(default)]
    pub command: Vec<String>,
    /// On a terminal of its own: input, output and errors are one.
    #[serde(default)]
    pub tty: bool,
    /// The terminal's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowSize>,
    /// Input will come; without it the program finds its input empty. A terminal always has input.
    #[serde(default)]
    pub stdin: bool,
    /// Added to the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The folder that it starts in: the user's home without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The user's name or number: the ordinary user without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Wall time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// What it may take.
    #[serde(default, skip_serializing_if = "ExecLimits::is_none")]
    pub limits: ExecLimits,
}

/// A program that comes as its source: it is compiled, if need be, and run.
///
/// It runs as the ordinary user, whose machine it is; strangers' programs go to the languages port. What a compiler says comes
/// as its standard error, and one that refuses the source ends it all by [`ExecEnd::CompilationFailed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecSource {
    /// What it is written in.
    pub language: Language,
    /// The source.
    pub code: String,
    /// How to run it; `command` holds its arguments. The wall time is that of both.
    #[serde(flatten)]
    pub start: ExecStart,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// What a program and all that it starts may take together, or each where it says so; absent for no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecLimits {
    /// Processor time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Open files of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// The size of each file that is written, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
}

impl ExecLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a client says while the program runs, besides its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ExecInput {
    /// The terminal has another size now.
    Resize(WindowSize),
    /// A signal for the program's process group; for that in the foreground on a terminal.
    Signal {
        /// Its number.
        number: i32,
    },
}

/// Why a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecEnd {
    /// By itself.
    Exited,
    /// By a signal.
    Signalled,
    /// It was killed when its wall time was over.
    TimedOut,
    /// It was killed when its processor time was over.
    CpuExceeded,
    /// Linux killed it, or a part of it, for lack of memory.
    MemoryExceeded,
    /// It could not be started.
    NotStarted,
    /// The compiler refused its source.
    CompilationFailed,
}

/// What a program and all that it started took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecUsage {
    /// Wall time, in microseconds.
    pub wall_us: u64,
    /// Processor time in the program, in microseconds.
    pub user_us: u64,
    /// Processor time in Linux for it, in microseconds.
    pub system_us: u64,
    /// The most memory at any moment, in bytes.
    pub peak_memory_bytes: u64,
}
