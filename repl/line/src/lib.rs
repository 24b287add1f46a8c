//! The terminal face: lines in, cells to the session, what they say to a writer.
//!
//! In: a live session and settings. Out: text on the writer that it was given. Never: a decision about
//! what a session is, a word printed past that writer.

mod editor;
mod face;
mod sanitise;

pub use face::{LineError, Settings, run};
pub use sanitise::Sanitiser;
