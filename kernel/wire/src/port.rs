//! The guest's ports: the same numbers on every engine and on the host's socket.

/// Control: resume, quiesce, interrupt, kill, stats. One JSON object a line.
pub const CONTROL: u32 = 9;

/// Cells: one JSON object a line.
pub const CELLS: u32 = 10_000;

/// Run, put and get: binary frames.
pub const FILES: u32 = 1024;

/// Exec with a terminal: gRPC.
pub const EXEC: u32 = 2222;

/// Programs in many languages: length-prefixed JSON.
pub const LANGUAGES: u32 = 52_000;
