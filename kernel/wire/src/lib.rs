//! What the host and the guest say to each other, as data.
//!
//! In: bytes in arbitrary chunks from any transport. Out: frames, lines and typed messages, and the
//! bytes to send. Never here: I/O, threads, clocks, an engine, Python, a terminal.
//!
//! `PROTOCOL.md` beside this crate tells the formats in prose; `tests/golden/wire/` holds examples
//! that only grow.

pub mod limits;
pub mod port;

mod buffer;

pub mod connect;
pub mod copying;
pub mod exec;
pub mod files;
pub mod languages;
pub mod line;
pub mod mux;
pub mod runner;
pub mod stats;

pub mod cell;
pub mod control;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

/// The generation of every message in this crate. It moves only when a message changes its meaning;
/// additions do not move it.
pub const GENERATION: u32 = 1;
